import { HBitmap } from "@blocklayer/hbitmap";
import { describe, expect, it } from "vitest";
import { Shadow } from "./shadow.ts";

const size = 40_000;
const areasA: [number, number][] = [
  [0, 1],
  [100, 3000],
  [20_000, 64],
  [39_999, 1],
];
const areasB: [number, number][] = [
  [90, 20],
  [3000, 200],
  [12_345, 1],
  [33_000, 7000],
];

function bitmapOf(granularity: number, areas: [number, number][]): HBitmap {
  const bitmap = new HBitmap(size, granularity);
  for (const [offset, length] of areas) bitmap.set(offset, length);
  return bitmap;
}

/** What merging must give: byte by byte, then rounded out to groups. */
function expected(granularity: number, ...sources: HBitmap[]): Shadow {
  const shadow = new Shadow(size, granularity);
  for (const source of sources) {
    for (let offset = 0; offset < size; offset++) {
      if (source.get(offset)) shadow.fill(offset, 1, 1);
    }
  }
  return shadow;
}

const granularities: [number, number][] = [
  [1, 1],
  [8, 8],
  [1, 16],
  [16, 1],
  [4, 64],
  [64, 4],
  [512, 65_536],
  [65_536, 512],
];

describe("merge", () => {
  it.each(granularities)("into groups of %i from groups of %i", (mine, theirs) => {
    const bitmap = bitmapOf(mine, areasA);
    const other = bitmapOf(theirs, areasB);
    const before = other.bottomBytes();
    const shadow = expected(mine, bitmap, other);
    bitmap.merge(other);
    expect(shadow.compare(bitmap)).toBe("same");
    expect(other.bottomBytes()).toEqual(before);
  });

  it.each(granularities)("with an empty one, groups of %i and %i", (mine, theirs) => {
    const full = bitmapOf(mine, areasA);
    const before = full.bottomBytes();
    full.merge(new HBitmap(size, theirs));
    expect(full.bottomBytes()).toEqual(before);
    const empty = new HBitmap(size, theirs);
    empty.merge(full);
    expect(expected(theirs, full).compare(empty)).toBe("same");
    const both = new HBitmap(size, mine);
    both.merge(new HBitmap(size, theirs));
    expect(both.isEmpty).toBe(true);
  });

  it("with itself changes nothing", () => {
    const bitmap = bitmapOf(8, areasA);
    const before = bitmap.bottomBytes();
    bitmap.merge(bitmap);
    expect(bitmap.bottomBytes()).toEqual(before);
  });

  it("of maps that came to their size by different ways", () => {
    const grown = new HBitmap(64, 1);
    grown.truncate(size - 100);
    grown.truncate(size);
    grown.set(39_000, 10);
    const exact = bitmapOf(1, areasA);
    const shadow = expected(1, grown, exact);
    const copy = grown.clone();
    copy.merge(exact);
    exact.merge(grown);
    expect([shadow.compare(exact), shadow.compare(copy)]).toEqual(["same", "same"]);
  });
});

describe("merged", () => {
  it.each(granularities)("of groups of %i and %i leaves both alone", (first, second) => {
    const a = bitmapOf(first, areasA);
    const b = bitmapOf(second, areasB);
    const before = [a.bottomBytes(), b.bottomBytes()];
    const results = [HBitmap.merged(a, b), HBitmap.merged(a, b, second), HBitmap.merged(a, a)];
    expect(expected(first, a, b).compare(results[0] as HBitmap)).toBe("same");
    expect(expected(second, a, b).compare(results[1] as HBitmap)).toBe("same");
    expect(expected(first, a).compare(results[2] as HBitmap)).toBe("same");
    expect([a.bottomBytes(), b.bottomBytes()]).toEqual(before);
  });
});

describe("copies", () => {
  it("clone is equal and independent", () => {
    const bitmap = bitmapOf(8, areasA);
    const copy = bitmap.clone();
    expect(expected(8, bitmap).compare(copy)).toBe("same");
    copy.resetAll();
    expect(bitmap.isEmpty).toBe(false);
    bitmap.setAll();
    expect(copy.isEmpty).toBe(true);
  });

  it.each(granularities)("withGranularity from groups of %i to %i rounds out", (from, to) => {
    const bitmap = bitmapOf(from, areasB);
    const copy = bitmap.withGranularity(to);
    expect(expected(to, bitmap).compare(copy)).toBe("same");
    copy.setAll();
    expect(expected(from, bitmapOf(from, areasB)).compare(bitmap)).toBe("same");
  });
});
