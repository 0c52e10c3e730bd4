import { createHash } from "node:crypto";
import { HBitmap, HBitmapIterator } from "@blocklayer/hbitmap";
import { describe, expect, it } from "vitest";
import { borders, Shadow } from "./shadow.ts";

describe("the serialised form", () => {
  it("is aligned to 64 groups", () => {
    expect(new HBitmap(4096, 8).serializationAlign).toBe(512);
    expect(new HBitmap(2 ** 40, 65536).serializationAlign).toBe(2 ** 22);
  });

  it.each([
    [0, 0, 0],
    [0, 1, 8],
    [0, 64, 8],
    [0, 128, 16],
    [64, 37, 8],
    [128, 0, 0],
  ])("of [%i, +%i) takes %i bytes", (offset, length, bytes) => {
    const size = length % 64 === 0 ? 256 : offset + length;
    expect(new HBitmap(size, 1).serializationSize(offset, length)).toBe(bytes);
  });

  // Bytes and hashes as observed from the installed reference tools, 7.2.22: the bytes are those that
  // `qemu-img bitmap` left in the image after writes to the same ranges.
  it.each([
    {
      title: "written to",
      size: 13_107_712,
      sets: [
        [0, 1],
        [65_535, 2],
        [4_128_768, 65_536],
        [4_194_304, 200_000],
        [13_107_200, 1],
      ] as const,
      hex: "03000000000000800f0000000000000000000000000000000001000000000000",
      sha256: "a57cfa1e6088b6c10607924addffed77bf6e452d3d8dc5cc588124ca0944f08b",
    },
    {
      title: "clean",
      size: 13_107_712,
      sets: [],
      hex: "00".repeat(32),
      sha256: "66687aadf862bd776c8fc18b8e9f8e20089714856ee233b3902a591d0d5f2925",
    },
    {
      title: "of size 0",
      size: 0,
      sets: [],
      hex: "00".repeat(8),
      sha256: "af5570f5a1810b7af78caf4bc70a660f0df51e42baf91d4de5b2328de0e83dfc",
    },
  ])("of a disk $title is byte for byte the reference's", ({ size, sets, hex, sha256 }) => {
    const bitmap = new HBitmap(size, 65_536);
    for (const [offset, length] of sets) bitmap.set(offset, length);
    const bytes = bitmap.bottomBytes();
    expect(Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("")).toBe(hex);
    expect(createHash("sha256").update(bytes).digest("hex")).toBe(sha256);
  });

  it("holds group n in bit n % 8 of byte n / 8", () => {
    const bitmap = new HBitmap(200, 1);
    for (const offset of [0, 9, 31, 32, 63, 64, 199]) bitmap.set(offset, 1);
    const expected = new Uint8Array(32);
    expected.set([0x01, 0x02, 0, 0x80, 0x01, 0, 0, 0x80, 0x01]);
    expected[24] = 0x80;
    expect(bitmap.bottomBytes()).toEqual(expected);
  });
});

describe.each(borders)("round trips with borders of $name", ({ L1, L2, L3 }) => {
  const positions = [0, 1, L1 - 1, L1, L2 - 1, L2, L2 + 1, L3 - 1];
  const pairs = positions.flatMap((offset) => positions.map((length) => [offset, length] as const));

  it("every range at every border survives", () => {
    const wrong: string[] = [];
    const bitmap = new HBitmap(L3, 1);
    const copy = new HBitmap(L3, 1);
    for (const [offset, wanted] of pairs) {
      const length = Math.min(wanted, L3 - offset);
      const shadow = new Shadow(L3, 1);
      shadow.fill(offset, length, 1);
      bitmap.resetAll();
      bitmap.set(offset, length);
      const bytes = bitmap.serializePart(0, L3);
      copy.deserializePart(bytes, 0, L3, true);
      const same = Buffer.compare(bytes, shadow.bytes()) === 0;
      if (!same || shadow.compare(copy) !== "same") wrong.push(`${offset}+${length}`);
    }
    expect(wrong).toEqual([]);
  });

  it("chunks put together are the whole", () => {
    const bitmap = new HBitmap(L3 + 100, 1);
    for (const offset of positions) bitmap.set(offset, 1 + (offset % 50));
    bitmap.set(L3 + 77, 20);
    const copy = new HBitmap(L3 + 100, 1);
    const buffer = new Uint8Array(L2 / 8 + 24);
    for (let offset = 0; offset < bitmap.size; offset += L2) {
      const length = Math.min(L2, bitmap.size - offset);
      const chunk = bitmap.serializePart(offset, length, buffer);
      expect(chunk.length).toBe(bitmap.serializationSize(offset, length));
      expect(chunk.buffer).toBe(buffer.buffer);
      copy.deserializePart(buffer, offset, length);
    }
    copy.deserializeFinish();
    copy.assertConsistent();
    expect(copy.bottomBytes()).toEqual(bitmap.bottomBytes());
    expect(copy.count).toBe(bitmap.count);
  });

  it("deserializeZeroes erases one area after the other", () => {
    const bitmap = new HBitmap(L3, 1);
    const areas = [0, L1 * 4, L2, L3 - L1 * 2];
    for (const offset of areas) bitmap.set(offset, L1 * 2);
    for (const offset of areas) {
      expect(new HBitmapIterator(bitmap).next()).toBe(offset);
      bitmap.deserializeZeroes(offset, L1 * 2, true);
    }
    expect(new HBitmapIterator(bitmap).next()).toBe(-1);
  });
});

