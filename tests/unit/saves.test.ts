import { beforeEach, describe, expect, it, vi } from "vitest";
import { memoryStore, opfsStore } from "../../www/src/index.js";
import { folderStore } from "../../www/src/saves.js";
import { FakeFolder } from "./fake-folder.js";

const bytes = (value: number, length = 1000) => new Uint8Array(length).fill(value);
const failure = (promise: Promise<unknown>) => promise.then(() => expect.unreachable("the call should have failed"), (error) => error);

describe("a store in memory", () => {
  it("gives the last save, whatever becomes of the bytes outside", async () => {
    const store = memoryStore();
    expect(await store.read()).toBeUndefined();
    const save = bytes(1);
    await store.write(save);
    save.fill(9);
    ((await store.read()) as Uint8Array).fill(8);
    expect(await store.read()).toEqual(bytes(1));
    await store.write(bytes(2));
    expect(await store.read()).toEqual(bytes(2));
  });
});

describe("a store in a folder", () => {
  let folder: FakeFolder;
  /** As after a restart: nothing is remembered but the files. */
  const reopened = () => folderStore(async () => folder.handle);
  beforeEach(() => void (folder = new FakeFolder()));

  it("gives the last save", async () => {
    const store = reopened();
    expect(await store.read()).toBeUndefined();
    for (let i = 1; i <= 5; i++) {
      await store.write(bytes(i, 1000 + i));
      expect(await store.read()).toEqual(bytes(i, 1000 + i));
      expect(await reopened().read()).toEqual(bytes(i, 1000 + i));
    }
    expect(folder.used).toBeLessThan(2 * 1005 + 500);
  });

  it("writes saves that are made at once one after the other", async () => {
    const store = reopened();
    await Promise.all([1, 2, 3].map((i) => store.write(bytes(i))));
    expect(await reopened().read()).toEqual(bytes(3));
    expect(folder.files.get("b.safetensors")).toEqual(bytes(2));
  });

  it.each([1, 2, 3])("keeps the save before when the power goes at any moment of save %i", async (count) => {
    for (let moment = 0; ; moment++) {
      folder = new FakeFolder();
      for (let i = 1; i < count; i++) await reopened().write(bytes(i));
      folder.operations = moment;
      const written = await reopened().write(bytes(count)).then(() => true, () => false);
      folder.operations = Infinity;
      const before = count > 1 ? bytes(count - 1) : undefined;
      expect(await reopened().read(), `moment ${moment}`).toEqual(written ? bytes(count) : before);
      // And the next save finds its place.
      await reopened().write(bytes(9));
      expect(await reopened().read()).toEqual(bytes(9));
      if (written) break;
    }
  });

  it("keeps the save before when the disk is full, and says so", async () => {
    const store = reopened();
    await store.write(bytes(1));
    await store.write(bytes(2));
    const used = folder.used;
    folder.capacity = used + 999;
    expect(await failure(store.write(bytes(3)))).toMatchObject({
      name: "JepaError",
      code: "out-of-memory",
      message: expect.stringMatching(/0\.0 MB does not fit.*The save before it is intact/),
      cause: { name: "QuotaExceededError" },
    });
    expect(folder.used).toBe(used);
    expect(await store.read()).toEqual(bytes(2));
    expect(await reopened().read()).toEqual(bytes(2));
    folder.capacity = Infinity;
    await store.write(bytes(3));
    expect(await reopened().read()).toEqual(bytes(3));
  });

  it("gives the save before when the last one is damaged, and does not write over it", async () => {
    await reopened().write(bytes(1));
    await reopened().write(bytes(2));
    // As a disk can leave it after a power cut: the right length, other contents.
    folder.files.set("b.safetensors", bytes(0));
    expect(await reopened().read()).toEqual(bytes(1));
    folder.operations = 2;
    await failure(reopened().write(bytes(3)));
    folder.operations = Infinity;
    expect(await reopened().read()).toEqual(bytes(1));
    await reopened().write(bytes(3));
    expect(await reopened().read()).toEqual(bytes(3));
  });

  it("says when both are damaged", async () => {
    await reopened().write(bytes(1));
    await reopened().write(bytes(2));
    for (const slot of ["a", "b"]) folder.files.set(`${slot}.safetensors`, bytes(0));
    expect(await failure(reopened().read())).toMatchObject({ name: "JepaError", code: "bad-checkpoint", message: expect.stringContaining("run") });
  });

  it("says what else went wrong", async () => {
    folder.getFileHandle = async () => {
      throw new DOMException("not now", "NotAllowedError");
    };
    expect(await failure(reopened().write(bytes(1)))).toMatchObject({ code: "unsupported", message: expect.stringContaining("not now") });
  });
});

describe("a store in the origin private file system", () => {
  it("keeps runs apart by their names", async () => {
    const folders = new Map<string, FakeFolder>();
    const getDirectoryHandle = async (name: string) => {
      if (name.includes("/")) throw new TypeError("Name is not allowed.");
      if (!folders.has(name)) folders.set(name, new FakeFolder());
      return folders.get(name);
    };
    vi.stubGlobal("navigator", { storage: { getDirectory: async () => ({ getDirectoryHandle: async () => ({ getDirectoryHandle }) }) } });
    await opfsStore("one").write(bytes(1));
    await opfsStore("two").write(bytes(2));
    expect(await opfsStore("one").read()).toEqual(bytes(1));
    expect(await opfsStore("two").read()).toEqual(bytes(2));
    expect(await failure(opfsStore("a/b").read())).toMatchObject({ code: "bad-input", message: expect.stringContaining("a/b") });
    vi.unstubAllGlobals();
  });

  it("says where there is none", async () => {
    expect(await failure(opfsStore("one").read())).toMatchObject({ name: "JepaError", code: "unsupported" });
  });
});
