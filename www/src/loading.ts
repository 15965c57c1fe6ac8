// From the files of a checkpoint to a loader of the wasm module that has been given all of its bytes.

import { throwIfAborted, toJepaError, type JepaErrorCode } from "./errors.js";
import type { Reader } from "./files.js";
import type { GlueLoadOptions, GlueModelLoader } from "./glue.js";
import type { Instance } from "./instance.js";
import type { Progress } from "./types.js";
import { readHeaders, streamWeights, type Checkpoint } from "./weights.js";

/** Between two messages about the same download, in milliseconds. */
const PROGRESS_INTERVAL = 50;

export type Report = (phase: Progress["phase"], done: number, file?: string, loaded?: number, total?: number, fromCache?: boolean) => void;

/** Progress of phases, of which some run side by side, as one number; not more often than anybody can see. `percent`: the part of each. */
export function progressReporter(onProgress: ((progress: Progress) => void) | undefined, percent: Partial<Record<Progress["phase"], number>>): Report {
  const done: Partial<Record<Progress["phase"], number>> = {};
  let last = -Infinity;
  return (phase, part, file = "", loaded = 0, total = 0, fromCache = false) => {
    done[phase] = part;
    const now = performance.now();
    if (loaded < total && now - last < PROGRESS_INTERVAL) return;
    last = now;
    let overall = 0;
    for (const name of Object.keys(percent) as Progress["phase"][]) overall += percent[name]! * (done[name] ?? 0);
    onProgress?.({ phase, file, loaded, total, fromCache, overall: overall / 100 });
  };
}

/** What `finish` makes of the loader, which it consumes. */
export async function fromCheckpoint<T>(
  instance: Instance,
  { config, preprocessor, weights }: Checkpoint,
  options: Omit<GlueLoadOptions, "config" | "preprocessor">,
  finish: (loader: GlueModelLoader) => Promise<T>,
  report: Report,
  signal: AbortSignal,
): Promise<T> {
  const loader = instance.call(
    () => new instance.glue.ModelLoader({ ...options, ...(config === undefined ? {} : { config }), ...(preprocessor === undefined ? {} : { preprocessor }) }),
  );
  const readers = new Map<string, Reader>();
  let streamed = false;
  try {
    await instance.run(() => readHeaders(instance.glue, loader, weights, readers, signal));
    await instance.run(() => streamWeights(loader, readers, (file, loaded, total, done, fromCache) => report("download", done, file, loaded, total, fromCache)));
    throwIfAborted(signal);
    streamed = true;
    return await instance.run(() => finish(loader));
  } catch (error) {
    // That a file is another one than expected explains more than what is wrong with it.
    if (isOfFiles(error)) for (const reader of readers.values()) await reader.verify();
    throw error;
  } finally {
    for (const reader of readers.values()) reader.close();
    if (!streamed && !instance.lost) loader.free();
  }
}

const OF_FILES: readonly JepaErrorCode[] = ["bad-config", "bad-checkpoint", "missing-tensor", "shape-mismatch", "integrity"];

/** Whether a load failed for what its files contain. */
export function isOfFiles(error: unknown): boolean {
  return OF_FILES.includes(toJepaError(error).code);
}
