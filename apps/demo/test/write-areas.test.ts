import { describe, expect, it } from "vitest";
import {
  chooseAreas,
  parseExtents,
  parseFreeBlocks,
  spreadAreas,
} from "../src/disk/write-areas.ts";

const EXTENTS = `Level Entries       Logical        Physical Length Flags
 0/ 1   1/  1     0 - 48828  57605           48829
 1/ 1   1/  3     0 -   185   8007 -   8192    186 
 1/ 1   2/  3   186 - 15798   8964 -  24576  15613 Uninit
 1/ 1   3/  3 15799 - 15799  24836 -  24836      1 
`;

const DUMP = `Free blocks:              159950
Block size:               1024
  Group 0
  Free blocks: 
  Free blocks: 58385-65536, 70000
`;

describe("the areas that are written to", () => {
  it("come from the leaves of a file's extent tree", () => {
    expect(parseExtents(EXTENTS, 4096)).toEqual([
      { offset: 8007 * 4096, length: 186 * 4096 },
      { offset: 24836 * 4096, length: 4096 },
    ]);
  });

  it("come from the free blocks of all groups", () => {
    expect(parseFreeBlocks(DUMP)).toEqual([
      { offset: 58385 * 1024, length: 7152 * 1024 },
      { offset: 70000 * 1024, length: 1024 },
    ]);
  });

  it("are none where the output is of something else", () => {
    expect(parseFreeBlocks("dumpe2fs: Bad magic number")).toEqual([]);
  });

  it("are the largest ones, in whole pages, of a limited size in all", () => {
    const areas = [
      { offset: 100, length: 4096 },
      { offset: 8192, length: 65536 },
      { offset: 1024 * 1024 + 512, length: 16384 },
    ];
    expect(chooseAreas(areas, 65536, 2)).toEqual([
      { offset: 8192, length: 32768 },
      { offset: 1024 * 1024 + 4096, length: 12288 },
    ]);
  });

  it("lie apart, behind the first quarter, on a disk of which nothing is known", () => {
    const size = 2 ** 20;
    const areas = spreadAreas(size, 65536, 4);
    expect(areas.map(({ offset }) => offset / size)).toEqual([0.25, 0.4375, 0.625, 0.8125]);
    expect(areas.every(({ length }) => length === 16384)).toBe(true);
  });
});
