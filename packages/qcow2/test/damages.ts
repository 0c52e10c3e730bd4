import type { RepairMode } from "@blocklayer/driver";
import { COMPRESSED, COPIED, type ImageBytes } from "./image-bytes.ts";

/** How an image is made before it is damaged. */
export interface Recipe {
  readonly options: string;
  /** Commands of `qemu-io`. */
  readonly io: readonly string[];
  /** Further programs; `@` is the image. */
  readonly further?: readonly (readonly string[])[];
}

/** Corruptions and leaks that are left. */
export interface Found {
  readonly corruptions?: number;
  readonly leaks?: number;
}

const CLEAN: Found = {};

/** Something that can be wrong with an image. */
export interface Damage {
  readonly title: string;
  readonly recipe: RecipeName;
  readonly make: (image: ImageBytes) => void;
  /** What is found where that differs from qemu-img on purpose, by what is mended. Members that are left out are 0. */
  readonly differs?: Readonly<Record<RepairMode, Found | string>>;
}

const SNAPSHOT = ["qemu-img", "snapshot", "-c", "s1", "@"];
const DATA = ["write -P 1 0 4k", "write -P 2 64k 1k"];

export type RecipeName =
  | "small"
  | "plain"
  | "wide"
  | "narrow"
  | "version2"
  | "lazy"
  | "backed"
  | "zeroes"
  | "extended"
  | "compressed"
  | "snapshot"
  | "bitmap"
  | "blocks";

export const RECIPES: Readonly<Record<RecipeName, Recipe>> = {
  small: { options: "cluster_size=512", io: DATA },
  plain: { options: "cluster_size=4k", io: DATA },
  wide: { options: "cluster_size=4k,refcount_bits=64", io: DATA },
  narrow: { options: "cluster_size=4k,refcount_bits=1", io: DATA },
  version2: { options: "cluster_size=4k,compat=0.10", io: DATA },
  lazy: { options: "cluster_size=4k,lazy_refcounts=on", io: DATA },
  backed: { options: "cluster_size=64k", io: DATA },
  // Many refcount blocks: one counts 64 clusters.
  blocks: {
    options: "cluster_size=512,refcount_bits=64",
    io: ["write -P 1 0 100k", "write -P 2 300k 50k", "discard 20k 30k"],
    further: [
      ["qemu-img", "snapshot", "-c", "s1", "@"],
      ["qemu-io", "-f", "qcow2", "-c", "write -P 3 60k 80k", "@"],
    ],
  },
  zeroes: { options: "cluster_size=4k", io: ["write -P 1 0 8k", "write -z 4k 4k"] },
  extended: { options: "cluster_size=16k,extended_l2=on", io: ["write -P 1 0 40k"] },
  compressed: {
    options: "cluster_size=4k",
    io: ["write -P 3 0 8k", "write -c -P 4 16k 4k", "write -c -P 5 20k 4k", "write -P 6 32k 8k"],
  },
  snapshot: {
    options: "cluster_size=512",
    io: DATA,
    further: [SNAPSHOT, ["qemu-io", "-f", "qcow2", "-c", "write -P 7 0 512", "@"]],
  },
  bitmap: {
    options: "cluster_size=4k",
    io: DATA,
    further: [
      ["qemu-img", "bitmap", "--add", "-g", "512", "@", "b1"],
      ["qemu-io", "-f", "qcow2", "-c", "write -P 7 8k 512", "@"],
    ],
  },
};

const BITMAPS = 0x23852875;
const at = (offset: number): bigint => COPIED | BigInt(offset);
const FAR = 2 ** 40;

const data = (image: ImageBytes): number => image.clusterAt(image.entry(0));
const directory = (image: ImageBytes): number => Number(image.u64(image.extension(BITMAPS) + 16));
const snapshotL1 = (image: ImageBytes): number => Number(image.u64(image.snapshotTable));

