import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Whether programs of other projects may be missing. */
const { BLOCKLAYER_REQUIRE_PEERS } = process.env;
const isRequired = BLOCKLAYER_REQUIRE_PEERS === "1";

/** Whether a program is installed. Says so when it is not; throws when it must be. */
export function hasPeer(program: string): boolean {
  const isThere = spawnSync(program, ["--version"], { stdio: "ignore" }).status === 0;
  if (!isThere && isRequired) throw new Error(`${program} is not installed`);
  if (!isThere) process.stderr.write(`tests against ${program} are skipped: it is not installed\n`);
  return isThere;
}

/** A directory of its own, removed with everything that was started in it. */
export class Workshop implements Disposable {
  readonly path: string = mkdtempSync(join(tmpdir(), "nbd-client-"));
  readonly #pidFiles: string[] = [];
  #count: number = 0;

  file(name: string): string {
    return join(this.path, name);
  }

  /** Starts nbdkit and returns its socket; it listens already. */
  nbdkit(...args: readonly string[]): string {
    const [socket, pidFile] = this.#names();
    start("nbdkit", ["-U", socket, "-P", pidFile, ...args]);
    return socket;
  }

  /** Starts nbdkit again where it was killed. */
  restartNbdkit(socket: string, ...args: readonly string[]): void {
    const [, pidFile] = this.#names();
    rmSync(socket, { force: true });
    start("nbdkit", ["-U", socket, "-P", pidFile, ...args]);
  }

  /** Starts qemu-nbd and returns its socket; it listens already. */
  qemuNbd(...args: readonly string[]): string {
    const [socket, pidFile] = this.#names();
    start("qemu-nbd", ["-k", socket, "--fork", `--pid-file=${pidFile}`, ...args]);
    return socket;
  }

  /** Kills the server that was started last. */
  killLast(): void {
    const pidFile = this.#pidFiles.pop();
    if (pidFile !== undefined) kill(pidFile, "SIGKILL");
  }

  [Symbol.dispose](): void {
    for (const pidFile of this.#pidFiles) kill(pidFile, "SIGTERM");
    rmSync(this.path, { recursive: true, force: true });
  }

  #names(): readonly [socket: string, pidFile: string] {
    this.#count += 1;
    const pidFile = this.file(`pid${this.#count}`);
    this.#pidFiles.push(pidFile);
    return [this.file(`socket${this.#count}`), pidFile];
  }
}

function start(program: string, args: readonly string[]): void {
  const { status } = spawnSync(program, args, { stdio: ["ignore", "ignore", "inherit"] });
  if (status !== 0) throw new Error(`${program} ${args.join(" ")} ended with ${status}`);
}

function kill(pidFile: string, signal: NodeJS.Signals): void {
  try {
    process.kill(Number(readFileSync(pidFile, "utf8")), signal);
  } catch (error) {
    // It ends by itself when its last client left.
    const { code } = error as NodeJS.ErrnoException;
    if (code !== "ESRCH" && code !== "ENOENT") throw error;
  }
}
