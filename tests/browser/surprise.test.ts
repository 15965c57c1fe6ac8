// The page Surprise of the demo, built: the model that comes with it is surprised by what cannot happen, when it happens.

import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { screenshot, useDemo, useLab, type TestPage } from "./harness.js";

const lab = useLab();
useDemo(lab, "site");
let test: TestPage;

const status = () => test.page.locator("#status-text").innerText();
/** Surprise after each action, of the episode with what cannot happen, then of the one without. */
const shown = async () => {
  const films = await test.page.locator(".film ol").all();
  return Promise.all(films.map(async (film) => (await film.locator("li p").allInnerTexts()).slice(1).map(Number)));
};

beforeEach(async () => {
  test = await lab.openPage();
  await test.page.goto(`${new URL(test.page.url()).origin}/site/surprise/`);
  await expect.poll(status, { timeout: 60_000 }).toMatch(/^Through the wall, episode 1/);
});
afterEach(() => test.close());

describe("the page Surprise", () => {
  it("shows when it happens, beside what goes as it must", { timeout: 120_000 }, async () => {
    const { page } = test;
    for (let episode = 1; episode <= 3; episode++) {
      if (episode > 1) {
        await page.locator("#another").click();
        await expect.poll(status, { timeout: 60_000 }).toMatch(new RegExp(`^Through the wall, episode ${episode}`));
      }
      const [impossible, possible] = await shown();
      expect(impossible).toHaveLength(possible!.length);
      const odd = await page.locator(".film li").evaluateAll((items) => items.findIndex((item) => item.classList.contains("odd")));
      // The greatest of all surprises of both episodes is at the action at which they part.
      const highest = Math.max(...impossible!, ...possible!);
      expect(impossible!.indexOf(highest)).toBe(odd - 1);
      // Up to there they are one and the same.
      expect(impossible!.slice(0, odd - 1)).toEqual(possible!.slice(0, odd - 1));
    }
    expect(await page.locator("#chart .chart").getAttribute("aria-label")).toMatch(/^Surprise: .* of what is possible: /);
    await screenshot(page, "surprise");
    await page.locator("#kind").selectOption({ label: "Teleported by 80 of 224" });
    await expect.poll(status, { timeout: 60_000 }).toMatch(/^Teleported by 80 of 224, episode 3/);
    await screenshot(page, "surprise-teleported");
  });

  it("measures it, and an untrained model is less sure", { timeout: 240_000 }, async () => {
    const { page } = test;
    const areas = async () => {
      await page.locator("#measure").click();
      await expect.poll(status, { timeout: 150_000 }).toMatch(/^Surprise measured on 100 pairs/);
      return (await page.locator("#rows tr td:nth-of-type(1)").allInnerTexts()).map(Number);
    };
    const auc = await areas();
    expect(auc).toHaveLength(5);
    // The wall, and jumps of 10, 20, 40 and 80: the farther the surer, and far ones nearly always.
    expect(auc[0]).toBeGreaterThan(0.9);
    expect(auc[4]).toBeGreaterThan(0.95);
    expect(auc[4]).toBeGreaterThan(auc[1]!);
    expect(Math.max(...auc)).toBeLessThanOrEqual(1);
    await screenshot(page, "surprise-measured");
    await page.locator('#models input[value="untrained"]').check();
    await expect.poll(status, { timeout: 60_000 }).toMatch(/^Through the wall, episode 1/);
    const [small] = (await areas()).slice(1);
    expect(small).toBeLessThan(auc[1]!);
  });
});
