// Where WebGPU runs on a machine without a GPU: Chromium with SwiftShader, and Node on Mesa's lavapipe.

import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";

export const CHROMIUM = process.env.CHROMIUM_PATH ?? "/usr/bin/chromium";

/** A headless Chromium as root with WebGPU on, which talks to nobody. */
export const CHROMIUM_FLAGS = [
  "--no-sandbox",
  "--enable-unsafe-webgpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/** The driver file of Mesa's software adapter, whose name depends on the version; undefined where it is not installed. */
export const LAVAPIPE = process.env.VK_ICD_FILENAMES ?? lavapipe("/usr/share/vulkan/icd.d");

function lavapipe(folder) {
  const name = existsSync(folder) && readdirSync(folder).find((file) => /^lvp_icd.*\.json$/.test(file));
  return name ? join(folder, name) : undefined;
}
