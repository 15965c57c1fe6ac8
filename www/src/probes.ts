// What embeddings know: classifiers that are fitted to labelled ones.

import { callCore, coreEpoch } from "./core.js";
import { JepaError } from "./errors.js";
import type { Matrix, Vector } from "./math.js";
import { anything, atLeast, checkFields, moreThan, oneOf, shown, whole, type Rule } from "./options.js";

/** What a class is called. */
export type Label = string | number | boolean;

/** Embeddings: one for each row of a matrix, as `embed` gives them for an array of pictures, or an array of vectors. */
export type Embeddings = Matrix | readonly Vector[];

/** Classes of embeddings. */
export interface Classified<L extends Label> {
  /** The class of the highest score of each embedding. */
  labels: L[];
  /** Row-major, `[n, classes]`. */
  scores: Float32Array;
  /** The classes in the order of the scores: that in which they first came up when the classifier was fitted. */
  classes: L[];
}

/** Classes by an attentive probe: scores are probabilities. */
export interface Probed<L extends Label = Label> extends Classified<L> {
  /** What the scores are the softmax of: row-major, `[n, classes]`. */
  logits: Float32Array;
}

export interface NeighbourOptions {
  /** How many neighbours vote; all of them if there are fewer. Default 20. */
  k?: number | undefined;
  /** A neighbour of cosine similarity s has weight exp(s / temperature). Default 0.07. */
  temperature?: number | undefined;
}

export interface LinearProbeOptions {
  /**
   * Default `"ridge"`: least squares to 1 for the class and 0 for the others, in closed form; needs a second for embeddings of 784
   * values. `"logistic"`: multinomial logistic regression, whose scores are probabilities.
   */
  method?: "ridge" | "logistic" | undefined;
  /** With `"ridge"`: how strongly weights are pulled to 0. Default: by generalised cross-validation. */
  ridge?: number | undefined;
  /** With `"logistic"`: how often the weights are moved. Default 2000. */
  steps?: number | undefined;
  /** With `"logistic"`: samples of a step; all of them if there are fewer. Default 256. */
  batch?: number | undefined;
  /** With `"logistic"`: learning rate of the first step, from where it falls to 0. Default 0.01. */
  learningRate?: number | undefined;
  /** With `"logistic"`: how strongly weights are pulled to 0. Default 1e-4. */
  weightDecay?: number | undefined;
  /** With `"logistic"`: of the order of the samples. Default 0. */
  seed?: number | undefined;
}

/** What the wasm module exports; kinds and lengths have been checked. */
interface GlueProbes {
  Neighbours: new (features: Float32Array, labels: Uint32Array, classes: number) => GlueNeighbours;
  fitRidge(features: Float32Array, labels: Uint32Array, classes: number, ridge: number | undefined): GlueProbe;
  fitLogistic(features: Float32Array, labels: Uint32Array, classes: number, steps: number, batch: number, learningRate: number, weightDecay: number, seed: number): GlueProbe;
  classifyLinearly(logistic: boolean, weights: Float32Array, bias: Float32Array, mean: Float32Array, std: Float32Array, queries: Float32Array): GlueClassified;
}

/** Labelled rows in the module. */
interface GlueNeighbours {
  /** Of the labelled rows themselves, each by the others, where there are no queries. */
  classify(queries: Float32Array | undefined, k: number, temperature: number): GlueClassified;
}

interface GlueClassified {
  labels: Uint32Array;
  scores: Float32Array;
}

interface GlueProbe {
  /** Of standardised features, `[classes, d]`. */
  weights: Float32Array;
  /** `[classes]`. */
  bias: Float32Array;
  /** `[d]`. */
  mean: Float32Array;
  /** `[d]`. */
  std: Float32Array;
}

const core = <T>(body: (exports: GlueProbes) => T): T => callCore<GlueProbes, T>(body);

/**
 * Gives an embedding the class of the labelled embeddings that are most similar to it: no training, and as good for a handful as for
 * thousands. The published evaluation of DINO, whose settings are the defaults.
 *
 * @example
 * const classifier = KnnClassifier.fit(await jepa.embed(pictures), ["cat", "dog", "cat"]);
 * const { labels } = classifier.predict(await jepa.embed([another]));
 */
export class KnnClassifier<L extends Label = Label> {
  readonly #samples: Samples<L>;
  /** The same in the module, from the first vote on, and since when. The garbage collector frees it with this object. */
  #resident: { neighbours: GlueNeighbours; epoch: number } | undefined;

  /**
   * Remembers labelled embeddings.
   *
   * @param labels - the class of each
   * @throws {@link JepaError} `bad-input` when numbers of embeddings and labels differ, or a value is not finite
   */
  static fit<L extends Label>(embeddings: Embeddings, labels: readonly L[]): KnnClassifier<L> {
    return new KnnClassifier(samplesOf(embeddings, labels));
  }

  private constructor(samples: Samples<L>) {
    this.#samples = samples;
  }

