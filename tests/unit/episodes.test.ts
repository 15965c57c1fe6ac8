// Recordings as a file: what is read is what was written, and other bytes are refused.

import { describe, expect, it } from "vitest";
import { collectEpisodes, loadEpisodes, saveEpisodes, twoRooms, uniformPolicy, windowsOf } from "../../www/src/index.js";

const failure = (promise: Promise<unknown>) => promise.then(() => expect.unreachable("it should have failed"), (error) => error);
const recorded = (episodes = 2) => collectEpisodes(twoRooms({ size: 16 }), uniformPolicy([-1, -1], [1, 1]), { episodes, steps: 3, seed: 2 });

describe("saved episodes", () => {
  it("are what was recorded", async () => {
    const episodes = await recorded();
    const file = await saveEpisodes(episodes);
    for (const source of [file, file.buffer, new Blob([file])]) expect(await loadEpisodes(source)).toEqual(episodes);
    expect(windowsOf(await loadEpisodes(file), { history: 2 }).get(1)).toEqual(windowsOf(episodes, { history: 2 }).get(1));
    // The tensors that every version of the format has, and those that episodes of environments have beside them.
    const header = JSON.parse(new TextDecoder().decode(file.subarray(8, 8 + Number(new DataView(file.buffer).getBigUint64(0, true)))));
    expect(Object.keys(header).sort()).toEqual(["__metadata__", "actions", "ends", "frames", "lengths", "rewards", "states"]);
    expect(header.frames.shape).toEqual([8, 16, 16, 3]);
  });

  it("need no more than frames and actions, which may be of any kind of picture", async () => {
    const grey = { data: Float32Array.of(0, 0.5, 1, 0.25), width: 2, height: 2, channels: 1 };
    const clear = { data: Uint8Array.from({ length: 16 }, (_, i) => 10 * i), width: 2, height: 2, channels: 4 };
    const [episode] = await loadEpisodes(await saveEpisodes([{ frames: [grey, clear], actions: [[0.5, NaN]] }]));
    expect(episode!.frames.map((frame) => [...(frame as { data: Uint8Array }).data])).toEqual([
      [0, 0, 0, 128, 128, 128, 255, 255, 255, 64, 64, 64],
      [0, 10, 20, 40, 50, 60, 80, 90, 100, 120, 130, 140],
    ]);
    expect(episode).toMatchObject({ actions: [Float32Array.of(0.5, NaN)], rewards: [0], terminated: false, truncated: true });
    expect(episode!.states).toBeUndefined();
  });

  it("say what is wrong", async () => {
    const episodes = await recorded();
    const [first, second] = episodes as [(typeof episodes)[0], (typeof episodes)[0]];
    const wide = { data: new Uint8Array(6), width: 2, height: 1, channels: 3 };
    for (const [attempt, code, message] of [
      [() => saveEpisodes([]), "bad-input", /no episode/],
      [() => saveEpisodes([{ frames: first.frames, actions: [] }]), "bad-input", /Episode 0 has no action/],
      [() => saveEpisodes([{ frames: [wide, wide], actions: [[1]] }]), "bad-input", /Frame 0 of episode 0.*square/],
      [() => saveEpisodes([first, { ...second, actions: [[1], [2], [3]] }]), "bad-input", /Action 0 of episode 1 has 1 numbers, not 2/],
      [() => saveEpisodes([first, { ...second, rewards: [1] }]), "bad-input", /reward/],
      [() => saveEpisodes([first, { ...second, states: undefined }]), "bad-input", /state/],
      [() => saveEpisodes([{ ...first, frames: first.frames.slice(1) }]), "bad-input", /one picture/],
      [() => loadEpisodes(new Uint8Array(9)), "bad-checkpoint", /./],
      [async () => loadEpisodes((await saveEpisodes(episodes)).slice(0, -1)), "bad-checkpoint", /./],
    ] as [() => Promise<unknown>, string, RegExp][]) {
      expect(await failure(attempt())).toMatchObject({ name: "JepaError", code, message: expect.stringMatching(message) });
    }
  });
});
