// Images from the file picker, by dragging and by pasting.

import { find } from "./dom.js";

/** `onFiles` gets a list of files; `onProblem` what is wrong, in words. */
export function takeImages(onFiles, onProblem) {
  const take = (files) => (files.length ? onFiles([...files]) : onProblem("That holds no image file."));
  find("choose").addEventListener("click", () => find("files").click());
  find("files").addEventListener("change", ({ target }) => {
    if (target.files.length) take(target.files);
    target.value = ""; // so that the same file can be chosen again
  });
  document.addEventListener("paste", ({ clipboardData }) => {
    if (clipboardData?.files.length) take(clipboardData.files);
    else onProblem("The clipboard holds no image.");
  });
  takeDropped(take);
}

/** The whole page takes what is dropped, so that a photo beside the field does not replace the page. */
function takeDropped(take) {
  const field = find("drop");
  let inside = 0;
  const mark = (change) => field.classList.toggle("over", (inside = Math.max(0, inside + change)) > 0);
  document.addEventListener("dragenter", () => mark(1));
  document.addEventListener("dragleave", () => mark(-1));
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    mark(-inside);
    take(event.dataTransfer.files);
  });
}
