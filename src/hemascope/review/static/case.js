// A case: its bar, the list of classes, the gallery, the panel, and what ends the reading.
import * as api from "./api.js";
import { CaseStore, groupTitle, LOOK, NOT_COUNTED, WAITING } from "./case_store.js";
import { Agreement, Differential } from "./differential.js";
import { Choose, dropped } from "./files.js";
import { Gallery } from "./gallery.js";
import { html, many, Mark, one, Table, title, useChanges, useEffect, useLoaded, useMemo, useRef, useState, when } from "./html.js";
import { help, useKeys } from "./keys.js";
import { CellPanel, Enlarged, viewsOf } from "./panel.js";
import { attempt, Lines, ui } from "./ui.js";

const ZOOMS = [1, 1.4, 2];

const SEEN = { unseen: "Not looked through yet", seen: "Looked through" };

/** A line of the list of classes: goes to the group, and takes cells that are dropped on it. */
function Line({ store, name, label, cls, share, several }) {
  const count = store.countOf(name);
  const counts = cls && count > 0 && name !== NOT_COUNTED && !store.progress;
  const seen = counts ? (store.isUnseen(name) ? "unseen" : "seen") : "";
  const takes = several && store.open && store.selected.size > 0 && name !== WAITING;
  const go = () => {
    if (takes) {
      store.move(store.selection, name === LOOK ? "" : name);
      store.select([]);
    } else if (count) store.goTo(name);
  };
  return html`<li><button class="class" data-drop=${name === WAITING ? null : name} aria-disabled=${String(!count && !takes)} onClick=${go}>
    ${cls ? html`<${Mark} of=${cls} />` : html`<i class="flag">${name === LOOK ? "!" : "…"}</i>`}
    <span title=${label}>${label}</span><em>${count}</em>
    <small>${count > 0 && share != null && html`${one(share)}<span class="sr"> %</span>`}</small>
    <i class=${seen} title=${SEEN[seen]}><span class="sr">${SEEN[seen]}</span></i></button></li>`;
}

function Classes({ store, several }) {
  const { case: now } = store;
  const shares = new Map(now.differential.rows.map((row) => [row.class, row.percent]));
  return html`<nav class="rail" aria-label="Classes">
    <p class="class heads" aria-hidden="true"><span>Class</span><em>n</em><small>%</small><i></i></p>
    <ul><${Line} store=${store} several=${several} name=${LOOK} label=${groupTitle(LOOK)} />
      ${now.classes.map((cls) => html`<${Line} key=${cls.name} store=${store} several=${several} name=${cls.name} label=${title(cls.name)}
        cls=${cls} share=${shares.get(cls.name)} />`)}
      ${store.countOf(WAITING) > 0 && html`<${Line} store=${store} name=${WAITING} label="Waiting" />`}</ul>
  </nav>`;
}

/** What the reader may do about the case itself. */
function actions(store) {
  const { id, path, reader } = store;
  const to = (what, json) => attempt(async () => {
    await api.post(`${path}/${what}`, { reader, ...json });
    await store.refresh();
    return true;
  });
  const missing = async (heading, lines) => {
    const body = html`<${Lines} of=${lines} /><div class="row">${store.missing.map((name) => html`
      <button name="to" value=${name}>${groupTitle(name)}</button>`)}</div>`;
    const { to: name } = await ui.ask({ heading, body, ok: "Close", cancel: "" }) ?? {};
    if (name) store.goTo(name);
  };
  // The station decides; what is missing is said before the question.
  const end = async (what, heading, text, done) => {
    if (!await store.settled()) return ui.tell("Some changes are not saved yet. Wait for the station, then try again.", "warning");
    await attempt(() => store.refresh());
    if (store.case.blockers.length) return missing(`${heading}: not yet`, store.case.blockers);
    if (!await ui.ask({ heading, ok: heading, text })) return null;
    try {
      await api.post(`${path}/${what}`, { reader });
      ui.tell(done, "note");
    } catch (error) {
      if (error.body?.blockers) missing(`${heading}: not yet`, error.body.blockers);
      else ui.tell(error.message);
    }
    return attempt(() => store.refresh());
  };
  return {
    sign: () => end("sign", "Sign off",
      "The case is frozen as it is: cells, differential, model and readers. Reopening is possible and is recorded.",
      "Signed. The report is under Export."),
    finish: () => end("finish", "Finish reading",
      "Your answers can then no longer be changed, and both of you see how far you agree.",
      "Finished. The agreement of both readers can be seen now."),
    second: () => to("second").then((done) => done && attempt(() => store.load())),
    reopen: async () => {
      const text = "Who reopened it, when and why stays in the trail.";
      const fields = [{ name: "reason", label: "Reason", required: true, maxlength: 100 }];
      const values = await ui.ask({ heading: "Reopen the case", ok: "Reopen", text, fields });
      if (values) to("reopen", values);
    },
    rename: async () => {
      const fields = [{ name: "name", label: "Name", value: store.case.name, required: true, maxlength: 100 }];
      const values = await ui.ask({ heading: "Rename the case", ok: "Rename", fields });
      if (values && await attempt(() => api.put(`${path}/name`, { reader, ...values }))) attempt(() => store.refresh());
    },
    remove: async () => {
      const text = `“${store.case.name}” and its ${many(store.cells.size, "image")} are deleted for good. The trail keeps only that it happened.`;
      const sure = await ui.ask({ heading: "Delete the case", ok: "Delete", danger: true, text });
      if (sure && await attempt(async () => (await api.remove(`/cases/${id}`), true))) location.hash = "#/";
    },
  };
}

