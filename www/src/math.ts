// What one does with embeddings: comparing them, and looking at them.

import { JepaError } from "./errors.js";
import type { Grid } from "./types.js";

/** A vector, or an embedding taken as one. */
export type Vector = Float32Array | readonly number[] | { readonly data: Float32Array };

/**
 * The cosine of the angle between two vectors, from −1 to 1; 0 when either has length 0.
 *
 * @throws {@link JepaError} `bad-input` when their lengths differ
 */
export function cosineSimilarity(a: Vector, b: Vector): number {
  const x = valuesOf(a);
  const y = valuesOf(b);
  if (x.length !== y.length) throw new JepaError("bad-input", `Vectors of ${x.length} and ${y.length} values cannot be compared.`);
  let dot = 0;
  let xx = 0;
  let yy = 0;
  for (let i = 0; i < x.length; i++) {
    dot += x[i]! * y[i]!;
    xx += x[i]! * x[i]!;
    yy += y[i]! * y[i]!;
  }
  const lengths = Math.sqrt(xx) * Math.sqrt(yy);
  return lengths === 0 ? 0 : Math.max(-1, Math.min(1, dot / lengths));
}

/** @internal */
export function valuesOf(vector: Vector): ArrayLike<number> {
  const values: unknown = typeof vector === "object" && vector !== null && "data" in vector ? vector.data : vector;
  if (ArrayBuffer.isView(values) || Array.isArray(values)) return values as ArrayLike<number>;
  throw new JepaError("bad-input", "A vector is a Float32Array, an array of numbers, or an embedding.");
}

/** Rows of D values: an embedding with `pool: "none"` (`[N, D]` or `[B, N, D]`), or of several pictures (`[B, D]`). */
export interface Matrix {
  readonly data: Float32Array;
  readonly shape: readonly number[];
  readonly grid?: Readonly<Grid> | undefined;
}

export interface PcaOptions {
  /** How many principal components. Default 3, for red, green and blue. */
  components?: number | undefined;
}

/** Rows in the coordinates of their principal components, and what is needed to bring other rows there. */
export interface Pca {
  /** Row-major. */
  data: Float32Array;
  /** The shape of the embedding, with the number of components in place of D. */
  shape: number[];
  /** The grid of the embedding, where the rows are its patches. */
  grid?: Grid;
  /** `[components, D]`: unit vectors, by falling variance, each with its largest entry positive; zeros beyond the rank of the data. */
  basis: Float32Array;
  /** `[D]`: the mean of the rows. */
  mean: Float32Array;
  /** `[components]`: the variance along each, for which the sum of squares is divided by the number of rows less one. */
  explainedVariance: Float32Array;
  /** `[components]`: the same as parts of the whole variance. */
  explainedVarianceRatio: Float32Array;
  /** Another embedding in the same coordinates, with the same colours. */
  project(embedding: Matrix): Pca;
  /**
   * The first three components of each row as a colour, RGBA: for a picture's patches, what `new ImageData(rgba, w, h)` takes.
   * The 2nd to 98th percentile of all rows that were given to {@link pca} fill the range, so that colours compare across pictures.
   */
  toRGB(): Uint8ClampedArray<ArrayBuffer>;
}

/**
 * Principal components of the rows of an embedding: `pca(e).toRGB()` is the usual picture of what an encoder sees.
 * Given an array, finds common components of all its embeddings together and gives the result for each.
 *
 * The same input always gives the same output.
 *
 * @throws {@link JepaError} `bad-input` when there are no rows, their lengths differ, or a value is not finite
 *
 * @example
 * const { grid, toRGB } = pca(await jepa.embed(image, { pool: "none" }));
 * const map = new ImageData(toRGB(), grid[2], grid[1]);
 */
