import { randomInt } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { REST_MS, WRITE_SIZE } from "./pace.ts";
import type { Writer, WriterOptions } from "./writer.ts";
import { WriterProcess } from "./writer-process.ts";

const DONE = /wrote \d+\/\d+ bytes at offset/g;
const FAILED = /^(?:write failed|aio_write failed|.*[Ee]rror).*/m;

/** Starts `qemu-io` and gives it one random write after the other. */
export function startQemuIoWriter({ programs, uri, areas }: WriterOptions): Writer {
  const child = programs.start("qemu-io", ["-f", "raw", uri], ["pipe", "pipe", "pipe"]);
  const process = new WriterProcess("qemu-io", child);
  const { stdin, stdout } = child;
  let writes = 0;
  let failure: string | undefined;
  // The process may end while a command is on its way to it; its end is noticed elsewhere.
  stdin?.on("error", () => undefined);
  const command = (): void => {
    const area = areas[randomInt(areas.length)];
    if (area === undefined || stdin?.writable !== true) return;
    const offset = area.offset + randomInt(area.length / WRITE_SIZE) * WRITE_SIZE;
    stdin.write(`write -P ${randomInt(1, 256)} ${offset} ${WRITE_SIZE}\n`);
  };
  stdout?.on("data", (chunk: Buffer) => {
    const text = chunk.toString();
    const done = text.match(DONE)?.length ?? 0;
    writes += done;
    failure ??= FAILED.exec(text)?.[0];
    if (done > 0) void sleep(REST_MS).then(command);
  });
  command();
  return {
    description: `qemu-io, ${WRITE_SIZE / 1024} KiB random writes, one at a time`,
    pid: process.pid,
    get failure() {
      return process.failure ?? failure;
    },
    count: () => process.whileAlive(Promise.resolve({ writes, atMs: performance.now() })),
    stop: () => process.stop("SIGTERM"),
  };
}
