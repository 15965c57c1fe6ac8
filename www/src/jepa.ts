import { captureClips, capturePictures, type ClipInput, type Inputs } from "./clips.js";
import { JepaError, throwIfAborted } from "./errors.js";
import type { GlueModelInfo } from "./glue.js";
import { asyncDispose, type Advice, type Resident } from "./host.js";
import { discard, type ImageInput, type Picture } from "./inputs.js";
import { settled, type LoadOptions } from "./load-options.js";
import { tokenIndices } from "./masks.js";
import { oneOf } from "./options.js";
import { namesOf, probed, type Label, type Probed } from "./probes.js";
import { windowed, type FrameSource } from "./stream.js";
import type { ClassifyRequest, EmbedRequest, PredictRequest } from "./protocol.js";
import type { Backend, Dtype, Embedding, Grid, ModelConfig, Pooling, Prediction } from "./types.js";
import type { ModelSource } from "./weights.js";

export interface EmbedOptions {
  /**
   * `"mean"` (default): the mean over all tokens, `[D]`. `"none"`: every token, `[N, D]`.
   * `"last4-mean"`: the means of the last four layers, each after the final norm, from the earliest to the last, `[4·D]`.
   * `"levels"`, of V-JEPA 2.1 only: every token at its four levels, each after a norm of its own, from the earliest to the last, `[N, 4·D]`.
   */
  pool?: Pooling | undefined;
  /** Scale each vector to length 1. Default false. */
  normalize?: boolean | undefined;
  /** Height and width in pixels that pictures are resized to, each a multiple of the patch size. Default: the model's own. */
  imageSize?: number | [height: number, width: number] | undefined;
  /** False: pictures are Float32Array pixel data, resized and normalised by the caller to be the model's very input. Default true. */
  preprocess?: boolean | undefined;
  /** Aborts the call; the model stays usable. */
  signal?: AbortSignal | undefined;
}

export interface ClassifyOptions extends Pick<EmbedOptions, "imageSize" | "preprocess" | "signal"> {}

export interface EmbedStreamOptions extends EmbedOptions {
  /** Frames embedded together. Default: those of the model's own clips; 1 for a model of pictures. */
  window?: number | undefined;
  /** Frames from the beginning of a window to that of the next: fewer than `window` make windows overlap. Default: half a window. */
  hop?: number | undefined;
  /** Takes every so manieth frame. Default 1. */
  stride?: number | undefined;
}

/** The embedding of a window of frames. */
export interface WindowEmbedding extends Embedding {
  /** Number of the window's first frame among those that were taken. */
  first: number;
  /** Number of its last. */
  last: number;
}

export interface PredictOptions {
  /** The tokens that the model sees: indices in raster order of {@link Jepa.grid}, as {@link sampleMasks} gives them. */
  context: Uint32Array | readonly number[];
  /** The tokens that it predicts, in blocks of one length. Each block is predicted by itself. */
  targets: readonly (Uint32Array | readonly number[])[];
  /**
   * What the context encoder is shown. `"visible"` (default): the tokens of `context` alone, as in training. `"whole-input"`: every
   * token, of whose embeddings those of `context` are taken, as transformers' VJEPA2Model does; these have seen what is to be predicted.
   */
  contextFrom?: "visible" | "whole-input" | undefined;
  /**
   * Which of the predictor's mask tokens stands for what is hidden: V-JEPA 1 has one for each kind of mask, V-JEPA 2 was trained with
   * token 0 where clips had one length, and transformers uses 1. Default 0.
   */
  maskIndex?: number | undefined;
  /** False: the picture is Float32Array pixel data, resized and normalised by the caller to be the model's very input. Default true. */
  preprocess?: boolean | undefined;
  /** Aborts the call; the model stays usable. */
  signal?: AbortSignal | undefined;
}

const ADVICE: Advice = { disposed: "The model has been disposed of; load it again.", lost: "The next call loads the model again." };

/**
 * A loaded model.
 *
 * Calls are answered one at a time, in the order in which they were made. After a failed call, a lost GPU device or a crash
 * included, the same object answers again; where needed it loads the model anew.
 *
 * @example
 * const jepa = await Jepa.load("/models/ijepa_vith14_1k/");
 * const { data, shape } = await jepa.embed(document.querySelector("img"), { pool: "mean" });
 */
