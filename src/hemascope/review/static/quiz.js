// Proficiency: signed cells one by one, blind; the agreement at the end.
import * as api from "./api.js";
import { Differing } from "./differential.js";
import { Dot, html, one, span, title, useEffect, useRef, useState } from "./html.js";
import { attempt, ui } from "./ui.js";
import { useKeys } from "./keys.js";

function Result({ quiz }) {
  const { result } = quiz;
  const image = new Map(quiz.items.map((item) => [item.number, item]));
  const wrong = result.items.filter((item) => item.class !== item.answer);
  return html`<div class="sheet">
    <div class="tiles"><div><b>${one(result.agree_percent)} %</b>agree with the signed class<small>${span(result)}, 95 % interval</small></div>
      <div><b>${result.kappa == null ? "–" : result.kappa.toFixed(2)}</b>Cohen’s kappa</div><div><b>${result.n}</b>cells</div></div>
    <${Differing} heading="Answered differently" rows=${wrong.map((item) => ({
      image: image.get(item.number)?.thumbnail, name: `Cell ${item.number}`, first: ["Signed", item.class], second: ["You", item.answer],
    }))} />
  </div>`;
}

export function Quiz({ id }) {
  const [quiz, setQuiz] = useState(null);
  const [classes, setClasses] = useState([]);
  const busy = useRef(false);
  useEffect(() => {
    document.title = "Proficiency · hemascope";
    attempt(() => api.get(`/quizzes/${id}`)).then(setQuiz);
    attempt(() => api.get("/classes")).then((list) => list && setClasses(list.items));
  }, [id]);
  const open = quiz?.items.filter((item) => !item.answer) ?? [];
  const [item] = open;
  const answer = async (cls) => {
    if (!item || quiz.result || busy.current) return;
    busy.current = true;
    const next = await attempt(() => api.post(`/quizzes/${id}/answers`, { number: item.number, class: cls.name }));
    busy.current = false;
    if (!next) return;
    setQuiz(next);
    ui.say(`${title(cls.name)}. ${next.items.filter((left) => !left.answer).length} left`);
  };
  useKeys((event) => {
    const cls = classes.find((a) => a.key.toLowerCase() === event.key.toLowerCase());
    if (cls) answer(cls);
    return Boolean(cls);
  });
  if (!quiz) return html`<main class="start"><p>Loading …</p></main>`;
  const answered = quiz.items.length - open.length;
  return html`<main class="start quiz"><p><a href="#/">‹ Station</a></p>
    <h1>Proficiency <span>${quiz.result ? "result" : `${answered} of ${quiz.items.length} answered`}</span></h1>
    ${quiz.result ? html`<${Result} quiz=${quiz} />` : html`
      <progress max=${quiz.items.length} value=${answered} aria-label="Answered"></progress>
      <div class="blind">
        <div class="photo"><img src=${item.image} alt="Cell ${item.number}, without its answer" /></div>
        <div class="bars" role="group" aria-label="Which class is it?">
          ${classes.map((cls) => html`<button class="bar" onClick=${() => answer(cls)}>
            <kbd>${cls.key}</kbd><span>${title(cls.name)}</span><${Dot} of=${cls} /></button>`)}
          ${answered > 0 && html`<p class="soft">An answer cannot be changed once it is given.</p>`}
        </div>
      </div>`}
  </main>`;
}
