// The images of a run.
const ENTRIES = {{data}};

function show(index) {
  all('#pictures button').forEach((button, i) => button.setAttribute('aria-pressed', String(i === index)));
  return view(ENTRIES[index]);
}

if (ENTRIES.length > 1) {
  find('#pictures').append(...ENTRIES.map((entry, i) => make('li', {},
    make('button', { type: 'button', 'aria-pressed': 'false', title: entry.name, onclick: () => show(i) }, make('img', { src: entry.image, alt: '' }), entry.name))));
}
if (ENTRIES.length) show(0);