function Menu({ label, children }) {
  const menu = useRef();
  const close = () => { menu.current.open = false; };
  // Leaving the page takes the focus away after the menu itself is gone.
  const onFocusOut = ({ relatedTarget }) => { if (menu.current && !menu.current.contains(relatedTarget)) close(); };
  const onKeyDown = (event) => {
    if (event.key !== "Escape") return;
    close();
    menu.current.firstChild.focus();
  };
  return html`<details class="menu" ref=${menu} onKeyDown=${onKeyDown}
      onFocusOut=${onFocusOut} onClick=${(event) => event.target.closest("a, button") && close()}>
    <summary class="button">${label}</summary><div>${children}</div></details>`;
}

/** Who reads, and in which role. */
function who({ role, first, second }) {
  if (role === "") return "not a reader of this case";
  if (role === "second") return `${second.name}, second reader`;
  return `${first.name}, first reader${second ? ` · ${second.name}, second` : ""}`;
}

function Bar({ store, act, larger, smaller, several, setSeveral }) {
  const { case: now } = store;
  const file = (kind) => api.link(`${store.path}/export.${kind}`);
  const saved = store.trouble && store.unsaved ? `${many(store.unsaved, "change")} not saved` : store.unsaved ? "Saving …" : store.done.length ? "Saved" : "";
  return html`<header class="bar-top">
    <a href="#/" class="back" aria-label="All cases">‹</a>
    <h1>${now.name}</h1>
    <span class="soft">${many(store.cells.size, "cell")} · ${now.model.name} ${now.model.image_size} px · ${who(now)}</span>
    ${now.status === "signed" && html`<span class="badge signed">signed ${when(now.signed_at)}</span>`}
    <span class="soft saved" role="status">${saved}</span>
    <div class="row tools">
      ${store.open && html`<button onClick=${() => store.undo()} disabled=${!store.done.length} aria-label="Undo" title="Undo (Ctrl Z)">↶</button>
        <button onClick=${() => store.redo()} disabled=${!store.undone.length} aria-label="Redo" title="Redo (Ctrl Shift Z)">↷</button>`}
      <${Menu} label="View">
        <button onClick=${larger}>Larger cells <kbd>+</kbd></button>
        <button onClick=${smaller}>Smaller cells <kbd>−</kbd></button>
        <button aria-pressed=${String(several)} onClick=${() => setSeveral(!several)}>Select several by tapping ${several ? "✓" : ""}</button>
        <button onClick=${() => ui.ask(help(now.classes))}>Keys <kbd>?</kbd></button></${Menu}>
      <${Menu} label="Case">
        ${store.open && now.role === "first" && html`<${Choose} onFiles=${(files) => store.add(files)} />`}
        ${!now.second && now.role === "" && html`<button onClick=${act.second}>Read as second reader</button>`}
        ${now.second_finished && html`<a href="#/cases/${store.id}/agreement">Agreement of the readers</a>`}
        <a href="#/cases/${store.id}/trail">Trail of changes</a>
        ${store.open && now.role && html`<button onClick=${act.rename}>Rename …</button>`}
        ${now.status === "signed" && html`<button onClick=${act.reopen}>Reopen …</button>`}
        <button class="red" onClick=${act.remove}>Delete …</button></${Menu}>
      <${Menu} label="Export">
        <a href=${api.link(`${store.path}/report`)} target="_blank" rel="noopener">Printable report</a>
        <a href=${file("csv")} download>CSV</a>
        <a href=${file("json")} download>JSON</a></${Menu}>
      ${now.status === "open" && now.role === "first" && html`<button class="primary" onClick=${act.sign}>Sign off</button>`}
      ${now.role === "second" && store.open && html`<button class="primary" onClick=${act.finish}>Finish reading</button>`}
    </div>
  </header>`;
}