export class Jepa {
  readonly #resident: Resident<GlueModelInfo>;

  /**
   * Loads a model.
   *
   * @param source - where its files are; see {@link ModelSource}
   * @throws {@link JepaError} `network`, `bad-config`, `bad-checkpoint`, `missing-tensor`, `shape-mismatch`, `unsupported`,
   * `no-webgpu` (only with `backend: "webgpu"`), `out-of-memory`, `bad-input` (also for hashes that are malformed, or of files that are
   * not read), `integrity` (the file, its hash and the expected one are in the message; a kept copy is dropped), `aborted`
   */
  static async load(source: ModelSource, options: LoadOptions = {}): Promise<Jepa> {
    return new Jepa(await settled("load", source, options, ADVICE));
  }

  /** @internal */
  static of(resident: Resident<GlueModelInfo>): Jepa {
    return new Jepa(resident);
  }

  private constructor(resident: Resident<GlueModelInfo>) {
    this.#resident = resident;
  }

  /** What computes. */
  get backend(): Backend {
    return this.#resident.info.backend;
  }

  /** Threads that compute: more than 1 only on the CPU, in a worker of a cross-origin isolated page; see {@link LoadOptions.threads}. */
  get threads(): number {
    return this.#resident.threads;
  }

  /** Why `backend: "auto"` chose the CPU, as a sentence; undefined when it did not. */
  get fallbackReason(): string | undefined {
    return this.#resident.fallbackReason;
  }

  /** Why files were not kept in the cache, or not read from it, as a sentence; undefined when nothing went wrong. */
  get cacheFailure(): string | undefined {
    return this.#resident.cacheFailure;
  }

  /** How the weights are kept. */
  get dtype(): Dtype {
    return this.#resident.info.dtype;
  }

  /** The geometry of the model. */
  get config(): ModelConfig {
    return this.#resident.info.config;
  }

  /** Patches along time, height and width of the model's own input size. */
  get grid(): Grid {
    return [...this.#resident.info.grid];
  }

  /**
   * Embeds a picture, or several; with a model of video a clip, or several.
   *
   * For a model of video an array of pictures is one clip, and an array of clips several, all of one length; a single picture is a clip
   * of one frame, which V-JEPA 2 repeats to fill its tubelet. Clips may be longer or shorter than the model's own.
   *
   * Pictures are taken as they are when this is called; the caller's objects are never changed, closed or transferred.
   *
   * @returns row-major data of shape `[D]`, or what else `pool` says; with a leading `B` when there are several
   * @throws {@link JepaError} `bad-input`, `network`, `aborted`, `disposed`, `device-lost`, `out-of-memory`, `internal`
   */
  embed(images: ImageInput | readonly ImageInput[] | ClipInput | readonly ClipInput[], options: EmbedOptions = {}): Promise<Embedding> {
    const { signal } = options;
    let listed = false;
    const capturing = async (): Promise<Omit<EmbedRequest, "id">> => {
      throwIfAborted(signal);
      const request = embedRequest(options);
      const { pictures, frames, ...rest } = await this.#capture(images, !request.preprocess);
      listed = rest.listed;
      return { ...sizeOfPrepared(pictures, request.preprocess), ...request, pictures, frames };
    };
    return this.#resident.callWith(
      capturing(),
      async (engine, request) => {
        const { data, shape, grid } = await engine.call("embed", request, { signal });
        return { data, shape: listed ? shape : shape.slice(1), grid };
      },
      signal,
    );
  }

