import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Jepa, JepaError, type LossListeners, type ImageInput } from "../../www/src/index.js";
import { CONFIG, coded, fake, hashOf, resetFake, safetensors } from "./fake-glue.js";

vi.mock("../../www/src/glue.js", async () => (await import("./fake-glue.js")).mockGlue());

const SIZES = { weight: 100 };
const SOURCE = { "config.json": CONFIG, "model.safetensors": safetensors(SIZES) };
const HASH = hashOf(SIZES);

const load = (listeners: LossListeners = {}) => Jepa.load(SOURCE, { backend: "cpu", ...listeners });
const flat = (value: number, width = 1, height = 1): ImageInput => ({ data: new Uint8Array(width * height * 3).fill(value), width, height, channels: 3 });
const failure = (promise: Promise<unknown>) => promise.then(() => expect.unreachable("the call should have failed"), (error) => error);
/** A promise and its resolution. */
function gate(): { promise: Promise<void>; open: () => void } {
  let open!: () => void;
  return { promise: new Promise<void>((resolve) => (open = resolve)), open };
}

beforeEach(resetFake);
afterEach(() => expect([...fake.alive]).toEqual([]));

describe("a loaded model", () => {
  it("says what it is", async () => {
    await using jepa = await load();
    expect(jepa.backend).toBe("cpu");
    expect(jepa.dtype).toBe("f32");
    expect(jepa.grid).toEqual([1, 2, 2]);
    expect(jepa.config).toMatchObject({ imageSize: 32, patchSize: 16 });
    expect(jepa.fallbackReason).toBeUndefined();
  });

  it("says why it runs on the CPU", async () => {
    await using jepa = await Jepa.load(SOURCE);
    expect(jepa.backend).toBe("cpu");
    expect(jepa.fallbackReason).toMatch(/WebGPU/);
  });

  it("is not made where WebGPU is asked for and absent", async () => {
    expect(await failure(Jepa.load(SOURCE, { backend: "webgpu" }))).toMatchObject({ name: "JepaError", code: "no-webgpu" });
  });

  it("shares the module of the thread with others, and gives it back with the last", async () => {
    const [a, b] = await Promise.all([load(), load()]);
    const resets = fake.resets;
    await a!.dispose();
    expect((await b!.embed(flat(1))).data[0]).toBe(HASH);
    expect(fake.resets).toBe(resets);
    await b!.dispose();
    expect(fake.resets).toBe(resets + 1);
  });
});

