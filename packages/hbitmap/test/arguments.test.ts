import { HBitmap, HBitmapIterator } from "@blocklayer/hbitmap";
import { describe, expect, it } from "vitest";

const outside = "is outside of a bitmap of 1000 bytes";
const integer = "is not a safe integer of 0 or more";

describe("a mistaken argument is a RangeError that names the numbers", () => {
  const rows: [string, (bitmap: HBitmap) => unknown, string][] = [
    ["new: size -1", () => new HBitmap(-1, 1), "size -1 is not an integer from 0 to"],
    ["new: size 1.5", () => new HBitmap(1.5, 1), "size 1.5 is not an integer from 0 to"],
    ["new: size 2^53", () => new HBitmap(2 ** 53, 512), "size 9007199254740992 is not an integer"],
    ["new: granularity 0", () => new HBitmap(1, 0), "granularity 0 is not a power of two"],
    ["new: granularity 3", () => new HBitmap(1, 3), "granularity 3 is not a power of two"],
    [
      "new: granularity 2^47",
      () => new HBitmap(1, 2 ** 47),
      "not a power of two from 1 to 70368744177664",
    ],
    [
      "new: too many bits",
      () => new HBitmap(2 ** 36 + 1, 1),
      "68719476737 bits are above the limit of 68719476736",
    ],
    ["set: beyond", (bitmap) => bitmap.set(1000, 25), `range of 25 bytes at 1000 ${outside}`],
    ["set: negative", (bitmap) => bitmap.set(-1, 1), `offset -1 ${integer}`],
    ["set: fraction", (bitmap) => bitmap.set(0.5, 1), `offset 0.5 ${integer}`],
    ["set: length", (bitmap) => bitmap.set(0, Number.NaN), `length NaN ${integer}`],
    [
      "set: sum",
      (bitmap) => bitmap.set(1, 2 ** 53 - 1),
      `range of 9007199254740991 bytes at 1 ${outside}`,
    ],
    ["reset: beyond", (bitmap) => bitmap.reset(1024, 8), `range of 8 bytes at 1024 ${outside}`],
    [
      "reset: start",
      (bitmap) => bitmap.reset(4, 8),
      "reset of 8 bytes at 4 would clean part of a group of 8 bytes",
    ],
    [
      "reset: end",
      (bitmap) => bitmap.reset(8, 12),
      "reset of 12 bytes at 8 would clean part of a group of 8",
    ],
    ["get: beyond", (bitmap) => bitmap.get(1000), `range of 1 bytes at 1000 ${outside}`],
    ["nextDirty", (bitmap) => bitmap.nextDirty(-1), `offset -1 ${integer}`],
    ["nextZero", (bitmap) => bitmap.nextZero(0, -1), `length -1 ${integer}`],
    ["nextDirtyArea: start", (bitmap) => bitmap.nextDirtyArea(-8), `offset -8 ${integer}`],
    ["nextDirtyArea: end", (bitmap) => bitmap.nextDirtyArea(0, -8), `end -8 ${integer}`],
    [
      "nextDirtyArea: limit",
      (bitmap) => bitmap.nextDirtyArea(0, 8, 0),
      "limit 0 leaves no room for a dirty area",
    ],
    [
      "nextDirtyArea: no limit",
      (bitmap) => bitmap.nextDirtyArea(0, 8, Number.NaN),
      `limit NaN ${integer}`,
    ],
    ["status: nothing", (bitmap) => bitmap.status(8, 0), `range of 0 bytes at 8 ${outside}`],
    ["status: beyond", (bitmap) => bitmap.status(999, 2), `range of 2 bytes at 999 ${outside}`],
    ["countBetween: start", (bitmap) => bitmap.countBetween(-1, 2), `offset -1 ${integer}`],
    ["countBetween: end", (bitmap) => bitmap.countBetween(1, 2.5), `end 2.5 ${integer}`],
    ["truncate", (bitmap) => bitmap.truncate(-1), "size -1 is not an integer"],
    [
      "truncate: bits",
      (bitmap) => bitmap.truncate(2 ** 40),
      "137438953472 bits are above the limit",
    ],
    [
      "merge",
      (bitmap) => bitmap.merge(new HBitmap(999, 8)),
      "a bitmap of 999 bytes does not fit one of 1000",
    ],
    [
      "merged",
      (bitmap) => HBitmap.merged(bitmap, new HBitmap(0, 8)),
      "a bitmap of 0 bytes does not fit one of 1000",
    ],
    [
      "withGranularity",
      (bitmap) => bitmap.withGranularity(12),
      "granularity 12 is not a power of two",
    ],
    [
      "iterator: beyond",
      (bitmap) => new HBitmapIterator(bitmap, 1001),
      `iteration from 1001 ${outside}`,
    ],
    [
      "iterator: fraction",
      (bitmap) => new HBitmapIterator(bitmap, 0.5),
      `iteration from 0.5 ${outside}`,
    ],
    [
      "chunk: start",
      (bitmap) => bitmap.serializePart(8, 512),
      "chunk of 512 bytes at 8 is not aligned to 512 bytes",
    ],
    [
      "chunk: end",
      (bitmap) => bitmap.serializationSize(0, 520),
      "chunk of 520 bytes at 0 is not aligned to 512",
    ],
    [
      "chunk: beyond",
      (bitmap) => bitmap.serializationSize(512, 512),
      `range of 512 bytes at 512 ${outside}`,
    ],
    [
      "chunk: short target",
      (bitmap) => bitmap.serializePart(0, 1000, new Uint8Array(15)),
      "15 bytes do not hold a chunk of 16",
    ],
    [
      "load: short source",
      (bitmap) => bitmap.deserializePart(new Uint8Array(7), 512, 488),
      "7 bytes do not hold a chunk of 8",
    ],
    [
      "load: ones",
      (bitmap) => bitmap.deserializeOnes(0, 8),
      "chunk of 8 bytes at 0 is not aligned",
    ],
    [
      "load: zeroes",
      (bitmap) => bitmap.deserializeZeroes(8, 992),
      "chunk of 992 bytes at 8 is not aligned",
    ],
  ];

  it.each(rows)("%s", (_title, call, message) => {
    const bitmap = new HBitmap(1000, 8);
    bitmap.set(500, 1);
    const before = bitmap.bottomBytes();
    expect(() => call(bitmap)).toThrow(RangeError);
    expect(() => call(bitmap)).toThrow(message);
    // Nothing has changed.
    bitmap.assertConsistent();
    expect([bitmap.size, bitmap.bottomBytes()]).toEqual([1000, before]);
  });
});
