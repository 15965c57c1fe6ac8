// Attentive probes: classifiers of tokens, which find the ones that tell the class; those of the published evaluations of V-JEPA.

import { JepaError, throwIfAborted } from "./errors.js";
import type { GlueProbeInfo } from "./glue.js";
import { asyncDispose, isolated, Resident, type Advice, type LossListeners } from "./host.js";
import { BACKENDS, settled, type LoadOptions } from "./load-options.js";
import { aBoolean, aFunction, anObject, anything, atLeast, checkFields, moreThan, oneOf, shown, whole, type Rule } from "./options.js";
import { namesOf, numbered, probed, type Label, type Probed } from "./probes.js";
import type { Backend } from "./types.js";
import type { ModelSource } from "./weights.js";

/**
 * Tokens of pictures or clips, all of one number: `[B, N, D]` as `embed` gives them with `pool: "none"` for several, or an array of
 * `[N, D]`, as it gives them for one.
 */
export type TokenEmbeddings = TokenMatrix | readonly TokenMatrix[];

export interface TokenMatrix {
  data: Float32Array;
  shape: readonly number[];
}

/** How far a fit has come. */
export interface FitProgress {
  /** Steps that have been taken. */
  step: number;
  /** Of all. */
  steps: number;
  /** Cross entropy of the step's batch, before the step. */
  loss: number;
  /** The share of it whose class had the highest score, before the step. */
  accuracy: number;
  /** Learning rate of the step. */
  lr: number;
}

/** Defaults of `learningRate`, `warmup`, `weightDecay` and `clip` are those of V-JEPA 1's evaluation on video. */
export interface AttentiveProbeOptions extends Pick<LoadOptions, "backend" | "worker" | "signal" | "onLost"> {
  /** Blocks: 1 (default), in which a learnt query attends to the tokens, as of V-JEPA 1; 4, with three of self-attention before it, as of V-JEPA 2. */
  depth?: number | undefined;
  /** Attention heads, which divide D. Default 16 as in V-JEPA 2, or the most below that do. */
  heads?: number | undefined;
  /** Default 300. Published: 20 epochs. */
  steps?: number | undefined;
  /** Samples of a step; all of them if there are fewer. Default 16. */
  batch?: number | undefined;
  /** Learning rate after the warm-up, from where it falls to 0 in half a cosine. Default 1e-3. */
  learningRate?: number | undefined;
  /** Steps in which the learning rate rises from 0. Default 0. */
  warmup?: number | undefined;
  /** How strongly AdamW pulls weights to 0. Default 0.01. */
  weightDecay?: number | undefined;
  /** Longest gradient, to which longer ones are scaled; 0 for any length. Default 1. */
  clip?: number | undefined;
  /** Of fresh weights and of the order of the samples. Default 0. */
  seed?: number | undefined;
  /** Told of each step. */
  onProgress?: ((progress: FitProgress) => void) | undefined;
}

export interface AttentiveProbeLoadOptions<L extends Label = Label> extends Pick<LoadOptions, "backend" | "worker" | "onProgress" | "signal" | "cache" | "integrity" | "requestInit" | keyof LossListeners> {
  /**
   * Attention heads. Default: what the file says, or `config.json` beside it; 16 for one of the original projects. The encoder's for
   * V-JEPA 1's, where that has another number.
   */
  heads?: number | undefined;
  /** What the classes are called, in the order of the scores. Default: what the file says, or `id2label` of `config.json`; else numbers. */
  labels?: readonly L[] | undefined;
}

const LOADED: Advice = { disposed: "The probe has been disposed of; load it again.", lost: "The next call loads the probe again." };
const FITTED: Advice = { disposed: "The probe has been disposed of; load it from its save, or fit it again.", lost: "The probe is lost: load it from its save, or fit it again." };

/**
 * Gives tokens of a frozen encoder the class that a learnt query finds in them: more than a mean of tokens tells.
 *
 * @example
 * const probe = await AttentiveProbe.fit(await jepa.embed(clips, { pool: "none" }), labels, { onProgress });
 * const { labels: [label] } = await probe.predict(await jepa.embed(another, { pool: "none" }));
 * const file = await probe.save();
 * const again = await AttentiveProbe.load(file);
 */
export class AttentiveProbe<L extends Label = Label> {
  readonly #resident: Resident<GlueProbeInfo>;
  readonly #classes: readonly L[];

