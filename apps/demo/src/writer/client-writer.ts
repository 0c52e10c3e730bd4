import { join } from "node:path";
import { createInterface } from "node:readline";
import { LANES, WRITE_SIZE } from "./pace.ts";
import type { Writer, WriterCount, WriterOptions } from "./writer.ts";
import { WriterProcess } from "./writer-process.ts";

const PROGRAM = join(import.meta.dirname, "client-process.ts");

/** Starts our own NBD client as the writer, in a process of its own; it tells its counts when it gets a line. */
export function startClientWriter({ programs, uri, areas }: WriterOptions): Writer {
  const args = ["--conditions=@blocklayer/source", PROGRAM, uri, JSON.stringify(areas)];
  const child = programs.start(process.execPath, args, ["pipe", "pipe", "pipe"]);
  const writer = new WriterProcess("of our own", child);
  const waiting: ((count: WriterCount) => void)[] = [];
  // The process may end while a question is on its way to it; its end is noticed elsewhere.
  child.stdin?.on("error", () => undefined);
  if (child.stdout !== null) {
    createInterface({ input: child.stdout }).on("line", (line) => {
      waiting.shift()?.({ writes: Number(line), atMs: performance.now() });
    });
  }
  return {
    description: `our own client, ${WRITE_SIZE / 1024} KiB random writes, ${LANES} at once`,
    pid: writer.pid,
    get failure() {
      return writer.failure;
    },
    async count() {
      const answer = new Promise<WriterCount>((resolve) => waiting.push(resolve));
      child.stdin?.write("count\n");
      return await writer.whileAlive(answer);
    },
    stop: () => writer.stop("SIGTERM"),
  };
}
