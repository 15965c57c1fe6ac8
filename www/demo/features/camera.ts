import { pca, type Pca } from "webjepa";
import { featureMap } from "webjepa/viz";
import { closeCamera, openCamera } from "../shared/camera";
import { byId } from "../shared/dom";
import { problemOf } from "../shared/problems";
import { addPictures } from "./pictures";
import type { Store } from "./state";

/** A dialog that shows the camera, takes pictures, and maps the features live; the camera is on only while the dialog is open. */
export function mountCamera(store: Store, open: HTMLButtonElement): void {
  const dialog = byId("camera-dialog", HTMLDialogElement);
  const video = byId("camera-video", HTMLVideoElement);
  const problem = byId("camera-problem", HTMLElement);
  const take = byId("camera-take", HTMLButtonElement);
  const live = byId("camera-live", HTMLInputElement);
  let taken = 0;
  let running: AbortController | undefined;

  open.addEventListener("click", async () => {
    problem.textContent = "";
    take.disabled = true;
    live.disabled = true;
    dialog.showModal();
    try {
      const stream = await openCamera({ width: { ideal: 1280 }, height: { ideal: 960 } });
      if (!dialog.open) return closeCamera(stream);
      video.srcObject = stream;
      await video.play();
      take.disabled = false;
      live.disabled = !store.state.model;
      take.focus();
    } catch (error) {
      problem.textContent = problemOf(error).detail;
    }
  });

  take.addEventListener("click", () => {
    const canvas = document.createElement("canvas");
    canvas.width = video.videoWidth;
    canvas.height = video.videoHeight;
    canvas.getContext("2d")?.drawImage(video, 0, 0);
    canvas.toBlob((blob) => {
      if (blob) void addPictures(store, [{ blob, name: `Camera ${++taken}` }]);
    }, "image/png");
    dialog.close();
  });

  const endLive = () => {
    running?.abort();
    live.checked = false;
    byId("camera-map", HTMLCanvasElement).hidden = true;
    byId("camera-rate", HTMLElement).textContent = "";
  };
  live.addEventListener("change", async () => {
    if (!live.checked) return endLive();
    const { signal } = (running = new AbortController());
    try {
      await mapLive(store, video, signal);
    } catch (error) {
      if (signal.aborted) return;
      endLive();
      problem.textContent = problemOf(error).detail;
    }
  });

  byId("camera-close", HTMLButtonElement).addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => {
    endLive();
    if (video.srcObject instanceof MediaStream) closeCamera(video.srcObject);
    video.srcObject = null;
  });
}

/** Lays the feature map over the video, frame by frame, in the colours of the first frame: fitted anew they would flicker. */
async function mapLive({ state }: Store, video: HTMLVideoElement, signal: AbortSignal): Promise<void> {
  const canvas = byId("camera-map", HTMLCanvasElement);
  const rate = byId("camera-rate", HTMLElement);
  canvas.style.opacity = String(state.opacity);
  canvas.style.imageRendering = state.smooth ? "auto" : "pixelated";
  let colours: Pca | undefined;
  while (state.model) {
    const started = performance.now();
    const tokens = await state.model.jepa.embed(video, { pool: "none", signal });
    colours = colours?.project(tokens) ?? pca(tokens);
    const map = featureMap(colours);
    Object.assign(canvas, { width: map.width, height: map.height, hidden: false });
    canvas.getContext("2d")?.putImageData(map, 0, 0);
    rate.textContent = `${(performance.now() - started).toFixed(0)} ms`;
    // Rests while the page is in the background.
    await new Promise(requestAnimationFrame);
  }
}
