/** A page's one state: change it through `change`, and every listener runs once before the next paint. */
export class Store<S extends object> {
  private readonly listeners: ((state: S) => void)[] = [];
  private scheduled = false;

  constructor(readonly state: S) {}

  subscribe(listener: (state: S) => void): void {
    this.listeners.push(listener);
  }

  change(patch: Partial<S>): void {
    Object.assign(this.state, patch);
    this.changed();
  }

  /** For a change inside of the state. */
  changed(): void {
    if (this.scheduled) return;
    this.scheduled = true;
    requestAnimationFrame(() => {
      this.scheduled = false;
      for (const listener of this.listeners) listener(this.state);
    });
  }
}
