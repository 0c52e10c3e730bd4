/**
 * Serves a raw disk over NBD and runs full backups of it when a line comes in: `backup-daemon.ts DISK TARGET SOCKET`.
 * Answers each `backup` by `done MILLISECONDS`, and `rss` by `rss BYTES`.
 */
import { createInterface } from "node:readline";
import { Backups } from "@blocklayer/backup";
import { copyBeforeWrite } from "@blocklayer/backup-top";
import { Graph } from "@blocklayer/block-graph";
import { BitmapManager } from "@blocklayer/dirty-bitmap";
import { realEnv } from "@blocklayer/env";
import { file } from "@blocklayer/file";
import { JobManager } from "@blocklayer/jobs";
import { NbdServer } from "@blocklayer/nbd-server";
import { listenUnix } from "@blocklayer/nbd-server/node";
import { raw } from "@blocklayer/raw";

const [disk = "", target = "", socket = ""] = process.argv.slice(2);
const env = realEnv();
const graph = new Graph({ env, drivers: [file, raw, copyBeforeWrite()] });
const jobs = new JobManager({ env });
const backups = new Backups({ graph, jobs, bitmaps: new BitmapManager(graph) });
const source = await graph.open({
  driver: "raw",
  "node-name": "disk",
  file: { driver: "file", filename: disk, locking: "off" },
});
await graph.open({
  driver: "raw",
  "node-name": "target",
  discard: "unmap",
  file: { driver: "file", filename: target, locking: "off", discard: "unmap" },
});
const server = new NbdServer({ env });
await server.addExport({ name: "", node: source, writable: true });
const listener = await listenUnix({ server, path: socket });
console.log("ready");
for await (const line of createInterface({ input: process.stdin })) {
  if (line === "backup") {
    const started = performance.now();
    const job = await backups.start({
      "job-id": "backup",
      device: "disk",
      target: "target",
      sync: "full",
    });
    await job.completed();
    const delay = job.guestWriteDelay();
    console.log(`done ${performance.now() - started} ${JSON.stringify(delay)}`);
  } else if (line === "rss") {
    console.log(`rss ${process.memoryUsage.rss()}`);
  } else {
    break;
  }
}
await listener.close();
await server.stop();
await graph.close();
process.stdin.destroy();
