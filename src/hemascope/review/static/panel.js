// The right panel: the cell in question, large, and what can be known about it.
import * as api from "./api.js";
import { called, isWaiting, NOT_COUNTED } from "./case_store.js";
import { describe } from "./gallery.js";
import { Dot, html, many, percent, title, useEffect, useLoaded, useRef, useState } from "./html.js";

const FEW = 6;
const VIEWS = [["photo", "Photo", "The whole photograph"], ["saw", "Network", "What the network saw"], ["why", "Why", "What speaks for a class"]];

/** The ways to see a cell of a case. */
export const viewsOf = (now) => VIEWS.filter(([key]) => key !== "why" || now.has_maps);

/** Asks for a picture that did not come again, as long as it is shown. */
const again = ({ target }) => setTimeout(() => { if (target.isConnected) target.src = target.src; }, 3000);

function Photo({ store, cell, view, of, large }) {
  const [lost, setLost] = useState(false);
  const path = `${store.path}/cells/${cell.id}`;
  useEffect(() => setLost(false), [cell.id, view, of]);
  if (cell.error) return html`<div class="photo none"><p><b>Unreadable</b>${cell.error}</p></div>`;
  const whole = view === "photo" || isWaiting(cell);
  return html`<div class="photo">
    <img src=${whole ? cell.image : api.link(`${path}/seen-image`)} alt=${large ? describe(cell) : cell.name}
      draggable="false" onError=${again} />
    ${view === "why" && !whole && !lost && html`<img class="map" alt="Activation map for ${of}"
      src=${api.link(`${path}/map?of=${encodeURIComponent(of)}`)} onError=${() => setLost(true)} />`}
    ${view === "why" && lost && html`<p class="over-photo">This model has no activation maps.</p>`}
  </div>`;
}

/** One bar a class, the likeliest first; each is the button that moves the cell there. */
function Bars({ store, cells }) {
  const [all, setAll] = useState(false);
  const [cell] = cells;
  const single = cells.length === 1;
  const prob = (name) => (single ? cell.probs[name] ?? 0 : 0);
  const classes = [...store.case.classes];
  if (single) classes.sort((a, b) => prob(b.name) - prob(a.name));
  const broken = cells.every((one) => one.error);
  const shown = all || !single || classes.length <= FEW + 2 ? classes : classes.slice(0, FEW);
  return html`<div class="bars" role="group" aria-label=${single ? "Probabilities; a button moves the cell" : "Move the selected cells"}>
    ${shown.map((one) => html`<button key=${one.name} class="bar" aria-pressed=${String(cells.every((c) => c.class === one.name))}
        disabled=${!store.open || (broken && one.name !== NOT_COUNTED) || cells.every(isWaiting)}
        onClick=${() => store.onward(() => store.move(cells, one.name))}>
      <kbd>${one.key}</kbd><span>${title(one.name)}</span>
      ${single && !broken && one.name !== NOT_COUNTED && !one.own
        ? html`<i class="track"><i style=${{ width: `${100 * prob(one.name)}%`, background: one.color }}></i></i><em>${percent(prob(one.name))}</em>`
        : html`<${Dot} of=${one} />`}
    </button>`)}
    ${shown.length < classes.length && html`<button class="plain" onClick=${() => setAll(true)}>All ${classes.length} classes</button>`}
  </div>`;
}

function Strip({ loaded, empty, store }) {
  if (loaded.error) return html`<p class="warn">${loaded.error.message}</p>`;
  if (!loaded.value) return html`<p class="soft">Looking …</p>`;
  if (!loaded.value.items.length) return html`<p class="soft">${empty}</p>`;
  return html`<div class="strip">${loaded.value.items.map((item) => html`
    <button class="thumb" title="Set beside the cell" onClick=${(event) => {
      store.compare({ image: item.image, text: `${title(item.class)}, ${item.case_name}`, of: store.current });
      event.currentTarget.closest(".pane").scrollIntoView();
    }}>
      <img src=${item.thumbnail} alt="" loading="lazy" />${title(item.class)}${item.similarity != null && html`<small> ${percent(item.similarity)}</small>`}
    </button>`)}</div>`;
}

function Similar({ store, cell }) {
  const loaded = useLoaded((signal) => api.get(`${store.path}/cells/${cell.id}/similar`, { limit: 8 }, signal), [cell.id]);
  return html`<${Strip} loaded=${loaded} store=${store} empty="The station has no signed cells yet." />
    ${loaded.value?.items.length > 0 && html`<p class="soft">Percentages: how alike the network finds them (cosine similarity).</p>`}`;
}

function Typical({ store, cell }) {
  const [of, setOf] = useState("");
  const name = of || cell.class || cell.predicted_class || store.case.classes[0].name;
  const loaded = useLoaded((signal) => api.get("/reference", { of: name, limit: 12 }, signal), [name]);
  return html`<label class="inline">Class <select value=${name} onChange=${(event) => setOf(event.target.value)}>
      ${store.case.classes.filter((one) => one.name !== NOT_COUNTED).map((one) => html`<option value=${one.name}>${title(one.name)}</option>`)}</select></label>
    <${Strip} loaded=${loaded} store=${store} empty="No signed cells of this class yet." />`;
}

/** Loads its content only while it is open, and stays open from cell to cell. */
function Fold({ label, children }) {
  const [open, setOpen] = useState(false);
  return html`<details onToggle=${(event) => setOpen(event.target.open)}><summary>${label}</summary>${open && children}</details>`;
}

