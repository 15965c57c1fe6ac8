// The page Video of the demo, built: what it makes of its scene, of a recorded file and of a camera, which can be refused and unplugged.

import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { screenshot, useDemo, useLab, type TestPage } from "./harness.js";
import { recordFilm } from "./film.js";

const lab = useLab();
useDemo(lab, "site");
let test: TestPage;

const CANVASES = ["frame", "map", "surprise", "masks"] as const;
const text = (selector: string) => test.page.locator(selector).innerText();
const status = () => text("#status-text");
/** The number of the newest frame. */
const frame = async () => Number(/: frame (\d+), surprise \d/.exec(await status())?.[1] ?? 0);

/** Of each canvas how many colours it has, and all its pixels. */
const pictures = () =>
  test.page.evaluate((ids) => {
    const found: Record<string, { colours: number; pixels: string }> = {};
    for (const id of ids) {
      const canvas = document.getElementById(id) as HTMLCanvasElement;
      const { data } = canvas.getContext("2d")!.getImageData(0, 0, canvas.width, canvas.height);
      found[id] = { colours: new Set(new Uint32Array(data.buffer)).size, pixels: canvas.toDataURL() };
    }
    return found as Record<(typeof ids)[number], { colours: number; pixels: string }>;
  }, CANVASES);

/** What the time line says of itself to those who do not see it. */
const line = async () => {
  const label = await test.page.locator('.chart[aria-label^="Surprise"]').getAttribute("aria-label");
  const [, value, at, values] = /: (\S+) at step (\d+), in a chart of (\d+) values/.exec(label!) ?? [];
  return { value: Number(value), at: Number(at), values: Number(values) };
};

const similar = () => test.page.locator("#clips li").allInnerTexts();

/** All canvases show something, and something else once more frames have come; the time line has a point for each second frame. */
async function expectLife(frames: number): Promise<void> {
  await expect.poll(frame, { timeout: 60_000 }).toBeGreaterThanOrEqual(10);
  const before = await pictures();
  const start = await line();
  await expect.poll(frame, { timeout: 60_000 }).toBeGreaterThanOrEqual(frames);
  const after = await pictures();
  for (const id of CANVASES) {
    expect(after[id].colours, id).toBeGreaterThan(2);
    expect(after[id].pixels, id).not.toBe(before[id].pixels);
  }
  const now = await line();
  expect(now.value).toBeGreaterThan(0);
  expect(now.at).toBeGreaterThan(start.at);
  // The first clip is the eighth frame's, the next is two frames on.
  expect(now.values).toBe((now.at - 8) / 2 + 1);
}

beforeEach(async () => {
  test = await lab.openPage();
  await test.page.emulateMedia({ reducedMotion: "reduce" });
  await test.page.setViewportSize({ width: 1280, height: 900 });
  await test.page.goto(`${new URL(test.page.url()).origin}/site/video/`);
  await expect.poll(status, { timeout: 60_000 }).toMatch(/^Built-in V-JEPA on .*: ready$/);
});
afterEach(() => test.close());

