import { HBitmap } from "@blocklayer/hbitmap";
import { describe, expect, it } from "vitest";
import { borders, Pair } from "./shadow.ts";

describe.each(
  borders.flatMap((border) => [1, 2].map((granularity) => ({ ...border, granularity }))),
)("truncate with borders of $name in groups of $granularity", ({ L1, L2, L3, granularity }) => {
  const sizes = [L2 - 2, L2 - 1, L2, L2 + 1, L2 + L1, 5 * L2];
  const changes = [0, 1, 4, 8, 64, L1, L2 - 2];

  it.each(sizes)("from %i keeps what lies inside and nothing else", (size) => {
    const wrong: string[] = [];
    for (const change of changes.flatMap((amount) => [amount, -amount])) {
      const both = new Pair(new HBitmap(size, granularity));
      const newSize = size + change;
      // The first, the last, the last that stays, the first that is cut off.
      for (const offset of [0, size - 1, newSize - 1, newSize]) {
        if (offset >= 0 && offset < size) both.set(offset, 1);
      }
      const result = [both.truncate(newSize), both.truncate(size), both.truncate(newSize)];
      if (result.join() !== "same,same,same") wrong.push(`${change}: ${result}`);
    }
    expect(wrong).toEqual([]);
  });

  it("to 0 and back forgets everything", () => {
    const both = new Pair(new HBitmap(L3, granularity));
    both.set(0, L3);
    expect([both.truncate(0), both.truncate(L3)]).toEqual(["same", "same"]);
    expect(both.bitmap.isEmpty).toBe(true);
  });
});

describe("in pairs of bytes", () => {
  it.each([
    [4095, 4096, 2048],
    [4096, 4095, 2048],
    [4094, 4095, 2048],
    [4095, 4094, 2047],
  ])("%i to %i leaves %i groups", (before, after, groups) => {
    const bitmap = new HBitmap(before, 2);
    bitmap.truncate(after);
    bitmap.setAll();
    expect([bitmap.size, bitmap.count]).toEqual([after, groups * 2]);
  });

  it("a group that was covered in part keeps its bit and covers more", () => {
    const bitmap = new HBitmap(4095, 2);
    bitmap.set(4094, 1);
    bitmap.truncate(4100);
    expect(bitmap.nextDirtyArea(0)).toEqual({ offset: 4094, length: 2 });
    bitmap.truncate(4095);
    expect(bitmap.nextDirtyArea(0)).toEqual({ offset: 4094, length: 1 });
  });
});

describe("growing step by step", () => {
  it("keeps a map that is used between the steps", () => {
    const both = new Pair(new HBitmap(0, 4));
    const results = new Set<string>();
    for (let size = 100; size <= 40_000; size += 700) {
      results.add(both.truncate(size));
      results.add(both.set(size - 50, 30));
    }
    expect([...results]).toEqual(["same"]);
  });

  it("cuts the memory when it shrinks", () => {
    const bitmap = new HBitmap(2 ** 24, 1);
    bitmap.truncate(64);
    expect(bitmap.memoryBytes).toBe(new HBitmap(64, 1).memoryBytes);
  });
});
