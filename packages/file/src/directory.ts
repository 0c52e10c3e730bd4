import { constants } from "node:fs";
import { join } from "node:path";
import type { Directory, DirectoryEntry, DirectoryLock } from "@blocklayer/driver";
import { BlockError } from "@blocklayer/errors";
import { PROCESS_LOCK, takeLock } from "./directory-lock.ts";
import { codeOf, ioError, retried } from "./io-error.ts";
import { type OperatingSystemOptions, operatingSystem } from "./node-system.ts";
import type { OperatingSystem } from "./operating-system.ts";
import { writeFully } from "./write-fully.ts";

/** Files that are being written are named so, with the number of the process that writes. */
const TEMPORARY = /^\.blocklayer-(\d+)-\d+\.tmp$/;

export interface OpenDirectoryOptions extends OperatingSystemOptions {
  /** The operating system; for tests and simulations. Default: the real one. */
  readonly system?: OperatingSystem;
}

/**
 * Opens a directory for sidecars and manifests, and removes what processes that died left half written.
 *
 * @param path - an existing directory
 * @throws BlockError `ENOENT`, `ENOTDIR`, `EACCES`
 */
export async function openDirectory(
  path: string,
  options: OpenDirectoryOptions = {},
): Promise<Directory> {
  const system = options.system ?? (await operatingSystem(options));
  const directory = new NodeDirectory(system, path);
  await directory.removeLeftovers();
  return directory;
}

class NodeDirectory implements Directory {
  readonly #system: OperatingSystem;
  readonly #path: string;

  constructor(system: OperatingSystem, path: string) {
    this.#system = system;
    this.#path = path;
  }

  async removeLeftovers(): Promise<void> {
    await this.#told("opening", ".", async () => {
      const { kind } = await this.#system.stat(this.#path);
      if (kind !== "directory") {
        throw new BlockError("ENOTDIR", `'${this.#path}' is not a directory`, { path: this.#path });
      }
      for (const name of await this.#system.list(this.#path)) {
        const owner = Number(TEMPORARY.exec(name)?.[1] ?? Number.NaN);
        if (!Number.isNaN(owner) && !this.#system.isProcessAlive(owner)) {
          await this.#unlink(join(this.#path, name));
        }
      }
    });
  }

  async read(name: string, lengthMax: number): Promise<Uint8Array> {
    const path = this.#pathOf(name);
    return this.#told("reading", name, () =>
      this.#opened(path, constants.O_RDONLY, async (fd) => {
        const { size } = await this.#system.fstat(fd);
        // One byte more than there is, or than is allowed, tells of a file that grows.
        const content = new Uint8Array(Math.min(size, lengthMax) + 1);
        let length = 0;
        while (length < content.length) {
          const rest = content.subarray(length);
          const offset = length;
          const count = await retried(() => this.#system.read(fd, rest, offset));
          if (count === 0) return content.subarray(0, length);
          length += count;
        }
        if (size < lengthMax) throw new BlockError("EAGAIN", `'${name}' changed while it was read`);
        throw new BlockError("EFBIG", `'${name}' is longer than ${lengthMax} bytes`, {
          path,
          lengthMax,
        });
      }),
    );
  }

  async writeAtomically(name: string, content: Uint8Array): Promise<void> {
    const path = this.#pathOf(name);
    const ownName = `.blocklayer-${this.#system.processId}-${nextNumber()}.tmp`;
    const temporary = join(this.#path, ownName);
    const { O_WRONLY, O_CREAT, O_EXCL } = constants;
    await this.#told("writing", name, async () => {
      try {
        await this.#opened(temporary, O_WRONLY | O_CREAT | O_EXCL, async (fd) => {
          await writeFully((rest, offset) => this.#system.write(fd, rest, offset), [content], 0);
          await this.#system.fsync(fd);
        });
        await this.#system.rename(temporary, path);
      } catch (error) {
        await this.#unlink(temporary).catch(() => {
          // The first error is told; the leftover goes when the directory is opened the next time.
        });
        throw error;
      }
      await this.#system.syncDirectory(this.#path);
    });
  }

  async list(): Promise<readonly DirectoryEntry[]> {
    return this.#told("listing", ".", async () => {
      const entries: DirectoryEntry[] = [];
      for (const name of await this.#system.list(this.#path)) {
        if (isOurs(name)) continue;
        const size = await this.#sizeOf(join(this.#path, name));
        if (size !== undefined) entries.push({ name, size });
      }
      return entries;
    });
  }

  /** @returns `undefined` for what is no file, or not there any more */
  async #sizeOf(path: string): Promise<number | undefined> {
    try {
      const { kind, size } = await this.#system.stat(path);
      return kind === "file" ? size : undefined;
    } catch (error) {
      if (codeOf(error) === "ENOENT") return undefined;
      throw error;
    }
  }

  async remove(name: string): Promise<void> {
    const path = this.#pathOf(name);
    await this.#told("removing", name, async () => {
      await this.#unlink(path);
      await this.#system.syncDirectory(this.#path);
    });
  }

  async lock(name: string): Promise<DirectoryLock> {
    this.#pathOf(name);
    return this.#told("locking", name, () => takeLock(this.#system, this.#path, name));
  }

  async freeSpace(): Promise<number | undefined> {
    return this.#told("measuring", ".", async () => {
      const { available } = await this.#system.statfs(this.#path);
      return available;
    });
  }

  async identity(name: string): Promise<string> {
    const path = this.#pathOf(name);
    return this.#told("looking at", name, async () => {
      const { inode, size, modified } = await this.#system.stat(path);
      return `${inode}:${size}:${modified}`;
    });
  }

  #pathOf(name: string): string {
    const isPlain = /^[^/\\\0]+$/.test(name) && name !== "." && name !== "..";
    if (isPlain && !isOurs(name)) return join(this.#path, name);
    throw new BlockError("EINVAL", `${JSON.stringify(name)} is not a plain file name`, { name });
  }

  async #opened<T>(path: string, flags: number, use: (fd: number) => Promise<T>): Promise<T> {
    const fd = await this.#system.open(path, flags, 0o644);
    try {
      return await use(fd);
    } finally {
      await this.#system.close(fd);
    }
  }

  /** Removing what is not there succeeds. */
  async #unlink(path: string): Promise<void> {
    try {
      await this.#system.unlink(path);
    } catch (error) {
      if (codeOf(error) !== "ENOENT") throw error;
    }
  }

  /** Says what was done to which file when the operating system refuses. */
  async #told<T>(verb: string, name: string, action: () => Promise<T>): Promise<T> {
    try {
      return await action();
    } catch (error) {
      const path = join(this.#path, name);
      throw ioError(error, `${verb} '${path}' failed`, { path });
    }
  }
}

/** Whether a name is of a file that this package keeps for itself. */
function isOurs(name: string): boolean {
  return TEMPORARY.test(name) || PROCESS_LOCK.test(name);
}

let lastNumber = 0;

/** A number that no other temporary file of this process has. */
function nextNumber(): number {
  lastNumber += 1;
  return lastNumber;
}
