// Classifiers with the real core module: npm run build:wasm core

import { describe, expect, it } from "vitest";
import { callCore } from "../../www/src/core.js";
import { KnnClassifier, LinearProbe, type Embeddings, type LinearProbeOptions } from "../../www/src/index.js";

const thrown = (body: () => unknown) => {
  try {
    body();
  } catch (error) {
    return error;
  }
  return expect.unreachable("the call should have failed");
};

/** Points of three classes around corners of a square, in the plane of the first two of four coordinates. */
const CORNERS = { a: [3, 0], b: [0, 3], c: [-3, -3] } as const;
const LABELS = Array.from({ length: 60 }, (_, i) => (["a", "b", "c"] as const)[i % 3]!);
const POINTS = LABELS.map((label, i) => [CORNERS[label][0] + Math.sin(i), CORNERS[label][1] + Math.cos(2 * i), Math.sin(3 * i), 7]);
const matrix = (rows: number[][]) => ({ data: Float32Array.from(rows.flat()), shape: [rows.length, rows[0]!.length] });

describe("nearest neighbours", () => {
  it("vote with the weight of their similarity", () => {
    const classifier = KnnClassifier.fit([[1, 0], [0, 2], [-1, 0]], ["east", "north", "west"]);
    expect(classifier.classes).toEqual(["east", "north", "west"]);
    // Similarities 0.6 and 0.8 to the two nearest, whatever the length.
    const { labels, scores, classes } = classifier.predict([[3, 4]], { k: 2, temperature: 0.5 });
    const [east, north] = [Math.exp(0.6 / 0.5), Math.exp(0.8 / 0.5)];
    expect(labels).toEqual(["north"]);
    expect(classes).toEqual(["east", "north", "west"]);
    expect(scores).toHaveLength(3);
    expect(scores[0]).toBeCloseTo(east / (east + north), 6);
    expect(scores[1]).toBeCloseTo(north / (east + north), 6);
    expect(scores[2]).toBe(0);
    expect(classifier.predict([[3, 4]], { k: 1 }).scores).toEqual(Float32Array.of(0, 1, 0));
  });

  it("vote as before when the module has been replaced", () => {
    const classifier = KnnClassifier.fit([[1, 0], [0, 2], [-1, 0]], ["east", "north", "west"]);
    const before = classifier.predict([[3, 4], [1, 1]]);
    const crash = () => {
      throw new Error("no orderly error");
    };
    expect(thrown(() => callCore(crash))).toMatchObject({ code: "internal" });
    expect(classifier.predict([[3, 4], [1, 1]])).toEqual(before);
  });

  it("can be asked about themselves", () => {
    const classifier = KnnClassifier.fit([[1, 0], [1, 0.1], [0, 1], [0.1, 1]], [true, true, false, true]);
    expect(classifier.leaveOneOut({ k: 1 }).labels).toEqual([true, true, true, false]);
  });

  it("take embeddings in every form that has rows", () => {
    const forms: Embeddings[] = [POINTS, matrix(POINTS), POINTS.map((point) => Float32Array.from(point)), POINTS.map((point) => ({ data: Float32Array.from(point) }))];
    for (const form of forms) {
      const classifier = KnnClassifier.fit(form, LABELS);
      expect(classifier.predict(form, { k: 5 }).labels).toEqual(LABELS);
    }
  });

  it("remember embeddings as they were", () => {
    const points = matrix(POINTS);
    const classifier = KnnClassifier.fit(points, LABELS);
    points.data.fill(0);
    expect(classifier.predict(POINTS, { k: 5 }).labels).toEqual(LABELS);
  });

  it.each([
    ["fewer labels than embeddings", () => KnnClassifier.fit(POINTS, ["a"]), /60 embeddings and 1 labels/],
    ["no embeddings", () => KnnClassifier.fit([], []), /no embedding/],
    ["embeddings of different lengths", () => KnnClassifier.fit([[1], [1, 2]], ["a", "b"]), /Embedding 1 has 2 values/],
    ["a shape that is not that of the data", () => KnnClassifier.fit({ data: new Float32Array(3), shape: [2, 2] }, ["a", "b"]), /Embeddings are/],
    ["something else", () => KnnClassifier.fit("cats" as never, ["a"]), /Embeddings are/],
    ["labels that are none", () => KnnClassifier.fit([[1]], [{}] as never), /A label is/],
    ["no labels", () => KnnClassifier.fit([[1]], undefined as never), /Labels are/],
    ["NaN", () => KnnClassifier.fit([[NaN, 1]], ["a"]), /finite/],
    ["embeddings of another length", () => KnnClassifier.fit(POINTS, LABELS).predict([[1, 2]]), /4 values, and these have 2/],
    ["no neighbours", () => KnnClassifier.fit(POINTS, LABELS).predict(POINTS, { k: 0 }), /option k/],
    ["a temperature of 0", () => KnnClassifier.fit(POINTS, LABELS).predict(POINTS, { temperature: 0 }), /temperature/],
    ["an option that there is not", () => KnnClassifier.fit(POINTS, LABELS).predict(POINTS, { neighbours: 3 } as never), /no option neighbours/],
    ["a single embedding by the others", () => KnnClassifier.fit([[1]], ["a"]).leaveOneOut(), /two at least/],
  ])("refuse %s", (_, body, message) => {
    expect(thrown(body)).toMatchObject({ name: "JepaError", code: "bad-input", message: expect.stringMatching(message) });
    expect(KnnClassifier.fit(POINTS, LABELS).predict(POINTS, { k: 1 }).labels).toEqual(LABELS);
  });
});

