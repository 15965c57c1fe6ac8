import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    projects: [
      { test: { name: "unit", include: ["www/src/**/*.test.ts", "tests/unit/**/*.test.ts", "scripts/**/*.test.mjs"], testTimeout: 30_000 } },
      // A software WebGPU adapter needs both cores for itself, so these run one file at a time.
      { test: { name: "browser", include: ["tests/browser/**/*.test.ts"], fileParallelism: false, testTimeout: 300_000, hookTimeout: 300_000 } },
    ],
  },
});
