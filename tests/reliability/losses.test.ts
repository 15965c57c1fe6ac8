// The GPU device is lost again and again, at any moment: what was asked then fails with `device-lost` or is right, and the next call is right.

import { afterEach, beforeEach, expect, it } from "vitest";
import { useLab, type TestPage } from "../browser/harness.js";
import { count } from "./page.js";

const lab = useLab();
let test: TestPage;
beforeEach(async () => {
  test = await lab.openPage();
  await count(test.page);
});
afterEach(() => test.close());

const LOSSES = 100;

it("embeds after each of 100 losses as before", async () => {
  const outcome = await test.page.evaluate(
    async ([source, losses]) => {
      let state = 12345;
      const random = () => (state = (state * 48271) % 2147483647) / 2147483647;
      const pictures = Array.from({ length: 24 }, (_, i) => new ImageData(new Uint8ClampedArray(24 * 24 * 4).fill(10 * i), 24, 24));
      const jepa = await webjepa.Jepa.load(source, { backend: "webgpu", worker: false });
      const expected = (await jepa.embed(pictures)).data;
      const wrong = (data: Float32Array) => data.some((value, i) => value !== expected[i]);
      const counts = { failed: 0, answered: 0, wrong: 0, codes: [] as string[] };
      for (let loss = 0; loss < losses; loss++) {
        const call = jepa.embed(pictures).then(
          ({ data }) => {
            counts.answered++;
            if (wrong(data)) counts.wrong++;
          },
          (error: { code: string }) => {
            counts.failed++;
            if (!counts.codes.includes(error.code)) counts.codes.push(error.code);
          },
        );
        await new Promise((resolve) => setTimeout(resolve, 40 * random()));
        const device = counted.devices.at(-1)!;
        device.destroy();
        await call;
        // A call that begins before anybody has heard of the loss fails with it.
        await device.lost;
        if (wrong((await jepa.embed(pictures)).data)) counts.wrong++;
      }
      return { ...counts, devices: counted.devices.length };
    },
    ["/fixtures/ijepa_tiny_hf", LOSSES] as const,
  );
  console.log(`losses while embedding: ${JSON.stringify(outcome)}`);
  expect(outcome).toMatchObject({ wrong: 0, devices: LOSSES + 1 });
  expect(outcome.failed + outcome.answered).toBe(LOSSES);
  expect(outcome.codes.filter((code) => code !== "device-lost")).toEqual([]);
});

it("trains to the end through 30 losses, each resumed from the last save", async () => {
  const outcome = await test.page.evaluate(async (losses) => {
    let state = 54321;
    const random = () => (state = (state * 48271) % 2147483647) / 2147483647;
    const pictures = Array.from({ length: 12 }, (_, i) => new ImageData(Uint8ClampedArray.from({ length: 32 * 32 * 4 }, (_, at) => (at * (i + 3) * 37) % 256), 32, 32));
    const steps = 3 * losses;
    const options = {
      model: { imageSize: 32, patchSize: 8, hiddenSize: 24, layers: 2, heads: 2, predictor: { hiddenSize: 12, layers: 1, heads: 2 } },
      batchSize: 4,
      schedule: { steps, lr: 1e-3, startLr: 1e-3, warmupSteps: 0 },
      backend: "webgpu",
      worker: false,
    } as const;
    const unbroken = await webjepa.Trainer.create(options);
    const expected: number[] = [];
    for await (const { loss } of unbroken.run(pictures)) expected.push(loss);
    await unbroken.dispose();

    const store = webjepa.memoryStore();
    const autosave = { every: 1, store };
    let trainer = await webjepa.Trainer.create({ ...options, autosave });
    await store.write(await trainer.save());
    const found: number[] = [];
    let lost = 0;
    const codes: string[] = [];
    while (trainer.info.step < steps) {
      const step = trainer.info.step;
      const losing = lost < losses && step % 3 === 1;
      if (losing) setTimeout(() => counted.devices.at(-1)!.destroy(), 60 * random());
      try {
        for await (const { loss } of trainer.run(pictures, { steps: losing ? 2 : 1 })) found[trainer.info.step - 1] = loss;
        if (losing) await new Promise((resolve) => setTimeout(resolve, 70));
        if (losing) await trainer.lastMasks();
      } catch (error) {
        lost++;
        const { code } = error as { code: string };
        if (!codes.includes(code)) codes.push(code);
        await trainer.dispose();
        trainer = await webjepa.Trainer.resumeFrom(store, { backend: "webgpu", worker: false, autosave });
      }
    }
    const apart = Math.max(...expected.map((loss, i) => (found[i] === undefined ? 0 : Math.abs(loss - found[i]))));
    return { lost, codes, steps: trainer.info.step, last: found.at(-1) !== undefined, apart };
  }, 30);
  console.log(`losses while training: ${JSON.stringify(outcome)}`);
  expect(outcome).toMatchObject({ codes: ["device-lost"], steps: 90, last: true });
  expect(outcome.lost).toBeGreaterThanOrEqual(25);
  expect(outcome.apart).toBeLessThan(1e-4);
});
