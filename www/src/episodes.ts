// Recorded episodes as a file: the same that the command line writes and reads.

import { callCore } from "./core.js";
import type { EpisodeRecord } from "./environments.js";
import { JepaError } from "./errors.js";
import { captureAll, decode, namePicture, type PixelData } from "./inputs.js";
import { sized, type Trajectory } from "./trajectories.js";
import { joined } from "./world.js";
import { valuesOf, type Vector } from "./math.js";

/** What the wasm module exports. */
interface GlueReplay {
  /** `end`: whether it was terminated and truncated; undefined where that is not known. */
  push(frames: Uint8Array, actions: Float32Array, states: Float32Array, rewards: Float32Array, end: Uint8Array | undefined): void;
  save(): Uint8Array<ArrayBuffer>;
  readonly side: number;
  readonly action: number;
  readonly state: number;
  readonly length: number;
  frames(episode: number): Uint8Array<ArrayBuffer>;
  actions(episode: number): Float32Array<ArrayBuffer>;
  states(episode: number): Float32Array<ArrayBuffer>;
  rewards(episode: number): Float32Array<ArrayBuffer>;
  end(episode: number): Uint8Array | undefined;
  free(): void;
}
interface GlueReplays {
  Replay: { new (side: number, action: number): GlueReplay; load(file: Uint8Array): GlueReplay };
}

/**
 * Episodes as a file, which {@link loadEpisodes} and `webjepa world --replay` read: pictures as bytes, actions, and states, rewards and how
 * they ended where all episodes have them.
 *
 * @throws {@link JepaError} `bad-input` for no episode, for pictures that are not square or of another size than the first, and for
 * episodes that do not fit each other; those of reading pictures
 */
export async function saveEpisodes(episodes: readonly (Trajectory | EpisodeRecord)[]): Promise<Uint8Array<ArrayBuffer>> {
  if (!Array.isArray(episodes) || episodes.length === 0) throw new JepaError("bad-input", "There is no episode to save: give an array of them.");
  let replay: GlueReplay | undefined;
  try {
    for (const [n, episode] of (episodes as readonly (Trajectory & Partial<EpisodeRecord>)[]).entries()) {
      const { frames, actions, states = [], rewards = [], terminated, truncated } = episode;
      const pictures = await bytesOf(Array.from(frames), n);
      const first = actions[0] && valuesOf(actions[0]).length;
      if (!first) throw new JepaError("bad-input", `Episode ${n} has no action.`);
      replay ??= callCore((glue: GlueReplays) => new glue.Replay(pictures.side, first));
      const own = replay;
      if (pictures.side !== own.side) throw new JepaError("bad-input", `Episode ${n} has pictures of ${pictures.side} pixels on a side, and the first one of ${own.side}.`);
      const all = (list: readonly Vector[], size: number, what: string) => joined(list.map((values, i) => sized(values, size, `${what} ${i} of episode ${n}`)));
      const end = terminated === undefined || truncated === undefined ? undefined : Uint8Array.of(Number(terminated), Number(truncated));
      const told = all(states, states[0] ? valuesOf(states[0]).length : 0, "State");
      callCore(() => own.push(pictures.data, all(actions, own.action, "Action"), told, Float32Array.from(rewards), end));
    }
    return callCore(() => replay!.save());
  } finally {
    if (replay) callCore(() => replay!.free());
  }
}

/**
 * Episodes of such a file. Where it does not say how they ended, they count as truncated; rewards that it has not are 0.
 *
 * @throws {@link JepaError} `bad-checkpoint` for other bytes, `unsupported` for another version of the format
 */
export async function loadEpisodes(file: Uint8Array | ArrayBuffer | Blob): Promise<EpisodeRecord[]> {
  const bytes = file instanceof Uint8Array ? file : new Uint8Array(file instanceof ArrayBuffer ? file : await file.arrayBuffer());
  const replay = callCore((glue: GlueReplays) => glue.Replay.load(bytes));
  try {
    const { side, action, state, length } = replay;
    return Array.from({ length }, (_, n) => {
      const frames = split(callCore(() => replay.frames(n)), 3 * side * side).map((data): PixelData => ({ data, width: side, height: side, channels: 3 }));
      const actions = split(callCore(() => replay.actions(n)), action);
      const states = state > 0 ? { states: split(callCore(() => replay.states(n)), state) } : {};
      const rewards = [...callCore(() => replay.rewards(n))];
      const [terminated, truncated] = callCore(() => replay.end(n)) ?? [0, 1];
      return { frames, actions, ...states, rewards: rewards.length > 0 ? rewards : actions.map(() => 0), terminated: terminated === 1, truncated: truncated === 1 };
    });
  } finally {
    callCore(() => replay.free());
  }
}

function split<T extends Uint8Array | Float32Array>(all: T, size: number): T[] {
  return Array.from({ length: all.length / size }, (_, i) => all.slice(i * size, (i + 1) * size) as T);
}

/** Square pictures of one size as RGB, one after the other. */
async function bytesOf(images: Trajectory["frames"][number][], episode: number): Promise<{ data: Uint8Array; side: number }> {
  const name = (i: number) => `Frame ${i} of episode ${episode}`;
  const captured = await captureAll(images, name);
  let [side, data] = [0, new Uint8Array()];
  for (const [i, picture] of captured.entries()) {
    try {
      const { data: values, width, height, channels } = await decode(picture, undefined);
      if (i === 0) [side, data] = [width, new Uint8Array(images.length * 3 * width * width)];
      if (width !== height || width !== side) throw new JepaError("bad-input", `A recording has square pictures of one size, not one of ${width} × ${height}.`);
      const scale = values instanceof Float32Array ? 255 : 1;
      const grey = channels < 3;
      for (let at = 0; at < width * height * 3; at++) {
        const sample = values[Math.floor(at / 3) * channels + (grey ? 0 : at % 3)]!;
        data[i * 3 * width * height + at] = Math.round(scale * sample);
      }
    } catch (error) {
      throw namePicture(error, name(i));
    }
  }
  return { data, side };
}
