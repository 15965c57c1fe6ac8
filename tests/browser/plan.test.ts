// The page Plan of the demo, built: the model that comes with it reaches a goal through the door.

import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { screenshot, useDemo, useLab, type TestPage } from "./harness.js";

const lab = useLab();
useDemo(lab, "site");
let test: TestPage;

const status = () => test.page.locator("#status-text").innerText();

beforeEach(async () => {
  test = await lab.openPage();
  await test.page.emulateMedia({ reducedMotion: "reduce" });
  await test.page.goto(`${new URL(test.page.url()).origin}/site/plan/`);
  await expect.poll(status, { timeout: 60_000 }).toMatch(/^Ready to plan on/);
});
afterEach(() => test.close());

describe("the page Plan", () => {
  it("goes through the door to the goal", { timeout: 180_000 }, async () => {
    const { page } = test;
    // Slow enough to be looked at, which motion that is reduced is not.
    await page.emulateMedia({ reducedMotion: "no-preference" });
    await page.locator("#go").click();
    await expect.poll(status, { timeout: 60_000 }).toBe("Decision 1: round 2 of 10");
    const canvases = () => page.locator("#room-canvas, #latent").evaluateAll((found) => found.map((canvas) => (canvas as HTMLCanvasElement).toDataURL()));
    const early = await canvases();
    await expect.poll(status, { timeout: 60_000 }).toMatch(/^Decision 1: round [5-9] of 10/);
    const late = await canvases();
    // Other candidates are drawn while the first search is still going on, over the same room.
    expect(late[0]).not.toBe(early[0]);
    expect(late[1]).not.toBe(early[1]);
    await screenshot(page, "plan-search");
    await page.locator('#axes input[value="predictions"]').check();
    await expect.poll(status, { timeout: 60_000 }).toMatch(/^Decision 2: round [3-9]/);
    await screenshot(page, "plan-predictions");
    await page.locator("#speed").fill("0");
    // The straight line ends at the wall; who knows the way needs four decisions.
    await expect.poll(status, { timeout: 150_000 }).toMatch(/^Reached the goal in [3-9] decisions/);
    await screenshot(test.page, "plan-reached");
  });

  it("moves start and goal by pointer and by key, and says where they cannot be", async () => {
    const { page } = test;
    const handle = page.locator("#goal-handle");
    const [label, box] = [() => handle.getAttribute("aria-label"), (await handle.boundingBox())!];
    expect(await label()).toMatch(/^Goal at 175, 140 of 224/);
    await handle.press("ArrowRight");
    expect(await label()).toMatch(/^Goal at 179, 140/);
    await page.mouse.move(box.x + box.width / 2, box.y + box.height / 2);
    await page.mouse.down();
    await page.mouse.move(box.x + box.width / 2, box.y - 60, { steps: 4 });
    await page.mouse.up();
    const [, y] = (await label())!.match(/Goal at \d+, (\d+)/)!;
    expect(Number(y)).toBeLessThan(130);
    for (let i = 0; i < 12; i++) await handle.press("ArrowRight");
    expect(await page.locator("#problem").innerText()).toMatch(/The goal cannot be there.*outside of the rooms/s);
    expect(Number((await label())!.match(/Goal at (\d+)/)![1])).toBeLessThan(210);
  });

  it("collects, trains and plans, and stops when told", { timeout: 240_000 }, async () => {
    const { page } = test;
    await page.locator("#episodes").fill("5");
    await page.locator("#train").click();
    await expect.poll(() => page.locator("#problem").innerText()).toMatch(/whole number from 20 to 2000/);
    await page.locator("#episodes").fill("20");
    await page.locator("#steps").fill("10");
    await page.locator("#train").click();
    await expect.poll(status, { timeout: 120_000 }).toMatch(/^(Decision|Reached|Did not reach)/);
    expect(await page.locator('#models input[value="live"]').isChecked()).toBe(true);
    expect(await page.locator("#live-name").innerText()).toBe("Trained here");
    if (await page.locator("#stop").isEnabled()) await page.locator("#stop").click();
    await expect.poll(status, { timeout: 60_000 }).toMatch(/^(Stopped|Reached|Did not reach)/);
  });

  it("plans with the model that is training, as it is by then", { timeout: 240_000 }, async () => {
    const { page } = test;
    const live = page.locator('#models input[value="live"]');
    const training = () => page.locator("#training-text").innerText();
    const step = async () => Number(/^Training: step (\d+) of 7000/.exec(await training())?.[1] ?? 0);
    expect(await live.isDisabled()).toBe(true);
    await page.locator("#episodes").fill("20");
    await page.locator("#steps").fill("7000");
    await page.locator("#train").click();
    await expect.poll(step, { timeout: 120_000 }).toBeGreaterThan(1);
    expect(await page.locator("#live-name").innerText()).toBe("Training now");
    const latent = () => page.locator("#latent").evaluate((canvas) => (canvas as HTMLCanvasElement).toDataURL());
    const maps = [await latent()];
    const steps: number[] = [];
    for (const choice of ["live", "trained", "live"]) {
      await page.locator(`#models input[value="${choice}"]`).check();
      await expect.poll(status, { timeout: 60_000 }).toMatch(choice === "live" ? /^Ready to plan with the model that is training now/ : /is trained$/);
      maps.push(await latent());
      steps.push(await step());
    }
    // The trained model's map is the same both times; that of the one in training has changed with its weights.
    expect(maps[2]).toBe(maps[0]);
    expect(maps[1]).not.toBe(maps[0]);
    expect(maps[3]).not.toBe(maps[1]);
    await page.locator("#go").click();
    await expect.poll(status, { timeout: 120_000 }).toMatch(/^Decision 2/);
    await screenshot(page, "plan-training-now");
    await page.locator("#stop").click();
    await expect.poll(status, { timeout: 60_000 }).toBe("Stopped");
    // It went on all the while.
    expect(steps[1]).toBeGreaterThanOrEqual(steps[0]!);
    expect(await step()).toBeGreaterThan(steps[2]!);
    await page.locator("#train").click();
    await expect.poll(training, { timeout: 60_000 }).toBe("");
    expect(await page.locator("#live-name").innerText()).toBe("Trained here");
    // What it had become stays.
    await page.locator("#go").click();
    await expect.poll(status, { timeout: 120_000 }).toMatch(/^Decision 1/);
    await page.locator("#stop").click();
    await expect.poll(status, { timeout: 60_000 }).toBe("Stopped");
  });
});
