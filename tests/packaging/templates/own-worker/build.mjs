import { cpSync } from "node:fs";
import { build } from "esbuild";

await build({
  entryPoints: ["./main.js", "./embedder.js"],
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
