// Builds one wasm module with its JavaScript glue: node scripts/build-wasm.mjs core|cpu|cpu-relaxed|cpu-threads|webgpu|conformance-…
//
// cargo → refuse exports wrapped in constructors → wasm-bindgen → wasm-opt → www/wasm/<kind>/webjepa.js + webjepa_bg.wasm
// (core: + bytes.js, the module as text, for functions that work at once).
// Results are kept in the cache by a hash of everything they depend on, so unchanged sources cost nothing, in a new clone too.

import { createHash } from "node:crypto";
import { cpSync, existsSync, lstatSync, mkdirSync, readFileSync, readdirSync, rmSync, statSync, symlinkSync, utimesSync, writeFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { bin, cache, lockedVersion, main, output, read, root, run, say, seconds, stop } from "./lib.mjs";
import { setup, wasmBindgen } from "./setup.mjs";
import { WASM } from "./toolchain.mjs";
import { alignThreadLocals, constructorWrappers } from "./wasm-binary.mjs";

/** `optimise`: the level for wasm-opt. The conformance modules are run once or twice, so it would not pay there. `shared`: with shared memory. */
export const KINDS = {
  core: { crate: "webjepa-module", features: "", profile: "wasm-core", optimise: "-Oz", embed: true },
  cpu: { crate: "webjepa-module", features: "cpu", profile: "wasm-cpu", optimise: "-O3" },
  "cpu-relaxed": { crate: "webjepa-module", features: "cpu,relaxed-simd", profile: "wasm-cpu", optimise: "-O3" },
  "cpu-threads": { crate: "webjepa-module", features: "cpu,relaxed-simd,threads", profile: "wasm-cpu", optimise: "-O3", shared: true },
  webgpu: { crate: "webjepa-module", features: "webgpu", profile: "wasm-webgpu", optimise: "-Os" },
  // burn as it comes, which webjepa's training is measured against; built by the bench alone.
  "bench-burn": { crate: "webjepa-bench-burn", features: "", profile: "wasm-bench", optimise: "-O3" },
  "conformance-cpu": { crate: "webjepa-conformance", features: "cpu", profile: "wasm-cpu" },
  "conformance-cpu-relaxed": { crate: "webjepa-conformance", features: "cpu,relaxed-simd", profile: "wasm-cpu" },
  "conformance-webgpu": { crate: "webjepa-conformance", features: "webgpu", profile: "wasm-webgpu" },
};

const WASM_FEATURES = ["bulk-memory", "bulk-memory-opt", "multivalue", "mutable-globals", "nontrapping-float-to-int", "reference-types", "sign-ext", "simd", "relaxed-simd", "threads"];
/** The reset function is how www/src/instance.ts replaces an instance that has crashed or lost its device. */
const BINDGEN_FLAGS = ["--omit-default-module-path", "--remove-name-section", "--remove-producers-section", "--experimental-reset-state-function"];
/**
 * Memory that several instances work on, up to all that 32 bits reach. The standard library was compiled without atomic instructions, which is why
 * features are not checked: helpers do nothing but parts of kernels, see src/kernels/threads.rs. wasm-bindgen asks for the exports.
 */
const SHARED = ["shared-memory", "import-memory", "max-memory=4294967296", "no-check-features", ...["__heap_base", "__wasm_init_tls", "__tls_size", "__tls_align", "__tls_base"].map((name) => `export=${name}`)];
const KEPT_RESULTS = 18;
const CRATE_ROOTS = ["src/lib.rs", "src/kernels/lib.rs", "src/module/lib.rs", "tests/conformance/src/lib.rs", "www/bench/burn/lib.rs"];

export function buildWasm(kind, rust) {
  if (!(kind in KINDS)) stop(`unknown wasm build "${kind}"; there are ${Object.keys(KINDS).join(", ")}`);
  const hash = inputsHash(kind, rust);
  const kept = join(cache, "wasm", `${kind}-${hash}`);
  if (!existsSync(kept)) build(kind, rust, kept);
  utimesSync(kept, new Date(), new Date());
  install(kind, kept, hash);
}

function build(kind, { wasm: { cargo, args, env } }, kept) {
  const { crate, features, profile, optimise, embed, shared } = KINDS[kind];
  const start = performance.now();
  say(`building the ${kind} wasm module`);
  // A caller's RUSTFLAGS would replace those of .cargo/config.toml, without which the module cannot be built.
  const environment = { ...env, RUSTFLAGS: undefined, CARGO_ENCODED_RUSTFLAGS: undefined };
  // Clones share the target folder, and cargo tells by time alone whether a source is newer than what another clone built there.
  for (const file of CRATE_ROOTS) utimesSync(join(root, file), new Date(), new Date());
  run(cargo, ["fetch", "--locked", "--quiet"], { env: environment });
  const select = ["--package", crate, "--lib", "--crate-type", "cdylib", "--no-default-features", "--features", features];
  run(cargo, ["rustc", "--locked", "--target", WASM, "--profile", profile, ...select, ...args, "--config", remap(), "--", ...(shared ? SHARED : []).flatMap((arg) => ["-C", `link-arg=--${arg}`])], { env: environment });
  const linked = join(env.CARGO_TARGET_DIR, WASM, profile, `${crate.replaceAll("-", "_")}.wasm`);
  const bytes = readFileSync(linked);
  const wrapped = constructorWrappers(bytes);
  if (wrapped.length > 0) stop(`${wrapped.length} exports of the ${kind} module run every static constructor on each call (${wrapped[0]}, …); see src/wasm`);

  if (shared) {
    alignThreadLocals(bytes);
    writeFileSync(linked, bytes);
  }

  const out = `${kept}.partial`;
  rmSync(out, { recursive: true, force: true });
  run(wasmBindgen, [linked, "--target", "web", "--out-dir", out, "--out-name", "webjepa", ...BINDGEN_FLAGS]);
  const linkedIn = seconds(start);
  const file = join(out, "webjepa_bg.wasm");
  if (optimise) {
    bin("binaryen/bin/wasm-opt", [optimise, ...WASM_FEATURES.map((name) => `--enable-${name}`), "--strip-debug", "--strip-producers", "--strip-target-features", file, "-o", file]);
  }
  if (embed) {
    writeFileSync(join(out, "bytes.js"), `export default "${readFileSync(file, "base64")}";\n`);
    rmSync(file);
  }
  cpSync(out, kept, { recursive: true });
  rmSync(out, { recursive: true });
  prune();
  say(`built ${kind} in ${seconds(start)}${optimise ? ` (${linkedIn} before wasm-opt)` : ""}`);
}

/** Panic messages name the crates' source files; not by the home directory of whoever built them. */
function remap() {
  const registry = join(process.env.CARGO_HOME ?? join(homedir(), ".cargo"), "registry", "src");
  const flags = readdirSync(registry).map((name) => `--remap-path-prefix=${join(registry, name)}/=`);
  return `target.${WASM}.rustflags=${JSON.stringify(flags)}`;
}

function inputsHash(kind, { wasm: { cargo, args, env } }) {
  const hash = createHash("sha256");
  hash.update(JSON.stringify([KINDS[kind], WASM_FEATURES, BINDGEN_FLAGS, SHARED, args, output(cargo, ["--version"], { env }), lockedVersion("wasm-bindgen")]));
  hash.update(JSON.parse(read("package-lock.json")).packages["node_modules/binaryen"].version);
  const sources = kind === "bench-burn" ? ["www/bench/burn"] : kind.startsWith("conformance") ? ["src", "tests/conformance/src", "tests/conformance/Cargo.toml"] : ["src"];
  for (const file of ["Cargo.toml", "Cargo.lock", ".cargo/config.toml", ...sources].flatMap(files)) hash.update(`${file}\0${read(file)}\0`);
  return hash.digest("hex").slice(0, 16);
}

function files(path) {
  if (!statSync(join(root, path)).isDirectory()) return [path];
  return readdirSync(join(root, path)).sort().flatMap((name) => files(`${path}/${name}`));
}

/** Copies a kept result to www/wasm/<kind>, which the sources see as www/src/wasm: there as in the published package. */
function install(kind, kept, hash) {
  const out = join(root, "www", "wasm", kind);
  const stamp = join(out, ".hash");
  if (!existsSync(stamp) || readFileSync(stamp, "utf8") !== hash) {
    rmSync(out, { recursive: true, force: true });
    mkdirSync(out, { recursive: true });
    cpSync(kept, out, { recursive: true });
    writeFileSync(stamp, hash);
  }
  const link = join(root, "www", "src", "wasm");
  if (!lstatSync(link, { throwIfNoEntry: false })) {
    mkdirSync(join(root, "www", "src"), { recursive: true });
    symlinkSync(join("..", "wasm"), link, "dir");
  }
}

function prune() {
  const folder = join(cache, "wasm");
  const age = (name) => statSync(join(folder, name)).mtimeMs;
  const old = readdirSync(folder).sort((a, b) => age(b) - age(a)).slice(KEPT_RESULTS);
  for (const name of old) rmSync(join(folder, name), { recursive: true });
}

await main(import.meta, (kinds) => {
  if (kinds.length === 0) stop(`which wasm build? ${Object.keys(KINDS).join(", ")}`);
  const rust = setup();
  for (const kind of kinds) buildWasm(kind, rust);
});
