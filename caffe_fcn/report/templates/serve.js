// Send the image that is dropped, pasted or chosen; show what comes back.
let sent = 0;

async function send(file) {
  const mine = ++sent;
  if (file.size > {{bytes}}) {
    say('bad', `${file.name || 'The image'}: the file is larger than {{size}}`);
    return;
  }
  say('busy', `Labelling ${file.name || 'the image'} …`);
  try {
    const began = performance.now();
    const answer = await fetch(`segment?name=${encodeURIComponent(file.name || 'image')}`, { method: 'POST', body: file });
    const found = await answer.json();
    if (mine !== sent) return;
    if (!answer.ok) {
      say('bad', `${file.name || 'The image'}: ${found.error}`);
      return;
    }
    find('#answers').hidden = !found.answers;
    find('#viewer').hidden = Boolean(found.answers);
    if (found.answers) answers(found);
    else await view(found);
    say('', `${found.name}: ${found.size.join(' × ')} pixels${found.tiled ? ', labelled in tiles' : ''}, ${((performance.now() - began) / 1000).toFixed(1)} s`);
  } catch (error) {
    if (mine === sent) say('bad', `No answer: ${error.message}. Is the server still running?`);
  }
}

// What a model says that labels no pixels.
function answers(found) {
  const card = (title, note, ...parts) => make('figure', { class: 'card' }, make('h2', {}, title), make('p', { class: 'note' }, note), ...parts);
  const image = (source, alt) => make('img', { src: source, alt });
  const shown = found.answers.map((answer) => {
    if (answer.kind === 'picture') {
      return card(answer.name, `${answer.size.join(' × ')} ${answer.told}`, image(answer.picture, `The picture ${answer.name}`));
    }
    if (answer.kind === 'numbers') {
      return card(answer.name, answer.shape, make('pre', { tabindex: 0 }, answer.first.join('\n')));
    }
    const lines = answer.classes.map((c) => {
      const bar = make('td', { class: 'number share' }, percent(c.share));
      bar.style.setProperty('--share', `${(100 * c.share).toFixed(1)}%`);
      return make('tr', {}, make('td', {}, c.name), bar, make('td', { class: 'number soft' }, String(c.score)));
    });
    const head = make('thead', {}, make('tr', {}, ...['class', 'softmax', 'score'].map((text, i) => make('th', { scope: 'col', class: i ? 'number' : null }, text))));
    return card(answer.name, `the best ${answer.classes.length} of ${answer.of} classes`, make('table', {}, head, make('tbody', {}, ...lines)));
  });
  find('#answers').replaceChildren(card(found.name, found.size.join(' × '), image(found.image, `The image ${found.name}`)), ...shown);
}

function say(css, text) {
  find('#state').className = css;
  find('#state').textContent = text;
}

const drop = find('#drop');
find('#file').addEventListener('change', (event) => { if (event.target.files[0]) send(event.target.files[0]); });
for (const kind of ['dragenter', 'dragover']) {
  addEventListener(kind, (event) => {
    event.preventDefault();
    drop.classList.add('over');
  });
}
for (const kind of ['dragleave', 'drop']) addEventListener(kind, () => drop.classList.remove('over'));
addEventListener('drop', (event) => {
  event.preventDefault();
  const file = event.dataTransfer?.files[0];
  if (file) send(file);
  else say('bad', 'What was dropped is no file.');
});
addEventListener('paste', (event) => {
  const file = event.clipboardData?.files[0];
  if (file) send(file);
});
