/** What given.js makes. */
declare const given: {
  files: File[];
  /** A clip. */
  frames: File[];
  film: HTMLVideoElement;
  show(...values: unknown[]): void;
};