describe("the built-in scene", () => {
  it("is embedded, predicted and compared, with its surprise over the frame", async () => {
    const { page } = test;
    await page.click("#scene");
    await expectLife(60);
    // Clips that ended at frames 8, 24, 40 and 56 have been kept, and the newest is compared with them.
    const found = (await similar()).map((item) => /^(-?\d\.\d\d), at (\d+)$/.exec(item)!.slice(1).map(Number));
    expect(found.map(([, at]) => at).sort((a, b) => a! - b!).slice(0, 4)).toEqual([8, 24, 40, 56]);
    const similarities = found.map(([similarity]) => similarity!);
    expect(similarities).toEqual([...similarities].sort((a, b) => b - a));
    expect(similarities[0]).toBeGreaterThan(0.8);
    expect(similarities.at(-1)).toBeLessThan(similarities[0]!);
    // Frame and overlay are of one size, and the overlay has the frame in it: more colours than patches.
    expect(await page.evaluate(() => ["frame", "surprise"].map((id) => (document.getElementById(id) as HTMLCanvasElement).width))).toEqual([48, 48]);
    expect((await pictures()).surprise.colours).toBeGreaterThan(36);
    // For the picture: one of each kind of happening has been, at frames 24, 48 and 72.
    await expect.poll(frame, { timeout: 60_000 }).toBeGreaterThanOrEqual(90);
    await screenshot(page, "video");
    await page.setViewportSize({ width: 390, height: 844 });
    await screenshot(page, "video-phone");
    await page.click("#stop");
    await expect.poll(status).toMatch(/^Built-in scene: (ended|stopped) after \d+ frames$/);
    expect(await page.locator("#problem").innerText()).toBe("");
  });

  it("is predicted under masks of space and time, whose distances have a time line of their own", async () => {
    const { page } = test;
    await page.click("#scene");
    await expect.poll(() => text("#masks-note"), { timeout: 60_000 }).toBe("seen 72, predicted 72 of 144");
    await expect.poll(async () => (await line()).values, { timeout: 60_000 }).toBeGreaterThanOrEqual(10);
    expect(await page.locator("#masks-again").isDisabled()).toBe(true);
    for (const [choice, note] of [["tube", /^seen 12, predicted 132 of 144$/], ["block", /^seen \d+, predicted \d+ of 144$/], ["short", /^seen \d+, predicted \d+ of 144$/], ["long", /^seen \d+, predicted \d+ of 144$/]] as const) {
      const before = await text("#masks-note");
      await page.selectOption("#hidden", choice);
      await expect.poll(() => text("#masks-note"), { timeout: 60_000, message: choice }).not.toBe(before);
      const now = await text("#masks-note");
      expect(now).toMatch(note);
      const [seen, predicted] = now.match(/\d+/g)!.map(Number) as [number, number];
      // What is hidden is so in every time step.
      expect([seen % 4, predicted % 4, seen + predicted], choice).toEqual([0, 0, 144]);
    }
    expect((await line()).values).toBeLessThan(10);
    await expect.poll(async () => (await line()).values, { timeout: 60_000 }).toBeGreaterThanOrEqual(2);
    expect((await line()).value).toBeGreaterThan(0);
    // Where nothing is predicted the frame is shown as it is: hidden places of the newest frames are those with heat.
    await page.selectOption("#hidden", "block");
    await expect.poll(() => text("#masks-note"), { timeout: 60_000 }).toMatch(/predicted (32|36|40|44|48) of/);
    const places = () =>
      page.evaluate(() => {
        const canvas = document.getElementById("masks") as HTMLCanvasElement;
        const side = canvas.width / 4 - 4;
        // The middles of the patches of the first and the last frame: green is what is seen.
        const context = canvas.getContext("2d")!;
        return [0, 7].map((frame) =>
          Array.from({ length: 36 }, (_, i) => {
            const [x, y] = [(frame % 4) * (side + 4) + 2 + ((i % 6) + 0.5) * (side / 6), Math.floor(frame / 4) * (side + 4) + 2 + (Math.floor(i / 6) + 0.5) * (side / 6)];
            const [red, green] = context.getImageData(x, y, 1, 1).data as unknown as [number, number];
            return green > red + 20 ? "s" : "h";
          }).join(""),
        );
      });
    const [first, last] = await places();
    expect(first).toBe(last);
    expect(first!.split("h").length - 1).toBe(Number(/predicted (\d+)/.exec(await text("#masks-note"))![1]) / 4);
    await screenshot(page, "video-masks");
    await page.click("#masks-again");
    await expect.poll(places, { timeout: 60_000 }).not.toEqual([first, last]);
  });
});

describe("other sources", () => {
  it("a file that was recorded here, which does not say how long it is", async () => {
    const film = await recordFilm(test.page, 5000);
    await test.page.setInputFiles("#file", { name: "film.webm", mimeType: "video/webm", buffer: Buffer.from(film) });
    await expectLife(20);
    await expect.poll(status, { timeout: 60_000 }).toMatch(/^film\.webm: ended after (3[5-9]|4\d) frames$/);
    expect((await similar()).length).toBeGreaterThanOrEqual(1);
    expect(await test.page.locator("#problem").innerText()).toBe("");
  });

  it("a camera, which is given back", async () => {
    await test.page.context().grantPermissions(["camera"]);
    await test.page.click("#camera");
    await expectLife(20);
    expect(await status()).toMatch(/^Camera: /);
    expect((await similar()).length).toBeGreaterThanOrEqual(1);
    await test.page.click("#stop");
    await expect.poll(status).toMatch(/^Camera: stopped after \d+ frames$/);
    expect(await test.page.locator("#video").evaluate((video: HTMLVideoElement) => (video.srcObject as MediaStream).getTracks().map(({ readyState }) => readyState))).toEqual(["ended"]);
  });

  it("a camera that is refused", async () => {
    await test.page.context().grantPermissions([]);
    await test.page.click("#camera");
    await expect.poll(() => text("#problem")).toMatch(/The camera cannot be used\. The browser was not allowed to use the camera\. Allow it in the address bar/);
    expect(await test.page.locator("#camera").isEnabled()).toBe(true);
  });

  it("a camera that is unplugged", async () => {
    await test.page.context().grantPermissions(["camera"]);
    await test.page.click("#camera");
    await expect.poll(frame, { timeout: 60_000 }).toBeGreaterThanOrEqual(8);
    await test.page.locator("#video").evaluate((video: HTMLVideoElement) => (video.srcObject as MediaStream).getTracks()[0]!.stop());
    await expect.poll(() => text("#problem"), { timeout: 10_000 }).toMatch(/switched off or unplugged/);
    expect(await status()).toMatch(/^Camera: stopped after \d+ frames$/);
    expect(await test.page.locator("#scene").isEnabled()).toBe(true);
  });
});
