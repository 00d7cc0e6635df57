// What the page asks its server.

const GONE = "csg does not answer. Every answer up to here is saved: start the same command again, and it goes on.";

async function ask(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error(GONE);
  }
  if (response.headers.get("content-type")?.startsWith("application/json")) {
    const found = await response.json();
    if (response.ok) return found;
    throw new Error(found.problem);
  }
  throw new Error(response.status === 404 ? GONE : `csg answered with the status ${response.status}.`);
}

export const get = (path) => ask(path);

export const post = (path, body = {}) =>
  ask(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
