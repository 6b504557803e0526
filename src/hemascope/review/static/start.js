// The start screen: who reads, the cases, and what the station knows over all of them.
import * as api from "./api.js";
import { caseName, Choose, dropped } from "./files.js";
import { html, many, Mark, one, span, Table, title, useEffect, useState, when } from "./html.js";
import { attempt, ui } from "./ui.js";

const ROLES = [["white", "White cell (counts)"], ["per_100_white", "Per 100 white cells"], ["not_counted", "Not counted"]];

function Readers({ session }) {
  const [readers, setReaders] = useState(null);
  useEffect(() => { attempt(() => api.get("/readers")).then((list) => setReaders(list?.items ?? [])); }, []);
  const add = async (event) => {
    event.preventDefault();
    const name = new FormData(event.target).get("name").trim();
    const reader = name && await attempt(() => api.post("/readers", { name }));
    if (reader) session.read(reader);
  };
  return html`<section class="card who"><h2>Who reads?</h2>
    ${session.begins && html`<p class="warn" role="alert">Say who reads, then the case begins.</p>`}
    <p class="soft">Every answer is kept with its reader, and a second reader does not see the first one’s.</p>
    ${readers && html`<div class="row">${readers.map((reader) => html`<button key=${reader.id} onClick=${() => session.read(reader)}>${reader.name}</button>`)}</div>
    <form class="row" onSubmit=${add}>
      <label>New reader <input name="name" autocomplete="name" maxlength="100" required /></label>
      <button class="primary">Add and start</button></form>`}
  </section>`;
}

/** Makes a case of files and opens it; the files are sent there. */
async function begin(session, files, asked = false) {
  if (!session.reader) {
    session.begins = () => begin(session, files, asked);
    session.redraw();
    document.querySelector(".who input")?.focus();
    return null;
  }
  let name = caseName(files);
  if (asked) {
    const field = { name: "name", label: "Name", value: name, required: true, maxlength: 100 };
    const values = await ui.ask({ heading: "New case", ok: "Create", fields: [field] });
    if (!values) return null;
    name = values.name;
  }
  const made = await attempt(() => api.post("/cases", { name: name.slice(0, 100), reader: session.reader.id }));
  if (!made) return null;
  session.files = files;
  location.hash = `#/cases/${made.id}`;
  return made;
}

function Cases({ session }) {
  const [cases, setCases] = useState(null);
  const more = (page) => setCases((old) => [...(old ?? []), ...page]);
  useEffect(() => { attempt(() => api.all("/cases", { limit: 100 }, more)); }, []);
  const rows = cases?.map((row) => [
    html`<a href="#/cases/${row.id}">${row.name}</a>`, row.num_cells, row.num_unidentified || "–",
    html`<span class="badge ${row.status}">${row.status}</span>`, when(row.created_at),
  ]);
  return html`<section class="card cases">
    <div class="row head"><h2>Cases</h2><button onClick=${() => begin(session, [], true)}>Empty case</button></div>
    <div class="drop"><p><b>Drop a folder, a zip or images anywhere</b> to begin a case</p>
      <div class="row"><${Choose} onFiles=${(files) => begin(session, files)} /></div></div>
    ${rows?.length === 0 && html`<p class="soft">No cases yet.</p>`}
    ${rows?.length > 0 && html`<${Table} list heads=${["Case", "Cells", "To identify", "Status", "Created"]} rows=${rows} />`}
  </section>`;
}

function Classes() {
  const [classes, setClasses] = useState(null);
  const load = async () => { const list = await attempt(() => api.get("/classes")); if (list) setClasses(list.items); };
  useEffect(() => { load(); }, []);
  const add = async () => {
    const values = await ui.ask({
      heading: "A class of the station’s own", ok: "Add", text: "The model does not know it; readers can move cells there, and adapt can learn it later.",
      fields: [{ name: "name", label: "Name", required: true, maxlength: 60 }, { name: "role", label: "In the differential", options: ROLES }],
    });
    if (values && await attempt(() => api.post("/classes", values))) load();
  };
  return html`<section class="card"><div class="row head"><h2>Classes</h2><button class="small" onClick=${add}>Add a class</button></div>
    <ul class="classes">${classes?.map((cls) => html`<li>
      <${Mark} of=${cls} /><span>${title(cls.name)}${cls.own && html` <small>own</small>`}</span>
      <small>${ROLES.find(([role]) => role === cls.role)?.[1].toLowerCase()}${cls.guessed ? ", guessed" : ""}</small></li>`)}</ul>
  </section>`;
}

