import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";

/** Directories and processes of a run; nothing of it is left when it is closed. */
export class Workplace {
  readonly #folders: string[] = [];
  readonly #processes = new Set<ChildProcess>();

  /** A new directory on the ordinary file system, or in memory. */
  folder(where: "disk" | "memory"): string {
    const parent = where === "memory" && existsSync("/dev/shm") ? "/dev/shm" : tmpdir();
    const folder = mkdtempSync(join(parent, "blocklayer-bench-"));
    this.#folders.push(folder);
    return folder;
  }

  /** Starts a process that is killed at the end, if not before. */
  start(command: string, args: readonly string[]): ChildProcess {
    const child = spawn(command, args, { stdio: ["ignore", "pipe", "inherit"] });
    this.#processes.add(child);
    child.once("exit", () => this.#processes.delete(child));
    return child;
  }

  /** Starts a program of this folder, under the Node that runs this. */
  startOwn(script: string, args: readonly string[]): ChildProcess {
    return this.start(process.execPath, [
      "--conditions=@blocklayer/source",
      join(import.meta.dirname, script),
      ...args,
    ]);
  }

  async stop(child: ChildProcess): Promise<void> {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const gone = new Promise((resolve) => child.once("exit", resolve));
    child.kill("SIGTERM");
    await Promise.race([gone, delay(5000)]);
    if (child.exitCode === null && child.signalCode === null) child.kill("SIGKILL");
  }

  async close(): Promise<void> {
    for (const child of [...this.#processes]) await this.stop(child);
    for (const folder of this.#folders) rmSync(folder, { recursive: true, force: true });
  }
}

/** Whether a program is installed. */
export function isInstalled(program: string): boolean {
  try {
    execFileSync("sh", ["-c", `command -v ${program}`], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
}

/** Resolves when somebody listens on the socket. */
export async function socketReady(path: string): Promise<void> {
  for (let attempt = 0; attempt < 200; attempt += 1) {
    const isUp = await new Promise<boolean>((resolve) => {
      const socket = connect(path, () => {
        socket.destroy();
        resolve(true);
      });
      socket.once("error", () => resolve(false));
    });
    if (isUp) return;
    await delay(50);
  }
  throw new Error(`nobody listens on ${path}`);
}

/** Resolves to the next line of a process's output that begins with `prefix`, without it. */
export function lineOf(child: ChildProcess, prefix: string): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = "";
    child.stdout?.on("data", (chunk: Buffer) => {
      text += chunk.toString();
      for (const line of text.split("\n").slice(0, -1)) {
        if (line.startsWith(prefix)) resolve(line.slice(prefix.length).trim());
      }
    });
    child.once("exit", (code) =>
      reject(new Error(`the process ended with ${code} before it said ${prefix}`)),
    );
  });
}
