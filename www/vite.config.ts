import { readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { defineConfig } from "vite";

const path = (relative: string) => fileURLToPath(new URL(relative, import.meta.url));
const demo = path("demo/");

export default defineConfig({
  root: demo,
  base: "./",
  resolve: { alias: { webjepa: path("src/index.ts") } },
  worker: { format: "es" },
  // The demo imports the library from beside it.
  server: { fs: { allow: [path("..")] } },
  build: {
    outDir: path("dist"),
    emptyOutDir: true,
    target: "es2022",
    rolldownOptions: { input: readdirSync(demo).filter((name) => name.endsWith(".html")).map((name) => demo + name) },
  },
});
