// Pictures in every form that a page or a Node program has them, as raw pixels.

import { inNode } from "./environment.js";
import { JepaError, messageOf, throwIfAborted, toJepaError } from "./errors.js";
import { locate, type Location } from "./files.js";
import { fetchFrom, statusError } from "./http.js";

/** Interleaved pixels, row by row from the top left. */
export interface PixelData {
  /** Bytes, or floats from 0 to 1; `width · height · channels` of them. */
  data: Uint8Array | Uint8ClampedArray | Float32Array;
  width: number;
  height: number;
  /** 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA; alpha is ignored. Default: what the length of `data` says. */
  channels?: number | undefined;
}

/**
 * A picture: an address, an encoded file, pixels, or any element that shows one.
 *
 * In Node: a path or address of a PNG or JPEG file, a Blob of one, or {@link PixelData}.
 * EXIF orientation is applied, embedded colour profiles are not, and alpha is dropped without blending.
 */
export type ImageInput =
  | string
  | URL
  | Blob
  | ImageData
  | ImageBitmap
  | VideoFrame
  | HTMLImageElement
  | HTMLCanvasElement
  | HTMLVideoElement
  | OffscreenCanvas
  | PixelData;

/** A picture as it was when `embed` was called, in a form that can be posted to a worker. */
export type Picture =
  | Location
  | { kind: "blob"; blob: Blob }
  | { kind: "bitmap"; bitmap: ImageBitmap | VideoFrame }
  | { kind: "frame"; frame: VideoFrame }
  | { kind: "pixels"; pixels: Pixels };

export interface Pixels {
  data: Uint8Array | Float32Array;
  width: number;
  height: number;
  channels: number;
}

/** As the reference image processors see a file: turned upright, in its own numbers, colour kept where alpha is 0. */
const BITMAP_OPTIONS: ImageBitmapOptions = { imageOrientation: "from-image", colorSpaceConversion: "none", premultiplyAlpha: "none" };

/** Of canvases: with any option named, browsers copy the pixels at once rather than when the canvas is drawn on again. */
const CANVAS_OPTIONS: ImageBitmapOptions = {};

const UNKNOWN = "This is no picture: give an address, a Blob, ImageData, an ImageBitmap, a VideoFrame, an image, canvas or video element, or { data, width, height, channels }.";

/** What something is, also where it is of another frame, whose classes are others. */
const tagOf = (thing: object) => Object.prototype.toString.call(thing).slice(8, -1);

/** Takes a picture as it is now. The caller keeps its object, and may change it afterwards. */
export async function capture(image: ImageInput): Promise<Picture> {
  if (typeof image === "string") return locate(image, "a picture");
  if (typeof image !== "object" || image === null) throw new JepaError("bad-input", UNKNOWN);
  switch (tagOf(image)) {
    case "URL":
      return locate((image as URL).href, "a picture");
    case "Blob":
    case "File":
      return { kind: "blob", blob: image as Blob };
    case "HTMLImageElement":
      return captureImage(await loaded(image as HTMLImageElement));
    case "HTMLVideoElement":
      if ((image as HTMLVideoElement).readyState < HTMLMediaElement.HAVE_CURRENT_DATA) {
        throw new JepaError("bad-input", 'The video has no frame yet; wait for its "loadeddata" event.');
      }
      return captureBitmap(image as HTMLVideoElement, "The video");
    case "HTMLCanvasElement":
    case "OffscreenCanvas":
      return captureBitmap(image as HTMLCanvasElement, "The canvas", CANVAS_OPTIONS);
    case "ImageBitmap": {
      const frame = opaqueFrame(image as ImageBitmap);
      return frame ? { kind: "bitmap", bitmap: frame } : captureBitmap(image as ImageBitmap, "The ImageBitmap");
    }
    case "VideoFrame":
      return captureBitmap(image as VideoFrame, "The VideoFrame");
    default:
      return capturePixels(image as PixelData);
  }
}