function Comment({ store, cell }) {
  const text = useRef(cell.comment);
  const save = () => {
    const now = store.cells.get(cell.id);
    if (now && text.current.trim() !== now.comment) store.comment(now, text.current.trim());
  };
  // Enter keeps what was typed, Escape does not; both go back to the cell.
  const onKeyDown = (event) => {
    if (!["Enter", "Escape"].includes(event.key) || event.isComposing) return;
    event.preventDefault();
    if (event.key === "Escape") event.target.value = text.current = store.cells.get(cell.id).comment;
    event.target.blur();
    save();
    store.focus();
  };
  // Going to another cell keeps what was typed about this one.
  useEffect(() => save, []);
  return html`<label class="comment">Comment
    <input defaultValue=${cell.comment} maxlength="500" disabled=${!store.open} onChange=${save} onKeyDown=${onKeyDown}
      onInput=${(event) => { text.current = event.target.value; }} /></label>`;
}

/** Why the model does not count a cell by itself. */
function flag(cell) {
  if (cell.error) return "The file is unreadable: Enter sets it aside as “not counted”.";
  if (cell.warning) return `The model abstains: ${cell.warning}. However high, its confidence may mean little here.`;
  if (cell.abstain && !cell.note) return "The model abstains: its confidence is too low to count this cell unseen.";
  return cell.abstain && "The model abstains from this photograph.";
}

function Words({ cell }) {
  const set = cell.prediction_set ?? [];
  return html`
    ${flag(cell) && html`<p class="warn">${flag(cell)}</p>`}
    ${set.length > 0 && html`<p class="soft">Prediction set: ${set.join(", ")}.</p>`}
    ${cell.note && html`<p class="soft">${title(cell.note)}.</p>`}`;
}

export function CellPanel({ store, view, setView, onZoom, large }) {
  const [of, setOf] = useState("");
  const cell = store.cells.get(store.current);
  const cells = store.selection.length ? store.selection : cell ? [cell] : [];
  if (!cell) return html`<section class="pane cell-pane"><p class="soft">No cells yet.</p></section>`;
  const two = cells.length === 2 ? cells[0] : null;
  const shown = two ? cells[1] : cell;
  const beside = store.beside ?? (two && { cell: two, text: called(two) });
  const why = of && shown.probs[of] !== undefined ? of : shown.predicted_class;
  return html`<section class="pane cell-pane" aria-label="Cell">
    <div class="row head"><h2>${cells.length > 2 ? `${many(cells.length, "cell")} selected` : called(shown)}
        <span>${cells.length === 1 ? `${shown.read ? "✓ " : ""}${shown.name}` : ""}</span></h2>
      <button class="small" aria-label="Previous cell" onClick=${() => store.step(-1)}>‹</button>
      <button class="small" aria-label="Next cell" onClick=${() => store.step(1)}>›</button>
      ${large && html`<button class="small" aria-label="Close" onClick=${onZoom}>✕</button>`}</div>
    <div class=${beside ? "view pair" : "view"}>
      ${beside && html`<figure>${beside.cell
        ? html`<${Photo} store=${store} cell=${beside.cell} view=${view} of=${why} />`
        : html`<div class="photo"><img src=${beside.image} alt=${beside.text} /></div>`}
        <figcaption>${beside.text}</figcaption></figure>`}
      <figure><${Photo} store=${store} cell=${shown} view=${view} of=${why} large />
        ${beside && html`<figcaption>${called(shown)}</figcaption>`}</figure>
    </div>
    <div class="row">
      <div class="choice" role="group" aria-label="View">${viewsOf(store.case).map(([key, label, what]) => html`
        <button title=${what} aria-pressed=${String(view === key)} disabled=${shown.error} onClick=${() => setView(key)}>${label}</button>`)}</div>
      <button class="small" aria-pressed=${String(Boolean(store.beside))} onClick=${() => store.hold(shown)}>Compare</button>
      ${!large && html`<button class="small" onClick=${onZoom} aria-label="Enlarge" title="Enlarge">⤢</button>`}
    </div>
    ${view === "why" && !shown.error && html`<label class="inline">Evidence for <select value=${why} onChange=${(event) => setOf(event.target.value)}>
      ${Object.keys(shown.probs).map((name) => html`<option value=${name}>${title(name)}</option>`)}</select></label>`}
    <${Bars} store=${store} cells=${cells} />
    ${store.open && html`<div class="row confirm">
      <button class="primary" disabled=${cells.every((one) => one.read || isWaiting(one))}
        onClick=${() => store.onward(() => store.confirm(cells))}>${cells.every((one) => one.error) ? "Set aside" : "Confirm"} <kbd>Enter</kbd></button>
      <button disabled=${cells.every((one) => !one.class)}
        onClick=${() => store.onward(() => store.move(cells, ""))}>Unidentified <kbd>Del</kbd></button></div>`}
    ${cells.length === 1 && html`<${Words} cell=${shown} /><${Comment} key=${shown.id} store=${store} cell=${shown} />`}
    ${!shown.error && html`<${Fold} label="Similar signed cells"><${Similar} store=${store} cell=${shown} /></${Fold}>`}
    <${Fold} label="Typical cells of a class"><${Typical} store=${store} cell=${shown} /></${Fold}>
  </section>`;
}

export function Enlarged({ store, view, setView, onClose }) {
  const dialog = useRef();
  useEffect(() => { dialog.current.showModal(); }, []);
  return html`<dialog class="enlarged" ref=${dialog} onClose=${onClose} aria-label="Enlarged cell">
    <${CellPanel} store=${store} view=${view} setView=${setView} onZoom=${() => dialog.current.close()} large />
  </dialog>`;
}
