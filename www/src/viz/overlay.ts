// A map over its picture.

import { checkSize, sized, type Canvas, type Drawable } from "./canvas.js";

export interface OverlayOptions {
  /** How much the map covers, 0 to 1. Default 0.8. */
  opacity?: number | undefined;
  /** Blend between patches rather than showing them as squares. Default false. */
  smooth?: boolean | undefined;
  /** Cut the middle square out, for a thumbnail. Default false. */
  square?: boolean | undefined;
  /** Length of the canvas's longer side in pixels. Default: the picture's. */
  side?: number | undefined;
}

/** Draws a picture, and with `map` a picture of a pixel for each patch stretched over it. The canvas takes the picture's proportions. */
export function drawOverlay(canvas: Canvas, picture: Drawable, map?: ImageData | undefined, options: OverlayOptions = {}): void {
  const { opacity = 0.8, smooth = false, square = false, side = Math.max(picture.width, picture.height) } = options;
  checkSize("side", side);
  const { width, height } = picture;
  const cut = square ? Math.min(width, height) : undefined;
  const [cutWidth, cutHeight] = [cut ?? width, cut ?? height];
  const scale = side / Math.max(cutWidth, cutHeight);
  const [outWidth, outHeight] = [Math.max(1, Math.round(cutWidth * scale)), Math.max(1, Math.round(cutHeight * scale))];
  const context = sized(canvas, outWidth, outHeight);

  const left = -((width - cutWidth) / 2) * scale;
  const top = -((height - cutHeight) / 2) * scale;
  context.globalAlpha = 1;
  // A picture can be transparent in places.
  context.clearRect(0, 0, outWidth, outHeight);
  // Small pictures stay a grid of pixels.
  context.imageSmoothingEnabled = scale < 4;
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, left, top, width * scale, height * scale);
  if (!map) return;
  context.globalAlpha = opacity;
  // The stronger the overlay, the greyer the picture: its own colours must not read as the map's.
  context.globalCompositeOperation = "saturation";
  context.fillStyle = "grey";
  context.fillRect(0, 0, outWidth, outHeight);
  context.globalCompositeOperation = "source-over";
  context.imageSmoothingEnabled = smooth;
  context.drawImage(toCanvas(map), left, top, width * scale, height * scale);
  context.globalAlpha = 1;
}

const canvases = new WeakMap<ImageData, OffscreenCanvas>();

function toCanvas(map: ImageData): OffscreenCanvas {
  let canvas = canvases.get(map);
  if (!canvas) {
    canvas = new OffscreenCanvas(map.width, map.height);
    sized(canvas, map.width, map.height).putImageData(map, 0, 0);
    canvases.set(map, canvas);
  }
  return canvas;
}
