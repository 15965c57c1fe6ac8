/** Takes files that are dropped anywhere on the page; `veil` covers it while some are held over it. */
export function mountDrop(veil: HTMLElement, onDrop: (transfer: DataTransfer) => void): void {
  const carriesFiles = (event: DragEvent) => event.dataTransfer?.types.includes("Files") ?? false;
  document.addEventListener("dragover", (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    veil.hidden = false;
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) veil.hidden = true;
  });
  document.addEventListener("drop", (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    veil.hidden = true;
    if (event.dataTransfer) onDrop(event.dataTransfer);
  });
}
