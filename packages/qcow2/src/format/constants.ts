/*
 * Numbers of the format and the limits within which an image is taken.
 *
 * See spec/qcow2.md sections 1, 2, 11, 16.
 */

/** First four bytes of an image: `QFI` and 0xfb. */
export const MAGIC = 0x514649fb;
export const CLUSTER_BITS_MIN = 9;
export const CLUSTER_BITS_MAX = 21;
/** Bytes of the header of a version 2 image. */
export const HEADER_LENGTH_V2 = 72;
/** Bytes that a version 3 header has at least. */
export const HEADER_LENGTH_V3_MIN = 104;
/** Bytes of the header as it is written, without fields of others. */
export const HEADER_LENGTH = 112;
/** Bytes of a backing file name. */
export const BACKING_NAME_MAX = 1023;
/** Bytes of the active L1 table. */
export const L1_BYTES_MAX: number = 32 * 2 ** 20;
/** Bytes of the refcount table. */
export const REFCOUNT_TABLE_BYTES_MAX: number = 8 * 2 ** 20;
export const REFCOUNT_ORDER_MAX = 6;
export const SNAPSHOTS_MAX = 65536;
/** Bytes of a snapshot's record without what follows it. */
export const SNAPSHOT_HEADER_BYTES = 40;
/** Bytes of the whole snapshot table. */
export const SNAPSHOT_TABLE_BYTES_MAX: number = 64 * 2 ** 20;
/** Bytes of extra data of a snapshot. */
export const SNAPSHOT_EXTRA_MAX = 1024;
export const BITMAPS_MAX = 65535;
/** Bytes of the bitmap directory. */
export const BITMAP_DIRECTORY_BYTES_MAX: number = BITMAPS_MAX * 1024;
/** Bytes of a bitmap's name. */
export const BITMAP_NAME_MAX = 1023;
/** Entries of a bitmap's table. */
export const BITMAP_TABLE_ENTRIES_MAX: number = 2 ** 27;
/** Bytes of a bitmap's data. */
export const BITMAP_DATA_BYTES_MAX: number = 2 ** 29;
/** Parts of a cluster of an image with extended L2 entries. */
export const SUBCLUSTERS = 32;
/** Bytes: a cluster with subclusters is at least that long. */
export const EXTENDED_CLUSTER_MIN: number = 16 * 1024;
/** Host offsets end here: entries have 56 bits, numbers 53. */
export const HOST_OFFSET_MAX: number = 2 ** 53 - 2 ** 30;
/** Bytes that compressed data is counted in. */
export const COMPRESSED_SECTOR = 512;

/** Bits of the word of incompatible features. */
export const Incompatible = {
  dirty: 0x1,
  corrupt: 0x2,
  dataFile: 0x4,
  compressionType: 0x8,
  extendedL2: 0x10,
} as const;

/** Bits of the word of compatible features. */
export const Compatible = { lazyRefcounts: 0x1 } as const;

/** Bits of the word of autoclear features. */
export const Autoclear = { bitmaps: 0x1, rawDataFile: 0x2 } as const;

/** How an image compresses, as the header numbers it. */
export const COMPRESSION_TYPES = ["zlib", "zstd"] as const;
export type CompressionType = (typeof COMPRESSION_TYPES)[number];

/** How an image is encrypted, as the header numbers it. */
export const CRYPT_METHODS = ["none", "aes", "luks"] as const;
export type CryptMethod = (typeof CRYPT_METHODS)[number];
