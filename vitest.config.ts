import { defineConfig } from "vitest/config";

/** Bundlers and runtimes that take long to install and to run. */
const FULL = ["tests/packaging/{webpack,next,rollup,parcel,runtimes}.test.ts"];

export default defineConfig({
  test: {
    projects: [
      { test: { name: "unit", include: ["www/src/**/*.test.ts", "tests/unit/**/*.test.ts", "scripts/**/*.test.mjs"], testTimeout: 30_000 } },
      // A software WebGPU adapter needs both cores for itself, so these run one file at a time.
      { test: { name: "browser", include: ["tests/browser/**/*.test.ts"], fileParallelism: false, testTimeout: 300_000, hookTimeout: 300_000 } },
      { test: { name: "packaging", include: ["tests/packaging/*.test.ts"], exclude: FULL, fileParallelism: false, testTimeout: 300_000, hookTimeout: 300_000 } },
      { test: { name: "docs", include: ["tests/docs/*.test.ts"], fileParallelism: false, testTimeout: 120_000, hookTimeout: 120_000 } },
      { test: { name: "fuzz", include: ["tests/fuzz/*.test.ts"] } },
      { test: { name: "reliability", include: ["tests/reliability/*.test.ts"], fileParallelism: false, testTimeout: 900_000, hookTimeout: 300_000 } },
      { test: { name: "packaging-full", include: FULL, fileParallelism: false, testTimeout: 300_000, hookTimeout: 300_000 } },
    ],
  },
});
