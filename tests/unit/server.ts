// A static server whose faults can be chosen.

import { existsSync, readFileSync, statSync } from "node:fs";
import { createServer, type IncomingHttpHeaders, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { extname, join } from "node:path";

export interface Fault {
  /** Answer every request with the whole file, as servers without ranges do. */
  noRanges?: boolean;
  /** Cut the connection after so many bytes of the body, this many times. */
  cutAfter?: number;
  cuts?: number;
  /** Say another length than there are bytes. */
  lieBy?: number;
  /** No Content-Length at all. */
  chunked?: boolean;
  /** Hide Content-Range, as servers of other sites do. */
  hideContentRange?: boolean;
  status?: number;
  /** Answer 401 unless the request has this header, as `name: value`. */
  needs?: string;
  /** Stop sending after so many bytes, and keep the connection open. */
  stallAfter?: number;
  contentType?: string;
  etag?: () => string;
}

export interface TestServer {
  url: string;
  files: Map<string, Uint8Array | string>;
  /** Folders on the disk, by the beginnings of their paths here. */
  folders: Map<string, string>;
  /** Sent with every answer. */
  headers: Record<string, string>;
  faults: Map<string, Fault>;
  requests: { path: string; range: string | undefined; headers: IncomingHttpHeaders }[];
  /** Connections that are sending at this moment, and the most there have been. */
  open: number;
  mostOpen: number;
  close(): Promise<void>;
}

export async function startServer(): Promise<TestServer> {
  const state: Omit<TestServer, "url" | "close"> = { files: new Map(), folders: new Map(), headers: {}, faults: new Map(), requests: [], open: 0, mostOpen: 0 };
  const http = createServer((request, response) => respond(state, request, response));
  await new Promise<void>((resolve) => http.listen(0, "127.0.0.1", resolve));
  const server = state as TestServer;
  server.url = `http://127.0.0.1:${(http.address() as AddressInfo).port}/`;
  server.close = () =>
    new Promise((resolve) => {
      http.close(() => resolve());
      http.closeAllConnections();
    });
  return server;
}

const TYPES: Record<string, string> = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript",
  ".css": "text/css",
  ".json": "application/json",
  ".wasm": "application/wasm",
  ".png": "image/png",
  ".jpg": "image/jpeg",
  ".svg": "image/svg+xml",
};

function fromDisk(folders: Map<string, string>, path: string): Uint8Array | undefined {
  const parts = path.split("/");
  for (let length = parts.length - 1; length > 0; length--) {
    const folder = folders.get(parts.slice(0, length).join("/"));
    const file = folder && join(folder, ...parts.slice(length));
    if (file && existsSync(file) && statSync(file).isFile()) return readFileSync(file);
  }
  return undefined;
}

function respond(state: Omit<TestServer, "url" | "close">, request: IncomingMessage, response: ServerResponse): void {
  const path = decodeURIComponent(new URL(request.url!, "http://localhost").pathname.slice(1)).replace(/\/$/, "/index.html");
  const { range } = request.headers;
  state.requests.push({ path, range, headers: request.headers });
  const stored = state.files.get(path) ?? fromDisk(state.folders, path);
  const fault = state.faults.get(path) ?? {};
  const [name, value] = fault.needs?.split(": ") ?? [];
  const status = name && request.headers[name] !== value ? 401 : fault.status;
  if (status || stored === undefined) {
    response.writeHead(status ?? 404, { ...state.headers, "content-type": "text/plain" }).end("no");
    return;
  }
  const file = typeof stored === "string" ? new TextEncoder().encode(stored) : stored;
  const start = fault.noRanges ? 0 : Number(/^bytes=(\d+)-$/.exec(range ?? "")?.[1] ?? 0);
  const partial = range !== undefined && !fault.noRanges;
  if (partial && start >= file.length) {
    response.writeHead(416, { "content-range": `bytes */${file.length}` }).end();
    return;
  }
  const body = file.subarray(start);
  const claimed = file.length + (fault.lieBy ?? 0);
  const headers: Record<string, string> = { ...state.headers, "content-type": fault.contentType ?? TYPES[extname(path)] ?? "application/octet-stream" };
  if (!fault.chunked) headers["content-length"] = String(claimed - start);
  if (partial && !fault.hideContentRange) headers["content-range"] = `bytes ${start}-${claimed - 1}/${claimed}`;
  if (fault.etag) headers.etag = fault.etag();
  response.writeHead(partial ? 206 : 200, headers);
  state.open++;
  state.mostOpen = Math.max(state.mostOpen, state.open);
  response.on("close", () => state.open--);
  if (fault.cutAfter !== undefined && (fault.cuts ?? Infinity) > 0 && body.length > fault.cutAfter) {
    fault.cuts = (fault.cuts ?? Infinity) - 1;
    response.write(body.subarray(0, fault.cutAfter), () => setTimeout(() => response.destroy(), 20));
  } else if (fault.stallAfter !== undefined) {
    response.write(body.subarray(0, fault.stallAfter));
  } else if (fault.lieBy !== undefined && fault.lieBy > 0) {
    response.write(body, () => setTimeout(() => response.destroy(), 20));
  } else {
    response.end(fault.lieBy ? body.subarray(0, claimed - start) : body);
  }
}
