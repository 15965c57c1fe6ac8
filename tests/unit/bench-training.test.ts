// What the training bench stands on: masks as promised, and rivals whose steps are those of the published implementation.
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import "../../www/bench/iterators.mjs";
import { create as createJax } from "../../www/bench/contestants/train-jax.js";
import { create as createTfjs } from "../../www/bench/contestants/train-tfjs.js";
import { pseudoRandom } from "../../www/bench/models.mjs";
import { KEPT, trainingTask } from "../../www/bench/training.mjs";

const at = (path: string) => new URL(`../../${path}`, import.meta.url);
const json = (path: string) => JSON.parse(readFileSync(at(`tests/fixtures/${path}`), "utf8"));

describe("training task", () => {
  const task = trainingTask("ijepa-64", 4);

  it("predicts whole blocks from a context that has none of their patches", () => {
    const [rows, columns] = task.grid as [number, number];
    const [height, width] = task.targetBlock as [number, number];
    const tops = new Set<number>();
    for (let step = 0; step < 8; step++) {
      const { context, targets } = task.inputs(step);
      expect(context.length).toBe(task.batch * task.contextLength);
      expect(targets.length).toBe(task.targets * task.batch * task.targetLength);
      for (let sequence = 0; sequence < task.targets * task.batch; sequence++) {
        const block = [...targets.subarray(sequence * task.targetLength, (sequence + 1) * task.targetLength)];
        const [top, left] = [Math.floor(block[0]! / columns), block[0]! % columns];
        expect(top + height).toBeLessThanOrEqual(rows);
        expect(left + width).toBeLessThanOrEqual(columns);
        expect(block).toEqual(block.map((_, i) => (top + Math.floor(i / width)) * columns + left + (i % width)));
        tops.add(block[0]!);

        const image = sequence % task.batch;
        const seen = new Set(context.subarray(image * task.contextLength, (image + 1) * task.contextLength));
        expect(seen.size).toBe(task.contextLength);
        expect(block.filter((token) => seen.has(token))).toEqual([]);
      }
    }
    expect(tops.size).toBeGreaterThan(20);
  });

  it.each(KEPT)("leaves %i patches, of which none is predicted", (kept) => {
    const { context, targets } = trainingTask(`kept-${kept}`, 2).inputs(0);
    expect([context.length, targets.length]).toEqual([2 * kept, 2]);
    targets.forEach((token: number, image: number) => expect([...context.subarray(image * kept, (image + 1) * kept)]).not.toContain(token));
  });

  it("starts the target encoder as a copy of the encoder", () => {
    const weights = task.weights();
    const own = weights.get("encoder.blocks.5.mlp.fc2.weight")!;
    expect(own.shape).toEqual([192, 768]);
    expect(weights.get("target_encoder.blocks.5.mlp.fc2.weight")!.data).toEqual(own.data);
    expect([...weights.keys()].filter((name) => name.startsWith("target_")).length).toBe([...weights.keys()].filter((name) => name.startsWith("encoder.")).length);
  });
});

/** The fixture as a task: `params` and `config` of tests/fixtures/README.md §5.1. */
function fixtureTask() {
  const { params: p, inputs, weights } = json("manifest.json").files["ijepa_tiny.json"];
  const { config, losses_3_steps: losses } = json("ijepa_tiny.json");
  const file = readFileSync(at(`tests/fixtures/${weights}`));
  const start = 8 + Number(file.readBigUInt64LE(0));
  const { __metadata__, ...header } = JSON.parse(file.toString("utf8", 8, start)) as Record<string, { shape: number[]; data_offsets: [number, number] }>;
  const tensors = new Map(
    Object.entries(header).map(([name, { shape, data_offsets: [from, to] }]) => [name, { shape, data: new Float32Array(new Uint8Array(file.subarray(start + from, start + to)).buffer) }]),
  );
  const { seed, shape, amp } = inputs.image;
  const [context] = config.masks_ctx;
  const batch = {
    planar: pseudoRandom(seed, shape.reduce((a: number, b: number) => a * b), amp),
    context: Int32Array.from(context.flat()),
    targets: Int32Array.from(config.masks_pred.flat(2)),
  };
  const task = {
    patchSize: p.patch,
    grid: [p.grid, p.grid],
    batch: p.batch,
    encoder: { hiddenSize: p.embed, layers: p.depth, heads: p.heads },
    predictor: { hiddenSize: p.pred_dim, layers: p.pred_depth, heads: p.pred_heads },
    eps: p.ln_eps,
    targetEps: 1e-5,
    contextLength: context[0].length,
    targetLength: config.masks_pred[0][0].length,
    targets: config.masks_pred.length,
    optimizer: { lr: p.lr, weightDecay: p.weight_decay, beta1: p.beta1, beta2: p.beta2, eps: p.adam_eps },
    momentum: p.ema,
    weights: () => tensors,
    inputs: () => batch,
  };
  return { task, losses: losses as number[] };
}

describe("rivals", () => {
  const { task, losses } = fixtureTask();
  const libraries = {
    jax: at("node_modules/@jax-js/jax/dist/index.js").href,
    tfjs: at("node_modules/@tensorflow/tfjs/dist/tf.node.js").href,
    tfjsWasm: at("node_modules/@tensorflow/tfjs-backend-wasm/dist/tf-backend-wasm.node.js").href,
    tfjsWasmFiles: fileURLToPath(at("node_modules/@tensorflow/tfjs-backend-wasm/dist/")),
  };
  const sides = {
    "jax-js": () => createJax({ libraries, task, device: "cpu" }),
    "TensorFlow.js": () => createTfjs({ libraries, task, device: "cpu" }),
    "TensorFlow.js with joined parameters": () => createTfjs({ libraries, task, device: "cpu", joined: true }),
  };

  // Without weight decay the losses would be 1e-6 off, with the encoder's eps for the targets 4e-6, without the moving average 2e-5.
  it.each(Object.entries(sides))("%s takes the published implementation's steps", async (_, create) => {
    const side = await create();
    for (const [step, loss] of losses.entries()) expect(Math.abs((await side.step(step)) - loss)).toBeLessThan(5e-7);
    side.dispose();
  });
});
