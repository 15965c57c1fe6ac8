import { byId } from "../shared/dom";
import { addPictures } from "./pictures";
import type { Store } from "./state";

const REASONS: Record<string, string> = {
  NotAllowedError: "The browser was not allowed to use the camera. Allow it in the address bar and try again.",
  NotFoundError: "No camera was found.",
  NotReadableError: "The camera is in use by another program.",
};

/** A dialog that shows the camera and takes pictures; the camera is on only while the dialog is open. */
export function mountCamera(store: Store, open: HTMLButtonElement): void {
  const dialog = byId("camera-dialog", HTMLDialogElement);
  const video = byId("camera-video", HTMLVideoElement);
  const problem = byId("camera-problem", HTMLElement);
  const take = byId("camera-take", HTMLButtonElement);
  let taken = 0;

  open.addEventListener("click", async () => {
    problem.textContent = "";
    take.disabled = true;
    dialog.showModal();
    try {
      if (!navigator.mediaDevices) throw new DOMException("Cameras can be used on secure (https) pages only.", "SecurityError");
      const stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 1280 }, height: { ideal: 960 } } });
      if (!dialog.open) return stop(stream);
      video.srcObject = stream;
      await video.play();
      take.disabled = false;
      take.focus();
    } catch (error) {
      if (!(error instanceof DOMException)) throw error;
      problem.textContent = REASONS[error.name] ?? error.message;
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

  byId("camera-close", HTMLButtonElement).addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => {
    if (video.srcObject instanceof MediaStream) stop(video.srcObject);
    video.srcObject = null;
  });
}

function stop(stream: MediaStream): void {
  for (const track of stream.getTracks()) track.stop();
}
