// What the reliability tests measured, into docs/reliability.md: by a run of all tests of a file, not by one of some.

import { fileURLToPath } from "node:url";
import { afterAll } from "vitest";
import { markdownTable, putMarked } from "../../scripts/lib.mjs";

const DOCUMENT = fileURLToPath(new URL("../../docs/reliability.md", import.meta.url));

/**
 * The table `name` of the document, which is written at the end of the file that calls this.
 *
 * @param head - its first row
 * @param order - what its rows are called, in their order; the table is written when there is one of each
 * @returns takes a row: what it is called, and its cells after that
 */
export function reportOf(name: string, head: string[], order: readonly string[]): (row: string, ...cells: string[]) => void {
  const rows = new Map<string, string[]>();
  afterAll(() => {
    if (order.every((row) => rows.has(row))) putMarked(DOCUMENT, name, markdownTable([head, ...order.map((row) => [row, ...rows.get(row)!])]));
  });
  return (row, ...cells) => {
    if (!order.includes(row)) throw new Error(`the table ${name} has no row "${row}"`);
    rows.set(row, cells);
  };
}
