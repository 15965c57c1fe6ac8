// What files must be, as hashes in the form of W3C Subresource Integrity.

import { JepaError } from "./errors.js";
import type { Hash } from "./hashes.js";
import { shown } from "./options.js";

/** Bytes of a digest, from the weakest hash to the strongest. */
const LENGTHS = { sha256: 32, sha384: 48, sha512: 64 };
type Algorithm = keyof typeof LENGTHS;

/** The digests that a file may have, in base64. */
export interface Expected {
  algorithm: Algorithm;
  digests: string[];
}

/** By the names of files, in a form that can be posted to a worker. */
export type Integrity = Readonly<Record<string, Expected>>;

/** Reads the option of the caller; of several hashes for a file the strongest kind counts, as in browsers. */
export function parseIntegrity(integrity: unknown): Integrity {
  if (typeof integrity !== "object" || integrity === null) throw new JepaError("bad-input", `The option integrity is an object of hashes by file names, not ${shown(integrity)}.`);
  const given = Object.entries(integrity).filter(([, hashes]) => hashes !== undefined);
  return Object.fromEntries(given.map(([name, hashes]) => [name, parseHashes(name, hashes)]));
}

function parseHashes(name: string, hashes: unknown): Expected {
  const malformed = () =>
    new JepaError("bad-input", `The integrity of ${name} is ${shown(hashes)}, not "sha256-", "sha384-" or "sha512-" followed by the digest in base64, or several of these separated by spaces.`);
  if (typeof hashes !== "string" || hashes.trim() === "") throw malformed();
  const parsed = hashes.trim().split(/\s+/).map((hash) => {
    const [, algorithm, base64] = /^(sha256|sha384|sha512)-([A-Za-z0-9+/]+={0,2})$/.exec(hash) ?? [];
    const digest = base64 && base64.length % 4 === 0 ? atob(base64) : "";
    if (!algorithm || digest.length !== LENGTHS[algorithm as Algorithm]) throw malformed();
    return { algorithm: algorithm as Algorithm, digest: btoa(digest) };
  });
  const { algorithm } = parsed.reduce((a, b) => (LENGTHS[b.algorithm] > LENGTHS[a.algorithm] ? b : a));
  return { algorithm, digests: parsed.filter((hash) => hash.algorithm === algorithm).map(({ digest }) => digest) };
}

/** Compares a file, whose bytes it is given in their order, with what it must be. */
export class Verifier {
  readonly #expected: Expected;
  readonly #hash: Hash;

  static async of(expected: Expected): Promise<Verifier> {
    const { HASHES } = await import("./hashes.js");
    return new Verifier(expected, HASHES[expected.algorithm]());
  }

  private constructor(expected: Expected, hash: Hash) {
    this.#expected = expected;
    this.#hash = hash;
  }

  update(bytes: Uint8Array): void {
    this.#hash.update(bytes);
  }

  /** After the last byte; throws `integrity` when the file is another one. */
  check(label: string): void {
    const { algorithm, digests } = this.#expected;
    const found = btoa(String.fromCharCode(...this.#hash.digest()));
    if (digests.includes(found)) return;
    const expected = digests.map((digest) => `${algorithm}-${digest}`).join(" or ");
    throw new JepaError("integrity", `${label} is not the file that was expected: its hash is ${algorithm}-${found}, not ${expected}. Get the file or the hash again.`);
  }
}