describe("embed", () => {
  it("gives [D] for one pooled picture, and a leading B for an array", async () => {
    await using jepa = await load();
    expect(await jepa.embed(flat(7, 3, 2))).toEqual({ data: Float32Array.of(HASH, 7, 3, 2), shape: [4], grid: [1, 2, 2] });
    expect(await jepa.embed([flat(7, 3, 2)])).toMatchObject({ shape: [1, 4] });
    const two = await jepa.embed([flat(7), flat(9, 5)]);
    expect(two).toEqual({ data: Float32Array.of(HASH, 7, 1, 1, HASH, 9, 5, 1), shape: [2, 4], grid: [1, 2, 2] });
  });

  it("gives [N, D] without pooling", async () => {
    await using jepa = await load();
    expect((await jepa.embed(flat(7), { pool: "none" })).shape).toEqual([4, 4]);
    expect((await jepa.embed([flat(7), flat(8)], { pool: "none" })).shape).toEqual([2, 4, 4]);
  });

  it("resizes to other sizes", async () => {
    await using jepa = await load();
    expect(await jepa.embed(flat(7), { pool: "none", imageSize: 64 })).toMatchObject({ shape: [16, 4], grid: [1, 4, 4] });
    expect(await jepa.embed(flat(7), { pool: "none", imageSize: [48, 16] })).toMatchObject({ shape: [3, 4], grid: [1, 3, 1] });
  });

  it("takes prepared pictures at the size that they have", async () => {
    await using jepa = await load();
    const data = new Float32Array(48 * 32 * 3).fill(-2);
    expect(await jepa.embed({ data, width: 48, height: 32, channels: 3 }, { preprocess: false })).toMatchObject({
      data: Float32Array.of(HASH, -2, 48, 32),
      grid: [1, 2, 3],
    });
  });

  it("goes through many pictures one by one on the CPU", async () => {
    await using jepa = await load();
    await jepa.embed([flat(1), flat(2), flat(3)]);
    expect(fake.batches).toEqual([1, 1, 1]);
  });

  it("goes through many pictures in batches on WebGPU", async () => {
    fake.backend = "webgpu";
    await using jepa = await load();
    // 64 × 64 pixels are 16 tokens, of which 16 · 196 go at once.
    const { shape, data } = await jepa.embed(Array.from({ length: 400 }, (_, i) => flat(i % 256)), { imageSize: 64 });
    expect(fake.batches).toEqual([196, 196, 8]);
    expect(shape).toEqual([400, 4]);
    expect([data[1], data[4 * 255 + 1], data[4 * 399 + 1]]).toEqual([0, 255, 143]);
  });

  it("takes pictures as they are when it is called", async () => {
    await using jepa = await load();
    const { promise, open } = gate();
    fake.faults.embed = () => promise;
    const first = jepa.embed(flat(1));
    const data = new Uint8Array([5, 5, 5]);
    const second = jepa.embed({ data, width: 1, height: 1, channels: 3 });
    data.fill(77);
    open();
    await first;
    expect((await second).data[1]).toBe(5);
  });

  it("answers in the order of the calls, one at a time", async () => {
    await using jepa = await load();
    let running = 0;
    fake.faults.embed = async () => {
      expect(++running).toBe(1);
      await new Promise((resolve) => setTimeout(resolve, 5));
      running--;
    };
    const order: number[] = [];
    await Promise.all([1, 2, 3, 4].map(async (i) => order.push((await jepa.embed(flat(i))).data[1]!)));
    expect(order).toEqual([1, 2, 3, 4]);
  });

  it.each([
    ["an empty array", [], {}],
    ["no picture", undefined, {}],
    ["an unknown pool", flat(1), { pool: "max" }],
    ["a size that is no size", flat(1), { imageSize: 0 }],
    ["a size with three sides", flat(1), { imageSize: [16, 16, 3] }],
    ["a size that is no multiple of the patch", flat(1), { imageSize: 30 }],
    ["bytes as a prepared picture", flat(1, 32, 32), { preprocess: false }],
  ])("refuses %s, and then still works", async (_, image, options) => {
    await using jepa = await load();
    const resets = fake.resets;
    expect(await failure(jepa.embed(image as ImageInput, options as object))).toMatchObject({ name: "JepaError", code: "bad-input" });
    expect((await jepa.embed(flat(3))).data[1]).toBe(3);
    expect(fake.resets).toBe(resets);
  });

  it("says which of several pictures is bad", async () => {
    await using jepa = await load();
    const atCapture = await failure(jepa.embed([flat(1), { data: new Uint8Array(2), width: 1, height: 1, channels: 3 }]));
    expect(atCapture).toMatchObject({ code: "bad-input", message: expect.stringMatching(/^Picture 1: /) });
    const inModule = await failure(jepa.embed([flat(1), flat(1), flat(1, 5000)]));
    expect(inModule).toMatchObject({ code: "bad-input", message: expect.stringMatching(/^Picture 2: .*wide/) });
  });

  it("warms up", async () => {
    await using jepa = await load();
    await jepa.warmup();
    expect(fake.batches).toEqual([1]);
  });
});

