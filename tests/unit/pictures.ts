// Small encoded pictures, made on the spot.

import jpeg from "jpeg-js";
import { PNG } from "pngjs";

/** `rgba` of `width` pixels a row, as a PNG file. */
export function png(rgba: number[], width: number): Uint8Array<ArrayBuffer> {
  const picture = new PNG({ width, height: rgba.length / 4 / width });
  picture.data = Buffer.from(rgba);
  return new Uint8Array(PNG.sync.write(picture, { colorType: 6 }));
}

/** A grey PNG file, which has one sample for each pixel. */
export function greyPng(grey: number[], width: number): Uint8Array<ArrayBuffer> {
  const picture = new PNG({ width, height: grey.length / width });
  picture.data = Buffer.from(grey);
  return new Uint8Array(PNG.sync.write(picture, { colorType: 0, inputColorType: 0, inputHasAlpha: false }));
}

/** 16 × 8 pixels, the left half dark and the right half bright, as a JPEG file that says it is to be turned. */
export function turnedJpeg(orientation: number): Uint8Array<ArrayBuffer> {
  const [width, height] = [16, 8];
  const data = new Uint8Array(width * height * 4).fill(255);
  for (let i = 0; i < width * height; i++) data.fill(i % width < 8 ? 20 : 230, i * 4, i * 4 + 3);
  const file = jpeg.encode({ data, width, height }, 95).data;
  const tiff = [0x4d, 0x4d, 0, 42, 0, 0, 0, 8, 0, 1, 0x01, 0x12, 0, 3, 0, 0, 0, 1, 0, orientation, 0, 0, 0, 0, 0, 0];
  const exif = [..."Exif\0\0"].map((c) => c.charCodeAt(0)).concat(tiff);
  const segment = [0xff, 0xe1, 0, exif.length + 2, ...exif];
  return new Uint8Array([...file.subarray(0, 2), ...segment, ...file.subarray(2)]);
}

/** Where the dark half of `turnedJpeg(orientation)` is once the picture is upright. */
export const DARK_SIDE: Record<number, "left" | "right" | "top" | "bottom"> = {
  1: "left",
  2: "right",
  3: "right",
  4: "left",
  5: "top",
  6: "top",
  7: "bottom",
  8: "bottom",
};
