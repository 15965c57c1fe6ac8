/** Groups of two or more that hang together: each is like another of its group. */
export function groupsOf(items, alike) {
  const parent = items.map((_, i) => i);
  const root = (i) => (parent[i] === i ? i : (parent[i] = root(parent[i])));
  for (let i = 0; i < items.length; i++) {
    for (let j = 0; j < i; j++) if (alike(items[i], items[j])) parent[root(i)] = root(j);
  }
  const groups = items.map(() => []);
  items.forEach((item, i) => groups[root(i)].push(item));
  return groups.filter(({ length }) => length > 1);
}

/** Takes the mean of all vectors away from each, in place. */
export function withoutMean(vectors) {
  const mean = vectors[0]?.map((_, d) => vectors.reduce((sum, vector) => sum + vector[d], 0) / vectors.length);
  for (const vector of vectors) vector.forEach((value, d) => (vector[d] = value - mean[d]));
}
