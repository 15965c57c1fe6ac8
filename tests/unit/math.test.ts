import { describe, expect, it } from "vitest";
import { cosineSimilarity, pca } from "../../www/src/index.js";

function generator(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(1664525, state) + 1013904223) >>> 0;
    return state / 2 ** 31 - 1;
  };
}

const matrix = (rows: number[][]) => ({ data: Float32Array.from(rows.flat()), shape: [rows.length, rows[0]!.length] });
const random = (rows: number, width: number, seed: number) => {
  const next = generator(seed);
  return matrix(Array.from({ length: rows }, () => Array.from({ length: width }, next)));
};

/** Columns of the Walsh-Hadamard matrix of order n, which are orthogonal, have entries ±1 and, but for the first, mean 0. */
const hadamard = (n: number, column: number) =>
  Array.from({ length: n }, (_, row) => {
    let bits = row & column;
    let sign = 1;
    for (; bits; bits &= bits - 1) sign = -sign;
    return sign;
  });

describe("cosineSimilarity", () => {
  it.each([
    [[1, 0], [1, 0], 1],
    [[1, 0], [0, 2], 0],
    [[1, 2, 3], [-2, -4, -6], -1],
    [[1, 0], [1, 1], Math.SQRT1_2],
    [[0, 0], [1, 1], 0],
    [[], [], 0],
  ])("of %j and %j is %d", (a, b, expected) => {
    expect(cosineSimilarity(a, b)).toBeCloseTo(expected, 12);
    expect(cosineSimilarity(Float32Array.from(a), { data: Float32Array.from(b) })).toBeCloseTo(expected, 6);
  });

  it("never leaves the range of a cosine", () => {
    const a = Array.from({ length: 99 }, (_, i) => Math.sin(i));
    expect(cosineSimilarity(a, a)).toBeLessThanOrEqual(1);
  });

  it.each([
    [[1], [1, 2]],
    [undefined, [1]],
    ["ab", "cd"],
  ])("refuses %j and %j", (a, b) => {
    expect(() => cosineSimilarity(a as number[], b as number[])).toThrow(expect.objectContaining({ code: "bad-input" }));
  });
});

