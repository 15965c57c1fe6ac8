// What only Node can do: files, and decoding pictures without a browser. Imported dynamically, never in a browser.

import { open, readdir, readFile, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import jpeg from "jpeg-js";
import { PNG } from "pngjs";
import { JepaError, messageOf } from "./errors.js";
import type { ByteSource, Folder } from "./files.js";
import type { Pixels } from "./inputs.js";

const BLOCK = 1 << 20;

/** Where Pillow, too, takes a picture for an attack: a few bytes can claim any size. */
const MAX_PIXELS = 178_956_970;

/** How many bytes one of Deflate can stand for, at most. */
const DEFLATE = 1032;

export function pathOf(fileUrl: string): string {
  try {
    return fileURLToPath(fileUrl);
  } catch (error) {
    throw new JepaError("bad-input", `${fileUrl} names no local file: ${messageOf(error)}`, { cause: error });
  }
}

export async function readBytes(path: string | URL): Promise<Uint8Array<ArrayBuffer>> {
  return new Uint8Array(await readFile(path));
}

/** The folder at `path` with the names in it, or the folder of the file at `path` with `file` set to its name. */
export async function openFolder(path: string): Promise<Folder> {
  try {
    const isFile = (await stat(path)).isFile();
    const folder = isFile ? dirname(path) : path;
    const names = await readdir(folder);
    return {
      label: folder,
      names,
      ...(isFile ? { file: basename(path) } : {}),
      open: async (name) => (names.includes(name) ? fileSource(join(folder, name)) : undefined),
    };
  } catch (error) {
    throw new JepaError("bad-input", `The model ${path} cannot be opened: ${messageOf(error)}`, { cause: error });
  }
}

async function fileSource(path: string): Promise<ByteSource> {
  const failed = (error: unknown) => new JepaError("bad-input", `${path} cannot be read: ${messageOf(error)}`, { cause: error });
  const size = await stat(path).then((entry) => entry.size, (error) => Promise.reject(failed(error)));
  return {
    label: path,
    size: () => size,
    async *from(start) {
      const handle = await open(path).catch((error) => Promise.reject(failed(error)));
      try {
        const block = new Uint8Array(BLOCK);
        for (let position = start; ; ) {
          const { bytesRead } = await handle.read(block, 0, BLOCK, position).catch((error) => Promise.reject(failed(error)));
          if (bytesRead === 0) return;
          yield block.subarray(0, bytesRead);
          position += bytesRead;
        }
      } finally {
        await handle.close();
      }
    },
  };
}

export async function readPicture(path: string): Promise<Uint8Array> {
  try {
    return await readFile(path);
  } catch (error) {
    throw new JepaError("bad-input", `The picture ${path} cannot be read: ${messageOf(error)}`, { cause: error });
  }
}

/** Decodes a PNG or JPEG file and turns it upright. */
export async function decodePicture(file: Uint8Array): Promise<Pixels> {
  const starts = (...bytes: number[]) => bytes.every((byte, i) => file[i] === byte);
  const isPng = starts(0x89, 0x50, 0x4e, 0x47);
  if (!isPng && !starts(0xff, 0xd8, 0xff)) {
    throw new JepaError("bad-input", "The picture is neither PNG nor JPEG, which are what Node can decode here; pass { data, width, height, channels } instead.");
  }
  try {
    const pixels = isPng ? decodePng(file) : decodeJpeg(file);
    return upright(pixels, await orientationOf(file));
  } catch (error) {
    if (error instanceof JepaError) throw error;
    throw new JepaError("bad-input", `The ${isPng ? "PNG" : "JPEG"} picture cannot be decoded: ${messageOf(error)}`, { cause: error });
  }
}

/** The EXIF orientation, 1 to 8; 1 where there is none. */
async function orientationOf(file: Uint8Array): Promise<number> {
  // As it is imported, exifr reads navigator.userAgent, which a navigator that was made for its `gpu` does not have.
  const lent = typeof navigator === "object" && navigator.userAgent === undefined;
  if (lent) Object.assign(navigator, { userAgent: "" });
  try {
    const { default: exifr } = await import("exifr");
    return (await exifr.orientation(file).catch(() => undefined)) ?? 1;
  } finally {
    if (lent) Reflect.deleteProperty(navigator, "userAgent");
  }
}

function decodePng(file: Uint8Array): Pixels {
  const header = new DataView(file.buffer, file.byteOffset, file.byteLength);
  if (file.byteLength < 24) throw new Error("the file ends inside of its header");
  const pixels = header.getUint32(16) * header.getUint32(20);
  if (pixels > MAX_PIXELS) throw new Error(`it has more than ${MAX_PIXELS} pixels`);
  // One bit each, at least. Room for all of them is made before the first is read.
  if (pixels / 8 > DEFLATE * file.byteLength) throw new Error(`${file.byteLength} bytes cannot hold its ${pixels} pixels`);
  // Not the parser of streams: where pixels are damaged or end early it throws into the void, which ends the process, and never answers.
  const { data, width, height } = PNG.sync.read(Buffer.from(file.buffer, file.byteOffset, file.byteLength));
  return { data, width, height, channels: 4 };
}

function decodeJpeg(file: Uint8Array): Pixels {
  const { data, width, height } = jpeg.decode(file, {
    useTArray: true,
    formatAsRGBA: false,
    tolerantDecoding: false,
    maxResolutionInMP: MAX_PIXELS / 1e6,
    maxMemoryUsageInMB: 4096,
  });
  return { data, width, height, channels: 3 };
}

/** Undoes an EXIF orientation (1 to 8): where the pixel of the upright picture at (x, y) is in the stored one. */
function upright(stored: Pixels, orientation: number): Pixels {
  if (orientation === 1) return stored;
  const { width: w, height: h, channels } = stored;
  const [width, height] = orientation >= 5 ? [h, w] : [w, h];
  const place: Record<number, (x: number, y: number) => number> = {
    2: (x, y) => y * w + (w - 1 - x),
    3: (x, y) => (h - 1 - y) * w + (w - 1 - x),
    4: (x, y) => (h - 1 - y) * w + x,
    5: (x, y) => x * w + y,
    6: (x, y) => (h - 1 - x) * w + y,
    7: (x, y) => (h - 1 - x) * w + (w - 1 - y),
    8: (x, y) => x * w + (w - 1 - y),
  };
  const from = place[orientation];
  if (!from) return stored;
  const data = new Uint8Array(stored.data.length);
  let out = 0;
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const at = from(x, y) * channels;
      for (let c = 0; c < channels; c++) data[out++] = stored.data[at + c]!;
    }
  }
  return { data, width, height, channels };
}
