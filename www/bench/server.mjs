// Serves one origin to the benchmark pages: the built package, the rivals' own distributions and the generated models.
import { createServer } from "node:http";
import { readFile } from "node:fs/promises";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { MODELS, checkpoint } from "./models.mjs";
import { PyTorch } from "./native.mjs";
import { onnx } from "./onnx.mjs";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const FOLDERS = {
  "/bench/": "www/bench",
  "/webjepa/": "pkg/dist",
  "/wasm/": "www/wasm",
  "/onnxruntime-web/": "node_modules/onnxruntime-web/dist",
  "/transformers/": "node_modules/@huggingface/transformers/dist",
  "/transformers-onnxruntime-web/": "node_modules/@huggingface/transformers/node_modules/onnxruntime-web/dist",
  "/transformers-onnxruntime-common/": "node_modules/@huggingface/transformers/node_modules/onnxruntime-common/dist/esm",
  "/jax/": "node_modules/@jax-js/jax/dist",
  "/uplot/": "node_modules/uplot/dist",
  "/tfjs/": "node_modules/@tensorflow/tfjs/dist",
  "/tfjs-backend-wasm/": "node_modules/@tensorflow/tfjs-backend-wasm/dist",
  "/tfjs-backend-webgpu/": "node_modules/@tensorflow/tfjs-backend-webgpu/dist",
};
const TYPES = { ".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm", ".html": "text/html", ".json": "application/json", ".css": "text/css" };
const COMPRESSED = new Set([".js", ".mjs", ".wasm", ".html", ".json"]);

/** The body at a path, undefined where there is none. Binaryen is large, so that it comes when it is needed. */
async function load(path) {
  const model = /^\/models\/([^/]+)\/(.+)$/.exec(path);
  if (model && MODELS[model[1]]) {
    const plain = /^(\w+)-(\w+)\.onnx$/.exec(model[2]);
    if (plain) return Buffer.from(onnx(MODELS[model[1]], plain[1], { tubelets: plain[2] }));
    // Where transformers.js looks for it, and with the names that Hugging Face's exporter gives.
    const exported = /^onnx\/(\w+)\.onnx$/.exec(model[2]);
    if (exported) return Buffer.from(onnx(MODELS[model[1]], exported[1], { input: "pixel_values", output: "last_hidden_state" }));
    return checkpoint(MODELS[model[1]])[model[2]];
  }
  const ceilings = /^\/ceilings\/(simd|relaxed)-(\d+)\.wasm$/.exec(path);
  if (ceilings) return Buffer.from((await import("./ceilings-wasm.mjs")).ceilingsModule(Number(ceilings[2]), ceilings[1] === "relaxed"));
  const folder = Object.keys(FOLDERS).find((prefix) => path.startsWith(prefix));
  const relative = normalize(path.slice(folder?.length ?? 0));
  if (!folder || relative.startsWith("..")) return undefined;
  return readFile(join(ROOT, FOLDERS[folder], relative)).catch(() => undefined);
}

/**
 * Starts the server. `traffic` counts the body bytes sent since its last `reset()`, the harness left out: code is sent gzipped, as a real host would, weights as they are.
 * A page is cross-origin isolated, which is what gives wasm threads, when its query says `isolated`.
 */
export async function serve() {
  const traffic = { code: 0, weights: 0, reset() { this.code = this.weights = 0; } };
  const cache = new Map();
  const read = (path) => {
    if (!cache.has(path)) cache.set(path, load(path).then((raw) => raw && { raw, gzip: COMPRESSED.has(extname(path)) ? gzipSync(raw) : undefined }));
    return cache.get(path);
  };

  let pytorch;
  const askPyTorch = async (request) => {
    pytorch ??= new PyTorch();
    return pytorch.ask(Buffer.concat(await request.toArray()));
  };

  const server = createServer(async (request, response) => {
    const url = new URL(request.url, "http://localhost");
    if (request.method === "POST" && url.pathname === "/pytorch") {
      const answer = await askPyTorch(request).catch((error) => ({ error }));
      if (answer.error) response.writeHead(500);
      return void response.end(answer.error ? String(answer.error) : answer);
    }
    const file = await read(url.pathname).catch((error) => ({ error }));
    if (!file?.raw) {
      response.writeHead(file ? 500 : 404).end(file && String(file.error));
      return;
    }
    const page = url.pathname.endsWith(".html");
    const isolated = !page || url.searchParams.has("isolated");
    const headers = {
      "content-type": TYPES[extname(url.pathname)] ?? "application/octet-stream",
      "accept-ranges": "bytes",
      "cache-control": "no-store",
      ...(isolated && { "cross-origin-embedder-policy": "require-corp" }),
      ...(isolated && page && { "cross-origin-opener-policy": "same-origin" }),
    };
    let status = 200;
    let body = file.raw;
    const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? "");
    if (range) {
      const end = range[2] ? Math.min(Number(range[2]), body.length - 1) : body.length - 1;
      headers["content-range"] = `bytes ${range[1]}-${end}/${body.length}`;
      body = body.subarray(Number(range[1]), end + 1);
      status = 206;
    } else if (file.gzip && /gzip/.test(request.headers["accept-encoding"] ?? "")) {
      headers["content-encoding"] = "gzip";
      body = file.gzip;
    }
    headers["content-length"] = body.length;
    response.writeHead(status, headers);
    if (request.method === "HEAD") return void response.end();
    if (!url.pathname.startsWith("/bench/")) traffic[/\.(safetensors|onnx)$/.test(url.pathname) ? "weights" : "code"] += body.length;
    response.end(body);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const close = () => {
    pytorch?.close();
    return new Promise((resolve) => server.close(resolve));
  };
  return { origin: `http://127.0.0.1:${server.address().port}`, traffic, close };
}
