import { HBitmap } from "@blocklayer/hbitmap";
import { describe, expect, it } from "vitest";
import { borders, Pair } from "./shadow.ts";

function pair(size: number, granularity = 1): Pair {
  return new Pair(new HBitmap(size, granularity));
}

describe("a new bitmap", () => {
  it.each([
    [0, 1],
    [0, 65536],
    [1, 1],
    [262_144 + 23, 1],
    [1_000_001, 512],
  ])("of %i bytes in groups of %i is clean", (size, granularity) => {
    expect(pair(size, granularity).shadow.compare(new HBitmap(size, granularity))).toBe("same");
  });

  it("has no valid position when its size is 0", () => {
    const bitmap = new HBitmap(0, 512);
    expect(() => bitmap.get(0)).toThrow(RangeError);
    expect([bitmap.nextDirty(0), bitmap.nextZero(0), bitmap.count]).toEqual([-1, -1, 0]);
    expect(bitmap.nextDirtyArea(0)).toBeUndefined();
    bitmap.setAll();
    expect(bitmap.isEmpty).toBe(true);
  });

  it("takes at most 2.2 MiB for 2^24 bits, also after growing to them", () => {
    const bitmap = new HBitmap(2 ** 40, 65536);
    const grown = new HBitmap(2 ** 40 - 2 ** 22, 65536);
    grown.truncate(2 ** 40);
    expect(bitmap.memoryBytes).toBeLessThanOrEqual(2.2 * 2 ** 20);
    expect(grown.memoryBytes).toBeLessThanOrEqual(2.2 * 2 ** 20);
  });
});

describe.each(borders)("with borders of $name", ({ L1, L2, L3 }) => {
  it("an unaligned size has a first and a last item", () => {
    const both = pair(L3 + 23);
    expect([both.set(0, 1), both.set(L3 + 22, 1)]).toEqual(["same", "same"]);
  });

  it.each([10, L1 - 1, L1, L2 - 1, L2])("get agrees at %i when all or some are set", (offset) => {
    const all = new HBitmap(L3, 1);
    all.setAll();
    expect(all.get(offset)).toBe(true);
    const some = new HBitmap(2 * L2, 1);
    expect(some.get(offset)).toBe(false);
    some.set(offset, 1);
    expect([some.get(offset), some.get(offset + 1)]).toEqual([true, false]);
    some.reset(offset, 1);
    expect(some.get(offset)).toBe(false);
  });

  it("sets everything at once", () => {
    expect(pair(L3).set(0, L3)).toBe("same");
  });

  it.each([0, 10, L1 - 1, L1, L2 - 1, L2, L3 - 1])("sets the one item %i", (offset) => {
    expect(pair(L3).set(offset, 1)).toBe("same");
  });

  it("sets ranges that cross a word", () => {
    const both = pair(2 * L2 + 8 * L1);
    const ranges: [number, number][] = [
      [L1 - 1, 2],
      [2 * L1 - 1, 4],
      [4 * L1, L1 + 1],
      [8 * L1 - 1, L1 + 1],
      [L2 - 1, 2],
      [L2 + L1 - 1, 8],
      [L2 + 4 * L1, L1 + 1],
      [L2 + 8 * L1 - 1, L1 + 1],
    ];
    expect(ranges.map(([offset, length]) => both.set(offset, length))).toEqual(
      ranges.map(() => "same"),
    );
  });

  it("sets ranges over three words and over borders of levels, up to the end", () => {
    const both = pair(2 * L3);
    const ranges: [number, number][] = [
      [L1 - 1, L1 + 2],
      [3 * L1 - 1, L1 + 2],
      [5 * L1, 2 * L1 + 1],
      [8 * L1 - 1, 2 * L1 + 1],
      [12 * L1, 3 * L1 + 2],
      [L2 - 1, L1 + 2],
      [L2 + 2 * L1 - 1, L1 + 2],
      [L2 + 4 * L1, 2 * L1 + 1],
      [L2 + 7 * L1 - 1, 2 * L1 + 1],
      [L2 * 2 - 1, L3 * 2 - L2 * 2 + 1],
    ];
    expect(ranges.map(([offset, length]) => both.set(offset, length))).toEqual(
      ranges.map(() => "same"),
    );
  });

  it("setting an item twice does not change the count", () => {
    const both = pair(3 * L1);
    expect(both.set(0, 3 * L1)).toBe("same");
    expect(both.bitmap.set(L1, 1)).toBe(false);
    expect(both.bitmap.count).toBe(3 * L1);
  });

  it("sets overlapping ranges", () => {
    const both = pair(2 * L3);
    const ranges: [number, number][] = [
      [L1 - 1, L1 + 2],
      [2 * L1 - 1, L1 * 2 + 2],
      [0, 3 * L1],
      [L1 * 8 - 1, L2],
      [L2, L1],
      [L2 - L1 - 1, L1 * 8 + 2],
      [L2, L3 - L2 + 1],
      [L3 - L1, L1 * 3],
      [L3 - 1, 3],
      [L3 - 1, L2],
    ];
    expect(ranges.map(([offset, length]) => both.set(offset, length))).toEqual(
      ranges.map(() => "same"),
    );
  });

  it("resetting a clean bitmap changes nothing", () => {
    expect(pair(L3).reset(0, L3)).toBe("same");
  });

  it("sets and resets in turn across words and levels", () => {
    const both = pair(L3 * 2);
    const steps = [
      both.set(L1 - 1, L1 + 2),
      both.reset(L1 * 2 - 1, L1 + 2),
      both.set(0, L1 * 3),
      both.reset(L1, L1),
      both.reset(0, L1 - 1),
      both.set(0, L2 + 1),
      both.reset(L1, L2),
      both.reset(L2 - 1, L3 - L2 + 2),
      both.set(L3 - L1, 3 * L1),
      both.reset(L3 - 1, 2),
      both.set(0, 2 * L3),
      both.reset(L2 + L1 + 1, 1),
      both.reset(0, L1),
      both.reset(0, L2),
      both.reset(L3, L3),
      both.reset(L2 + 1, L3 - L2 - 1),
      both.set(L3 - 3, 6),
      both.reset(0, 2 * L3),
    ];
    expect(steps.filter((step) => step !== "same")).toEqual([]);
  });

  it("resetAll cleans after any sets and leaves a working bitmap", () => {
    const both = pair(2 * L3);
    for (const [offset, length] of [
      [L1 - 1, L1 + 2],
      [0, L1 * 3],
      [L2, L1],
      [L3 - 1, L3 + 1],
    ] as const) {
      both.set(offset, length);
      both.bitmap.resetAll();
      both.shadow.groups.fill(0);
      expect(both.shadow.compare(both.bitmap)).toBe("same");
    }
    expect(both.set(L3 - 1, 2)).toBe("same");
  });
});

