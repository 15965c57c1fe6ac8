/** How much farther an embedding is from what was learnt than any of the learnt ones is from the others: above 1 is unusual. */
export class Usual {
  #embeddings = [];
  #radius = 0;

  get count() {
    return this.#embeddings.length;
  }

  learn(embedding) {
    if (this.count > 0) this.#radius = Math.max(this.#radius, this.#nearest(embedding));
    this.#embeddings.push(embedding);
  }

  strangeness(embedding) {
    // Twice the noise of a scene in which nothing happened; a camera that shows one picture only has none.
    return this.#nearest(embedding) / (2 * this.#radius || 1e-3);
  }

  #nearest(embedding) {
    return Math.min(...this.#embeddings.map((other) => Math.hypot(...embedding.map((value, d) => value - other[d]))));
  }
}
