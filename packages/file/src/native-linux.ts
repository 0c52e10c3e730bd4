import { CallQueue } from "./call-queue.ts";
import { Errno, type NativeCalls } from "./native-calls.ts";

type Koffi = typeof import("koffi")["default"];
type Library = ReturnType<Koffi["load"]>;
type Call = ReturnType<Library["func"]>;

const RWF_NOWAIT = 8;
const SEEK = { data: 3, hole: 4 } as const;
const F_OFD_GETLK = 36;
const F_OFD_SETLK = 37;
const LOCK_TYPE = { shared: 0, exclusive: 1, none: 2 } as const;
const BLKGETSIZE64 = 0x80081272;
const FS_IOC_GETFLAGS = 0x80086601;
const FS_IOC_SETFLAGS = 0x40086602;
const FS_NOCOW_FL = 0x00800000;
const FS_IOC_FSGETXATTR = 0x801c581f;
const FS_IOC_FSSETXATTR = 0x401c5820;
const FS_XFLAG_EXTSIZE = 0x800;

/** Calls that the interface is given at once; it refuses more than 256. */
const LATER_MAX = 64;

/** Architectures whose request numbers and structures are those written above. */
const ARCHITECTURES: readonly string[] = ["x64", "arm64", "riscv64", "loong64"];

/**
 * Loads the calls.
 *
 * @returns the calls, or why they cannot be had: a clause for messages
 */
export async function loadNativeCalls(): Promise<NativeCalls | string> {
  if (process.platform !== "linux" || !ARCHITECTURES.includes(process.arch)) {
    return `native calls are for 64-bit Linux, this is ${process.platform} on ${process.arch}`;
  }
  try {
    const { default: koffi } = await import("koffi");
    return new LinuxCalls(koffi, koffi.load(null));
  } catch (error) {
    return `the package koffi cannot be loaded (${error instanceof Error ? error.message : String(error)})`;
  }
}

class LinuxCalls implements NativeCalls {
  readonly #koffi: Koffi;
  readonly #preadv2: Call | undefined;
  readonly #lseek: Call;
  readonly #fallocate: Call;
  readonly #copyFileRange: Call | undefined;
  readonly #fcntl: Call;
  readonly #ioctl: Call;
  readonly #queue = new CallQueue({ now: () => 0, sleep: () => Promise.resolve() }, LATER_MAX);
  // One vector and one lock structure for all calls: they are used within a call and never across two.
  readonly #vector = new BigUint64Array(2);
  readonly #lock = new DataView(new ArrayBuffer(32));
  readonly #lockBytes = new Uint8Array(this.#lock.buffer);

