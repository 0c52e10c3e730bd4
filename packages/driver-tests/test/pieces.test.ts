import { expect, it } from "vitest";
import { piecesOf } from "../src/pieces.ts";

it.each<[number, number, number, number, [number, number][]]>([
  [0, 100, 0, 0, [[0, 100]]],
  [
    5,
    100,
    0,
    40,
    [
      [5, 40],
      [45, 40],
      [85, 20],
    ],
  ],
  [0, 64, 16, 0, [[0, 64]]],
  [5, 4, 16, 0, [[5, 4]]],
  [
    5,
    20,
    16,
    0,
    [
      [5, 11],
      [16, 9],
    ],
  ],
  [
    5,
    60,
    16,
    0,
    [
      [5, 11],
      [16, 48],
      [64, 1],
    ],
  ],
  [
    0,
    70,
    16,
    40,
    [
      [0, 32],
      [32, 32],
      [64, 6],
    ],
  ],
  [
    0,
    32,
    16,
    8,
    [
      [0, 8],
      [8, 8],
      [16, 8],
      [24, 8],
    ],
  ],
])("%i+%i in units of %i of at most %i", (offset, length, alignment, lengthMax, expected) => {
  expect(piecesOf(offset, length, alignment, lengthMax)).toEqual(expected);
});
