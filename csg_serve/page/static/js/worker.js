// One model in a thread of its own: it opens the graph, checks it against the golden answers, and answers for images.
// Messages in: {open: entry of page.json}, {id, file}. Out: {progress}, {ready}, {failed}, {id, answer}, {id, error}.

import * as ort from "../onnxruntime-web-1.30.0/ort.wasm.bundle.min.mjs";
import { decode } from "./decode.js";
import { ImageError } from "./image_file.js";
import { prepare } from "./prepare.js";

const PAGE = new URL("../", import.meta.url);

ort.env.wasm.numThreads = 1; // more would need headers that few static hosts send
ort.env.wasm.wasmPaths = { wasm: new URL("onnxruntime-web-1.30.0/ort-wasm-simd-threaded.wasm", PAGE).href };
ort.env.logLevel = "error";

let model; // once it is open
let queue = Promise.resolve(); // a session computes one answer at a time

self.addEventListener("message", ({ data }) => {
  queue = queue.then(() => (data.open ? openAndSay(data.open) : answerAndSay(data)));
});

async function openAndSay(entry) {
  await open(entry).catch((error) => postMessage({ failed: message(error) }));
}

async function answerAndSay({ id, file }) {
  try {
    if (!model) throw new ImageError("the model can't be used");
    const started = performance.now();
    const answer = await answerTo(new Uint8Array(await file.arrayBuffer()));
    postMessage({ id, answer: { ...answer, ms: performance.now() - started } });
  } catch (error) {
    postMessage({ id, error: message(error) });
  }
}

async function open(entry) {
  const graph = await download(new URL(`${entry.folder}/model.onnx`, PAGE), entry.bytes);
  model = { card: entry.card, session: await ort.InferenceSession.create(graph, { executionProviders: ["wasm"] }) };
  postMessage({ ready: { wrong: entry.golden ? await wrongAnswer(entry) : null } });
}

async function download(url, total) {
  const answer = await fetch(url);
  if (!answer.ok) throw new ImageError(`the model can't be loaded: ${answer.status} ${answer.statusText}`);
  const graph = new Uint8Array(total), reader = answer.body.getReader();
  let loaded = 0;
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    if (loaded + part.value.length > total) break;
    graph.set(part.value, loaded);
    loaded += part.value.length;
    postMessage({ progress: loaded / total });
  }
  if (loaded !== total) throw new ImageError("the model was only partly loaded: reload the page");
  return graph;
}

/** How an answer differs from PyTorch's, in words; null if none does. As csg.difference. */
async function wrongAnswer(entry) {
  const golden = await (await fetch(new URL(`${entry.folder}/golden.json`, PAGE))).json();
  for (const { name, image, logits, label_map: labelMap, tolerance } of golden.answers) {
    const answer = await infer(fromBase64(image));
    const found = labelMap ? await otherPixels(answer, fromBase64(labelMap)) : largestDifference(answer.values, logits);
    if (!(found <= tolerance)) return `${name}: ${found.toPrecision(3)}, at most ${tolerance} allowed`;
  }
  return null;
}

const largestDifference = (values, expected) =>
  expected.reduce((largest, logit, place) => Math.max(largest, Math.abs(values[place] - logit)), 0);

async function otherPixels({ values }, labelMap) {
  const image = await decode(labelMap);
  let other = 0, place = 0;
  for (const { rgba } of image.strips(0, image.height)) {
    for (let byte = 0; byte < rgba.length; byte += 4) other += rgba[byte] !== values[place++];
  }
  image.close();
  return place === values.length ? other / place : 1;
}

const fromBase64 = (text) => Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (c) => c.charCodeAt(0));

/** The first output for an image file: logits, or the label map with its padding. */
async function infer(bytes) {
  const { card, session } = model, image = await decode(bytes, card.input);
  const { pixels, width, height, scaled } = prepare(image, card.input);
  image.close();
  const input = new ort.Tensor("uint8", pixels, [1, height, width, 3]);
  const outputs = await session.run({ [card.input.name]: input }, [card.outputs[0].name]);
  const output = outputs[card.outputs[0].name], values = output.data.slice();
  output.dispose();
  return { values, width, scaled, pixels };
}

async function answerTo(bytes) {
  const { values, width, scaled } = await infer(bytes);
  return model.card.task === "segmentation" ? cut(values, width, scaled) : { probabilities: softmax(values) };
}

/** The label map without its padding, and how many pixels each class has. */
function cut(values, stride, [width, height]) {
  const labels = new Uint8Array(width * height), counts = new Array(model.card.classes.length).fill(0);
  for (let row = 0; row < height; row++) labels.set(values.subarray(row * stride, row * stride + width), row * width);
  for (const label of labels) counts[label] += 1;
  return { labels, width, height, shares: counts.map((count) => count / labels.length) };
}

function softmax(logits) {
  const highest = logits.reduce((a, b) => Math.max(a, b)), powers = Array.from(logits, (x) => Math.exp(x - highest));
  const sum = powers.reduce((a, b) => a + b);
  return powers.map((power) => power / sum);
}

function message(error) {
  if (error instanceof ImageError) return error.message;
  const text = String(error?.message ?? error);
  return /memory|alloc/i.test(text) ? "there is not enough memory for this image or model" : text.slice(0, 300);
}
