import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { rustToolchain, WASM } from "./toolchain.mjs";
import { alignThreadLocals, constructorWrappers } from "./wasm-binary.mjs";

// A static constructor as `inventory` makes them, two exports, and behind `cured` the one call that src/wasm makes.
const SOURCE = `
use std::sync::atomic::{AtomicU32, Ordering};
static RUNS: AtomicU32 = AtomicU32::new(0);
#[cfg(constructor)]
extern "C" fn construct() { RUNS.fetch_add(1, Ordering::SeqCst); }
#[cfg(constructor)]
#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCT: extern "C" fn() = construct;
#[unsafe(no_mangle)]
pub extern "C" fn runs() -> u32 { RUNS.load(Ordering::SeqCst) }
#[unsafe(no_mangle)]
pub extern "C" fn add(a: u32) -> u32 { a + RUNS.load(Ordering::SeqCst) }
#[cfg(cured)]
unsafe extern "C" { fn __wasm_call_ctors(); }
#[cfg(cured)]
#[unsafe(no_mangle)]
pub extern "C" fn start() { unsafe { __wasm_call_ctors() } }
`;

// Debian's Rust has no compiled standard library for a bare rustc; there the build's own check stands alone.
describe.skipIf(rustToolchain().wasm.args.length > 0)("of modules as the linker makes them", () => {
  const folder = mkdtempSync(join(tmpdir(), "webjepa-"));
  const { env } = rustToolchain().wasm;
  afterAll(() => rmSync(folder, { recursive: true }));

  function compile(cfgs = [], links = []) {
    writeFileSync(join(folder, "lib.rs"), SOURCE);
    const flags = [...cfgs.flatMap((cfg) => ["--cfg", cfg]), ...links.flatMap((link) => ["-C", `link-arg=--${link}`])];
    const options = ["--edition", "2024", "--crate-type", "cdylib", "--target", WASM, "-O", "-C", "strip=debuginfo", ...flags];
    execFileSync("rustc", [...options, "lib.rs", "-o", "lib.wasm"], { cwd: folder, env: { ...process.env, ...env } });
    return readFileSync(join(folder, "lib.wasm"));
  }
  async function runsAfterThreeCalls(bytes) {
    const { exports } = (await WebAssembly.instantiate(bytes)).instance;
    exports.start?.();
    for (let call = 0; call < 3; call++) exports.add(1);
    return exports.runs();
  }

  describe("constructorWrappers", () => {
    it("names every export of a module with constructors", async () => {
      const bytes = compile(["constructor"]);
      expect(await runsAfterThreeCalls(bytes)).toBe(4);
      expect(constructorWrappers(bytes).sort()).toEqual(["add", "runs"]);
    });

    it("accepts a module that calls them once at its start", async () => {
      const bytes = compile(["constructor", "cured"]);
      expect(await runsAfterThreeCalls(bytes)).toBe(1);
      expect(constructorWrappers(bytes)).toEqual([]);
    });

    it("accepts a module without constructors", () => {
      expect(constructorWrappers(compile())).toEqual([]);
    });
  });

  describe("alignThreadLocals", () => {
    const SHARED = ["shared-memory", "import-memory", "max-memory=4294967296", "no-check-features", "export=__tls_align"];

    async function alignment(bytes) {
      const memory = new WebAssembly.Memory({ initial: 32, maximum: 65536, shared: true });
      return (await WebAssembly.instantiate(bytes, { env: { memory } })).instance.exports.__tls_align.value;
    }

    it("aligns to a byte what the linker left at nothing", async () => {
      const bytes = compile([], SHARED);
      expect(await alignment(bytes)).toBe(0);
      alignThreadLocals(bytes);
      expect(await alignment(bytes)).toBe(1);
    });

    it("refuses a module without shared memory", () => {
      expect(() => alignThreadLocals(compile())).toThrow("__tls_align");
    });
  });
});
