// Several threads on the CPU, in pages that are cross-origin isolated and in pages that are not.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { DIST, useLab, type TestPage } from "./harness.js";

const ISOLATED = { "cross-origin-opener-policy": "same-origin", "cross-origin-embedder-policy": "require-corp" };

const lab = useLab();
let test: TestPage;

/** Names of the page's workers, theirs included. */
const workers = () => test.page.workers().length;

describe("in a page that is cross-origin isolated", () => {
  beforeEach(async () => {
    lab.server.headers = ISOLATED;
    test = await lab.openPage();
  });
  afterEach(async () => {
    lab.server.headers = {};
    lab.server.files.delete("dist/thread.js");
    await test.close();
  });

  it.each(["f32", "f16", "q8"] as const)("give the numbers of one thread, bit for bit, and end with the model: %s", async (dtype) => {
    const { threads, apart } = await test.page.evaluate(async (dtype) => {
      const picture = (width: number, height: number) => new ImageData(Uint8ClampedArray.from({ length: width * height * 4 }, (_, i) => (i % 4 === 3 ? 255 : (i * 37) % 251)), width, height);
      const inputs = [picture(224, 224), picture(50, 70), picture(300, 33)];
      const [alone, team] = await Promise.all([1, 3].map((threads) => webjepa.Jepa.load("/fixtures/ijepa_ti16", { backend: "cpu", dtype, threads })));
      const apart = [];
      for (const imageSize of [undefined, 96, [16, 16], [112, 240]] as const) {
        const options = { pool: "none", ...(imageSize === undefined ? {} : { imageSize: imageSize as number }) } as const;
        const [a, b] = [await alone!.embed(inputs, options), await team!.embed(inputs, options)];
        apart.push(a.data.length > 0 && a.data.length === b.data.length ? a.data.filter((value, i) => value !== b.data[i]).length : -1);
      }
      const threads = [alone!.threads, team!.threads];
      await alone!.dispose();
      await team!.dispose();
      return { threads, apart };
    }, dtype);
    expect(threads).toEqual([1, 3]);
    expect(apart).toEqual([0, 0, 0, 0]);
    // A thread that sleeps in the middle of its work is ended by the browser after two seconds.
    await expect.poll(workers, { timeout: 15_000 }).toBe(0);
  });

  it("train as one does, bit for bit", async () => {
    const runs = await test.page.evaluate(async () => {
      const picture = (at: number) => new ImageData(Uint8ClampedArray.from({ length: 64 * 64 * 4 }, (_, i) => (i * (at + 3) * 37) % 256), 64, 64);
      const pictures = Array.from({ length: 8 }, (_, i) => picture(i));
      const run = async (threads: number) => {
        const model = { imageSize: 64, patchSize: 8, hiddenSize: 96, layers: 2, heads: 3, predictor: { hiddenSize: 48, layers: 2, heads: 2 } };
        const trainer = await webjepa.Trainer.create({ model, batchSize: 8, schedule: { steps: 100 }, backend: "cpu", threads, seed: 3 });
        const losses = [];
        for (let i = 0; i < 4; i++) losses.push((await trainer.step(pictures)).loss);
        const save = new Uint8Array(await trainer.save());
        const used = trainer.threads;
        await trainer.dispose();
        return { used, losses, save: Array.from(new Uint8Array(await crypto.subtle.digest("SHA-256", save))) };
      };
      return [await run(1), await run(4)];
    });
    expect(runs.map(({ used }) => used)).toEqual([1, 4]);
    expect(runs[1]).toEqual({ ...runs[0], used: 4 });
  });

  it("are half of the processors unless told otherwise, and one in the page's own thread", async () => {
    const { auto, own, processors } = await test.page.evaluate(async () => {
      const auto = await webjepa.Jepa.load("/fixtures/ijepa_ti16", { backend: "cpu" });
      const own = await webjepa.Jepa.load("/fixtures/ijepa_ti16", { backend: "cpu", worker: false, threads: 4 });
      const all = { auto: auto.threads, own: own.threads, processors: navigator.hardwareConcurrency };
      await Promise.all([auto.dispose(), own.dispose()]);
      return all;
    });
    expect(auto).toBe(Math.min(8, Math.ceil(processors / 2)));
    expect(own).toBe(1);
  });

  it("are replaced with the model when one of them ends", async () => {
    // The thread gives up in the middle of its hundredth part.
    const source = readFileSync(join(DIST, "thread.js"), "utf8");
    const broken = source.replace(/glue\.doPart\(/, "(globalThis.parts = (globalThis.parts ?? 0) + 1) === 100 ? missing() : glue.doPart(");
    expect(broken).not.toBe(source);
    lab.server.files.set("dist/thread.js", broken);
    test.expectErrors(/missing is not defined|A thread that computes has ended/);
    const loaded = await test.page.evaluateHandle(async () => {
      const lost: string[] = [];
      const jepa = await webjepa.Jepa.load("/fixtures/ijepa_ti16", { backend: "cpu", threads: 2, onLost: ({ code }) => lost.push(code) });
      const picture = new ImageData(224, 224);
      let failure = "";
      for (let i = 0; i < 50 && !failure; i++) await jepa.embed(picture).catch((error) => (failure = error.code));
      return { jepa, picture, lost, failure };
    });
    lab.server.files.delete("dist/thread.js");
    const { lost, failure, threads, same } = await loaded.evaluate(async ({ jepa, picture, lost, failure }) => {
      const again = await jepa.embed(picture);
      const plain = await webjepa.Jepa.load("/fixtures/ijepa_ti16", { backend: "cpu", threads: 1 });
      const { data } = await plain.embed(picture);
      const threads = jepa.threads;
      await Promise.all([jepa.dispose(), plain.dispose()]);
      return { lost, failure, threads, same: data.every((value, i) => value === again.data[i]) };
    });
    expect({ lost, failure, threads, same }).toEqual({ lost: ["internal"], failure: "internal", threads: 2, same: true });
  });

  it("are done without where they cannot be started", async () => {
    lab.server.files.set("dist/thread.js", "throw new Error('no threads today')");
    test.expectErrors(/no threads today/);
    const { threads, length } = await test.page.evaluate(async () => {
      const jepa = await webjepa.Jepa.load("/fixtures/ijepa_ti16", { backend: "cpu", threads: 2 });
      const { data } = await jepa.embed(new ImageData(224, 224));
      const { threads } = jepa;
      await jepa.dispose();
      return { threads, length: data.length };
    });
    expect(threads).toBe(1);
    expect(length).toBeGreaterThan(0);
    expect(lab.server.requests.some(({ path }) => path === "dist/wasm/cpu-relaxed/webjepa_bg.wasm")).toBe(true);
  });
});

describe("in a page that is not", () => {
  beforeEach(async () => {
    test = await lab.openPage();
  });
  afterEach(() => test.close());

  it("one computes, and nothing of the others is fetched", async () => {
    lab.server.requests.length = 0;
    const threads = await test.page.evaluate(async () => {
      const jepa = await webjepa.Jepa.load("/fixtures/ijepa_ti16", { backend: "cpu", threads: 4 });
      await jepa.embed(new ImageData(224, 224));
      const { threads } = jepa;
      await jepa.dispose();
      return threads;
    });
    expect(threads).toBe(1);
    expect(lab.server.requests.filter(({ path }) => path.includes("cpu-threads"))).toEqual([]);
  });

  it("numbers that cannot be are refused", async () => {
    const messages = await test.page.evaluate(() =>
      Promise.all(([0, 65, 1.5, "two"] as number[]).map((threads) => webjepa.Jepa.load("/fixtures/ijepa_ti16", { threads }).then(() => "", ({ code, message }) => `${code}: ${message}`))),
    );
    expect(messages).toEqual(["0", "65", "1.5", '"two"'].map((shown) => `bad-input: The option threads is "auto" or a whole number from 1 to 64, not ${shown}.`));
  });
});
