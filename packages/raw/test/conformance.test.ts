import {
  PassThroughFilter,
  ReferenceDisk,
  ScriptedDriver,
  TestHost,
  testChild,
  testDriver,
} from "@blocklayer/driver-tests";
import { raw, rawDefinition } from "@blocklayer/raw";
import { describe, it } from "vitest";

const SIZE = 64 * 1024;

function disk(size: number = SIZE): ReferenceDisk {
  return new ReferenceDisk({ size });
}

testDriver({
  name: "raw",
  describe,
  it,
  open: () => TestHost.open(raw, { children: { file: disk() } }),
  capabilities: { discardReads: "zeroes" },
});

testDriver({
  name: "raw from an offset",
  describe,
  it,
  open: () =>
    TestHost.open(raw, { options: { offset: 1000 }, children: { file: disk(SIZE + 1000) } }),
});

testDriver({
  name: "raw with a window of fixed size",
  describe,
  it,
  open: () =>
    TestHost.open(raw, {
      options: { offset: 512, size: SIZE },
      children: { file: disk(SIZE + 4096) },
    }),
  capabilities: { truncate: false },
});

testDriver({
  name: "raw that was probed",
  describe,
  it,
  open: () =>
    TestHost.open(rawDefinition({ otherFormats: [() => 0] }), {
      options: { "x-blocklayer-probed": true },
      children: { file: disk() },
    }),
});

testDriver({
  name: "raw over the pass-through filter",
  describe,
  it,
  open: () =>
    TestHost.open(raw, {
      children: {
        file: new PassThroughFilter(
          testChild(new ScriptedDriver({ size: SIZE, completion: "later-turn" })),
        ),
      },
    }),
});