  /** In the order in which they first came up. */
  get classes(): L[] {
    return [...this.#samples.classes];
  }

  /**
   * The classes of embeddings; scores are shares of the vote, of sum 1.
   *
   * @throws {@link JepaError} `bad-input` when embeddings have another length, a value is not finite, or an option is out of range
   */
  predict(embeddings: Embeddings, options: NeighbourOptions = {}): Classified<L> {
    return this.#vote(options, rowsLike(embeddings, this.#samples.width));
  }

  /** The classes of the labelled embeddings themselves, each by the others: an honest estimate from few. */
  leaveOneOut(options: NeighbourOptions = {}): Classified<L> {
    return this.#vote(options, undefined);
  }

  #vote(options: NeighbourOptions, queries: Float32Array | undefined): Classified<L> {
    checkFields("", options, NEIGHBOURS);
    const { k = 20, temperature = 0.07 } = options;
    const { data, numbers, classes } = this.#samples;
    const classified = core((glue) => {
      if (this.#resident?.epoch !== coreEpoch()) this.#resident = { neighbours: new glue.Neighbours(data, numbers, classes.length), epoch: coreEpoch() };
      return this.#resident.neighbours.classify(queries, k, temperature);
    });
    return named(classified, classes);
  }
}

/**
 * Gives an embedding the class that a linear function of its values says: the usual measure of what embeddings know.
 *
 * @example
 * const probe = LinearProbe.fit(await jepa.embed(pictures), labels);
 * localStorage.probe = JSON.stringify(probe);
 * LinearProbe.fromJSON(JSON.parse(localStorage.probe)).predict(await jepa.embed([another])).labels;
 */
export class LinearProbe<L extends Label = Label> {
  readonly #method: "ridge" | "logistic";
  readonly #probe: GlueProbe;
  readonly #classes: readonly L[];

  /**
   * Fits a probe to labelled embeddings.
   *
   * @param labels - the class of each; two different ones at least
   * @throws {@link JepaError} `bad-input` when numbers of embeddings and labels differ, all are of one class, a value is not finite, or
   * an option is out of range
   */
  static fit<L extends Label>(embeddings: Embeddings, labels: readonly L[], options: LinearProbeOptions = {}): LinearProbe<L> {
    checkFields("", options, PROBE);
    const method = oneOf("method", options.method ?? "ridge", METHODS);
    const others = Object.entries(options).find(([name, value]) => value !== undefined && name !== "method" && (method === "ridge") !== (name === "ridge"));
    if (others) throw new JepaError("bad-input", `The option ${others[0]} is not one of method "${method}".`);
    const { ridge, steps = 2000, batch = 256, learningRate = 0.01, weightDecay = 1e-4, seed = 0 } = options;
    const { data, numbers, classes } = samplesOf(embeddings, labels);
    const probe = core((glue) =>
      method === "ridge" ? glue.fitRidge(data, numbers, classes.length, ridge) : glue.fitLogistic(data, numbers, classes.length, steps, batch, learningRate, weightDecay, seed),
    );
    return new LinearProbe(method, probe, classes);
  }

  /**
   * A probe as {@link LinearProbe.toJSON} wrote it.
   *
   * @throws {@link JepaError} `bad-input` when it is none, or contradicts itself
   */
  static fromJSON(json: unknown): LinearProbe {
    const { method, classes, weights, bias, mean, std } = (typeof json === "object" && json !== null ? json : {}) as Record<string, unknown>;
    const lists = { weights, bias, mean, std };
    const isProbe = METHODS.includes(method) && Array.isArray(classes) && Object.values(lists).every((list) => Array.isArray(list) && list.every((value) => Number.isFinite(value)));
    const probe = isProbe ? (Object.fromEntries(Object.entries(lists).map(([name, list]) => [name, Float32Array.from(list as number[])])) as unknown as GlueProbe) : undefined;
    const [count, width] = [(classes as Label[] | undefined)?.length ?? 0, probe?.mean.length ?? 0];
    if (!probe || count === 0 || width === 0 || probe.bias.length !== count || probe.std.length !== width || probe.weights.length !== count * width || probe.std.some((value) => value <= 0)) {
      throw new JepaError("bad-input", "This is no saved probe, or a damaged one: fit it again.");
    }
    return new LinearProbe(method as "ridge" | "logistic", probe, [...(classes as Label[])]);
  }

  private constructor(method: "ridge" | "logistic", probe: GlueProbe, classes: readonly L[]) {
    this.#method = method;
    this.#probe = probe;
    this.#classes = classes;
  }

