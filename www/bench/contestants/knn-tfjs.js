// TensorFlow.js: one product of queries and resident unit rows, `topk`, and the vote of the few on the host.
import { load } from "./tfjs.js";

export async function create({ libraries, task, threads = 1 }) {
  const tf = await load(libraries, "wasm", threads);
  const { count, size, classes, k, temperature, embeddings, queries, batch } = task;
  const unit = (x) => tf.div(x, tf.norm(x, "euclidean", 1, true));
  // The wasm backend is quick for plain products only, so the rows are columns.
  const columns = tf.tidy(() => tf.transpose(unit(tf.tensor2d(embeddings, [count, size]))));
  return {
    setting: "wasm",
    async run() {
      const { values, indices } = tf.tidy(() => tf.topk(tf.matMul(unit(tf.tensor2d(queries, [batch, size])), columns), k, false));
      const [similarities, rows] = await Promise.all([values.data(), indices.data()]);
      tf.dispose([values, indices]);
      const scores = new Float32Array(batch * classes);
      for (let query = 0; query < batch; query++) {
        const votes = similarities.slice(query * k, (query + 1) * k).map((similarity) => Math.exp(similarity / temperature));
        const total = votes.reduce((a, b) => a + b, 0);
        votes.forEach((vote, i) => (scores[query * classes + (rows[query * k + i] % classes)] += vote / total));
      }
      return scores;
    },
  };
}