describe("pca", () => {
  it("finds the axes and variances of data that was made from them", () => {
    // Rows are mean + Σ s_k · ±1 · axis_k with uncorrelated signs: the covariance is Σ s_k² axis_k axis_kᵀ · n/(n-1).
    const n = 64;
    const sizes = [5, 3, 2, 0.5];
    const axes = [
      [0.6, 0.8, 0, 0, 0],
      [-0.8, 0.6, 0, 0, 0],
      [0, 0, 0, 1, 0],
      [0, 0, 1, 0, 0],
    ];
    const signs = sizes.map((_, k) => hadamard(n, k + 1));
    const mean = [10, -20, 30, 0, 7];
    const e = matrix(Array.from({ length: n }, (_, row) => mean.map((m, j) => m + sizes.reduce((sum, s, k) => sum + s * signs[k]![row]! * axes[k]![j]!, 0))));
    const result = pca(e);
    expect(result.shape).toEqual([n, 3]);
    expect([...result.mean]).toEqual(mean.map((m) => expect.closeTo(m, 5)));
    const expectedAxes = [axes[0]!, axes[1]!.map((v) => -v), axes[2]!];
    expect([...result.basis]).toEqual(expectedAxes.flat().map((v) => expect.closeTo(v, 5)));
    expect([...result.explainedVariance]).toEqual([25, 9, 4].map((v) => expect.closeTo((v * n) / (n - 1), 3)));
    expect([...result.explainedVarianceRatio]).toEqual([25, 9, 4].map((v) => expect.closeTo(v / 38.25, 5)));
    const expected = signs[0]!.flatMap((_, row) => [sizes[0]! * signs[0]![row]!, -sizes[1]! * signs[1]![row]!, sizes[2]! * signs[2]![row]!]);
    expect([...result.data]).toEqual(expected.map((v) => expect.closeTo(v, 4)));
  });

  it("finds axes of the same variance, any basis of which is right", () => {
    const n = 16;
    const e = matrix(Array.from({ length: n }, (_, row) => Array.from({ length: 6 }, (_, j) => (j < 3 ? 2 : 1) * hadamard(n, j + 1)[row]!)));
    const { basis, explainedVariance } = pca(e);
    expect([...explainedVariance]).toEqual([1, 1, 1].map(() => expect.closeTo((4 * n) / (n - 1), 4)));
    for (let k = 0; k < 3; k++) expect(Math.hypot(...basis.subarray(k * 6, k * 6 + 3))).toBeCloseTo(1, 5);
  });

  it.each([
    [300, 40, 3],
    [20, 200, 5],
    [50, 50, 10],
  ])("satisfies the eigenvalue equation for %i rows of %i values, %i components", (rows, width, components) => {
    const e = random(rows, width, rows);
    const { basis, mean, explainedVariance, data } = pca(e, { components });
    let above = Infinity;
    for (let k = 0; k < components; k++) {
      const axis = basis.subarray(k * width, (k + 1) * width);
      const image = new Float64Array(width);
      for (let row = 0; row < rows; row++) {
        const along = data[row * components + k]!;
        for (let j = 0; j < width; j++) image[j]! += ((e.data[row * width + j]! - mean[j]!) * along) / (rows - 1);
      }
      const residual = Math.hypot(...image.map((value, j) => value - explainedVariance[k]! * axis[j]!));
      expect(residual).toBeLessThan(2e-5 * explainedVariance[0]!);
      expect(explainedVariance[k]!).toBeLessThanOrEqual(above);
      above = explainedVariance[k]!;
      const largest = axis.reduce((a, b) => (Math.abs(b) > Math.abs(a) ? b : a));
      expect(largest).toBeGreaterThan(0);
    }
  });

  it("is the same each time, and does not change its input", () => {
    const e = random(50, 20, 3);
    const before = e.data.slice();
    expect(pca(e).basis).toEqual(pca(e).basis);
    expect(e.data).toEqual(before);
  });

  it("has zeros for what the data does not have", () => {
    const e = matrix([
      [1, 1],
      [2, 2],
      [3, 3],
    ]);
    const { basis, explainedVariance, data } = pca(e, { components: 2 });
    expect([...basis]).toEqual([expect.closeTo(Math.SQRT1_2, 6), expect.closeTo(Math.SQRT1_2, 6), 0, 0]);
    expect([...explainedVariance]).toEqual([expect.closeTo(2, 5), 0]);
    expect(data[1]).toBe(0);
    const constant = pca(matrix([[4, 4, 4], [4, 4, 4]]));
    expect([...constant.data, ...constant.explainedVarianceRatio]).toEqual(Array(9).fill(0));
    expect([...constant.toRGB()]).toEqual([128, 128, 128, 255, 128, 128, 128, 255]);
  });

  it("finds common components of several embeddings", () => {
    const [a, b] = [random(30, 8, 1), random(20, 8, 2)];
    const both = pca(matrix([...rowsOf(a), ...rowsOf(b)]));
    const [first, second] = pca([a, b]);
    expect([...first!.data, ...second!.data]).toEqual([...both.data]);
    expect([...first!.toRGB(), ...second!.toRGB()]).toEqual([...both.toRGB()]);
    expect(second!.basis).toBe(first!.basis);
  });

  it("treats a batch as one embedding of all its rows", () => {
    const e = random(24, 8, 5);
    const result = pca({ data: e.data, shape: [2, 12, 8], grid: [1, 3, 4] });
    expect(result.shape).toEqual([2, 12, 3]);
    expect(result.grid).toEqual([1, 3, 4]);
    expect(result.data).toEqual(pca(e).data);
  });

  it("keeps the grid only where the rows are its patches", () => {
    expect(pca({ ...random(12, 8, 5), grid: [1, 3, 4] }).grid).toEqual([1, 3, 4]);
    expect(pca({ ...random(5, 8, 5), grid: [1, 3, 4] })).not.toHaveProperty("grid");
  });

  it("projects other embeddings with the same axes and colours", () => {
    const [a, b] = [random(30, 8, 1), random(20, 8, 2)];
    const fitted = pca(a);
    expect(fitted.project(a).data).toEqual(fitted.data);
    expect(fitted.project(a).toRGB()).toEqual(fitted.toRGB());
    const other = fitted.project(b);
    expect(other.shape).toEqual([20, 3]);
    const row = [...b.data.subarray(0, 8)].map((value, j) => value - fitted.mean[j]!);
    expect(other.data[0]).toBeCloseTo(row.reduce((sum, value, j) => sum + value * fitted.basis[j]!, 0), 5);
    expect(() => fitted.project(random(3, 9, 1))).toThrow(expect.objectContaining({ code: "bad-input" }));
  });

  it("fills the range of colours from the 2nd to the 98th percentile", () => {
    const line = matrix(Array.from({ length: 101 }, (_, i) => [i, 0, 0]));
    const rgba = pca(line, { components: 1 }).toRGB();
    const red = Array.from({ length: 101 }, (_, i) => rgba[i * 4]!);
    expect(red.slice(0, 3)).toEqual([0, 0, 0]);
    expect(red.slice(98)).toEqual([255, 255, 255]);
    expect(red[50]).toBeCloseTo(127.5, -0.5);
    expect(rgba.length).toBe(404);
    expect([rgba[201], rgba[202], rgba[203]]).toEqual([red[50], red[50], 255]);
  });

  it("shows fewer than three components too", () => {
    const rgba = pca(random(10, 4, 1), { components: 2 }).toRGB();
    expect([rgba[2], rgba[6], rgba[3]]).toEqual([128, 128, 255]);
  });

  it.each([
    ["one vector", { data: new Float32Array(4), shape: [4] }, {}],
    ["no rows", { data: new Float32Array(0), shape: [0, 4] }, {}],
    ["nothing", [], {}],
    ["a shape that does not fit", { data: new Float32Array(5), shape: [2, 3] }, {}],
    ["different widths", [random(3, 4, 1), random(3, 5, 1)], {}],
    ["a value that is not finite", matrix([[1, NaN, 2], [3, 4, 5]]), {}],
    ["no components", random(5, 4, 1), { components: 0 }],
    ["more components than values", random(5, 4, 1), { components: 5 }],
  ])("refuses %s", (_, input, options) => {
    expect(() => pca(input as Parameters<typeof pca>[0], options)).toThrow(expect.objectContaining({ name: "JepaError", code: "bad-input" }));
  });
});

function rowsOf({ data, shape }: { data: Float32Array; shape: number[] }): number[][] {
  return Array.from({ length: shape[0]! }, (_, row) => [...data.subarray(row * shape[1]!, (row + 1) * shape[1]!)]);
}
