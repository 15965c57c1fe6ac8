// An attentive probe in this thread's wasm instance.

import { macrotask } from "./environment.js";
import type { GlueClassified, GlueFitStep, GlueProbe, GlueProbeInfo } from "./glue.js";
import type { Instance } from "./instance.js";
import type { Check } from "./local-model.js";
import type { Calls } from "./protocol.js";

/** Tokens that go through the probe at once: enough to fill a GPU, and aborts stay quick. */
const TOKENS_AT_ONCE = 16 * 196;

export class LocalProbe {
  readonly #instance: Instance;
  readonly #probe: GlueProbe;
  readonly #check: Check;
  readonly info: GlueProbeInfo;

  constructor(instance: Instance, probe: GlueProbe, check: Check) {
    this.#instance = instance;
    this.#probe = probe;
    this.#check = check;
    this.info = instance.call(() => probe.info());
  }

  samples({ length, batch, seed }: Omit<Calls["samples"]["request"], "id">): Uint32Array {
    return this.#instance.call(() => this.#probe.nextIndices(length, batch, seed));
  }

  async fit({ tokens, labels, fit }: Omit<Calls["fit"]["request"], "id">, signal: AbortSignal | undefined): Promise<GlueFitStep> {
    await this.#turn(signal);
    const { steps, learningRate, warmup, weightDecay, clip } = fit;
    return this.#instance.run(() => this.#probe.step(tokens, labels, steps, learningRate, warmup, weightDecay, clip));
  }

  async read({ tokens, count }: Omit<Calls["read"]["request"], "id">, signal: AbortSignal | undefined): Promise<GlueClassified> {
    const { classes, hiddenSize } = this.info;
    const length = tokens.length / count;
    const atOnce = Math.max(1, Math.floor(TOKENS_AT_ONCE / (length / hiddenSize)));
    const whole = { labels: new Uint32Array(count), scores: new Float32Array(count * classes), logits: new Float32Array(count * classes) };
    for (let start = 0; start < count; start += atOnce) {
      await this.#turn(signal);
      const end = Math.min(start + atOnce, count);
      const part = tokens.subarray(start * length, end * length);
      const { labels, scores, logits } = await this.#instance.run(() => this.#probe.classify(part, end - start));
      whole.labels.set(labels, start);
      whole.scores.set(scores, start * classes);
      whole.logits.set(logits, start * classes);
    }
    this.#check(signal);
    return whole;
  }

  async save(): Promise<{ file: Uint8Array<ArrayBuffer> }> {
    return { file: await this.#instance.run(() => this.#probe.save()) };
  }

  /** An abort or a paint that has been waiting gets its turn. */
  async #turn(signal: AbortSignal | undefined): Promise<void> {
    await macrotask();
    this.#check(signal);
  }

  free(): void {
    this.#probe.free();
  }
}
