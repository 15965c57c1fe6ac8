// Film of the tests' own.

import type { Page } from "playwright-core";

/** Records so many milliseconds in which a bar crosses the picture: WebM by MediaRecorder, which does not write how long it is. */
export async function recordFilm(page: Page, milliseconds: number): Promise<number[]> {
  return page.evaluate(async (milliseconds) => {
    const canvas = document.createElement("canvas");
    Object.assign(canvas, { width: 64, height: 48 });
    const context = canvas.getContext("2d")!;
    const recorder = new MediaRecorder(canvas.captureStream(25), { mimeType: "video/webm" });
    const parts: Blob[] = [];
    recorder.ondataavailable = ({ data }) => parts.push(data);
    const stopped = new Promise((resolve) => (recorder.onstop = resolve));
    recorder.start();
    const start = performance.now();
    while (performance.now() - start < milliseconds) {
      const part = (performance.now() - start) / milliseconds;
      context.fillStyle = "black";
      context.fillRect(0, 0, 64, 48);
      context.fillStyle = "white";
      context.fillRect(part * 60, 0, 8, 48);
      await new Promise(requestAnimationFrame);
    }
    recorder.stop();
    await stopped;
    return [...new Uint8Array(await new Blob(parts).arrayBuffer())];
  }, milliseconds);
}