function Notices({ store, act, several, setSeveral }) {
  const { case: now } = store;
  if (store.trouble) {
    const what = store.unsaved ? `${many(store.unsaved, "change")} not saved.` : "Waiting for the station.";
    return html`<div class="notice bad" role="alert"><span><b>${what}</b> ${store.trouble} It is tried again by itself.</span>
      <button class="small" onClick=${() => store.retry()}>Try now</button>
      ${store.unsaved > 0 && html`<button class="small" onClick=${() => store.giveUp()}>Take the changes back</button>`}
      ${store.progress && html`<button class="small" onClick=${() => store.stop()}>Stop</button>`}</div>`;
  }
  if (store.progress) {
    const { word, done, total } = store.progress;
    return html`<div class="notice"><label class="progress">${word} ${done} of ${total || store.cells.size}
      <progress max=${total || 1} value=${done}></progress></label></div>`;
  }
  if (several) {
    const { size } = store.selected;
    const what = !store.open ? "Tap cells to compare two of them." : size ? "Tap a class in the list to move them there." : "Tap the cells, then their class in the list.";
    return html`<div class="notice"><span role="status"><b>${many(size, "cell")} selected.</b> ${what}</span>
      ${store.open && size > 0 && html`<button class="small" onClick=${() => { store.confirm(store.selection); store.select([]); }}>Confirm</button>`}
      <button class="small" onClick=${() => setSeveral(false)}>Done</button></div>`;
  }
  if (now.role === "" && now.status === "open" && !now.second) {
    return html`<div class="notice"><span><b>${now.first.name} reads this case.</b>${" "}
      You can be its second reader: you start from the model’s answers and do not see the first reader’s.</span>
      <button class="small primary" onClick=${act.second}>Read as second reader</button></div>`;
  }
  if (now.role === "second" && now.second_finished) {
    return html`<div class="notice"><span><b>You have finished reading.</b></span><a href="#/cases/${store.id}/agreement">See the agreement</a></div>`;
  }
  if (now.status === "signed") {
    return html`<div class="notice"><span><b>Signed by ${now.signed_by}.</b> The case is frozen.</span>
      <button class="small" onClick=${act.reopen}>Reopen …</button></div>`;
  }
  return null;
}

function Trail({ store }) {
  const heads = ["When", "Reader", "What", "Cell", "From", "To"];
  const rows = ({ items }) => items.toReversed().map((row) => [
    when(row.at), row.reader, html`<span class="wrap">${row.kind}${row.detail && `: ${row.detail}`}</span>`,
    store.cells.get(row.cell)?.name ?? "", row.from, row.to,
  ]);
  return html`<${Sheet} store=${store} heading="Trail of changes, the latest first" of="trail"
    show=${(trail) => html`<${Table} list heads=${heads} rows=${rows(trail)} />`} />`;
}

/** A page of its own about the case, of what the station says under `of`. */
function Sheet({ store, heading, of, show }) {
  const { value, error } = useLoaded(() => api.get(`${store.path}/${of}`), [store]);
  return html`<main class="start"><p><a href="#/cases/${store.id}">‹ ${store.case.name}</a></p><h1>${heading}</h1>
    ${error ? html`<p class="warn">${error.message}</p>` : value ? show(value) : html`<p>Loading …</p>`}</main>`;
}

/** A click on a button leaves the keys with the cell; in a menu or dialog, and after writing, it takes them. */
function keepFocus(event) {
  if (event.target.closest("button, summary") && !event.target.closest("dialog, .menu") && !document.activeElement.closest("input, select")) event.preventDefault();
}

