import { copyBeforeWrite, snapshotAccess } from "@blocklayer/backup-top";
import {
  passThrough,
  patternBytes,
  ReferenceDisk,
  TestHost,
  testDriver,
} from "@blocklayer/driver-tests";
import { describe, it } from "vitest";

const SIZE = 256 * 1024;
const capabilities = { truncate: false } as const;

testDriver({
  name: "copy-before-write over reference disks",
  describe,
  it,
  capabilities,
  open: () =>
    TestHost.open(copyBeforeWrite(), {
      children: {
        file: new ReferenceDisk({ size: SIZE }),
        target: new ReferenceDisk({ size: SIZE }),
      },
    }),
});

testDriver({
  name: "copy-before-write that breaks the snapshot, over the pass-through filter",
  describe,
  it,
  capabilities,
  open: () =>
    TestHost.open(copyBeforeWrite(), {
      options: { "on-cbw-error": "break-snapshot" },
      children: {
        file: {
          definition: passThrough,
          children: { file: new ReferenceDisk({ size: SIZE }) },
        },
        target: new ReferenceDisk({ size: SIZE }),
      },
    }),
});

/** Without discards, after which a snapshot can by design not be read any more. */
const readable: typeof snapshotAccess = {
  ...snapshotAccess,
  open: async (host, options, env) =>
    Object.assign(await snapshotAccess.open(host, options, env), { pdiscard: undefined }),
};

testDriver({
  name: "snapshot-access, half of it saved",
  describe,
  it,
  capabilities: { write: false },
  open: async () => {
    const source = new ReferenceDisk({ size: SIZE });
    source.bytes.set(patternBytes(SIZE, 3));
    const host = await TestHost.open(readable, {
      children: {
        file: {
          definition: copyBeforeWrite(),
          children: { file: source, target: new ReferenceDisk({ size: SIZE }) },
        },
      },
    });
    const filter = host.childDriver("file");
    await filter.pwrite?.(65536, new Uint8Array(65536).fill(1));
    await filter.pwriteZeroes?.(3 * 65536, 65536);
    return host;
  },
});
