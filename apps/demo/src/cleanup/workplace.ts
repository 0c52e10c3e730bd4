import { chmod, mkdtemp, readdir, rm, statfs } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { formatBytes } from "../scenario/quantities.ts";
import type { LastResort } from "./last-resort.ts";

/** Bytes of a path to a unix socket that every system takes. */
const SOCKET_PATH_MAX = 103;

/** The folder of one run, which nobody but its user may enter. */
export class Workplace {
  readonly path: string;
  readonly #lastResort: LastResort;

  private constructor(path: string, lastResort: LastResort) {
    this.path = path;
    this.#lastResort = lastResort;
  }

  /** Makes the folder, of mode 0700, in the system's folder for temporary files (`TMPDIR`). */
  static async make(lastResort: LastResort): Promise<Workplace> {
    const path = await mkdtemp(join(tmpdir(), "blocklayer-demo-"));
    lastResort.addFolder(path);
    const place = new Workplace(path, lastResort);
    try {
      await chmod(path, 0o700);
      place.#checkSocketPath();
    } catch (error) {
      await place.remove();
      throw error;
    }
    return place;
  }

  /** The path of a file in the folder. */
  file(name: string): string {
    return join(this.path, name);
  }

  get socket(): string {
    return this.file("nbd.sock");
  }

  /**
   * Makes sure that there is room, before anything is copied.
   *
   * @param needed - bytes
   * @param purpose - what they are for
   * @throws Error naming the folder, both numbers and what to do
   */
  async checkRoom(needed: number, purpose: string): Promise<void> {
    const { bavail, bsize } = await statfs(this.path);
    const free = bavail * bsize;
    if (free >= needed) return;
    throw new Error(
      `no room in ${tmpdir()}: ${purpose} needs ${formatBytes(needed)} there, ${formatBytes(free)} are free; ` +
        "set TMPDIR to a folder with more room",
    );
  }

  async remove(): Promise<void> {
    await rm(this.path, { recursive: true, force: true });
    this.#lastResort.forgetFolder(this.path);
  }

  /** Leaves the folder with the files named, and removes everything else in it. */
  async keep(names: readonly string[]): Promise<void> {
    this.#lastResort.forgetFolder(this.path);
    for (const name of await readdir(this.path)) {
      if (!names.includes(name)) await rm(this.file(name), { recursive: true, force: true });
    }
  }

  #checkSocketPath(): void {
    const { length } = Buffer.from(this.file(".nbd-XXXXXX/nbd.sock"));
    if (length <= SOCKET_PATH_MAX) return;
    throw new Error(
      `the path of TMPDIR (${tmpdir()}) is too long for a unix socket in it: ${length} bytes instead of ${SOCKET_PATH_MAX}`,
    );
  }
}
