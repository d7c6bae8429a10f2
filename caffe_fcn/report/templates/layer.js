// Everything about the chosen layer.
function tellLayer() {
  const row = ROWS[chosen];
  if (!row) return;
  const parts = [
    make('header', { class: row.kind }, make('h3', {}, row.name), make('span', {}, typeLine(row))),
    make('dl', { class: 'told' }, told(row).flatMap(([name, value]) => [make('dt', {}, name), make('dd', {}, ...[value].flat())])),
    ...cutPart(row),
    ...whyPart(row),
    ...fieldPart(row),
    ...weightsPart(row),
    ...(row.text ? [make('p', { class: 'part' }, 'In the prototxt'), make('pre', { tabindex: 0 }, row.text)] : []),
  ];
  find('#layer').replaceChildren(...parts);
}

const typeLine = (row) => [row.type, row.window, row.inPlace && 'in place', row.learning].filter(Boolean).join(' · ');

function told(row) {
  const works = !failing || chosen < failing.row;
  const found = [];
  if (row.bottoms) found.push(['reads', row.bottoms.flatMap((name, i) => [i ? make('br') : '', source(row, name)])]);
  if (row.shapes) found.push(['makes', row.shapes.flatMap((shape, i) => [i ? make('br') : '', `${row.tops[i]} ${shapeNow(shape)}`])]);
  const open = (row.shapes || []).slice(0, 1).flatMap((shape) => shape.map((size, axis) => [size, axisName(axis, shape.length)]))
    .filter(([size]) => isOpen(size));
  for (const [size, what] of open) found.push([what, make('code', {}, formula(size))]);
  if (row.parameters) {
    const rates = row.rates ? `; lr_mult ${row.rates.join(', ')}` : '';
    found.push(['parameters', `${grouped(row.parameters)} (${bytes(4 * row.parameters)})${rates}`]);
  }
  if (row.shared) found.push(['shares', `parameters of ${row.shared.join(', ')}`]);
  if (row.source) found.push(['weights', sourceWords(row)]);
  if (row.macs && works) found.push(['arithmetic', `${macs(number(row.macs))}, ${percent(number(row.macs) / sum('macs'))} of the net`]);
  if (row.memory && works) found.push(['activations', bytes(number(row.memory))]);
  found.push(['in ONNX', operators(row)]);
  return found;
}

const shapeNow = (shape) => (failing && chosen >= failing.row ? '–' : numbers(shape));
const percent = (share) => (share < 0.001 ? 'less than 0.1 %' : `${(100 * share).toFixed(1)} %`);
const sourceWords = (row) => ({ 'not given': 'none given', caffemodel: 'from the weights file' })[row.source] || row.source;

// A bottom: the layer that made it last, and its shape.
function source(row, name) {
  const before = ROWS.slice(0, ROWS.indexOf(row));
  const maker = before.findLast((other) => (other.tops || []).includes(name));
  if (!maker) return name;
  const button = make('button', { type: 'button', class: 'link', onclick: () => chooseNamed(maker.name) }, name);
  const shape = maker.shapes[maker.tops.indexOf(name)];
  return make('span', {}, button, ` ${failing && ROWS.indexOf(maker) >= failing.row ? '–' : numbers(shape)}`);
}

function operators(row) {
  const soft = (text) => make('span', { class: 'soft' }, text);
  if (DATA.onnx) return soft(DATA.onnx);
  if (!row.onnx) return soft(row.type === 'Input' ? 'an input of the graph' : 'left out: no output needs it');
  const { ops, plain, by = [] } = row.onnx;
  const made = listed(ops) || (row.type === 'Input' ? 'an input of the graph' : plain ? 'no node of its own' : 'no node: what it reads is passed on');
  const notes = by.map(([pass, ...changes]) => `${pass}${changes.length ? ` (${changes.join(', ')})` : ''}: ${DATA.passes[pass]}`);
  if (plain) notes.push(`Without rewrites: ${listed(plain) || 'no node'}.`);
  return [made, ...notes.map((note) => make('p', { class: 'note' }, note))];
}

const listed = (ops) => ops.map(([op, n]) => (n > 1 ? `${op} ×${n}` : op)).join(', ');

function cutPart(row) {
  const crop = row.type === 'Crop' && DATA.crops.find((c) => c.layer === row.name);
  return crop && !(failing && chosen >= failing.row) ? [make('p', { class: 'part' }, 'What is cut'), make('div', { class: 'crops' }, cropDrawing(crop, row.shapes[0]))] : [];
}

// The arithmetic behind its pad or offset, as it stands at the end of the page.
function whyPart(row) {
  const why = all('.whys details').find((details) => find('summary', details).textContent.startsWith(`${row.name}: `));
  if (!why) return [];
  return [make('p', { class: 'part' }, `Why ${find('summary', why).textContent.slice(row.name.length + 2)}`),
    ...all('p', why).map((p) => make('p', { class: 'note' }, p.textContent))];
}

// The parameters: shapes, and what their numbers look like where weights were given.
function weightsPart(row) {
  if (!row.blobs) return [];
  const parts = [make('p', { class: 'part' }, 'Weights')];
  row.blobs.forEach((blob, i) => {
    const shape = `${i}: ${blob.shape.join(' × ') || 'scalar'}`;
    if (blob.norm === undefined) {
      parts.push(make('p', { class: 'note' }, shape));
      return;
    }
    const odd = blob.odd ? `, ${grouped(blob.odd)} NOT FINITE` : '';
    parts.push(make('p', { class: 'note' }, `${shape}. From ${short(blob.least)} to ${short(blob.most)}, mean ${short(blob.mean)}, `
      + `norm ${short(blob.norm)}, ${blob.zeros ? `${grouped(blob.zeros)} zeros (${percent(blob.zeros / blob.size)})` : 'no zeros'}${odd}`));
    if (blob.histogram.length > 1) parts.push(bars(blob));
  });
  return parts;
}

const short = (n) => (n === 0 ? '0' : Math.abs(n) < 0.001 || Math.abs(n) >= 10000 ? n.toExponential(2) : Number(n.toPrecision(4)).toString());

function bars(blob) {
  const most = Math.max(...blob.histogram), step = 100 / blob.histogram.length;
  const label = `Histogram of ${blob.histogram.length} steps from ${short(blob.least)} to ${short(blob.most)}`;
  return draw('svg', { class: 'bars', viewBox: '0 0 100 20', preserveAspectRatio: 'none', role: 'img', 'aria-label': label },
    blob.histogram.map((n, i) => draw('rect', { x: i * step, width: step * 0.86, y: 20 - (20 * n) / most, height: (20 * n) / most })));
}
