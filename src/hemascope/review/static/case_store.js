// One case as this reader sees it. What the reader does shows at once and is sent after: `base`
// holds what the station acknowledged, `queue` what it has not, and `cells` the two together, so
// that taking back a refused change is only leaving it out.
import * as api from "./api.js";
import { many, title } from "./html.js";
import { ui } from "./ui.js";

export const NOT_COUNTED = "not counted";
export const LOOK = "#look";
export const WAITING = "#waiting";

export const isWaiting = (cell) => !cell.predicted_class && !cell.error;
export const isFlagged = (cell) => cell.abstain || Boolean(cell.warning) || Boolean(cell.error);
/** The class in force where the reader says `to`; null is nothing said, so the model's. */
const inForce = (cell, to) => to ?? (cell.abstain ? "" : cell.predicted_class);
/** What makes a cell again as it was: null where no reader had named it. */
const again = (cell) => (cell.read || cell.class !== inForce(cell, null) ? cell.class : null);
export const groupTitle = (name) => (name === LOOK ? "Look first" : title(name));
export const called = (cell) => title(cell.class) || (isWaiting(cell) ? "Waiting" : "Unidentified");
const doubt = (cell) => (cell.error ? 2 : cell.confidence ?? 1);

/** Where a cell stands: what is flagged comes first until this reader has named it, or the case is signed. */
function groupOf(cell, isSigned) {
  if (isWaiting(cell)) return WAITING;
  return cell.class && (isSigned || cell.read || !isFlagged(cell)) ? cell.class : LOOK;
}

export class CaseStore extends EventTarget {
  case = null;
  base = new Map();
  cells = new Map();
  queue = [];
  done = [];
  undone = [];
  selected = new Set();
  current = null;
  anchor = null;
  beside = null;
  progress = null;
  trouble = "";
  wantFocus = false;
  jumped = false;
  seen = new Set();
  #groups = null;
  #order = null;
  #later = 0;
  #saving = false;
  #wake = null;
  #looked = new Set();
  #chosen = false;
  #stopped = false;

  constructor(id, reader) {
    super();
    Object.assign(this, { id, reader, path: `/cases/${id}` });
  }

  changed() { this.dispatchEvent(new Event("change")); }

  get open() { return this.case.status === "open" && this.case.role !== "" && !(this.case.role === "second" && this.case.second_finished); }
  get unsaved() { return this.queue.filter((op) => op.changes).length; }
  get selection() { return [...this.selected].map((id) => this.cells.get(id)).filter(Boolean); }

  // Reading from the station.

