// webjepa through its public API: the trainer at its defaults, told what the task fixes and the number of threads.
import { safetensors } from "../models.mjs";
import { whereItComputes } from "./webjepa.js";

const sizes = ({ hiddenSize, layers, heads }) => ({ hiddenSize, layers, heads });

export async function create({ libraries, task, device, threads, worker = true }) {
  const { Trainer } = await import(libraries.webjepa);
  const { batch, imageSize, patchSize, encoder, predictor, eps, optimizer, momentum, targets: blocks, contextLength, targetLength } = task;
  const { lr, weightDecay, ...constants } = optimizer;
  const size = { width: imageSize, height: imageSize, channels: 3 };
  const trainer = await Trainer.create({
    backend: device,
    threads,
    worker,
    model: { ...sizes(encoder), imageSize, patchSize, channels: 3, layerNormEps: eps, predictor: sizes(predictor) },
    from: { "model.safetensors": new Blob(safetensors(task.weights())) },
    objective: "ijepa",
    batchSize: batch,
    schedule: { steps: 2 ** 32 - 1, lr, startLr: lr, finalLr: lr, weightDecay, finalWeightDecay: weightDecay, ema: momentum, finalEma: momentum },
    optimizer: constants,
  });
  const lists = (tokens, length) => Array.from({ length: tokens.length / length }, (_, i) => Uint32Array.from(tokens.subarray(i * length, (i + 1) * length)));
  return {
    setting: whereItComputes(worker, trainer.threads),
    async step(i) {
      const { interleaved, context, targets } = task.inputs(i);
      const each = lists(targets, targetLength);
      const masks = { context: lists(context, contextLength), targets: Array.from({ length: blocks }, (_, block) => each.slice(block * batch, (block + 1) * batch)) };
      return (await trainer.step(interleaved.map((data) => ({ data, ...size })), { masks, preprocess: false })).loss;
    },
    dispose: () => trainer.dispose(),
  };
}
