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
    await view(found);
    say('', `${found.name}: ${found.size.join(' × ')} pixels${found.tiled ? ', labelled in tiles' : ''}, ${((performance.now() - began) / 1000).toFixed(1)} s`);
  } catch (error) {
    if (mine === sent) say('bad', `No answer: ${error.message}. Is the server still running?`);
  }
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