/** A picture that stays as it is now, of whatever may be drawn over or written to later. */
export async function kept(image: ImageInput): Promise<ImageInput> {
  if (typeof image !== "object") return image;
  // Sizes that are read through a prototype, as ImageData's are, would not be copied with the rest.
  if ("data" in image && ArrayBuffer.isView(image.data)) return { ...image, data: copyOf(image.data), width: image.width, height: image.height } as PixelData;
  const tag = tagOf(image);
  if (tag === "HTMLVideoElement") return createImageBitmap(image as HTMLVideoElement, BITMAP_OPTIONS);
  return tag === "HTMLCanvasElement" || tag === "OffscreenCanvas" ? createImageBitmap(image as HTMLCanvasElement, CANVAS_OPTIONS) : image;
}

/** What messages call picture `i` of a list, as its number or in words; undefined where it is the only one. */
export type Numbering = (i: number) => number | string | undefined;

/**
 * All pictures, or none: a failure gives back those that were already taken.
 *
 * @param prepared - whether they are a model's very input, which only Float32Array pixel data can be
 */
export async function captureAll(images: readonly ImageInput[], number: Numbering, prepared = false): Promise<Picture[]> {
  const results = await Promise.allSettled(images.map(capture));
  const pictures: Picture[] = [];
  let failure: unknown;
  for (const [index, result] of results.entries()) {
    if (result.status === "fulfilled") pictures.push(result.value);
    else failure ??= namePicture(result.reason, number(index));
    if (prepared && result.status === "fulfilled" && !(result.value.kind === "pixels" && result.value.pixels.data instanceof Float32Array)) {
      failure ??= new JepaError("bad-input", "With preprocess: false pictures are { data: Float32Array, width, height, channels }.");
    }
  }
  if (failure === undefined) return pictures;
  pictures.forEach(discard);
  throw failure;
}

/** Says which of several pictures an error is about. */
export function namePicture(error: unknown, number: number | string | undefined): JepaError {
  const named = toJepaError(error);
  if (number === undefined || named.code === "aborted") return named;
  const name = typeof number === "string" ? number : `Picture ${number}`;
  return new JepaError(named.code, `${name}: ${named.message}`, { cause: named.cause });
}

/** What of a picture may be moved to a worker rather than copied: all of it belongs to this library. */
export function transferables(picture: Picture): Transferable[] {
  if (picture.kind === "bitmap") return [picture.bitmap];
  if (picture.kind === "frame") return [picture.frame];
  return picture.kind === "pixels" ? [picture.pixels.data.buffer as ArrayBuffer] : [];
}

/** Gives back what a captured picture holds. */
export function discard(picture: Picture): void {
  if (picture.kind === "bitmap") picture.bitmap.close();
  if (picture.kind === "frame") picture.frame.close();
}

async function loaded(image: HTMLImageElement): Promise<HTMLImageElement> {
  try {
    await image.decode();
    return image;
  } catch (error) {
    throw new JepaError("bad-input", `The picture ${image.currentSrc || "of the image element"} could not be loaded or decoded.`, { cause: error });
  }
}

/** Pixels beyond which a picture is not decoded or copied in the page's thread where that can be helped: so many take it 10 ms and more. */
const LARGE = 3e6;

/** An element gives its pixels by being decoded once more in this thread; its file can be decoded in another. */
async function captureImage(image: HTMLImageElement): Promise<Picture> {
  if (image.naturalWidth * image.naturalHeight > LARGE) {
    const file = await fileOf(image.currentSrc);
    if (file) return { kind: "blob", blob: file };
  }
  return captureBitmap(image, "The image element");
}

/** What is shown, from the browser's cache; undefined where the address is of another site, gone, or of a drawing, which has no pixels of its own. */
async function fileOf(address: string): Promise<Blob | undefined> {
  const { origin, protocol } = new URL(address);
  if (origin !== globalThis.location.origin && protocol !== "data:") return undefined;
  try {
    const response = await fetch(address, { cache: "force-cache" });
    const blob = response.ok ? await response.blob() : undefined;
    return blob && !blob.type.startsWith("image/svg") ? blob : undefined;
  } catch {
    return undefined;
  }
}

