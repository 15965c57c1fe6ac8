import { cpSync } from "node:fs";
import { nodeResolve } from "@rollup/plugin-node-resolve";

// Rollup does not follow `new URL(…, import.meta.url)`: the worker and its helping thread are entries of their own, and the modules are copied beside it. `browser` leaves
// out what reads pictures in Node.
export default {
  input: { main: "./main.js", worker: "webjepa/worker", thread: "webjepa/thread" },
  output: { dir: "dist", chunkFileNames: "[name].js" },
  plugins: [
    nodeResolve({ browser: true }),
    {
      writeBundle() {
        cpSync("node_modules/webjepa/dist/wasm", "dist/wasm", { recursive: true });
        cpSync("index.html", "dist/index.html");
      },
    },
  ],
};
