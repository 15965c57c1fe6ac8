/** What the examples of the API's comments take from the program of their reader. */

declare module "idb-keyval" {
  export function get(key: string): Promise<Uint8Array<ArrayBuffer> | undefined>;
  export function set(key: string, value: unknown): Promise<void>;
  export function del(key: string): Promise<void>;
}

declare const jepa: import("webjepa").Jepa;
declare const world: import("webjepa").WorldModel;
declare const windows: import("webjepa").ActionWindows;
declare const episodes: import("webjepa").EpisodeRecord[];
declare const room: import("webjepa").Environment;
declare const sizes: { imageSize: number; patchSize: number; hiddenSize: number; layers: number; heads: number };
declare const own: import("webjepa").StepModel;
declare const pose: number[];
declare const image: ImageBitmap;
declare const bitmap: ImageBitmap;
declare const another: ImageBitmap;
declare const camera: ImageBitmap;
declare const wanted: ImageBitmap;
declare const pictures: ImageBitmap[];
declare const clip: ImageBitmap[];
declare const clips: ImageBitmap[][];
declare const labels: string[];
declare const files: File[];
declare const file: File;
declare const video: HTMLVideoElement;
declare const canvas: HTMLCanvasElement;
declare const url: string;
declare function onProgress(progress: { loss: number }): void;
declare function show(...values: unknown[]): void;
