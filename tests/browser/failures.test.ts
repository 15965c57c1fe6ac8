// What can go wrong in a browser goes wrong here; every time the same model must work afterwards.

import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { Jepa } from "../../www/src/index.js";
import type { Fault } from "../unit/server.js";
import { keepDevices } from "./faults.js";
import { useLab, type TestPage } from "./harness.js";

const lab = useLab();
let test: TestPage;
beforeEach(async () => {
  lab.server.faults.clear();
  test = await lab.openPage();
});
afterEach(() => test.close());

const TINY = "/fixtures/ijepa_tiny_hf";
const WEIGHTS = "fixtures/ijepa_tiny_hf/model.safetensors";

describe("loading", () => {
  it.each([
    ["without ranges", { noRanges: true }],
    ["without ranges or lengths", { noRanges: true, chunked: true }],
    ["that hides Content-Range", { hideContentRange: true }],
    ["whose connections break", { cutAfter: 20_000, cuts: 3 }],
  ] as [string, Fault][])("works from a server %s", async (_, fault) => {
    if (fault.cuts) test.expectErrors(/ERR_CONTENT_LENGTH_MISMATCH|ERR_INCOMPLETE/);
    const load = () =>
      test.page.evaluate(async (source) => {
        const jepa = await webjepa.Jepa.load(source, { backend: "cpu" });
        return [...(await jepa.embed({ data: new Uint8Array([1, 2, 3]), width: 1, height: 1, channels: 3 })).data];
      }, TINY);
    const expected = await load();
    lab.server.faults.set(WEIGHTS, { ...fault });
    expect(await load()).toEqual(expected);
  });

  it("works from another site, and says what is wrong when that site does not allow it", async () => {
    test.expectErrors(/CORS|ERR_FAILED/);
    const source = lab.other.url + TINY.slice(1);
    const load = () => test.page.evaluate((source) => webjepa.Jepa.load(source, { backend: "cpu" }).then((jepa) => jepa.dispose().then(() => "loaded"), (error) => `${error.code}: ${error.message}`), source);
    expect(await load()).toMatch(/^network: .*CORS/);
    lab.other.headers["access-control-allow-origin"] = "*";
    expect(await load()).toBe("loaded");
    delete lab.other.headers["access-control-allow-origin"];
  });

  it("works from the files of a chooser", async () => {
    const shape = await test.page.evaluate(async (source) => {
      const files = await Promise.all(
        ["config.json", "model.safetensors"].map(async (name) => new File([await (await fetch(`${source}/${name}`)).blob()], name)),
      );
      const transfer = new DataTransfer();
      for (const file of files) transfer.items.add(file);
      const jepa = await webjepa.Jepa.load(transfer.files, { backend: "cpu" });
      return (await jepa.embed(new ImageData(8, 8))).shape;
    }, TINY);
    expect(shape).toHaveLength(1);
  });

  it("works from a directory handle", async () => {
    const shape = await test.page.evaluate(async (source) => {
      const directory = await (await navigator.storage.getDirectory()).getDirectoryHandle("model", { create: true });
      for (const name of ["config.json", "model.safetensors"]) {
        const file = await (await directory.getFileHandle(name, { create: true })).createWritable();
        await (await fetch(`${source}/${name}`)).body!.pipeTo(file);
      }
      const jepa = await webjepa.Jepa.load(directory, { backend: "cpu" });
      return (await jepa.embed(new ImageData(8, 8))).shape;
    }, TINY);
    expect(shape).toHaveLength(1);
  });

  it("fails with a code and a sentence", async () => {
    test.expectErrors(/404/);
    const outcomes = await test.page.evaluate(async (tiny) => {
      const config = await (await fetch(`${tiny}/config.json`)).text();
      const weights = await (await fetch(`${tiny}/model.safetensors`)).arrayBuffer();
      const load = (source: Parameters<typeof webjepa.Jepa.load>[0]) =>
        webjepa.Jepa.load(source, { backend: "cpu" }).then(() => "loaded", (error) => `${error.code}: ${error.message}`);
      return {
        missing: await load("/nowhere"),
        truncatedJson: await load({ "config.json": config.slice(0, -5), "model.safetensors": weights }),
        truncated: await load({ "config.json": config, "model.safetensors": weights.slice(0, weights.byteLength / 2) }),
        garbage: await load({ "config.json": config, "model.safetensors": new Uint8Array(1000).fill(255) }),
        otherShape: await load({ "config.json": config.replace(/"hidden_size":\s*\d+/, '"hidden_size": 64'), "model.safetensors": weights }),
      };
    }, TINY);
    expect(outcomes.missing).toMatch(/^network: .*404/);
    expect(outcomes.truncatedJson).toMatch(/^bad-config: /);
    expect(outcomes.truncated).toMatch(/^bad-checkpoint: /);
    expect(outcomes.garbage).toMatch(/^bad-checkpoint: /);
    expect(outcomes.otherShape).toMatch(/^(shape-mismatch|missing-tensor|bad-config): /);
  });

  it("can be aborted in every phase, and leaves no worker behind", async () => {
    lab.server.files.set("slow/config.json", "{}");
    lab.server.faults.set("slow/config.json", { stallAfter: 1 });
    const outcomes = await test.page.evaluate(async (tiny) => {
      const outcome = async (source: string, abortIn: string) => {
        const controller = new AbortController();
        if (abortIn === "waiting") setTimeout(() => controller.abort("enough"), 300);
        const onProgress = ({ phase }: { phase: string }) => phase === abortIn && controller.abort("enough");
        return webjepa.Jepa.load(source, { backend: "cpu", warmup: true, onProgress, signal: controller.signal }).then(
          () => "loaded",
          (error) => [error.code, error.cause],
        );
      };
      const outcomes = [await outcome("/slow", "waiting")];
      for (const phase of ["compile", "download", "upload", "warmup"]) outcomes.push(await outcome(tiny, phase));
      return outcomes;
    }, TINY);
    for (const outcome of outcomes.slice(0, 4)) expect(outcome).toEqual(["aborted", "enough"]);
    await expect.poll(() => test.page.workers().length).toBe(0);
  });
});

