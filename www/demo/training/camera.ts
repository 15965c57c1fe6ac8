import { closeCamera, openCamera } from "../shared/camera";
import { byId } from "../shared/dom";
import { problemOf } from "../shared/problems";
import type { OwnPicture } from "./own-pictures";

/** Milliseconds between two pictures while they are being taken: enough for the scene to change. */
const EVERY = 250;

/** A dialog that takes pictures from the camera, four a second, under the name of a class; resolves to them when it is closed. */
export async function picturesOfCamera(): Promise<OwnPicture[]> {
  const dialog = byId("camera-dialog", HTMLDialogElement);
  const video = byId("camera-video", HTMLVideoElement);
  const problem = byId("camera-problem", HTMLElement);
  const take = byId("camera-take", HTMLButtonElement);
  const label = byId("camera-label", HTMLInputElement);
  const count = byId("camera-count", HTMLElement);
  const taken: OwnPicture[] = [];
  const canvas = document.createElement("canvas");
  let timer: ReturnType<typeof setInterval> | undefined;

  const stop = () => {
    clearInterval(timer);
    timer = undefined;
    take.textContent = "Take pictures";
  };
  const shoot = () => {
    const scale = 256 / Math.min(video.videoWidth, video.videoHeight);
    Object.assign(canvas, { width: Math.round(video.videoWidth * scale), height: Math.round(video.videoHeight * scale) });
    canvas.getContext("2d")?.drawImage(video, 0, 0, canvas.width, canvas.height);
    canvas.toBlob((blob) => {
      if (blob) taken.push({ blob, label: label.value.trim() || undefined });
      count.textContent = `${taken.length} ${taken.length === 1 ? "picture" : "pictures"}`;
    }, "image/png");
  };

  problem.textContent = count.textContent = "";
  take.disabled = true;
  take.onclick = () => {
    if (timer) return stop();
    take.textContent = "Stop taking";
    timer = setInterval(shoot, EVERY);
  };
  byId("camera-close", HTMLButtonElement).onclick = () => dialog.close();
  const closed = new Promise<void>((resolve) => dialog.addEventListener("close", () => resolve(), { once: true }));
  dialog.showModal();
  let stream: MediaStream | undefined;
  try {
    stream = await openCamera({ width: { ideal: 640 }, height: { ideal: 480 } });
    video.srcObject = stream;
    await video.play();
    take.disabled = false;
    take.focus();
  } catch (error) {
    problem.textContent = problemOf(error).detail;
  }
  await closed;
  stop();
  if (stream) closeCamera(stream);
  video.srcObject = null;
  return taken;
}
