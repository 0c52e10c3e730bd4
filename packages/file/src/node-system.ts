import * as fs from "node:fs";
import * as fsp from "node:fs/promises";
import type { NativeCalls } from "./native-calls.ts";
import { loadNativeCalls } from "./native-linux.ts";
import type { FileStat, FileSystemStat, OperatingSystem } from "./operating-system.ts";

export interface OperatingSystemOptions {
  /**
   * Whether to use native calls where they can be had. Default: `true`, unless the environment variable
   * `BLOCKLAYER_FFI` is `off`.
   */
  readonly ffi?: boolean;
}

const systems = new Map<boolean, Promise<OperatingSystem>>();

/**
 * Returns the real operating system: `node:fs`, and native calls where they can be had. The same object for
 * everybody who asks for the same, since what may be done in a turn is bounded for all files together.
 */
export function operatingSystem(options: OperatingSystemOptions = {}): Promise<OperatingSystem> {
  const { BLOCKLAYER_FFI } = process.env;
  const isWanted = options.ffi ?? BLOCKLAYER_FFI !== "off";
  let system = systems.get(isWanted);
  if (system === undefined) {
    system = makeSystem(isWanted);
    systems.set(isWanted, system);
  }
  return system;
}

async function makeSystem(isNativeWanted: boolean): Promise<OperatingSystem> {
  return new NodeSystem(isNativeWanted ? await loadNativeCalls() : "native calls are switched off");
}

class NodeSystem implements OperatingSystem {
  readonly native: NativeCalls | undefined;
  readonly nativeMissing: string;
  readonly poolSize: number;
  readonly processId: number = process.pid;

  constructor(calls: NativeCalls | string) {
    const { UV_THREADPOOL_SIZE } = process.env;
    this.poolSize = Number(UV_THREADPOOL_SIZE) || 4;
    this.native = typeof calls === "string" ? undefined : calls;
    this.nativeMissing = typeof calls === "string" ? calls : "";
  }

  open(path: string, flags: number, mode = 0o644): Promise<number> {
    return new Promise((resolve, reject) => {
      fs.open(path, flags, mode, (error, fd) => (error === null ? resolve(fd) : reject(error)));
    });
  }

  close(fd: number): Promise<void> {
    return new Promise((resolve, reject) => fs.close(fd, settle(resolve, reject)));
  }

  async stat(path: string): Promise<FileStat> {
    return describe(await fsp.stat(path, { bigint: true }));
  }

  fstat(fd: number): Promise<FileStat> {
    return new Promise((resolve, reject) => {
      fs.fstat(fd, { bigint: true }, (error, stat) =>
        error === null ? resolve(describe(stat)) : reject(error),
      );
    });
  }

  async statfs(path: string): Promise<FileSystemStat> {
    const { type, bavail, bsize } = await fsp.statfs(path);
    return { type: process.platform === "linux" ? type >>> 0 : 0, available: bavail * bsize };
  }

  mayWrite(path: string): Promise<void> {
    return fsp.access(path, fs.constants.W_OK);
  }

  read(fd: number, buffer: Uint8Array, offset: number): Promise<number> {
    return new Promise((resolve, reject) => {
      fs.read(fd, buffer, 0, buffer.length, offset, (error, count) =>
        error === null ? resolve(count) : reject(error),
      );
    });
  }

  write(fd: number, buffers: readonly Uint8Array[], offset: number): Promise<number> {
    return new Promise((resolve, reject) => {
      const done = (error: NodeJS.ErrnoException | null, count: number): void =>
        error === null ? resolve(count) : reject(error);
      const [first] = buffers;
      if (first !== undefined && buffers.length === 1) {
        fs.write(fd, first, 0, first.length, offset, done);
      } else fs.writev(fd, buffers, offset, done);
    });
  }

  readNow(fd: number, buffer: Uint8Array, offset: number): number {
    return fs.readSync(fd, buffer, 0, buffer.length, offset);
  }

  writeNow(fd: number, buffer: Uint8Array, offset: number): number {
    return fs.writeSync(fd, buffer, 0, buffer.length, offset);
  }

  writevNow(fd: number, buffers: readonly Uint8Array[], offset: number): number {
    return fs.writevSync(fd, buffers, offset);
  }

  ftruncate(fd: number, size: number): Promise<void> {
    return new Promise((resolve, reject) => fs.ftruncate(fd, size, settle(resolve, reject)));
  }

  fdatasync(fd: number): Promise<void> {
    return new Promise((resolve, reject) => fs.fdatasync(fd, settle(resolve, reject)));
  }

  fsync(fd: number): Promise<void> {
    return new Promise((resolve, reject) => fs.fsync(fd, settle(resolve, reject)));
  }

  readText(path: string): Promise<string> {
    return fsp.readFile(path, "utf8");
  }

  rename(path: string, newPath: string): Promise<void> {
    return fsp.rename(path, newPath);
  }

  unlink(path: string): Promise<void> {
    return fsp.unlink(path);
  }

  list(path: string): Promise<readonly string[]> {
    return fsp.readdir(path);
  }

  async syncDirectory(path: string): Promise<void> {
    // Windows opens no directories; its file systems write names in order.
    if (process.platform === "win32") return;
    const fd = await this.open(path, fs.constants.O_RDONLY);
    try {
      await this.fsync(fd);
    } finally {
      await this.close(fd);
    }
  }

  isProcessAlive(processId: number): boolean {
    try {
      process.kill(processId, 0);
      return true;
    } catch (error) {
      // Somebody else's process lives too; only "no such process" is an answer.
      return !(error instanceof Error && "code" in error && error.code === "ESRCH");
    }
  }

  onNextTurn(callback: () => void): void {
    setImmediate(callback);
  }
}

function settle(
  resolve: () => void,
  reject: (error: Error) => void,
): (error: Error | null | undefined) => void {
  return (error) => (error === null || error === undefined ? resolve() : reject(error));
}

function describe(stat: fs.BigIntStats): FileStat {
  // Platforms without the field answer `undefined`, whatever its type says.
  const blocks: bigint | undefined = stat.blocks;
  return {
    kind: kindOf(stat),
    size: Number(stat.size),
    allocated: blocks === undefined ? undefined : Number(blocks) * 512,
    device: Number(stat.rdev),
    inode: `${stat.dev}:${stat.ino}`,
    modified: String(stat.mtimeNs),
  };
}

function kindOf(stat: fs.BigIntStats): FileStat["kind"] {
  if (stat.isFile()) return "file";
  if (stat.isBlockDevice()) return "block";
  return stat.isDirectory() ? "directory" : "other";
}
