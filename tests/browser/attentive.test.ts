// Attentive probes in a tab: both backends train the same probe in a worker, of either depth, and it tells the clips it was trained on.

import { afterEach, beforeEach, expect, it } from "vitest";
import { useLab, type TestPage } from "./harness.js";

const lab = useLab();
let test: TestPage;
beforeEach(async () => {
  test = await lab.openPage();
});
afterEach(() => test.close());

it.each([1, 4])("fits alike on both backends, depth %i", async (depth) => {
  const { labels, runs } = await test.page.evaluate(async (depth) => {
    // Stripes that stand still, and stripes that move.
    const labels = Array.from({ length: 8 }, (_, i) => (i % 2 === 0 ? "still" : "moving"));
    const clips = labels.map((label, i) =>
      Array.from({ length: 4 }, (_, t) => {
        const data = Uint8Array.from({ length: 32 * 32 * 3 }, (_, at) => 128 + 100 * Math.sin((Math.floor(at / 3) % 32) / (2 + i / 4) + (label === "moving" ? t * 1.5 : 0)));
        return { data, width: 32, height: 32, channels: 3 };
      }),
    );
    const jepa = await webjepa.Jepa.load(new URL("/fixtures/vjepa2_tiny_hf/", location.href), { backend: "cpu" });
    const tokens = await jepa.embed(clips, { pool: "none" });
    const runs = [];
    for (const backend of ["cpu", "webgpu"] as const) {
      const losses: number[] = [];
      const probe = await webjepa.AttentiveProbe.fit(tokens, labels, { backend, depth, steps: 12, batch: 8, learningRate: 3e-3, seed: 1, onProgress: ({ loss }) => losses.push(loss) });
      const predicted = await probe.predict(tokens);
      runs.push({ backend: probe.backend, config: probe.config, losses, labels: predicted.labels, scores: [...predicted.scores] });
      await probe.dispose();
    }
    await jepa.dispose();
    return { labels, runs };
  }, depth);
  const [cpu, gpu] = runs as [(typeof runs)[number], (typeof runs)[number]];
  expect([cpu.backend, gpu.backend, cpu.config.depth, gpu.config.depth]).toEqual(["cpu", "webgpu", depth, depth]);
  expect(cpu.losses).toHaveLength(12);
  // Two classes that a fresh probe does not know.
  expect(Math.abs(cpu.losses[0]! - Math.LN2)).toBeLessThan(0.05);
  expect(cpu.losses.at(-1)!).toBeLessThan(cpu.losses[0]! / 2);
  cpu.losses.forEach((loss, step) => expect(Math.abs(loss - gpu.losses[step]!), `step ${step}`).toBeLessThan(1e-5));
  expect(cpu.labels).toEqual(labels);
  expect(gpu.labels).toEqual(labels);
  cpu.scores.forEach((score, i) => expect(Math.abs(score - gpu.scores[i]!)).toBeLessThan(1e-5));
});
