// The WebAssembly of ceilings.js, written by hand, so that it is known what it does.
import binaryen from "binaryen";

const PAGE = 1 << 16;

/** Bytes of each of the two halves of the memory: more than the caches of one core hold. */
export const COPIED_BYTES = 1 << 26;

/**
 * Bytes of a module that exports
 *   `multiplyAdd(n, a, b)`: n times x ← x · a + b in each of `accumulators` vectors of four lanes, the k-th of which begins as k; they end in memory from 0 on,
 *   `copy()`: the first half of the memory into the second,
 *   `memory`.
 * The fused form of relaxed SIMD is used where `relaxed`.
 */
export function ceilingsModule(accumulators, relaxed) {
  const each = (line) => Array.from({ length: accumulators }, (_, k) => line(k)).join("\n");
  const step = (x) => (relaxed ? `(f32x4.relaxed_madd ${x} (local.get $a4) (local.get $b4))` : `(f32x4.add (f32x4.mul ${x} (local.get $a4)) (local.get $b4))`);
  const module = binaryen.parseText(`(module
    (memory (export "memory") ${(2 * COPIED_BYTES) / PAGE})
    (func (export "multiplyAdd") (param $n i32) (param $a f32) (param $b f32) (local $a4 v128) (local $b4 v128)
      ${each((k) => `(local $x${k} v128)`)}
      (local.set $a4 (f32x4.splat (local.get $a)))
      (local.set $b4 (f32x4.splat (local.get $b)))
      ${each((k) => `(local.set $x${k} (f32x4.splat (f32.const ${k})))`)}
      (loop $again
        ${each((k) => `(local.set $x${k} ${step(`(local.get $x${k})`)})`)}
        (br_if $again (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
      ${each((k) => `(v128.store (i32.const ${16 * k}) (local.get $x${k}))`)})
    (func (export "copy")
      (memory.copy (i32.const ${COPIED_BYTES}) (i32.const 0) (i32.const ${COPIED_BYTES}))))`);
  const { SIMD128, RelaxedSIMD, BulkMemory, BulkMemoryOpt } = binaryen.Features;
  module.setFeatures(SIMD128 | BulkMemory | BulkMemoryOpt | (relaxed ? RelaxedSIMD : 0));
  if (!module.validate()) throw new Error("the module of the ceilings is not valid");
  const bytes = module.emitBinary();
  module.dispose();
  return bytes;
}
