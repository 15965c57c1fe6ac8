import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { WorkerEngine } from "../../www/src/client.js";
import type { EmbedRequest, LoadRequest } from "../../www/src/engine.js";
import type { ToWorker } from "../../www/src/protocol.js";
import { serve } from "../../www/src/serve.js";
import { describeSource } from "../../www/src/weights.js";
import { CONFIG, coded, fake, hashOf, resetFake, safetensors } from "./fake-glue.js";

vi.mock("../../www/src/glue.js", async () => (await import("./fake-glue.js")).mockGlue());

/** A Worker in this thread: what is said to it is cloned and transferred as it would be. */
class ChannelWorker extends EventTarget {
  static started: ChannelWorker[] = [];
  readonly #channel = new MessageChannel();
  terminated = false;

  constructor(readonly url: URL, readonly options: WorkerOptions) {
    super();
    ChannelWorker.started.push(this);
    const { port1, port2 } = this.#channel;
    port1.onmessage = ({ data }) => this.terminated || this.dispatchEvent(new MessageEvent("message", { data }));
    const scope = {
      postMessage: (message: unknown, transfer: Transferable[]) => port2.postMessage(message, transfer),
      addEventListener: (_: string, listener: (event: MessageEvent<ToWorker>) => void) => (port2.onmessage = listener),
    };
    serve(scope);
  }

  postMessage(message: unknown, transfer: Transferable[]) {
    if (!this.terminated) this.#channel.port1.postMessage(message, transfer);
  }

  terminate() {
    this.terminated = true;
    this.#channel.port1.close();
  }
}

const SIZES = { weight: 100 };
const LOAD: LoadRequest = {
  source: describeSource({ "config.json": CONFIG, "model.safetensors": safetensors(SIZES) }),
  backend: "cpu",
  options: { dtype: "f32" },
  warmup: false,
};
const request = (value: number): EmbedRequest => ({
  pictures: [{ kind: "pixels", pixels: { data: new Uint8Array(3).fill(value), width: 1, height: 1, channels: 3 } }],
  pool: "mean",
  normalize: false,
  preprocess: true,
});
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
    const { info } = await engine.load(LOAD, (progress) => overall.push(progress.overall), undefined);
    expect(info.grid).toEqual([1, 2, 2]);
    expect(overall.at(-1)).toBe(1);
    const { data, shape } = await engine.embed(request(8), undefined);
    expect(data).toEqual(Float32Array.of(hashOf(SIZES), 8, 1, 1));
    expect(shape).toEqual([1, 4]);
    engine.close();
  });

  it("moves pixels instead of copying them", async () => {
    const engine = new WorkerEngine();
    await engine.load(LOAD, () => {}, undefined);
    const { pictures, ...rest } = request(8);
    await engine.embed({ pictures, ...rest }, undefined);
    expect(pictures[0]).toMatchObject({ pixels: { data: { length: 0 } } });
    engine.close();
  });

  it("brings errors over with their codes, and the worker's stack as their cause", async () => {
    const engine = new WorkerEngine();
    await engine.load(LOAD, () => {}, undefined);
    fake.faults.embed = async () => {
      throw coded("bad-input", "no");
    };
    const error = await failure(engine.embed(request(1), undefined));
    expect(error).toMatchObject({ name: "JepaError", code: "bad-input", message: "no" });
    expect(error.cause.stack).toContain("fake-glue");
    expect(engine.dead).toBe(false);
    fake.faults = {};
    expect((await engine.embed(request(2), undefined)).data[1]).toBe(2);
    engine.close();
  });

  it("aborts a load", async () => {
    const engine = new WorkerEngine();
    const controller = new AbortController();
    fake.faults.finish = async () => {
      controller.abort();
      await new Promise((resolve) => setTimeout(resolve, 20));
    };
    expect(await failure(engine.load(LOAD, () => {}, controller.signal))).toMatchObject({ code: "aborted" });
    engine.close();
  });

  it("is dead after a crash, and its worker ended", async () => {
    const engine = new WorkerEngine();
    await engine.load(LOAD, () => {}, undefined);
    fake.faults.embed = async () => {
      throw new WebAssembly.RuntimeError("unreachable");
    };
    expect(await failure(engine.embed(request(1), undefined))).toMatchObject({ code: "internal" });
    expect(engine.dead).toBe(true);
    expect(ChannelWorker.started[0]!.terminated).toBe(true);
  });

  it("rejects what is in progress when it is closed", async () => {
    const engine = new WorkerEngine();
    await engine.load(LOAD, () => {}, undefined);
    const call = failure(engine.embed(request(1), undefined));
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
    expect(await failure(engine.load(LOAD, () => {}, undefined))).toMatchObject({ code: "network", message: expect.stringContaining("worker.js") });
  });

  it("reports a picture of another site, which cannot be posted", async () => {
    const engine = new WorkerEngine();
    await engine.load(LOAD, () => {}, undefined);
    const bitmap = { close: vi.fn() } as unknown as ImageBitmap;
    vi.spyOn(ChannelWorker.prototype, "postMessage").mockImplementationOnce(() => {
      throw new DOMException("not origin-clean", "DataCloneError");
    });
    const error = await failure(engine.embed({ ...request(1), pictures: [{ kind: "bitmap", bitmap }] }, undefined));
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
