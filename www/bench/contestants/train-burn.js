// burn as it comes, on burn-flex with SIMD: www/bench/burn, a module of its own.
import { decays, transposed } from "../training.mjs";

export async function create({ libraries, task }) {
  const { default: init, Trainer } = await import(libraries.burn);
  await init({ module_or_path: new URL("webjepa_bg.wasm", libraries.burn) });
  const { weights, inputs, ...plain } = task;
  const trainer = new Trainer(JSON.stringify(plain));
  for (const [name, { shape, data }] of weights()) {
    const matrix = decays(name, shape) && !name.endsWith("mask_token") && !name.endsWith("pos_embed");
    // Linear weights come as [out, in], burn has them as [in, out].
    trainer.put(name, matrix ? transposed(data, shape[0], data.length / shape[0]) : data, decays(name, shape));
  }
  return {
    setting: "flex, SIMD",
    async step(i) {
      const { planar, context, targets } = inputs(i);
      return trainer.step(planar, context, targets);
    },
    dispose: () => trainer.free(),
  };
}
