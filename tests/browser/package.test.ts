// The package as it is installed: bundled, unbundled, in Node, and by the type checker.

import { execFile } from "node:child_process";
import { cp, mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { build, createServer } from "vite";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { DIST, FIXTURES, useLab, watchErrors } from "./harness.js";

const lab = useLab();
const run = promisify(execFile);
const root = fileURLToPath(new URL("../..", import.meta.url));
let project: string;

const APP = `
import { Jepa } from "webjepa";
const source = new URL("/fixtures/ijepa_tiny_hf", location.href);
const picture = { data: new Uint8Array([10, 20, 30]), width: 1, height: 1, channels: 3 };
const results = {};
for (const [name, options] of Object.entries({ worker: {}, thread: { worker: false } })) {
  const jepa = await Jepa.load(source, { backend: "cpu", ...options });
  results[name] = [...(await jepa.embed(picture)).data];
  await jepa.dispose();
}
globalThis.results = results;
`;
const HTML = '<!doctype html><link rel="icon" href="data:,"><script type="module" src="./app.js"></script>';

beforeAll(async () => {
  project = await mkdtemp(join(tmpdir(), "webjepa-project-"));
  await mkdir(join(project, "node_modules"));
  await cp(join(DIST, ".."), join(project, "node_modules", "webjepa"), { recursive: true });
  for (const dependency of ["pngjs", "jpeg-js", "exifr"]) await symlink(join(root, "node_modules", dependency), join(project, "node_modules", dependency));
  await writeFile(join(project, "package.json"), '{ "type": "module" }');
  await writeFile(join(project, "app.js"), APP);
  await writeFile(join(project, "index.html"), HTML);
});
afterAll(() => rm(project, { recursive: true }));

/** What the app computes at an address, where no error is allowed. */
async function resultsAt(url: string): Promise<Record<string, number[]>> {
  const page = await lab.browser.newPage();
  const errors: string[] = [];
  watchErrors(page, (text) => errors.push(text));
  await page.goto(url);
  await page.waitForFunction(() => "results" in globalThis).catch((error) => Promise.reject(new Error(errors.join("\n"), { cause: error })));
  const results = await page.evaluate(() => (globalThis as never as { results: Record<string, number[]> }).results);
  await page.close();
  expect(errors).toEqual([]);
  expect(results.worker).toEqual(results.thread);
  return results;
}

describe("the package", () => {
  it("works from a static server, without a bundler", async () => {
    const map = '<script type="importmap">{ "imports": { "webjepa": "/dist/index.js" } }</script>';
    lab.server.files.set("plain.html", HTML.replace("<script", `${map}<script`));
    lab.server.files.set("app.js", APP);
    const results = await resultsAt(`http://localhost:${new URL(lab.server.url).port}/plain.html`);
    expect(results.worker!.length).toBeGreaterThan(8);
  });

  it("works when Vite has bundled it, and then asks for nothing that is Node's", async () => {
    const warnings: string[] = [];
    await build({
      root: project,
      base: "./",
      worker: { format: "es" },
      build: { target: "es2022", rolldownOptions: { onLog: (level, log) => void (level === "warn" && warnings.push(log.message)) } },
      logLevel: "silent",
    });
    expect(warnings).toEqual([]);
    lab.server.folders.set("built", join(project, "dist"));
    await resultsAt(`http://localhost:${new URL(lab.server.url).port}/built/index.html`);
  });

  it("works in Vite's development server", async () => {
    const vite = await createServer({
      root: project,
      logLevel: "silent",
      optimizeDeps: { exclude: ["webjepa"] },
      server: { port: 0, host: "127.0.0.1", proxy: { "/fixtures": lab.server.url } },
    });
    await vite.listen();
    await resultsAt(vite.resolvedUrls!.local[0]!);
    await vite.close();
  });

  it("works in Node, and does nothing at import", async () => {
    const script = `
      for (const name of ["fetch", "Worker", "navigator", "window"]) {
        Object.defineProperty(globalThis, name, { configurable: true, get() { throw new Error(name + " was touched at import"); } });
      }
      const { Jepa, cosineSimilarity, probeDevice } = await import("webjepa");
      for (const name of ["fetch", "Worker", "navigator", "window"]) delete globalThis[name];
      console.log(JSON.stringify(await probeDevice()));
      const jepa = await Jepa.load(${JSON.stringify(join(FIXTURES, "ijepa_ti16"))});
      const e = await jepa.embed([${JSON.stringify(join(FIXTURES, "ijepa_ti16", "image.png"))}, ${JSON.stringify(join(FIXTURES, "ijepa_ti16", "resized.png"))}]);
      const [a, b] = [e.data.subarray(0, e.shape[1]), e.data.subarray(e.shape[1])];
      console.log(JSON.stringify({ backend: jepa.backend, shape: e.shape, similarity: cosineSimilarity(a, b) }));
      await jepa.dispose();
    `;
    const { stdout, stderr } = await run(process.execPath, ["--input-type=module", "-e", script], { cwd: project });
    expect(stderr).toBe("");
    const [caps, result] = stdout.trim().split("\n").map((line) => JSON.parse(line));
    expect(caps).toMatchObject({ webgpu: false, reason: expect.any(String), limits: {} });
    expect(result).toMatchObject({ backend: "cpu", shape: [2, 192] });
    expect(result.similarity).toBeGreaterThan(0.999);
  });

  it("has types for strict consumers that know the DOM and nothing of WebGPU or Node", async () => {
    await writeFile(
      join(project, "consumer.ts"),
      `import { Jepa, JepaError, KnnClassifier, LinearProbe, Trainer, cosineSimilarity, opfsStore, pca, probeDevice, type Embedding, type ImageInput, type JepaErrorCode, type LoadOptions, type ModelSource, type Progress, type SaveStore } from "webjepa";

      const options: LoadOptions = { backend: "auto", dtype: "f16", worker: true, onProgress: ({ overall }: Progress) => void overall.toFixed(), signal: undefined };
      export async function run(source: ModelSource, image: HTMLImageElement, code: JepaErrorCode): Promise<Embedding> {
        await using jepa = await Jepa.load(source, options);
        const images: ImageInput[] = [image, "a.png", new URL("https://example.org/a.png"), { data: new Uint8Array(3), width: 1, height: 1, channels: 3 }];
        const batch = await jepa.embed(images, { pool: "none", imageSize: [224, 448] });
        const colours: ImageData = new ImageData(pca(batch).toRGB(), jepa.grid[2], jepa.grid[1]);
        pca([batch, batch], { components: 5 })[1]?.project(batch).explainedVariance.at(0);
        const caps: boolean = (await probeDevice()).webgpu;
        if (caps && colours.width > 1 && cosineSimilarity(batch, [1, 2]) > 0.5) throw new JepaError(code, "no");
        const { error }: { error: Float32Array } = await jepa.predict(image, { context: [0, 1], targets: [Uint32Array.of(2), [3]] });
        const store: SaveStore = opfsStore("run");
        await using trainer = await Trainer.create({ model: "vit-tiny/16@96", objective: { kind: "lejepa", lambda: error[0] }, autosave: { every: 9, store }, onWarning: (text) => void text.trim() });
        for await (const { loss, warning } of trainer.run({ length: 64, get: () => image }, { steps: 2 })) if (warning !== undefined) throw new Error(warning + loss.toFixed());
        const files: { "config.json": string; "model.safetensors": Uint8Array } = await trainer.export("hf");
        await Jepa.load(await trainer.export("hf")).then((loaded) => loaded.dispose(), () => files);
        // @ts-expect-error: there is no such objective
        void Trainer.create({ model: "vit-tiny", objective: "mae" });
        // @ts-expect-error: there is no such pool
        void jepa.embed(image, { pool: "max" });
        // @ts-expect-error: models are loaded
        new Jepa();
        return jepa.embed(image);
      }
      `,
    );
    const tsc = join(root, "node_modules", "typescript", "bin", "tsc");
    for (const strictness of [["--exactOptionalPropertyTypes"], []]) {
      const libs = "ES2022,ESNext.Disposable,DOM";
      const args = [tsc, "--noEmit", "--strict", "--target", "es2022", "--module", "nodenext", "--lib", libs, "--types", "", ...strictness, "consumer.ts"];
      await run(process.execPath, args, { cwd: project }).catch(({ stdout }) => expect.unreachable(stdout));
    }
  });
});