describe("granularity", () => {
  it("counts whole groups: a partly set group is set", () => {
    const bitmap = new HBitmap(64, 2);
    const counts: number[] = [];
    for (const [offset, length] of [
      [0, 1],
      [2, 1],
      [0, 3],
    ] as const) {
      bitmap.set(offset, length);
      counts.push(bitmap.count);
    }
    bitmap.reset(0, 2);
    expect([...counts, bitmap.count]).toEqual([2, 4, 4, 2]);
  });

  it("counts the last group in full", () => {
    const bitmap = new HBitmap(1000, 512);
    bitmap.setAll();
    expect([bitmap.count, bitmap.size]).toEqual([1024, 1000]);
  });

  it.each([
    ["ends at the size", 512, 488],
    ["ends where the last group ends", 512, 512],
    ["covers everything", 0, 1000],
  ])("resets a range that %s", (_title, offset, length) => {
    const both = pair(1000, 512);
    both.set(0, 1000);
    expect(both.reset(offset, length)).toBe("same");
    expect(both.bitmap.get(999)).toBe(false);
  });

  it("a length of 0 changes nothing, wherever", () => {
    const bitmap = new HBitmap(64, 8);
    expect([bitmap.set(3, 0), bitmap.reset(3, 0), bitmap.set(2 ** 50, 0)]).toEqual([
      false,
      false,
      false,
    ]);
    expect(bitmap.isEmpty).toBe(true);
  });
});

describe("far away", () => {
  it("offsets above 2^32 and up to 8 PiB are exact", () => {
    const size = 2 ** 53 - 2 ** 30;
    const bitmap = new HBitmap(size, 2 ** 31);
    bitmap.set(size - 1, 1);
    bitmap.set(2 ** 40 - 1, 2);
    expect(bitmap.nextDirty(0)).toBe(2 ** 40 - 2 ** 31);
    expect(bitmap.nextDirty(2 ** 41)).toBe(size - 2 ** 30);
    expect(bitmap.nextZero(2 ** 40)).toBe(2 ** 40 + 2 ** 31);
    expect(bitmap.count).toBe(3 * 2 ** 31);
    expect(bitmap.status(size - 1, 1)).toEqual({ dirty: true, length: 1 });
  });

  it("bit numbers above 2^32 are exact", () => {
    const far = 2 ** 32 + 5;
    const bitmap = new HBitmap(2 ** 32 + 100, 1);
    expect(bitmap.set(far, 3)).toBe(true);
    expect([bitmap.get(far), bitmap.get(5), bitmap.get(far - 1)]).toEqual([true, false, false]);
    expect(bitmap.nextDirtyArea(0)).toEqual({ offset: far, length: 3 });
    expect(bitmap.nextZero(far)).toBe(far + 3);
    expect(bitmap.countBetween(far + 1, far + 50)).toBe(2);
    expect(bitmap.serializePart(2 ** 32, 64)[0]).toBe(0xe0);
    expect(bitmap.reset(far, 3)).toBe(true);
    expect(bitmap.nextDirty(0)).toBe(-1);
  });

  it("the largest granularity works to the last byte", () => {
    const size = 2 ** 53 - 2 ** 30;
    const coarse = new HBitmap(size, 2 ** 46);
    coarse.set(size - 1, 1);
    const fine = coarse.withGranularity(2 ** 31);
    expect([fine.nextDirty(0), fine.count]).toEqual([2 ** 53 - 2 ** 46, 2 ** 46]);
    expect(fine.withGranularity(2 ** 46).bottomBytes()).toEqual(coarse.bottomBytes());
  });
});
