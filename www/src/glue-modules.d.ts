/** The JavaScript that wasm-bindgen writes; see glue.ts for what it exports. */
declare module "*/webjepa.js";
