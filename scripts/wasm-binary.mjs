// What linked modules are looked at for, and changed in, before wasm-bindgen takes them.

const CUSTOM = 0;
const [IMPORT, GLOBAL, EXPORT, CODE] = [2, 6, 7, 10];
const [CALL, I32_CONST] = [0x10, 0x41];

/**
 * Names of the exports, of a module that still has its name section, which run the static constructors on every call.
 *
 * wasm-ld does that to each export of a module that has constructors and never calls `__wasm_call_ctors` itself: it exports a
 * wrapper whose first instruction is that call. burn's compiler brings hundreds of constructors, so a forward pass that makes
 * thousands of calls takes seconds. The cure is one call in the module's start function, which is the one caller allowed.
 */
export function constructorWrappers(bytes) {
  const module = parse(bytes);
  const constructors = module.names.get("__wasm_call_ctors");
  if (constructors === undefined) return [];
  const callers = module.exports.filter(({ kind, index }) => kind === 0 && module.firstCall(index) === constructors);
  return callers.length > 1 ? callers.map(({ name }) => name) : [];
}

/**
 * Gives a module with shared memory, in place, thread-local variables aligned to a byte: it has none, so wasm-ld aligns them to nothing,
 * and wasm-bindgen asks for memory of that alignment when a thread begins, which ends it.
 */
export function alignThreadLocals(bytes) {
  const { exports, globals } = parse(bytes);
  const at = globals[exports.find(({ name }) => name === "__tls_align")?.index];
  if (bytes[at] !== I32_CONST) throw new Error("the module exports no constant __tls_align");
  bytes[at + 1] ||= 1;
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

  /** Over a constant expression of one instruction, by its opcode. */
  const skipConstant = { 0x23: u32, 0x41: u32, 0x42: u32, 0x43: () => (at += 4), 0x44: () => (at += 8), 0xd0: u32, 0xd2: u32 };

  let imported = 0;
  /** Where the expressions of globals are. */
  const globals = [];
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
        if (kind === 3) globals.push(undefined);
        skipImport[kind]();
      }
    } else if (id === GLOBAL) {
      for (let count = u32(); count > 0; count--) {
        at += 2;
        globals.push(at);
        skipConstant[bytes[at++]]();
        at++;
      }
    } else if (id === EXPORT) {
      for (let count = u32(); count > 0; count--) {
        const [name, kind, index] = [text(), bytes[at++], u32()];
        exports.push({ name, kind, index });
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
  return { exports, globals, names, firstCall };
}
