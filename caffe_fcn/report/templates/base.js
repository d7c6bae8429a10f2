// What all pages share: short names for the DOM, units, and the switch between light and dark.
const find = (selector, within = document) => within.querySelector(selector);
const all = (selector, within = document) => [...within.querySelectorAll(selector)];

// An element of HTML; text is put in as text, never read as HTML.
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  return fill(element, attributes, children);
}

function draw(tag, attributes = {}, ...children) {
  const element = document.createElementNS('http://www.w3.org/2000/svg', tag);
  return fill(element, attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else if (value !== false && value != null) element.setAttribute(name, value === true ? '' : value);
  }
  element.append(...children.flat().filter((child) => child != null && child !== ''));
  return element;
}

// 1536 -> 1.5 KiB, and 134000000 -> 134.0 M; the same words as in the other forms of a report.
function bytes(n) {
  let unit = 'B';
  for (unit of ['B', 'KiB', 'MiB', 'GiB']) {
    if (n < 1024 || unit === 'GiB') break;
    n /= 1024;
  }
  return unit === 'B' ? `${n.toFixed(0)} B` : `${n.toFixed(1)} ${unit}`;
}

function count(n) {
  let unit = '';
  for (unit of ['', 'k', 'M', 'G', 'T']) {
    if (Math.abs(n) < 1000 || unit === 'T') break;
    n /= 1000;
  }
  return unit ? `${n.toFixed(1)} ${unit}` : n.toFixed(0);
}

const grouped = (n) => n.toLocaleString('en-US');

// The system's wish, until somebody chooses.
const wish = matchMedia('(prefers-color-scheme: dark)');
const theme = {
  now: () => document.documentElement.dataset.theme || (wish.matches ? 'dark' : 'light'),
  tell: () => all('[data-do="theme"]').forEach((button) => { button.textContent = theme.now() === 'dark' ? 'Light' : 'Dark'; }),
  set(value) {
    document.documentElement.dataset.theme = value;
    theme.tell();
  },
};
try { // a page opened from a file may have no storage
  const kept = localStorage.getItem('caffe-fcn-theme');
  if (kept) document.documentElement.dataset.theme = kept;
} catch { /* then the system's setting serves */ }
theme.tell();
wish.addEventListener('change', theme.tell);
all('[data-do="theme"]').forEach((button) => button.addEventListener('click', () => {
  theme.set(theme.now() === 'dark' ? 'light' : 'dark');
  try { localStorage.setItem('caffe-fcn-theme', theme.now()); } catch { /* as above */ }
}));
all('[data-do="print"]').forEach((button) => button.addEventListener('click', () => print()));