describe("aborting", () => {
  const reason = new Error("enough");

  it("before the call", async () => {
    await using jepa = await load();
    expect(await failure(jepa.embed(flat(1), { signal: AbortSignal.abort(reason) }))).toMatchObject({ code: "aborted", cause: reason });
    expect(fake.batches).toEqual([]);
  });

  it("in the queue, at once, without a run", async () => {
    await using jepa = await load();
    const { promise, open } = gate();
    fake.faults.embed = () => promise;
    const first = jepa.embed(flat(1));
    const controller = new AbortController();
    const second = failure(jepa.embed(flat(2), { signal: controller.signal }));
    await vi.waitFor(() => expect(fake.batches).toEqual([1]));
    controller.abort(reason);
    expect(await second).toMatchObject({ code: "aborted", cause: reason });
    open();
    await first;
    expect((await jepa.embed(flat(3))).data[1]).toBe(3);
    expect(fake.batches).toEqual([1, 1]);
  });

  it("while running, at once; the next call waits for the end of the run", async () => {
    await using jepa = await load();
    const { promise, open } = gate();
    fake.faults.embed = () => promise;
    const controller = new AbortController();
    const first = failure(jepa.embed(flat(1), { signal: controller.signal }));
    await vi.waitFor(() => expect(fake.batches).toEqual([1]));
    controller.abort(reason);
    expect(await first).toMatchObject({ code: "aborted", cause: reason });
    const second = jepa.embed(flat(2));
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(fake.batches).toEqual([1]);
    open();
    expect((await second).data[1]).toBe(2);
  });

  it("between batches", async () => {
    fake.backend = "webgpu";
    await using jepa = await load();
    const controller = new AbortController();
    fake.faults.embed = async () => controller.abort(reason);
    expect(await failure(jepa.embed(Array.from({ length: 400 }, () => flat(1)), { imageSize: 64, signal: controller.signal }))).toMatchObject({ code: "aborted" });
    await jepa.embed(flat(1));
    expect(fake.batches).toEqual([196, 1]);
  });
});

describe("disposing", () => {
  it("ends calls in progress and those after it", async () => {
    const jepa = await load();
    const { promise, open } = gate();
    fake.faults.embed = () => promise;
    const calls = [failure(jepa.embed(flat(1))), failure(jepa.embed(flat(2)))];
    await vi.waitFor(() => expect(fake.batches).toEqual([1]));
    const disposal = jepa.dispose();
    for (const call of calls) expect(await call).toMatchObject({ code: "disposed" });
    open();
    await disposal;
    expect(await failure(jepa.embed(flat(3)))).toMatchObject({ code: "disposed" });
    expect(await failure(jepa.warmup())).toMatchObject({ code: "disposed" });
    await jepa.dispose();
    expect(jepa.grid).toEqual([1, 2, 2]);
  });

  it("works by await using", async () => {
    let kept: Jepa;
    {
      await using jepa = await load();
      kept = jepa;
    }
    expect(await failure(kept.embed(flat(1)))).toMatchObject({ code: "disposed" });
  });
});

