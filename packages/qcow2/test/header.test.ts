import { BlockError } from "@blocklayer/errors";
import { writeU32, writeU64 } from "@blocklayer/offsets";
import { describe, expect, it } from "vitest";
import { checkIncompatible } from "../src/format/feature-names.ts";
import { checkHeader, decodeHeader, encodeHeader } from "../src/format/header.ts";
import { decodeExtensions } from "../src/format/header-extensions.ts";
import { encodeCluster0 } from "../src/image/header-store.ts";
import { cluster0, headerOf } from "./header-fixture.ts";

type Patch = readonly [offset: number, ...bytes: number[]];

const u32 = (value: number): number[] => {
  const bytes = new Uint8Array(4);
  writeU32(bytes, 0, value);
  return [...bytes];
};
const u64 = (high: number, low: number): number[] => [...u32(high), ...u32(low)];

/** Goes through everything that opening looks at in cluster 0. */
function read(bytes: Uint8Array): void {
  const header = decodeHeader(bytes);
  const extensions = decodeExtensions(bytes, header, 2 ** header.clusterBits);
  checkIncompatible(header.incompatible, extensions.featureNames);
  checkHeader(header);
}

function patched(patches: readonly Patch[]): Uint8Array {
  const bytes = cluster0();
  for (const [offset, ...values] of patches) bytes.set(values, offset);
  return bytes;
}

function errorOf(work: () => void): BlockError {
  try {
    work();
  } catch (error) {
    expect(error).toBeInstanceOf(BlockError);
    return error as BlockError;
  }
  throw new Error("it was taken");
}

