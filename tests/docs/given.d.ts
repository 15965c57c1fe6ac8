/** What given.js makes. */
declare const given: {
  files: File[];
  /** A clip. */
  frames: File[];
  film: HTMLVideoElement;
  /** With actions of seven numbers. */
  recordings: { frames: HTMLCanvasElement[]; actions: number[][]; states: number[][] }[];
  show(...values: unknown[]): void;
};
