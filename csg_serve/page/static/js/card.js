// The model card, as lists and tables.

import { element, percent } from "./dom.js";

const LONG = 600; // characters of a value that is folded

/** The card of a model; folded if there are several. */
export function cardOf({ title, card, tables }, several) {
  const parts = [
    element("p", {}, summary(card)),
    element("div", { class: "lists" }, ...tables.lists.map(fieldList)),
    ...tables.tables.map((one) => table(one, title)),
  ];
  return element("details", { open: !several }, element("summary", {}, title), ...parts);
}

function summary({ task, classes, provenance, evaluations, precision_note: note }) {
  const what = task === "segmentation" ? "names the class of each pixel" : "names the class of an image";
  const trained = `It was trained with the method ${provenance.method} on ${provenance.backbone}`;
  return `The model ${what}, one of ${classes.length}: ${listed(classes)}. ${trained}; ${note}. ${measured(evaluations)}`;
}

/** The score of the exported graph, or of the network that it was exported from. */
function measured(evaluations) {
  const last = evaluations.at(-1);
  if (!last) return "It has not been measured on real images.";
  const score = last.miou === undefined ? `accuracy ${percent(last.accuracy)}` : `mIoU ${percent(last.miou)}`;
  return `On ${last.images} images of ${last.dataset}: ${score}.`;
}

const listed = (names) => (names.length > 12 ? `${names.slice(0, 12).join(", ")}, …` : names.join(", "));

const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

function fieldList({ title, fields }) {
  const entries = fields.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, folded(value))]);
  return element("div", {}, element("h3", {}, capital(title)), element("dl", {}, ...entries));
}

function folded(value) {
  if (value.length <= LONG) return value;
  return element("details", {}, element("summary", {}, `${value.slice(0, 60)} …`), value);
}

function table({ title, columns, rows }, model) {
  const head = element("tr", {}, ...columns.map((name) => element("th", { scope: "col" }, name)));
  const body = rows.map((row) => element("tr", {}, ...row.map((value) => element("td", {}, value))));
  const name = `${capital(title)} of ${model}`;
  return element(
    "div",
    { class: "scroll", tabIndex: 0, role: "region", "aria-label": name },
    element("table", {}, element("caption", {}, capital(title)), element("thead", {}, head), element("tbody", {}, ...body)),
  );
}
