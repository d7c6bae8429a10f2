// An image, its labels and the two together; the same for a page of a run and for the page of a server.
const RAMP = [[0, 0, 4], [81, 18, 124], [183, 55, 121], [252, 137, 97], [252, 253, 191]]; // unsure to sure
const viewer = { entry: null, output: null, labels: null, sure: null, alone: null };
const stages = Object.fromEntries(all('#figures .stage').map((stage) => [stage.dataset.stage, stage]));
let spot = null; // [row, column] that is pointed at, in pixels of what is shown
let turn = 0; // pictures are decoded while others may be asked for

async function view(entry) {
  viewer.entry = entry;
  find('#viewer').hidden = false;
  all('.stage img').forEach((image) => { image.src = entry.image; });
  stages.overlay.style.setProperty('--aspect', entry.shown[1] / entry.shown[0]);
  find('.stage img').alt = `The image ${entry.name}`;
  find('#outputs').replaceChildren(...(entry.outputs.length > 1 ? entry.outputs.map((output) => make('button', {
    type: 'button', role: 'radio', 'data-output': output.name, onclick: () => choose(output),
  }, output.name)) : []));
  await choose(entry.outputs[0]);
}

async function choose(output) {
  const mine = ++turn;
  const labels = await pixels(output.labels), sure = output.confidence ? await pixels(output.confidence) : null;
  if (mine !== turn) return;
  Object.assign(viewer, { output, alone: null, labels: labels.map(labelOf), sure: sure?.map((p) => p & 255) });
  all('#outputs button').forEach((button) => button.setAttribute('aria-checked', String(button.dataset.output === output.name)));
  all('[data-needs="confidence"]').forEach((element) => { element.hidden = !sure; });
  if (sure) find('#sure').textContent = `The winning class has ${percent(output.sure)} of the softmax on average.`;
  find('#clear').hidden = !output.classes.some(({ label, name }) => label === 0 && name === 'background');
  tellLegend();
  paint();
  point(null);
}

// Red is the low byte of a label, green the high one; grey pictures hold one byte.
const labelOf = (pixel) => {
  const [red, green, blue] = [pixel & 255, (pixel >> 8) & 255, (pixel >> 16) & 255];
  return red === green && green === blue ? red : red + 256 * green;
};

