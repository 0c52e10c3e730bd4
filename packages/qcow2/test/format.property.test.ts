import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  type BitmapEntry,
  bitmapTableEntries,
  decodeBitmapDirectory,
  encodeBitmapDirectory,
} from "../src/format/bitmap-directory.ts";
import { Geometry } from "../src/format/geometry.ts";
import {
  compressedOffsetMax,
  decodeCompressed,
  encodeCompressed,
  entryOffset,
  highOf,
  lowOf,
} from "../src/format/l2-entry.ts";
import { refcountAccess } from "../src/format/refcount-block.ts";
import {
  decodeSnapshots,
  encodeSnapshots,
  type SnapshotRecord,
} from "../src/format/snapshot-table.ts";

const clusterBits = fc.integer({ min: 9, max: 21 });
const text = (min: number, max: number): fc.Arbitrary<string> =>
  fc.string({ minLength: min, maxLength: max, unit: "grapheme-ascii" });

describe("host offsets in entries", () => {
  it("come out as they went in, for every whole sector below 2^53", () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 2 ** 44 - 1 }), (sector) => {
        const offset = sector * 512;
        expect(entryOffset(highOf(offset), lowOf(offset))).toBe(offset);
      }),
    );
  });

  it("of compressed data come out with the sectors that they touch", () => {
    fc.assert(
      fc.property(clusterBits, fc.nat(), fc.nat(), (bits, place, size) => {
        const geometry = new Geometry({ clusterBits: bits, extendedL2: false, refcountOrder: 4 });
        const offset = 1 + (place % Math.min(2 ** 50, compressedOffsetMax(geometry) - 2 ** 22));
        const length = 1 + (size % (geometry.clusterSize - 1));
        const [high, low] = encodeCompressed({ offset, length }, geometry);
        expect(high >= 0x40000000 && high < 0x80000000).toBe(true);
        const range = decodeCompressed(high, low, geometry);
        expect(range.offset).toBe(offset);
        expect(range.offset + range.length).toBe(Math.ceil((offset + length) / 512) * 512);
      }),
    );
  });
});

describe.each([1, 2, 4, 8, 16, 32, 64])("counts of %i bits", (bits) => {
  it("are kept apart", () => {
    const access = refcountAccess(bits);
    const max = Math.min(2 ** bits - 1, Number.MAX_SAFE_INTEGER);
    const values = fc.array(
      fc.tuple(fc.nat({ max: 512 * (8 / bits) - 1 }), fc.integer({ min: 0, max })),
    );
    fc.assert(
      fc.property(values, (changes) => {
        const block = new Uint8Array(512);
        const model = new Map<number, number>();
        for (const [index, value] of changes) {
          access.set(block, index, value);
          model.set(index, value);
        }
        for (const [index, value] of model) expect(access.get(block, index)).toBe(value);
        const used = [...model.values()].filter((value) => value !== 0).length;
        let found = 0;
        for (let index = 0; index < 512 * (8 / bits); index += 1) {
          if (access.get(block, index) !== 0) found += 1;
        }
        expect(found).toBe(used);
      }),
      { numRuns: 50 },
    );
  });
});

it("narrow counts begin at the least significant bits", () => {
  const block = new Uint8Array(512);
  refcountAccess(4).set(block, 0, 0xa);
  refcountAccess(2).set(block, 3, 0b11);
  refcountAccess(1).set(block, 15, 1);
  expect([...block.subarray(0, 2)]).toEqual([0b1100_1010, 0x80]);
});

const geometry = new Geometry({ clusterBits: 16, extendedL2: false, refcountOrder: 4 });

describe("a table of snapshots", () => {
  const record: fc.Arbitrary<SnapshotRecord> = fc.record({
    id: text(1, 8),
    name: text(0, 20),
    l1Offset: fc.nat({ max: 2 ** 30 }).map((cluster) => cluster * 65536),
    l1Size: fc.nat({ max: 2 ** 22 }),
    diskSize: fc.nat({ max: 2 ** 52 }),
    dateSeconds: fc.nat({ max: 2 ** 32 - 1 }),
    dateNanoseconds: fc.nat({ max: 999_999_999 }),
    vmClockNs: fc.nat({ max: 2 ** 52 }),
    vmStateSize: fc.nat({ max: 2 ** 40 }),
    icount: fc.option(fc.bigInt({ min: 0n, max: 2n ** 64n - 2n }), { nil: undefined }),
    unknownExtra: fc.uint8Array({ maxLength: 40 }),
  });

  it("comes out as it went in", () => {
    fc.assert(
      fc.property(fc.array(record, { maxLength: 5 }), (snapshots) => {
        const bytes = encodeSnapshots(snapshots);
        const context = { geometry, version: 3, diskSize: 1024 } as const;
        const decoded = decodeSnapshots(bytes, snapshots.length, context);
        expect(decoded.snapshots).toEqual(snapshots);
        expect(decoded.length).toBe(bytes.length);
      }),
    );
  });

  it.each([
    {
      what: "ends too early",
      change: (bytes: Uint8Array) => bytes.subarray(0, 60),
      version: 3,
      code: "EINVAL",
    },
    {
      what: "has too much extra data",
      change: (bytes: Uint8Array) => set(bytes, 38, 4, 1),
      version: 3,
      code: "EINVAL",
    },
    {
      what: "lacks extra data of version 3",
      change: (bytes: Uint8Array) => set(bytes, 39, 8),
      version: 3,
      code: "EINVAL",
    },
    {
      what: "has an L1 table between clusters",
      change: (bytes: Uint8Array) => set(bytes, 6, 1),
      version: 3,
      code: "EINVAL",
    },
    {
      what: "has an L1 table of more than 32 MiB",
      change: (bytes: Uint8Array) => set(bytes, 8, 0x10),
      version: 3,
      code: "EFBIG",
    },
  ] as const)("that $what is refused", ({ change, version, code }) => {
    const bytes = change(encodeSnapshots([{ ...one, unknownExtra: new Uint8Array(0) }]));
    const context = { geometry, version, diskSize: 1024 };
    expect(() => decodeSnapshots(bytes, 1, context)).toThrow(expect.objectContaining({ code }));
  });

  it("of version 2 may lack extra data: the disk has its present size then", () => {
    const bytes = set(encodeSnapshots([{ ...one, vmStateSize: 77 }]), 39, 0);
    const context = { geometry, version: 2, diskSize: 4096 } as const;
    const [snapshot] = decodeSnapshots(bytes.subarray(0, 64), 1, context).snapshots;
    expect([snapshot?.diskSize, snapshot?.vmStateSize, snapshot?.icount]).toEqual([
      4096,
      77,
      undefined,
    ]);
  });
});

