import { cpSync } from "node:fs";
import { build } from "esbuild";

// esbuild does not follow `new URL(…, import.meta.url)`: the worker and its helping thread are entries of their own, and the modules are copied beside it.
await build({
  entryPoints: { main: "./main.js", worker: "webjepa/worker", thread: "webjepa/thread" },
  bundle: true,
  splitting: true,
  minify: true,
  format: "esm",
  target: "es2022",
  outdir: "dist",
  logLevel: "warning",
});
cpSync("node_modules/webjepa/dist/wasm", "dist/wasm", { recursive: true });
cpSync("index.html", "dist/index.html");
