import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { WorkerEngine } from "../../www/src/client.js";
import type { CallOptions, EmbedRequest, LoadRequest } from "../../www/src/protocol.js";
import { describeSource } from "../../www/src/weights.js";
import { ChannelWorker } from "./channel-worker.js";
import { CONFIG, coded, fake, hashOf, resetFake, safetensors } from "./fake-glue.js";

vi.mock("../../www/src/glue.js", async () => (await import("./fake-glue.js")).mockGlue());

const SIZES = { weight: 100 };
const LOAD: LoadRequest = {
  source: describeSource({ "config.json": CONFIG, "model.safetensors": safetensors(SIZES) }),
  backend: "cpu",
  threads: 1,
  options: { dtype: "f32", predictor: true },
  warmup: false,
  cache: "none",
  integrity: {},
  init: { headers: [] },
};
const request = (value: number): EmbedRequest => ({
  id: 0,
  pictures: [{ kind: "pixels", pixels: { data: new Uint8Array(3).fill(value), width: 1, height: 1, channels: 3 } }],
  frames: 1,
  pool: "mean",
  normalize: false,
  preprocess: true,
});
const load = (engine: WorkerEngine, options: CallOptions = {}) => engine.call("load", LOAD, options);
const embed = (engine: WorkerEngine, request: EmbedRequest) => engine.call("embed", request, {});
const failure = (promise: Promise<unknown>) => promise.then(() => expect.unreachable("the call should have failed"), (error) => error);

beforeEach(() => {
  resetFake();
  ChannelWorker.started = [];
  vi.stubGlobal("Worker", ChannelWorker);
});
afterEach(() => void vi.unstubAllGlobals());