/**
 * The same pixels under another name: a bitmap of 12 megapixels takes the page's thread 30 ms and more to copy.
 *
 * Undefined for transparent ones, as frames do not say whether their colours are multiplied by alpha, and where the browser cannot.
 */
function opaqueFrame(bitmap: ImageBitmap): VideoFrame | undefined {
  let frame: VideoFrame;
  try {
    frame = new VideoFrame(bitmap, { timestamp: 0 });
  } catch {
    return undefined;
  }
  if (frame.format?.endsWith("X")) return frame;
  frame.close();
  return undefined;
}

async function captureBitmap(source: ImageBitmapSource, what: string, options = BITMAP_OPTIONS): Promise<Picture> {
  try {
    return { kind: "bitmap", bitmap: await createImageBitmap(source, options) };
  } catch (error) {
    throw new JepaError("bad-input", `${what} cannot be read; it may be empty, of size zero, or closed: ${messageOf(error)}`, { cause: error });
  }
}

function capturePixels({ data, width, height, channels = data?.length / (width * height) }: PixelData): Picture {
  const floats = data instanceof Float32Array;
  if (!floats && !(data instanceof Uint8Array) && !(data instanceof Uint8ClampedArray)) throw new JepaError("bad-input", UNKNOWN);
  const size = [width, height];
  if (!size.every((side) => Number.isInteger(side) && side > 0)) throw new JepaError("bad-input", `A picture cannot be ${width} × ${height} pixels.`);
  if (![1, 2, 3, 4].includes(channels)) throw new JepaError("bad-input", `A picture has 1 to 4 channels, not ${channels}.`);
  const expected = width * height * channels;
  if (data.length !== expected) {
    throw new JepaError("bad-input", `A picture of ${width} × ${height} pixels and ${channels} channels has ${expected} values, but there are ${data.length}.`);
  }
  if (channels === 4 && !floats && width * height > LARGE) {
    const frame = pixelFrame(data, width, height);
    if (frame) return { kind: "frame", frame };
  }
  return { kind: "pixels", pixels: { data: copyOf(data), width, height, channels } };
}

/** A copy in memory that the browser keeps for frames: new memory for 12 megapixels takes four times as long. Undefined where it has none, as in Node. */
function pixelFrame(data: Uint8Array | Uint8ClampedArray, width: number, height: number): VideoFrame | undefined {
  try {
    return new VideoFrame(data as BufferSource, { format: "RGBX", codedWidth: width, codedHeight: height, timestamp: 0 });
  } catch {
    return undefined;
  }
}

/** `slice` takes three fifths of the time that converting clamped bytes does; of a Node Buffer it would be no copy. */
function copyOf(data: PixelData["data"]): Uint8Array | Float32Array {
  if (data instanceof Uint8ClampedArray) return new Uint8Array(data.slice().buffer);
  return data instanceof Float32Array ? data.slice() : new Uint8Array(data);
}

/** The pixels of a captured picture, which is used up. */
export async function decode(picture: Picture, signal: AbortSignal | undefined): Promise<Pixels> {
  switch (picture.kind) {
    case "pixels":
      return picture.pixels;
    case "bitmap":
      try {
        return readBitmap(picture.bitmap);
      } finally {
        picture.bitmap.close();
      }
    case "frame":
      return readFrame(picture.frame);
    case "blob":
      return decodeBlob(picture.blob, "The picture");
    case "path": {
      const node = await import("./node.js");
      return node.decodePicture(await node.readPicture(picture.path));
    }
    case "url": {
      if (inNode && picture.href.startsWith("file:")) {
        const node = await import("./node.js");
        return node.decodePicture(await node.readPicture(node.pathOf(picture.href)));
      }
      return decodeBlob(await fetchPicture(picture.href, signal), picture.href);
    }
  }
}

