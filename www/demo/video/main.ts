import "../shared/parts.css";
import "./video.css";
import { Jepa, videoFrames, type PixelData } from "webjepa";
import { drawClip, drawOverlay, heatMap, INFERNO_CSS, type ClipMasks } from "webjepa/viz";
import { closeCamera, openCamera } from "../shared/camera";
import { Chart } from "../shared/charts";
import { byId, h } from "../shared/dom";
import { mountLayout } from "../shared/layout";
import { mountProblem, problemOf, type Problem } from "../shared/problems";
import { Store } from "../shared/store";
import config from "../models/moving-vjepa/config.json?raw";
import weights from "../models/moving-vjepa/model.safetensors?url";
import preprocessor from "../models/moving-vjepa/video_preprocessor_config.json?raw";
import { clipMasks } from "./masks";
import { scene } from "./scene";
import { alike, Watcher, type Sight } from "./watcher";

/** Frames a second that are asked of a video or camera. */
const FPS = 8;
/** Clips between two that are kept, and how many are. */
const KEPT_EVERY = 8;
const MOST_KEPT = 60;
const MOST_SHOWN = 8;
const ABOUT_FRAME = "As the model sees it: its own size, and grey.";

/** Pixels of a frame's side where its masks are drawn, so that outlines are thin. */
const MASKS_SIDE = 144;

interface Shown {
  canvas: CanvasImageSource & { width: number; height: number };
  note?: string;
}

interface State {
  jepa?: Jepa;
  /** What is hidden of the clips from now on. */
  masks?: ClipMasks;
  running: boolean;
  text: string;
  problem?: Problem | undefined;
}

const store = new Store<State>({ running: false, text: "Loading the built-in model" });
const video = byId("video", HTMLVideoElement);
const file = byId("file", HTMLInputElement);
const note = byId("frame-note", HTMLElement);
const canvases = { frame: byId("frame", HTMLCanvasElement), map: byId("map", HTMLCanvasElement), surprise: byId("surprise", HTMLCanvasElement), masks: byId("masks", HTMLCanvasElement) };
const line = new Chart({ title: "Surprise", about: "Mean distance of the predicted embeddings from the real ones, over the newest clip; at frame numbers.", format: (value) => value.toFixed(3) });
const hidden = byId("hidden", HTMLSelectElement);
const again = byId("masks-again", HTMLButtonElement);
let seed = 0;
let stopping = new AbortController();

note.textContent = ABOUT_FRAME;
mountLayout("../");
mountProblem(byId("problem", HTMLElement), store);
byId("line", HTMLElement).append(line.root);
byId("surprise-bar", HTMLElement).style.background = INFERNO_CSS;
store.subscribe(({ jepa, running, text }) => {
  byId("status-text", HTMLElement).textContent = text;
  byId("lamp", HTMLElement).dataset.state = running || !jepa ? "busy" : "ready";
  for (const id of ["scene", "choose", "camera"]) byId(id, HTMLButtonElement).disabled = !jepa || running;
  byId("stop", HTMLButtonElement).disabled = !running;
});

/** Colours one value for each patch; the ends of the scale belong to all clips with the same masks. */
class Heat {
  #high = 0;