const one: SnapshotRecord = {
  id: "1",
  name: "s",
  l1Offset: 0x50000,
  l1Size: 1,
  diskSize: 2 ** 20,
  dateSeconds: 1,
  dateNanoseconds: 2,
  vmClockNs: 3,
  vmStateSize: 0,
  icount: undefined,
  unknownExtra: new Uint8Array(0),
};

function set(bytes: Uint8Array, at: number, ...values: readonly number[]): Uint8Array {
  bytes.set(values, at);
  return bytes;
}

describe("a directory of bitmaps", () => {
  const diskSize = 2 ** 30;
  const entry: fc.Arbitrary<BitmapEntry> = fc
    .record({
      name: text(1, 30),
      tableOffset: fc.integer({ min: 1, max: 2 ** 30 }).map((cluster) => cluster * 65536),
      granularityBits: fc.integer({ min: 9, max: 31 }),
      inUse: fc.boolean(),
      auto: fc.boolean(),
    })
    .map((rest) => ({
      ...rest,
      tableSize: bitmapTableEntries(diskSize, rest.granularityBits, geometry),
    }));

  it("comes out as it went in", () => {
    fc.assert(
      fc.property(fc.array(entry, { maxLength: 6 }), (entries) => {
        const bytes = encodeBitmapDirectory(entries);
        const context = { geometry, diskSize };
        expect(decodeBitmapDirectory(bytes, entries.length, context)).toEqual(entries);
      }),
    );
  });

  const good: BitmapEntry = {
    name: "bm",
    tableOffset: 65536,
    tableSize: bitmapTableEntries(diskSize, 16, geometry),
    granularityBits: 16,
    inUse: false,
    auto: true,
  };

  it.each([
    {
      what: "has more entries than it should",
      count: 0,
      change: [],
      message: "More bitmaps found than specified in header extension",
    },
    {
      what: "has fewer entries than it should",
      count: 2,
      change: [],
      message: "Less bitmaps found than specified in header extension",
    },
    {
      what: "has a name over its end",
      count: 1,
      change: [[19, 9]],
      message: "Broken bitmap directory",
    },
    {
      what: "has extra data",
      count: 1,
      change: [
        [19, 0],
        [23, 2],
      ],
      message: "bitmap extra data is not supported: bitmap ''",
    },
    { what: "has no name", count: 1, change: [[19, 0]], message: "bitmap name has a wrong length" },
    {
      what: "has flags of others",
      count: 1,
      change: [[15, 8]],
      message: "bitmap 'bm' has a type or flags that are not known",
    },
    {
      what: "has another type",
      count: 1,
      change: [[16, 2]],
      message: "bitmap 'bm' has a type or flags that are not known",
    },
    {
      what: "has a granularity of 256",
      count: 1,
      change: [[17, 8]],
      message: "bitmap 'bm' has a granularity of 2^8 bytes",
    },
    {
      what: "has a granularity of 4 GiB",
      count: 1,
      change: [[17, 32]],
      message: "bitmap 'bm' has a granularity of 2^32 bytes",
    },
    {
      what: "has its table between clusters",
      count: 1,
      change: [[6, 1]],
      message: "the table of bitmap 'bm' is not at a cluster",
    },
    {
      what: "has a table without entries",
      count: 1,
      change: [[11, 0]],
      message: "the table of bitmap 'bm' has 0 entries",
    },
    {
      what: "does not cover the disk",
      count: 1,
      change: [[11, 2]],
      message: "bitmap 'bm' does not cover the disk",
    },
  ] as const)("that $what is refused", ({ count, change, message }) => {
    const bytes = encodeBitmapDirectory([good]);
    for (const [at, value] of change) bytes[at] = value;
    expect(() => decodeBitmapDirectory(bytes, count, { geometry, diskSize })).toThrow(
      expect.objectContaining({ code: "EINVAL", message }),
    );
  });

  it("may be too short for the disk while it is in use", () => {
    const bytes = encodeBitmapDirectory([{ ...good, tableSize: 5, inUse: true }]);
    expect(decodeBitmapDirectory(bytes, 1, { geometry, diskSize })).toHaveLength(1);
  });
});