async function fetchPicture(href: string, signal: AbortSignal | undefined): Promise<Blob> {
  const response = await fetchFrom(href, {}, signal);
  if (!response.ok) {
    await response.body?.cancel();
    throw statusError(href, response.status);
  }
  try {
    return await response.blob();
  } catch (error) {
    throwIfAborted(signal);
    throw new JepaError("network", `The picture ${href} broke off: ${messageOf(error)}`, { cause: error });
  }
}

async function decodeBlob(blob: Blob, what: string): Promise<Pixels> {
  if (blob.size === 0) throw new JepaError("bad-input", `${what} is an empty file.`);
  if (inNode) return (await import("./node.js")).decodePicture(new Uint8Array(await blob.arrayBuffer()));
  let bitmap: ImageBitmap;
  try {
    bitmap = await createImageBitmap(blob, BITMAP_OPTIONS);
  } catch (error) {
    throw new JepaError("bad-input", `${what} cannot be decoded: it is damaged, or no kind of picture that this browser knows.`, { cause: error });
  }
  try {
    return readBitmap(bitmap);
  } finally {
    bitmap.close();
  }
}

/** The very bytes that the frame was made of. */
async function readFrame(frame: VideoFrame): Promise<Pixels> {
  try {
    const data = new Uint8Array(frame.allocationSize());
    await frame.copyTo(data);
    return { data, width: frame.codedWidth, height: frame.codedHeight, channels: 4 };
  } finally {
    frame.close();
  }
}

function readBitmap(bitmap: ImageBitmap | VideoFrame): Pixels {
  const [width, height] = "width" in bitmap ? [bitmap.width, bitmap.height] : [bitmap.displayWidth, bitmap.displayHeight];
  try {
    const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true })!;
    context.drawImage(bitmap, 0, 0);
    const { data } = context.getImageData(0, 0, width, height);
    const bytes = new Uint8Array(data.buffer);
    return { data: (isOpaque(bytes) ? undefined : readUnblended(bitmap, width, height)) ?? bytes, width, height, channels: 4 };
  } catch (error) {
    if (error instanceof DOMException && error.name === "SecurityError") throw taintedError(error);
    throw new JepaError("bad-input", `The pixels of a picture of ${width} × ${height} cannot be read: ${messageOf(error)}`, { cause: error });
  }
}

export function taintedError(cause: unknown): JepaError {
  return new JepaError("bad-input", 'The picture comes from another site, which does not let this one read it: set crossOrigin = "anonymous" on the element, or fetch it.', { cause });
}

function isOpaque(rgba: Uint8Array): boolean {
  for (let i = 3; i < rgba.length; i += 4) if (rgba[i] !== 255) return false;
  return true;
}

/** A 2D canvas keeps colours multiplied by alpha, which loses them where alpha is small; WebGL reads them as they are in the file. */
function readUnblended(bitmap: ImageBitmap | VideoFrame, width: number, height: number): Uint8Array | undefined {
  const gl = new OffscreenCanvas(1, 1).getContext("webgl");
  if (!gl) return undefined;
  try {
    if (Math.max(width, height) > (gl.getParameter(gl.MAX_TEXTURE_SIZE) as number)) return undefined;
    gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, bitmap);
    gl.bindFramebuffer(gl.FRAMEBUFFER, gl.createFramebuffer());
    gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, gl.getParameter(gl.TEXTURE_BINDING_2D) as WebGLTexture, 0);
    if (gl.checkFramebufferStatus(gl.FRAMEBUFFER) !== gl.FRAMEBUFFER_COMPLETE) return undefined;
    const rgba = new Uint8Array(width * height * 4);
    gl.readPixels(0, 0, width, height, gl.RGBA, gl.UNSIGNED_BYTE, rgba);
    return gl.getError() === gl.NO_ERROR ? rgba : undefined;
  } finally {
    gl.getExtension("WEBGL_lose_context")?.loseContext();
  }
}