// The pixels of a picture as numbers: red + 256 green + 65536 blue.
async function pixels(address) {
  const image = new Image();
  image.src = address;
  await image.decode();
  const canvas = make('canvas', { width: image.naturalWidth, height: image.naturalHeight });
  const context = canvas.getContext('2d', { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  const bytes = context.getImageData(0, 0, canvas.width, canvas.height).data;
  return Uint32Array.from({ length: bytes.length / 4 }, (_, i) => bytes[4 * i] + 256 * bytes[4 * i + 1] + 65536 * bytes[4 * i + 2]);
}

const percent = (share) => (share > 0 && share < 0.001 ? '<0.1 %' : `${(100 * share).toFixed(1)} %`);
const known = (label) => viewer.output.classes.find((c) => c.label === label);

function tellLegend() {
  const sure = Boolean(viewer.sure);
  find('#legend tbody').replaceChildren(...viewer.output.classes.map((c) => {
    const swatch = make('i', {});
    swatch.style.background = `rgb(${c.colour.join(' ')})`;
    const button = make('button', { type: 'button', 'aria-pressed': 'false', onclick: () => alone(c.label) }, swatch, c.name);
    return make('tr', { 'data-label': c.label }, make('td', {}, button), make('td', { class: 'number' }, percent(c.share)),
      sure ? make('td', { class: 'number' }, percent(c.sure)) : '');
  }));
}

function alone(label) {
  viewer.alone = viewer.alone === label ? null : label;
  all('#legend tbody tr').forEach((row) => {
    const on = viewer.alone === Number(row.dataset.label);
    row.classList.toggle('alone', on);
    find('button', row).setAttribute('aria-pressed', String(on));
  });
  paint();
}

// Fill a stage's canvas: `colour(i)` gives [red, green, blue, alpha] of pixel i.
function fillCanvas(stage, colour) {
  const canvas = find('canvas', stage);
  [canvas.height, canvas.width] = viewer.entry.shown;
  const context = canvas.getContext('2d'), picture = context.createImageData(canvas.width, canvas.height);
  for (let i = 0; i < viewer.labels.length; i += 1) picture.data.set(colour(i), 4 * i);
  context.putImageData(picture, 0, 0);
}

function paint() {
  const clear = [0, 0, 0, 0], solid = new Map(), over = new Map();
  for (const { label, colour, name } of viewer.output.classes) {
    const hidden = viewer.alone !== null && viewer.alone !== label;
    solid.set(label, hidden ? [...colour, 40] : [...colour, 255]);
    over.set(label, hidden || (viewer.alone === null && label === 0 && name === 'background') ? clear : [...colour, 255]);
  }
  fillCanvas(stages.labels, (i) => solid.get(viewer.labels[i]) || clear);
  fillCanvas(stages.overlay, (i) => over.get(viewer.labels[i]) || clear);
  if (viewer.sure) fillCanvas(stages.confidence, (i) => ramp(viewer.sure[i] / 255));
  fade();
}

function ramp(share) {
  const place = share * (RAMP.length - 1), k = Math.min(Math.floor(place), RAMP.length - 2);
  return [...RAMP[k].map((n, i) => n + (RAMP[k + 1][i] - n) * (place - k)), 255];
}

function fade() {
  find('canvas', stages.overlay).style.opacity = find('#opacity').value / 100;
}

// Say what lies under a spot, and mark it on every figure; null takes the marks away.
function point(at) {
  spot = at;
  all('.stage .cross').forEach((cross) => cross.remove());
  all('#legend tbody tr').forEach((row) => row.classList.remove('under'));
  const under = find('#under');
  if (!at) {
    under.textContent = 'Point at the picture, or move over it with the arrow keys.';
    delete under.dataset.label;
    return;
  }
  const [height, width] = viewer.entry.shown, [row, column] = at, i = row * width + column, label = viewer.labels[i];
  const sure = viewer.sure ? `, ${percent(viewer.sure[i] / 255)} sure` : '';
  const [y, x] = [row / height * viewer.entry.size[0], column / width * viewer.entry.size[1]].map(Math.floor);
  under.textContent = `${known(label)?.name ?? `class ${label}`}${sure}, at row ${y}, column ${x}`;
  under.dataset.label = label;
  find(`#legend tr[data-label="${label}"]`)?.classList.add('under');
  for (const stage of Object.values(stages)) {
    const cross = make('span', { class: 'cross' });
    Object.assign(cross.style, { left: `${(100 * (column + 0.5)) / width}%`, top: `${(100 * (row + 0.5)) / height}%` });
    stage.append(cross);
  }
}

const inside = ([row, column]) => {
  const [height, width] = viewer.entry.shown;
  return [Math.min(Math.max(row, 0), height - 1), Math.min(Math.max(column, 0), width - 1)];
};

for (const stage of Object.values(stages)) {
  stage.addEventListener('pointermove', (event) => {
    const box = stage.getBoundingClientRect(), [height, width] = viewer.entry.shown;
    point(inside([Math.floor(((event.clientY - box.top) / box.height) * height), Math.floor(((event.clientX - box.left) / box.width) * width)]));
  });
  stage.addEventListener('pointerleave', () => point(null));
}
stages.overlay.addEventListener('keydown', (event) => {
  const by = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
  if (!by) return;
  event.preventDefault();
  const step = event.shiftKey ? 1 : Math.max(1, Math.round(Math.max(...viewer.entry.shown) / 60));
  const from = spot || viewer.entry.shown.map((n) => n >> 1);
  point(inside(from.map((n, i) => n + step * by[i])));
});
find('#opacity').addEventListener('input', fade);
