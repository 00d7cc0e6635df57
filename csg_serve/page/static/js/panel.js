// What one model says: whether it is ready, and its answer for the image that is shown.

import { barsOf, strongest } from "./bars.js";
import { element, megabytes, percent } from "./dom.js";
import { maskOf } from "./mask.js";

/** The panel of a model, an entry of page.json; `root` is its element. */
export function createPanel(entry) {
  const { card, title } = entry, segmenter = card.task === "segmentation";
  const heading = `model-${entry.folder.split("/").pop()}`;
  const note = element("p", { class: "note" }, "Loading …");
  const bar = element("progress", { max: 1, value: 0, "aria-label": `Loading ${title}` });
  const body = element("div", { class: "body" });
  const root = element(
    "section",
    { class: "panel", "aria-labelledby": heading },
    element("h2", { id: heading }, title),
    element("p", { class: "facts" }, factsOf(entry).join(" · ")),
    note,
    bar,
    body,
  );

  function state({ progress, ready, failed }) {
    bar.hidden = progress === undefined;
    if (progress !== undefined) {
      bar.value = progress;
      return;
    }
    note.classList.toggle("wrong", Boolean(failed || ready.wrong));
    note.textContent = failed ? `It can't be used: ${failed}.` : checked(entry.golden, ready.wrong);
  }

  function show(answer, picture) {
    body.setAttribute("aria-busy", String(!answer));
    if (!answer) return;
    if (answer.error) body.replaceChildren(element("p", { class: "wrong" }, `No answer: ${answer.error}.`));
    else body.replaceChildren(...(segmenter ? maskOf(answer, card, picture) : barsOf(answer, card)), timeOf(answer));
  }

  return { root, title, state, show, inShort: (answer) => inShort(answer, card), inWords: (answer) => inWords(answer, card) };
}

function factsOf({ title, bytes, card }) {
  const facts = [card.precision, `${card.classes.length} classes`, megabytes(bytes)];
  return title === card.name ? facts : [card.name, ...facts];
}

function checked(golden, wrong) {
  if (wrong) return `In this browser its answers differ from PyTorch's. ${wrong}.`;
  if (!golden) return "Ready. It has no golden answers to be checked against.";
  return `Ready. Its answers to ${golden} test images agree with PyTorch's.`;
}

const timeOf = ({ ms }) => element("p", { class: "time" }, `${Math.round(ms)} ms`);

/** The strongest class, for a small picture. */
function inShort(answer, card) {
  return answer.error ? "no answer" : strongest(answer.probabilities ?? answer.shares, card.classes)[0].name;
}

/** An answer as a sentence, for a screen reader. */
function inWords(answer, { classes }) {
  if (answer.error) return `no answer, ${answer.error}`;
  const best = strongest(answer.probabilities ?? answer.shares, classes).slice(0, 3);
  return best.filter(({ share }) => share > 0).map(({ name, share }) => `${name} ${percent(share)}`).join(", ");
}
