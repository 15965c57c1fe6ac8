// Recorded episodes as a file: the same that the command line writes and reads.

import type { EpisodeRecord } from "./environments.js";
import { JepaError } from "./errors.js";
import type { Glue, GlueReplay } from "./glue.js";
import { captureAll, decode, namePicture, type PixelData } from "./inputs.js";
import { Instance } from "./instance.js";
import { valuesOf, type Vector } from "./math.js";
import { sized, type Trajectory } from "./trajectories.js";
import { joined } from "./world.js";

/**
 * Episodes as a file, which {@link loadEpisodes} and `webjepa world --replay` read: pictures as bytes, actions, and states, rewards and how
 * they ended where all episodes have them. The module for the CPU does this, which is fetched where it has not been.
 *
 * @throws {@link JepaError} `bad-input` for no episode, for pictures that are not square or of another size than the first, and for
 * episodes that do not fit each other; those of reading pictures
 */
export async function saveEpisodes(episodes: readonly (Trajectory | EpisodeRecord)[]): Promise<Uint8Array<ArrayBuffer>> {
  if (!Array.isArray(episodes) || episodes.length === 0) throw new JepaError("bad-input", "There is no episode to save: give an array of them.");
  const taken: { frames: { data: Uint8Array; side: number }; action: number; episode: Trajectory & Partial<EpisodeRecord> }[] = [];
  for (const [n, episode] of (episodes as readonly (Trajectory & Partial<EpisodeRecord>)[]).entries()) {
    const frames = await bytesOf(Array.from(episode.frames), n);
    const action = episode.actions[0] && valuesOf(episode.actions[0]).length;
    if (!action) throw new JepaError("bad-input", `Episode ${n} has no action.`);
    taken.push({ frames, action, episode });
  }
  const [{ frames: { side }, action }] = taken as [(typeof taken)[0]];
  const filled = (replay: GlueReplay) => {
    for (const [n, { frames, episode }] of taken.entries()) {
      const { actions, states = [], rewards = [], terminated, truncated } = episode;
      if (frames.side !== side) throw new JepaError("bad-input", `Episode ${n} has pictures of ${frames.side} pixels on a side, and the first one of ${side}.`);
      const all = (list: readonly Vector[], size: number, what: string) => joined(list.map((values, i) => sized(values, size, `${what} ${i} of episode ${n}`)));
      const end = terminated === undefined || truncated === undefined ? undefined : Uint8Array.of(Number(terminated), Number(truncated));
      const told = all(states, states[0] ? valuesOf(states[0]).length : 0, "State");
      replay.push(frames.data, all(actions, action, "Action"), told, Float32Array.from(rewards), end);
    }
    return replay.save();
  };
  return within((glue) => new glue.Replay(side, action), filled);
}

/**
 * Episodes of such a file. Where it does not say how they ended, they count as truncated; rewards that it has not are 0.
 *
 * @throws {@link JepaError} `bad-checkpoint` for other bytes, `unsupported` for another version of the format
 */
export async function loadEpisodes(file: Uint8Array | ArrayBuffer | Blob): Promise<EpisodeRecord[]> {
  const bytes = file instanceof Uint8Array ? file : new Uint8Array(file instanceof ArrayBuffer ? file : await file.arrayBuffer());
  return within((glue) => glue.Replay.load(bytes), (replay) => Array.from({ length: replay.length }, (_, n) => recorded(replay, n)));
}

/** Episode `n` of recordings. */
function recorded(replay: GlueReplay, n: number): EpisodeRecord {
  const { side, action, state } = replay;
  const frames = split(replay.frames(n), 3 * side * side).map((data): PixelData => ({ data, width: side, height: side, channels: 3 }));
  const actions = split(replay.actions(n), action);
  const states = state > 0 ? { states: split(replay.states(n), state) } : {};
  const rewards = [...replay.rewards(n)];
  const [terminated, truncated] = replay.end(n) ?? [0, 1];
  return { frames, actions, ...states, rewards: rewards.length > 0 ? rewards : actions.map(() => 0), terminated: terminated === 1, truncated: truncated === 1 };
}

/** Has something done with recordings in the module for the CPU, which has the reader and writer of such files and is fetched for this alone. */
async function within<T>(make: (glue: Glue) => GlueReplay, use: (replay: GlueReplay) => T): Promise<T> {
  // A loss shows in the call itself, which is all that it is used for.
  const user = () => {};
  const instance = await Instance.open("cpu", user);
  try {
    const replay = instance.call(() => make(instance.glue));
    try {
      return instance.call(() => use(replay));
    } finally {
      if (!instance.lost) replay.free();
    }
  } finally {
    instance.release(user);
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
