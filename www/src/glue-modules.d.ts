/** The JavaScript that wasm-bindgen writes; see glue.ts for what it exports. */
declare module "*/webjepa.js";

/** A wasm module as base64; written by scripts/build-wasm.mjs. */
declare module "*/bytes.js" {
  const base64: string;
  export default base64;
}
