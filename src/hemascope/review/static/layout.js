// Where each cell of the gallery stands: arithmetic alone, so that 2,000 cells need no nodes.
export const GAP = 8;
export const HEADER = 40;
const FOOT = 14;

/** Edge of a thumbnail such that a screen holds about 170, however large it is: the nodes stay few. */
export function edge(width, height, zoom = 1) {
  const fit = Math.ceil(Math.sqrt((width * height) / 170)) - GAP;
  return Math.round(Math.max(width < 500 ? 70 : 80, fit) * zoom);
}

/** Places groups under each other, in columns that fill the width; `at` says where a cell is. */
export function arrange(groups, width, least) {
  const columns = Math.max(1, Math.floor((width + GAP) / (least + GAP)));
  const step = Math.floor((width + GAP) / columns);
  const size = step - GAP;
  const at = new Map();
  let top = 0;
  const placed = groups.map(({ name, cells }, g) => {
    cells.forEach((cell, i) => at.set(cell.id, [g, i]));
    const rows = Math.ceil(cells.length / columns);
    const group = { name, cells, rows, top, height: HEADER + rows * step + FOOT };
    top += group.height;
    return group;
  });
  return { groups: placed, at, columns, step, size, height: top };
}

/** The rows of each group between two heights: [group, first, last], last exclusive. */
export function within(layout, from, to) {
  const shown = [];
  for (const group of layout.groups) {
    if (group.top + group.height < from || group.top > to) continue;
    const row = (y) => Math.min(group.rows, Math.max(0, y));
    const start = group.top + HEADER;
    shown.push([group, row(Math.floor((from - start) / layout.step)), row(Math.ceil((to - start) / layout.step))]);
  }
  return shown;
}

/** The cells of the rows that are whole between two heights, and not under their group's sticky header. */
export function whole(layout, from, to) {
  return layout.groups.flatMap(({ cells, rows, top }) => {
    const start = top + HEADER;
    const first = Math.max(0, Math.ceil((from + HEADER - 5 - start) / layout.step));
    const last = Math.min(rows, Math.floor((to + GAP + 1 - start) / layout.step));
    return cells.slice(first * layout.columns, Math.max(first, last) * layout.columns).map((cell) => cell.id);
  });
}

/** The cells that a rectangle in the gallery's own coordinates touches. */
export function touched(layout, { left, top, right, bottom }) {
  const first = Math.max(0, Math.floor((left + GAP) / layout.step));
  const last = Math.min(layout.columns - 1, Math.floor(right / layout.step));
  return within(layout, top, bottom).flatMap(([group, from, to]) => {
    const ids = [];
    for (let row = from; row < to; row++) {
      for (let column = first; column <= last; column++) {
        const cell = group.cells[row * layout.columns + column];
        if (cell) ids.push(cell.id);
      }
    }
    return ids;
  });
}

/** The cell that an arrow key leads to, over the borders of groups. */
export function neighbor(layout, id, key, page) {
  const [g, i] = layout.at.get(id) ?? [0, 0];
  const { groups, columns } = layout;
  const cells = groups[g].cells;
  if (key === "Home") return cells[0].id;
  if (key === "End") return cells.at(-1).id;
  if (key === "ArrowLeft") return (cells[i - 1] ?? groups[g - 1]?.cells.at(-1) ?? cells[i]).id;
  if (key === "ArrowRight") return (cells[i + 1] ?? groups[g + 1]?.cells[0] ?? cells[i]).id;
  const down = key === "ArrowDown" || key === "PageDown";
  let [group, row] = [g, Math.floor(i / columns)];
  for (let left = key.startsWith("Page") ? page : 1; left > 0; left--) {
    row += down ? 1 : -1;
    if (row >= 0 && row < groups[group].rows) continue;
    const next = groups[group + (down ? 1 : -1)];
    if (!next) { row = down ? groups[group].rows - 1 : 0; break; }
    group += down ? 1 : -1;
    row = down ? 0 : next.rows - 1;
  }
  const there = groups[group].cells;
  return there[Math.min(row * columns + (i % columns), there.length - 1)].id;
}
