// Frames as they come: from a video element, a camera or a stream, in windows that overlap.

import { JepaError, messageOf, throwIfAborted } from "./errors.js";
import { capture, decode, namePicture, type ImageInput, type PixelData } from "./inputs.js";

/** Frames in order: an array, anything that can be iterated, or a stream, such as that of a MediaStreamTrackProcessor. */
export type FrameSource = Iterable<ImageInput> | AsyncIterable<ImageInput> | ReadableStream<ImageInput>;

export interface WindowOptions {
  /** Frames of a window. */
  window: number;
  /** Frames from the beginning of a window to that of the next. */
  hop: number;
  /** Takes every so manieth frame. */
  stride: number;
  /** The last window, where frames have run out, is cut to a multiple of this. */
  tubelet: number;
  signal: AbortSignal | undefined;
}

/** Some frames in a row, and where they come from. */
export interface Window {
  frames: PixelData[];
  /** Numbers of the first and the last of them among those that were taken. */
  first: number;
  last: number;
}

async function* iterated(source: FrameSource): AsyncGenerator<ImageInput> {
  if (typeof source !== "object" || source === null || !(Symbol.asyncIterator in source || Symbol.iterator in source || "getReader" in source)) {
    throw new JepaError("bad-input", "Frames come from an array, an iterator or a ReadableStream of pictures.");
  }
  if (Symbol.asyncIterator in source || Symbol.iterator in source) {
    yield* source as AsyncIterable<ImageInput>;
    return;
  }
  // Not every browser can iterate a stream.
  const reader = (source as ReadableStream<ImageInput>).getReader();
  try {
    for (let read = await reader.read(); !read.done; read = await reader.read()) yield read.value;
  } finally {
    await reader.cancel().catch(() => {});
  }
}

/** Pixels of a frame, which is closed if it can be: frames of a camera are few, and it stops until they are given back. */
async function pixelsOf(frame: ImageInput, number: number, signal: AbortSignal | undefined): Promise<PixelData> {
  try {
    return await decode(await capture(frame), signal);
  } catch (error) {
    throw namePicture(error, `Frame ${number}`);
  } finally {
    release(frame);
  }
}

/** Gives a frame of a camera back. */
function release(frame: ImageInput): void {
  if (Object.prototype.toString.call(frame) === "[object VideoFrame]") (frame as VideoFrame).close();
}

/**
 * Windows of frames. The next frame is asked for when the next window is, so that a source is never ahead of who reads; one window of
 * frames is held. The last window ends with the last frame, and so may overlap more; it is shorter only where all frames are fewer.
 */
export async function* windowed(source: FrameSource, { window, hop, stride, tubelet, signal }: WindowOptions): AsyncGenerator<Window, void, undefined> {
  let held: PixelData[] = [];
  let taken = 0;
  let seen = 0;
  let next = window;
  let given = 0;
  for await (const frame of iterated(source)) {
    throwIfAborted(signal);
    if (seen++ % stride > 0) {
      release(frame);
      continue;
    }
    held.push(await pixelsOf(frame, seen - 1, signal));
    taken++;
    if (held.length > window) held = held.slice(-window);
    if (taken === next) {
      yield { frames: [...held], first: taken - window, last: taken - 1 };
      given = taken;
      next += hop;
    }
  }
  throwIfAborted(signal);
  if (taken === given) {
    if (taken === 0) throw new JepaError("bad-input", "There are no frames.");
    return;
  }
  const count = held.length < window && held.length > 1 ? Math.max(Math.floor(held.length / tubelet) * tubelet, 1) : held.length;
  yield { frames: held.slice(-count), first: taken - count, last: taken - 1 };
}

export interface VideoFramesOptions {
  /** Frames a second of the video's time. Default 4, with which V-JEPA 2 was trained. */
  fps?: number | undefined;
  /** Ends the frames. */
  signal?: AbortSignal | undefined;
}

