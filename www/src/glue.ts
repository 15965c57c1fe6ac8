// The wasm module as TypeScript sees it. Both builds export the same names.

import { inNode } from "./environment.js";
import { JepaError, messageOf } from "./errors.js";
import type { Backend, ModelConfig } from "./types.js";

export interface Glue {
  /** Starts the module; where it has been started, only gives the exports of its present instance. */
  default(options?: { module_or_path: Response | BufferSource }): Promise<{ memory: WebAssembly.Memory }>;
  /** WebGPU build: acquires adapter and device. CPU build: resolves at once. Must be awaited before a ModelLoader is made. */
  initDevice(): Promise<void>;
  /** Length of the JSON header that follows the first 8 bytes of a safetensors file of `fileSize` bytes. */
  headerLength(prefix: Uint8Array, fileSize: number): number;
  ModelLoader: new (options: GlueLoadOptions) => GlueModelLoader;
  /** Replaces the wasm instance by a fresh one; everything that the old one made is stale afterwards. */
  __wbg_reset_state(): void;
}

export interface GlueLoadOptions {
  config?: string;
  preset?: string | ModelConfig;
  preprocessor?: string;
  dtype: "f32" | "f16" | "q8";
  encoder?: "auto" | "context" | "target";
}

export interface GlueModelLoader {
  /** One call per safetensors file; `header` is its JSON header. */
  addFile(name: string, fileSize: number, header: Uint8Array): void;
  /** Checks everything and says which bytes to bring, in file order; positions count from the start of the file. */
  plan(): PlannedTensor[];
  /** Tensor `index` of the plan follows; its bytes then come through `write`, in chunks of any size. */
  begin(index: number): void;
  write(chunk: Uint8Array): void;
  /** After the last tensor. Consumes the loader. */
  finish(): Promise<GlueModel>;
  free(): void;
}

export interface PlannedTensor {
  file: string;
  tensor: string;
  begin: number;
  end: number;
}

export interface GlueModel {
  info(): GlueModelInfo;
  /** At the checkpoint's own resolution, or at `size` = [height, width]. Without preprocessing, pictures are the model's normalised input. */
  newBatch(size?: [number, number], preprocess?: boolean): GlueBatch;
  /** Consumes the batch. `shape` has the leading batch axis. */
  embed(batch: GlueBatch, pool: string, normalize: boolean): Promise<{ data: Float32Array; shape: number[]; grid: [number, number, number] }>;
  free(): void;
}

export interface GlueModelInfo {
  config: ModelConfig;
  grid: [number, number, number];
  hiddenSize: number;
  dtype: "f32" | "f16" | "q8";
  backend: Backend;
  parameters: number;
  weightBytes: number;
}

export interface GlueBatch {
  /** Interleaved; 1 grey, 2 grey + alpha, 3 RGB, 4 RGBA. */
  pushU8(data: Uint8Array, width: number, height: number, channels: number): void;
  /** The same with values 0..1. */
  pushF32(data: Float32Array, width: number, height: number, channels: number): void;
  free(): void;
}

/** Imports the glue of a build and starts its wasm module; once in a thread. */
export async function loadGlue(backend: Backend): Promise<Glue> {
  // Literal paths, so that bundlers see both files of both builds.
  const [glue, module] = await Promise.all(
    backend === "webgpu"
      ? [glueModule(import("./wasm/webgpu/webjepa.js")), wasmFile(new URL("./wasm/webgpu/webjepa_bg.wasm", import.meta.url))]
      : [glueModule(import("./wasm/cpu/webjepa.js")), wasmFile(new URL("./wasm/cpu/webjepa_bg.wasm", import.meta.url))],
  );
  try {
    await glue.default({ module_or_path: module });
    return glue;
  } catch (error) {
    const hint = "It needs WebAssembly with SIMD, and 'wasm-unsafe-eval' where the page has a content security policy.";
    if (error instanceof WebAssembly.CompileError) throw new JepaError("unsupported", `The wasm module cannot be compiled here: ${error.message} ${hint}`, { cause: error });
    throw error;
  }
}

async function glueModule(imported: Promise<unknown>): Promise<Glue> {
  try {
    return (await imported) as Glue;
  } catch (error) {
    throw unfetched("webjepa.js", error);
  }
}

async function wasmFile(url: URL): Promise<Response | BufferSource> {
  try {
    if (inNode && url.protocol === "file:") return await (await import("./node.js")).readBytes(url);
    const response = await fetch(url);
    if (response.ok) return response;
    throw new Error(`the server answered ${response.status}`);
  } catch (error) {
    throw unfetched(url.href, error);
  }
}

function unfetched(file: string, cause: unknown): JepaError {
  return new JepaError("network", `${file} could not be fetched (${messageOf(cause)}): serve the folder "wasm" of the package beside its other files.`, { cause });
}
