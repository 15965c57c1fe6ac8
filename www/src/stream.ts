// Frames as they come: from a video element, a camera or a stream, in windows that overlap.

import { JepaError, messageOf, throwIfAborted } from "./errors.js";
import { anObject, atLeast, checkFields, moreThan, type Rule } from "./options.js";
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

async function pixelsOf(frame: ImageInput, number: number, signal: AbortSignal | undefined): Promise<PixelData> {
  try {
    return await decode(await capture(frame), signal);
  } catch (error) {
    throw namePicture(error, `Frame ${number}`);
  }
}

/**
 * What {@link videoFrames} gave. Their ImageBitmaps are closed by whoever takes them: who hands the generator on has not seen what is
 * still to come from it, while frames that come through an iterator of the caller's may be in use there, and stay open.
 */
const made = new WeakSet<object>();

/** Closes a frame: memory that is not given back otherwise until garbage is collected, and frames of a camera are few, so that it stops until it has them again. */
function release(frame: ImageInput, source: FrameSource): void {
  const kind = Object.prototype.toString.call(frame);
  if (kind === "[object VideoFrame]" || (kind === "[object ImageBitmap]" && made.has(source))) (frame as VideoFrame | ImageBitmap).close();
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
    try {
      throwIfAborted(signal);
      if (seen++ % stride > 0) continue;
      held.push(await pixelsOf(frame, seen - 1, signal));
    } finally {
      release(frame, source);
    }
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
  /** Where to begin, in seconds. Default: an element's present position; the beginning of a file. Not for live sources. */
  start?: number | undefined;
  /** Where to end, in seconds. Default: the end. Not for live sources. */
  end?: number | undefined;
  /** With a file: what takes it apart for WebCodecs; the module `mediabunny`. Default: the browser's video element plays the file. */
  demuxer?: VideoDemuxer | undefined;
  /** Ends the frames. */
  signal?: AbortSignal | undefined;
}

/** What is used of the module `mediabunny`, which is no dependency of this library: whoever wants it installs it, and gives it. */
export interface VideoDemuxer {
  Input: new (options: { formats: never; source: never }) => DemuxedInput;
  ALL_FORMATS: unknown;
  BlobSource: new (blob: Blob) => unknown;
  UrlSource: new (url: string) => unknown;
  VideoSampleSink: new (track: never) => { samplesAtTimestamps(timestamps: Iterable<number>): AsyncGenerator<DemuxedSample | null, void, unknown> };
}

export interface DemuxedInput {
  canRead(): Promise<boolean>;
  getPrimaryVideoTrack(): Promise<DemuxedTrack | null>;
  dispose(): void;
}

export interface DemuxedTrack {
  canDecode(): Promise<boolean>;
  getCodec(): Promise<string | null>;
  getFirstTimestamp(): Promise<number>;
  computeDuration(): Promise<number>;
}

export interface DemuxedSample {
  readonly rotation: number;
  readonly flip: boolean;
  readonly displayWidth: number;
  readonly displayHeight: number;
  toVideoFrame(): VideoFrame;
  draw(context: OffscreenCanvasRenderingContext2D, x: number, y: number): void;
  close(): void;
}

/**
 * Frames of a video at even distances: of a file, address or video element with one by seeking; of a camera or another live source in
 * an element as they come, the newest whenever the next is asked for, until it ends.
 *
 * With `demuxer` a file is decoded by WebCodecs, where the browser has them: each frame once and in order, which is faster than seeking,
 * and works in workers. The frames are VideoFrames then.
 *
 * `embedStream` closes what it takes from this generator; who reads the frames otherwise closes each with `close()`.
 *
 * @throws {@link JepaError} `bad-input` when the video cannot be read or played, has no picture, comes from another site, or its camera is
 * switched off; `unsupported` for a codec that the browser does not decode; `aborted`
 *
 * @example
 * for await (const { data, first } of jepa.embedStream(videoFrames(file), { window: 16, hop: 8 })) show(first, data);
 *
 * @example
 * import * as mediabunny from "mediabunny";
 * const frames = videoFrames(file, { fps: 4, end: 60, demuxer: mediabunny });
 */
export function videoFrames(video: HTMLVideoElement, options?: VideoFramesOptions): AsyncGenerator<ImageBitmap, void, undefined>;
export function videoFrames(video: HTMLVideoElement | Blob | string | URL, options?: VideoFramesOptions): AsyncGenerator<ImageBitmap | VideoFrame, void, undefined>;
export function videoFrames(video: HTMLVideoElement | Blob | string | URL, options: VideoFramesOptions = {}): AsyncGenerator<ImageBitmap | VideoFrame, void, undefined> {
  const frames = framesOf(video, options);
  made.add(frames);
  return frames;
}

async function* framesOf(video: HTMLVideoElement | Blob | string | URL, options: VideoFramesOptions): AsyncGenerator<ImageBitmap | VideoFrame, void, undefined> {
  checkFields("", options, { fps: FPS, start: atLeast(0), end: moreThan(0), demuxer: anObject, signal: anObject });
  const { demuxer, signal } = options;
  throwIfAborted(signal);
  const isFile = video instanceof Blob || typeof video === "string" || video instanceof URL;
  if (isFile && demuxer && typeof VideoDecoder === "function") yield* decodedFrames(video, demuxer, options);
  else if (isFile) yield* playedFrames(video, options);
  else yield* elementFrames(video, options);
}

const FPS: Rule = { what: "a number of frames a second, at most 1000", allows: (value) => typeof value === "number" && value > 0 && value <= 1000 };

