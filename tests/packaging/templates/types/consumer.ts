// Uses the package as a strict project does that knows the DOM, and nothing of WebGPU or Node.

import { Jepa, JepaError, KnnClassifier, LinearProbe, Trainer, cosineSimilarity, opfsStore, pca, probeDevice, type Embedding, type ImageInput, type JepaErrorCode, type LoadOptions, type ModelSource, type Progress, type SaveStore } from "webjepa";
import { Jepa as InThread } from "webjepa/core";
import { drawMasks, drawOverlay, drawScatter, featureMap, heatMap, predictionErrors, type Drawable } from "webjepa/viz";

const options: LoadOptions = { backend: "auto", dtype: "f16", worker: true, onProgress: ({ overall }: Progress) => void overall.toFixed(), signal: undefined };
export async function run(source: ModelSource, image: HTMLImageElement, code: JepaErrorCode): Promise<Embedding> {
  await using jepa = await Jepa.load(source, options);
  const images: ImageInput[] = [image, "a.png", new URL("https://example.org/a.png"), { data: new Uint8Array(3), width: 1, height: 1, channels: 3 }];
  const batch = await jepa.embed(images, { pool: "none", imageSize: [224, 448] });
  const colours: ImageData = new ImageData(pca(batch).toRGB(), jepa.grid[2], jepa.grid[1]);
  pca([batch, batch], { components: 5 })[1]?.project(batch).explainedVariance.at(0);
  const caps: boolean = (await probeDevice()).webgpu;
  if (caps && colours.width > 1 && cosineSimilarity(batch, [1, 2]) > 0.5) throw new JepaError(code, "no");
  const { error }: { error: Float32Array } = await jepa.predict(image, { context: [0, 1], targets: [Uint32Array.of(2), [3]] });
  const picture: Drawable = await createImageBitmap(image);
  drawOverlay(new OffscreenCanvas(1, 1), picture, featureMap(pca(await jepa.embed(image, { pool: "none" }))), { opacity: 0.5, side: undefined });
  drawOverlay(document.createElement("canvas"), picture, heatMap(predictionErrors(error, [[2], [3]], 196).values, 14, { low: 0 }));
  drawMasks(document.createElement("canvas"), picture, { rows: 14, columns: 14, context: [0, 1], targets: [Uint32Array.of(2), [3]] });
  drawScatter(new OffscreenCanvas(1, 1), pca(batch, { components: 2 }), { groups: [0, 1, 0, 1], pictures: [picture] });
  const store: SaveStore = opfsStore("run");
  await using trainer = await Trainer.create({ model: "vit-tiny/16@96", objective: { kind: "lejepa", lambda: error[0] }, autosave: { every: 9, store }, onWarning: (text) => void text.trim() });
  for await (const { loss, warning } of trainer.run({ length: 64, get: () => image }, { steps: 2 })) if (warning !== undefined) throw new Error(warning + loss.toFixed());
  const files: { "config.json": string; "model.safetensors": Uint8Array } = await trainer.export("hf");
  await Jepa.load(await trainer.export("hf")).then((loaded) => loaded.dispose(), () => files);
  const same: typeof Jepa = InThread;
  await (await same.load(source)).dispose();
  // @ts-expect-error: there is no such objective
  void Trainer.create({ model: "vit-tiny", objective: "mae" });
  // @ts-expect-error: there is no such pool
  void jepa.embed(image, { pool: "max" });
  // @ts-expect-error: models are loaded
  new Jepa();
  return jepa.embed(image);
}
