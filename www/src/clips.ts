// Clips: what a model of video takes, as the frames of which it is made.

import { JepaError } from "./errors.js";
import { captureAll, type ImageInput, type Numbering, type Picture, type PixelData } from "./inputs.js";

/** The frames of a clip as one array: interleaved pixels, row by row, frame after frame. */
export interface ClipData {
  /** Bytes, or floats from 0 to 1; `frames · height · width · channels` of them. */
  data: Uint8Array | Uint8ClampedArray | Float32Array;
  frames: number;
  height: number;
  width: number;
  /** 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA; alpha is ignored. Default: what the length of `data` says. */
  channels?: number | undefined;
}

/** A clip: its frames in order, or their pixels as one array. */
export type ClipInput = readonly ImageInput[] | ClipData;

/** What a call was given: the frames of its pictures or clips, one after the other. */
export interface Inputs {
  pictures: Picture[];
  /** Frames of each clip; 1 for pictures. */
  frames: number;
  /** Whether there was a list of them, so that the answer has a batch axis. */
  listed: boolean;
}

function isClipData(input: unknown): input is ClipData {
  return typeof input === "object" && input !== null && "frames" in input && "data" in input;
}

function isClip(input: unknown): input is ClipInput {
  return Array.isArray(input) || isClipData(input);
}

/** Pictures for a model of pictures: one, or a list of them. */
export async function capturePictures(images: ImageInput | readonly ImageInput[], prepared: boolean): Promise<Inputs> {
  if (isClipData(images) || (Array.isArray(images) && images.some(isClip))) {
    throw new JepaError("bad-input", "This model embeds pictures, and was given a clip: give its frames as an array of pictures, or load a model of video.");
  }
  const list: readonly ImageInput[] | undefined = Array.isArray(images) ? images : undefined;
  if (list?.length === 0) throw new JepaError("bad-input", "There is no picture to embed: the array is empty.");
  const pictures = await captureAll(list ?? [images as ImageInput], (i) => (list && list.length > 1 ? i : undefined), prepared);
  return { pictures, frames: 1, listed: list !== undefined };
}

/** Clips for a model of video: one, a list of them, or a single picture, which is a clip of one frame. */
export async function captureClips(input: ImageInput | ClipInput | readonly ClipInput[], prepared: boolean): Promise<Inputs> {
  if (!isClip(input)) return { pictures: await captureAll([input as ImageInput], () => undefined, prepared), frames: 1, listed: false };
  const listed = Array.isArray(input) && input.length > 0 && input.some(isClip);
  if (!listed) return { ...(await captureList([input as ClipInput], () => undefined, prepared)), listed };
  const clips = input as readonly ClipInput[];
  return { ...(await captureList(clips, (i) => (clips.length > 1 ? i : undefined), prepared)), listed };
}

/** Clips of one length, frame after frame. */
export async function captureList(clips: readonly ClipInput[], number: Numbering, prepared: boolean): Promise<{ pictures: Picture[]; frames: number }> {
  const named = (i: number) => clipName(number(i));
  const lists = clips.map((clip, i) => framesOf(clip, named(i)));
  const frames = lists[0]!.length;
  const other = lists.findIndex(({ length }) => length !== frames);
  if (other >= 0) throw new JepaError("bad-input", `${named(other)} has ${lists[other]!.length} frames and ${named(0).toLowerCase()} has ${frames}: clips of one call are of one length.`);
  return { pictures: await captureAll(lists.flat(), nameFrames(number, frames), prepared), frames };
}

function clipName(number: ReturnType<Numbering>): string {
  return number === undefined ? "The clip" : `Clip ${number}`;
}

function nameFrames(number: Numbering, frames: number): Numbering {
  return (i) => `${clipName(number(Math.floor(i / frames)))}, frame ${i % frames}`;
}

/** What messages call the frames of clips, from what they call the clips; a clip of one frame is called a picture. */
export function frameNumbering(number: Numbering, frames: number): Numbering {
  return frames === 1 ? number : nameFrames(number, frames);
}

function framesOf(clip: ClipInput, name: string): readonly ImageInput[] {
  if (!isClip(clip)) throw new JepaError("bad-input", `${name} is no clip: give an array of frames, or { data, frames, height, width, channels }.`);
  const frames = isClipData(clip) ? cut(clip, name) : clip;
  if (frames.length === 0) throw new JepaError("bad-input", `${name} has no frames.`);
  return frames;
}

function cut({ data, frames, height, width, channels }: ClipData, name: string): PixelData[] {
  const whole = [frames, height, width].every((size) => Number.isInteger(size) && size > 0);
  const values = ArrayBuffer.isView(data) ? data.length : 0;
  if (!whole || values === 0 || ![1, 2, 3, 4].includes(values / (frames * height * width)) || (channels !== undefined && values !== frames * height * width * channels)) {
    throw new JepaError("bad-input", `${name} of ${frames} frames of ${width} × ${height} pixels${channels === undefined ? "" : ` and ${channels} channels`} does not have ${values} values.`);
  }
  const length = values / frames;
  return Array.from({ length: frames }, (_, i) => ({ data: data.subarray(i * length, (i + 1) * length), width, height, channels: length / (width * height) }));
}
