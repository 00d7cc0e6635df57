// Photos from the camera, which starts when a user presses the button and at no other time.

import { find } from "./dom.js";

const PROBLEMS = {
  NotAllowedError: "The camera was not allowed; the browser's settings of this page can allow it.",
  NotFoundError: "There is no camera.",
  NotReadableError: "The camera is in use by another program.",
};

/** `onPhoto` gets a file; `onProblem` what is wrong, in words. */
export function startCamera(onPhoto, onProblem) {
  const video = find("video");
  let stream = null;

  async function start() {
    if (!navigator.mediaDevices) return onProblem("The camera needs a page from https:// or from this machine.");
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" }, audio: false });
      video.srcObject = stream;
      await video.play();
      show(true);
      find("take").focus();
    } catch (error) {
      stop();
      onProblem(PROBLEMS[error.name] ?? `The camera can't be used: ${error.message}.`);
    }
  }

  function stop() {
    stream?.getTracks().forEach((track) => track.stop());
    stream = video.srcObject = null;
    show(false);
  }

  async function take() {
    const canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight);
    canvas.getContext("2d").drawImage(video, 0, 0);
    const blob = await canvas.convertToBlob({ type: "image/png" }); // without loss
    onPhoto(new File([blob], `photo ${new Date().toLocaleTimeString()}`, { type: blob.type }));
  }

  function show(on) {
    find("viewfinder").hidden = !on;
    find("drop").hidden = on;
  }

  find("camera").addEventListener("click", start);
  find("take").addEventListener("click", take);
  find("stop").addEventListener("click", () => {
    stop();
    find("camera").focus();
  });
}
