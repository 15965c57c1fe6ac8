// Rollouts a second of the world model of the demo, 300 sequences of 5 actions, in Node: node www/bench/rollouts.mjs
//
// Both backends in one process, in turns, on one model and the same actions; WebGPU on lavapipe, so only for the comparison. What a planner
// does besides, and reading 300 × 5 embeddings back, is in the time. Needs pkg/ (npm run build) and lavapipe (docs/benchmarks.md).

import { fileURLToPath } from "node:url";
import { answering, inProcess } from "./process.mjs";
import { maxAbsDiff } from "./measure.js";

const [SAMPLES, HORIZON, ROUNDS] = [300, 5, 15];

async function measure() {
  await import("./dawn.mjs");
  const { WorldModel } = await import("../../pkg/dist/index.js");
  const folder = fileURLToPath(new URL("../demo/models/two-rooms", import.meta.url));
  const picture = (seed) => ({ data: Uint8Array.from({ length: 56 * 56 * 3 }, (_, i) => Math.imul(i + seed, 2654435761) >>> 24), width: 56, height: 56, channels: 3 });
  const numbers = (count, seed) => Float32Array.from({ length: count }, (_, i) => Math.sin(i * 0.7 + seed));
  const sides = [];
  for (const backend of ["cpu", "webgpu"]) {
    const world = await WorldModel.load(folder, { backend, worker: false });
    if (world.backend !== backend) throw new Error(`there is no ${backend} here`);
    sides.push({ backend, world, from: (await world.encode(picture(1))).data, times: [] });
  }
  const actions = Array.from({ length: SAMPLES }, (_, i) => Array.from({ length: HORIZON }, (_, step) => numbers(sides[0].world.actionSize, i * HORIZON + step)));
  // The first round warms up.
  for (let round = 0; round <= ROUNDS; round++) {
    for (const side of sides) {
      const start = performance.now();
      side.last = (await side.world.rollout(side.from, actions)).data;
      if (round > 0) side.times.push(performance.now() - start);
    }
  }
  const apart = maxAbsDiff(sides[0].last, sides[1].last);
  return { apart, rows: sides.map(({ backend, times }) => ({ backend, times: times.sort((a, b) => a - b) })) };
}

if (process.send) answering(measure);
else {
  const { apart, rows } = await inProcess(import.meta.url, {});
  console.log(`| 300 × 5 | median | least – most | rollouts a second |\n|---|---|---|---|`);
  for (const { backend, times } of rows) {
    const median = times[times.length >> 1];
    console.log(`| ${backend} | ${median.toFixed(0)} ms | ${times[0].toFixed(0)} – ${times.at(-1).toFixed(0)} | ${Math.round((SAMPLES / median) * 1e3).toLocaleString("en")} |`);
  }
  console.log(`\nEmbeddings differ by at most ${apart.toExponential(1)}.`);
}
