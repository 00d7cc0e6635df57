// The labelling page: one question at a time. The server keeps every answer; the page only shows and asks.

import { createChoice } from "./classes.js";
import { load } from "./pictures.js";
import { get, post } from "./server.js";

const find = (id) => document.getElementById(id);
const NEAR = 1 / 8; // share of the image's longer side that the square around a point shows at first
const COARSE = 600; // pixels of a side up to which an image is enlarged without smoothing

let task, choice, state = null, shown = null, zoom = null, busy = true, over = false;

await attempt(async () => {
  task = await get("task");
  document.title = `Label: ${task.title}`;
  find("title").textContent = task.title;
  choice = createChoice(task.classes, (label) => answer(label));
  await show(await get("state"));
});
wire();

function wire() {
  const buttons = { unsure: () => answer(null), later: putOff, undo, "end-undo": undo, finish: stop, stop, nearer: () => zoomBy(-1), farther: () => zoomBy(1) };
  for (const [id, act] of Object.entries(buttons)) find(id).addEventListener("click", act);
  document.addEventListener("keydown", pressed);
}

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || over || !choice) return;
  const typing = choice.typing, onButton = event.target.closest("button, summary");
  if (onButton && (event.key === "Enter" || event.key === " ")) return; // the button's own key
  if (event.repeat && !(typing && event.key === "Backspace")) return event.key.length === 1 || event.key === "Enter" ? event.preventDefault() : undefined;
  if (acted(event, typing)) event.preventDefault();
}

/** Do what a key means; false if it means nothing here. */
function acted(event, typing) {
  const ended = !find("end").hidden, field = !find("search").hidden;
  if (ended && event.key === "Enter") stop();
  else if (!typing && (event.key === "Backspace" || (!field && event.key.toLowerCase() === "u"))) undo();
  else if (ended) return false;
  else if (!typing && event.key === " ") answer(null);
  else if (!typing && event.key === "ArrowRight") putOff();
  else if (event.key === "PageUp" || (!field && event.key === "+")) zoomBy(-1);
  else if (event.key === "PageDown" || (!field && event.key === "-")) zoomBy(1);
  else return choice.key(event);
  return true;
}

/** Run an action unless another one runs; what goes wrong is said, and nothing is lost. */
async function attempt(action) {
  try {
    await action();
  } catch (error) {
    find("problem").textContent = error.message;
  }
  working(false);
}

function working(now) {
  busy = now;
  document.querySelector("main").setAttribute("aria-busy", now);
}

function act(action) {
  if (busy || over) return;
  working(true);
  find("problem").textContent = "";
  attempt(action);
}

function answer(label) {
  if (!shown) return;
  act(async () => {
    const found = await post("answer", { item: shown.item, label });
    if (found.twice === undefined) tell(found, shown.picture.point ? "point" : "image");
    else say("Answered in another window already.");
    await show(found);
  });
}

function putOff() {
  if (!shown) return;
  act(async () => {
    say("Later.");
    await show(await post("later", { item: shown.item }));
  });
}

function undo() {
  act(async () => {
    const found = await post("undo");
    say(found.undone === null ? "There is no answer to take back." : "Undone.");
    await show(found);
  });
}

function stop() {
  act(async () => {
    const found = await post("stop");
    over = true;
    shown = null;
    find("question").hidden = find("end-buttons").hidden = find("stop").hidden = true;
    ending(found, "Saved", "csg goes on in the terminal; this tab can be closed. The same command goes on with what is left.");
  });
}

/** Show the next item; one whose image can't be read is passed over and said. */
async function show(found) {
  state = found;
  while (!state.complete) {
    count();
    const [item] = state.next, loaded = load(item, state.next, task.windows);
    for (const next of state.next.slice(1)) loaded.then(() => load(next, state.next, task.windows)).catch(() => {});
    const picture = await loaded;
    if (!picture.problem) return display(item, picture);
    find("problem").textContent = `Passed over: ${picture.problem}`;
    state = await get("state");
  }
  count();
  shown = null;
  find("question").hidden = true;
  ending(state, state.enough ? "Enough labels" : "All labelled", state.enough ?? "");
}

function display(item, picture) {
  shown = { item, picture };
  find("end").hidden = true;
  find("question").hidden = false;
  const { point } = picture;
  put("whole", picture.whole, picture.width / picture.height, `Image ${item + 1} of ${state.total}`);
  find("whole").classList.toggle("coarse", Math.max(picture.width, picture.height) <= COARSE && !point);
  find("name").textContent = picture.name;
  find("near").hidden = find("ring").hidden = !point;
  find("asked").textContent = point ? "Which class is at the cross?" : "Which class is it?";
  if (point) {
    const place = find("ring").style;
    place.setProperty("--x", `${(100 * (point[0] + 0.5)) / picture.width}%`);
    place.setProperty("--y", `${(100 * (point[1] + 0.5)) / picture.height}%`);
    zoom ??= nearest(Math.max(picture.width, picture.height) * NEAR);
    zoomBy(0);
  }
  choice.reset();
}

/** Put a loaded picture in the place of an image of the page. */
function put(id, image, ratio, alt) {
  image.id = id;
  image.alt = alt;
  find(id).replaceWith(image);
  image.parentElement.style.setProperty("--ratio", ratio);
}

/** The place of the square whose side is nearest to one in pixels. */
function nearest(side) {
  const away = task.windows.map((one) => Math.abs(one - side));
  return away.indexOf(Math.min(...away));
}

function zoomBy(step) {
  if (!shown?.picture.point) return;
  zoom = Math.max(0, Math.min(zoom + step, task.windows.length - 1));
  put("window", shown.picture.near[zoom], 1, `${task.windows[zoom]} pixels around the point`);
  find("window").className = "coarse";
  find("nearer").setAttribute("aria-disabled", zoom === 0);
  find("farther").setAttribute("aria-disabled", zoom === task.windows.length - 1);
}

function count() {
  const { done, left, total, unreadable, disagreements } = state;
  find("progress").max = total;
  find("progress").value = done;
  find("count").textContent = `${done} of ${total}, ${left} left`;
  find("passed").hidden = !unreadable.length;
  find("passed").firstElementChild.textContent = `${unreadable.length} can't be read`;
  const lines = unreadable.map(({ problem }) => Object.assign(document.createElement("li"), { textContent: problem }));
  find("passed").lastElementChild.replaceChildren(...lines);
  find("title").title = disagreements ? `${disagreements} items with different answers` : "";
}

function ending(found, title, text) {
  const parts = [text, `${found.own} answers of yours, ${found.done} of ${found.total} items done.`];
  if (found.disagreements) parts.push(`People gave different classes to ${found.disagreements}.`);
  if (found.unreadable.length) parts.push(`${found.unreadable.length} can't be read.`);
  find("end-title").textContent = title;
  find("end-text").textContent = parts.filter(Boolean).join(" ");
  find("end").hidden = false;
  find("end-title").focus();
}

/** After an answer: what it was, and what the model said. */
function tell({ given, suggestion }, what) {
  const own = `The ${what} before: ${given === null ? "can't tell" : `you said \u2068${given}\u2069`}`;
  const agrees = suggestion !== null && given === suggestion;
  say(suggestion === null ? `${own}.` : agrees ? `${own}, the model agrees.` : `${own}, the model says \u2068${suggestion}\u2069.`);
  find("last").className = suggestion === null || given === null ? "" : agrees ? "agrees" : "differs";
}

function say(text) {
  find("last").textContent = text;
  find("last").className = "";
}
