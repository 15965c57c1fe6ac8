// Workers, also where the library comes from another site than the page.

/**
 * Starts a worker of the file `name` beside this one.
 *
 * @param start - starts it from its own address, in the very expression that bundlers look for
 */
export function spawn(start: () => Worker, name: string): Worker {
  try {
    return start();
  } catch (error) {
    if (!(error instanceof DOMException && error.name === "SecurityError")) throw error;
  }
  // A worker's script must come from the page's own site, but may import from others, as when the package comes from a CDN.
  // Bundlers, for which this would be one more file to publish, do not follow a base that has a name.
  const here = import.meta.url;
  const script = new Blob([`import ${JSON.stringify(new URL(`./${name}`, here).href)};`], { type: "text/javascript" });
  return new Worker(URL.createObjectURL(script), { type: "module" });
}
