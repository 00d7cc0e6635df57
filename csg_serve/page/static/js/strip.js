// The images that were given, as a row of small pictures: the one that is pressed is shown.

import { element } from "./dom.js";

const SIDE = 88; // pixels
const KEPT = 100; // pictures; older ones go

/** A row in `list`; `onSelect` gets the item that a user presses. */
export function createStrip(list, onSelect) {
  const items = [];
  const strip = { selected: null, add, select, caption };

  function add(item) {
    item.thumbnail = element("canvas", { width: SIDE, height: SIDE, "aria-hidden": "true" });
    item.text = element("span", { class: "answer" }, "…");
    item.button = element(
      "button",
      { type: "button", title: item.name, "aria-pressed": "false", "aria-busy": "true", onclick: () => select(item) },
      item.thumbnail,
      element("span", { class: "unseen" }, item.name),
      item.text,
    );
    item.entry = element("li", {}, item.button);
    list.prepend(item.entry);
    list.hidden = false;
    items.push(item);
    if (items.length > KEPT) items.shift().entry.remove();
    drawThumbnail(item);
    return item;
  }

  function select(item) {
    strip.selected?.button.setAttribute("aria-pressed", "false");
    strip.selected = item;
    item.button.setAttribute("aria-pressed", "true");
    onSelect(item);
  }

  function caption(item, text) {
    item.text.textContent = text;
    item.button.removeAttribute("aria-busy");
  }

  return strip;
}

/** Fill the square with the middle of the image. */
async function drawThumbnail({ file, thumbnail }) {
  try {
    const bitmap = await createImageBitmap(file);
    const scale = thumbnail.width / Math.min(bitmap.width, bitmap.height), context = thumbnail.getContext("2d");
    const [width, height] = [bitmap.width * scale, bitmap.height * scale];
    context.imageSmoothingQuality = "high";
    context.drawImage(bitmap, (thumbnail.width - width) / 2, (thumbnail.height - height) / 2, width, height);
    bitmap.close();
  } catch {
    thumbnail.classList.add("broken"); // the answer says what is wrong
  }
}
