import { type ChildProcess, spawn } from "node:child_process";
import { join } from "node:path";
import { createInterface, type Interface } from "node:readline";

/** A process that serves a disk and makes full backups of it on demand. */
export interface BackupDaemon {
  /** Runs one full backup; resolves to milliseconds. */
  backup(): Promise<number>;
  /** Bytes of memory that the process has in use now, as the system counts it. */
  rss(): Promise<number>;
  stop(): Promise<void>;
}

class LineProcess {
  readonly child: ChildProcess;
  readonly #lines: Interface;
  readonly #waiting: {
    readonly matches: (line: string) => boolean;
    resolve(line: string): void;
  }[] = [];

  constructor(command: string, args: readonly string[]) {
    this.child = spawn(command, args, { stdio: ["pipe", "pipe", "inherit"] });
    const output = this.child.stdout;
    if (output === null) throw new Error(`${command} has no output`);
    this.#lines = createInterface({ input: output });
    this.#lines.on("line", (line) => {
      const index = this.#waiting.findIndex(({ matches }) => matches(line));
      if (index >= 0) this.#waiting.splice(index, 1)[0]?.resolve(line);
    });
  }

  say(line: string): void {
    this.child.stdin?.write(`${line}\n`);
  }

  line(matches: (line: string) => boolean): Promise<string> {
    return new Promise((resolve) => this.#waiting.push({ matches, resolve }));
  }

  async ended(): Promise<void> {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return;
    await new Promise((resolve) => this.child.once("exit", resolve));
  }
}

/** Starts our daemon. */
export async function ourDaemon(
  disk: string,
  target: string,
  socket: string,
): Promise<BackupDaemon> {
  const process_ = new LineProcess(process.execPath, [
    "--conditions=@blocklayer/source",
    join(import.meta.dirname, "backup-daemon.ts"),
    disk,
    target,
    socket,
  ]);
  await process_.line((line) => line === "ready");
  return {
    async backup() {
      const done = process_.line((line) => line.startsWith("done "));
      process_.say("backup");
      return Number((await done).split(" ")[1]);
    },
    async rss() {
      const answer = process_.line((line) => line.startsWith("rss "));
      process_.say("rss");
      return Number((await answer).split(" ")[1]);
    },
    async stop() {
      process_.say("stop");
      await process_.ended();
    },
  };
}

/** Starts qemu-storage-daemon with the same disks. */
export async function referenceDaemon(
  disk: string,
  target: string,
  socket: string,
): Promise<BackupDaemon> {
  const node = (name: string, path: string): string =>
    JSON.stringify({
      driver: "raw",
      "node-name": name,
      file: { driver: "file", filename: path, locking: "off" },
    });
  const daemon = new LineProcess("qemu-storage-daemon", [
    "--blockdev",
    node("disk", disk),
    "--blockdev",
    node("target", target),
    "--nbd-server",
    `addr.type=unix,addr.path=${socket}`,
    "--export",
    "type=nbd,id=e,node-name=disk,name=,writable=on",
    "--chardev",
    "stdio,id=m",
    "--monitor",
    "m",
  ]);
  const answered = (): Promise<string> =>
    daemon.line((line) => line.includes('"return"') || line.includes('"error"'));
  const execute = async (command: object): Promise<void> => {
    const answer = answered();
    daemon.say(JSON.stringify(command));
    const line = await answer;
    if (line.includes('"error"')) throw new Error(line);
  };
  await daemon.line((line) => line.includes('"QMP"'));
  await execute({ execute: "qmp_capabilities" });
  return {
    async backup() {
      const completed = daemon.line((line) => line.includes("BLOCK_JOB_COMPLETED"));
      const gone = daemon.line((line) => line.includes('"null"'));
      const started = performance.now();
      await execute({
        execute: "blockdev-backup",
        arguments: { "job-id": "backup", device: "disk", target: "target", sync: "full" },
      });
      await completed;
      const ended = performance.now();
      await gone;
      return ended - started;
    },
    rss: () => Promise.reject(new Error("not measured")),
    async stop() {
      await execute({ execute: "quit" });
      await daemon.ended();
    },
  };
}
