// The answer of a classifier: a bar for each of the most probable classes.

import { element, percent } from "./dom.js";

const TOP = 5, FEW = 8;

/** Classes by their share, the strongest first: name, index and share. */
export function strongest(shares, names) {
  return shares.map((share, index) => ({ share, index, name: names[index] })).sort((a, b) => b.share - a.share);
}

export function barsOf({ probabilities }, { classes }) {
  const all = strongest(probabilities, classes), top = all.length > FEW ? TOP : FEW, rest = all.slice(top);
  const shown = [table(all.slice(0, top), "Most probable classes")];
  if (rest.length) {
    const more = element("details", {}, element("summary", {}, `The other ${rest.length} classes`));
    more.addEventListener("toggle", () => more.append(table(rest, "The other classes")), { once: true });
    shown.push(more);
  }
  return [element("p", { class: "best" }, all[0].name, " ", element("span", {}, percent(all[0].share))), ...shown];
}

function table(entries, name) {
  const rows = entries.map(({ name: label, share }) => {
    const fill = element("div", { class: "fill" });
    fill.style.width = `${100 * share}%`;
    return element(
      "tr",
      {},
      element("th", { scope: "row", title: label }, label),
      element("td", { "aria-hidden": "true" }, element("div", { class: "track" }, fill)),
      element("td", {}, percent(share)),
    );
  });
  const head = element("tr", {}, ...["class", "bar", "probability"].map(column));
  return element("table", { class: "bars" }, element("caption", { class: "unseen" }, name), element("thead", { class: "unseen" }, head), element("tbody", {}, ...rows));
}

const column = (text) => element("th", { scope: "col", ...(text === "bar" ? { "aria-hidden": "true" } : {}) }, text);
