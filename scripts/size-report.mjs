// Prints what a visitor downloads for each wasm build, and fails when a build is over its budget.

import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { main, root, stop } from "./lib.mjs";

/** Megabytes of 10^6 bytes, module and glue together, gzipped. */
const BUDGETS = { core: 0.15, cpu: 0.547, "cpu-relaxed": 0.547, "cpu-threads": 0.55, webgpu: 3.0 };
const FILES = { core: ["bytes.js", "webjepa.js"] };
const OTHER_FILES = ["webjepa_bg.wasm", "webjepa.js"];

export function sizeReport() {
  const row = (...cells) => console.log(cells.map((cell, i) => (i ? cell.padStart(14) : cell.padEnd(28))).join(""));
  const megabytes = (bytes) => `${(bytes / 1e6).toFixed(3)} MB`;
  const over = [];
  row("", "raw", "gzipped", "budget");
  for (const [kind, budget] of Object.entries(BUDGETS)) {
    const sizes = (FILES[kind] ?? OTHER_FILES).map((file) => {
      const path = join(root, "www", "wasm", kind, file);
      if (!existsSync(path)) stop(`${kind} is not built; run: npm run build:wasm -- ${kind}`);
      const bytes = readFileSync(path);
      return { file, raw: bytes.length, gzipped: gzipSync(bytes, { level: 9 }).length };
    });
    for (const { file, raw, gzipped } of sizes) row(`${kind}/${file}`, megabytes(raw), megabytes(gzipped), "");
    const total = (key) => sizes.reduce((sum, size) => sum + size[key], 0);
    row(`${kind} together`, megabytes(total("raw")), megabytes(total("gzipped")), `${budget} MB`);
    if (total("gzipped") > budget * 1e6) over.push(`${kind} by ${megabytes(total("gzipped") - budget * 1e6)}`);
  }
  if (over.length > 0) stop(`over the size budget: ${over.join(", ")}`);
}

await main(import.meta, sizeReport);