  /**
   * Embeds frames as they come, in windows that overlap.
   *
   * The source is asked for frames only when the next embedding is, and one window of frames is held, so that neither a fast source nor
   * a long one takes more memory. The last window ends with the last frame. A source that is shorter than a window is one window of all
   * its frames, but for its first ones where they are too many for whole tubelets: of three frames and tubelets of two the last two.
   *
   * @throws {@link JepaError} those of {@link Jepa.embed}; `bad-input` also for a source without frames
   *
   * @example
   * for await (const { data, first, last } of jepa.embedStream(videoFrames(video), { hop: 8 })) console.log(first, last, data);
   */
  async *embedStream(frames: FrameSource, options: EmbedStreamOptions = {}): AsyncGenerator<WindowEmbedding, void, undefined> {
    const { window = this.config.frames ?? 1, hop = Math.max(1, Math.floor(window / 2)), stride = 1, ...embedding } = options;
    for (const [name, value] of Object.entries({ window, hop, stride })) {
      if (!Number.isInteger(value) || value < 1) throw new JepaError("bad-input", `The option ${name} is a number of frames from 1 on, not ${value}.`);
    }
    const { signal } = embedding;
    const { tubelet = 1 } = this.config;
    for await (const { frames: clip, first, last } of windowed(frames, { window, hop, stride, tubelet, signal })) {
      const single = clip.length === 1;
      yield { ...(await this.embed(single ? clip[0]! : clip, embedding)), first, last };
    }
  }

  /** What the classes of the attentive probe are called: as `id2label` of `config.json` says, else by number. Undefined where there is no probe. */
  get classes(): Label[] | undefined {
    const { classes } = this.#resident.info;
    return classes === 0 ? undefined : namesOf(this.#resident.info);
  }

  /**
   * Classifies a picture or clip, or several, by the attentive probe of the checkpoint. Of an original project, whose probes are files of
   * their own, see {@link AttentiveProbe}.
   *
   * @param images - as for {@link Jepa.embed}
   * @returns a label and scores, of sum 1, for each
   * @throws {@link JepaError} `unsupported` without a probe, and those of {@link Jepa.embed}
   *
   * @example
   * const { labels, scores } = await jepa.classify(clip);
   */
  classify(images: ImageInput | readonly ImageInput[] | ClipInput | readonly ClipInput[], options: ClassifyOptions = {}): Promise<Probed> {
    const { signal } = options;
    const capturing = async (): Promise<Omit<ClassifyRequest, "id">> => {
      throwIfAborted(signal);
      if (this.#resident.info.classes === 0) {
        throw new JepaError("unsupported", "This model has no attentive probe: load a checkpoint that has one, without the option classifier: false, or read its embeddings by an AttentiveProbe.");
      }
      const { preprocess, imageSize } = embedRequest(options);
      const { pictures, frames } = await this.#capture(images, !preprocess);
      return { ...sizeOfPrepared(pictures, preprocess), ...(imageSize ? { imageSize } : {}), preprocess, pictures, frames };
    };
    return this.#resident.callWith(capturing(), async (engine, request) => probed(await engine.call("classify", request, { signal }), namesOf(this.#resident.info)), signal);
  }

  #capture(input: ImageInput | readonly ImageInput[] | ClipInput | readonly ClipInput[], prepared: boolean): Promise<Inputs> {
    const { system } = this.config;
    return system === undefined || system === "ijepa" ? capturePictures(input as ImageInput, prepared) : captureClips(input, prepared);
  }

  /**
   * Predicts the embeddings of masked tokens from those of visible ones, and compares them with what the target encoder makes of the
   * whole picture or clip. Needs a checkpoint with a predictor: of I-JEPA as training writes it, while those in the Hugging Face layout
   * have none; of V-JEPA 2 any.
   *
   * @param image - a picture, or for a model of video a clip; taken as it is when this is called
   * @throws {@link JepaError} `bad-mask`, `bad-input`, `unsupported` without a predictor, and those of {@link Jepa.embed}
   *
   * @example
   * const { context, targets } = sampleMasks(jepa.grid, { strategy: "ijepa-multiblock", seed: 0 });
   * const { error } = await jepa.predict(image, { context: context[0], targets: targets.map(([block]) => block) });
   */
  predict(image: ImageInput | ClipInput, options: PredictOptions): Promise<Prediction> {
    const { signal, preprocess = true } = options;
    const capturing = async (): Promise<Omit<PredictRequest, "id">> => {
      throwIfAborted(signal);
      if (!this.#resident.info.predictor) {
        throw new JepaError("unsupported", "This model has no predictor: load a checkpoint that has one, such as a trainer's, and without the option predictor: false.");
      }
      const inputs = await this.#capture(image, !preprocess);
      try {
        if (inputs.listed) throw new JepaError("bad-input", "predict takes one picture or clip, and was given a list.");
        const masks = maskRequest(options, this.#gridOf(inputs.frames));
        return { ...masks, preprocess, pictures: inputs.pictures };
      } catch (error) {
        inputs.pictures.forEach(discard);
        throw error;
      }
    };
    return this.#resident.callWith(
      capturing(),
      async (engine, request) => {
        const { predicted, target, error, contextPredicted, shape } = await engine.call("predict", request, { signal });
        const [blocks, , d] = shape;
        const atContext: Pick<Prediction, "contextPredicted"> = contextPredicted ? { contextPredicted: { data: contextPredicted, shape: [blocks, request.context.length, d] } } : {};
        return { predicted: { data: predicted, shape: [...shape] }, target: { data: target, shape: [...shape] }, error, ...atContext };
      },
      signal,
    );
  }

