import type { BlockDriver, RequestOptions } from "@blocklayer/driver";
import { ReferenceDisk } from "@blocklayer/driver-tests";

/** A disk whose requests are written down, and any part of which a test replaces or takes away. */
export interface LoggedDisk {
  readonly driver: BlockDriver;
  readonly disk: ReferenceDisk;
  /** `"pwrite 512+1024"`, with ` flags=16` where there are flags. */
  readonly log: string[];
}

/** @param overrides - members of the driver; `undefined` takes one away */
export function loggedDisk(
  options: ConstructorParameters<typeof ReferenceDisk>[0],
  overrides: { readonly [Member in keyof BlockDriver]?: BlockDriver[Member] | undefined } = {},
): LoggedDisk {
  const disk = new ReferenceDisk(options);
  const log: string[] = [];
  const note = (operation: string, range: string, request?: RequestOptions): void => {
    const flags = request?.flags ?? 0;
    log.push(`${operation} ${range}${flags === 0 ? "" : ` flags=${flags}`}`);
  };
  const driver: BlockDriver = {
    driverName: "x-test-logged",
    get size() {
      return disk.size;
    },
    limits: disk.limits,
    flags: disk.flags,
    zeroes: "native",
    pread: (offset, buffer, request) => {
      note("pread", `${offset}+${buffer.length}`, request);
      return disk.pread(offset, buffer);
    },
    pwrite: (offset, buffer, request) => {
      note("pwrite", `${offset}+${buffer.length}`, request);
      return disk.pwrite(offset, buffer);
    },
    pwriteZeroes: (offset, length, request) => {
      note("pwriteZeroes", `${offset}+${length}`, request);
      return disk.pwriteZeroes(offset, length);
    },
    pdiscard: (offset, length, request) => {
      note("pdiscard", `${offset}+${length}`, request);
      return disk.pdiscard(offset, length);
    },
    flushToDisk: () => {
      log.push("flushToDisk");
      return disk.flushToDisk();
    },
    truncate: (size, request) => {
      log.push(`truncate ${size}${request?.zero === true ? " zero" : ""}`);
      return disk.truncate(size, request);
    },
    close: () => disk.close(),
    [Symbol.asyncDispose]: () => disk.close(),
  };
  // Not a spread: that would turn the getter of `size` into a number.
  Object.assign(driver, overrides);
  return { driver, disk, log };
}