export function pca(embedding: Matrix, options?: PcaOptions): Pca;
export function pca(embeddings: readonly Matrix[], options?: PcaOptions): Pca[];
export function pca(input: Matrix | readonly Matrix[], { components = 3 }: PcaOptions = {}): Pca | Pca[] {
  const list: readonly Matrix[] = Array.isArray(input) ? input : [input as Matrix];
  const width = list[0] ? widthOf(list[0]) : 0;
  if (!Number.isInteger(components) || components < 1 || components > width) {
    throw new JepaError("bad-input", `There are between 1 and ${width} components of rows with ${width} values, not ${components}.`);
  }
  const { rows, mean, total } = centre(list, width);
  const count = rows.length / width;
  if (!Number.isFinite(total)) throw new JepaError("bad-input", "The embeddings have values that are not finite.");
  const { vectors, values } = principalAxes(rows, width, components);
  const scale = Math.max(1, count - 1);
  const basis = {
    basis: vectors,
    mean: Float32Array.from(mean),
    explainedVariance: Float32Array.from(values, (value) => value / scale),
    explainedVarianceRatio: Float32Array.from(values, (value) => (total > 0 ? value / total : 0)),
  };
  const coordinates = list.map((embedding) => project(embedding, vectors, mean, components));
  const ranges = percentileRanges(coordinates, components);

  const result = (embedding: Matrix, data: Float32Array): Pca => {
    const { shape, grid } = embedding;
    const patches = grid && shape.at(-2) === grid[0] * grid[1] * grid[2];
    return {
      data,
      shape: [...shape.slice(0, -1), components],
      ...(patches ? { grid: [...grid] } : {}),
      ...basis,
      project(other) {
        if (widthOf(other) !== width) throw new JepaError("bad-input", `These components are of rows with ${width} values, not ${widthOf(other)}.`);
        return result(other, project(other, vectors, mean, components));
      },
      toRGB: () => colours(data, components, ranges),
    };
  };
  const results = list.map((embedding, i) => result(embedding, coordinates[i]!));
  return Array.isArray(input) ? results : results[0]!;
}

function widthOf({ data, shape }: Matrix): number {
  const width = shape?.at(-1) ?? 0;
  if (!(data instanceof Float32Array) || shape.length < 2 || width < 1 || data.length === 0 || data.length !== shape.reduce((a, b) => a * b, 1)) {
    throw new JepaError("bad-input", 'Principal components are those of several rows, as embed gives them with pool: "none": { data, shape: [N, D] }.');
  }
  return width;
}

/** All rows less their mean, and the sum of the squares of that. */
function centre(list: readonly Matrix[], width: number): { rows: Float32Array; mean: Float64Array; total: number } {
  const rows = new Float32Array(list.reduce((length, { data }) => length + data.length, 0));
  let at = 0;
  for (const embedding of list) {
    if (widthOf(embedding) !== width) throw new JepaError("bad-input", `Embeddings of ${width} and ${widthOf(embedding)} values cannot be put together.`);
    rows.set(embedding.data, at);
    at += embedding.data.length;
  }
  const mean = new Float64Array(width);
  for (let start = 0; start < rows.length; start += width) for (let j = 0; j < width; j++) mean[j]! += rows[start + j]!;
  for (let j = 0; j < width; j++) mean[j]! /= rows.length / width;
  let total = 0;
  for (let start = 0; start < rows.length; start += width) {
    for (let j = 0; j < width; j++) {
      const value = rows[start + j]! - mean[j]!;
      rows[start + j] = value;
      total += value * value;
    }
  }
  return { rows, mean, total };
}

function project({ data }: Matrix, basis: Float32Array, mean: Float64Array, components: number): Float32Array {
  const width = mean.length;
  const out = new Float32Array((data.length / width) * components);
  for (let row = 0, at = 0; row < data.length; row += width) {
    for (let k = 0; k < components; k++) {
      let sum = 0;
      for (let j = 0; j < width; j++) sum += (data[row + j]! - mean[j]!) * basis[k * width + j]!;
      out[at++] = sum;
    }
  }
  return out;
}

/** For each of the first three components, which of its values is black and which is full. */
function percentileRanges(coordinates: Float32Array[], components: number): [low: number, high: number][] {
  return Array.from({ length: Math.min(3, components) }, (_, k) => {
    const values = new Float32Array(coordinates.reduce((count, data) => count + data.length / components, 0));
    let count = 0;
    for (const data of coordinates) for (let at = k; at < data.length; at += components) values[count++] = data[at]!;
    values.sort();
    const percentile = (part: number) => {
      const place = part * (values.length - 1);
      const below = values[Math.floor(place)]!;
      return below + (values[Math.ceil(place)]! - below) * (place % 1);
    };
    return [percentile(0.02), percentile(0.98)];
  });
}

function colours(data: Float32Array, components: number, ranges: [number, number][]): Uint8ClampedArray<ArrayBuffer> {
  const rgba = new Uint8ClampedArray((data.length / components) * 4).fill(255);
  for (let row = 0; row < rgba.length / 4; row++) {
    for (let channel = 0; channel < 3; channel++) {
      // One component is a grey picture; of two, blue stays in the middle.
      const k = ranges.length === 1 ? 0 : channel;
      const [low, high] = ranges[k] ?? [0, 0];
      rgba[row * 4 + channel] = high > low ? (255 * (data[row * components + k]! - low)) / (high - low) : 128;
    }
  }
  return rgba;
}