/**
 * Frames of a video element at even distances: of a file or address by seeking, from the present position to the end; of a camera or
 * another live source as they come, the newest whenever the next is asked for, until it ends.
 *
 * @throws {@link JepaError} `bad-input` when the video cannot be played, comes from another site, or its camera is switched off;
 * `aborted`
 *
 * @example
 * for await (const { data, first } of jepa.embedStream(videoFrames(video), { window: 16, hop: 8 })) show(first, data);
 */
export async function* videoFrames(video: HTMLVideoElement, options: VideoFramesOptions = {}): AsyncGenerator<ImageBitmap, void, undefined> {
  const { fps = 4, signal } = options;
  if (!(fps > 0 && fps <= 1000)) throw new JepaError("bad-input", `The option fps is a number of frames a second, not ${fps}.`);
  await until(video, () => video.readyState >= HTMLMediaElement.HAVE_CURRENT_DATA, ["loadeddata"], signal);
  if (video.srcObject) yield* liveFrames(video, fps, signal);
  else yield* soughtFrames(video, fps, signal);
}

async function* soughtFrames(video: HTMLVideoElement, fps: number, signal: AbortSignal | undefined): AsyncGenerator<ImageBitmap> {
  const start = video.currentTime;
  if (!Number.isFinite(video.duration)) throw new JepaError("bad-input", "The video does not say how long it is; play it, and read it as a live source.");
  video.pause();
  for (let i = 0; start + i / fps < video.duration; i++) {
    throwIfAborted(signal);
    // In the middle of a frame's time rather than at its edge, where rounding decides which frame is shown.
    const time = Math.min(start + (i + 0.5) / fps, video.duration);
    if (video.currentTime !== time) {
      video.currentTime = time;
      await until(video, () => !video.seeking, ["seeked"], signal);
    }
    yield await bitmapOf(video);
  }
}

async function* liveFrames(video: HTMLVideoElement, fps: number, signal: AbortSignal | undefined): AsyncGenerator<ImageBitmap> {
  const { srcObject } = video;
  const tracks = srcObject instanceof MediaStream ? srcObject.getVideoTracks() : [];
  let due = -Infinity;
  for (;;) {
    throwIfAborted(signal);
    if (tracks.length > 0 && tracks.every(({ readyState }) => readyState === "ended")) throw new JepaError("bad-input", "The camera has ended: it was switched off or unplugged.");
    if (video.ended) return;
    await new Promise<void>((resolve) => {
      // A camera that stops gives no frame any more; then the checks above find out.
      const timer = setTimeout(resolve, 1000);
      video.requestVideoFrameCallback(() => {
        clearTimeout(timer);
        resolve();
      });
    });
    if (performance.now() < due) continue;
    due = performance.now() + 1000 / fps - 5;
    yield await bitmapOf(video);
  }
}

async function bitmapOf(video: HTMLVideoElement): Promise<ImageBitmap> {
  try {
    return await createImageBitmap(video);
  } catch (error) {
    throw new JepaError("bad-input", `The frame at ${video.currentTime.toFixed(2)} s cannot be read: ${messageOf(error)}`, { cause: error });
  }
}

/** Waits for an event after which `done` holds, or for the video's failure. */
async function until(video: HTMLVideoElement, done: () => boolean, events: readonly string[], signal: AbortSignal | undefined): Promise<void> {
  const failed = () => new JepaError("bad-input", `The video cannot be played: ${video.error?.message || "it is damaged, or no kind of video that this browser knows"}.`, { cause: video.error });
  if (video.error) throw failed();
  if (done()) return;
  const listening = new AbortController();
  try {
    await new Promise<void>((resolve, reject) => {
      const options = { signal: listening.signal };
      for (const event of events) video.addEventListener(event, () => done() && resolve(), options);
      video.addEventListener("error", () => reject(failed()), options);
      signal?.addEventListener("abort", () => resolve(), options);
    });
  } finally {
    listening.abort();
  }
  throwIfAborted(signal);
}
