import { readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { defineConfig } from "vite";

const path = (relative: string) => fileURLToPath(new URL(relative, import.meta.url));
const demo = path("demo/");
const pages = readdirSync(demo, { recursive: true, encoding: "utf8" }).filter((name) => name.endsWith(".html")).map((name) => demo + name);
/** Never imported in a browser, as the "browser" field of the package says. */
const onlyInNode = "./node.js";

export default defineConfig({
  root: demo,
  base: "./",
  resolve: { alias: { "webjepa/viz": path("src/viz/index.ts"), webjepa: path("src/index.ts") } },
  worker: { format: "es", rolldownOptions: { external: onlyInNode } },
  // The demo imports the library from beside it.
  server: { fs: { allow: [path("..")] } },
  build: {
    outDir: path("dist"),
    emptyOutDir: true,
    target: "es2022",
    rolldownOptions: { external: onlyInNode, input: pages },
  },
});
