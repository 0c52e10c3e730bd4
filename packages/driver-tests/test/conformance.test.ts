import type { BlockDriver } from "@blocklayer/driver";
import {
  PassThroughFilter,
  passThrough,
  ReferenceDisk,
  reference,
  ScriptedDriver,
  scriptedDefinition,
  TestHost,
  testDriver,
} from "@blocklayer/driver-tests";
import { object } from "@blocklayer/schema";
import { describe, expect, it } from "vitest";

const SIZE = 64 * 1024;

testDriver({
  name: "the reference disk",
  describe,
  it,
  open: () => TestHost.open(reference, { options: { size: SIZE } }),
  capabilities: { writeVector: false, discardReads: "zeroes" },
});

testDriver({
  name: "the reference disk with alignment and limits",
  describe,
  it,
  open: () =>
    TestHost.open(reference, {
      options: { size: SIZE, "request-alignment": 4096, "max-transfer": 16384 },
    }),
  capabilities: { writeVector: false, discardReads: "zeroes" },
});

testDriver({
  name: "the scripted disk, in later turns",
  describe,
  it,
  open: () =>
    TestHost.open(scriptedDefinition({ completion: "later-turn" }), { options: { size: SIZE } }),
  capabilities: { writeVector: false },
});

testDriver({
  name: "a disk that only reads",
  describe,
  it,
  open: () =>
    TestHost.open({
      ...reference,
      schema: object({}),
      open: () =>
        Promise.resolve(
          Object.assign(new ReferenceDisk({ size: SIZE }), {
            zeroes: "none" as const,
            pwrite: undefined,
            pwriteZeroes: undefined,
            pdiscard: undefined,
            truncate: undefined,
          }) as unknown as BlockDriver,
        ),
    }),
  capabilities: { write: false },
});

testDriver({
  name: "the pass-through filter over the reference disk",
  describe,
  it,
  open: () => TestHost.open(passThrough, { children: { file: new ReferenceDisk({ size: SIZE }) } }),
});

testDriver({
  name: "the pass-through filter over itself over a scripted disk",
  describe,
  it,
  open: () =>
    TestHost.open(passThrough, {
      children: {
        file: {
          definition: passThrough,
          children: { file: new ScriptedDriver({ size: SIZE }) },
        },
      },
    }),
  reopen: reopenDisk,
});

/** The same disk object again: what it holds outlives the filter, as long as nobody closes it. */
async function reopenDisk(earlier: TestHost): Promise<TestHost> {
  const filter = earlier.childDriver("file");
  expect(filter).toBeInstanceOf(PassThroughFilter);
  const inner = (filter as PassThroughFilter).child as unknown as { driver: ScriptedDriver };
  const disk = new ScriptedDriver({ size: SIZE });
  disk.bytes.set(inner.driver.bytes);
  return TestHost.open(passThrough, { children: { file: disk } });
}
