// The box for the input's size, the facts, the graph.
const outputs = () => DATA.outputs.map((name) => {
  const row = ROWS.findLast((r) => (r.tops || []).includes(name));
  return row ? `${name} ${numbers(row.shapes[row.tops.indexOf(name)])}` : name;
});
const sum = (key) => ROWS.reduce((total, row) => total + number(row[key] || 0), 0);
const macs = (n) => (/ /.test(count(n)) ? `${count(n)}MAC` : `${count(n)} MAC`);

function setFact(name, text) {
  const place = find(`[data-fact="${name}"]`);
  if (place) place.textContent = text;
}

function tellFacts() {
  const ok = !failing;
  const { most, layer } = ok ? live() : {};
  setFact('input', Object.entries(DATA.inputs).map(([name, shape]) => `${name} ${numbers(shape)}`).join(', ') || 'none');
  setFact('output', ok ? outputs().join(', ') : DATA.outputs.join(', '));
  setFact('arithmetic', ok ? `${macs(sum('macs'))} for one pass` : '–');
  setFact('activations', ok ? `${bytes(sum('memory'))}, all blobs together` : '–');
  setFact('at once', ok ? `${bytes(most)} at most (in ${layer}) if each blob is let go after its last reader` : '–');
  const verdict = find('#verdict');
  verdict.classList.toggle('bad', !ok);
  verdict.dataset.layer = ok ? '' : ROWS[failing.row].name;
  verdict.textContent = ok ? `Every layer works: ${outputs().join(', ')}.` : `${failing.told} ${smallest()}`;
}

// What the net takes at least, for sizes that do not work.
function smallest() {
  const { sizes, failing: gaps } = DATA.smallest || {};
  if (!sizes) return '';
  const least = Object.entries(sizes).map(([s, n]) => `${s} = ${n}`).join(', ');
  if (Object.keys(sizes).some((s) => at[s] < sizes[s])) return `The smallest that works is ${least}.`;
  const gap = Object.keys(sizes).find((s) => at[s] > sizes[s] && (gaps[s] || []).length);
  return gap ? `${least} is the smallest that works, but not every larger size does.` : '';
}

function tellBoxes() {
  const boxes = Object.keys(DATA.symbols).map((symbol) => make('label', {}, symbol,
    make('input', { type: 'number', min: 1, max: 100000, step: 1, value: at[symbol], 'data-symbol': symbol, inputmode: 'numeric', oninput: typed })));
  const names = Object.entries(DATA.inputs).map(([name, shape]) => `${name} ${shape.map(formula).join(' × ')}`).join(', ');
  const fixed = Object.entries(DATA.fixed).map(([symbol, layer]) => `${symbol} has to stay as it is, because of ${layer}`);
  find('#boxes').append(make('span', { class: 'soft' }, `Input ${names}`), ...boxes,
    fixed.length ? make('span', { class: 'soft' }, fixed.join('; ')) : '');
}

function typed() {
  const sizes = {};
  for (const box of all('#boxes input')) {
    const n = Number(box.value);
    const fine = Number.isInteger(n) && n >= 1 && n <= 100000;
    box.setAttribute('aria-invalid', String(!fine));
    if (!fine) {
      find('#verdict').className = 'bad';
      find('#verdict').dataset.layer = '?';
      find('#verdict').textContent = `${box.dataset.symbol} has to be a whole number from 1 to 100000.`;
      return;
    }
    sizes[box.dataset.symbol] = n;
  }
  setSizes(sizes);
  tell();
}

// Everything that depends on the input's size.
function tell() {
  tellFacts();
  find('#reset').hidden = Object.entries(DATA.symbols).every(([symbol, n]) => at[symbol] === n);
  for (const element of all('[data-shape]')) {
    const { shapes = [] } = ROWS[element.dataset.shape];
    if (!shapes.length) continue;
    const first = (shapes[0].length > 1 ? shapes[0].slice(1) : shapes[0]).map(number).join('×');
    element.textContent = first + (shapes.length > 1 ? ` ×${shapes.length}` : '');
  }
  for (const element of buttons) {
    const row = Number(element.dataset.row);
    element.classList.toggle('fails', failing?.row === row);
    element.classList.toggle('beyond', failing != null && row >= failing.row);
    const told = failing?.row === row ? 'does not work' : (ROWS[row].shapes || []).slice(0, 1).map(numbers).join();
    element.setAttribute('aria-label', [ROWS[row].name, ROWS[row].type, told].filter(Boolean).join(', '));
  }
  tellTable();
  tellCrops();
  tellLayer();
}

const buttons = all('#graph .layer');
buttons.forEach((button) => button.setAttribute('role', 'button'));
let chosen = -1;

function choose(index, { focus = false, scroll = true } = {}) {
  if (!ROWS[index]) return;
  chosen = index;
  for (const button of buttons) {
    const here = Number(button.dataset.row) === index;
    button.setAttribute('aria-pressed', String(here));
    button.setAttribute('tabindex', here ? '0' : '-1');
    if (here && focus) button.focus({ preventScroll: true });
    if (here && scroll) show(button);
  }
  const near = new Set([String(index), String(boxOf(index))]);
  for (const edge of all('#graph .edge')) edge.classList.toggle('near', near.has(edge.dataset.from) || near.has(edge.dataset.to));
  all('#table tbody tr').forEach((row) => row.classList.toggle('chosen', Number(row.dataset.row) === index));
  tellLayer();
}

// Bring a box into view inside its pane; the page itself stays where it is.
function show(button) {
  const pane = find('.pane').getBoundingClientRect(), box = button.getBoundingClientRect();
  const over = (from, to) => (box[from] < pane[from] + 10 ? box[from] - pane[from] - 60 : box[to] > pane[to] - 10 ? box[to] - pane[to] + 60 : 0);
  find('.pane').scrollBy(over('left', 'right'), over('top', 'bottom'));
}

function boxOf(index) {
  const button = buttons.find((b) => Number(b.dataset.row) === index);
  return button ? find('.layer', button.parentNode).dataset.row : index;
}

const chooseNamed = (name, options) => choose(ROWS.findIndex((row) => row.name === name), options);

find('#graph').addEventListener('click', (event) => {
  const button = event.target.closest('.layer');
  if (button) choose(Number(button.dataset.row), { focus: true, scroll: false });
});
find('#graph').addEventListener('keydown', (event) => {
  const order = buttons.map((b) => Number(b.dataset.row)).sort((a, b) => a - b);
  const place = order.indexOf(chosen);
  const next = { ArrowDown: place + 1, ArrowRight: place + 1, ArrowUp: place - 1, ArrowLeft: place - 1, Home: 0, End: order.length - 1 }[event.key];
  if (next === undefined) return;
  event.preventDefault();
  choose(order[Math.min(Math.max(next, 0), order.length - 1)], { focus: true });
});
find('#size').addEventListener('submit', (event) => event.preventDefault());
find('#reset').addEventListener('click', () => {
  all('#boxes input').forEach((box) => { box.value = DATA.symbols[box.dataset.symbol]; });
  typed();
});
addEventListener('hashchange', () => chooseNamed(decodeURIComponent(location.hash.slice(1))));
