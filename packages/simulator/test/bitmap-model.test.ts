import { HBitmap } from "@blocklayer/hbitmap";
import { beforeEach, describe, expect, it } from "vitest";
import { BitmapModel, CELL, ModelDisk } from "../src/worlds/bitmap-model.ts";

const SIZE = 8 * CELL;

let content: Uint8Array;
let disk: ModelDisk;

beforeEach(() => {
  content = new Uint8Array(SIZE);
  disk = new ModelDisk("disk", () => content, CELL);
});

function bitmap(granularity: number, ...dirty: readonly number[]): HBitmap {
  const map = new HBitmap(content.length, granularity);
  for (const cell of dirty) map.set(cell * CELL, 1);
  return map;
}

function model(isRecording = true, granularity = CELL): BitmapModel {
  return new BitmapModel(disk, granularity, isRecording);
}

/** A change of one cell, from its beginning to its end. */
function change(cell: number, value = 7): void {
  const running = disk.begin(cell * CELL, CELL);
  content[cell * CELL] = value;
  disk.end(running);
}

describe("a bitmap that records", () => {
  it.each<{ name: string; dirty: number[]; problem: string | undefined }>([
    { name: "has what has changed", dirty: [2], problem: undefined },
    { name: "lacks it", dirty: [], problem: "the bytes at 1024 are clean" },
    { name: "has more", dirty: [2, 5], problem: "the bytes at 2560 are dirty for no reason" },
  ])("$name: $problem", ({ dirty, problem }) => {
    const one = model();
    change(2);
    expect(one.problem(bitmap(CELL, ...dirty))).toBe(problem);
  });

  it("need not have what is under way, or what is as it was", () => {
    const one = model();
    change(3, 0);
    const running = disk.begin(0, CELL);
    content[0] = 1;
    expect(one.problem(bitmap(CELL))).toBeUndefined();
    expect(one.problem(bitmap(CELL, 0, 3))).toBeUndefined();
    disk.end(running);
    expect(one.problem(bitmap(CELL))).toBe("the bytes at 0 are clean");
  });

  it("covers the disk", () => {
    const map = new HBitmap(SIZE - CELL, CELL);
    expect(model().problem(map)).toBe(`it covers ${SIZE - CELL} of ${SIZE} bytes`);
  });
});

describe("a bitmap that is switched", () => {
  it("keeps what it owed, and owes nothing that happens while it is off", () => {
    const one = model();
    change(1);
    one.stop();
    change(2);
    content[CELL] = 0;
    expect(one.problem(bitmap(CELL))).toBe(`the bytes at ${CELL} are clean`);
    one.start();
    change(4);
    expect(one.problem(bitmap(CELL, 1, 4))).toBeUndefined();
    expect(one.problem(bitmap(CELL, 1, 2, 4))).toBe("the bytes at 1024 are dirty for no reason");
    one.clear();
    expect(one.problem(bitmap(CELL))).toBeUndefined();
  });
});

describe("a bitmap that is merged", () => {
  it.each<{ name: string; dirty: number[]; problem: string | undefined }>([
    { name: "in whole coarse groups", dirty: [4, 5, 6, 7], problem: undefined },
    { name: "just the bytes", dirty: [5], problem: undefined },
    { name: "not at all", dirty: [], problem: "the bytes at 2560 are clean" },
    { name: "too far", dirty: [3, 5], problem: "the bytes at 1536 are dirty for no reason" },
  ])("$name: $problem", ({ dirty, problem }) => {
    const source = model(true, 4 * CELL);
    const target = model(false);
    change(5);
    target.include(source);
    expect(target.problem(bitmap(CELL, ...dirty))).toBe(problem);
  });
});

describe("a frozen bitmap", () => {
  it("leaves to its successor what it does not have of a change under way", () => {
    const one = model();
    change(1);
    const running = disk.begin(2 * CELL, CELL);
    content[2 * CELL] = 1;
    const successor = one.freeze(bitmap(CELL, 1));
    disk.end(running);
    expect(one.problem(bitmap(CELL, 1))).toBeUndefined();
    expect(successor.problem(bitmap(CELL))).toBe("the bytes at 1024 are clean");
    expect(successor.problem(bitmap(CELL, 2))).toBeUndefined();
    one.reclaim(successor);
    expect(one.problem(bitmap(CELL, 1))).toBe("the bytes at 1024 are clean");
    expect(one.problem(bitmap(CELL, 1, 2))).toBeUndefined();
    expect(one.isRecording).toBe(true);
  });

  it("that was off has a successor that is off", () => {
    expect(model(false).freeze(bitmap(CELL)).isRecording).toBe(false);
  });
});

describe("a disk of another length", () => {
  it("forgets what was cut off, and what is new is clean", () => {
    const one = model();
    change(1);
    change(6);
    content = content.slice(0, 4 * CELL);
    disk.resized();
    expect(one.problem(bitmap(CELL, 1))).toBeUndefined();
    const longer = new Uint8Array(SIZE);
    longer.set(content);
    content = longer;
    disk.resized();
    expect(one.problem(bitmap(CELL, 1))).toBeUndefined();
    expect(one.problem(bitmap(CELL, 1, 6))).toBe("the bytes at 3072 are dirty for no reason");
  });

  it("may be dirty where a change has waited for it", () => {
    const one = model();
    disk.begin(6 * CELL, CELL);
    content = content.slice(0, 4 * CELL);
    disk.resized();
    content = new Uint8Array(SIZE);
    disk.resized();
    expect(one.problem(bitmap(CELL, 6))).toBeUndefined();
  });

  it("may be dirty in a last group that the old end went through", () => {
    const one = model(true, 8 * CELL);
    content = content.slice(0, 4 * CELL);
    disk.resized();
    change(1);
    content = new Uint8Array(SIZE);
    content[CELL] = 7;
    disk.resized();
    expect(one.problem(bitmap(8 * CELL, 1))).toBeUndefined();
  });
});

describe("another process", () => {
  it("goes on with what was owed", () => {
    const one = model();
    change(1);
    const next = new ModelDisk("disk", () => content, CELL);
    const map = bitmap(CELL, 1);
    const moved = one.moveTo(next, map);
    expect(moved.problem(map)).toBeUndefined();
    expect(moved.problem(bitmap(CELL))).toBe(`the bytes at ${CELL} are clean`);
  });

  it("has nothing under way", () => {
    disk.begin(0, CELL);
    expect(disk.isRunning(0, CELL)).toBe(true);
    disk.crash();
    expect(disk.isRunning(0, CELL)).toBe(false);
  });

  it("sees what a transaction took down", () => {
    const before = disk.begin(0, CELL);
    const end = disk.takeDown();
    const during = disk.begin(CELL, CELL);
    expect(end()).toEqual([before, during]);
    disk.begin(2 * CELL, CELL);
    expect(end()).toHaveLength(2);
  });
});