  image(errors: Float32Array, columns: number): ImageData {
    this.#high = Math.max(this.#high, ...errors.filter((error) => !Number.isNaN(error)));
    return heatMap(errors, columns, { low: 0, high: this.#high });
  }
}

/** The frame as the model is shown it: the middle square. */
function squared({ canvas }: Shown, side: number): OffscreenCanvas {
  const cut = Math.min(canvas.width, canvas.height);
  const out = new OffscreenCanvas(side, side);
  const context = out.getContext("2d", { willReadFrequently: true })!;
  context.filter = "grayscale(1)";
  context.imageSmoothingQuality = "high";
  context.drawImage(canvas, (canvas.width - cut) / 2, (canvas.height - cut) / 2, cut, cut, 0, 0, side, side);
  return out;
}

function pixelsOf(canvas: OffscreenCanvas): PixelData {
  const { width, height } = canvas;
  return { data: canvas.getContext("2d")!.getImageData(0, 0, width, height).data, width, height, channels: 4 };
}

function put(canvas: HTMLCanvasElement, image: ImageData | OffscreenCanvas): void {
  Object.assign(canvas, { width: image.width, height: image.height });
  const context = canvas.getContext("2d")!;
  if (image instanceof ImageData) context.putImageData(image, 0, 0);
  else context.drawImage(image, 0, 0);
}

interface Kept {
  embedding: Float32Array;
  picture: OffscreenCanvas;
  at: number;
}

function showAlike(kept: readonly Kept[], sight: Sight): void {
  const items = alike(kept, sight.embedding).slice(0, MOST_SHOWN).map(({ clip, similarity }) => {
    const canvas = h("canvas", { role: "img", "aria-label": `The clip that ended at frame ${clip.at}` });
    put(canvas, clip.picture);
    return h("li", {}, canvas, h("span", { class: "label mono" }, `${similarity.toFixed(2)}, at ${clip.at}`));
  });
  byId("clips", HTMLElement).replaceChildren(...items);
}

async function watch(name: string, signal: AbortSignal, frames: AsyncIterable<Shown>): Promise<void> {
  const { jepa } = store.state;
  if (!jepa) return;
  const [side] = [jepa.config.imageSize].flat() as [number];
  const watcher = new Watcher(jepa);
  let heat = new Heat();
  const [numbers, values, recent, kept]: [number[], number[], OffscreenCanvas[], Kept[]] = [[], [], [], []];
  let predicted: ClipMasks | undefined;
  let clips = 0;
  let number = 0;
  note.textContent = ABOUT_FRAME;
  store.change({ running: true, problem: undefined, text: `${name}: waiting for ${watcher.window} frames` });
  try {
    for await (const shown of frames) {
      const square = squared(shown, side);
      recent.push(square);
      if (recent.length > watcher.window) recent.shift();
      put(canvases.frame, square);
      if (shown.note) note.textContent = shown.note;
      const started = performance.now();
      const masks = store.state.masks!;
      const sight = await watcher.see(pixelsOf(square), ++number, masks);
      if (!sight) continue;
      if (masks !== predicted) {
        // Distances under other masks do not compare.
        predicted = masks;
        heat = new Heat();
        numbers.length = values.length = 0;
        byId("masks-note", HTMLElement).textContent = summary(masks);
      }
      put(canvases.map, sight.map);
      drawOverlay(canvases.surprise, square, heat.image(sight.errors, sight.columns), { opacity: 0.65 });
      drawClip(canvases.masks, recent, { masks, side: MASKS_SIDE });
      numbers.push(number);
      values.push(sight.surprise);
      line.show(numbers, values);
      if (kept.length > 0) showAlike(kept, sight);
      if (clips++ % KEPT_EVERY === 0) kept.push({ embedding: sight.embedding, picture: square, at: number });
      if (kept.length > MOST_KEPT) kept.shift();
      store.change({ text: `${name}: frame ${number}, surprise ${sight.surprise.toFixed(3)}, ${(performance.now() - started).toFixed(0)} ms a clip on ${jepa.backend === "webgpu" ? "WebGPU" : "the CPU"}` });
    }
    store.change({ text: `${name}: ended after ${number} frames` });
  } catch (error) {
    if (!signal.aborted) store.change({ problem: problemOf(error) });
    store.change({ text: `${name}: stopped after ${number} frames` });
  } finally {
    store.change({ running: false });
  }
}

function summary({ context, targets, grid }: ClipMasks): string {
  return `seen ${context.length}, predicted ${targets.reduce((sum, { length }) => sum + length, 0)} of ${grid.reduce((a, b) => a * b)}`;
}

/** Frames of the page's video element, closed when the next is asked for. */
async function* played(signal: AbortSignal): AsyncGenerator<Shown> {
  for await (const bitmap of videoFrames(video, { fps: FPS, signal })) {
    yield { canvas: bitmap };
    bitmap.close();
  }
}

async function* builtIn(side: number, signal: AbortSignal): AsyncGenerator<Shown> {
  for await (const { canvas, happening } of scene(side, signal)) {
    yield happening ? { canvas, note: `Last: ${{ cut: "another piece of clothing took its place", jump: "it jumped", stop: "it stood still" }[happening]}.` } : { canvas };
    // As fast as a film, and no faster.
    await new Promise((resolve) => setTimeout(resolve, 60));
  }
}

function choose(): void {
  again.disabled = hidden.value === "future";
  if (store.state.jepa) store.change({ masks: clipMasks(hidden.value, store.state.jepa.grid, seed) });
}

function begin(): AbortSignal {
  stopping.abort();
  stopping = new AbortController();
  return stopping.signal;
}

hidden.addEventListener("change", choose);
again.addEventListener("click", () => {
  seed++;
  choose();
});
byId("scene", HTMLButtonElement).addEventListener("click", () => {
  const [side] = [store.state.jepa!.config.imageSize].flat() as [number];
  const signal = begin();
  void watch("Built-in scene", signal, builtIn(side, signal));
});
byId("choose", HTMLButtonElement).addEventListener("click", () => file.click());
file.addEventListener("change", () => {
  const [chosen] = file.files ?? [];
  file.value = "";
  if (!chosen) return;
  URL.revokeObjectURL(video.src);
  Object.assign(video, { srcObject: null, src: URL.createObjectURL(chosen) });
  const signal = begin();
  void watch(chosen.name, signal, played(signal));
});
byId("camera", HTMLButtonElement).addEventListener("click", async () => {
  const signal = begin();
  try {
    const stream = await openCamera({ width: { ideal: 320 } });
    signal.addEventListener("abort", () => closeCamera(stream));
    video.srcObject = stream;
    await video.play();
    await watch("Camera", signal, played(signal));
  } catch (error) {
    store.change({ problem: { title: "The camera cannot be used", detail: problemOf(error).detail } });
  }
});
byId("stop", HTMLButtonElement).addEventListener("click", () => begin());

try {
  const jepa = await Jepa.load({ "config.json": config, "video_preprocessor_config.json": preprocessor, "model.safetensors": new URL(weights, document.baseURI) }, { warmup: true });
  store.change({ jepa, text: `Built-in V-JEPA on ${jepa.backend === "webgpu" ? "WebGPU" : "the CPU"}: ready` });
  choose();
} catch (error) {
  store.change({ problem: problemOf(error), text: "The built-in model could not be loaded" });
}