  async load() {
    this.#told(await api.get(this.path, { reader: this.reader }));
    await api.all(`${this.path}/cells`, { reader: this.reader }, (cells) => this.#take(cells));
    if (this.case.counts.waiting && this.open && this.case.role === "first") this.analyse();
  }

  /** Another window or reader may have worked meanwhile: looked up when the page is shown again. */
  async refresh() {
    if (this.queue.length || this.progress) return;
    const now = await api.get(this.path, { reader: this.reader });
    const old = this.case.version;
    this.#told(now);
    if (now.version !== old) await api.all(`${this.path}/cells`, { reader: this.reader }, (cells) => this.#take(cells));
    this.changed();
  }

  #told(now) {
    this.case = now;
    this.seen = new Set([...now.seen, ...this.queue.flatMap((op) => op.seen ?? [])]);
    this.changed();
  }

  #take(cells) {
    for (const cell of cells) {
      // What a reader says moves no cell within the order of doubt; an answer does.
      if (doubt(cell) !== doubt(this.base.get(cell.id) ?? {})) this.#order = null;
      this.base.set(cell.id, cell);
    }
    if (this.#order?.length !== this.base.size) this.#order = null;
    this.#show(cells.map((cell) => cell.id));
  }

  /** Lays what is not saved yet over what the station holds. */
  #show(ids) {
    const wanted = new Set(ids);
    for (const id of ids) this.cells.set(id, this.base.get(id));
    for (const op of this.queue) {
      for (const change of op.changes ?? []) {
        if (!wanted.has(change.cell)) continue;
        const cell = this.cells.get(change.cell);
        this.cells.set(change.cell, { ...cell, class: inForce(cell, change.to), read: Boolean(change.to), comment: change.comment ?? cell.comment });
      }
    }
    this.#groups = null;
    // Until the reader chooses, the current cell is the one to look at first.
    if (!this.#chosen) this.current = this.groups[0]?.cells[0].id ?? null;
    this.changed();
  }

  /** The gallery's groups in order, each with its cells, the most doubtful first. */
  get groups() {
    if (this.#groups) return this.#groups;
    const groups = new Map([LOOK, ...this.case.classes.map((one) => one.name), WAITING].map((name) => [name, []]));
    this.#order ??= [...this.base.values()].sort((a, b) => doubt(a) - doubt(b) || a.position - b.position).map((cell) => cell.id);
    const isSigned = this.case.status === "signed";
    for (const id of this.#order) {
      const cell = this.cells.get(id);
      (groups.get(groupOf(cell, isSigned)) ?? groups.get(LOOK)).push(cell);
    }
    this.#groups = [...groups].filter(([, cells]) => cells.length).map(([name, cells]) => ({ name, cells }));
    return this.#groups;
  }

  countOf(name) { return this.groups.find((group) => group.name === name)?.cells.length ?? 0; }

  // Files in, answers out.

  async add(files) {
    if (!files.length) return;
    if (this.progress) return ui.tell("The station is still busy with this case. Add the files when it has finished.", "warning");
    const station = await this.#patiently(() => api.get("/station"));
    if (!station) return;
    const most = station.limits.max_file_bytes;
    const large = files.filter(({ file }) => file.size > most);
    const fit = files.filter(({ file }) => file.size <= most);
    const passed = large.map(({ name }) => `${name}: larger than ${Math.round(most / 1e6)} MB`);
    const sum = { added: 0, known: 0 };
    let sent = 0;
    for (const part of portions(fit)) {
      this.#progress("Sending", sent, fit.length);
      const form = new FormData();
      for (const { file, name } of part) form.append("file", file, name);
      const answer = await this.#patiently(() => api.upload(`${this.path}/files`, { reader: this.reader }, form));
      if (!answer) break;
      sum.added += answer.added;
      sum.known += answer.known;
      passed.push(...answer.passed_over);
      sent += part.length;
      this.#take(answer.cells);
    }
    this.#progress(null);
    const words = [`${many(sum.added, "cell")} added`];
    if (sum.known) words.push(`${sum.known} already here`);
    if (passed.length) words.push(`${passed.length} passed over`);
    if (sent < fit.length) words.push(`${fit.length - sent} not sent`);
    ui.tell(`${words.join(", ")}.`, passed.length || sent < fit.length ? "warning" : "note", passed);
    await this.analyse();
  }

  async analyse() {
    if (this.progress) return;
    this.#progress("Analyzing", 0, 0);
    await this.#patiently(async () => {
      for await (const line of api.lines(`${this.path}/analysis`, { reader: this.reader })) {
        if (line.problem) throw new api.Problem(line.problem.status ?? 400, line.problem);
        this.#progress("Analyzing", line.done, line.total);
        if (line.cells) this.#take(line.cells);
      }
    });
    this.#progress(null);
    await this.#reload();
  }

