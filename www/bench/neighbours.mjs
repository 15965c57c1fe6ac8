// The task of the nearest neighbours: classes of queries by the most similar labelled embeddings. All of it is pseudo-random (tests/fixtures/README.md §3).
import { pseudoRandom } from "./models.mjs";

const SALT = "bench/knn/";
const GEOMETRIES = { "knn-10k": { count: 10_000, size: 192, classes: 10, k: 20, temperature: 0.07 } };

/** `embeddings`, `[count, size]`, of which number i has class `i % classes`, and `queries`, `[batch, size]`. */
export function neighboursTask(name, batch) {
  const task = GEOMETRIES[name];
  return { ...task, batch, embeddings: pseudoRandom(`${SALT}embeddings`, task.count * task.size, 1), queries: pseudoRandom(`${SALT}queries`, batch * task.size, 1) };
}
