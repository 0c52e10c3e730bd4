import { testDriver } from "@blocklayer/driver-tests";
import { describe, it } from "vitest";
import { openFile, temporaryFile } from "./harness.ts";

const SIZE = 2 ** 18;

testDriver({
  name: "file with plain Node",
  open: () => openFile(temporaryFile(SIZE), { ffi: false }),
  reopen: (earlier) => openFile(pathOf(earlier.driverOptions), { ffi: false }),
  capabilities: { writeZeroes: false, discard: false },
  describe,
  it,
});

testDriver({
  name: "file on a file system in memory",
  open: () => openFile(temporaryFile(SIZE, "/dev/shm")),
  reopen: (earlier) => openFile(pathOf(earlier.driverOptions)),
  capabilities: { discardReads: "zeroes" },
  describe: process.platform === "linux" ? describe : describe.skip,
  it,
});

testDriver({
  name: "file that bypasses the page cache",
  open: () => openFile(temporaryFile(SIZE), { generic: { cacheDirect: true } }),
  capabilities: { discardReads: "zeroes" },
  describe: process.platform === "linux" ? describe : describe.skip,
  it,
});

function pathOf(options: unknown): string {
  return (options as { readonly filename: string }).filename;
}
