// Checks of what callers give as options: each says what is allowed.

import { JepaError } from "./errors.js";

export function oneOf<T>(name: string, value: T, allowed: readonly unknown[]): T {
  if (allowed.includes(value)) return value;
  throw new JepaError("bad-input", `The option ${name} is one of ${allowed.map((known) => JSON.stringify(known)).join(", ")}, not ${shown(value)}.`);
}

/** What a field may be: in words, and as a test. */
export interface Rule {
  what: string;
  allows(value: unknown): boolean;
}

const isNumber = (value: unknown): value is number => typeof value === "number" && Number.isFinite(value);

export const anything: Rule = { what: "anything", allows: () => true };
export const anObject: Rule = { what: "an object", allows: (value) => typeof value === "object" && value !== null };
export const aBoolean: Rule = { what: "true or false", allows: (value) => typeof value === "boolean" };
export const aFunction: Rule = { what: "a function", allows: (value) => typeof value === "function" };
export const atLeast = (least: number): Rule => ({ what: `a number of at least ${least}`, allows: (value) => isNumber(value) && value >= least });
export const moreThan = (bound: number): Rule => ({ what: `a number greater than ${bound}`, allows: (value) => isNumber(value) && value > bound });
export const orNull = ({ what, allows }: Rule): Rule => ({ what: `${what}, or null`, allows: (value) => value === null || allows(value) });
export const between = (least: number, most: number): Rule => ({
  what: `a number from ${least} to ${most}`,
  allows: (value) => isNumber(value) && value >= least && value <= most,
});
export const whole = (least: number): Rule => ({ what: `a whole number of at least ${least}`, allows: (value) => Number.isSafeInteger(value) && (value as number) >= least });
export const numbers: Rule = { what: "an array of numbers", allows: (value) => Array.isArray(value) && value.length > 0 && value.every(isNumber) };

/**
 * Refuses fields that do not exist, which else would be ignored in silence, and values that are not allowed. Undefined counts as absent.
 *
 * @param group - what the fields are fields of; empty for the options themselves
 */
export function checkFields(group: string, value: unknown, rules: Readonly<Record<string, Rule>>): void {
  if (typeof value !== "object" || value === null) throw new JepaError("bad-input", `${group ? `The option ${group}` : "The argument"} is an object, not ${shown(value)}.`);
  const prefix = group && `${group}.`;
  for (const [name, field] of Object.entries(value)) {
    const rule = Object.hasOwn(rules, name) ? rules[name] : undefined;
    if (!rule) throw new JepaError("bad-input", `There is no option ${prefix}${name}; there are ${Object.keys(rules).join(", ")}.`);
    if (field !== undefined && !rule.allows(field)) throw new JepaError("bad-input", `The option ${prefix}${name} is ${rule.what}, not ${shown(field)}.`);
  }
}

/** How many numbers an array of this shape has. */
export function numbersOf(shape: readonly number[]): number {
  return shape.reduce((product, axis) => product * axis, 1);
}

/** A value as a message shows it. */
export function shown(value: unknown): string {
  return typeof value === "string" || (typeof value === "object" && value !== null) ? (JSON.stringify(value) ?? "an object") : String(value);
}
