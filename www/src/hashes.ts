// Hashes of bytes that come piece by piece, which WebCrypto cannot take: it wants a file in one buffer. The build of the package bundles
// the library into this file, so that pages without a bundler have it.

import { sha256, sha384, sha512 } from "@noble/hashes/sha2.js";

/** A hash that is being computed. */
export interface Hash {
  update(bytes: Uint8Array): unknown;
  /** Ends it. */
  digest(): Uint8Array;
}

export const HASHES: Readonly<Record<"sha256" | "sha384" | "sha512", () => Hash>> = {
  sha256: () => sha256.create(),
  sha384: () => sha384.create(),
  sha512: () => sha512.create(),
};