describe("after a failure of the module", () => {
  it("keeps the instance when the failure is orderly", async () => {
    await using jepa = await load();
    const resets = fake.resets;
    fake.faults.embed = async () => {
      throw coded("bad-input", "no");
    };
    expect(await failure(jepa.embed(flat(1)))).toMatchObject({ code: "bad-input", message: "no" });
    fake.faults = {};
    expect((await jepa.embed(flat(2))).data[1]).toBe(2);
    expect(fake.resets).toBe(resets);
  });

  it.each([
    ["a trap", () => new WebAssembly.RuntimeError("unreachable"), "internal"],
    ["a lost device", () => coded("device-lost", "lost"), "device-lost"],
    ["memory that cannot be had", () => new RangeError("Array buffer allocation failed"), "out-of-memory"],
  ])("loads again after %s", async (_, error, code) => {
    await using jepa = await load();
    fake.faults.embed = async () => {
      throw error();
    };
    const failed = await failure(jepa.embed(flat(1)));
    expect(failed).toBeInstanceOf(JepaError);
    expect(failed.code).toBe(code);
    fake.faults = {};
    const resets = fake.resets;
    expect((await jepa.embed(flat(2))).data).toEqual(Float32Array.of(HASH, 2, 1, 1));
    expect((await jepa.embed(flat(3))).data[1]).toBe(3);
    expect(fake.resets).toBe(resets);
  });

  it("takes a trap for want of memory when there is none left", async () => {
    fake.memory = new WebAssembly.Memory({ initial: 1, maximum: 2 });
    await using jepa = await load();
    fake.faults.embed = async () => {
      throw new WebAssembly.RuntimeError("unreachable");
    };
    expect(await failure(jepa.embed(flat(1)))).toMatchObject({ code: "out-of-memory" });
  });

  it("notices a trap in a microtask of the module, which no promise carries", async () => {
    await using jepa = await load();
    fake.faults.embed = () => {
      queueMicrotask(() => {
        throw new WebAssembly.RuntimeError("unreachable");
      });
      return new Promise(() => {});
    };
    expect(await failure(jepa.embed(flat(1)))).toMatchObject({ code: "internal" });
    fake.faults = {};
    expect((await jepa.embed(flat(2))).data[1]).toBe(2);
  });

  it("brings back every model of the thread", async () => {
    await using a = await load();
    await using b = await load();
    fake.faults.embed = async () => {
      throw new WebAssembly.RuntimeError("unreachable");
    };
    await failure(a.embed(flat(1)));
    fake.faults = {};
    expect((await b.embed(flat(2))).data[0]).toBe(HASH);
    expect((await a.embed(flat(3))).data[0]).toBe(HASH);
  });

  it("tells the page at once, also of a model that was idle, and again when it is back", async () => {
    const told: string[] = [];
    const listeners = (name: string) => ({ onLost: ({ code }: JepaError) => told.push(`${name}: ${code}`), onRecovered: () => told.push(`${name} is back`) });
    await using a = await load({ ...listeners("a") });
    await using idle = await load({ ...listeners("idle") });
    const gone = await load({ ...listeners("gone") });
    await gone.dispose();
    fake.faults.embed = async () => {
      throw new WebAssembly.RuntimeError("unreachable");
    };
    await failure(a.embed(flat(1)));
    expect(told.sort()).toEqual(["a: internal", "idle: internal"]);
    fake.faults = {};
    await a.embed(flat(2));
    expect(told.slice(2)).toEqual(["a is back"]);
    await idle.embed(flat(3));
    expect(told.slice(3)).toEqual(["idle is back"]);
  });

  it("tells the page of nothing when a load fails, or when it disposes of the model", async () => {
    const told = vi.fn();
    fake.faults.finish = async () => {
      throw new WebAssembly.RuntimeError("unreachable");
    };
    await failure(load({ onLost: told, onRecovered: told }));
    fake.faults = {};
    await (await load({ onLost: told, onRecovered: told })).dispose();
    expect(told).not.toHaveBeenCalled();
  });

  it("tries again at the next call when loading again fails", async () => {
    const told: string[] = [];
    await using jepa = await load({ onLost: ({ code }) => told.push(code), onRecovered: () => told.push("recovered") });
    fake.faults.embed = async () => {
      throw new WebAssembly.RuntimeError("unreachable");
    };
    await failure(jepa.embed(flat(1)));
    fake.faults = {
      write() {
        throw coded("bad-checkpoint", "not now");
      },
    };
    expect(await failure(jepa.embed(flat(1)))).toMatchObject({ code: "bad-checkpoint" });
    expect(told).toEqual(["internal"]);
    fake.faults = {};
    expect((await jepa.embed(flat(2))).data[1]).toBe(2);
    expect(told).toEqual(["internal", "recovered"]);
  });

  it("replaces an instance that may not be made synchronously", async () => {
    const jepa = await load();
    // As on a page's main thread: only an instance that has been made elsewhere is accepted.
    const empty = new WebAssembly.Module(new Uint8Array([0, 0x61, 0x73, 0x6d, 1, 0, 0, 0]));
    const { Instance } = WebAssembly;
    const made: unknown[] = [];
    fake.faults = {
      async embed() {
        throw new WebAssembly.RuntimeError("unreachable");
      },
      reset() {
        if (WebAssembly.Instance === Instance) throw new RangeError("WebAssembly.Instance is disallowed on the main thread");
        made.push(new WebAssembly.Instance(empty, {}));
      },
    };
    await failure(jepa.embed(flat(1)));
    delete fake.faults.embed;
    expect((await jepa.embed(flat(2))).data[1]).toBe(2);
    expect(made).toEqual([expect.any(Instance)]);
    await jepa.dispose();
    await vi.waitFor(() => expect(made).toHaveLength(2));
    expect(WebAssembly.Instance).toBe(Instance);
  });

  it("says so when the instance cannot be replaced in this thread", async () => {
    const jepa = await load();
    fake.faults.embed = async () => {
      throw new WebAssembly.RuntimeError("unreachable");
    };
    fake.faults.reset = () => {
      throw new Error("broken");
    };
    await failure(jepa.embed(flat(1)));
    expect(await failure(jepa.embed(flat(1)))).toMatchObject({ code: "internal", message: expect.stringContaining("restarted") });
    await jepa.dispose();
    fake.alive.clear();
  });
});
