import type { Accuracies, History } from "./state";
import type { Settings } from "./settings";

/** What the page must know of a run that its save does not hold. */
export interface RunRecord {
  /** When the run was saved, in milliseconds since 1970. */
  date: number;
  step: number;
  settings: Settings;
  /** What its pictures are called. */
  pictures: string;
  history: History;
  accuracies: Accuracies;
}

const KEY = "webjepa-training";
/** Enough for a chart as wide as a screen. */
const MOST_ROWS = 2000;

/** Kept in local storage, the save itself in a file: so that the page can say what there is without reading it. */
export function keepRecord(record: RunRecord): void {
  try {
    localStorage.setItem(KEY, JSON.stringify({ ...record, history: thinned(record.history) }));
  } catch {
    // Without storage, or room in it, the run cannot be resumed in a later visit; it goes on all the same.
  }
}

export function readRecord(): RunRecord | undefined {
  try {
    const text = localStorage.getItem(KEY);
    return text ? (JSON.parse(text) as RunRecord) : undefined;
  } catch {
    return undefined;
  }
}

export function forgetRecord(): void {
  try {
    localStorage.removeItem(KEY);
  } catch {
    // Where nothing could be kept there is nothing to forget.
  }
}

/** Every so many rows, and as many digits as a chart can show. */
function thinned(history: History): History {
  const every = Math.ceil(history.step.length / MOST_ROWS);
  const column = (values: number[]) => values.filter((_, i) => i % every === 0).map((value) => Number(value.toPrecision(6)));
  return Object.fromEntries(Object.entries(history).map(([name, values]: [string, number[]]) => [name, column(values)])) as unknown as History;
}