async function* elementFrames(video: HTMLVideoElement, { fps = 4, start, end, signal }: VideoFramesOptions): AsyncGenerator<ImageBitmap> {
  await until(video, () => video.readyState >= HTMLMediaElement.HAVE_CURRENT_DATA, ["loadeddata"], signal);
  if (!video.srcObject) yield* soughtFrames(video, { fps, start: start ?? video.currentTime, end }, signal);
  else if (start === undefined && end === undefined) yield* liveFrames(video, fps, signal);
  else throw new JepaError("bad-input", "The options start and end are for files: a live source begins now, and ends by the option signal.");
}

/** A file, in an element of its own. */
async function* playedFrames(file: Blob | string | URL, options: VideoFramesOptions): AsyncGenerator<ImageBitmap> {
  if (typeof document !== "object") throw new JepaError("unsupported", "Files of videos are read in a page, or in a worker that has WebCodecs with the option demuxer.");
  const video = document.createElement("video");
  const url = file instanceof Blob ? URL.createObjectURL(file) : undefined;
  Object.assign(video, { muted: true, crossOrigin: "anonymous", preload: "auto", src: url ?? String(file) });
  try {
    yield* elementFrames(video, options);
  } finally {
    video.removeAttribute("src");
    video.load();
    if (url) URL.revokeObjectURL(url);
  }
}

/** A file by WebCodecs. Asked for one frame at a time, the demuxer holds a few decoded ones. */
async function* decodedFrames(file: Blob | string | URL, { Input, ALL_FORMATS, BlobSource, UrlSource, VideoSampleSink }: VideoDemuxer, { fps = 4, start, end, signal }: VideoFramesOptions): AsyncGenerator<ImageBitmap | VideoFrame> {
  const source = file instanceof Blob ? new BlobSource(file) : new UrlSource(String(file));
  const input = new Input({ formats: ALL_FORMATS as never, source: source as never });
  const onAbort = () => input.dispose();
  signal?.addEventListener("abort", onAbort);
  try {
    if (!(await input.canRead())) throw new JepaError("bad-input", "The video cannot be read: it is damaged, or no kind of file that the demuxer knows.");
    const track = await input.getPrimaryVideoTrack();
    if (!track) throw new JepaError("bad-input", "The file has no video track.");
    if (!(await track.canDecode())) throw new JepaError("unsupported", `This browser does not decode the video's codec, ${(await track.getCodec()) ?? "which is unknown"}: convert it, to H.264 or VP9.`);
    const begin = Math.max(start ?? 0, await track.getFirstTimestamp());
    const last = Math.min(end ?? Infinity, await track.computeDuration());
    // As for an element: in the middle of a frame's time.
    const count = Math.max(0, Math.ceil((last - begin) * fps - 1e-6));
    const times = Array.from({ length: count }, (_, i) => Math.min(begin + (i + 0.5) / fps, last));
    for await (const sample of new VideoSampleSink(track as never).samplesAtTimestamps(times)) {
      throwIfAborted(signal);
      if (!sample) continue;
      try {
        yield sample.rotation === 0 && !sample.flip ? sample.toVideoFrame() : upright(sample);
      } finally {
        sample.close();
      }
    }
  } catch (error) {
    throwIfAborted(signal);
    if (error instanceof JepaError) throw error;
    throw new JepaError("bad-input", `The video cannot be decoded: ${messageOf(error)}`, { cause: error });
  } finally {
    signal?.removeEventListener("abort", onAbort);
    input.dispose();
  }
}

/** The picture of a frame that is stored turned, as phones do. */
function upright(sample: DemuxedSample): ImageBitmap {
  const canvas = new OffscreenCanvas(sample.displayWidth, sample.displayHeight);
  sample.draw(canvas.getContext("2d")!, 0, 0);
  return canvas.transferToImageBitmap();
}

/** How long a sought frame is waited for, in milliseconds, when the seek has ended: it may be the one that is shown already, or the page hidden. */
const SHOWN = 200;

async function* soughtFrames(video: HTMLVideoElement, { fps, start, end }: { fps: number; start: number; end: number | undefined }, signal: AbortSignal | undefined): AsyncGenerator<ImageBitmap> {
  video.pause();
  if (!Number.isFinite(video.duration)) {
    // What MediaRecorder wrote says how long it is once its end has been looked for.
    video.currentTime = Number.MAX_SAFE_INTEGER;
    await until(video, () => !video.seeking, ["seeked"], signal);
  }
  if (!Number.isFinite(video.duration)) throw new JepaError("bad-input", "The video does not say how long it is; play it, and read it as a live source.");
  const last = Math.min(end ?? Infinity, video.duration);
  let before = 0;
  for (let i = 0; start + i / fps < last; i++) {
    throwIfAborted(signal);
    // In the middle of a frame's time rather than at its edge, where rounding decides which frame is shown.
    const time = Math.min(start + (i + 0.5) / fps, last);
    if (video.currentTime !== time) {
      const shown = shownFrom(video, before);
      video.currentTime = time;
      // A busy browser can end a seek before it has the frame, and have the frame before it shows it.
      await until(video, () => !video.seeking && video.readyState >= video.HAVE_CURRENT_DATA, ["seeked", "loadeddata", "canplay"], signal);
      await Promise.race([shown.frame, new Promise((resolve) => setTimeout(resolve, SHOWN))]);
      shown.stop();
    }
    before = time;
    yield await bitmapOf(video);
  }
}

/** The first new frame of the video that begins at `time` or later, in seconds. */
function shownFrom(video: HTMLVideoElement, time: number): { frame: Promise<void>; stop(): void } {
  let waiting = 0;
  const frame = new Promise<void>((resolve) => {
    const look = () => {
      waiting = video.requestVideoFrameCallback((_, { mediaTime }) => (mediaTime >= time ? resolve() : look()));
    };
    look();
  });
  return { frame, stop: () => video.cancelVideoFrameCallback(waiting) };
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
