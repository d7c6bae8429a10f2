// The net's sizes at any input: every formula is evaluated here, and judged as the net itself would.
const DATA = {{data}};
const SIZES = ({{symbols}}) => [
{{sizes}}
];
const ROWS = DATA.rows;
const LARGEST = 2 ** 31 - 1; // elements of a blob; Caffe counts them in an int
const SPATIAL = { 3: ['columns'], 4: ['rows', 'columns'], 5: ['slices', 'rows', 'columns'] };

const at = { ...DATA.symbols };
let values = SIZES(...Object.values(at));
let failing = null; // what `judge` found

// A size is a number, or the index of a formula as a string.
const number = (size) => (typeof size === 'string' ? values[+size] : size);
const isOpen = (size) => typeof size === 'string';
const formula = (size) => (isOpen(size) ? DATA.formulas[+size] : String(size));
const numbers = (shape) => shape.map(number).join(' × ') || 'scalar';
const axisName = (axis, rank) => (SPATIAL[rank] && axis >= 2 ? SPATIAL[rank][axis - 2] : `axis ${axis}`);

function setSizes(sizes) {
  Object.assign(at, sizes);
  values = SIZES(...Object.values(at));
  failing = judge();
}

// The first layer that cannot take what it would get: {row, told}; null if all can.
function judge() {
  const known = new Map(); // blob -> its shape now
  for (const [index, row] of ROWS.entries()) {
    const bottoms = (row.bottoms || []).map((name) => known.get(name) || []);
    const tops = (row.shapes || []).map((shape) => shape.map(number));
    const told = unlike(row, bottoms) || outside(row) || tops.map((top) => wrong(row, bottoms, top)).find(Boolean);
    if (told) return { row: index, told: `${row.name} ${told}` };
    (row.tops || []).forEach((name, i) => known.set(name, tops[i]));
  }
  return null;
}

// Layers that put blobs together need them of one size.
function unlike(row, bottoms) {
  if (!['Eltwise', 'Concat'].includes(row.type)) return '';
  const [first, ...others] = bottoms;
  const top = row.shapes[0].map(number);
  for (const [i, other] of others.entries()) {
    const axis = other.findIndex((n, k) => n !== first[k] && (row.type === 'Eltwise' || top[k] === first[k]));
    if (axis >= 0) {
      const what = axisName(axis, first.length);
      return `would put together ${row.bottoms[0]} with ${first[axis]} ${what} and ${row.bottoms[i + 1]} with ${other[axis]}.`;
    }
  }
  return '';
}

// A Crop cuts no more than there is.
function outside(row) {
  const crop = row.type === 'Crop' && DATA.crops.find((c) => c.layer === row.name);
  const cut = crop && crop.cuts.find((c) => number(c.after) < 0);
  if (!cut) return '';
  return `would need ${-number(cut.after)} more ${cut.name} of ${crop.data} than there are, to begin at ${cut.given} and cut to the size of ${crop.reference}.`;
}

function wrong(row, bottoms, top) {
  const axis = top.findIndex((n) => n < 1);
  if (axis >= 0) {
    const what = axisName(axis, top.length);
    const over = hangsOver(row, bottoms, axis);
    if (over) return over;
    const had = bottoms[0] && bottoms[0].length === top.length ? ` of the ${bottoms[0][axis]} that ${row.bottoms[0]} has` : '';
    const why = row.window ? `: the window ${row.window} does not fit` : '';
    return `would leave no ${what}${had}${why}.`;
  }
  const elements = top.reduce((a, b) => a * b, 1);
  return elements > LARGEST ? `would make ${grouped(elements)} elements, more than the ${grouped(LARGEST)} that Caffe can count.` : '';
}

// Where less than a stride is missing C's division rounds up, to one window that hangs over the end. No formula says that.
function hangsOver(row, bottoms, axis) {
  const window = row.strided?.[axis - 2], size = bottoms[0]?.[axis];
  if (!window) return '';
  const missing = window.reach - 2 * window.pad - size;
  if (missing < 1 || missing >= window.stride) return '';
  const what = axisName(axis, bottoms[0].length);
  return `has a window of ${window.reach}, and only ${size} ${what} of ${row.bottoms[0]} to put it on. Caffe then computes one all the same, partly of zeros; the formulas here do not hold for that.`;
}

// Bytes of the blobs that are needed at once, at most, if each is let go after its last reader.
function live() {
  const owner = new Map(); // blob's name -> the memory that it lies in
  const born = [], dies = [], sizes = [];
  ROWS.forEach((row, i) => {
    const from = (row.bottoms || []).map((name) => owner.get(name));
    (row.tops || []).forEach((name, k) => {
      if ((row.bottoms || []).includes(name)) return;
      if (number(row.memory || 0) === 0 && from.length) owner.set(name, from[0]);
      else {
        owner.set(name, sizes.length);
        born.push(i);
        sizes.push(4 * row.shapes[k].map(number).reduce((a, b) => a * b, 1));
      }
    });
    [...from, ...(row.tops || []).map((name) => owner.get(name))].forEach((memory) => { dies[memory] = i; });
  });
  DATA.outputs.forEach((name) => { dies[owner.get(name)] = ROWS.length - 1; });
  const change = new Array(ROWS.length + 1).fill(0);
  sizes.forEach((size, memory) => {
    change[born[memory]] += size;
    change[dies[memory] + 1] -= size;
  });
  let now = 0, most = 0, where = 0;
  change.forEach((by, i) => {
    now += by;
    if (now > most) [most, where] = [now, i];
  });
  return { most, layer: ROWS.length ? ROWS[where].name : '' };
}
