// Keys that work wherever no text is being written.
import { Dot, html, title, useLayoutEffect } from "./html.js";

const WRITES = "input:not([type=checkbox]), textarea, select";

/** Calls `handle` for keys outside fields and dialogs; true means that the key was used. */
export function useKeys(handle) {
  useLayoutEffect(() => {
    const onKey = (event) => {
      if (event.defaultPrevented || event.isComposing || event.target.closest?.(WRITES) || document.querySelector("dialog[open]:not(.enlarged)")) return;
      if (handle(event)) event.preventDefault();
    };
    document.addEventListener("keydown", onKey);
    return () => document.removeEventListener("keydown", onKey);
  });
}

const KEYS = [
  ["Arrows, Page Up, Page Down", "Go to another cell; with Shift select up to it; with Ctrl keep the selection"],
  ["Space", "Select the cell or leave it out"],
  ["Home, End", "First and last of the group; with Ctrl of the gallery"],
  ["Ctrl A", "Select the whole group"],
  ["Enter", "Confirm what is selected"],
  ["Del", "Unidentified again"],
  ["Ctrl Z", "Undo"],
  ["Ctrl Shift Z", "Redo"],
  [".", "Photograph, what the network saw, why"],
  [",", "Hold the cell for comparison, and end it"],
  ["/", "Write a comment; Enter keeps it, Esc does not, and both go back to the cell"],
  ["+ −", "Larger and smaller cells"],
  ["?", "This help"],
];

export const help = (classes) => ({
  heading: "Keys", cancel: "", ok: "Close", wide: true,
  body: html`<div class="keys">
      <dl>${KEYS.map(([key, what]) => html`<div>
        <dt>${key.split(", ").map((one) => html`<kbd>${one}</kbd> `)}</dt><dd>${what}</dd></div>`)}</dl>
      <dl>${classes.map((one) => html`<div>
        <dt><kbd>${one.key}</kbd></dt><dd><${Dot} of=${one} /> ${title(one.name)}</dd></div>`)}</dl>
    </div>
    <p class="soft">By mouse: drag cells to a group or to a class in the list; Shift and Ctrl with a click,
      or a box drawn from an empty place, select several.</p>`,
});
