// The rival of the bench of nearest neighbours, held to the definition of the vote.
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";
import { create } from "../../www/bench/contestants/knn-tfjs.js";
import { neighboursTask } from "../../www/bench/neighbours.mjs";

const at = (path: string) => new URL(`../../node_modules/@tensorflow/${path}`, import.meta.url);

it("votes by similarity", async () => {
  const task = { ...neighboursTask("knn-10k", 3), count: 400 };
  task.embeddings = task.embeddings.slice(0, task.count * task.size);
  const row = (data: Float32Array, i: number) => {
    const values = [...data.subarray(i * task.size, (i + 1) * task.size)];
    const norm = Math.hypot(...values);
    return values.map((value) => value / norm);
  };
  const expected = Array.from({ length: task.batch }, (_, query) => {
    const wanted = row(task.queries, query);
    const neighbours = Array.from({ length: task.count }, (_, i) => ({ i, similarity: row(task.embeddings, i).reduce((sum, value, j) => sum + value * wanted[j]!, 0) }))
      .sort((a, b) => b.similarity - a.similarity)
      .slice(0, task.k)
      .map(({ i, similarity }) => ({ i, weight: Math.exp(similarity / task.temperature) }));
    const total = neighbours.reduce((sum, { weight }) => sum + weight, 0);
    return Array.from({ length: task.classes }, (_, label) => neighbours.reduce((sum, { i, weight }) => sum + (i % task.classes === label ? weight / total : 0), 0));
  }).flat();

  const libraries = {
    tfjs: at("tfjs/dist/tf.node.js").href,
    tfjsWasm: at("tfjs-backend-wasm/dist/tf-backend-wasm.node.js").href,
    tfjsWasmFiles: fileURLToPath(at("tfjs-backend-wasm/dist/")),
  };
  const side = await create({ libraries, task });
  const scores: Float32Array = await side.run();
  expect(scores.length).toBe(30);
  expected.forEach((share, i) => expect(Math.abs(scores[i]! - share)).toBeLessThan(1e-5));
  expect(Math.max(...expected)).toBeLessThan(0.9);
});
