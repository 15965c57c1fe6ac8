// Finds exported functions that run the module's static constructors on every call.
//
// wasm-ld does that to each export of a module that has constructors and never calls `__wasm_call_ctors` itself: it exports a
// wrapper whose first instruction is that call. burn's compiler brings hundreds of constructors, so a forward pass that makes
// thousands of calls takes seconds. The cure is one call in the module's start function, which is the one caller allowed.

const CUSTOM = 0;
const [IMPORT, EXPORT, CODE] = [2, 7, 10];
const CALL = 0x10;

/** Names of the wrapped exports of a linked module that still has its name section. */
export function constructorWrappers(bytes) {
  const module = parse(bytes);
  const constructors = module.names.get("__wasm_call_ctors");
  if (constructors === undefined) return [];
  const callers = module.exports.filter(({ index }) => module.firstCall(index) === constructors);
  return callers.length > 1 ? callers.map(({ name }) => name) : [];
}

function parse(bytes) {
  let at = 8;
  const u32 = () => {
    for (let value = 0, shift = 0; ; shift += 7) {
      const byte = bytes[at++];
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) return value;
    }
  };
  const text = () => {
    const length = u32();
    return new TextDecoder().decode(bytes.subarray(at, (at += length)));
  };
  const limits = () => {
    const flags = u32();
    u32();
    if (flags & 1) u32();
  };
  const skipImport = [u32, () => (at++, limits()), limits, () => (at += 2), () => (at++, u32())];

  let imported = 0;
  const exports = [];
  const bodies = [];
  const names = new Map();
  while (at < bytes.length) {
    const id = bytes[at++];
    const end = u32() + at;
    if (id === IMPORT) {
      for (let count = u32(); count > 0; count--) {
        text();
        text();
        const kind = bytes[at++];
        if (kind === 0) imported++;
        skipImport[kind]();
      }
    } else if (id === EXPORT) {
      for (let count = u32(); count > 0; count--) {
        const [name, kind, index] = [text(), bytes[at++], u32()];
        if (kind === 0) exports.push({ name, index });
      }
    } else if (id === CODE) {
      for (let count = u32(); count > 0; count--) {
        const size = u32();
        bodies.push(at);
        at += size;
      }
    } else if (id === CUSTOM && text() === "name") {
      while (at < end) {
        const [part, partEnd] = [bytes[at++], u32() + at];
        if (part === 1) for (let count = u32(); count > 0; count--) {
          const index = u32();
          names.set(text(), index);
        }
        at = partEnd;
      }
    }
    at = end;
  }

  /** The function that a function calls as its very first instruction, if it does. */
  const firstCall = (index) => {
    if (index < imported) return undefined;
    at = bodies[index - imported];
    for (let locals = u32(); locals > 0; locals--) {
      u32();
      at++;
    }
    return bytes[at++] === CALL ? u32() : undefined;
  };
  return { exports, names, firstCall };
}
