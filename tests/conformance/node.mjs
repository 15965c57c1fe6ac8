// The wasm checks in Node: node.mjs cpu|cpu-relaxed|webgpu DIR [PART …], JSON on standard output. WebGPU is Dawn, from the npm package `webgpu`.

import { readFileSync, readdirSync } from "node:fs";
import { join, relative, sep } from "node:path";

const [module, dir, ...only] = process.argv.slice(2);
let complaints = 0;
let subgroups = false;
if (module === "webgpu") {
  const { create, globals } = await import("webgpu");
  Object.assign(globalThis, globals);
  Object.defineProperty(globalThis, "navigator", { value: { gpu: create([]) }, configurable: true });
  // wgpu looks for a window or a worker scope before it looks for navigator.gpu.
  globalThis.window = globalThis;
  globalThis.Window = class { static [Symbol.hasInstance](value) { return value === globalThis; } };
  const { watchWebGpu } = await import("./watch.mjs");
  subgroups = await watchWebGpu();
  const { error } = console;
  console.error = (...args) => { complaints++; error(...args); };
}
const glue = new URL(`../../www/wasm/conformance-${module}/`, import.meta.url);
const { default: init, conformance } = await import(new URL("webjepa.js", glue));
await init({ module_or_path: readFileSync(new URL("webjepa_bg.wasm", glue)) });

const files = new Map();
for (const entry of readdirSync(dir, { recursive: true, withFileTypes: true })) {
  if (!entry.isFile()) continue;
  const path = join(entry.parentPath ?? entry.path, entry.name);
  files.set(relative(dir, path).split(sep).join("/"), new Uint8Array(readFileSync(path)));
}
const json = await conformance(files, only, subgroups);
process.stdout.write(json, () => process.exit(complaints > 0 ? 1 : 0));
