/** Serves a raw disk over NBD, export <- raw <- file, until it is told to stop: `serve-disk.ts DISK SOCKET`. */
import { Graph } from "@blocklayer/block-graph";
import { realEnv } from "@blocklayer/env";
import { file } from "@blocklayer/file";
import { NbdServer } from "@blocklayer/nbd-server";
import { listenUnix } from "@blocklayer/nbd-server/node";
import { raw } from "@blocklayer/raw";

const [disk = "", socket = ""] = process.argv.slice(2);
const env = realEnv();
const graph = new Graph({ env, drivers: [file, raw] });
const node = await graph.open({
  driver: "raw",
  "node-name": "disk",
  file: { driver: "file", filename: disk, locking: "off" },
});
const server = new NbdServer({ env });
await server.addExport({ name: "", node, writable: true });
const listener = await listenUnix({ server, path: socket });
process.once("SIGTERM", () => {
  void listener
    .close()
    .then(() => server.stop())
    .then(() => graph.close());
});
