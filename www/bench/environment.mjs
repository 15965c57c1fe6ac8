// Where the numbers were taken, in lines that go above every table.
import { cpus, release, totalmem, type } from "node:os";
import { output, read } from "../../scripts/lib.mjs";
import { CHROMIUM } from "../../scripts/hosts.mjs";

const version = (path) => JSON.parse(read(path)).version;

export async function environment(host, { adapter, features }) {
  const [{ model }] = cpus();
  const where = host === "node" ? `Node ${process.versions.node}, Dawn (webgpu ${version("node_modules/webgpu/package.json")})` : `${output(CHROMIUM, ["--version"])}, headless`;
  return [
    `Date: ${new Date().toISOString().slice(0, 10)}`,
    `Machine: ${model.trim()}, ${cpus().length} cores, ${Math.round(totalmem() / 2 ** 30)} GiB, ${type()} ${release()}`,
    `Host: ${where}`,
    `WebGPU adapter: ${adapter}${/swiftshader|llvmpipe/i.test(adapter) ? " (software: only ratios mean anything)" : ""}; ${features.join(", ") || "no optional features"}`,
    `Versions: webjepa ${output("git", ["describe", "--always", "--dirty"]) ?? "unknown"}, onnxruntime-web ${version("node_modules/onnxruntime-web/package.json")}, transformers.js ${version("node_modules/@huggingface/transformers/package.json")}, @jax-js/jax ${version("node_modules/@jax-js/jax/package.json")}, @tensorflow/tfjs ${version("node_modules/@tensorflow/tfjs/package.json")}`,
  ];
}
