// The model card, as lists and tables.

import { element } from "./dom.js";

/** The card of a model; folded if there are several. */
export function cardOf({ title, card, tables }, several) {
  const parts = [
    element("p", {}, summary(card)),
    element("div", { class: "lists" }, ...tables.lists.map(fieldList)),
    ...tables.tables.map(table),
  ];
  return element("details", { open: !several }, element("summary", {}, title), ...parts);
}

function summary({ task, classes, provenance, evaluations, precision_note: note }) {
  const what = task === "segmentation" ? "names the class of each pixel" : "names the class of an image";
  const trained = `It was trained with the method ${provenance.method} on ${provenance.backbone}`;
  const measured = evaluations.length ? "" : " It has not been measured on real images.";
  return `The model ${what}, one of ${classes.length}: ${listed(classes)}. ${trained}; ${note}.${measured}`;
}

const listed = (names) => (names.length > 12 ? `${names.slice(0, 12).join(", ")}, …` : names.join(", "));

const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

function fieldList({ title, fields }) {
  const entries = fields.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]);
  return element("div", {}, element("h3", {}, capital(title)), element("dl", {}, ...entries));
}

function table({ title, columns, rows }) {
  const head = element("tr", {}, ...columns.map((name) => element("th", { scope: "col" }, name)));
  const body = rows.map((row) => element("tr", {}, ...row.map((value) => element("td", {}, value))));
  const name = `The model's ${title}`;
  return element(
    "div",
    { class: "scroll", tabIndex: 0, role: "region", "aria-label": name },
    element("table", {}, element("caption", {}, capital(title)), element("thead", {}, head), element("tbody", {}, ...body)),
  );
}