/** Vectors that go through the data together: so many sums fit the registers of a processor. */
const LANES = 4;
/** Krylov vectors before a restart, and restarts before the result is taken as it is. */
const MAX_BASIS = 96;
const MAX_RESTARTS = 40;
/** Largest residual of a wanted eigenpair, relative to the largest eigenvalue. */
const TOLERANCE = 1e-6;

/**
 * The leading eigenvectors and eigenvalues of XᵀX, for rows X that have been centred.
 *
 * Block Lanczos with full reorthogonalisation: needs only products with XᵀX, each one sweep over the rows, and few of them.
 * A block wider than the number of components finds repeated eigenvalues, too.
 */
function principalAxes(rows: Float32Array, width: number, components: number): { vectors: Float32Array; values: Float64Array } {
  const blockSize = Math.min(width, Math.ceil((components + 1) / LANES) * LANES);
  let block = startBlock(blockSize, width);
  let ritz: { vectors: Float64Array[]; values: number[] } = { vectors: [], values: [] };
  for (let restart = 0; restart < MAX_RESTARTS; restart++) {
    const basis = orthonormalise(block, [], 0);
    /** basisᵀ·XᵀX·basis */
    const projected: number[][] = [];
    let done = false;
    for (let start = 0; ; ) {
      const images = applyGram(rows, width, basis.slice(start));
      for (const [i, image] of images.entries()) {
        for (const [j, vector] of basis.entries()) {
          const value = dot(vector, image);
          (projected[start + i] ??= [])[j] = value;
          (projected[j] ??= [])[start + i] = value;
        }
      }
      const eigen = symmetricEigen(projected);
      const scale = Math.max(eigen.values[0]!, Number.MIN_VALUE);
      const next = orthonormalise(images, basis, scale * 1e-13);
      // What XᵀX makes of a Ritz vector outside of the basis comes from its part in the last block.
      const residual = (k: number) => {
        const outside = next.map((vector) => images.reduce((sum, image, i) => sum + dot(vector, image) * eigen.vectors[start + i]![k]!, 0));
        return Math.hypot(...outside);
      };
      const wanted = Math.min(components, basis.length);
      done = next.length === 0 || (basis.length >= components && Array.from({ length: wanted }, (_, k) => residual(k)).every((r) => r <= TOLERANCE * scale));
      if (done || basis.length + next.length > MAX_BASIS) {
        const keep = Math.min(blockSize, basis.length);
        ritz = { vectors: Array.from({ length: keep }, (_, k) => combine(basis, eigen.vectors, k)), values: eigen.values.slice(0, keep) };
        break;
      }
      start = basis.length;
      basis.push(...next);
    }
    if (done) break;
    block = ritz.vectors;
  }
  const vectors = new Float32Array(components * width);
  const values = new Float64Array(components);
  const least = (ritz.values[0] ?? 0) * 1e-12;
  for (let k = 0; k < components; k++) {
    const vector = ritz.vectors[k];
    const value = ritz.values[k] ?? 0;
    if (!vector || value <= least) continue;
    const largest = vector.reduce((a, b) => (Math.abs(b) > Math.abs(a) ? b : a), 0);
    vectors.set(vector.map((entry) => (largest < 0 ? -entry : entry)), k * width);
    values[k] = value;
  }
  return { vectors, values };
}

/** Pseudo-random, as a direction that is orthogonal to a wanted one would never find it; always the same. */
function startBlock(count: number, width: number): Float64Array[] {
  let state = 1;
  const next = () => {
    state = (Math.imul(1664525, state) + 1013904223) >>> 0;
    return state / 2 ** 31 - 1;
  };
  return Array.from({ length: count }, () => Float64Array.from({ length: width }, next));
}

/** XᵀX times each vector, four at a time in one sweep over the rows. */
function applyGram(rows: Float32Array, width: number, vectors: Float64Array[]): Float64Array[] {
  const results: Float64Array[] = [];
  for (let first = 0; first < vectors.length; first += LANES) {
    const group = vectors.slice(first, first + LANES);
    const packed = new Float64Array(width * LANES);
    for (const [lane, vector] of group.entries()) for (let j = 0; j < width; j++) packed[j * LANES + lane] = vector[j]!;
    const sums = sweep(rows, width, packed);
    for (const lane of group.keys()) results.push(Float64Array.from({ length: width }, (_, j) => sums[j * LANES + lane]!));
  }
  return results;
}

