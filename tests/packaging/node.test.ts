import { readFileSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, it } from "vitest";
import { expectEmbedding, FIXTURES, run, TINY, useProject } from "./harness.js";

const project = useProject("node");
const photo: { output: { mean_pooled: number[] } } = JSON.parse(readFileSync(join(FIXTURES, "ijepa_ti16", "expected.json"), "utf8"));

it("embeds in a Node script", async () => {
  await writeFile(join(project.folder, "picture.json"), TINY.picture);
  const folder = join(FIXTURES, "ijepa_ti16");
  const { stdout, stderr } = await run(project.folder, process.execPath, "embed.js", folder, join(folder, "resized.png"), TINY.folder, "picture.json");
  expect(stderr).toBe("");
  const { picture, prepared } = JSON.parse(stdout);
  // Weights of f16 and twelve layers.
  expectEmbedding(picture, photo.output.mean_pooled, 5e-5);
  expectEmbedding(prepared, TINY.mean);
});

it("touches nothing as a Node script imports it, and knows what the machine can do", async () => {
  const script = `
    for (const name of ["fetch", "Worker", "navigator", "window"]) {
      Object.defineProperty(globalThis, name, { configurable: true, get() { throw new Error(name + " was touched at import"); } });
    }
    const [{ probeDevice }, { predictionErrors }] = await Promise.all([import("webjepa"), import("webjepa/viz")]);
    for (const name of ["fetch", "Worker", "navigator", "window"]) delete globalThis[name];
    console.log(JSON.stringify({ ...(await probeDevice()), mean: predictionErrors([1, 2, 6], [[0, 1], [1]], 2).mean }));
  `;
  const { stdout, stderr } = await run(project.folder, process.execPath, "--input-type=module", "-e", script);
  expect(stderr).toBe("");
  expect(JSON.parse(stdout)).toMatchObject({ webgpu: false, reason: expect.any(String), limits: {}, mean: 3 });
});

it("exports the same with and without workers", async () => {
  const script = `
    const [names, core] = await Promise.all(["webjepa", "webjepa/core"].map(async (name) => Object.keys(await import(name))));
    console.log(JSON.stringify({ names, core }));
  `;
  const { stdout } = await run(project.folder, process.execPath, "--input-type=module", "-e", script);
  const { names, core } = JSON.parse(stdout);
  expect(names).toContain("Jepa");
  expect(core).toEqual(names);
});

it("has its WebAssembly modules where it says", async () => {
  const script = `
    import { readFileSync } from "node:fs";
    for (const backend of ["cpu", "webgpu"]) await WebAssembly.compile(readFileSync(new URL(import.meta.resolve(\`webjepa/wasm/\${backend}/webjepa_bg.wasm\`))));
  `;
  await run(project.folder, process.execPath, "--input-type=module", "-e", script);
});
