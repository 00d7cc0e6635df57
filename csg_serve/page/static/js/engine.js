// A model as the page sees it: it gets ready, then answers for files in their order.

/** Start the thread of a model. `onState` gets {progress}, {ready} or {failed}. */
export function startModel(entry, onState) {
  const waiting = new Map(), worker = startWorker();
  let number = 0;
  worker.addEventListener("message", ({ data }) => {
    if (data.id === undefined) return onState(data);
    const { resolve, reject } = waiting.get(data.id);
    waiting.delete(data.id);
    if (data.error) reject(new Error(data.error));
    else resolve(data.answer);
  });
  worker.addEventListener("error", (event) => onState({ failed: event.message || "the browser can't start the model" }));
  worker.postMessage({ open: entry });
  return {
    entry,
    answer: (file) =>
      new Promise((resolve, reject) => {
        waiting.set(++number, { resolve, reject });
        worker.postMessage({ id: number, file });
      }),
  };
}

/** A worker from a blob has this page's Content-Security-Policy; one from a file of a static host would have none. */
function startWorker() {
  const script = `import ${JSON.stringify(new URL("worker.js", import.meta.url).href)};`;
  const url = URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
  return new Worker(url, { type: "module" });
}
