// The table of layers: sorted by any column, filtered by words and type.
const alike = DATA.formulas.length > 0 && Object.keys(DATA.symbols).join() === 'H,W' && ROWS.every((row) => (row.shapes || []).every((shape) => {
  const open = shape.filter(isOpen).map(formula);
  return !open.length || (open.length === 2 && open[0].replaceAll('H', 'W') === open[1] && !open[0].includes('W'));
}));
const formulas = (row) => {
  const open = (row.shapes || []).slice(0, 1).flat().filter(isOpen).map(formula);
  return (alike ? open.slice(0, 1) : open).join(' × ');
};
const place = (row, k) => (row.axes ? by(row.axes.map((axis) => (axis[k] == null ? '–' : tidy(axis[k])))) : '');
const first = (row, k) => row.axes?.[0]?.[k] ?? -Infinity;
const elements = (row) => (row.shapes || []).slice(0, 1).reduce((_, shape) => shape.map(number).reduce((a, b) => a * b, 1), 0);

const given = (row) => (row.source && row.source !== 'not given' ? row.source : '');

// head, what is shown, what is sorted by; `number` stands right.
const COLUMNS = [
  ['#', (row, i) => i, (row, i) => i, 'number'],
  ['layer', (row) => row.name, (row) => row.name],
  ['type', (row) => row.type, (row) => row.type],
  ['window', (row) => row.window || '', (row) => row.window || ''],
  ['output', (row, i) => (failing && i >= failing.row ? '–' : (row.shapes || []).map(numbers).join(', ')), elements],
  [alike ? 'by H (W alike)' : 'formula', formulas, formulas],
  ['parameters', (row) => (row.parameters ? grouped(row.parameters) : ''), (row) => row.parameters || 0, 'number'],
  ['MACs', (row) => (row.macs ? count(number(row.macs)) : ''), (row) => number(row.macs || 0), 'number share'],
  ['activations', (row) => (row.memory ? bytes(number(row.memory)) : ''), (row) => number(row.memory || 0), 'number share'],
  ['field', (row) => place(row, 0), (row) => first(row, 0), 'number'],
  ['stride', (row) => place(row, 1), (row) => first(row, 1), 'number'],
  ['offset', (row) => place(row, 2), (row) => first(row, 2), 'number'],
  ['learning', (row) => row.learning || '', (row) => row.learning || ''],
  ['weights from', given, given],
].filter(([head, shown]) => head === 'output' || ROWS.some((row, i) => shown(row, i) !== ''));

let sorted = { column: 0, down: false };

function makeTable() {
  find('#table thead tr').append(...COLUMNS.map(([head, , , css], i) => make('th', { scope: 'col', class: css && 'number', 'aria-sort': 'none' },
    make('button', { type: 'button', onclick: () => sort(i) }, head))));
  const types = [...new Set(ROWS.map((row) => row.type))].sort();
  find('#types').append(...types.map((type) => make('option', { value: type }, type)));
  find('#table tbody').append(...ROWS.map((row, i) => make('tr', { 'data-row': i }, COLUMNS.map(([, , , css]) => make('td', { class: css })))));
  find('#table tbody').addEventListener('click', (event) => {
    const line = event.target.closest('tr');
    if (line) choose(Number(line.dataset.row));
  });
  find('#filter').addEventListener('input', filter);
  find('#types').addEventListener('change', filter);
}

function tellTable() {
  const most = COLUMNS.map(([, , key, css]) => (css?.includes('share') ? Math.max(...ROWS.map(key)) : 0));
  for (const line of all('#table tbody tr')) {
    const i = Number(line.dataset.row), row = ROWS[i];
    line.classList.toggle('fails', failing?.row === i);
    COLUMNS.forEach(([head, shown, key], k) => {
      const cell = line.cells[k];
      if (head === 'layer') {
        if (!cell.firstChild) cell.append(make('button', { type: 'button', class: 'link' }, row.name));
      } else cell.textContent = shown(row, i);
      if (most[k]) cell.style.setProperty('--share', `${((100 * key(row, i)) / most[k]).toFixed(1)}%`);
    });
  }
  arrange();
}

function sort(column) {
  sorted = { column, down: sorted.column === column && !sorted.down };
  arrange();
}

function arrange() {
  const key = COLUMNS[sorted.column][2], sign = sorted.down ? -1 : 1;
  const lines = all('#table tbody tr').map((line) => [key(ROWS[line.dataset.row], Number(line.dataset.row)), Number(line.dataset.row), line]);
  lines.sort(([a, i], [b, j]) => sign * (typeof a === 'string' ? a.localeCompare(b, 'en', { numeric: true }) : a - b || 0) || i - j);
  find('#table tbody').append(...lines.map(([, , line]) => line));
  all('#table th').forEach((th, i) => th.setAttribute('aria-sort', i !== sorted.column ? 'none' : sorted.down ? 'descending' : 'ascending'));
}

function filter() {
  const words = find('#filter').value.toLowerCase().split(/\s+/).filter(Boolean), type = find('#types').value;
  let shown = 0;
  for (const line of all('#table tbody tr')) {
    const row = ROWS[line.dataset.row];
    const text = [row.name, row.type, ...(row.bottoms || []), ...(row.tops || [])].join(' ').toLowerCase();
    line.hidden = !(words.every((word) => text.includes(word)) && (!type || row.type === type));
    shown += line.hidden ? 0 : 1;
  }
  find('#found').textContent = shown === ROWS.length ? '' : `${shown} of ${ROWS.length} layers`;
}