describe("a header that is refused", () => {
  it.each<{ what: string; patches: Patch[]; code: string; message: string }>([
    {
      what: "another magic",
      patches: [[3, 0xfa]],
      code: "EINVAL",
      message: "Image is not in qcow2 format",
    },
    {
      what: "version 1",
      patches: [[4, ...u32(1)]],
      code: "ENOTSUP",
      message: "Unsupported qcow2 version 1",
    },
    {
      what: "version 4",
      patches: [[4, ...u32(4)]],
      code: "ENOTSUP",
      message: "Unsupported qcow2 version 4",
    },
    {
      what: "clusters of 256 bytes",
      patches: [[20, ...u32(8)]],
      code: "EINVAL",
      message: "Unsupported cluster size: 2^8",
    },
    {
      what: "clusters of 4 MiB",
      patches: [[20, ...u32(22)]],
      code: "EINVAL",
      message: "Unsupported cluster size: 2^22",
    },
    {
      what: "a header of 100 bytes",
      patches: [[100, ...u32(100)]],
      code: "EINVAL",
      message: "qcow2 header too short",
    },
    {
      what: "a header longer than a cluster",
      patches: [[100, ...u32(65537)]],
      code: "EINVAL",
      message: "qcow2 header exceeds cluster size",
    },
    {
      what: "a backing name behind the cluster",
      patches: [
        [8, ...u64(0, 65537)],
        [16, ...u32(10)],
      ],
      code: "EINVAL",
      message: "Invalid backing file offset",
    },
    {
      what: "a backing name of 1024 bytes",
      patches: [
        [8, ...u64(0, 1000)],
        [16, ...u32(1024)],
      ],
      code: "EINVAL",
      message: "Backing file name too long",
    },
    {
      what: "a backing name over the end",
      patches: [
        [8, ...u64(0, 65530)],
        [16, ...u32(10)],
      ],
      code: "EINVAL",
      message: "Backing file name too long",
    },
    {
      what: "an unknown feature",
      patches: [[72, ...u64(0x80000000, 0)]],
      code: "ENOTSUP",
      message: "Unsupported qcow2 feature(s): Unknown incompatible feature: 8000000000000000",
    },
    {
      what: "feature 5",
      patches: [[72, ...u64(0, 32)]],
      code: "ENOTSUP",
      message: "Unsupported qcow2 feature(s): Unknown incompatible feature: 20",
    },
    {
      what: "counts of 128 bits",
      patches: [[96, ...u32(7)]],
      code: "EINVAL",
      message: "Reference count entry width too large; may not exceed 64 bits",
    },
    {
      what: "zstd without its feature",
      patches: [[104, 1]],
      code: "EINVAL",
      message: "qcow2: Compression type incompatible feature bit must be set",
    },
    {
      what: "compression type 2",
      patches: [
        [72, ...u64(0, 8)],
        [104, 2],
      ],
      code: "EINVAL",
      message: "qcow2: unknown compression type: 2",
    },
    {
      what: "the feature without zstd",
      patches: [[72, ...u64(0, 8)]],
      code: "EINVAL",
      message: "qcow2: Compression type incompatible feature bit must not be set",
    },
    {
      what: "encryption 3",
      patches: [[32, ...u32(3)]],
      code: "EINVAL",
      message: "Unsupported encryption method 3",
    },
    {
      what: "a refcount table between clusters",
      patches: [[48, ...u64(0, 66048)]],
      code: "EINVAL",
      message: "Reference count table offset invalid",
    },
    {
      what: "no refcount table",
      patches: [[56, ...u32(0)]],
      code: "EINVAL",
      message: "Image does not contain a reference count table",
    },
    {
      what: "a refcount table of more than 8 MiB",
      patches: [[56, ...u32(129)]],
      code: "EFBIG",
      message: "Reference count table too large",
    },
    {
      what: "a refcount table at 2^63",
      patches: [[48, ...u64(0x80000000, 0)]],
      code: "EINVAL",
      message: "Reference count table offset invalid",
    },
    {
      what: "65537 snapshots",
      patches: [
        [60, ...u32(65537)],
        [64, ...u64(0, 262144)],
      ],
      code: "EFBIG",
      message: "Snapshot table too large",
    },
    {
      what: "snapshots between clusters",
      patches: [
        [60, ...u32(1)],
        [64, ...u64(0, 100)],
      ],
      code: "EINVAL",
      message: "Snapshot table offset invalid",
    },
    {
      what: "no L1 table",
      patches: [[36, ...u32(0)]],
      code: "EINVAL",
      message: "L1 table is too small",
    },
    {
      what: "an L1 table for less",
      patches: [[24, ...u64(256, 0)]],
      code: "EINVAL",
      message: "L1 table is too small",
    },
    {
      what: "an L1 table of more than 32 MiB",
      patches: [[36, ...u32(0x7fffffff)]],
      code: "EFBIG",
      message: "Active L1 table too large",
    },
    {
      what: "an L1 table between clusters",
      patches: [[40, ...u64(0, 512)]],
      code: "EINVAL",
      message: "Active L1 table offset invalid",
    },
    {
      what: "a disk of 2^63 bytes",
      patches: [[24, ...u64(0x80000000, 0)]],
      code: "EFBIG",
      message: "Image is too big",
    },
    {
      what: "an extension over the end",
      patches: [[112, ...u32(0xe2792aca), ...u32(65536)]],
      code: "EINVAL",
      message: "Header extension too large",
    },
    {
      what: "a backing format of 100 bytes",
      patches: [[112, ...u32(0xe2792aca), ...u32(100)]],
      code: "EINVAL",
      message: "ERROR: ext_backing_format: len=100 too large (>=16)",
    },
    {
      what: "a bitmaps extension of 23 bytes",
      patches: [[112, ...u32(0x23852875), ...u32(23)]],
      code: "EINVAL",
      message: "bitmaps_ext: Invalid extension length",
    },
    {
      what: "no bitmaps",
      patches: [
        [88, ...u64(0, 1)],
        [112, ...u32(0x23852875), ...u32(24), ...u64(0, 0)],
      ],
      code: "EINVAL",
      message: "found bitmaps extension with zero bitmaps",
    },
    {
      what: "65536 bitmaps",
      patches: [
        [88, ...u64(0, 1)],
        [112, ...u32(0x23852875), ...u32(24), ...u32(65536), ...u32(0)],
      ],
      code: "EINVAL",
      message:
        "bitmaps_ext: Image has 65536 bitmaps, exceeding the QEMU supported maximum of 65535",
    },
    {
      what: "a reserved field",
      patches: [
        [88, ...u64(0, 1)],
        [112, ...u32(0x23852875), ...u32(24), ...u32(1), ...u32(1)],
      ],
      code: "EINVAL",
      message: "bitmaps_ext: Reserved field is not zero",
    },
    {
      what: "a directory between clusters",
      patches: [
        [88, ...u64(0, 1)],
        [112, ...u32(0x23852875), ...u32(24), ...u32(1), ...u32(0), ...u64(0, 32), ...u64(0, 100)],
      ],
      code: "EINVAL",
      message: "bitmaps_ext: invalid bitmap directory offset",
    },
    {
      what: "a directory of a TiB",
      patches: [
        [88, ...u64(0, 1)],
        [
          112,
          ...u32(0x23852875),
          ...u32(24),
          ...u32(1),
          ...u32(0),
          ...u64(256, 0),
          ...u64(0, 65536),
        ],
      ],
      code: "EINVAL",
      message:
        "bitmaps_ext: bitmap directory size (1099511627776) exceeds the maximum supported size (67107840)",
    },
    {
      what: "an encryption header without encryption",
      patches: [[112, ...u32(0x0537be77), ...u32(16)]],
      code: "EINVAL",
      message: "CRYPTO header extension only expected with LUKS encryption method",
    },
  ])("has $what", ({ patches, code, message }) => {
    const error = errorOf(() => read(patched(patches)));
    expect([error.code, error.message]).toEqual([code, message]);
  });

  it.each([0, 3, 50, 72, 103, 111])("ends after %i bytes", (length) => {
    const error = errorOf(() => read(cluster0().subarray(0, length)));
    expect(error.code).toBe("EINVAL");
    expect(error.message).toBe(
      length < 4 ? "Image is not in qcow2 format" : "qcow2 header too short",
    );
  });

  it("has small clusters with subclusters", () => {
    const bytes = encodeHeader(headerOf({ clusterBits: 12, incompatible: [16], l1Size: 32 }));
    const whole = new Uint8Array(4096);
    whole.set(bytes);
    expect(errorOf(() => read(whole)).message).toBe("Unsupported subcluster size: 128");
  });

  it("names the unknown features that the image names", () => {
    const bytes = cluster0({ featureNames: [{ kind: 0, bit: 5, name: "time travel" }] });
    bytes.set(u64(0, 32 + 64), 72);
    expect(errorOf(() => read(bytes)).message).toBe(
      "Unsupported qcow2 feature(s): time travel, Unknown incompatible feature: 40",
    );
  });
});

