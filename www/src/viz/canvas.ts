// What all drawings need: a canvas of a size, and its context.

import { JepaError } from "../errors.js";

/** What is drawn on. */
export type Canvas = HTMLCanvasElement | OffscreenCanvas;

/** What can be drawn and says how large it is: an ImageBitmap, a canvas, a video frame, a decoded `<img>`. */
export type Drawable = CanvasImageSource & { readonly width: number; readonly height: number };

export type Context = CanvasRenderingContext2D | OffscreenCanvasRenderingContext2D;

/** The context of a canvas that is now `width` × `height` pixels large; its contents are kept where that is its size already. */
export function sized(canvas: Canvas, width: number, height: number): Context {
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d") as Context | null;
  if (!context) throw new JepaError("unsupported", "The canvas gives no 2D context: it has one of another kind already, or the browser has none.");
  return context;
}

/** A picture of no colour yet, of a pixel for each patch. */
export function emptyImage(columns: number, rows: number): ImageData {
  if (typeof ImageData === "undefined") throw new JepaError("unsupported", "There is no ImageData here: webjepa/viz draws in pages and their workers.");
  return new ImageData(columns, rows);
}

export function checkSize(name: string, value: number): void {
  if (!(Number.isFinite(value) && value >= 1)) throw new JepaError("bad-input", `The option ${name} is a number of pixels from 1 on, not ${value}.`);
}

/** Colours in turn. */
export function cycled(colours: readonly string[], i: number): string {
  return colours[i % colours.length]!;
}