const share = (row, percent) => html`${one(percent)}<small>${span(row)}</small>`;

/** Percentages over time: 0 and 100 are the two rules. */
function Line({ label, values }) {
  if (values.length < 2) return null;
  const at = values.map((value, i) => [8 + (i * 284) / (values.length - 1), 84 - 0.76 * value]);
  return html`<svg class="line" viewBox="0 0 300 92" role="img" aria-label="${label} over time, from ${one(values[0])} to ${one(values.at(-1))} %">
    <path d="M8 8H292M8 84H292" /><polyline points=${at.join(" ")} />${at.map(([x, y]) => html`<circle cx=${x} cy=${y} r="3" />`)}</svg>`;
}

function Kept() {
  const [kept, setKept] = useState(null);
  useEffect(() => { attempt(() => api.get("/kept")).then(setKept); }, []);
  if (!kept) return null;
  const rows = kept.rows.filter((row) => row.total).map((row) => [title(row.class), `${row.count} of ${row.total}`, share(row, row.percent)]);
  return html`<section class="card"><h2>Pre-classification kept <span>${many(kept.cases, "signed case")}</span></h2>
    <p class="soft">How often readers kept what the model had said, over all signed cases. A class that falls shows drift first.</p>
    <${Line} label="Kept, by month," values=${kept.months.map((month) => month.percent ?? 0)} />
    ${rows.length > 0 && html`<${Table} heads=${["Class", "Kept", "%"]} rows=${rows} />`}
  </section>`;
}

function Proficiency({ session }) {
  const [past, setPast] = useState([]);
  useEffect(() => { attempt(() => api.get(`/readers/${session.reader.id}/quizzes`)).then((list) => setPast(list?.items ?? [])); }, [session.reader.id]);
  const start = async (event) => {
    event.preventDefault();
    const size = Number(new FormData(event.target).get("size"));
    const quiz = await attempt(() => api.post("/quizzes", { reader: session.reader.id, size }));
    if (quiz) location.hash = `#/quiz/${quiz.id}`;
  };
  return html`<section class="card"><h2>Proficiency</h2>
    <p class="soft">Signed cells are shown again without their answer: your agreement with the signed class, and over time.</p>
    <form class="row" onSubmit=${start}>
      <label class="inline">Cells <input name="size" type="number" min="1" max="200" value="20" required /></label>
      <button>Start</button></form>
    <${Line} label="Agreement" values=${past.map((quiz) => quiz.agree_percent).toReversed()} />
    ${past.length > 0 && html`<${Table} heads=${["When", "Cells", "Agreement %"]} rows=${past.slice(0, 8).map((quiz) => [
      html`<a href="#/quiz/${quiz.id}">${when(quiz.created_at)}</a>`, quiz.n, share(quiz, quiz.agree_percent),
    ])} />`}
  </section>`;
}

export function Start({ session }) {
  useEffect(() => {
    document.title = "hemascope review station";
    session.onFiles = async (transfer) => { const files = await dropped(transfer); if (files.length) begin(session, files); };
    return () => { session.onFiles = null; };
  }, []);
  const { reader, station } = session;
  return html`<main class="start">
    <h1>Review station
      <span>${station && `hemascope ${station.version} · ${station.model.name} · research use only`}</span></h1>
    ${reader
      ? html`<p>Reading as <b>${reader.name}</b>. <button class="small" onClick=${() => session.read(null)}>Somebody else</button></p>`
      : html`<${Readers} session=${session} />`}
    <div class="columns">
      <div><${Cases} session=${session} /><${Classes} /></div>
      <div>${reader && html`<${Proficiency} session=${session} />`}<${Kept} /></div>
    </div>
  </main>`;
}
