// A tab that is frozen in the background, and one whose system runs out of memory, compute what any other does.

import type { CDPSession } from "playwright-core";
import { afterEach, beforeEach, expect, it } from "vitest";
import type { Jepa, Trainer } from "../../www/src/index.js";
import { useLab, type TestPage } from "../browser/harness.js";

const lab = useLab();
let test: TestPage;
let session: CDPSession;
beforeEach(async () => {
  test = await lab.openPage();
  session = await test.page.context().newCDPSession(test.page);
});
afterEach(() => test.close());

interface Work {
  losses: number[];
  embeddings: number[][];
  told: string[];
}
interface Tab {
  jepa: Jepa;
  trainer: Trainer;
  pictures: ImageData[];
  told: string[];
  work: Promise<Work>;
  /** Steps that have been taken. */
  steps: number;
}

/** Begins to train and to embed at once; resolves when a few steps have been taken. */
const begin = (backend: "cpu" | "webgpu") =>
  test.page.evaluate(
    async ([source, backend]) => {
      const told: string[] = [];
      const listeners = { onLost: ({ code }: { code: string }) => told.push(code), onRecovered: () => told.push("recovered") };
      const pictures = Array.from({ length: 12 }, (_, i) => new ImageData(Uint8ClampedArray.from({ length: 32 * 32 * 4 }, (_, at) => (at * (i + 3) * 37) % 256), 32, 32));
      const model = { imageSize: 32, patchSize: 8, hiddenSize: 24, layers: 2, heads: 2, predictor: { hiddenSize: 12, layers: 1, heads: 2 } };
      const trainer = await webjepa.Trainer.create({ model, batchSize: 4, schedule: { steps: 60 }, backend, autosave: { every: 10, store: webjepa.memoryStore() }, ...listeners });
      const jepa = await webjepa.Jepa.load(source, { backend, ...listeners });
      await jepa.warmup();
      const tab = { jepa, trainer, pictures, told, steps: 0 } as Tab;
      Object.assign(globalThis, { tab });
      let begun!: () => void;
      const working = new Promise<void>((resolve) => (begun = resolve));
      const train = async () => {
        const losses: number[] = [];
        for await (const { step, loss } of trainer.run(pictures)) {
          losses.push(loss);
          tab.steps = step;
          if (step === 5) begun();
        }
        return losses;
      };
      const embed = async () => {
        const embeddings: number[][] = [];
        for (const picture of pictures) for (let i = 0; i < 4; i++) embeddings.push([...(await jepa.embed(picture)).data]);
        return embeddings;
      };
      tab.work = Promise.all([train(), embed()]).then(([losses, embeddings]) => ({ losses, embeddings, told }));
      await working;
    },
    ["/fixtures/ijepa_tiny_hf", backend] as const,
  );

const tab = <T>(of: (tab: Tab) => T) => test.page.evaluate(`(${String(of)})(tab)`) as Promise<Awaited<T>>;

async function end(): Promise<Work> {
  const work = await tab(({ work }) => work);
  await tab(({ jepa, trainer }) => Promise.all([jepa.dispose(), trainer.dispose()]).then(() => {}));
  return work;
}

async function undisturbed(backend: "cpu" | "webgpu"): Promise<Work> {
  await begin(backend);
  return end();
}

it.each(["cpu", "webgpu"] as const)("frozen in the middle of a run, and active again, %s", async (backend) => {
  const expected = await undisturbed(backend);
  await test.page.evaluate(() => {
    const events: string[] = [];
    Object.assign(globalThis, { events });
    for (const name of ["freeze", "resume"]) document.addEventListener(name, () => events.push(name));
  });
  await begin(backend);
  for (let time = 0; time < 3; time++) {
    await session.send("Page.setWebLifecycleState", { state: "frozen" });
    await new Promise((resolve) => setTimeout(resolve, 1000));
    await session.send("Page.setWebLifecycleState", { state: "active" });
  }
  const found = await end();
  const events = await test.page.evaluate(() => (globalThis as never as { events: string[] }).events);
  console.log(`frozen, ${backend}: ${JSON.stringify({ events, told: found.told })}`);
  expect(events.slice(0, 2)).toEqual(["freeze", "resume"]);
  expect(found).toEqual(expected);
  expect(found.losses).toHaveLength(60);
  expect(found.told).toEqual([]);
});

it.each(["cpu", "webgpu"] as const)("under pressure for memory, %s", async (backend) => {
  const expected = await undisturbed(backend);
  await begin(backend);
  const before = await tab(({ steps }) => steps);
  for (let time = 0; time < 10; time++) await session.send("Memory.simulatePressureNotification", { level: "critical" });
  const after = await tab(({ steps }) => steps);
  const found = await end();
  console.log(`pressure, ${backend}: ${JSON.stringify({ steps: [before, after], told: found.told })}`);
  expect(before).toBeLessThan(60);
  expect(found).toEqual(expected);
  expect(found.told).toEqual([]);
});