describe("embedding", () => {
  it("can be aborted and disposed of in the middle", async () => {
    const { aborted, disposed, after, sameAsBefore } = await test.page.evaluate(async (tiny) => {
      const jepa = await webjepa.Jepa.load(tiny, { backend: "cpu" });
      const picture = new ImageData(64, 64);
      const before = await jepa.embed(picture);
      const many = Array.from({ length: 5000 }, () => picture);
      const controller = new AbortController();
      const call = jepa.embed(many, { signal: controller.signal });
      setTimeout(() => controller.abort("enough"), 100);
      const aborted = await call.then(() => "embedded", (error) => [error.code, error.cause]);
      const again = await jepa.embed(picture);
      const unfinished = jepa.embed(many);
      setTimeout(() => void jepa.dispose(), 100);
      const disposed = await unfinished.catch((error) => error.code);
      const after = await jepa.embed(picture).catch((error) => error.code);
      return { aborted, disposed, after, sameAsBefore: again.data.every((value, i) => value === before.data[i]) };
    }, TINY);
    expect(aborted).toEqual(["aborted", "enough"]);
    expect(disposed).toBe("disposed");
    expect(after).toBe("disposed");
    expect(sameAsBefore).toBe(true);
    await expect.poll(() => test.page.workers().length).toBe(0);
  });

  it("answers calls that are made at once in their order", async () => {
    const { order, equal } = await test.page.evaluate(async (tiny) => {
      const jepa = await webjepa.Jepa.load(tiny, { backend: "cpu" });
      const pictures = Array.from({ length: 6 }, (_, i) => new ImageData(new Uint8ClampedArray(16 * 16 * 4).fill(40 * i), 16, 16));
      const order: number[] = [];
      const single = await Promise.all(pictures.map((picture, i) => jepa.embed(picture).finally(() => order.push(i))));
      const batch = await jepa.embed(pictures);
      const width = batch.shape[1]!;
      return { order, equal: single.every(({ data }, i) => data.every((value, j) => Math.abs(value - batch.data[i * width + j]!) < 1e-5)) };
    }, TINY);
    expect(order).toEqual([0, 1, 2, 3, 4, 5]);
    expect(equal).toBe(true);
  });

  it("survives the loss of the device in this thread", async () => {
    await keepDevices(test.page);
    const outcome = await test.page.evaluate(async (tiny) => {
      const jepa = await webjepa.Jepa.load(tiny, { backend: "webgpu", worker: false });
      const picture = new ImageData(new Uint8ClampedArray(16 * 16 * 4).fill(90), 16, 16);
      const before = await jepa.embed(picture);
      const call = jepa.embed(Array.from({ length: 64 }, () => picture));
      setTimeout(() => devices.at(-1)!.destroy(), 5);
      const lost = await call.then(() => "embedded", (error) => error.code);
      const after = await jepa.embed(picture);
      return { lost, devices: devices.length, difference: Math.max(...after.data.map((value, i) => Math.abs(value - before.data[i]!))) };
    }, TINY);
    expect(outcome).toEqual({ lost: "device-lost", devices: 2, difference: 0 });
  });

  it("survives the loss of the GPU process in a worker", async () => {
    test.expectErrors(/context|lost|GPU/i);
    await test.page.evaluate(async (tiny) => {
      const picture = new ImageData(new Uint8ClampedArray(16 * 16 * 4).fill(90), 16, 16);
      const jepa = await webjepa.Jepa.load(tiny, { backend: "webgpu" });
      const before = await jepa.embed(picture);
      const untilLost = async () => {
        for (;;) {
          try {
            await jepa.embed(Array.from({ length: 64 }, () => picture));
          } catch (error) {
            return (error as { code: string }).code;
          }
        }
      };
      Object.assign(globalThis, { jepa, picture, before, call: untilLost() });
    }, TINY);
    const session = await lab.browser.newBrowserCDPSession();
    // Chromium does not answer this one.
    session.send("Browser.crashGpuProcess").catch(() => {});
    const outcome = await test.page.evaluate(async () => {
      const { jepa, picture, before, call } = globalThis as never as { jepa: Jepa; picture: ImageData; before: { data: Float32Array }; call: Promise<string> };
      const lost = await call;
      const after = await jepa.embed(picture);
      await jepa.dispose();
      return { lost, difference: Math.max(...after.data.map((value, i) => Math.abs(value - before.data[i]!))) };
    });
    expect(outcome).toEqual({ lost: "device-lost", difference: 0 });
  });

  it("survives the end of its memory in this thread", async () => {
    const { code, same } = await test.page.evaluate(async (tiny) => {
      const { instantiateStreaming } = WebAssembly;
      let memory: WebAssembly.Memory | undefined;
      WebAssembly.instantiateStreaming = async (...args) => {
        const source = await instantiateStreaming(...args);
        memory = source.instance.exports.memory as WebAssembly.Memory;
        return source;
      };
      const picture = new ImageData(16, 16);
      const jepa = await webjepa.Jepa.load(tiny, { backend: "cpu", worker: false });
      const before = await jepa.embed(picture);
      memory!.grow(65536 - memory!.buffer.byteLength / 65536);
      const code = await jepa.embed(new ImageData(4000, 4000)).then(() => "embedded", (error) => error.code);
      const after = await jepa.embed(picture);
      return { code, same: after.data.every((value, i) => value === before.data[i]) };
    }, TINY);
    expect(code).toBe("out-of-memory");
    expect(same).toBe(true);
  });
});