describe("a linear probe", () => {
  it("is the ridge regression that the closed form says", () => {
    const [xs, ridge] = [[0, 1, 5], 0.7];
    const probe = LinearProbe.fit(xs.map((x) => [x]), ["low", "low", "high"], { ridge });
    const { mean, std } = probe.toJSON() as { mean: number[]; std: number[] };
    expect(mean[0]).toBeCloseTo(2, 6);
    const standard = xs.map((x) => (x - 2) / std[0]!);
    const [share, ys] = [1 / 3, [0, 0, 1]];
    const dot = (a: number[], b: number[]) => a.reduce((sum, value, i) => sum + value * b[i]!, 0);
    const weight = dot(standard, ys.map((y) => y - share)) / (dot(standard, standard) + ridge);
    const { labels, scores } = probe.predict([[0], [4]]);
    expect(labels).toEqual(["low", "high"]);
    expect(scores[1]).toBeCloseTo(share + (weight * -2) / std[0]!, 5);
    expect(scores[3]).toBeCloseTo(share + (weight * 2) / std[0]!, 5);
    expect(scores[0]! + scores[1]!).toBeCloseTo(1, 5);
  });

  it.each([{ method: "ridge" }, { method: "logistic", steps: 300, seed: 1 }] as LinearProbeOptions[])("tells classes apart: %o", (options) => {
    const probe = LinearProbe.fit(matrix(POINTS), LABELS, options);
    const { labels, scores } = probe.predict(POINTS);
    expect(labels).toEqual(LABELS);
    if (options.method === "logistic") {
      for (let i = 0; i < 60; i++) expect(scores[3 * i]! + scores[3 * i + 1]! + scores[3 * i + 2]!).toBeCloseTo(1, 5);
    }
    expect(LinearProbe.fit(POINTS, LABELS, options).predict(POINTS).scores).toEqual(scores);
    const again = LinearProbe.fromJSON(JSON.parse(JSON.stringify(probe)));
    expect(again.classes).toEqual(["a", "b", "c"]);
    expect(again.predict(POINTS)).toEqual({ labels, scores, classes: ["a", "b", "c"] });
  });

  it("depends on the seed where samples are shuffled", () => {
    const scores = (seed: number) => LinearProbe.fit(POINTS, LABELS, { method: "logistic", steps: 20, batch: 10, seed }).predict(POINTS).scores;
    expect(scores(1)).toEqual(scores(1));
    expect(scores(1)).not.toEqual(scores(2));
  });

  it.each([
    ["one class only", () => LinearProbe.fit(POINTS, POINTS.map(() => 1)), /class/],
    ["an unknown method", () => LinearProbe.fit(POINTS, LABELS, { method: "svm" as never }), /method is one of "ridge", "logistic"/],
    ["an option of the other method", () => LinearProbe.fit(POINTS, LABELS, { steps: 3 }), /steps is not one of method "ridge"/],
    ["the other way round", () => LinearProbe.fit(POINTS, LABELS, { method: "logistic", ridge: 3 }), /ridge is not one of method "logistic"/],
    ["a ridge of 0", () => LinearProbe.fit(POINTS, LABELS, { ridge: 0 }), /ridge/],
    ["embeddings of another length", () => LinearProbe.fit(POINTS, LABELS).predict([[1, 2, 3]]), /4 values, and these have 3/],
    ["values that are not finite", () => LinearProbe.fit(POINTS, LABELS).predict([[1, 2, 3, Infinity]]), /finite/],
    ["no JSON", () => LinearProbe.fromJSON(null), /no saved probe/],
    ["other JSON", () => LinearProbe.fromJSON({ method: "ridge" }), /no saved probe/],
    ["JSON that contradicts itself", () => LinearProbe.fromJSON({ ...LinearProbe.fit(POINTS, LABELS).toJSON(), bias: [1] }), /damaged/],
  ])("refuses %s", (_, body, message) => {
    expect(thrown(body)).toMatchObject({ name: "JepaError", code: "bad-input", message: expect.stringMatching(message) });
    expect(LinearProbe.fit(POINTS, LABELS).predict(POINTS).labels).toEqual(LABELS);
  });
});