describe("padding", () => {
  it.each([
    [1, 1],
    [63, 1],
    [64, 1],
    [65, 1],
    [100, 1],
    [1000, 8],
    [4097, 64],
  ])("deserializeOnes of %i bytes in groups of %i sets what exists", (size, granularity) => {
    const bitmap = new HBitmap(size, granularity);
    bitmap.deserializeOnes(0, size, true);
    bitmap.assertConsistent();
    expect(bitmap.count).toBe(Math.ceil(size / granularity) * granularity);
    expect(bitmap.nextZero(0)).toBe(-1);
    bitmap.truncate(size + 1000 * granularity);
    expect(bitmap.nextZero(0)).toBe(Math.ceil(size / granularity) * granularity);
  });

  it("deserializePart drops ones behind the end", () => {
    const bitmap = new HBitmap(100, 1);
    bitmap.deserializePart(new Uint8Array(16).fill(0xff), 0, 100, true);
    expect(bitmap.count).toBe(100);
  });
});

describe("an unfinished load", () => {
  const uses: [string, (bitmap: HBitmap) => unknown][] = [
    ["count", (bitmap) => bitmap.count],
    ["isEmpty", (bitmap) => bitmap.isEmpty],
    ["get", (bitmap) => bitmap.get(0)],
    ["set", (bitmap) => bitmap.set(0, 1)],
    ["reset", (bitmap) => bitmap.reset(0, 1)],
    ["nextDirty", (bitmap) => bitmap.nextDirty(0)],
    ["nextZero", (bitmap) => bitmap.nextZero(0)],
    ["nextDirtyArea", (bitmap) => bitmap.nextDirtyArea(0)],
    ["status", (bitmap) => bitmap.status(0, 1)],
    ["countBetween", (bitmap) => bitmap.countBetween(0, 1)],
    ["iteration", (bitmap) => new HBitmapIterator(bitmap).next()],
    ["truncate", (bitmap) => bitmap.truncate(1)],
    ["serializePart", (bitmap) => bitmap.serializePart(0, 100)],
    ["clone", (bitmap) => bitmap.clone()],
    ["merge into it", (bitmap) => bitmap.merge(new HBitmap(100, 1))],
    ["merge from it", (bitmap) => new HBitmap(100, 1).merge(bitmap)],
    ["assertConsistent", (bitmap) => bitmap.assertConsistent()],
  ];

  it.each(uses)("refuses %s", (_title, use) => {
    const bitmap = new HBitmap(100, 1);
    bitmap.deserializeOnes(0, 100);
    expect(() => use(bitmap)).toThrow("the bitmap is used before deserializeFinish");
    bitmap.deserializeFinish();
    expect(bitmap.count).toBe(100);
  });

  it.each([
    ["resetAll", (bitmap: HBitmap) => bitmap.resetAll(), 0],
    ["setAll", (bitmap: HBitmap) => bitmap.setAll(), 100],
  ])("is abandoned by %s", (_title, abandon, count) => {
    const bitmap = new HBitmap(100, 1);
    bitmap.deserializeOnes(0, 100);
    abandon(bitmap);
    bitmap.assertConsistent();
    expect(bitmap.count).toBe(count);
  });

  it("is not begun by a length of 0, which may finish one", () => {
    const bitmap = new HBitmap(100, 1);
    bitmap.deserializePart(new Uint8Array(0), 0, 0);
    bitmap.deserializeZeroes(0, 0);
    bitmap.deserializeOnes(0, 0);
    expect(bitmap.count).toBe(0);
    bitmap.deserializeOnes(0, 100);
    bitmap.deserializeZeroes(64, 0, true);
    expect(bitmap.count).toBe(100);
  });
});
