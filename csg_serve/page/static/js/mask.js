// The answer of a segmenter: the photo, the colours of the classes over it, how strong they are, and what they mean.

import { strongest } from "./bars.js";
import { element, percent } from "./dom.js";

let opacity = 0.55; // as csg.overlays; what a user sets holds for all models and the next images

export function maskOf(answer, card, picture) {
  const mask = drawMask(answer, card.colours);
  const present = strongest(answer.shares, card.classes).filter(({ share }) => share > 0);
  const label = `The classes of ${card.name} over the image: ${present.map(({ name }) => name).join(", ")}`;
  const layers = element("div", { class: "layers", role: "img", "aria-label": label }, copyOf(picture), mask);
  setOpacity(opacity);
  return [layers, slider(), legend(present, card.colours)];
}

function drawMask({ labels, width, height }, colours) {
  const pixels = new ImageData(width, height), words = new Uint32Array(pixels.data.buffer);
  const little = new Uint8Array(new Uint32Array([1]).buffer)[0] === 1;
  const palette = colours.map(([red, green, blue]) =>
    little ? (0xff000000 | (blue << 16) | (green << 8) | red) >>> 0 : ((red << 24) | (green << 16) | (blue << 8) | 0xff) >>> 0,
  );
  labels.forEach((label, place) => (words[place] = palette[label] ?? 0)); // 0: transparent
  const canvas = element("canvas", { width, height, class: "mask" });
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  return canvas;
}

function copyOf(picture) {
  const canvas = element("canvas", { width: picture?.width ?? 1, height: picture?.height ?? 1 });
  if (picture) canvas.getContext("2d").drawImage(picture, 0, 0);
  return canvas;
}

function setOpacity(value) {
  opacity = value;
  document.documentElement.style.setProperty("--opacity", value);
  for (const input of document.querySelectorAll(".slider input")) input.value = value;
}

function slider() {
  const input = element("input", { type: "range", min: 0, max: 1, step: 0.05, value: opacity });
  input.addEventListener("input", () => setOpacity(Number(input.value)));
  return element("label", { class: "slider" }, "Opacity of the colours", input);
}

function legend(present, colours) {
  const entries = present.map(({ name, index, share }) => {
    const chip = element("span", { class: "chip" });
    chip.style.background = `rgb(${colours[index].join(" ")})`;
    return element("li", {}, chip, element("span", { class: "name" }, name), element("span", { class: "share" }, percent(share)));
  });
  return element("ul", { class: "legend", "aria-label": "Classes, by their share of the image" }, ...entries);
}