  constructor(koffi: Koffi, library: Library) {
    this.#koffi = koffi;
    // Older C libraries lack these two; everything else has always been there.
    this.#preadv2 = optional(library, "preadv2", "int64_t", [
      "int",
      "void *",
      "int",
      "int64_t",
      "int",
    ]);
    this.#copyFileRange = optional(library, "copy_file_range", "int64_t", [
      "int",
      "void *",
      "int",
      "void *",
      "size_t",
      "uint32_t",
    ]);
    this.#lseek = library.func("lseek", "int64_t", ["int", "int64_t", "int"]);
    this.#fallocate = library.func("fallocate", "int", ["int", "int", "int64_t", "int64_t"]);
    // Both are variadic in C; on the architectures above a pointer is passed the same way.
    this.#fcntl = library.func("fcntl", "int", ["int", "int", "void *"]);
    this.#ioctl = library.func("ioctl", "int", ["int", "uint64_t", "void *"]);
  }

  readNoWait(fd: number, buffer: Uint8Array, offset: number): number {
    if (this.#preadv2 === undefined) return -Errno.ENOSYS;
    this.#vector[0] = this.#koffi.address(buffer);
    this.#vector[1] = BigInt(buffer.length);
    const count: number = this.#preadv2(fd, this.#vector, 1, offset, RWF_NOWAIT);
    return count < 0 ? -this.#koffi.errno() : count;
  }

  seekNow(fd: number, offset: number, target: "data" | "hole"): number {
    const position: number = this.#lseek(fd, offset, SEEK[target]);
    return position < 0 ? -this.#koffi.errno() : position;
  }

  seek(fd: number, offset: number, target: "data" | "hole"): Promise<number> {
    return this.#later(this.#lseek, [fd, offset, SEEK[target]]);
  }

  fallocate(fd: number, mode: number, offset: number, length: number): Promise<number> {
    return this.#later(this.#fallocate, [fd, mode, offset, length]);
  }

  copyRange(
    sourceFd: number,
    sourceOffset: number,
    fd: number,
    offset: number,
    length: number,
  ): Promise<number> {
    if (this.#copyFileRange === undefined) return Promise.resolve(-Errno.ENOSYS);
    const from = new BigInt64Array([BigInt(sourceOffset)]);
    const to = new BigInt64Array([BigInt(offset)]);
    return this.#later(this.#copyFileRange, [sourceFd, from, fd, to, length, 0]);
  }

  setLock(
    fd: number,
    kind: "shared" | "exclusive" | "none",
    start: number,
    length: number,
  ): number {
    this.#fillLock(LOCK_TYPE[kind], start, length);
    return this.#fcntl(fd, F_OFD_SETLK, this.#lockBytes) < 0 ? -this.#koffi.errno() : 0;
  }

  testLock(fd: number, start: number, length: number): number {
    this.#fillLock(LOCK_TYPE.exclusive, start, length);
    if (this.#fcntl(fd, F_OFD_GETLK, this.#lockBytes) < 0) return -this.#koffi.errno();
    return this.#lock.getInt16(0, true) === LOCK_TYPE.none ? 0 : 1;
  }

  /** `struct flock`: type, whence (0: from the start), start, length, process (0 for these locks). */
  #fillLock(type: number, start: number, length: number): void {
    this.#lockBytes.fill(0);
    this.#lock.setInt16(0, type, true);
    this.#lock.setBigInt64(8, BigInt(start), true);
    this.#lock.setBigInt64(16, BigInt(length), true);
  }

  deviceSize(fd: number): number {
    const size = new BigUint64Array(1);
    if (this.#ioctl(fd, BLKGETSIZE64, size) < 0) return -this.#koffi.errno();
    return Number(size[0]);
  }

  setNoCopyOnWrite(fd: number): number {
    // The kernel reads and writes 32 bits whatever the request number says.
    const flags = new Uint32Array(2);
    if (this.#ioctl(fd, FS_IOC_GETFLAGS, flags) < 0) return -this.#koffi.errno();
    flags[0] = (flags[0] ?? 0) | FS_NOCOW_FL;
    return this.#ioctl(fd, FS_IOC_SETFLAGS, flags) < 0 ? -this.#koffi.errno() : 0;
  }

  setExtentSizeHint(fd: number, size: number): number {
    // struct fsxattr: flags, extent size, and five words that stay as they are.
    const attributes = new Uint32Array(7);
    if (this.#ioctl(fd, FS_IOC_FSGETXATTR, attributes) < 0) return -this.#koffi.errno();
    const flags = attributes[0] ?? 0;
    attributes[0] = size === 0 ? flags & ~FS_XFLAG_EXTSIZE : flags | FS_XFLAG_EXTSIZE;
    attributes[1] = size;
    return this.#ioctl(fd, FS_IOC_FSSETXATTR, attributes) < 0 ? -this.#koffi.errno() : 0;
  }

  /** The arguments stay referenced until the call is done, so that their memory stays where it is. */
  #later(call: Call, values: readonly unknown[]): Promise<number> {
    return this.#queue.run(
      () =>
        new Promise<number>((resolve, reject) => {
          call.async(...values, (error: unknown, result: number) => {
            if (error !== null && error !== undefined) reject(error);
            else resolve(result < 0 ? -this.#koffi.errno() : result);
          });
        }),
    );
  }
}

function optional(
  library: Library,
  name: string,
  result: string,
  parameters: string[],
): Call | undefined {
  try {
    return library.func(name, result, parameters);
  } catch {
    return undefined;
  }
}
