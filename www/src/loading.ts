// From the files of a checkpoint to a loader of the wasm module that has been given all of its bytes.

import { throwIfAborted } from "./errors.js";
import type { GlueLoadOptions, GlueModelLoader } from "./glue.js";
import type { Instance } from "./instance.js";
import type { Progress } from "./types.js";
import { readHeaders, streamWeights, type Checkpoint } from "./weights.js";

/** Between two messages about the same download, in milliseconds. */
const PROGRESS_INTERVAL = 50;

export type Report = (phase: Progress["phase"], done: number, file?: string, loaded?: number, total?: number) => void;

/** Progress of phases, of which some run side by side, as one number; not more often than anybody can see. `percent`: the part of each. */
export function progressReporter(onProgress: ((progress: Progress) => void) | undefined, percent: Partial<Record<Progress["phase"], number>>): Report {
  const done: Partial<Record<Progress["phase"], number>> = {};
  let last = -Infinity;
  return (phase, part, file = "", loaded = 0, total = 0) => {
    done[phase] = part;
    const now = performance.now();
    if (loaded < total && now - last < PROGRESS_INTERVAL) return;
    last = now;
    let overall = 0;
    for (const name of Object.keys(percent) as Progress["phase"][]) overall += percent[name]! * (done[name] ?? 0);
    onProgress?.({ phase, file, loaded, total, fromCache: false, overall: overall / 100 });
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
  let streamed = false;
  try {
    const readers = await instance.run(() => readHeaders(instance.glue, loader, weights, signal));
    await instance.run(() => streamWeights(loader, readers, (file, loaded, total, done) => report("download", done, file, loaded, total)));
    throwIfAborted(signal);
    streamed = true;
    return await instance.run(() => finish(loader));
  } finally {
    if (!streamed && !instance.lost) loader.free();
  }
}
