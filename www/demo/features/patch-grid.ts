import { h } from "../shared/dom";

export interface GridView {
  rows: number;
  columns: number;
  row: number;
  column: number;
  label: string;
}

/**
 * A picture as an ARIA grid of patches with one active cell. Only that cell is in the document (aria-rowindex and
 * aria-colindex say where it is): a 32 × 32 grid would otherwise be a thousand elements to keep up to date.
 */
export class PatchGrid {
  readonly canvas = h("canvas", { width: 1, height: 1, "aria-hidden": "true" });
  private readonly line = h("div", { role: "row" });
  private view: GridView | undefined;
  private serial = 0;

  constructor(
    private readonly root: HTMLElement,
    private readonly onMove: (row: number, column: number) => void,
  ) {
    root.append(this.canvas, this.line);
    root.setAttribute("role", "grid");
    root.addEventListener("keydown", (event) => this.key(event));
    root.addEventListener("click", (event) => this.point(event));
    // Dragging explores with a mouse or pen; with a finger it scrolls the page.
    root.addEventListener("pointermove", (event) => {
      if (event.pointerType !== "touch" && event.buttons & 1) this.point(event);
    });
  }

  render(view: GridView | undefined): void {
    const old = this.view;
    this.view = view;
    this.root.tabIndex = view ? 0 : -1;
    if (!view) {
      this.line.replaceChildren();
      this.root.removeAttribute("aria-activedescendant");
      return;
    }
    this.root.setAttribute("aria-label", view.label);
    this.root.setAttribute("aria-rowcount", String(view.rows));
    this.root.setAttribute("aria-colcount", String(view.columns));
    const moved = !old || old.row !== view.row || old.column !== view.column || old.rows !== view.rows || old.columns !== view.columns;
    if (!moved) return;
    this.line.setAttribute("aria-rowindex", String(view.row + 1));
    // A new id with every move: screen readers announce a cell when aria-activedescendant changes.
    const id = `${this.root.id}-cell-${this.serial++}`;
    const cell = h("div", {
      role: "gridcell",
      id,
      "aria-colindex": view.column + 1,
      "aria-selected": "true",
      "aria-label": `Row ${view.row + 1}, column ${view.column + 1}`,
    });
    cell.style.left = `${(100 * view.column) / view.columns}%`;
    cell.style.top = `${(100 * view.row) / view.rows}%`;
    cell.style.width = `${100 / view.columns}%`;
    cell.style.height = `${100 / view.rows}%`;
    this.line.replaceChildren(cell);
    this.root.setAttribute("aria-activedescendant", id);
  }

  private point(event: MouseEvent): void {
    if (!this.view) return;
    const box = this.canvas.getBoundingClientRect();
    const { rows, columns } = this.view;
    this.move(((event.clientY - box.top) / box.height) * rows, ((event.clientX - box.left) / box.width) * columns);
  }

  private key(event: KeyboardEvent): void {
    if (!this.view || event.altKey || event.metaKey) return;
    const { rows, columns, row, column } = this.view;
    const all = event.ctrlKey;
    const to: Record<string, [number, number]> = {
      ArrowUp: [row - 1, column],
      ArrowDown: [row + 1, column],
      ArrowLeft: [row, column - 1],
      ArrowRight: [row, column + 1],
      Home: [all ? 0 : row, 0],
      End: [all ? rows - 1 : row, columns - 1],
      PageUp: [0, column],
      PageDown: [rows - 1, column],
    };
    const target = to[event.key];
    if (!target) return;
    event.preventDefault();
    this.move(...target);
  }

  private move(row: number, column: number): void {
    if (!this.view) return;
    const { rows, columns } = this.view;
    const within = (value: number, count: number) => Math.min(count - 1, Math.max(0, Math.floor(value)));
    this.onMove(within(row, rows), within(column, columns));
  }
}
