// What axe and a ruler find wrong with a page, by name, for whoever has to repair it.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import type axe from "axe-core";
import type { Page } from "playwright-core";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

/** Each place where a rule of WCAG 2.2 AA or of axe's best practice is broken. */
export async function violations(page: Page): Promise<string[]> {
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => (globalThis as unknown as { axe: typeof axe }).axe.run({ runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] } as axe.RunOptions));
  return violations.flatMap(({ id, help, nodes }) => nodes.map(({ target, failureSummary }) => `${id} (${help}): ${target.join(" ")}: ${failureSummary}`));
}

/** How many pixels the page scrolls sideways, and what sticks out of the window: nothing is what fits. */
export function sideways(page: Page): Promise<{ scrolls: number; wide: string[] }> {
  return page.evaluate(() => {
    // Inside of what scrolls by itself.
    const held = ({ parentElement: parent }: Element): boolean => parent !== null && (/auto|scroll/.test(getComputedStyle(parent).overflowX) || held(parent));
    return {
      scrolls: document.documentElement.scrollWidth - document.documentElement.clientWidth,
      wide: [...document.querySelectorAll("body *")]
        .filter((element) => element.getBoundingClientRect().right > innerWidth + 1 && element.checkVisibility({ visibilityProperty: true }) && !element.matches(".skip, .sr-only") && !held(element))
        .map((element) => `${element.tagName} ${element.id || element.getAttribute("class") || ""}`),
    };
  });
}
