// What each Crop cuts, to scale. Then the page begins.
function tellCrops() {
  find('#crops').replaceChildren(...DATA.crops.map(cropFigure));
}

function cropFigure(crop) {
  const index = ROWS.findIndex((row) => row.name === crop.layer);
  const head = make('figcaption', {}, make('h3', {}, make('button', { type: 'button', class: 'link', onclick: () => choose(index) }, crop.layer)),
    make('span', { class: 'soft' }, `${crop.data}, to the size of ${crop.reference}`));
  const ok = !failing || index < failing.row;
  const lines = crop.cuts.map((cut) => {
    const derived = cut.derived === null ? ['not derived'] : cut.derived === cut.given ? ['as derived']
      : [make('span', { class: 'wrong' }, `but ${cut.derived} is what the coordinates ask for`)];
    const sizes = ok ? ` ${cut.before} cut before, ${number(cut.after)} behind.` : '';
    return make('p', {}, `${cut.name}: offset ${cut.given}, `, ...derived, `.${sizes}`, ' ',
      isOpen(cut.after) ? make('code', { class: 'soft' }, formula(cut.after)) : '', isOpen(cut.after) ? make('span', { class: 'soft' }, ' behind') : '');
  });
  const problem = crop.problem ? [make('p', { class: 'note' }, crop.problem)] : [];
  return make('figure', { class: 'card' }, head, ok ? cropDrawing(crop, ROWS[index].shapes[0]) : '', ...lines, ...problem);
}

// Outer: the blob that is cut. Inner: what is kept.
function cropDrawing(crop, shape) {
  const side = (axis) => {
    const cut = crop.cuts.find((c) => c.axis === axis);
    const kept = number(shape[axis]);
    return cut ? { before: cut.before, kept, after: number(cut.after) } : { before: 0, kept, after: 0 };
  };
  if (shape.length !== 4) return '';
  const [down, across] = [side(2), side(3)];
  const total = ({ before, kept, after }) => before + kept + after;
  const scale = 190 / Math.max(total(down), total(across));
  const x = 62, y = 20, width = total(across) * scale, height = total(down) * scale;
  const inner = { x: x + across.before * scale, y: y + down.before * scale, width: across.kept * scale, height: down.kept * scale };
  const label = `${crop.data} ${total(down)} × ${total(across)}, of which ${down.kept} × ${across.kept} are kept`;
  const words = [
    [x + width / 2, y - 6, 'middle', `${crop.data} ${total(down)} × ${total(across)}`],
    [inner.x + inner.width / 2, inner.y + inner.height / 2 + 4, 'middle', `${down.kept} × ${across.kept}`],
    [x - 6, y + Math.max((down.before * scale) / 2 + 4, 9), 'end', `${down.before}`, 'soft'],
    [x - 6, y + height - Math.max((down.after * scale) / 2 - 4, -1), 'end', `${down.after}`, 'soft'],
    [x + Math.max((across.before * scale) / 2, 4), y + height + 14, 'middle', `${across.before}`, 'soft'],
    [x + width - Math.max((across.after * scale) / 2, 4), y + height + 14, 'middle', `${across.after}`, 'soft'],
  ];
  return draw('svg', { viewBox: `0 0 ${Math.max(width + x + 30, 280)} ${height + y + 22}`, role: 'img', 'aria-label': label },
    draw('rect', { class: 'cut-away', x, y, width, height }),
    draw('rect', { class: 'kept', ...inner }),
    words.map(([left, top, anchor, text, css]) => draw('text', { x: left, y: top, 'text-anchor': anchor, class: css }, text)));
}

makeTable();
tellBoxes();
setSizes({});
chosen = ROWS.findIndex((row) => row.name === decodeURIComponent(location.hash.slice(1)));
if (chosen < 0) chosen = ROWS.findLastIndex((row) => row.axes);
if (chosen < 0) chosen = 0;
tell();
choose(chosen, { scroll: location.hash !== '' });
