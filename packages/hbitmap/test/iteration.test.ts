import { HBitmap, HBitmapIterator } from "@blocklayer/hbitmap";
import { describe, expect, it } from "vitest";
import { borders, Pair } from "./shadow.ts";

function rest(iterator: HBitmapIterator): number[] {
  const visited: number[] = [];
  for (let offset = iterator.next(); offset !== -1; offset = iterator.next()) visited.push(offset);
  return visited;
}

describe.each(borders)("iteration with borders of $name", ({ L1, L2, L3 }) => {
  it("visits nothing of a clean bitmap, and stays at the end", () => {
    const iterator = new HBitmapIterator(new HBitmap(L1, 1));
    expect([iterator.next(), iterator.next()]).toEqual([-1, -1]);
  });

  it.each([
    1,
    L1 - 1,
    L1,
    2 * L1 - 1,
    L2 - 1,
    L2,
    L2 + 1,
    L2 + L1,
    L2 + 2 * L1 - 1,
    2 * L2 - 1,
    2 * L2,
    2 * L2 + 1,
    2 * L2 + L1,
    2 * L2 + 2 * L1 - 1,
    L3 / 2,
  ])("from %i visits every later item once", (first) => {
    const both = new Pair(new HBitmap(L3, 1));
    both.bitmap.setAll();
    both.shadow.groups.fill(1);
    const iterator = new HBitmapIterator(both.bitmap, first);
    expect(both.shadow.compareIteration(iterator, first)).toBe("same");
  });

  it("visits groups by their start", () => {
    const group = 128;
    const bitmap = new HBitmap(131_072 * group, group);
    expect(rest(new HBitmapIterator(bitmap))).toEqual([]);
    bitmap.set((L2 + L1 + 1) * group + 8, 8);
    expect(rest(new HBitmapIterator(bitmap))).toEqual([(L2 + L1 + 1) * group]);
    expect(rest(new HBitmapIterator(bitmap, (L2 + L1 + 2) * group))).toEqual([]);
    bitmap.set(131_072 * group - 8, 8);
    expect(rest(new HBitmapIterator(bitmap))).toEqual([(L2 + L1 + 1) * group, 131_071 * group]);
    expect(rest(new HBitmapIterator(bitmap, (L2 + L1 + 2) * group))).toEqual([131_071 * group]);
  });

  it("survives that everything is reset at the last bit of the first word", () => {
    const bitmap = new HBitmap(2 * L1, 1);
    bitmap.setAll();
    const iterator = new HBitmapIterator(bitmap, L1 - 1);
    expect(iterator.next()).toBe(L1 - 1);
    bitmap.resetAll();
    expect(iterator.next()).toBe(-1);
  });
});

describe("iteration from inside a group", () => {
  it("starts with the start of the group, which may lie before", () => {
    const bitmap = new HBitmap(100, 8);
    bitmap.set(0, 100);
    expect(new HBitmapIterator(bitmap, 13).next()).toBe(8);
    expect(new HBitmapIterator(bitmap, 103).next()).toBe(96);
    expect(new HBitmapIterator(bitmap, 104).next()).toBe(-1);
  });
});

describe("changes during iteration", () => {
  // The bitmap has 2^17 items; 10 and 70000 are dirty, and 10 has been visited.
  const rows: [string, (bitmap: HBitmap) => void, number[]][] = [
    ["nothing changes", () => undefined, [70_000]],
    ["items ahead are reset: they are not visited", (bitmap) => bitmap.reset(70_000, 1), []],
    ["everything is reset: the iteration ends", (bitmap) => bitmap.resetAll(), []],
    [
      "an item ahead in the same word is set: it is found",
      (bitmap) => bitmap.set(12, 1),
      [12, 70_000],
    ],
    [
      "an item ahead elsewhere is set: it is found",
      (bitmap) => bitmap.set(5000, 1),
      [5000, 70_000],
    ],
    ["an item behind is set: it is not visited", (bitmap) => bitmap.set(9, 1), [70_000]],
    ["the visited item is set again: it is not visited", (bitmap) => bitmap.set(10, 1), [70_000]],
    ["the map is cut before the next item", (bitmap) => bitmap.truncate(50), []],
    ["the map is cut before the position", (bitmap) => bitmap.truncate(3), []],
    [
      "the map grows and is set there",
      (bitmap) => {
        bitmap.truncate(2 ** 21);
        bitmap.set(2 ** 21 - 1, 1);
      },
      [70_000, 2 ** 21 - 1],
    ],
    [
      "other content is loaded",
      (bitmap) => {
        bitmap.deserializeZeroes(0, 2 ** 17);
        bitmap.deserializeOnes(64, 64, true);
      },
      Array.from({ length: 64 }, (_, index) => 64 + index),
    ],
  ];

  it.each(rows)("%s", (_title, change, expected) => {
    const bitmap = new HBitmap(2 ** 17, 1);
    bitmap.set(10, 1);
    bitmap.set(70_000, 1);
    const iterator = new HBitmapIterator(bitmap);
    expect(iterator.next()).toBe(10);
    change(bitmap);
    expect(rest(iterator)).toEqual(expected);
  });

  it("an iterator that has reached the end stays there, even when the map grows", () => {
    const bitmap = new HBitmap(64, 1);
    const iterator = new HBitmapIterator(bitmap);
    expect(iterator.next()).toBe(-1);
    bitmap.truncate(128);
    bitmap.setAll();
    expect(iterator.next()).toBe(-1);
  });
});
