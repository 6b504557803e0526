// The differential as a laboratory counts it, beside what the model had said.
import { groupTitle } from "./case_store.js";
import { html, many, one, span, Table, title } from "./html.js";
import { Lines } from "./ui.js";

const share = (row) => html`${one(row.percent)}<small>${row.percent == null ? "" : span(row)}</small>`;
const two = (value) => (value == null ? "–" : value.toFixed(2));

function Blockers({ store }) {
  const now = store.case;
  if (now.status !== "open" || now.role === "" || !now.blockers.length) return null;
  return html`<div class="blockers"><b>${now.role === "first" ? "Before sign-off" : "Before you finish"}</b>
    <${Lines} of=${now.blockers} /><div class="row">${store.missing.map((name) => html`
      <button class="small" onClick=${() => store.goTo(name)}>${groupTitle(name)}</button>`)}</div></div>`;
}

export function Differential({ store }) {
  const { differential: d, frame, shift } = store.case;
  const named = (row) => html`${title(row.class)}
    ${row.reference && html`<small> reference ${row.reference.map(one).join("–")}</small>`}`;
  return html`<section class="pane" aria-label="Differential" aria-busy=${String(store.queue.length > 0)}>
    <div class="row head"><h2>Differential <span>${d.counted} of ${d.target} white cells</span></h2></div>
    <progress max=${d.target} value=${Math.min(d.counted, d.target)} aria-label="White cells counted, of ${d.target}"></progress>
    ${d.warning && html`<p class="warn">${d.warning}</p>`}
    <${Table} heads=${["White cells", "n", store.case.signed_at ? "Signed %" : "Now %", "Model %"]}
      rows=${d.rows.map((row) => [named(row), row.count, share(row), share(row.pre)])} />
    <p class="soft">Below each percentage: its 95 % interval (Clopper–Pearson).</p>
    ${d.per_100.map((row) => html`<p>${title(row.class)}: <b>${one(row.per_100)}</b> per 100 white cells
      ${row.low != null && html` <span class="soft">(${span(row)}; model ${one(row.pre.per_100)})</span>`}</p>`)}
    ${d.not_counted.length > 0 && html`<p class="soft">Outside the count:
      ${" "}${d.not_counted.map((row) => `${row.class} ${row.count}`).join(", ")}.</p>`}
    ${d.kept.total > 0 && html`<p class="soft">Named or confirmed one by one: ${many(d.read, "cell")}. Pre-classification kept for ${d.kept.count} of ${d.kept.total}
      ${" "}(${one(d.kept.percent)} %, ${span(d.kept)}).</p>`}
    ${d.notes.map((note) => html`<p class="soft">${note}</p>`)}
    <${Blockers} store=${store} />
    ${frame && html`<p class="soft">${frame}</p>`}${shift && html`<p class="warn">${shift}</p>`}
  </section>`;
}

/** How the two readers agree, after the second has finished. */
export function Agreement({ agreement: a, store }) {
  const interval = a.low == null ? "" : `${two(a.low)}–${two(a.high)}, 95 % interval`;
  const compared = a.comparison.map((row) => [
    title(row.class), one(row.first_percent), one(row.second_percent), one(row.difference), one(row.limit),
    row.within ? "yes" : html`<b class="warn">no</b>`,
  ]);
  return html`<div class="sheet">
    <div class="tiles">
      <div><b>${two(a.kappa)}</b>Cohen’s kappa<small>${interval}</small></div>
      <div><b>${one(a.agree_percent)} %</b>of ${many(a.n, "cell")} named alike</div>
      <div><b>${a.differing.length}</b>named differently</div>
    </div>
    ${a.note && html`<p>${a.note}</p>`}
    <div class="columns">
      <div><h2>By class</h2><${Table} heads=${["Class", "Kappa", "First", "Second"]}
        rows=${a.per_class.map((row) => [title(row.class), two(row.kappa), row.first, row.second])} /></div>
      ${compared.length > 0 && html`<div class="scroll" tabindex="0"><h2>The two differentials <span>CLSI H20-A2</span></h2>
        <${Table} heads=${["White cells", "First %", "Second %", "Difference", "Allowed", "Within"]} rows=${compared} /></div>`}
    </div>
    <${Differing} heading="Cells named differently" rows=${a.differing.map((row) => {
      const cell = store.cells.get(row.cell);
      const open = () => { store.select([row.cell]); store.focus(); };
      return { image: cell?.thumbnail, name: cell?.name ?? "", href: `#/cases/${store.id}`, open, first: ["First", row.first], second: ["Second", row.second] };
    })} />
  </div>`;
}

const MOST = 200;

/** Cells with the two classes that they were given. */
export function Differing({ heading, rows }) {
  const said = ([who, name]) => html`${who}: <b>${title(name) || "–"}</b>`;
  return html`<h2>${heading}</h2>
    ${!rows.length && html`<p class="soft">None.</p>`}
    <ul class="cards">${rows.slice(0, MOST).map((row) => html`<li>
      <img src=${row.image} alt="" loading="lazy" />
      <span>${row.href ? html`<a href=${row.href} onClick=${row.open}>${row.name}</a>` : row.name}
        <br />${said(row.first)}<br />${said(row.second)}</span></li>`)}</ul>
    ${rows.length > MOST && html`<p class="soft">The first ${MOST} of ${rows.length}.</p>`}`;
}
