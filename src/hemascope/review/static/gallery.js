// The gallery: only the rows near the screen are nodes, one node a cell.
import { groupTitle, isFlagged, isWaiting, LOOK, NOT_COUNTED, WAITING } from "./case_store.js";
import { html, many, Mark, percent, title, useEffect, useLayoutEffect, useMemo, useRef, useState } from "./html.js";
import { arrange, edge, HEADER, neighbor, touched, whole, within } from "./layout.js";
import { dragging } from "./drag.js";

const OVERSCAN = 2;
const REST = 1000;
const AGAIN = 3000; // until an image that failed is asked for again

/** What a group is called, and what its flagged cells are flagged for. */
export function heading(group) {
  if (group.name === WAITING) return ["Waiting", "to be analyzed"];
  if (group.name !== LOOK) return [title(group.name), ""];
  const kinds = new Map();
  for (const cell of group.cells) {
    const kind = cell.error ? "unreadable" : cell.warning || (isFlagged(cell) ? "abstained" : "set back");
    kinds.set(kind, (kinds.get(kind) ?? 0) + 1);
  }
  return [groupTitle(LOOK), [...kinds].map(([kind, n]) => `${n} ${kind}`).join(" · ")];
}

export function describe(cell) {
  const parts = [title(cell.class) || (isWaiting(cell) ? "waiting" : "unidentified")];
  if (cell.error) parts.push("unreadable");
  else if (cell.confidence != null) parts.push(`predicted ${cell.predicted_class} ${percent(cell.confidence)}`);
  if (cell.abstain) parts.push("model abstains");
  if (cell.warning) parts.push(cell.warning);
  if (cell.read) parts.push("confirmed");
  if (cell.comment) parts.push("with comment");
  return [...parts, cell.name].join(", ");
}

function look(cell) {
  const kinds = { broken: cell.error, doubt: isFlagged(cell), waits: isWaiting(cell), read: cell.read, noted: cell.comment };
  return ["cell", ...Object.keys(kinds).filter((kind) => kinds[kind])].join(" ");
}

/** Notes on a node whether its image is shown, and asks again for one that failed, until it is ended. */
function watched(node, url) {
  const image = new Image();
  let timer;
  const note = (state) => {
    node.dataset.image = state;
    node.style.backgroundImage = state === "failed" ? "none" : `url("${url}")`;
  };
  image.onload = () => note("shown");
  image.onerror = () => {
    note("failed");
    timer = setTimeout(() => (image.src = url), AGAIN);
  };
  note("coming");
  image.src = url;
  return () => {
    clearTimeout(timer);
    image.onload = image.onerror = null;
  };
}

function Cell({ cell, x, y, selected, current, position, total }) {
  const node = useRef();
  useLayoutEffect(() => (cell.thumbnail ? watched(node.current, cell.thumbnail) : undefined), [cell.thumbnail]);
  return html`<div role="option" ref=${node} id="cell-${cell.id}" data-id=${cell.id} class=${look(cell)} aria-selected=${String(selected)}
    aria-posinset=${position} aria-setsize=${total} aria-label=${describe(cell)} tabindex=${current ? 0 : -1}
    style=${{
      transform: `translate(${x}px, ${y}px)`,
      "--sure": `${Math.round(100 * (cell.confidence ?? 0))}%`,
    }}></div>`;
}

/** Not for the second click of a double one: the first may have put another button there. */
const once = (work) => (event) => event.detail < 2 && work();

function Group({ store, group, cls, first, last, layout }) {
  const [name, kinds] = heading(group);
  const unread = group.cells.filter((cell) => !cell.read && cell.class).length;
  const broken = group.name === LOOK ? group.cells.filter((cell) => cell.error) : [];
  const cells = [];
  const [g, i] = layout.at.get(store.current) ?? [];
  const from = first * layout.columns;
  const to = Math.min(last * layout.columns, group.cells.length);
  const shown = Array.from({ length: Math.max(0, to - from) }, (_, n) => from + n);
  // The focused cell stays a node when it is scrolled away, or the focus would be lost.
  if (layout.groups[g] === group && (i < from || i >= to)) shown[i < from ? "unshift" : "push"](i);
  for (const n of shown) {
    const cell = group.cells[n];
    cells.push(html`<${Cell} key=${cell.id} cell=${cell} selected=${store.selected.has(cell.id)} current=${cell.id === store.current}
      x=${(n % layout.columns) * layout.step} y=${Math.floor(n / layout.columns) * layout.step} position=${n + 1} total=${group.cells.length} />`);
  }
  const unseen = store.isUnseen(group.name);
  return html`<section class=${group.name === LOOK ? "group look" : "group"} data-drop=${group.name === WAITING ? null : group.name}
      style=${{ top: `${group.top}px`, height: `${group.height}px` }}>
    <header style=${{ height: `${HEADER - 4}px` }}>
      ${cls && html`<${Mark} of=${cls} />`}
      <h2>${name} <span>${group.cells.length}${kinds && ` · ${kinds}`}</span></h2>
      ${store.open && html`
        ${unseen && html`<button class="small" title="You have looked at all of them" onClick=${() => store.see([group.name])}>Seen</button>`}
        ${cls && unread > 0 && html`<button class="small" onClick=${once(() => store.confirm(group.cells))}>Confirm all ${unread}</button>`}
        ${broken.length > 0 && html`<button class="small" onClick=${once(() => store.move(broken, NOT_COUNTED))}>Set unreadable aside</button>`}`}
    </header>
    <div role="listbox" aria-multiselectable="true" aria-label="${name}, ${many(group.cells.length, "cell")}">${cells}</div>
  </section>`;
}

