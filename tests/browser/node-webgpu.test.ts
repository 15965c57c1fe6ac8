// The package in Node on WebGPU, as the npm package "webgpu" brings it, on Mesa's software adapter where that is installed.

import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { promisify } from "node:util";
import { expect, it } from "vitest";
import { LAVAPIPE } from "../../scripts/hosts.mjs";
import { DIST, FIXTURES } from "./harness.js";

const run = promisify(execFile);

it.skipIf(!LAVAPIPE)("Node embeds a photo on WebGPU as the published implementation does", async () => {
  const script = `
    import { create } from "webgpu";
    import { Jepa, probeDevice } from ${JSON.stringify(pathToFileURL(join(DIST, "index.js")).href)};
    Object.defineProperty(globalThis, "navigator", { value: { gpu: create([]) }, configurable: true });
    const jepa = await Jepa.load(${JSON.stringify(join(FIXTURES, "ijepa_ti16"))});
    const { data } = await jepa.embed(${JSON.stringify(join(FIXTURES, "ijepa_ti16", "resized.png"))});
    await jepa.dispose();
    const { webgpu } = await probeDevice();
    console.log(JSON.stringify({ webgpu, backend: jepa.backend, data: [...data], left: "window" in globalThis }));
  `;
  const env = { ...process.env, VK_ICD_FILENAMES: LAVAPIPE, XDG_RUNTIME_DIR: tmpdir() };
  const { stdout } = await run(process.execPath, ["--input-type=module", "-e", script], { cwd: fileURLToPath(new URL("../..", import.meta.url)), env });
  const { data, ...rest } = JSON.parse(stdout);
  expect(rest).toEqual({ webgpu: true, backend: "webgpu", left: false });
  const expected: number[] = JSON.parse(readFileSync(join(FIXTURES, "ijepa_ti16", "expected.json"), "utf8")).output.mean_pooled;
  expect(Math.max(...expected.map((value, i) => Math.abs(value - data[i])))).toBeLessThan(2e-4);
});