describe("an engine in a worker", () => {
  it("is started as a module in the way that bundlers know", () => {
    new WorkerEngine().close();
    const [{ url, options }] = ChannelWorker.started as [ChannelWorker];
    expect(url.href).toMatch(/\/worker\.js$/);
    expect(options.type).toBe("module");
  });

  it("loads, reports progress and embeds", async () => {
    const engine = new WorkerEngine();
    const overall: number[] = [];
    const { info } = await load(engine, { onProgress: (progress) => overall.push(progress.overall) });
    expect(info.grid).toEqual([1, 2, 2]);
    expect(overall.at(-1)).toBe(1);
    const { data, shape } = await embed(engine, request(8));
    expect(data).toEqual(Float32Array.of(hashOf(SIZES), 8, 1, 1));
    expect(shape).toEqual([1, 4]);
    engine.close();
  });

  it("moves pixels instead of copying them", async () => {
    const engine = new WorkerEngine();
    await load(engine);
    const { pictures, ...rest } = request(8);
    await embed(engine, { pictures, ...rest });
    expect(pictures[0]).toMatchObject({ pixels: { data: { length: 0 } } });
    engine.close();
  });

  it("brings errors over with their codes, and the worker's stack as their cause", async () => {
    const engine = new WorkerEngine();
    await load(engine);
    fake.faults.embed = async () => {
      throw coded("bad-input", "no");
    };
    const error = await failure(embed(engine, request(1)));
    expect(error).toMatchObject({ name: "JepaError", code: "bad-input", message: "no" });
    expect(error.cause.stack).toContain("fake-glue");
    expect(engine.lost).toBeUndefined();
    fake.faults = {};
    expect((await embed(engine, request(2))).data[1]).toBe(2);
    engine.close();
  });

  it("aborts a load", async () => {
    const engine = new WorkerEngine();
    const controller = new AbortController();
    fake.faults.finish = async () => {
      controller.abort();
      await new Promise((resolve) => setTimeout(resolve, 20));
    };
    expect(await failure(load(engine, { signal: controller.signal }))).toMatchObject({ code: "aborted" });
    engine.close();
  });

  it("is dead after a crash, and its worker ended", async () => {
    const engine = new WorkerEngine();
    await load(engine);
    fake.faults.embed = async () => {
      throw new WebAssembly.RuntimeError("unreachable");
    };
    expect(await failure(embed(engine, request(1)))).toMatchObject({ code: "internal" });
    expect(engine.lost).toMatchObject({ code: "internal" });
    expect(ChannelWorker.started[0]!.terminated).toBe(true);
  });

  it("is lost when a worker that has started never comes to life", async () => {
    vi.useFakeTimers();
    vi.stubGlobal("Worker", class extends EventTarget {
      postMessage() {
        this.dispatchEvent(new MessageEvent("message", { data: { type: "started" } }));
      }
      terminate() {}
    });
    const engine = new WorkerEngine();
    const call = failure(load(engine));
    await vi.advanceTimersByTimeAsync(9_999);
    expect(engine.lost).toBeUndefined();
    await vi.advanceTimersByTimeAsync(1);
    expect(await call).toMatchObject({ code: "internal", message: expect.stringContaining("ended") });
    vi.useRealTimers();
  });

  it("is told of the end of what the worker computes in while no call is in progress", async () => {
    const [engine, other] = [new WorkerEngine(), new WorkerEngine()];
    const told = vi.fn();
    engine.onLost = told;
    await load(engine);
    await load(other);
    // Workers of these tests share a thread, and so the module.
    fake.faults.embed = async () => {
      throw new WebAssembly.RuntimeError("unreachable");
    };
    await failure(embed(other, request(1)));
    await vi.waitFor(() => expect(told).toHaveBeenCalledExactlyOnceWith(expect.objectContaining({ code: "internal" })));
    expect(engine.lost).toMatchObject({ code: "internal" });
    expect(await failure(embed(engine, request(1)))).toMatchObject({ code: "internal" });
  });

  it("rejects what is in progress when it is closed", async () => {
    const engine = new WorkerEngine();
    await load(engine);
    const call = failure(embed(engine, request(1)));
    engine.close();
    expect(await call).toMatchObject({ code: "disposed" });
  });

  it("says that its script is missing when the worker cannot start", async () => {
    vi.stubGlobal("Worker", class extends EventTarget {
      constructor() {
        super();
        setTimeout(() => this.dispatchEvent(new Event("error")));
      }
      postMessage() {}
      terminate() {}
    });
    const engine = new WorkerEngine();
    expect(await failure(load(engine))).toMatchObject({ code: "network", message: expect.stringContaining("worker.js") });
  });

  it("reports a picture of another site, which cannot be posted", async () => {
    const engine = new WorkerEngine();
    await load(engine);
    const bitmap = { close: vi.fn() } as unknown as ImageBitmap;
    vi.spyOn(ChannelWorker.prototype, "postMessage").mockImplementationOnce(() => {
      throw new DOMException("not origin-clean", "DataCloneError");
    });
    const error = await failure(embed(engine, { ...request(1), pictures: [{ kind: "bitmap", bitmap }] }));
    expect(error).toMatchObject({ code: "bad-input", message: expect.stringContaining("crossOrigin") });
    expect(bitmap.close).toHaveBeenCalled();
    engine.close();
  });
});

describe("starting a worker from another site", () => {
  it("goes through a script of this one", async () => {
    const urls: string[] = [];
    vi.stubGlobal("Worker", class extends EventTarget {
      constructor(url: string | URL) {
        super();
        urls.push(String(url));
        if (urls.length === 1) throw new DOMException("another origin", "SecurityError");
      }
      terminate() {}
    });
    new WorkerEngine().close();
    expect(urls[1]).toMatch(/^blob:/);
    expect(await (await fetch(urls[1]!)).text()).toMatch(/^import ".*\/worker\.js";$/);
  });

  it("is reported where there are no workers for it", () => {
    vi.stubGlobal("Worker", class {
      constructor() {
        throw new DOMException("no", "NotSupportedError");
      }
    });
    expect(() => new WorkerEngine()).toThrow(expect.objectContaining({ code: "unsupported", message: expect.stringContaining("worker: false") }));
  });
});