describe("places", () => {
  it("without a secure context run on the CPU and say why", async () => {
    const plain = await lab.openPage({ host: "plain.test" });
    const { caps, backend, reason, explicit } = await plain.page.evaluate(async (tiny) => {
      const jepa = await webjepa.Jepa.load(tiny);
      await jepa.embed(new ImageData(16, 16));
      const explicit = await webjepa.Jepa.load(tiny, { backend: "webgpu" }).catch((error) => `${error.code}: ${error.message}`);
      return { caps: await webjepa.probeDevice(), backend: jepa.backend, reason: jepa.fallbackReason, explicit };
    }, TINY);
    expect(caps).toMatchObject({ webgpu: false, reason: expect.stringContaining("HTTPS") });
    expect(backend).toBe("cpu");
    expect(reason).toContain("HTTPS");
    expect(explicit).toMatch(/^no-webgpu: .*HTTPS/);
    await plain.close();
  });

  it("without an adapter, or with one that lacks timestamp-query, run on the CPU and say why", async () => {
    const reasons = await test.page.evaluate(async (tiny) => {
      const { requestAdapter } = GPU.prototype;
      const reasons: unknown[] = [];
      const { has } = GPUSupportedFeatures.prototype;
      GPUSupportedFeatures.prototype.has = function (name) {
        return name !== "timestamp-query" && has.call(this, name);
      };
      const load = async () => {
        const jepa = await webjepa.Jepa.load(tiny, { worker: false });
        await jepa.embed(new ImageData(16, 16));
        reasons.push(jepa.backend, jepa.fallbackReason, await webjepa.Jepa.load(tiny, { worker: false, backend: "webgpu" }).catch((error) => error.code));
      };
      await load();
      GPUSupportedFeatures.prototype.has = has;
      GPU.prototype.requestAdapter = async () => null;
      await load();
      GPU.prototype.requestAdapter = requestAdapter;
      return reasons;
    }, TINY);
    expect(reasons).toEqual(["cpu", expect.stringContaining("timestamp-query"), "no-webgpu", "cpu", expect.stringContaining("no adapter"), "no-webgpu"]);
  });

  it("can be probed in a worker", async () => {
    const caps = await test.page.evaluate(async () => {
      const script = `import { probeDevice } from "${location.origin}/dist/index.js"; postMessage(await probeDevice());`;
      const worker = new Worker(URL.createObjectURL(new Blob([script], { type: "text/javascript" })), { type: "module" });
      return new Promise<{ webgpu: boolean; limits: object }>((resolve) => (worker.onmessage = ({ data }) => resolve(data)));
    });
    expect(caps.webgpu).toBe(true);
    expect(Object.keys(caps.limits).length).toBeGreaterThan(20);
  });

  it("can import the package from another site", async () => {
    lab.other.headers["access-control-allow-origin"] = "*";
    const shape = await test.page.evaluate(
      async ({ other, tiny }) => {
        const { Jepa } = (await new Function("url", "return import(url)")(`${other}dist/index.js`)) as typeof webjepa;
        const jepa = await Jepa.load(tiny, { backend: "cpu" });
        return (await jepa.embed(new ImageData(16, 16))).shape;
      },
      { other: lab.other.url, tiny: TINY },
    );
    expect(shape).toHaveLength(1);
    delete lab.other.headers["access-control-allow-origin"];
  });
});