  /** Patches of a clip of so many frames at the model's own size. */
  #gridOf(frames: number): Grid {
    const { tubelet = 1 } = this.config;
    const [, height, width] = this.grid;
    return [Math.ceil(frames / tubelet), height, width];
  }

  /**
   * Runs the model once, so that the first `embed` is as fast as the others. Worth while on WebGPU, whose shaders are
   * compiled at first use.
   */
  async warmup(options: { signal?: AbortSignal | undefined } = {}): Promise<void> {
    const { frames = 1 } = this.config;
    const grey = { data: new Uint8Array(3 * frames).fill(128), width: 1, height: 1, channels: 3 };
    await this.embed(frames > 1 ? { ...grey, frames } : grey, options);
  }

  /** Gives back the model's memory and, with the last that lives there, its worker and GPU device. Calls in progress reject with `disposed`. May be called twice. */
  dispose(): Promise<void> {
    return this.#resident.dispose();
  }

  /** The same as {@link Jepa.dispose}, for `await using`. */
  [asyncDispose](): Promise<void> {
    return this.dispose();
  }
}

const POOLS: readonly Pooling[] = ["mean", "none", "last4-mean", "levels"];
const CONTEXTS: readonly unknown[] = ["visible", "whole-input"];

function embedRequest({ pool = "mean", normalize = false, imageSize, preprocess = true }: EmbedOptions): Omit<EmbedRequest, "id" | "pictures" | "frames"> {
  oneOf("pool", pool, POOLS);
  if (imageSize === undefined) return { pool, normalize, preprocess };
  const size = typeof imageSize === "number" ? [imageSize, imageSize] : imageSize;
  if (size.length !== 2 || !size.every((side) => Number.isInteger(side) && side > 0)) {
    throw new JepaError("bad-input", `The option imageSize is a number of pixels or [height, width], not ${JSON.stringify(imageSize)}.`);
  }
  return { pool, normalize, preprocess, imageSize: [size[0]!, size[1]!] };
}

/** A prepared picture says its size itself. */
function sizeOfPrepared([first]: readonly Picture[], preprocess: boolean): { imageSize?: [height: number, width: number] } {
  return !preprocess && first?.kind === "pixels" ? { imageSize: [first.pixels.height, first.pixels.width] } : {};
}

/** Copies of the masks, which are checked against the grid. */
function maskRequest(
  { context, targets, contextFrom = "visible", maskIndex = 0 }: PredictOptions,
  grid: Grid,
): Pick<PredictRequest, "context" | "targets" | "contextFrom" | "maskIndex"> {
  oneOf("contextFrom", contextFrom, CONTEXTS);
  if (!Number.isInteger(maskIndex) || maskIndex < 0) throw new JepaError("bad-mask", `The option maskIndex is the number of a mask token, not ${maskIndex}.`);
  if (!Array.isArray(targets)) throw new JepaError("bad-mask", "The option targets is an array of blocks, each a Uint32Array or an array of token indices.");
  if (targets.length === 0) throw new JepaError("bad-mask", "There is nothing to predict: give at least one block of token indices in targets.");
  const tokens = grid[0] * grid[1] * grid[2];
  const request = { context: tokenIndices("context", context, tokens), targets: targets.map((block, i) => tokenIndices(`targets[${i}]`, block, tokens)), contextFrom, maskIndex };
  const lengths = request.targets.map(({ length }) => length);
  if (new Set(lengths).size > 1) throw new JepaError("bad-mask", `The blocks of targets have ${lengths.join(", ")} tokens; cut them to one length.`);
  return request;
}