export function Gallery({ store, zoom, several, onOpen }) {
  const scroller = useRef();
  const [box, setBox] = useState({ width: 0, height: 0 });
  const [top, setTop] = useState(0);
  const [frame, setFrame] = useState(null);
  const { groups } = store;
  const layout = useMemo(() => arrange(groups, box.width, edge(box.width, box.height, zoom)), [groups, box, zoom]);
  const classes = useMemo(() => new Map(store.case.classes.map((one) => [one.name, one])), [store.case.classes]);

  useLayoutEffect(() => {
    const watch = new ResizeObserver(([entry]) => {
      const { width, height } = entry.contentRect;
      setBox({ width: Math.floor(width), height: Math.floor(height) });
    });
    watch.observe(scroller.current);
    for (const kind of ["wheel", "touchmove"]) scroller.current.addEventListener(kind, acts, { passive: true });
    return () => watch.disconnect();
  }, []);

  const show = (id) => {
    const [g, i] = layout.at.get(id) ?? [];
    if (g === undefined) return;
    const y = layout.groups[g].top + HEADER + Math.floor(i / layout.columns) * layout.step;
    const view = scroller.current;
    if (y - HEADER < view.scrollTop) view.scrollTop = i < layout.columns ? layout.groups[g].top : y - HEADER;
    else if (y + layout.step > view.scrollTop + view.clientHeight) view.scrollTop = y + layout.step - view.clientHeight + 4;
  };
  store.show = show;
  store.goTo = (name) => {
    const group = layout.groups.find((one) => one.name === name);
    if (!group) return;
    onOpen("cells");
    document.querySelector(`.rail [data-drop="${CSS.escape(name)}"]`)?.scrollIntoView({ block: "nearest", inline: "nearest" });
    scroller.current.scrollTop = group.top;
    acts();
    store.select([group.cells[0].id]);
    store.focus();
  };

  // After a move by key the focus follows the current cell to its place.
  useLayoutEffect(() => {
    if (!store.wantFocus || !box.height) return;
    if (store.jumped) rest.own = false;
    store.wantFocus = store.jumped = false;
    show(store.current);
    document.getElementById(`cell-${store.current}`)?.focus({ preventScroll: true });
  });

  // Looked at is what was whole on the screen, at rest, after something that the reader did here:
  // what the page shows by itself waits for that.
  const rest = useRef({}).current;
  const starts = () => {
    clearTimeout(rest.timer);
    rest.timer = setTimeout(() => rest.ends(), REST);
  };
  const acts = () => {
    rest.own = !store.progress;
    starts();
  };
  rest.ends = () => {
    const view = scroller.current;
    if (!rest.own || document.hidden || document.querySelector("dialog[open]") || getComputedStyle(view).visibility === "hidden") return;
    const ids = whole(layout, view.scrollTop, view.scrollTop + view.clientHeight);
    const shown = ids.filter((id) => (document.getElementById(`cell-${id}`)?.dataset.image ?? "shown") === "shown");
    rest.own = shown.length < ids.length;
    if (rest.own) starts(); // for those whose images are not there yet
    store.look(shown);
  };
  useEffect(() => {
    if (store.progress) rest.own = false;
    starts();
  }, [layout]);
  useEffect(() => () => clearTimeout(rest.timer), []);

  const idOf = (event) => event.target.closest?.("[data-id]")?.dataset.id;

  const onKeyDown = (event) => {
    if (event.key !== "Tab") acts();
    if (idOf(event) && keys(event, idOf(event))) event.preventDefault();
  };

  /** Goes to a cell or selects; false where the key does neither. */
  const keys = (event, id) => {
    if (event.altKey) return false;
    const command = event.ctrlKey || event.metaKey;
    if (/^(Arrow|Page|Home|End)/.test(event.key)) {
      const page = Math.max(1, Math.floor(box.height / layout.step) - 1);
      const ends = { Home: layout.groups[0].cells[0], End: layout.groups.at(-1).cells.at(-1) };
      const next = command && ends[event.key] ? ends[event.key].id : neighbor(layout, id, event.key, page);
      if (event.shiftKey) store.extend(next);
      else if (command && event.key.startsWith("Arrow")) store.select([], { add: true, current: next });
      else store.select([next]);
      store.focus();
    } else if (event.key === " ") {
      store.toggle(id);
    } else if (event.key.toLowerCase() === "a" && command) {
      store.select(layout.groups[layout.at.get(id)[0]].cells.map((cell) => cell.id), { current: id });
    } else {
      return false;
    }
    return true;
  };
  // Arrows work from wherever a click has left the focus.
  store.arrow = (event) => {
    if (!layout.at.has(store.current)) return false;
    acts();
    return keys(event, store.current);
  };

  const point = (event) => {
    const view = scroller.current.getBoundingClientRect();
    return [event.clientX - view.left - parseFloat(getComputedStyle(scroller.current).paddingLeft), event.clientY - view.top + scroller.current.scrollTop];
  };

  const onPointerDown = (event) => {
    acts();
    if (event.button !== 0 || event.target.closest("button")) return;
    const id = idOf(event);
    const command = event.ctrlKey || event.metaKey || several;
    if (!id && event.pointerType !== "touch" && event.offsetX < scroller.current.clientWidth) {
      event.preventDefault();
      const start = point(event);
      const before = command || event.shiftKey ? [...store.selected] : [];
      dragging(event, scroller.current, {
        move: (now) => {
          const [x, y] = point(now);
          const area = { left: Math.min(x, start[0]), right: Math.max(x, start[0]), top: Math.min(y, start[1]), bottom: Math.max(y, start[1]) };
          setFrame(area);
          const ids = touched(layout, area);
          store.select([...before, ...ids], { current: ids.at(-1) });
        },
        end: (moved) => { setFrame(null); if (!moved) store.select(before); },
      });
      return;
    }
    if (!id) return;
    const several_ = store.selected.size > 1 && store.selected.has(id);
    if (event.shiftKey) store.extend(id);
    else if (command) store.toggle(id);
    else if (!several_) store.select([id]);
    if (event.shiftKey) event.preventDefault();
    scroller.current.querySelector(`#cell-${CSS.escape(id)}`)?.focus({ preventScroll: true });
    if (event.pointerType === "touch" || !store.open) return;
    dragging(event, scroller.current, {
      ghost: () => many(store.selected.size, "cell"),
      drop: (name) => store.onward(() => store.move(store.selection, name === LOOK ? "" : name)),
      end: (moved) => { if (!moved && several_ && !command && !event.shiftKey) store.select([id]); },
    });
  };

  const onClick = (event) => {
    if (event.pointerType === "touch" && idOf(event) && !several) onOpen("cell");
  };

  const onScroll = (event) => {
    starts();
    setTop(Math.floor(event.target.scrollTop / 40) * 40);
  };

  const rows = within(layout, top - OVERSCAN * layout.step, top + box.height + OVERSCAN * layout.step);
  const [home] = layout.at.get(store.current) ?? [];
  if (home !== undefined && !rows.some(([group]) => group === layout.groups[home])) rows.push([layout.groups[home], 0, 0]);
  // In order, because a node that is moved within the page loses the focus.
  rows.sort(([one], [other]) => one.top - other.top);
  return html`<div class="gallery" ref=${scroller} tabindex="-1" onScroll=${onScroll}
      onKeyDown=${onKeyDown} onPointerDown=${onPointerDown} onClick=${onClick} onDblClick=${(event) => idOf(event) && onOpen("zoom")}>
    <div class="canvas" style=${{ height: `${layout.height}px`, "--edge": `${layout.size}px` }}>
      ${!groups.length && html`<p class="soft">Cells appear here as they arrive.</p>`}
      ${rows.map(([group, first, last]) => html`<${Group} key=${group.name} store=${store} group=${group}
        cls=${classes.get(group.name)} first=${first} last=${last} layout=${layout} />`)}
      ${frame && html`<div class="frame" style=${{
        transform: `translate(${frame.left}px, ${frame.top}px)`, width: `${frame.right - frame.left}px`, height: `${frame.bottom - frame.top}px`,
      }}></div>`}
    </div>
  </div>`;
}