  /**
   * Trains a probe on labelled tokens. With the same seed, tokens and options the CPU backend gives the same probe bit for bit.
   *
   * @param tokens - must not be changed before the fit is over
   * @param labels - the class of each picture or clip; two different ones at least
   * @throws {@link JepaError} `bad-input`, also when the loss is no number any more; `bad-config` for sizes or a schedule that cannot be;
   * `aborted`, `device-lost`, `out-of-memory`, `no-webgpu` (only with `backend: "webgpu"`)
   */
  static async fit<L extends Label>(tokens: TokenEmbeddings, labels: readonly L[], options: AttentiveProbeOptions = {}): Promise<AttentiveProbe<L>> {
    const { backend = "auto", worker = true, signal, onProgress, onLost } = options;
    throwIfAborted(signal);
    checkFields("", options, FIT);
    oneOf("backend", backend, BACKENDS);
    const samples = samplesOf(tokens);
    const { list, width } = samples;
    const { numbers, classes } = numbered(labels, list.length);
    if (classes.length < 2) throw new JepaError("bad-input", "A probe needs labels of two classes at least.");
    const wrong = list.findIndex((values) => !values.every(Number.isFinite));
    if (wrong >= 0) throw new JepaError("bad-input", `Sample ${wrong} has a value that is not finite.`);
    const { depth = 1, heads = headsOf(width), batch = 16, seed = 0, steps = 300, learningRate = 1e-3, warmup = 0, weightDecay = 0.01, clip = 1 } = options;
    const fit = { steps, learningRate, warmup, weightDecay, clip };
    // Published probes have MLPs four times as wide as their tokens.
    const made = { hiddenSize: width, depth, heads, mlpHidden: 4 * width, labels: [...classes], seed };
    const resident = await Resident.settle((engine) => engine.call("newProbe", { backend, threads: "auto", options: made }, { signal }), { worker, advice: FITTED, signal, onLost });
    const tell = isolated(onProgress);
    try {
      for (let step = 0; step < steps; step++) {
        const progress = await resident.call(async (engine, id) => {
          const indices = await engine.call("samples", { id, length: list.length, batch, seed }, { signal });
          const request = { id, tokens: gathered(samples, indices), labels: Uint32Array.from(indices, (i) => numbers[i]!), fit };
          return engine.call("fit", request, { signal });
        }, signal);
        tell({ ...progress, steps });
      }
      return new AttentiveProbe(resident, classes);
    } catch (error) {
      await resident.dispose();
      throw error;
    }
  }

  /**
   * Loads a probe: what {@link AttentiveProbe.save} wrote, one of the files of the original projects, or that of a Hugging Face classifier,
   * whose encoder is not read ({@link Jepa.classify} has both).
   *
   * @param source - the bytes of a save, or where the probe's files are, see {@link ModelSource}
   * @throws {@link JepaError} `missing-tensor` where there is no probe, and those of {@link Jepa.load}
   */
  static async load<L extends Label = Label>(source: ModelSource | Uint8Array | ArrayBuffer | Blob, options: AttentiveProbeLoadOptions<L> = {}): Promise<AttentiveProbe<L>> {
    const { heads, labels, ...rest } = options;
    checkFields("", options, LOAD);
    const bytes = source instanceof Uint8Array || source instanceof ArrayBuffer || source instanceof Blob;
    const special = { predictor: false, classifier: false, probe: true, ...(heads === undefined ? {} : { heads }) };
    const resident = await settled("probe", bytes ? { "model.safetensors": source } : source, rest, LOADED, special);
    const { classes } = resident.info;
    const wrong = labels && labels.length !== classes;
    if (wrong) await resident.dispose();
    if (wrong) throw new JepaError("bad-input", `The option labels has ${labels.length} names, and the probe ${classes} classes.`);
    return new AttentiveProbe(resident, labels ? [...labels] : (namesOf(resident.info) as L[]));
  }

  private constructor(resident: Resident<GlueProbeInfo>, classes: readonly L[]) {
    this.#resident = resident;
    this.#classes = classes;
  }