/** XᵀX times four interleaved vectors. Two rows at once, so that each load of a vector serves both; a last odd row is paired with itself at weight 0. */
function sweep(rows: Float32Array, width: number, vectors: Float64Array): Float64Array {
  const sums = new Float64Array(vectors.length);
  for (let p = 0; p < rows.length; p += 2 * width) {
    const pair = p + width < rows.length;
    const q = pair ? p + width : p;
    let p0 = 0;
    let p1 = 0;
    let p2 = 0;
    let p3 = 0;
    let q0 = 0;
    let q1 = 0;
    let q2 = 0;
    let q3 = 0;
    for (let j = 0, k = 0; j < width; j++, k += 4) {
      const x = rows[p + j]!;
      const y = rows[q + j]!;
      const v0 = vectors[k]!;
      const v1 = vectors[k + 1]!;
      const v2 = vectors[k + 2]!;
      const v3 = vectors[k + 3]!;
      p0 += x * v0;
      p1 += x * v1;
      p2 += x * v2;
      p3 += x * v3;
      q0 += y * v0;
      q1 += y * v1;
      q2 += y * v2;
      q3 += y * v3;
    }
    if (!pair) q0 = q1 = q2 = q3 = 0;
    for (let j = 0, k = 0; j < width; j++, k += 4) {
      const x = rows[p + j]!;
      const y = rows[q + j]!;
      sums[k]! += x * p0 + y * q0;
      sums[k + 1]! += x * p1 + y * q1;
      sums[k + 2]! += x * p2 + y * q2;
      sums[k + 3]! += x * p3 + y * q3;
    }
  }
  return sums;
}

/** An orthonormal basis of what `vectors` add to the span of `basis`; parts shorter than `least` are rounding errors. */
function orthonormalise(vectors: Float64Array[], basis: Float64Array[], least: number): Float64Array[] {
  const added: Float64Array[] = [];
  for (const vector of vectors) {
    const rest = vector.slice();
    // Twice, because the first pass leaves rounding errors of the size of what it removes.
    for (let pass = 0; pass < 2; pass++) {
      for (const other of [...basis, ...added]) {
        const part = dot(other, rest);
        for (let j = 0; j < rest.length; j++) rest[j]! -= part * other[j]!;
      }
    }
    const length = Math.sqrt(dot(rest, rest));
    if (length <= least) continue;
    for (let j = 0; j < rest.length; j++) rest[j]! /= length;
    added.push(rest);
  }
  return added;
}

function dot(a: Float64Array, b: Float64Array): number {
  let sum = 0;
  for (let j = 0; j < a.length; j++) sum += a[j]! * b[j]!;
  return sum;
}

function combine(basis: Float64Array[], coefficients: number[][], k: number): Float64Array {
  const out = new Float64Array(basis[0]!.length);
  for (const [i, vector] of basis.entries()) {
    const part = coefficients[i]![k]!;
    for (let j = 0; j < out.length; j++) out[j]! += part * vector[j]!;
  }
  return out;
}

/** Eigenvalues by falling size and eigenvectors (as columns) of a small symmetric matrix, by cyclic Jacobi rotations. */
function symmetricEigen(matrix: number[][]): { values: number[]; vectors: number[][] } {
  const n = matrix.length;
  const a = Float64Array.from(matrix.flat());
  const v = Float64Array.from(a, (_, i) => (i % (n + 1) === 0 ? 1 : 0));
  const size = Math.sqrt(dot(a, a));
  // What is left is squared by each pass, so few are enough.
  for (let pass = 0, off = Infinity; pass < 50 && off > size * 1e-13; pass++) {
    off = 0;
    for (let p = 0; p < n; p++) {
      for (let q = p + 1; q < n; q++) {
        const entry = a[p * n + q]!;
        off = Math.max(off, Math.abs(entry));
        if (Math.abs(entry) <= size * 1e-16) continue;
        const theta = (a[q * n + q]! - a[p * n + p]!) / (2 * entry);
        const t = (theta < 0 ? -1 : 1) / (Math.abs(theta) + Math.sqrt(theta * theta + 1));
        const c = 1 / Math.sqrt(t * t + 1);
        const s = t * c;
        rotate(a, p, q, n, n, c, s);
        rotate(v, p, q, n, n, c, s);
        rotate(a, p * n, q * n, 1, n, c, s);
      }
    }
  }
  const order = Array.from({ length: n }, (_, i) => i).sort((i, j) => a[j * n + j]! - a[i * n + i]!);
  return { values: order.map((i) => a[i * n + i]!), vectors: matrix.map((_, row) => order.map((i) => v[row * n + i]!)) };
}

/** Turns two rows or columns, which start at `p` and `q`, in their plane. */
function rotate(m: Float64Array, p: number, q: number, stride: number, n: number, c: number, s: number): void {
  for (let i = 0; i < n; i++, p += stride, q += stride) {
    const left = m[p]!;
    const right = m[q]!;
    m[p] = c * left - s * right;
    m[q] = s * left + c * right;
  }
}