export const DAMAGES: readonly Damage[] = [
  ...Object.keys(RECIPES).map((recipe) => ({
    title: `nothing (${recipe})`,
    recipe: recipe as RecipeName,
    make: (): void => undefined,
  })),
  // Counts.
  { title: "too high a count", recipe: "small", make: (i) => i.setCount(data(i), 5) },
  {
    title: "too high a count of data beyond the last",
    recipe: "plain",
    make: (i) => i.setCount(data(i) + 3, 2),
  },
  {
    title: "a cluster that nobody refers to",
    recipe: "small",
    make: (i) => i.set64(i.entry(2), 0n),
  },
  {
    title: "too low a count",
    recipe: "snapshot",
    make: (i) => i.setCount(i.clusterAt(i.entry(1)), 1),
  },
  { title: "a count of 0", recipe: "small", make: (i) => i.setCount(data(i), 0) },
  {
    title: "counts of 0, and a leak",
    recipe: "small",
    make: (i) => {
      i.setCount(data(i), 0);
      i.setCount(data(i) + 1, 0);
      i.setCount(data(i) + 2, 3);
    },
  },
  { title: "a count behind the end of the file", recipe: "small", make: (i) => i.setCount(100, 1) },
  {
    title: "too many references for the width of a count",
    recipe: "narrow",
    make: (i) => i.set64(i.entry(8), i.u64(i.entry(0))),
  },
  // The refcount table.
  {
    title: "a refcount table entry of 0",
    recipe: "small",
    make: (i) => i.set64(i.refcountTable, 0n),
  },
  {
    title: "a refcount block twice in the table",
    recipe: "small",
    make: (i) => i.set64(i.refcountTable + 8, i.u64(i.refcountTable)),
  },
  {
    title: "a refcount block that is data too",
    recipe: "small",
    make: (i) => i.set64(i.entry(0), COPIED | i.u64(i.refcountTable)),
  },
  {
    title: "a refcount block far behind the file",
    recipe: "small",
    make: (i) => i.set64(i.refcountTable + 8, 1n << 50n),
  },
  {
    title: "a refcount block behind every file",
    recipe: "small",
    make: (i) => i.set64(i.refcountTable + 8, 1n << 63n),
  },
  {
    title: "a refcount block just behind the file",
    recipe: "small",
    make: (i) => i.set64(i.refcountTable + 8, BigInt(i.end + 2048)),
  },
  {
    title: "a refcount block at no cluster",
    recipe: "plain",
    make: (i) => i.or64(i.refcountTable, 512n),
    differs: { none: { corruptions: 1 }, leaks: "EIO", all: CLEAN },
  },
  {
    title: "reserved bits of a refcount table entry",
    recipe: "small",
    make: (i) => i.or64(i.refcountTable, 1n),
    differs: { none: { corruptions: 1, leaks: 1 }, leaks: "EIO", all: CLEAN },
  },
  { title: "a refcount table of no clusters", recipe: "small", make: (i) => i.set32(56, 0) },
  {
    title: "a refcount table behind the file",
    recipe: "small",
    make: (i) => i.set64(48, 2n ** 30n),
  },
  {
    title: "a refcount table that is an L2 table",
    recipe: "small",
    make: (i) => i.set64(i.l1, at(i.refcountTable)),
  },
  // L1 and L2 tables.
  { title: "reserved bits of an L1 entry", recipe: "small", make: (i) => i.or64(i.l1, 1n << 58n) },
  {
    title: "a flag that is missing in an L1 entry",
    recipe: "small",
    make: (i) => i.set64(i.l1, i.u64(i.l1) & ~COPIED),
  },
  {
    title: "an L2 table behind the file",
    recipe: "small",
    make: (i) => i.set64(i.l1, at(i.end + 2048)),
  },
  {
    title: "an L2 table twice in the L1 table",
    recipe: "small",
    make: (i) => i.set64(i.l1 + 8, i.u64(i.l1)),
  },
  {
    title: "an L2 table at no cluster",
    recipe: "plain",
    make: (i) => i.or64(i.l1, 512n),
    differs: { none: { corruptions: 1 }, leaks: { corruptions: 1 }, all: { corruptions: 1 } },
  },
  { title: "an L1 table behind the file", recipe: "small", make: (i) => i.set64(40, 2n ** 30n) },
  {
    title: "an L1 table that is data too",
    recipe: "small",
    make: (i) => i.set64(i.entry(0), at(i.l1)),
  },
  { title: "the header as data", recipe: "plain", make: (i) => i.set64(i.entry(0), at(0)) },
  {
    title: "reserved bits of an L2 entry",
    recipe: "small",
    make: (i) => i.or64(i.entry(0), 1n << 58n),
  },
  {
    title: "low reserved bits of an L2 entry",
    recipe: "small",
    make: (i) => i.or64(i.entry(0), 2n),
  },
  {
    title: "reserved bits of an entry of nothing",
    recipe: "small",
    make: (i) => i.or64(i.entry(20), 1n << 58n),
  },
  {
    title: "reserved bits of an entry of zeroes",
    recipe: "small",
    make: (i) => i.set64(i.entry(20), (1n << 58n) | 1n),
  },
  {
    title: "a flag that is missing in an L2 entry",
    recipe: "small",
    make: (i) => i.set64(i.entry(0), i.u64(i.entry(0)) & ~COPIED),
  },
  {
    title: "a flag of an entry of nothing",
    recipe: "small",
    make: (i) => i.set64(i.entry(20), COPIED),
  },
  { title: "data at no cluster", recipe: "plain", make: (i) => i.or64(i.entry(0), 512n) },
  {
    title: "data behind the file",
    recipe: "small",
    make: (i) => i.set64(i.entry(0), at(i.end + 2048)),
  },
  {
    title: "data at the end of the file",
    recipe: "small",
    make: (i) => i.set64(i.entry(0), at(i.end)),
  },
  { title: "data twice", recipe: "plain", make: (i) => i.set64(i.entry(8), i.u64(i.entry(0))) },
  { title: "zeroes at no cluster", recipe: "zeroes", make: (i) => i.or64(i.entry(0), 513n) },
  { title: "a zero flag in version 2", recipe: "version2", make: (i) => i.or64(i.entry(0), 1n) },
  // Compressed clusters.
  {
    title: "a compressed cluster with a flag",
    recipe: "compressed",
    make: (i) => i.or64(i.entry(4), COPIED),
  },
  {
    title: "a compressed cluster behind the file",
    recipe: "compressed",
    make: (i) => i.set64(i.entry(4), COMPRESSED | 0x20000000n),
  },
  {
    title: "a compressed cluster that is too long",
    recipe: "compressed",
    make: (i) => i.or64(i.entry(4), 0xfn << 58n),
  },
  // Subclusters.
  {
    title: "a subcluster with both bits",
    recipe: "extended",
    make: (i) => i.or64(i.entry(0, 0, 16) + 8, 1n << 32n),
  },
  {
    title: "allocated subclusters of nothing",
    recipe: "extended",
    make: (i) => i.set64(i.entry(10, 0, 16) + 8, 3n),
  },
  {
    title: "bit 0 of an extended entry",
    recipe: "extended",
    make: (i) => i.or64(i.entry(0, 0, 16), 1n),
  },
  {
    title: "subclusters with data at no cluster",
    recipe: "extended",
    make: (i) => i.or64(i.entry(0, 0, 16), 512n),
  },
  {
    title: "subclusters without data at no cluster",
    recipe: "extended",
    make: (i) => {
      i.or64(i.entry(0, 0, 16), 512n);
      i.set64(i.entry(0, 0, 16) + 8, 7n << 32n);
    },
  },
  {
    title: "a compressed cluster with subclusters",
    recipe: "extended",
    make: (i) => i.set64(i.entry(0, 0, 16), COMPRESSED | BigInt(i.offsetAt(i.entry(0, 0, 16)))),
    differs: { none: { corruptions: 1 }, leaks: { corruptions: 1 }, all: { corruptions: 1 } },
  },
  // Snapshots.
  {
    title: "reserved bits in a snapshot",
    recipe: "snapshot",
    make: (i) => i.or64(i.offsetAt(snapshotL1(i)), 1n << 58n),
  },
  {
    title: "an L2 table of a snapshot behind the file",
    recipe: "snapshot",
    make: (i) => i.set64(snapshotL1(i), BigInt(FAR)),
  },
  {
    title: "a flag in the L1 table of a snapshot",
    recipe: "snapshot",
    make: (i) => i.or64(snapshotL1(i), COPIED),
  },
  {
    title: "an L1 table of a snapshot at no cluster",
    recipe: "snapshot",
    make: (i) => i.or64(i.snapshotTable, 8n),
  },
  {
    title: "an L1 table of a snapshot behind the file",
    recipe: "snapshot",
    make: (i) => i.set64(i.snapshotTable, BigInt(FAR)),
  },
  {
    title: "too large an L1 table of a snapshot",
    recipe: "snapshot",
    make: (i) => i.set32(i.snapshotTable + 8, 0x7fffffff),
    differs: {
      none: { corruptions: 1, leaks: 13 },
      leaks: { corruptions: 11 },
      all: { corruptions: 1 },
    },
  },
  {
    title: "a snapshot of version 2 in an image of version 3",
    recipe: "snapshot",
    make: (i) => i.set32(i.snapshotTable + 36, 8),
  },
  {
    title: "a snapshot without its zero plain",
    recipe: "snapshot",
    make: (i) => i.set64(i.offsetAt(snapshotL1(i)) + 8, 1n),
  },
  // Bitmaps.
  { title: "bitmaps that are no longer valid", recipe: "bitmap", make: (i) => i.set64(88, 0n) },
  {
    title: "a bitmap directory with a count of 0",
    recipe: "bitmap",
    make: (i) => i.setCount(directory(i) / i.clusterSize, 0),
  },
];
