// The differential as a laboratory counts it, beside what the model had said.
import { html, many, one, span, title } from "./html.js";

const Share = ({ row }) => html`<td>${one(row.percent)}<small>${row.percent == null ? "" : span(row)}</small></td>`;

export function Differential({ store }) {
  const { differential: d, blockers, role, status, frame, shift } = store.case;
  if (!d) return null;
  const unsure = store.queue.length > 0;
  return html`<section class="pane" aria-label="Differential" aria-busy=${String(unsure)}>
    <div class="row head"><h2>Differential <span>${d.counted} of ${d.target} white cells</span></h2></div>
    <progress max=${d.target} value=${Math.min(d.counted, d.target)} aria-label="White cells counted, of ${d.target}"></progress>
    ${d.warning && html`<p class="warn">${d.warning}</p>`}
    <table>
      <thead><tr><th scope="col">White cells</th><th scope="col">n</th><th scope="col">Confirmed %</th><th scope="col">Model %</th></tr></thead>
      <tbody>${d.rows.map((row) => html`<tr><th scope="row">${title(row.class)}${row.reference && html`<small> reference ${row.reference.map(one).join("–")}</small>`}</th><td>${row.count}</td><${Share} row=${row} /><${Share} row=${row.pre} /></tr>`)}</tbody>
    </table>
    <p class="soft">Below each percentage: its 95 % interval (Clopper–Pearson).</p>
    ${d.per_100.map((row) => html`<p>${title(row.class)}: <b>${one(row.per_100)}</b> per 100 white cells ${row.low != null && html`<span class="soft">(${span(row)}; model ${one(row.pre.per_100)})</span>`}</p>`)}
    ${d.not_counted.length > 0 && html`<p class="soft">Outside the count: ${d.not_counted.map((row) => `${row.class} ${row.count}`).join(", ")}.</p>`}
    ${d.kept?.total > 0 && html`<p class="soft">Pre-classification kept for ${d.kept.n} of ${d.kept.total} (${one(d.kept.percent)} %, ${span(d.kept)}).</p>`}
    ${d.notes.map((note) => html`<p class="soft">${note}</p>`)}
    ${status === "open" && role !== "" && blockers.length > 0 && html`<div class="blockers"><b>${role === "first" ? "Before sign-off" : "Before you finish"}</b><ul>${blockers.map((line) => html`<li>${line}</li>`)}</ul></div>`}
    ${frame && html`<p class="soft">${frame}</p>`}${shift && html`<p class="warn">${shift}</p>`}
  </section>`;
}

/** How the two readers agree, after the second has finished. */
export function Agreement({ agreement: a, store }) {
  const cell = (id) => store.cells.get(id);
  return html`<div class="sheet">
    <div class="tiles"><div><b>${a.kappa == null ? "–" : a.kappa.toFixed(2)}</b>Cohen’s kappa<small>${a.low == null ? "" : `${a.low.toFixed(2)}–${a.high.toFixed(2)}, 95 % interval`}</small></div>
      <div><b>${one(a.agree_percent)} %</b>of ${many(a.n, "cell")} named alike</div><div><b>${a.differing.length}</b>named differently</div></div>
    ${a.note && html`<p>${a.note}</p>`}
    <div class="columns">
    <div class="scroll" tabindex="0"><h2>By class</h2><table><thead><tr><th scope="col">Class</th><th scope="col">Kappa</th><th scope="col">First</th><th scope="col">Second</th></tr></thead>
      <tbody>${a.per_class.map((row) => html`<tr><th scope="row">${title(row.class)}</th><td>${row.kappa == null ? "–" : row.kappa.toFixed(2)}</td><td>${row.first}</td><td>${row.second}</td></tr>`)}</tbody></table></div>
    ${a.comparison.length > 0 && html`<div class="scroll" tabindex="0"><h2>The two differentials <span>CLSI H20-A2</span></h2>
      <table><thead><tr><th scope="col">White cells</th><th scope="col">First %</th><th scope="col">Second %</th><th scope="col">Difference</th><th scope="col">Allowed</th><th scope="col">Within</th></tr></thead>
      <tbody>${a.comparison.map((row) => html`<tr><th scope="row">${title(row.class)}</th><td>${one(row.first_percent)}</td><td>${one(row.second_percent)}</td><td>${one(row.difference)}</td><td>${one(row.limit)}</td><td>${row.within ? "yes" : html`<b class="warn">no</b>`}</td></tr>`)}</tbody></table></div>`}
    </div>
    <h2>Cells named differently</h2>
    ${a.differing.length ? html`<ul class="cards">${a.differing.slice(0, 200).map((row) => html`<li><img src=${cell(row.cell)?.thumbnail} alt=${cell(row.cell)?.name ?? ""} loading="lazy" />
      <span>First: <b>${title(row.first) || "–"}</b><br />Second: <b>${title(row.second) || "–"}</b></span></li>`)}</ul>` : html`<p class="soft">None.</p>`}
    ${a.differing.length > 200 && html`<p class="soft">The first 200 of ${a.differing.length}; the JSON export holds all.</p>`}
  </div>`;
}
