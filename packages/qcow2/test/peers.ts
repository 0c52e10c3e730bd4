import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
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

export interface PeerResult {
  readonly status: number | null;
  readonly out: string;
  readonly err: string;
}

/** A directory for images, removed with everything in it. */
export class Workshop implements Disposable {
  readonly path: string = mkdtempSync(join(tmpdir(), "qcow2-"));

  file(name: string): string {
    return join(this.path, name);
  }

  /** Runs a program in the directory. */
  try(program: string, ...args: readonly string[]): PeerResult {
    const { status, stdout, stderr } = spawnSync(program, args, {
      encoding: "utf8",
      cwd: this.path,
      maxBuffer: 2 ** 28,
    });
    return { status, out: stdout, err: stderr };
  }

  /** Runs a program that has to succeed. Returns what it printed. */
  run(program: string, ...args: readonly string[]): string {
    const { status, out, err } = this.try(program, ...args);
    if (status === 0) return out;
    throw new Error(`${program} ${args.join(" ")}: ${status ?? "no status"}\n${out}${err}`);
  }

  /** Makes an image with `qemu-img create`. Returns its path. */
  create(name: string, size: number | string, options = ""): string {
    const given = options === "" ? [] : ["-o", options];
    this.run("qemu-img", "create", "-q", "-f", "qcow2", ...given, name, String(size));
    return this.file(name);
  }

  /** What `qemu-img check` finds; members as it prints them. */
  check(name: string): Readonly<Record<string, number>> {
    const { out, err, status } = this.try(
      "qemu-img",
      "check",
      "--output=json",
      "-f",
      "qcow2",
      name,
    );
    if (out === "") throw new Error(`qemu-img check ${name}: ${status ?? "no status"}\n${err}`);
    return JSON.parse(out) as Record<string, number>;
  }

  /** Runs commands of `qemu-io` on an image. */
  io(name: string, ...commands: readonly string[]): string {
    const list = commands.flatMap((command) => ["-c", command]);
    return this.run("qemu-io", "-f", "qcow2", ...list, name);
  }

  [Symbol.dispose](): void {
    rmSync(this.path, { recursive: true, force: true });
  }
}
