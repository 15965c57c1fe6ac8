// Captured pictures on their way into a batch of the wasm module.

import type { GlueBatch } from "./glue.js";
import { decode, namePicture, type Numbering, type Picture } from "./inputs.js";
import type { Instance } from "./instance.js";

export interface Filling {
  /** Makes the batch. */
  open: () => GlueBatch;
  /** Throws when the call has been aborted. */
  check: () => void;
  signal: AbortSignal | undefined;
  number: Numbering;
}

/** A batch of these pictures, which are used up. Leaves nothing behind when it fails. */
export async function fillBatch(instance: Instance, pictures: readonly Picture[], { open, check, signal, number }: Filling): Promise<GlueBatch> {
  const batch = instance.call(open);
  try {
    for (const [i, picture] of pictures.entries()) {
      check();
      try {
        const { data, width, height, channels } = await decode(picture, signal);
        instance.call(() => (data instanceof Float32Array ? batch.pushF32(data, width, height, channels) : batch.pushU8(data, width, height, channels)));
      } catch (error) {
        throw namePicture(error, number(i));
      }
    }
    return batch;
  } catch (error) {
    if (!instance.lost) batch.free();
    throw error;
  }
}
