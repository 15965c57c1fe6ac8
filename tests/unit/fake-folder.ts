// A FileSystemDirectoryHandle in memory, whose disk can be full and whose machine can lose power at any moment.

export class FakeFolder {
  readonly name = "run";
  readonly kind = "directory";
  readonly folders = new Map<string, FakeFolder>();
  /** The folder that this one is in, whose disk it shares. */
  readonly #parent: FakeFolder | undefined;
  readonly files = new Map<string, Uint8Array<ArrayBuffer>>();
  /** Bytes that fit on the disk, copies that are being written included. */
  capacity = Infinity;
  /** After so many more operations nothing happens any more. */
  operations = Infinity;
  /** Bytes of copies that are being written. */
  #copies = new Map<object, number>();

  constructor(parent?: FakeFolder) {
    this.#parent = parent;
  }

  get used(): number {
    const folders = [...this.folders.values()].reduce((sum, { used }) => sum + used, 0);
    return folders + [...this.files.values()].reduce((sum, { length }) => sum + length, 0) + [...this.#copies.values()].reduce((a, b) => a + b, 0);
  }

  get #root(): FakeFolder {
    return this.#parent ? this.#parent.#root : this;
  }

  #operate(): void {
    if (this.#parent) return this.#root.#operate();
    if (this.operations-- <= 0) throw new PowerCut();
  }

  async getFileHandle(name: string, { create = false } = {}) {
    if (!this.files.has(name)) {
      if (!create) throw new DOMException("there is none", "NotFoundError");
      this.#operate();
      this.files.set(name, new Uint8Array(0));
    }
    return { getFile: async () => new File([this.files.get(name)!], name), createWritable: async () => this.#writable(name) };
  }

  async getDirectoryHandle(name: string, { create = false } = {}) {
    if (!this.folders.has(name)) {
      if (!create) throw new DOMException("there is none", "NotFoundError");
      this.#operate();
      this.folders.set(name, new FakeFolder(this));
    }
    return this.folders.get(name)!;
  }

  async removeEntry(name: string) {
    this.#operate();
    if (!this.folders.delete(name) && !this.files.delete(name)) throw new DOMException("there is none", "NotFoundError");
  }

  async *values() {
    yield* this.folders.values();
  }

  #writable(name: string) {
    const copy = {};
    const parts: Uint8Array[] = [];
    this.#copies.set(copy, 0);
    return {
      write: async (bytes: Uint8Array) => {
        this.#operate();
        if (this.#root.used + bytes.length > this.#root.capacity) throw new DOMException("full", "QuotaExceededError");
        this.#copies.set(copy, this.#copies.get(copy)! + bytes.length);
        parts.push(bytes);
      },
      close: async () => {
        this.#operate();
        this.#copies.delete(copy);
        this.files.set(name, new Uint8Array(Buffer.concat(parts)));
      },
      abort: async () => void this.#copies.delete(copy),
    };
  }

  get handle(): FileSystemDirectoryHandle {
    return this as unknown as FileSystemDirectoryHandle;
  }
}

export class PowerCut extends Error {}
