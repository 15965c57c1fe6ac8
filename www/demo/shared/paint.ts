/** Colours for each patch, one pixel each. */
export type Overlay = ImageData;

export interface PaintOptions {
  opacity: number;
  /** Blend between patches rather than showing them as squares. */
  smooth: boolean;
  /** Cut the middle square out, for a thumbnail. */
  square: boolean;
  /** Length of the canvas's longer side in device pixels. */
  side: number;
}

/** Draws a picture with its overlay on top. */
export function paint(canvas: HTMLCanvasElement, picture: ImageBitmap, overlay: Overlay | undefined, options: PaintOptions): void {
  const { width, height } = picture;
  const cut = options.square ? Math.min(width, height) : undefined;
  const [cutWidth, cutHeight] = [cut ?? width, cut ?? height];
  const scale = options.side / Math.max(cutWidth, cutHeight);
  const [outWidth, outHeight] = [Math.round(cutWidth * scale), Math.round(cutHeight * scale)];
  if (canvas.width !== outWidth || canvas.height !== outHeight) {
    canvas.width = outWidth;
    canvas.height = outHeight;
  }
  const context = canvas.getContext("2d");
  if (!context) throw new Error("This browser gives no 2D canvas.");

  const left = -((width - cutWidth) / 2) * scale;
  const top = -((height - cutHeight) / 2) * scale;
  context.globalAlpha = 1;
  // A picture can be transparent in places.
  context.clearRect(0, 0, outWidth, outHeight);
  context.imageSmoothingEnabled = true;
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, left, top, width * scale, height * scale);
  if (!overlay) return;
  context.globalAlpha = options.opacity;
  // The stronger the overlay, the greyer the picture: its own colours must not read as the map's.
  context.globalCompositeOperation = "saturation";
  context.fillStyle = "grey";
  context.fillRect(0, 0, outWidth, outHeight);
  context.globalCompositeOperation = "source-over";
  context.imageSmoothingEnabled = options.smooth;
  context.drawImage(toCanvas(overlay), left, top, width * scale, height * scale);
}

const canvases = new WeakMap<Overlay, OffscreenCanvas>();

function toCanvas(overlay: Overlay): OffscreenCanvas {
  let canvas = canvases.get(overlay);
  if (!canvas) {
    canvas = new OffscreenCanvas(overlay.width, overlay.height);
    canvas.getContext("2d")?.putImageData(overlay, 0, 0);
    canvases.set(overlay, canvas);
  }
  return canvas;
}
