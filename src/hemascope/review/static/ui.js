// What the page says and asks outside its views: messages, live regions, one dialog.
import { html, useChanges, useEffect, useRef } from "./html.js";

class Ui extends EventTarget {
  said = "";
  messages = [];
  question = null;

  changed() { this.dispatchEvent(new Event("change")); }

  /** For screen readers: progress and what a key did. */
  say(text) {
    // The same words twice are a change only with another character at the end.
    this.said = text === this.said ? `${text}\u00a0` : text;
    this.changed();
  }

  /** A message that stays until it is dismissed; a note, and a warning without a list, go by themselves. */
  tell(text, kind = "error", more = []) {
    const message = { text, kind, more };
    this.messages = [...this.messages.filter((old) => old.text !== text), message].slice(-4);
    this.changed();
    if (kind === "note" || (kind === "warning" && !more.length)) setTimeout(() => this.dismiss(message), kind === "note" ? 8000 : 20000);
  }

  dismiss(message) {
    this.messages = this.messages.filter((m) => m !== message);
    this.changed();
  }

  /** Opens a dialog; resolves to its fields' values, or to null when it is cancelled. */
  ask(question) {
    this.question?.answer(null);
    return new Promise((resolve) => {
      const answer = (values) => {
        if (this.question?.answer === answer) this.question = null;
        this.changed();
        resolve(values);
      };
      this.question = { fields: [], ok: "OK", ...question, answer };
      this.changed();
    });
  }
}

export const ui = new Ui();

/** Runs what a button starts; a refusal is shown in the server's words. */
export async function attempt(work) {
  try {
    return await work();
  } catch (error) {
    ui.tell(error.message);
    return null;
  }
}

function Field({ field }) {
  const { name, label, options, ...rest } = field;
  return html`<label>${label}${options
    ? html`<select name=${name} ...${rest}>${options.map(([value, text]) => html`<option value=${value}>${text}</option>`)}</select>`
    : html`<input name=${name} autocomplete="off" ...${rest} />`}</label>`;
}

function Question({ question }) {
  const dialog = useRef();
  useEffect(() => { dialog.current.showModal(); }, [question]);
  const submit = (event) => {
    event.preventDefault();
    question.answer(Object.fromEntries(new FormData(event.target, event.submitter)));
  };
  const { heading, text, fields, ok, danger, body, wide, cancel = "Cancel" } = question;
  return html`<dialog ref=${dialog} class=${wide ? "wide" : ""} aria-labelledby="question" onClose=${() => question.answer(null)}>
    <form onSubmit=${submit}>
      <h2 id="question">${heading}</h2>
      ${text && html`<p>${text}</p>`}${body}
      ${fields.map((field) => html`<${Field} field=${field} />`)}
      <div class="row end">
        ${cancel && html`<button type="button" onClick=${() => question.answer(null)}>${cancel}</button>`}
        <button class=${danger ? "danger" : "primary"} autofocus=${!fields.length && !danger}>${ok}</button>
      </div>
    </form>
  </dialog>`;
}

export const Lines = ({ of }) => html`<ul>${of.map((line) => html`<li>${line}</li>`)}</ul>`;

export function Messages() {
  useChanges(ui);
  return html`
    <div class="sr" role="status" aria-live="polite">${ui.said}</div>
    <div class="messages" aria-live="assertive">${ui.messages.map((message) => html`
      <div class="message ${message.kind}" key=${message.text}>
        <div>${message.text}${message.more.length > 5
          ? html`<details><summary>Which</summary><${Lines} of=${message.more} /></details>`
          : html`<${Lines} of=${message.more} />`}</div>
        <button class="plain" aria-label="Dismiss" onClick=${() => ui.dismiss(message)}>✕</button>
      </div>`)}</div>
    ${ui.question && html`<${Question} question=${ui.question} key=${ui.question.heading} />`}`;
}
