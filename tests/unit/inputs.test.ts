import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from "vitest";
import { capture, decode, transferables, type ImageInput } from "../../www/src/inputs.js";
import { DARK_SIDE, greyPng, png, turnedJpeg } from "./pictures.js";
import { startServer, type TestServer } from "./server.js";

const read = async (image: ImageInput, signal?: AbortSignal) => decode(await capture(image), signal);
const failure = (image: unknown) => read(image as ImageInput).then(() => expect.unreachable(), (error) => error);

// One opaque pixel, one that is nearly transparent, one that is fully so.
const RGBA = [10, 20, 30, 255, 200, 100, 50, 3, 7, 8, 9, 0];
const file = png(RGBA, 3);

let server: TestServer;
let folder: string;
beforeAll(async () => {
  server = await startServer();
  server.files.set("a.png", file);
  folder = await mkdtemp(join(tmpdir(), "webjepa-"));
  await writeFile(join(folder, "a picture.png"), file);
});
afterEach(() => void vi.unstubAllGlobals());
afterAll(async () => {
  await server.close();
  await rm(folder, { recursive: true });
});

describe("files", () => {
  it.each([
    ["a path", () => join(folder, "a picture.png")],
    ["a file URL", () => pathToFileURL(join(folder, "a picture.png"))],
    ["the text of a file URL", () => pathToFileURL(join(folder, "a picture.png")).href],
    ["an address", () => `${server.url}a.png`],
    ["a URL", () => new URL("a.png", server.url)],
    ["a data URL", () => `data:image/png;base64,${Buffer.from(file).toString("base64")}`],
    ["a Blob", () => new Blob([file])],
    ["a File", () => new File([file], "a.png")],
  ] as [string, () => ImageInput][])("come from %s, with colours as they are under any alpha", async (_, image) => {
    const { data, ...size } = await read(image());
    expect(size).toEqual({ width: 3, height: 1, channels: 4 });
    expect([...data]).toEqual(RGBA);
  });

  it("can be read beside a navigator that has nothing but a gpu", async () => {
    const navigator = { gpu: {} };
    vi.stubGlobal("navigator", navigator);
    vi.resetModules();
    const fresh = await import("../../www/src/inputs.js");
    expect(await fresh.decode(await fresh.capture(new Blob([file])), undefined)).toMatchObject({ width: 3 });
    expect(Object.keys(navigator)).toEqual(["gpu"]);
  });

  it("can be grey", async () => {
    const { data, width, height } = await read(new Blob([greyPng([5, 100, 200, 255], 2)]));
    expect([width, height]).toEqual([2, 2]);
    expect([...data].filter((_, i) => i % 4 < 3)).toEqual([5, 5, 5, 100, 100, 100, 200, 200, 200, 255, 255, 255]);
  });

  it.each([1, 2, 3, 4, 5, 6, 7, 8])("are turned upright: EXIF orientation %i", async (orientation) => {
    const { data, width, height, channels } = await read(new Blob([turnedJpeg(orientation)]));
    expect([width, height]).toEqual(orientation < 5 ? [16, 8] : [8, 16]);
    const brightness = (x: number, y: number) => data[(y * width + x) * channels]!;
    const corners = { left: brightness(1, 4), right: brightness(width - 2, 4), top: brightness(4, 1), bottom: brightness(4, height - 2) };
    expect(corners[DARK_SIDE[orientation]!]).toBeLessThan(60);
    const opposite = { left: "right", right: "left", top: "bottom", bottom: "top" } as const;
    expect(corners[opposite[DARK_SIDE[orientation]!]]).toBeGreaterThan(190);
  });

  it.each([
    ["empty", new Uint8Array(0)],
    ["of no known kind", new Uint8Array(100)],
    ["a truncated PNG", file.subarray(0, file.length - 30)],
    ["the start of a PNG", file.subarray(0, 12)],
    ["a damaged JPEG", turnedJpeg(1).fill(0xff, 30)],
  ])("are refused when they are %s", async (_, bytes) => {
    expect(await failure(new Blob([bytes as BlobPart]))).toMatchObject({ name: "JepaError", code: "bad-input" });
  });

  it("are refused when a few bytes claim to be billions of pixels", async () => {
    const bomb = file.slice();
    new DataView(bomb.buffer).setUint32(16, 60_000);
    new DataView(bomb.buffer).setUint32(20, 60_000);
    expect(await failure(new Blob([bomb]))).toMatchObject({ code: "bad-input", message: expect.stringContaining("pixels") });
  });

  it("that are missing are named", async () => {
    expect(await failure(`${server.url}none.png`)).toMatchObject({ code: "network", message: expect.stringMatching(/404.*none\.png/) });
    expect(await failure("/no/such.png")).toMatchObject({ code: "bad-input", message: expect.stringContaining("/no/such.png") });
  });

  it("stop arriving when aborted", async () => {
    server.files.set("slow.png", file);
    server.faults.set("slow.png", { stallAfter: 10 });
    await expect(read(`${server.url}slow.png`, AbortSignal.timeout(50))).rejects.toMatchObject({ code: "aborted", cause: { name: "TimeoutError" } });
  });
});

