// What the documents' programs are given in a page: pictures, files, and training runs of two steps of a tiny model, whatever they ask for.

import { Trainer } from "webjepa";

const SMALL = { imageSize: 32, patchSize: 8, hiddenSize: 24, layers: 2, heads: 3, predictor: { hiddenSize: 12, layers: 1 } };
const MOST_STEPS = 2;
const BATCH = 4;

/** The sizes of the V-JEPA 2 that is there in the place of a large one. */
const VIDEO = { imageSize: 32, patchSize: 8, hiddenSize: 64, layers: 2, heads: 2 };

/** The model of a run that goes on from weights, or begins without. */
function small({ from, model }) {
  if (from !== undefined) return model ? { model: { ...model, ...VIDEO } } : {};
  return { model: { ...SMALL, ...(typeof model === "object" ? { predictor: SMALL.predictor } : {}) } };
}

const { create } = Trainer;
Trainer.create = (options) => {
  const model = small(options);
  return create.call(Trainer, { ...options, ...model, batchSize: BATCH, schedule: { ...options.schedule, steps: MOST_STEPS } });
};

/** A disc of its own colour, place and size for each number. */
function painted(i, side = 48) {
  const canvas = Object.assign(document.createElement("canvas"), { width: side, height: side });
  const context = canvas.getContext("2d");
  context.fillStyle = `hsl(${(i * 77) % 360} 60% 30%)`;
  context.fillRect(0, 0, side, side);
  context.fillStyle = `hsl(${(i * 131) % 360} 80% 70%)`;
  context.arc(side * (0.3 + 0.1 * (i % 5)), side / 2, side * (0.1 + 0.04 * (i % 4)), 0, 7);
  context.fill();
  return canvas;
}

async function file(i) {
  const blob = await new Promise((resolve) => painted(i).toBlob(resolve, "image/png"));
  return new File([blob], `${Math.floor(i / 2) % 2 ? "cat" : "dog"}-${i}.png`, { type: "image/png" });
}

/** A second and a half of film, which knows its length. */
async function filmed() {
  const canvas = painted(0, 64);
  const recorder = new MediaRecorder(canvas.captureStream(25), { mimeType: "video/webm" });
  const parts = [];
  recorder.addEventListener("dataavailable", ({ data }) => parts.push(data));
  recorder.start();
  for (const start = performance.now(); performance.now() - start < 1500; await new Promise(requestAnimationFrame)) {
    canvas.getContext("2d").drawImage(painted(Math.floor(performance.now() / 40), 64), 0, 0);
  }
  const stopped = new Promise((resolve) => recorder.addEventListener("stop", resolve));
  recorder.stop();
  await stopped;
  const video = Object.assign(document.createElement("video"), { muted: true, src: URL.createObjectURL(new Blob(parts, { type: "video/webm" })) });
  await new Promise((resolve) => video.addEventListener("loadedmetadata", resolve));
  // A recorded film says how long it is once its end has been looked for.
  if (!Number.isFinite(video.duration)) {
    video.currentTime = 1e6;
    await new Promise((resolve) => video.addEventListener("durationchange", resolve));
    video.currentTime = 0;
    await new Promise((resolve) => video.addEventListener("seeked", resolve));
  }
  return video;
}

const files = await Promise.all(Array.from({ length: 6 }, (_, i) => file(i)));
const chosen = new DataTransfer();
for (const each of files) chosen.items.add(each);
const input = Object.assign(document.createElement("input"), { type: "file", multiple: true });
document.body.append(painted(0), painted(1), input);
input.files = chosen.files;
for (const i of [0, 1]) {
  const image = Object.assign(document.createElement("img"), { src: URL.createObjectURL(files[i]) });
  document.body.append(image);
  await image.decode();
}

/** Of a gripper: nine pictures, eight changes of its pose, and the poses. */
const recordings = Array.from({ length: BATCH }, (_, n) => ({
  frames: Array.from({ length: 9 }, (_, i) => painted(n + i)),
  actions: Array.from({ length: 8 }, () => [0.01, 0, 0, 0, 0, 0.1, 0]),
  states: Array.from({ length: 9 }, (_, i) => [0.01 * i, 0, 0, 0, 0, 0.1 * i, 0]),
}));

globalThis.given = { files, recordings, frames: files.slice(0, 4), film: await filmed(), show: () => {} };
