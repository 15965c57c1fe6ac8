// Checks of what callers give as options: each says what is allowed.

import { JepaError } from "./errors.js";

export function oneOf<T>(name: string, value: T, allowed: readonly unknown[]): T {
  if (allowed.includes(value)) return value;
  throw new JepaError("bad-input", `The option ${name} is one of ${allowed.map((known) => JSON.stringify(known)).join(", ")}, not ${shown(value)}.`);
}

/** A value as a message shows it. */
export function shown(value: unknown): string {
  return typeof value === "object" && value !== null ? (JSON.stringify(value) ?? "an object") : typeof value === "string" ? JSON.stringify(value) : String(value);
}