  /** In the order of the scores. */
  get classes(): L[] {
    return [...this.#classes];
  }

  /** What computes. */
  get backend(): Backend {
    return this.#resident.info.backend;
  }

  /** Why `backend: "auto"` chose the CPU, as a sentence; undefined when it did not. */
  get fallbackReason(): string | undefined {
    return this.#resident.fallbackReason;
  }

  /** Why files were not kept in the cache, or not read from it, as a sentence; undefined when nothing went wrong. */
  get cacheFailure(): string | undefined {
    return this.#resident.cacheFailure;
  }

  /** Width of the tokens, number of blocks, and of attention heads. */
  get config(): { hiddenSize: number; depth: number; heads: number } {
    const { hiddenSize, depth, heads } = this.#resident.info;
    return { hiddenSize, depth, heads };
  }

  /**
   * The classes of pictures or clips by their tokens, of which there may be another number than in the fit.
   *
   * @param tokens - of one, `[N, D]`, or of several
   * @throws {@link JepaError} `bad-input` when tokens have another width; `aborted`, `disposed`, `device-lost`, `out-of-memory`
   */
  async predict(tokens: TokenEmbeddings, options: { signal?: AbortSignal | undefined } = {}): Promise<Probed<L>> {
    const { signal } = options;
    const { hiddenSize } = this.config;
    const samples = samplesOf(tokens);
    const { list, width } = samples;
    if (width !== hiddenSize) throw new JepaError("bad-input", `The tokens are ${width} wide, and those of this probe ${hiddenSize}.`);
    const request = { tokens: gathered(samples, list.keys()), count: list.length };
    return this.#resident.call(async (engine, id) => probed(await engine.call("read", { id, ...request }, { signal }), this.#classes), signal);
  }

  /** The probe as one safetensors file, by the names of V-JEPA 2's own, with its labels. */
  async save(): Promise<Uint8Array<ArrayBuffer>> {
    return (await this.#resident.call((engine, id) => engine.call("saveProbe", { id }, {}))).file;
  }

  /** Gives back the probe's memory, and its worker and GPU device. Calls in progress reject with `disposed`. May be called twice. */
  dispose(): Promise<void> {
    return this.#resident.dispose();
  }

  /** The same as {@link AttentiveProbe.dispose}, for `await using`. */
  [asyncDispose](): Promise<void> {
    return this.dispose();
  }
}

const FIT: Record<keyof AttentiveProbeOptions, Rule> = {
  backend: anything,
  worker: aBoolean,
  signal: anObject,
  depth: whole(1),
  heads: whole(1),
  steps: whole(1),
  batch: whole(1),
  learningRate: moreThan(0),
  warmup: whole(0),
  weightDecay: atLeast(0),
  clip: atLeast(0),
  seed: whole(0),
  onProgress: aFunction,
  onLost: aFunction,
};

const LOAD: Record<keyof AttentiveProbeLoadOptions, Rule> = {
  backend: anything,
  worker: aBoolean,
  signal: anObject,
  onProgress: aFunction,
  onLost: aFunction,
  onRecovered: aFunction,
  cache: anything,
  integrity: anObject,
  requestInit: anObject,
  heads: whole(1),
  labels: { what: "an array of labels", allows: Array.isArray },
};

function headsOf(width: number): number {
  let heads = Math.min(16, width);
  while (width % heads > 0) heads--;
  return heads;
}

/** The tokens of each sample, all of one length. */
interface Samples {
  list: Float32Array[];
  width: number;
}

function samplesOf(tokens: TokenEmbeddings): Samples {
  const several = Array.isArray(tokens);
  const matrices: readonly TokenMatrix[] = several ? tokens : [tokens as TokenMatrix];
  if (matrices.length === 0) throw new JepaError("bad-input", "There are no tokens: the array is empty.");
  const list = matrices.flatMap((matrix, i): Float32Array[] => {
    const { data, shape } = (matrix ?? {}) as TokenMatrix;
    const sizes: readonly number[] = Array.isArray(shape) && shape.every((size) => Number.isSafeInteger(size) && size > 0) ? shape : [];
    const axes = several ? [2] : [2, 3];
    if (!axes.includes(sizes.length) || !(data instanceof Float32Array) || data.length !== sizes.reduce((a, b) => a * b, 1)) {
      const found = `${several ? `item ${i}` : "this"} has ${shape === undefined ? "no shape" : `the shape ${shown(shape)}`}`;
      throw new JepaError("bad-input", `Tokens are what embed gives with pool: "none": { data, shape: [B, N, D] }, or an array of { data, shape: [N, D] }; ${found}.`);
    }
    const count = sizes.length === 3 ? sizes[0]! : 1;
    const length = data.length / count;
    return Array.from({ length: count }, (_, b) => data.subarray(b * length, (b + 1) * length));
  });
  const sizes = matrices.map(({ shape }) => shape.slice(-2).join(" × "));
  const other = sizes.findIndex((size) => size !== sizes[0]);
  if (other >= 0) throw new JepaError("bad-input", `Sample ${other} has ${sizes[other]} tokens × values, and sample 0 ${sizes[0]}; pictures and clips of one call are of one size.`);
  return { list, width: matrices[0]!.shape.at(-1)! };
}

/** The tokens of some samples in one array. */
function gathered({ list }: Samples, indices: Iterable<number>): Float32Array {
  const chosen = Array.from(indices, (i) => list[i]!);
  const all = new Float32Array(chosen.reduce((sum, { length }) => sum + length, 0));
  chosen.reduce((at, values) => (all.set(values, at), at + values.length), 0);
  return all;
}
