// Files from a drop or a chooser, folders walked, each with its path as a name.
import { html } from "./html.js";

/** Files of a folder entry that was dropped, and of the folders in it. */
async function walk(entry, path = "") {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    return [{ file, name: path + file.name }];
  }
  const reader = entry.createReader();
  const found = [];
  // A reader gives at most a hundred entries a call, and none at the end.
  for (;;) {
    const entries = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!entries.length) break;
    for (const one of entries) found.push(...await walk(one, `${path}${entry.name}/`));
  }
  return found;
}

export async function dropped(transfer) {
  // The entries must be taken before the first wait: the list empties after the event.
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return [...transfer.files].map((file) => ({ file, name: file.name }));
  return (await Promise.all(entries.map((entry) => walk(entry)))).flat();
}

/** Lets the reader choose files, or a folder. */
function choose(folder) {
  return new Promise((resolve) => {
    const input = document.createElement("input");
    Object.assign(input, { type: "file", multiple: true, webkitdirectory: folder });
    if (!folder) input.accept = "image/*,.zip";
    input.onchange = () => resolve([...input.files].map((file) => ({ file, name: file.webkitRelativePath || file.name })));
    input.oncancel = () => resolve([]);
    input.click();
  });
}

/** The two buttons that choose files for `onFiles`. */
export function Choose({ onFiles }) {
  const ask = async (folder) => {
    const files = await choose(folder);
    if (files.length) onFiles(files);
  };
  return html`<button class="primary" onClick=${() => ask(true)}>Choose a folder</button>
    <button onClick=${() => ask(false)}>Choose images or a zip</button>`;
}

/** What a case made of these files may be called: their folder or archive, or the time. */
export function caseName(files) {
  const [first] = files;
  const folder = first?.name.split("/").slice(0, -1)[0];
  if (folder) return folder;
  if (files.length === 1 && first.name.endsWith(".zip")) return first.name.slice(0, -4);
  return `Case ${new Date().toLocaleString("sv").slice(0, 16)}`;
}
