// A pointer pressed and moved: a box over the gallery, or cells carried to a class.
const FAR = 6;
const EDGE = 48;

/** Follows one pointer until it is let go; Escape or a lost pointer ends it without a drop. */
export function dragging(start, scroller, { move = () => {}, ghost, drop, end = () => {} }) {
  let moved = false;
  let last = start;
  let tip = null;
  let target = null;
  let turning = 0;

  const mark = (element) => {
    if (element === target) return;
    target?.classList.remove("over");
    target = element;
    target?.classList.add("over");
  };

  // Near the upper or lower edge the gallery scrolls along.
  const turn = () => {
    const view = scroller.getBoundingClientRect();
    const by = last.clientY < view.top + EDGE ? -14 : last.clientY > view.bottom - EDGE ? 14 : 0;
    if (by && last.clientX > view.left && last.clientX < view.right) {
      scroller.scrollTop += by;
      move(last);
    }
    turning = requestAnimationFrame(turn);
  };

  const onMove = (event) => {
    if (event.pointerId !== start.pointerId) return;
    last = event;
    if (!moved && Math.hypot(event.clientX - start.clientX, event.clientY - start.clientY) < FAR) return;
    if (!moved) {
      moved = true;
      document.body.classList.add("dragging");
      turning = requestAnimationFrame(turn);
      if (ghost) {
        tip = document.body.appendChild(document.createElement("div"));
        tip.className = "ghost";
        tip.textContent = ghost();
      }
    }
    if (tip) {
      tip.style.transform = `translate(${event.clientX + 14}px, ${event.clientY + 10}px)`;
      mark(document.elementFromPoint(event.clientX, event.clientY)?.closest("[data-drop]") ?? null);
    }
    move(event);
  };

  const stop = (dropped) => {
    cancelAnimationFrame(turning);
    for (const [name, handler] of handlers) window.removeEventListener(name, handler, true);
    document.body.classList.remove("dragging");
    tip?.remove();
    const name = target?.dataset.drop;
    mark(null);
    if (moved && dropped && name !== undefined) drop?.(name);
    end(moved);
  };

  const onKey = (event) => {
    if (event.key !== "Escape") return;
    event.stopPropagation();
    stop(false);
  };
  const handlers = [
    ["pointermove", onMove], ["pointerup", () => stop(true)], ["pointercancel", () => stop(false)],
    ["blur", () => stop(false)], ["keydown", onKey],
  ];
  for (const [name, handler] of handlers) window.addEventListener(name, handler, true);
}