function Review({ store, part, session }) {
  const [view, setView] = useState("photo");
  const [zoom, setZoom] = useState(0);
  const [several, turnSeveral] = useState(false);
  const setSeveral = (on) => {
    turnSeveral(on);
    store.select(on || !store.current ? [] : [store.current]);
  };
  const [pane, setPane] = useState("cells");
  const [large, setLarge] = useState(false);
  const larger = () => setZoom((old) => Math.min(old + 1, ZOOMS.length - 1));
  const smaller = () => setZoom((old) => Math.max(old - 1, 0));
  const act = useMemo(() => actions(store), [store]);
  const { case: now } = store;
  const views = viewsOf(now).map(([key]) => key);

  useEffect(() => {
    document.title = `${now.name} · hemascope`;
    session.onFiles = async (transfer) => {
      const files = await dropped(transfer);
      if (store.open && now.role === "first") store.add(files);
      else ui.tell("Files can be added by the first reader, while the case is open.", "warning");
    };
    return () => { session.onFiles = null; };
  }, [store, now.name, now.role]);

  useKeys((event) => {
    if (part) return false;
    const { key } = event;
    if (event.ctrlKey || event.metaKey) {
      if (key.toLowerCase() === "z" && event.shiftKey || key.toLowerCase() === "y") store.redo();
      else if (key.toLowerCase() === "z") store.undo();
      else return false;
      return true;
    }
    if (event.altKey) return false;
    const cells = store.selection.length ? store.selection : [store.cells.get(store.current)].filter(Boolean);
    if (!store.selected.size && store.current) store.select([store.current]);
    const cls = now.classes.find((a) => a.key === key) ?? now.classes.find((a) => a.key.toLowerCase() === key.toLowerCase());
    if (cls) store.onward(() => store.move(cells, cls.name));
    else if (key === "Enter" && !event.target.closest("button, summary, a")) store.onward(() => store.confirm(cells));
    else if (key === "Delete" || key === "Backspace") store.onward(() => store.move(cells, ""));
    else if (key === "Escape") {
      if (large) return false;
      store.beside = null;
      store.select(store.current ? [store.current] : []);
    } else if (large && (key === "ArrowLeft" || key === "ArrowRight")) store.step(key === "ArrowLeft" ? -1 : 1);
    else if (!large && key.startsWith("Arrow") && !event.target.closest(".menu, .scroll")) return store.arrow?.(event);
    else if (key === ".") setView((old) => views[(views.indexOf(old) + 1) % views.length]);
    else if (key === ",") store.hold(store.cells.get(store.current));
    else if (key === "/") [...document.querySelectorAll(".comment input")].at(-1)?.focus();
    else if (key === "+" || key === "=") larger();
    else if (key === "-") smaller();
    else if (key === "?") ui.ask(help(now.classes));
    else return false;
    return true;
  });

  if (part === "trail") return html`<${Trail} store=${store} />`;
  if (part === "agreement") {
    return html`<${Sheet} store=${store} heading="Agreement of the readers" of="agreement"
      show=${(agreement) => html`<${Agreement} agreement=${agreement} store=${store} />`} />`;
  }
  const empty = !store.cells.size && !store.progress;
  return html`<div class="case" data-pane=${pane} onMouseDown=${keepFocus}>
    <${Bar} store=${store} act=${act} larger=${larger} smaller=${smaller} several=${several} setSeveral=${setSeveral} />
    <${Notices} store=${store} act=${act} several=${several} setSeveral=${setSeveral} />
    <${Classes} store=${store} several=${several} />
    <main aria-label="Cells">${empty
      ? html`<div class="drop large"><p><b>Drop a folder, a zip or images anywhere</b></p>
          <div class="row"><${Choose} onFiles=${(files) => store.add(files)} /></div></div>`
      : html`<${Gallery} store=${store} zoom=${ZOOMS[zoom]} several=${several}
          onOpen=${(what) => (what === "zoom" ? setLarge(true) : setPane(what))} />`}</main>
    <aside aria-label="Cell and differential">
      <${CellPanel} store=${store} view=${view} setView=${setView} onZoom=${() => setLarge(true)} />
      <${Differential} store=${store} /></aside>
    <nav class="panes" aria-label="Parts of the case">${["cells", "cell", "differential"].map((name) => html`
      <button aria-pressed=${String(pane === name)} onClick=${() => setPane(name)}>${title(name)}</button>`)}</nav>
    ${large && html`<${Enlarged} store=${store} view=${view} setView=${setView} onClose=${() => setLarge(false)} />`}
  </div>`;
}

export function Case({ id, part, session }) {
  // A case that is left and opened again has the same store: what is not saved yet goes on being sent.
  const store = useMemo(() => (session.cases[id + session.reader.id] ??= new CaseStore(id, session.reader.id)), [id]);
  const [problem, setProblem] = useState(null);
  useChanges(store);
  useEffect(() => {
    store.load().then(() => {
      const { files } = session;
      session.files = null;
      if (files?.length) store.add(files);
    }, setProblem);
    const back = () => { if (!document.hidden && store.case) attempt(() => store.refresh()); };
    document.addEventListener("visibilitychange", back);
    return () => {
      document.removeEventListener("visibilitychange", back);
      if (!store.unsaved) return;
      const what = `${many(store.unsaved, "change")} of “${store.case.name}” not saved yet`;
      ui.tell(`${what}: kept, and sent as soon as the station answers.`, "warning");
    };
  }, [store]);
  if (problem) return html`<main class="start"><p><a href="#/">‹ All cases</a></p>
    <h1>The case cannot be shown</h1><p class="warn">${problem.message}</p></main>`;
  if (!store.case) return html`<main class="start"><p>Loading …</p></main>`;
  return html`<${Review} store=${store} part=${part} session=${session} />`;
}
