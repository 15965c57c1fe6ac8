// Mutations of files: seeded, so that an input is known by its target and its number.

import { pseudoRandom } from "../../www/bench/models.mjs";

/** Numbers at which readers go wrong, as text. */
const TEXTS = ["0", "1", "-1", "3", "0.5", "1e9", "1e999", "255", "65536", "2147483648", "4294967295", "9007199254740993", "18446744073709551615", "null", "[]", '"x"'];
/** The same as bytes, and as integers of four. */
const BYTES = [0, 1, 0x20, 0x7f, 0x80, 0xff];
const INTEGERS = [0, 1, 0x100, 0x7fffffff, 0x80000000, 0xffffffff];

/** Numbers that one mutation draws at most. */
const DRAWS = 64;

/** Input `i` of a target: one of the corpus with one to four faults. */
export function mutated(target: string, corpus: readonly Uint8Array[], i: number): Uint8Array<ArrayBuffer> {
  const draws = pseudoRandom(`${target}/${i}`, DRAWS, 0.5);
  let drawn = 0;
  const below = (end: number) => Math.floor((draws[drawn++]! + 0.5) * end);
  const of = <T>(list: readonly T[]) => list[below(list.length)]!;
  let bytes = Buffer.from(of(corpus));
  // What describes the rest is at the beginning.
  const place = () => (below(2) ? below(bytes.length) : below(Math.min(bytes.length, 512)));
  const splice = (at: number, removed: number, ...inserted: Uint8Array[]) => (bytes = Buffer.concat([bytes.subarray(0, at), ...inserted, bytes.subarray(at + removed)]));
  const faults: (() => void)[] = [
    () => (bytes[place()]! ^= 1 << below(8)),
    () => (bytes[place()] = of(BYTES)),
    () => {
      const at = place();
      if (at + 4 <= bytes.length) bytes.writeUInt32LE(of(INTEGERS), at);
    },
    () => (bytes = bytes.subarray(0, place())),
    () => splice(place(), 1 + below(16)),
    () => {
      const at = place();
      splice(at, 0, bytes.subarray(at, at + 1 + below(64)));
    },
    () => {
      const other = of(corpus);
      splice(place(), bytes.length, other.subarray(below(other.length)));
    },
    () => {
      const numbers = [...bytes.toString("latin1").matchAll(/-?\d+(\.\d+)?/g)];
      if (numbers.length === 0) return;
      const { 0: number, index } = of(numbers);
      const text = Buffer.from(of(TEXTS));
      // The header of a safetensors file says its own length, without which nothing in it is looked at.
      const header = bytes.length > 8 && bytes[8] === 0x7b && bytes.readBigUInt64LE(0) < bytes.length ? bytes.readUInt32LE(0) : 0;
      splice(index, number.length, text);
      if (index >= 8 && index < header) bytes.writeUInt32LE(header + text.length - number.length, 0);
    },
  ];
  for (let count = 1 + below(4); count > 0 && bytes.length > 0; count--) of(faults)();
  return new Uint8Array(bytes);
}
