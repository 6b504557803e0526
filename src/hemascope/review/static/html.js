// Preact, its hooks and htm under one name, and the few words that every view uses.
import { h } from "./vendor/preact.js";
import { useEffect, useReducer } from "./vendor/hooks.js";
import htm from "./vendor/htm.js";

export { render } from "./vendor/preact.js";
export { useEffect, useLayoutEffect, useMemo, useRef, useState } from "./vendor/hooks.js";
export const html = htm.bind(h);

/** Draws a component anew whenever `target` dispatches "change". */
export function useChanges(target) {
  const [, again] = useReducer((turn) => turn + 1, 0);
  useEffect(() => {
    target.addEventListener("change", again);
    return () => target.removeEventListener("change", again);
  }, [target]);
}

/** What `load` resolves to (undefined before), asked again when `inputs` change. */
export function useLoaded(load, inputs) {
  const [state, set] = useReducer((_, next) => next, {});
  useEffect(() => {
    const stop = new AbortController();
    set({});
    // A short wait, so that arrowing through cells does not ask for every one of them.
    const wait = setTimeout(() => load(stop.signal).then(
      (value) => !stop.signal.aborted && set({ value }),
      (error) => !stop.signal.aborted && set({ error }),
    ), 60);
    return () => { clearTimeout(wait); stop.abort(); };
  }, inputs);
  return state;
}

/** A table: the first cell of each row heads it; `list` sets it wide, in a box that scrolls. */
export function Table({ heads, rows, list }) {
  const table = html`<table class=${list ? "list" : ""}>
    <thead><tr>${heads.map((head) => html`<th scope="col">${head}</th>`)}</tr></thead>
    <tbody>${rows.map(([first, ...rest]) => html`<tr>
      <th scope="row">${first}</th>${rest.map((cell) => html`<td>${cell}</td>`)}</tr>`)}</tbody>
  </table>`;
  return list ? html`<div class="scroll" tabindex="0">${table}</div>` : table;
}

/** A class's key and color. */
export const Mark = ({ of }) => html`<kbd>${of.key}</kbd><${Dot} of=${of} />`;
export const Dot = ({ of }) => html`<i class="dot" style=${{ background: of.color }}></i>`;

export const title = (name) => name && name[0].toUpperCase() + name.slice(1).replaceAll("_", " ");
export const many = (n, word, words = `${word}s`) => `${n.toLocaleString("en")} ${n === 1 ? word : words}`;
export const percent = (fraction) => `${(100 * fraction).toFixed(fraction > 0.995 ? 1 : 0)} %`;
export const one = (value) => (value == null ? "–" : value.toFixed(1));
export const span = (row) => (row.low == null ? "" : `${one(row.low)}–${one(row.high)}`);
export const when = (time) => (time ? new Date(time).toLocaleString([], { dateStyle: "medium", timeStyle: "short" }) : "");
