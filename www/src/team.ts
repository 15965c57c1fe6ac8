// Work that threads share: a block of shared memory by which its parts are dealt out. No messages, as a forward shares work hundreds of times.

/** Numbers of the block: parts that nobody has taken, parts that are done, whether one went wrong. */
const [LEFT, DONE, FAILED, SIZE] = [0, 1, 2, 3];

/** Looks at a number before a thread sleeps: about a tenth of a millisecond, in which a forward has the next work to share. */
const LOOKS = 10_000;
/** In milliseconds; then the thread looks whether it is still waited for. */
const NAP = 1000;
/** After which a thread that is not heard of is taken for dead: a part takes milliseconds. */
const NAPS = 60;

/** Does the part of that number. */
export type DoPart = (part: number) => void;

/** A block for one team. */
export function newBlock(): Int32Array<SharedArrayBuffer> {
  return new Int32Array(new SharedArrayBuffer(SIZE * Int32Array.BYTES_PER_ELEMENT));
}

/** Has `parts` done by the team and by this thread, and returns when all are. */
export function share(block: Int32Array<SharedArrayBuffer>, parts: number, doPart: DoPart): void {
  Atomics.store(block, DONE, 0);
  Atomics.store(block, LEFT, parts);
  Atomics.notify(block, LEFT);
  takeAll(block, doPart);
  for (let naps = 0, done = 0; (done = Atomics.load(block, DONE)) < parts; ) {
    if (Atomics.load(block, FAILED)) break;
    if (awaits(block, DONE, done)) naps = 0;
    else if (++naps === NAPS) break;
  }
  if (Atomics.load(block, DONE) < parts || Atomics.load(block, FAILED)) throw new Error("A thread that computes has ended.");
}

/** Takes part in whatever is shared, for ever. */
export function help(block: Int32Array<SharedArrayBuffer>, doPart: DoPart): never {
  try {
    for (;;) {
      awaits(block, LEFT, 0);
      takeAll(block, doPart);
    }
  } catch (error) {
    Atomics.store(block, FAILED, 1);
    Atomics.notify(block, DONE);
    throw error;
  }
}

function takeAll(block: Int32Array<SharedArrayBuffer>, doPart: DoPart): void {
  for (let left = 0; (left = Atomics.load(block, LEFT)) > 0; ) {
    if (Atomics.compareExchange(block, LEFT, left, left - 1) !== left) continue;
    doPart(left - 1);
    Atomics.add(block, DONE, 1);
    Atomics.notify(block, DONE);
  }
}

/** Waits until a number is another; false if it has not become so. */
function awaits(block: Int32Array<SharedArrayBuffer>, index: number, value: number): boolean {
  for (let looks = 0; looks < LOOKS; looks++) if (Atomics.load(block, index) !== value) return true;
  return Atomics.wait(block, index, value, NAP) !== "timed-out";
}
