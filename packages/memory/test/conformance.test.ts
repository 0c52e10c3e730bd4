import { patternBytes, ReferenceDisk, TestHost, testDriver } from "@blocklayer/driver-tests";
import { memory } from "@blocklayer/memory";
import { describe, it } from "vitest";

const SIZE = 64 * 1024;
const capabilities = { makeEmpty: true } as const;

testDriver({
  name: "memory",
  describe,
  it,
  open: () => TestHost.open(memory, { options: { size: SIZE, "cluster-size": 4096 } }),
  capabilities: { ...capabilities, discardReads: "zeroes" },
});

testDriver({
  name: "memory that ends within a cluster",
  describe,
  it,
  open: () => TestHost.open(memory, { options: { size: SIZE - 1000, "cluster-size": 16384 } }),
  capabilities: { ...capabilities, discardReads: "zeroes" },
});

testDriver({
  name: "memory over a backing disk",
  describe,
  it,
  open: () =>
    TestHost.open(memory, {
      options: { "cluster-size": 4096 },
      children: { backing: backingDisk(SIZE) },
    }),
  capabilities: { ...capabilities, discardReads: "zeroes" },
});

testDriver({
  name: "memory over a shorter backing disk",
  describe,
  it,
  open: () =>
    TestHost.open(memory, {
      options: { size: SIZE, "cluster-size": 8192 },
      children: { backing: backingDisk(SIZE / 2 + 700) },
    }),
  capabilities: { ...capabilities, discardReads: "zeroes" },
});

function backingDisk(size: number): ReferenceDisk {
  const disk = new ReferenceDisk({ size });
  disk.bytes.set(patternBytes(size, 3));
  return disk;
}
