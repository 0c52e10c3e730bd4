import { type ChildProcess, type StdioOptions, spawn, spawnSync } from "node:child_process";
import { accessSync, constants } from "node:fs";
import { delimiter, join } from "node:path";
import { killHard, type LastResort } from "./last-resort.ts";

/** How a program that was run has ended. */
export interface Outcome {
  /** Exit code; 128 and more when a signal ended it. */
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions {
  readonly signal: AbortSignal;
  readonly cwd?: string;
}

/** Bytes of a program's output that are kept. */
const OUTPUT_MAX = 32 * 1024 * 1024;

/** Folders of system programs that are not in everybody's `PATH`. */
const MORE_FOLDERS = ["/usr/sbin", "/sbin", "/usr/local/sbin", "/opt/homebrew/opt/e2fsprogs/sbin"];

/** Makes the kernel kill a program when the one that started it is gone. */
const DIES_WITH_US = ["setpriv", "--pdeathsig", "KILL", "--"];

/** Not every `setpriv` knows the option. */
function canDieWithUs(): boolean {
  const [command = "", ...args] = DIES_WITH_US;
  return process.platform === "linux" && spawnSync(command, [...args, "true"]).status === 0;
}

/** Returns how to call a program: its name, its full path if it is not in `PATH`, `undefined` if it is not installed. */
export function findProgram(name: string): string | undefined {
  const { PATH = "" } = process.env;
  const folders = PATH.split(delimiter).filter((folder) => folder !== "");
  if (folders.some((folder) => isExecutable(join(folder, name)))) return name;
  return MORE_FOLDERS.map((folder) => join(folder, name)).find(isExecutable);
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/** Starts other programs, and knows those that run, so that none outlives the demo. */
export class Programs {
  /** Tells how to call a program, `undefined` if it is not installed. */
  readonly find: (name: string) => string | undefined;
  readonly #lastResort: LastResort;
  readonly #diesWithUs: readonly string[];

  constructor(lastResort: LastResort, find: Programs["find"] = findProgram) {
    this.#lastResort = lastResort;
    this.find = find;
    this.#diesWithUs = canDieWithUs() ? DIES_WITH_US : [];
  }

  /**
   * Starts a program in a process group of its own: Ctrl-C in the terminal reaches the demo alone, which ends its
   * children in its own order. Where the system can, the kernel kills the child should the demo itself be killed.
   */
  start(command: string, args: readonly string[], stdio: StdioOptions, cwd?: string): ChildProcess {
    const [first = command, ...rest] = [...this.#diesWithUs, command, ...args];
    const child = spawn(first, rest, {
      stdio,
      detached: true,
      ...(cwd === undefined ? {} : { cwd }),
    });
    this.#lastResort.addChild(child);
    return child;
  }

  /**
   * Runs a program to its end.
   *
   * @throws the signal's reason when it is aborted; the program is gone then
   */
  async run(command: string, args: readonly string[], options: RunOptions): Promise<Outcome> {
    options.signal.throwIfAborted();
    const child = this.start(command, args, ["ignore", "pipe", "pipe"], options.cwd);
    const abort = (): void => killHard(child);
    options.signal.addEventListener("abort", abort, { once: true });
    try {
      const [stdout, stderr, code] = await Promise.all([
        textOf(child.stdout),
        textOf(child.stderr),
        endOf(child),
      ]);
      options.signal.throwIfAborted();
      return { code, stdout, stderr };
    } finally {
      options.signal.removeEventListener("abort", abort);
    }
  }

  /**
   * Runs a program that has to succeed.
   *
   * @throws Error with what it printed, if its exit code is not 0
   */
  async mustRun(command: string, args: readonly string[], options: RunOptions): Promise<string> {
    const { code, stdout, stderr } = await this.run(command, args, options);
    if (code === 0) return stdout;
    const said = (stderr.trim() || stdout.trim()).slice(0, 2000);
    throw new Error(`${[command, ...args].join(" ")} ended with exit code ${code}: ${said}`);
  }
}

/** Resolves with the exit code when the program has ended and its output is closed. */
export function endOf(child: ChildProcess): Promise<number> {
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code) => resolve(code ?? 128));
  });
}

async function textOf(stream: NodeJS.ReadableStream | null): Promise<string> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of stream ?? []) {
    const bytes = Buffer.from(chunk);
    // What is beyond the limit is read and dropped, so that the program is not held.
    if (length < OUTPUT_MAX) chunks.push(bytes);
    length += bytes.length;
  }
  return Buffer.concat(chunks).toString();
}