  #progress(word, done = 0, total = 0) {
    const tenth = (p) => p && `${p.word} ${Math.floor((10 * p.done) / (p.total || 1))}`;
    const next = word && { word, done, total };
    if (next && tenth(next) !== tenth(this.progress)) ui.say(`${word}: ${done} of ${total}`);
    if (!next && this.progress) ui.say(`${this.progress.word} ended`);
    this.progress = next;
    this.changed();
  }

  /** Tries again while the station is away; null where it refused, which is said. */
  async #patiently(work) {
    for (let wait = 1000; ; wait = Math.min(2 * wait, 15000)) {
      try {
        const value = await work();
        this.trouble = "";
        return value;
      } catch (error) {
        if (!(error instanceof api.Problem)) throw error;
        if (!error.passing) {
          ui.tell(error.message);
          return null;
        }
        this.trouble = error.message;
        this.changed();
        await this.#pause(wait);
        if (this.#stopped) {
          this.#stopped = false;
          this.trouble = "";
          return null;
        }
      }
    }
  }

  /** Ends an upload or analysis that waits for the station. */
  stop() {
    this.#stopped = true;
    this.retry();
  }

  #pause(milliseconds) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, milliseconds);
      this.#wake = () => { clearTimeout(timer); resolve(); };
    });
  }

  /** Waits until everything is sent; false where the station is away. */
  async settled() {
    while (this.queue.length && !this.trouble) {
      await new Promise((resolve) => this.addEventListener("change", resolve, { once: true }));
    }
    return !this.queue.length;
  }

  retry() { this.#wake?.(); }

  async #reload() {
    try {
      this.#told(await api.get(this.path, { reader: this.reader }));
    } catch (error) {
      ui.tell(error.message);
    }
  }

  // What the reader does.

  /** Moves cells to a class ("" makes them unidentified again); returns how many can be. */
  move(cells, to) {
    if (!this.open) return ui.say("This case cannot be changed"), 0;
    const able = cells.filter((cell) => !isWaiting(cell) && (!cell.error || to === NOT_COUNTED || to === ""));
    const changes = able
      .filter((cell) => cell.class !== to || (to && !cell.read))
      .map((cell) => ({ cell: cell.id, from: cell.class, to }));
    if (able.length < cells.length) {
      const why = cells.some(isWaiting) ? "a cell that is not analyzed yet stays" : "an unreadable image can only be “not counted”";
      ui.tell(`${many(cells.length - able.length, "cell")} not moved: ${why}.`, "warning");
    }
    if (!changes.length) return 0;
    this.#send(changes);
    ui.say(`${many(changes.length, "cell")}: ${title(to) || "unidentified"}. ${this.countOf(LOOK)} to look at first`);
    return changes.length;
  }

  /** Keeps a comment, which says nothing of the class. */
  comment(cell, text) {
    this.#send([{ cell: cell.id, from: cell.class, to: again(cell), comment: text }]);
    ui.say("Comment kept");
  }

  /** Keeps what the model said: its class even where it abstained; "not counted" if unreadable. */
  confirm(cells) {
    const to = (cell) => cell.class || (cell.error ? NOT_COUNTED : cell.predicted_class);
    const able = cells.filter((cell) => !isWaiting(cell) && !cell.read);
    if (!this.open || !able.length) return 0;
    this.#send(able.map((cell) => ({ cell: cell.id, from: cell.class, to: to(cell) })));
    const broken = able.filter((cell) => !cell.class && cell.error).length;
    ui.say([[able.length - broken, "confirmed"], [broken, "set aside as not counted"]]
      .filter(([n]) => n).map(([n, what]) => `${many(n, "cell")} ${what}`).join(", "));
    return able.length;
  }

  undo() { this.#step(this.done, this.undone, "undo"); }
  redo() { this.#step(this.undone, this.done, "redo"); }

  #step(from, onto, word) {
    const entry = this.open && from.pop();
    if (!entry) return ui.say(`Nothing to ${word}`);
    // A cell that somebody else moved since is not moved under them.
    const back = entry.changes.filter(({ cell, to }) => this.cells.get(cell)?.class === inForce(this.cells.get(cell), to));
    const changes = back.map(({ cell, before, comment }) => ({
      cell, from: this.cells.get(cell).class, to: again(before), ...(comment !== undefined && { comment: before.comment }),
    }));
    if (changes.length) this.#send(changes, onto);
    this.select(changes.map((change) => change.cell));
    this.focus();
    this.jumped = true;
    ui.say(`${many(changes.length, "cell")}: ${word === "undo" ? "taken back" : "done again"}`);
  }

  /** Shows changes and queues them; `past` is where an undo or redo keeps its entry. */
  #send(changes, past) {
    const noted = changes.map((change) => ({ ...change, before: this.cells.get(change.cell) }));
    const entry = { changes: noted };
    (past ?? this.done).push(entry);
    if (!past) this.undone = [];
    this.queue.push({ changes, entry });
    this.#show(changes.map((change) => change.cell));
    this.#save();
  }

  isUnseen(name) { return !name.startsWith("#") && name !== NOT_COUNTED && !this.seen.has(name) && this.countOf(name) > 0; }

  /** The groups that still ask for the reader. */
  get missing() { return this.groups.map(({ name }) => name).filter((name) => name === LOOK || this.isUnseen(name)); }

  /** Tells the station that this reader saw all of these classes' cells. */
  see(classes) {
    const news = classes.filter((name) => this.isUnseen(name));
    if (!this.open || !news.length || this.progress) return;
    for (const name of news) this.seen.add(name);
    this.queue.push({ seen: news });
    this.changed();
    this.#save();
  }

  /** Remembers cells that the reader looked at: a class is seen when all of its cells are. */
  look(ids) {
    for (const id of ids) this.#looked.add(id);
    this.see(this.groups.filter(({ cells }) => cells.every((cell) => this.#looked.has(cell.id))).map(({ name }) => name));
  }

  async #save() {
    if (this.#saving) return;
    this.#saving = true;
    for (let wait = 1000; this.queue.length;) {
      const op = this.queue[0];
      try {
        await (op.changes ? this.#correct(op) : this.#saw(op));
        wait = 1000;
        this.trouble = "";
      } catch (error) {
        if (error.passing) {
          op.tried = true;
          this.trouble = error.message;
          this.changed();
          await this.#pause(wait);
          wait = Math.min(2 * wait, 15000);
        } else {
          this.#takeBack(op, error);
        }
      }
    }
    this.#saving = false;
    // Blockers and the rest of the case can wait for a pause: the differential came with each answer.
    clearTimeout(this.#later);
    this.#later = setTimeout(() => this.#reload(), 500);
  }

  async #correct(op) {
    const answer = await api.post(`${this.path}/corrections`, { reader: this.reader, changes: op.changes }, { signal: AbortSignal.timeout(30000) })
      .catch((error) => {
        const ours = new Map(op.changes.map(({ cell, to }) => [cell, inForce(this.base.get(cell), to)]));
        // Sent twice, because the first answer was lost: what "conflicts" is our own change.
        if (op.tried && error.body?.conflicts?.every((one) => ours.get(one.cell) === one.class)) return null;
        throw error;
      });
    this.#sent(op);
    if (!answer) return this.#again();
    this.case = { ...this.case, version: answer.version, differential: answer.differential };
    this.#take(answer.cells);
  }

  async #saw(op) {
    await api.put(`${this.path}/seen`, { reader: this.reader, classes: op.seen });
    this.#sent(op);
  }

  #sent(op) {
    this.queue = this.queue.filter((one) => one !== op);
    this.changed();
  }

  async #again() {
    await api.all(`${this.path}/cells`, { reader: this.reader }, (cells) => this.#take(cells));
  }

  /** Leaves out a refused change and what was built on it, and says so. */
  #takeBack(op, error) {
    const cells = new Set((op.changes ?? []).map((change) => change.cell));
    const gone = this.queue.filter((one) => one === op || one.changes?.some((change) => cells.has(change.cell)));
    this.queue = this.queue.filter((one) => !gone.includes(one));
    const entries = new Set(gone.map((one) => one.entry));
    this.done = this.done.filter((entry) => !entries.has(entry));
    this.undone = this.undone.filter((entry) => !entries.has(entry));
    this.#show([...new Set(gone.flatMap((one) => (one.changes ?? []).map((change) => change.cell)))]);
    if (op.seen) {
      for (const name of op.seen) this.seen.delete(name);
      return this.changed();
    }
    const conflicts = error.body?.conflicts ?? [];
    const told = conflicts.map((one) => `${this.cells.get(one.cell)?.name ?? one.cell}: ${title(one.class) || "unidentified"}${one.by && `, by ${one.by}`}`);
    ui.tell(`Not changed: ${many(cells.size, "cell")}. ${error.message}`, "error", told);
    if (error.status === 409) this.#again().catch(() => {});
  }

  /** Takes back all that the station has not acknowledged. */
  giveUp() {
    const ids = this.queue.flatMap((op) => (op.changes ?? []).map((change) => change.cell));
    const entries = new Set(this.queue.map((op) => op.entry));
    this.done = this.done.filter((entry) => !entries.has(entry));
    this.queue = [];
    this.trouble = "";
    this.#show([...new Set(ids)]);
    this.retry();
  }

  // What is selected.

  /** Shows the current cell in the gallery, and gives it the keys. */
  focus() {
    this.wantFocus = true;
    this.changed();
  }

  select(ids, { add = false, current = ids.at(-1) } = {}) {
    this.#chosen = true;
    // A signed cell that was set beside this one says nothing of the next.
    if (this.beside?.of && current !== this.beside.of) this.beside = null;
    this.selected = new Set(add ? [...this.selected, ...ids] : ids);
    if (current) this.current = this.anchor = current;
    this.changed();
  }

  toggle(id) {
    this.#chosen = true;
    if (!this.selected.delete(id)) this.selected.add(id);
    this.current = this.anchor = id;
    this.changed();
  }

  /** From the anchor to `id`, in the gallery's order. */
  extend(id) {
    const order = this.groups.flatMap((group) => group.cells.map((cell) => cell.id));
    const [a, b] = [order.indexOf(this.anchor ?? id), order.indexOf(id)].sort((x, y) => x - y);
    this.selected = new Set(order.slice(Math.max(a, 0), b + 1));
    this.current = id;
    this.changed();
  }

  /** Sets something beside the current cell; nothing ends that. */
  compare(beside) {
    this.beside = beside;
    this.changed();
  }

  /** Holds a cell for comparison with the next ones, and lets it go. */
  hold(cell) { this.compare(this.beside || !cell ? null : { cell, text: called(cell) }); }

  /** The cell after or before the current one, over the borders of groups. */
  step(by) {
    const order = this.groups.flatMap((group) => group.cells);
    const next = order[order.findIndex((cell) => cell.id === this.current) + by];
    if (!next) return;
    this.select([next.id]);
    this.show?.(next.id);
  }

  /** Does something to the selection and goes on to the cell after it in its group. */
  onward(work) {
    const group = this.groups.find(({ cells }) => cells.some((cell) => cell.id === this.current));
    const at = group?.cells.findIndex((cell) => cell.id === this.current) ?? 0;
    const rest = group ? [...group.cells.slice(at), ...group.cells.slice(0, at).reverse()] : [];
    const left = rest.filter((cell) => !this.selected.has(cell.id));
    if (!work()) return;
    const next = left[0] ?? this.groups[0]?.cells[0];
    if (next) this.select([next.id]);
    this.jumped = !left.length;
    this.focus();
  }
}

/** Files in portions of at most 32 and 16 MB, so that progress shows and nothing has to be sent twice. */
function* portions(files) {
  let part = [];
  let bytes = 0;
  for (const one of files) {
    if (part.length && (part.length >= 32 || bytes + one.file.size > 16e6)) {
      yield part;
      [part, bytes] = [[], 0];
    }
    part.push(one);
    bytes += one.file.size;
  }
  if (part.length) yield part;
}
