// The page: which view the address names, who reads, and files dropped anywhere.
import * as api from "./api.js";
import { Case } from "./case.js";
import { html, render, useEffect, useState } from "./html.js";
import { Quiz } from "./quiz.js";
import { Start } from "./start.js";
import { attempt, Messages, ui } from "./ui.js";

const session = {
  reader: JSON.parse(localStorage.getItem("hemascope.reader") ?? "null"),
  station: null,
  files: null,
  onFiles: null,
  begins: null,
  cases: {},
  read(reader) {
    this.reader = reader;
    localStorage.setItem("hemascope.reader", JSON.stringify(reader));
    this.redraw();
    const { begins } = this;
    this.begins = null;
    if (reader) begins?.();
  },
};

function App() {
  const [route, setRoute] = useState(location.hash);
  const [, again] = useState(0);
  session.redraw = () => again((n) => n + 1);
  useEffect(() => {
    const turn = () => {
      // What was said of another view is past.
      ui.messages = [];
      setRoute(location.hash);
    };
    window.addEventListener("hashchange", turn);
    attempt(async () => {
      session.station = await api.get("/station");
      // A reader kept from another data folder is not one of this station's.
      const { items } = await api.get("/readers");
      if (session.reader && !items.some((one) => one.id === session.reader.id)) session.read(null);
      session.redraw();
    });
    return () => window.removeEventListener("hashchange", turn);
  }, []);
  const [, kind, id, part = ""] = route.split("/");
  let view = html`<${Start} session=${session} />`;
  if (kind === "cases" && id && session.reader) view = html`<${Case} key=${id + session.reader.id} id=${id} part=${part} session=${session} />`;
  if (kind === "quiz" && id) view = html`<${Quiz} key=${id} id=${id} />`;
  return html`${view}<${Messages} />`;
}

for (const name of ["dragenter", "dragover"]) {
  window.addEventListener(name, (event) => {
    if (!event.dataTransfer.types.includes("Files")) return;
    event.preventDefault();
    document.body.classList.toggle("dropping", Boolean(session.onFiles));
  });
}
window.addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("dropping"); });
window.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  if (event.dataTransfer.types.includes("Files")) session.onFiles?.(event.dataTransfer);
});

window.addEventListener("beforeunload", (event) => {
  if (Object.values(session.cases).some((store) => store.unsaved || store.progress?.word === "Sending")) event.preventDefault();
});

render(html`<${App} />`, document.body);
