import {
  alignDown,
  alignUp,
  clampLength,
  divideDown,
  divideUp,
  isAligned,
  isPowerOfTwo,
  isSafeSize,
  log2,
  MAX_LENGTH,
  readU16,
  readU32,
  readU32LE,
  readU64,
  readU64LE,
  remainder,
  writeU16,
  writeU32,
  writeU32LE,
  writeU64,
  writeU64LE,
} from "@blocklayer/offsets";
import fc from "fast-check";
import { describe, expect, it } from "vitest";

const GiB = 2 ** 30;

describe("arithmetic", () => {
  it.each([
    [0, 512, 0, 0],
    [1, 512, 0, 512],
    [511, 512, 0, 512],
    [512, 512, 512, 512],
    [2 ** 40 + 1, 65536, 2 ** 40, 2 ** 40 + 65536],
    [7, 3, 6, 9],
    [MAX_LENGTH, GiB, MAX_LENGTH, MAX_LENGTH],
    [MAX_LENGTH - 1, GiB, MAX_LENGTH - GiB, MAX_LENGTH],
  ])("%i by %i aligns to %i and %i", (value, alignment, down, up) => {
    expect([alignDown(value, alignment), alignUp(value, alignment)]).toEqual([down, up]);
    expect(isAligned(value, alignment)).toBe(down === value);
    expect(divideDown(value, alignment)).toBe(down / alignment);
    expect(divideUp(value, alignment)).toBe(up / alignment);
    expect(remainder(value, alignment)).toBe(value - down);
  });

  it("agrees with bigint for every size and power of two up to 1 GiB", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: MAX_LENGTH }),
        fc.integer({ min: 0, max: 30 }),
        (value, bits) => {
          const alignment = 2 ** bits;
          const exact = BigInt(value);
          const unit = BigInt(alignment);
          expect(BigInt(alignDown(value, alignment))).toBe((exact / unit) * unit);
          expect(BigInt(alignUp(value, alignment))).toBe(((exact + unit - 1n) / unit) * unit);
          expect(BigInt(remainder(value, alignment))).toBe(exact % unit);
        },
      ),
    );
  });

  it.each([
    [1, true, 0],
    [2, true, 1],
    [512, true, 9],
    [2 ** 52, true, 52],
    [2 ** 31, true, 31],
    [0, false, 0],
    [-2, false, 0],
    [3, false, 0],
    [1.5, false, 0],
    [2 ** 40 + 1, false, 0],
    [Number.NaN, false, 0],
  ])("%d is a power of two: %s", (value, expected, exponent) => {
    expect(isPowerOfTwo(value)).toBe(expected);
    if (expected) expect(log2(value)).toBe(exponent);
    else expect(() => log2(value)).toThrow(RangeError);
  });

  it.each([
    [0, true],
    [MAX_LENGTH, true],
    [MAX_LENGTH + 1, false],
    [-1, false],
    [0.5, false],
    [Number.NaN, false],
    [2 ** 53, false],
  ])("%d may be a size: %s", (value, expected) => {
    expect(isSafeSize(value)).toBe(expected);
  });

  it.each([
    [0, 10, 20, 10],
    [15, 10, 20, 5],
    [20, 10, 20, 0],
    [25, 10, 20, 0],
    [0, 0, 20, 0],
  ])("[%i, +%i) below %i has %i bytes", (offset, length, size, expected) => {
    expect(clampLength(offset, length, size)).toBe(expected);
  });
});

describe("fields", () => {
  it("agree with DataView for every value", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER }),
        fc.integer({ min: 0, max: 8 }),
        (value, position) => {
          const bytes = new Uint8Array(16);
          const view = new DataView(bytes.buffer);
          writeU64(bytes, position, value);
          expect(view.getBigUint64(position)).toBe(BigInt(value));
          expect(readU64(bytes, position)).toBe(value);
          writeU64LE(bytes, position, value);
          expect(view.getBigUint64(position, true)).toBe(BigInt(value));
          expect(readU64LE(bytes, position)).toBe(value);
          const word = value % 2 ** 32;
          writeU32(bytes, position, word);
          expect([view.getUint32(position), readU32(bytes, position)]).toEqual([word, word]);
          writeU32LE(bytes, position, word);
          expect([view.getUint32(position, true), readU32LE(bytes, position)]).toEqual([
            word,
            word,
          ]);
          writeU16(bytes, position, word % 65536);
          expect([view.getUint16(position), readU16(bytes, position)]).toEqual([
            word % 65536,
            word % 65536,
          ]);
        },
      ),
    );
  });

  it.each([2 ** 53, 2 ** 53 + 2 ** 20, 2 ** 63, 2 ** 64 - 2048])(
    "a field of %d is read as 2^53 or more, never as a small number",
    (value) => {
      const bytes = new Uint8Array(8);
      new DataView(bytes.buffer).setBigUint64(0, BigInt(value));
      expect(readU64(bytes, 0)).toBeGreaterThanOrEqual(2 ** 53);
      expect(isSafeSize(readU64(bytes, 0))).toBe(false);
    },
  );

  it.each([-1, 0.5, 2 ** 53, Number.NaN])("%d is refused by the 64-bit writers", (value) => {
    expect(() => writeU64(new Uint8Array(8), 0, value)).toThrow(RangeError);
    expect(() => writeU64LE(new Uint8Array(8), 0, value)).toThrow(RangeError);
  });

  it("reading past the end is a RangeError", () => {
    expect(() => readU32(new Uint8Array(3), 0)).toThrow("byte 3 is outside of 3 bytes");
  });
});