describe("pixels", () => {
  it.each([
    ["bytes", new Uint8Array([1, 2, 3, 4, 5, 6])],
    ["clamped bytes", new Uint8ClampedArray([1, 2, 3, 4, 5, 6])],
    ["a part of a larger buffer", new Uint8Array([0, 0, 1, 2, 3, 4, 5, 6, 0]).subarray(2, 8)],
    ["a Buffer", Buffer.from([1, 2, 3, 4, 5, 6])],
  ])("come as %s", async (_, data) => {
    const pixels = await read({ data, width: 2, height: 1, channels: 3 });
    expect(pixels).toEqual({ data: new Uint8Array([1, 2, 3, 4, 5, 6]), width: 2, height: 1, channels: 3 });
  });

  it("come as floats", async () => {
    const data = new Float32Array([0, 0.5, 1]);
    expect(await read({ data, width: 1, height: 1, channels: 3 })).toEqual({ data, width: 1, height: 1, channels: 3 });
  });

  it("may leave the number of channels to their length, as ImageData does", async () => {
    expect(await read({ data: new Uint8ClampedArray(24), width: 3, height: 2 })).toMatchObject({ channels: 4 });
  });

  it("are taken as they are at the call, and stay the caller's", async () => {
    const data = new Uint8Array([1, 2, 3]);
    const captured = capture({ data, width: 1, height: 1, channels: 3 });
    data.fill(9);
    const picture = await captured;
    structuredClone(null, { transfer: transferables(picture) });
    expect(data).toEqual(new Uint8Array([9, 9, 9]));
    const again = await capture({ data, width: 1, height: 1, channels: 3 });
    expect([...(await decode(again, undefined)).data]).toEqual([9, 9, 9]);
  });

  it.each([
    ["too few values", { data: new Uint8Array(5), width: 2, height: 1, channels: 3 }],
    ["too many values", { data: new Uint8Array(7), width: 2, height: 1, channels: 3 }],
    ["no width", { data: new Uint8Array(0), width: 0, height: 1, channels: 3 }],
    ["a fraction of a pixel", { data: new Uint8Array(3), width: 0.5, height: 2, channels: 3 }],
    ["five channels", { data: new Uint8Array(5), width: 1, height: 1, channels: 5 }],
    ["an unknown number of channels", { data: new Uint8Array(5), width: 2, height: 1 }],
    ["an ordinary array", { data: [1, 2, 3], width: 1, height: 1, channels: 3 }],
    ["nothing", undefined],
    ["null", null],
    ["a number", 4],
    ["an empty object", {}],
  ])("are refused with %s", async (_, image) => {
    expect(await failure(image)).toMatchObject({ name: "JepaError", code: "bad-input" });
  });
});