  /** In the order in which they first came up. */
  get classes(): L[] {
    return [...this.#classes];
  }

  /**
   * The classes of embeddings. Scores are probabilities for `"logistic"`; for `"ridge"` they are about that, but can be below 0 or
   * above 1.
   *
   * @throws {@link JepaError} `bad-input` when embeddings have another length, or a value is not finite
   */
  predict(embeddings: Embeddings): Classified<L> {
    const { weights, bias, mean, std } = this.#probe;
    const queries = rowsLike(embeddings, mean.length);
    return named(core((glue) => glue.classifyLinearly(this.#method === "logistic", weights, bias, mean, std, queries)), this.#classes);
  }

  /** All of the probe, for `JSON.stringify`. */
  toJSON(): object {
    const { weights, bias, mean, std } = this.#probe;
    return { method: this.#method, classes: this.#classes, weights: [...weights], bias: [...bias], mean: [...mean], std: [...std] };
  }
}

const METHODS: readonly unknown[] = ["ridge", "logistic"];
const NEIGHBOURS: Record<keyof NeighbourOptions, Rule> = { k: whole(1), temperature: moreThan(0) };
const PROBE: Record<keyof LinearProbeOptions, Rule> = {
  method: anything,
  ridge: moreThan(0),
  steps: whole(1),
  batch: whole(1),
  learningRate: moreThan(0),
  weightDecay: atLeast(0),
  seed: whole(0),
};

/** Labelled embeddings as the module takes them. */
interface Samples<L> {
  /** Row-major, `[n, width]`. */
  data: Float32Array;
  width: number;
  /** The class of each row, as its place in `classes`. */
  numbers: Uint32Array;
  classes: readonly L[];
}

function samplesOf<L extends Label>(embeddings: Embeddings, labels: readonly L[]): Samples<L> {
  const { data, width } = rowsOf(embeddings);
  const count = data.length / width;
  const wrong = data.findIndex((value) => !Number.isFinite(value));
  if (wrong >= 0) throw new JepaError("bad-input", `Value ${wrong % width} of embedding ${Math.floor(wrong / width)} is ${data[wrong]}; embeddings must be finite.`);
  return { data, width, ...numbered(labels, count) };
}

/**
 * Labels by the numbers of their classes, which count in the order in which they first come up.
 *
 * @internal
 */
export function numbered<L extends Label>(labels: readonly L[], count: number): { numbers: Uint32Array; classes: readonly L[] } {
  if (!Array.isArray(labels)) throw new JepaError("bad-input", `Labels are an array with one for each embedding, not ${shown(labels)}.`);
  if (labels.length !== count) throw new JepaError("bad-input", `There are ${count} embeddings and ${labels.length} labels; give one for each.`);
  const classes = new Map<L, number>();
  const numbers = Uint32Array.from(labels, (label: L) => {
    if (!["string", "number", "boolean"].includes(typeof label)) throw new JepaError("bad-input", `A label is a text, a number or a boolean, not ${shown(label)}.`);
    if (!classes.has(label)) classes.set(label, classes.size);
    return classes.get(label)!;
  });
  return { numbers, classes: [...classes.keys()] };
}

function rowsLike(embeddings: Embeddings, expected: number): Float32Array {
  const { data, width } = rowsOf(embeddings);
  if (width !== expected) throw new JepaError("bad-input", `This was fitted to embeddings of ${expected} values, and these have ${width}.`);
  return data;
}

/** A copy of the rows, one at least. */
function rowsOf(embeddings: Embeddings): { data: Float32Array; width: number } {
  const list = Array.isArray(embeddings) ? (embeddings as readonly Vector[]) : undefined;
  if (!list) {
    const { data, shape } = (embeddings ?? {}) as Matrix;
    const width = shape?.at(-1) ?? 0;
    if (!(data instanceof Float32Array) || width < 1 || data.length === 0 || data.length !== shape.reduce((a, b) => a * b, 1)) throw new JepaError("bad-input", UNKNOWN);
    return { data: data.slice(), width };
  }
  const vectors = list.map((vector): ArrayLike<number> => {
    const values: unknown = typeof vector === "object" && vector !== null && "data" in vector ? vector.data : vector;
    if (!ArrayBuffer.isView(values) && !Array.isArray(values)) throw new JepaError("bad-input", UNKNOWN);
    return values as ArrayLike<number>;
  });
  const width = vectors[0]?.length ?? 0;
  if (width === 0) throw new JepaError("bad-input", "There is no embedding.");
  const other = vectors.findIndex(({ length }) => length !== width);
  if (other >= 0) throw new JepaError("bad-input", `Embedding ${other} has ${vectors[other]!.length} values, and embedding 0 has ${width}.`);
  const data = new Float32Array(vectors.length * width);
  vectors.forEach((vector, i) => data.set(vector, i * width));
  return { data, width };
}

const UNKNOWN = "Embeddings are what embed gives for an array of pictures, { data, shape: [n, D] }, or an array of vectors.";

function named<L extends Label>({ labels, scores }: GlueClassified, classes: readonly L[]): Classified<L> {
  return { labels: Array.from(labels, (label) => classes[label]!), scores, classes: [...classes] };
}

/**
 * What an attentive probe makes of samples.
 *
 * @internal
 */
export function probed<L extends Label>(result: GlueClassified & { logits: Float32Array }, classes: readonly L[]): Probed<L> {
  return { ...named(result, classes), logits: result.logits };
}

/**
 * What the classes of an attentive probe are called; their numbers where nothing says.
 *
 * @internal
 */
export function namesOf({ classes, labels }: { classes: number; labels: string | null }): Label[] {
  const names = JSON.parse(labels ?? "null") as Label[] | null;
  return names ?? Array.from({ length: classes }, (_, i) => i);
}
