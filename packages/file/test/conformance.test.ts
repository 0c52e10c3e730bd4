import { testDriver } from "@blocklayer/driver-tests";
import { describe, it } from "vitest";
import { hasNative, openFile, temporaryFile } from "./harness.ts";

testDriver({
  name: "file",
  open: () => openFile(temporaryFile(2 ** 17)),
  reopen: ({ driverOptions }) =>
    openFile((driverOptions as { readonly filename: string }).filename),
  capabilities: { writeZeroes: hasNative, discard: hasNative, discardReads: "zeroes" },
  describe,
  it,
});
