// The page: models on one side, images on the other; each image gets an answer of each model.

import { decode } from "./decode.js";
import { startCamera } from "./camera.js";
import { cardOf } from "./card.js";
import { element, find } from "./dom.js";
import { startModel } from "./engine.js";
import { takeImages } from "./intake.js";
import { createPanel } from "./panel.js";
import { createStrip } from "./strip.js";

const PREVIEW = 1280; // pixels of the longer side of the picture that is shown

const page = await (await fetch("page.json")).json();
const strip = createStrip(find("strip"), show);
const photo = element("canvas", { role: "img" });
const photoName = element("figcaption");
const panels = page.models.map(createPanel);
const models = page.models.map((entry, place) =>
  startModel(entry, (state) => {
    panels[place].state(state);
    if (state.ready) say(`${panels[place].title} is ready.`);
    if (state.failed) say(`${panels[place].title} can't be used: ${state.failed}.`);
  }),
);

layOut();
takeImages(add, complain);
startCamera((file) => add([file]), complain);

function layOut() {
  const several = page.models.length > 1, title = several ? "Try the models" : `Try ${panels[0].title}`;
  document.title = find("title").textContent = title;
  find("about").textContent = "Answers are computed in this browser: no image leaves it.";
  const figure = element("figure", { class: "photo", hidden: true, id: "photo" }, photo, photoName);
  find("answers").append(figure, ...panels.map((panel) => panel.root));
  find("cards-title").textContent = several ? "Model cards" : "Model card";
  find("cards").append(...page.models.map((entry) => cardOf(entry, several)));
  find("footer").append(
    `Made with csg ${page.csg}. The models run with ONNX Runtime Web (`,
    element("a", { href: "onnxruntime-licence.txt" }, "licence"),
    ").",
  );
  find("main").hidden = false;
}

/** Take image files: each becomes a picture in the strip, the first one is shown, all are answered. */
function add(files) {
  complain("");
  const items = files.map((file) => strip.add({ file, name: file.name || "image", answers: models.map(() => null) }));
  if (items.length) strip.select(items[0]);
  for (const item of items) answerAll(item);
}

async function answerAll(item) {
  await Promise.all(
    models.map(async (model, place) => {
      try {
        item.answers[place] = await model.answer(item.file);
      } catch (error) {
        item.answers[place] = { error: error.message };
      }
      if (strip.selected === item && item.picture !== undefined) panels[place].show(item.answers[place], item.picture);
      if (place === 0) strip.caption(item, panels[0].inShort(item.answers[0]));
    }),
  );
  if (strip.selected === item) announce(item);
}

/** Show an image, and the answers that there are. */
async function show(item) {
  panels.forEach((panel) => panel.show(null));
  item.picture ??= await pictureOf(item.file);
  if (strip.selected !== item) return;
  drawPhoto(item);
  panels.forEach((panel, place) => panel.show(item.answers[place], item.picture));
  if (item.answers.every(Boolean)) announce(item);
}

function drawPhoto(item) {
  find("photo").hidden = false;
  photoName.textContent = item.name;
  photo.setAttribute("aria-label", item.picture ? `The image ${item.name}` : `The image ${item.name} can't be shown`);
  photo.hidden = !item.picture;
  if (!item.picture) return;
  [photo.width, photo.height] = [item.picture.width, item.picture.height];
  photo.getContext("2d").drawImage(item.picture, 0, 0);
}

/** The image upright, not larger than PREVIEW; null if it can't be decoded: the models say why. */
async function pictureOf(file) {
  try {
    const image = await decode(new Uint8Array(await file.arrayBuffer()));
    const scale = Math.min(1, PREVIEW / Math.max(image.width, image.height));
    const sides = [image.width, image.height].map((side) => Math.max(1, Math.round(side * scale)));
    const canvas = element("canvas", { width: sides[0], height: sides[1] }), context = canvas.getContext("2d", { alpha: false });
    context.imageSmoothingQuality = "high";
    image.draw(context, scale, 0);
    image.close();
    return canvas;
  } catch {
    return null;
  }
}

function announce(item) {
  const answers = panels.map((panel, place) => `${panel.title}: ${panel.inWords(item.answers[place])}`);
  say(`${item.name}. ${answers.join(". ")}.`);
}

function say(text) {
  find("status").textContent = text;
}

function complain(text) {
  find("problem").textContent = text;
}
