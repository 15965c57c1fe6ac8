// A tab that is frozen in the background, and one whose system runs out of memory, compute what any other does.

import { afterEach, beforeEach, expect, it } from "vitest";
import type { Jepa, Trainer } from "../../www/src/index.js";
import { useLab, type TestPage } from "../browser/harness.js";

const lab = useLab();
let test: TestPage;
beforeEach(async () => void (test = await lab.openPage()));
afterEach(() => test.close());

/** Runs a function in a page: the test's, or another. */
type Evaluate = <T, A>(body: (argument: A) => T | Promise<T>, argument: A) => Promise<T>;
const inTest: Evaluate = (body, argument) => test.page.evaluate(body as never, argument as never);

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
const begin = (evaluate: Evaluate, backend: "cpu" | "webgpu") =>
  evaluate(
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

const stepsIn = (evaluate: Evaluate) => evaluate(() => (globalThis as never as { tab: Tab }).tab.steps, undefined);

const end = (evaluate: Evaluate): Promise<Work> =>
  evaluate(async () => {
    const { work, jepa, trainer } = (globalThis as never as { tab: Tab }).tab;
    const done = await work;
    await Promise.all([jepa.dispose(), trainer.dispose()]);
    return done;
  }, undefined);

async function undisturbed(backend: "cpu" | "webgpu"): Promise<Work> {
  await begin(inTest, backend);
  return end(inTest);
}

interface Hidden {
  evaluate: Evaluate;
  send(method: string, params?: object): Promise<unknown>;
  /** Fails when there was an error. */
  close(): Promise<void>;
}

/** The test's page in a tab that Playwright does not drive: it would have the page believe that it is looked at, which is never frozen. */
async function openHidden(): Promise<Hidden> {
  const browser = await lab.browser.newBrowserCDPSession();
  const { targetId } = await browser.send("Target.createTarget", { url: test.page.url() });
  const { sessionId } = await browser.send("Target.attachToTarget", { targetId, flatten: false });
  const errors: string[] = [];
  const answers = new Map<number, (message: { result?: unknown; error?: { message: string } }) => void>();
  browser.on("Target.receivedMessageFromTarget", ({ sessionId: of, message }) => {
    const { id, method, params, ...answer } = JSON.parse(message);
    if (of !== sessionId) return;
    if (method === "Runtime.exceptionThrown" || (method === "Runtime.consoleAPICalled" && params.type === "error") || (method === "Log.entryAdded" && params.entry.level === "error")) errors.push(message);
    answers.get(id)?.(answer);
  });
  let number = 0;
  async function send(method: string, params: object = {}): Promise<unknown> {
    const id = ++number;
    const answer = new Promise<{ result?: unknown; error?: { message: string } }>((resolve) => answers.set(id, resolve));
    await browser.send("Target.sendMessageToTarget", { sessionId, message: JSON.stringify({ id, method, params }) });
    const { result, error } = await answer;
    answers.delete(id);
    if (error) throw new Error(`${method}: ${error.message}`);
    return result;
  }
  const evaluate: Evaluate = async (body, argument) => {
    const expression = `(${String(body)})(${JSON.stringify(argument) ?? ""})`;
    const { result, exceptionDetails } = (await send("Runtime.evaluate", { expression, awaitPromise: true, returnByValue: true })) as { result: { value: never }; exceptionDetails?: object };
    if (exceptionDetails) throw new Error(JSON.stringify(exceptionDetails));
    return result.value;
  };
  for (const domain of ["Runtime", "Log", "Page"]) await send(`${domain}.enable`);
  await expect.poll(() => evaluate(() => "webjepa" in globalThis, undefined), { timeout: 10_000 }).toBe(true);
  return {
    evaluate,
    send,
    async close() {
      await browser.send("Target.closeTarget", { targetId });
      await browser.detach();
      expect(errors).toEqual([]);
    },
  };
}

it.each(["cpu", "webgpu"] as const)("frozen three times in the middle of a run, %s", async (backend) => {
  const expected = await undisturbed(backend);
  const { evaluate, send, close } = await openHidden();
  await evaluate(() => {
    const events: string[] = [];
    Object.assign(globalThis, { events });
    for (const name of ["freeze", "resume"]) document.addEventListener(name, () => events.push(`${name}, ${document.visibilityState}`));
  }, undefined);
  await begin(evaluate, backend);
  const before = await stepsIn(evaluate);
  for (let time = 0; time < 3; time++) {
    await send("Page.setWebLifecycleState", { state: "frozen" });
    await new Promise((resolve) => setTimeout(resolve, 1000));
    await send("Page.setWebLifecycleState", { state: "active" });
  }
  const after = await stepsIn(evaluate);
  const found = await end(evaluate);
  const events = await evaluate(() => (globalThis as never as { events: string[] }).events, undefined);
  await close();
  console.log(`frozen, ${backend}: ${JSON.stringify({ steps: [before, after], told: found.told })}`);
  expect(events).toEqual(Array.from({ length: 3 }, () => ["freeze, hidden", "resume, hidden"]).flat());
  expect(before).toBeLessThan(60);
  expect(found).toEqual(expected);
  expect(found.losses).toHaveLength(60);
  expect(found.told).toEqual([]);
});

it.each(["cpu", "webgpu"] as const)("under pressure for memory, %s", async (backend) => {
  const expected = await undisturbed(backend);
  const session = await test.page.context().newCDPSession(test.page);
  await begin(inTest, backend);
  const before = await stepsIn(inTest);
  for (let time = 0; time < 10; time++) await session.send("Memory.simulatePressureNotification", { level: "critical" });
  const after = await stepsIn(inTest);
  const found = await end(inTest);
  console.log(`pressure, ${backend}: ${JSON.stringify({ steps: [before, after], told: found.told })}`);
  expect(before).toBeLessThan(60);
  expect(found).toEqual(expected);
  expect(found.told).toEqual([]);
});
