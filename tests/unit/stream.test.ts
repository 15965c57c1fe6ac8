import { describe, expect, it } from "vitest";
import { windowed, type FrameSource, type Window, type WindowOptions } from "../../www/src/stream.js";
import type { PixelData } from "../../www/src/index.js";

const frame = (value: number): PixelData => ({ data: Uint8Array.of(value, value, value), width: 1, height: 1, channels: 3 });
const frames = (count: number) => Array.from({ length: count }, (_, i) => frame(i));
const OPTIONS: WindowOptions = { window: 4, hop: 2, stride: 1, tubelet: 2, signal: undefined };
const numbers = ({ frames, first, last }: Window) => [first, last, frames.map(({ data }) => data[0])];

async function all(source: FrameSource, options: Partial<WindowOptions> = {}): Promise<ReturnType<typeof numbers>[]> {
  const windows = [];
  for await (const window of windowed(source, { ...OPTIONS, ...options })) windows.push(numbers(window));
  return windows;
}

describe("windows of frames", () => {
  it("overlap, and the last ends with the last frame", async () => {
    expect(await all(frames(9))).toEqual([
      [0, 3, [0, 1, 2, 3]],
      [2, 5, [2, 3, 4, 5]],
      [4, 7, [4, 5, 6, 7]],
      [5, 8, [5, 6, 7, 8]],
    ]);
    expect(await all(frames(8), { hop: 4 })).toEqual([[0, 3, [0, 1, 2, 3]], [4, 7, [4, 5, 6, 7]]]);
    expect(await all(frames(11), { window: 2, hop: 4, stride: 2 })).toEqual([[0, 1, [0, 2]], [4, 5, [8, 10]]]);
  });

  it("are shorter only where all frames are fewer, and then fill tubelets", async () => {
    expect(await all(frames(3))).toEqual([[1, 2, [1, 2]]]);
    expect(await all(frames(1))).toEqual([[0, 0, [0]]]);
    await expect(all([])).rejects.toMatchObject({ code: "bad-input", message: "There are no frames." });
  });

  it("come from iterators and streams, which are asked for no more than is read, and are ended", async () => {
    let asked = 0;
    let ended = false;
    async function* endless() {
      try {
        for (;;) yield frame(asked++ % 250);
      } finally {
        ended = true;
      }
    }
    for await (const window of windowed(endless(), OPTIONS)) {
      expect(asked).toBe(window.last + 1);
      if (window.first === 6) break;
    }
    expect([asked, ended]).toEqual([10, true]);

    let cancelled = false;
    const stream = new ReadableStream<PixelData>({
      pull: (controller) => controller.enqueue(frame(7)),
      cancel: () => void (cancelled = true),
    });
    // As in browsers whose streams cannot be iterated.
    const bare = { getReader: () => stream.getReader() } as unknown as ReadableStream<PixelData>;
    for await (const window of windowed(bare, OPTIONS)) if (window.first === 2) break;
    expect(cancelled).toBe(true);
  });

  it("say which frame cannot be read, and stop when they are told to", async () => {
    await expect(all([frame(1), { ...frame(2), width: 7 }])).rejects.toMatchObject({ code: "bad-input", message: expect.stringContaining("Frame 1") });
    await expect(all(7 as never)).rejects.toMatchObject({ code: "bad-input" });
    await expect(all(frames(9), { signal: AbortSignal.abort() })).rejects.toMatchObject({ code: "aborted" });
  });
});
