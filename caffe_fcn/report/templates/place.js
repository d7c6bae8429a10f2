// Where an element of a blob looks: its receptive field, to scale, over the input.
const SIDE = 320; // pixels of the drawing's longer side
const element = {}; // of a layer -> the element that was moved to, [row, column]; else the middle is shown

function fieldPart(row) {
  const head = make('p', { class: 'part' }, 'Receptive field');
  if (failing && chosen >= failing.row) return [];
  if (!row.axes) return row.shapes ? [head, make('p', { class: 'note' }, 'Its elements have no place in the input any more.')] : [];
  const image = Object.values(DATA.inputs).find((shape) => shape.length === row.axes.length + 2);
  const text = make('p', {});
  if (row.axes.length !== 2 || !image || row.shapes[0].length !== 4) {
    text.textContent = fieldWords(row);
    return [head, make('div', { class: 'field' }, text)];
  }
  const shape = row.shapes[0].slice(2).map(number);
  const index = chosen;
  const now = () => (element[index] || shape.map((n) => (n - 1) >> 1)).map((n, i) => Math.min(n, shape[i] - 1));
  const figure = draw('svg', { tabindex: 0, role: 'img' });
  const show = () => {
    drawField(figure, row, image.slice(2).map(number), shape, now());
    text.replaceChildren(...fieldText(row, now()));
  };
  const move = (to) => {
    element[index] = to.map((n, i) => Math.min(Math.max(n, 0), shape[i] - 1));
    show();
  };
  figure.addEventListener('pointermove', (event) => move(pointed(figure, event, row)));
  figure.addEventListener('keydown', (event) => {
    const by = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!by) return;
    event.preventDefault();
    move(now().map((n, i) => n + by[i]));
  });
  show();
  return [head, make('div', { class: 'field' }, figure, text)];
}

const centre = ([, stride, offset], index) => offset + (stride ?? 0) * index;
const span = (axis, index) => [centre(axis, index) - axis[0] / 2, centre(axis, index) + axis[0] / 2];

function pointed(figure, event, row) {
  const spot = new DOMPoint(event.clientX, event.clientY).matrixTransform(figure.getScreenCTM().inverse());
  return [spot.y, spot.x].map((pixel, i) => (row.axes[i][1] ? Math.round((pixel - row.axes[i][2]) / row.axes[i][1]) : 0));
}

function drawField(figure, row, image, shape, at) {
  // pixel p covers p - 1/2 to p + 1/2
  const reach = row.axes.map((axis, i) => {
    const [first, last] = [span(axis, 0), span(axis, shape[i] - 1)];
    return [Math.min(-0.5, first[0]), Math.max(image[i] - 0.5, last[1])];
  });
  const [height, width] = reach.map(([from, to]) => to - from);
  const margin = Math.max(height, width) * 0.02;
  const scale = SIDE / (Math.max(height, width) + 2 * margin);
  const box = [reach[1][0] - margin, reach[0][0] - margin, width + 2 * margin, height + 2 * margin];
  figure.setAttribute('viewBox', box.join(' '));
  figure.setAttribute('width', box[2] * scale);
  figure.setAttribute('height', box[3] * scale);
  figure.setAttribute('aria-label', `Receptive field over the input; arrow keys move it. ${fieldWords(row)}`);
  const seen = row.axes.map((axis, i) => span(axis, at[i]));
  const least = 3 / scale; // a field of a few pixels still has to be seen
  const grown = seen.map(([from, to]) => (to - from < least ? [(from + to - least) / 2, (from + to + least) / 2] : [from, to]));
  const small = Math.min(...grown.map(([from, to]) => to - from)) * scale < 70; // its words stand beside it
  figure.replaceChildren(
    draw('rect', { class: 'reach', x: reach[1][0], y: reach[0][0], width, height }),
    draw('rect', { class: 'image', x: -0.5, y: -0.5, width: image[1], height: image[0] }),
    ...dots(row, shape, scale),
    draw('rect', { class: 'seen', x: grown[1][0], y: grown[0][0], width: grown[1][1] - grown[1][0], height: grown[0][1] - grown[0][0] }),
    label(`input ${image.join(' × ')}`, 0, image[0] - 1, scale, 'soft'),
    label(row.axes.map((axis) => axis[0]).join(' × '), ...(small ? [grown[1][1], (grown[0][0] + grown[0][1]) / 2 + 8 / scale] : [grown[1][0], grown[0][0] + 15 / scale]), scale),
    draw('circle', { class: 'centre', cx: centre(row.axes[1], at[1]), cy: centre(row.axes[0], at[0]), r: 2 / scale }),
  );
}

const label = (text, x, y, scale, css) => draw('text', { class: css, x: x + 4 / scale, y: y - 4 / scale, 'font-size': 11 / scale }, text);

// The middles of all elements, where they are far enough apart to be told from each other.
function dots(row, shape, scale) {
  const [down, across] = row.axes;
  if (!down[1] || !across[1] || Math.min(down[1], across[1]) * scale < 5 || shape[0] * shape[1] > 2500) return [];
  const found = [];
  for (let i = 0; i < shape[0]; i += 1) {
    for (let j = 0; j < shape[1]; j += 1) found.push(draw('circle', { class: 'dot', cx: centre(across, j), cy: centre(down, i), r: 1.1 / scale }));
  }
  return found;
}

const by = (list) => (new Set(list).size === 1 ? String(list[0]) : list.join(' × '));
const tidy = (n) => Number(n.toFixed(3)).toString();

function fieldWords(row) {
  const sizes = row.axes.map((axis) => axis[0]).join(' × ');
  const strides = row.axes.map((axis) => axis[1]);
  const apart = strides.includes(null) ? 'there is one element only'
    : strides.every((n) => n === 1) ? 'an element for each pixel' : `elements lie ${by(strides.map(tidy))} pixels apart`;
  return `An element is computed from ${sizes} pixels at most; ${apart}; the middle of element 0 lies on pixel ${by(row.axes.map((axis) => tidy(axis[2])))}.`;
}

function fieldText(row, at) {
  const spans = row.axes.map((axis, i) => span(axis, at[i]).map((n, end) => (end ? Math.ceil(n - 0.5) : Math.floor(n + 0.5))));
  return [fieldWords(row), make('br'), make('br'),
    `Shown: element ${at.join(', ')}. It looks at rows ${spans[0].join(' to ')}, columns ${spans[1].join(' to ')}`,
    ' of the input; what lies outside is padding. Dashed: what all elements together look at. ', make('span', { class: 'soft' }, 'Move the pointer over the drawing, or use the arrow keys.')];
}