describe("a header that is taken", () => {
  it.each<{ what: string; patches: Patch[] }>([
    { what: "nothing special", patches: [] },
    { what: "unknown compatible features", patches: [[80, ...u64(0xffffffff, 0xfffffffe)]] },
    { what: "unknown autoclear features", patches: [[88, ...u64(0xffffffff, 0xfffffffc)]] },
    {
      what: "a bitmaps extension of zeroes that does not count",
      patches: [[112, ...u32(0x23852875), ...u32(24)]],
    },
    { what: "a size of no whole sectors", patches: [[24, ...u64(0, 67108964)]] },
    { what: "a header as long as a cluster", patches: [[100, ...u32(65536)]] },
  ])("has $what", ({ patches }) => {
    expect(() => read(patched(patches))).not.toThrow();
  });

  it("comes out as it went in, unknown fields included", () => {
    const bytes = encodeCluster0({
      header: headerOf({
        unknownFields: new Uint8Array([1, 2, 3, 4, 5, 6, 7, 8]),
        compatible: [1],
      }),
      extensions: {
        backingFormat: "raw",
        dataFile: "data",
        crypto: undefined,
        bitmaps: { count: 2, directoryOffset: 65536, directorySize: 80 },
        featureNames: [],
        unknown: [{ type: 0x12345678, data: new Uint8Array([9, 8, 7]) }],
      },
      backingName: "ünder.qcow2",
    }).bytes;
    const header = decodeHeader(bytes);
    const extensions = decodeExtensions(bytes, header, 65536);
    expect(header.unknownFields).toEqual(new Uint8Array([1, 2, 3, 4, 5, 6, 7, 8]));
    expect(header.headerLength).toBe(120);
    expect(extensions.featureNames).toHaveLength(8);
    expect(extensions.unknown).toEqual([{ type: 0x12345678, data: new Uint8Array([9, 8, 7]) }]);
    const again = encodeCluster0({ header, extensions, backingName: "ünder.qcow2" }).bytes;
    expect(again).toEqual(bytes);
  });

  it("of version 2 has 72 bytes, no features and no names", () => {
    const { bytes } = encodeCluster0({
      header: headerOf({ version: 2 }),
      extensions: {
        backingFormat: "qcow2",
        dataFile: undefined,
        crypto: undefined,
        bitmaps: undefined,
        featureNames: [],
        unknown: [],
      },
      backingName: "base",
    });
    const header = decodeHeader(bytes);
    expect([header.version, header.headerLength, header.refcountOrder]).toEqual([2, 72, 4]);
    expect(decodeExtensions(bytes, header, 65536)).toMatchObject({
      backingFormat: "qcow2",
      featureNames: [],
    });
    expect(header.backingNameOffset).toBe(72 + 16 + 8);
  });

  it("does not fit a cluster of 512 bytes with a long name", () => {
    const error = errorOf(() =>
      encodeCluster0({
        header: headerOf({ clusterBits: 9 }),
        extensions: {
          backingFormat: undefined,
          dataFile: undefined,
          crypto: undefined,
          bitmaps: undefined,
          featureNames: [],
          unknown: [],
        },
        backingName: "x".repeat(393),
      }),
    );
    expect(error).toMatchObject({ code: "ENOSPC", context: { bytes: 513, limit: 512 } });
  });
});

it("sizes of tables at their limits", () => {
  const bytes = cluster0();
  writeU32(bytes, 36, 2 ** 22);
  expect(() => read(bytes)).not.toThrow();
  writeU32(bytes, 36, 2 ** 22 + 1);
  expect(errorOf(() => read(bytes)).code).toBe("EFBIG");
  writeU64(bytes, 24, 2 ** 53 - 2 ** 30);
  expect(errorOf(() => read(bytes)).code).toBe("EFBIG");
});
