// The pictures of the items: those that come next are loaded before they are needed.

import { get } from "./server.js";

const known = new Map(); // by item: a promise of what is shown

/** An item with its loaded pictures, or the problem with it. Items that are not among `wanted` are forgotten. */
export function load(item, wanted, windows) {
  for (const old of known.keys()) if (!wanted.includes(old)) known.delete(old);
  if (!known.has(item)) {
    const found = fetched(item, windows);
    known.set(item, found);
    found.catch(() => known.delete(item));
  }
  return known.get(item);
}

async function fetched(item, windows) {
  const about = await get(`items/${item}`);
  if (about.problem) return about;
  const whole = picture(`items/${item}/whole`);
  const near = about.point ? windows.map((_, place) => picture(`items/${item}/window/${place}`)) : [];
  const images = await Promise.all([whole, ...near]);
  return { ...about, whole: images[0], near: images.slice(1) };
}

async function picture(address) {
  const image = new Image();
  image.src = address;
  await image.decode().catch(() => {
    throw new Error("The picture did not arrive. Reload the page.");
  });
  return image;
}
