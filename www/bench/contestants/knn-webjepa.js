// webjepa through its public API, at its defaults.

export async function create({ libraries, task }) {
  const { KnnClassifier } = await import(libraries.webjepa);
  const { count, size, classes, k, temperature, embeddings, queries, batch } = task;
  const classifier = KnnClassifier.fit({ data: embeddings, shape: [count, size] }, Array.from({ length: count }, (_, i) => i % classes));
  return {
    setting: "in the calling thread",
    run: async () => classifier.predict({ data: queries, shape: [batch, size] }, { k, temperature }).scores,
  };
}
