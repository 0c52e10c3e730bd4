import { constants } from "node:fs";
import type { NodeHost } from "@blocklayer/driver";
import { BlockError } from "@blocklayer/errors";
import { Descriptor } from "./descriptor.ts";
import type { FileOptions } from "./file-options.ts";
import { ImageLocks, type OpenLocks } from "./image-locks.ts";
import { codeOf, ioError } from "./io-error.ts";
import type { FileStat, OperatingSystem } from "./operating-system.ts";

/** What a driver name stands for. */
export interface FileKind {
  readonly driverName: "file" | "host_device";
  readonly accepts: FileStat["kind"];
  /** What is said of anything else, after the path. */
  readonly expectation: string;
}

/** Opens descriptors of one file, and makes sure that it stays the same file. */
export class FileOpener {
  readonly path: string;
  readonly isDirect: boolean;
  readonly #system: OperatingSystem;
  readonly #host: NodeHost;
  readonly #inode: string;

  private constructor(
    system: OperatingSystem,
    host: NodeHost,
    options: FileOptions,
    inode: string,
  ) {
    this.path = options.filename;
    this.isDirect = host.options.cacheDirect;
    this.#system = system;
    this.#host = host;
    this.#inode = inode;
  }

  /**
   * Looks at a path before anything is opened: opening a named pipe would wait, opening a tape would wind it.
   *
   * @throws BlockError `EINVAL` the path is something else; `ENOENT`, `EACCES`, … from the operating system
   */
  static async inspect(
    system: OperatingSystem,
    host: NodeHost,
    kind: FileKind,
    options: FileOptions,
  ): Promise<FileOpener> {
    const { filename } = options;
    const context = { node: host.nodeName, fileName: filename };
    let stat: FileStat;
    try {
      stat = await system.stat(filename);
    } catch (error) {
      throw ioError(error, `Could not open '${filename}'`, context);
    }
    if (stat.kind !== kind.accepts) {
      const text = `'${kind.driverName}' driver requires '${filename}' to be ${kind.expectation}`;
      throw new BlockError("EINVAL", text, context);
    }
    return new FileOpener(system, host, options, stat.inode);
  }

  /**
   * Opens a descriptor.
   *
   * @throws BlockError `EACCES`, `EROFS`, …; `ENOENT` another file has taken the name; `EINVAL` the file system cannot
   *   bypass the page cache
   */
  async open(isWritable: boolean, mode: { readonly isDirect?: boolean } = {}): Promise<Descriptor> {
    const isDirect = mode.isDirect ?? this.isDirect;
    const access = isWritable ? constants.O_RDWR : constants.O_RDONLY;
    const context = { node: this.#host.nodeName, fileName: this.path };
    const what = `Could not open '${this.path}'`;
    let fd: number;
    try {
      fd = await this.#system.open(this.path, isDirect ? access | this.#directFlag() : access);
    } catch (error) {
      if (isDirect && codeOf(error) === "EINVAL") {
        const text = `${what}: filesystem does not support O_DIRECT`;
        throw new BlockError("EINVAL", text, context, { cause: error });
      }
      throw ioError(error, what, context);
    }
    const descriptor = new Descriptor(this.#system, fd, isWritable);
    try {
      const { inode } = await this.#system.fstat(fd);
      if (inode === this.#inode) return descriptor;
      throw new BlockError("ENOENT", `${what}: another file has taken its name`, context);
    } catch (error) {
      await descriptor.retire();
      throw ioError(error, what, context);
    }
  }

  #directFlag(): number {
    // Platforms without the flag have no such constant, whatever its type says.
    const flag: number | undefined = constants.O_DIRECT;
    if (flag !== undefined) return flag;
    throw new BlockError("ENOTSUP", "cache.direct is not supported on this platform", {
      node: this.#host.nodeName,
    });
  }

  /**
   * Opens a descriptor for locks.
   *
   * @returns `undefined` when there are none: switched off, or `auto` where they cannot be had
   * @throws BlockError `ENOTSUP` locking is `on` and cannot be had
   */
  async openLocks(locking: FileOptions["locking"]): Promise<OpenLocks | undefined> {
    if (locking === "off") return undefined;
    const { native, nativeMissing } = this.#system;
    const context = { node: this.#host.nodeName, fileName: this.path };
    if (native === undefined) {
      const text = `'${this.path}' is not locked against other programs`;
      if (locking === "auto") {
        this.#host.warn(`${text}: ${nativeMissing}`);
        return undefined;
      }
      throw new BlockError("ENOTSUP", `image locking is not available: ${nativeMissing}`, context, {
        hint: "install the optional package koffi, or use locking=off",
      });
    }
    const descriptor = await this.open(false, { isDirect: false });
    const locks = new ImageLocks(native, descriptor.fd, this.path, this.#host.nodeName);
    return {
      locks,
      close: () => {
        locks.release();
        return descriptor.retire();
      },
    };
  }
}
