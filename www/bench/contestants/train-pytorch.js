// PyTorch, native: AdamW with all parameters in one kernel, the moving average over lists.
import { start } from "./pytorch.js";
import { ElsewhereTimed } from "../measure.js";

export async function create({ libraries, task, threads = 1 }) {
  const { weights, inputs, ...plain } = task;
  const { setting, run } = await start(libraries.pytorch, weights(), plain, threads);
  const { batch, contextLength, targetLength, targets, imageSize } = task;
  return {
    setting,
    async step(i) {
      const { planar, context, targets: wanted } = inputs(i);
      const { value, ms } = await run({
        pixels: { shape: [batch, 3, imageSize, imageSize], data: planar },
        context: { shape: [batch, contextLength], data: Float32Array.from(context) },
        targets: { shape: [targets * batch, targetLength], data: Float32Array.from(wanted) },
      });
      return new ElsewhereTimed(value[0], ms);
    },
    dispose() {},
  };
}
