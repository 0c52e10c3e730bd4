import { RegisterOracle, readStamp, writeStamp } from "@blocklayer/simulator";
import { describe, expect, it } from "vitest";

const CELL = 64;

function oracle(): RegisterOracle {
  return new RegisterOracle({ disk: 3, size: 4 * CELL, cellSize: CELL });
}

/** What a read of the first cell that begins now is told about `content`. */
function judge(judged: RegisterOracle, content: Uint8Array): string | undefined {
  const read = judged.begin("read", 0, content.length);
  const problem = judged.check(read, content);
  judged.end(read, true);
  return problem;
}

describe("the register oracle", () => {
  it("allows zeroes at first and nothing else", () => {
    const judged = oracle();
    expect(judge(judged, new Uint8Array(CELL))).toBeUndefined();
    expect(judge(judged, new Uint8Array(CELL).fill(1))).toContain(
      "cell 0 of disk 3 holds damaged, written by zeroes 0",
    );
  });

  it("allows the old and the new value while a write runs", () => {
    const judged = oracle();
    const write = judged.begin("write", 0, CELL);
    expect(judge(judged, new Uint8Array(CELL))).toBeUndefined();
    expect(judge(judged, judged.payload(write))).toBeUndefined();
  });

  it("rules the old value out when a write has ended", () => {
    const judged = oracle();
    const write = judged.begin("write", 0, CELL);
    judged.end(write, true);
    expect(judge(judged, judged.payload(write))).toBeUndefined();
    expect(judge(judged, new Uint8Array(CELL))).toContain("holds zero");
  });

  it("allows both values after a write that failed", () => {
    const judged = oracle();
    const write = judged.begin("write", 0, CELL);
    judged.end(write, false);
    expect(judge(judged, new Uint8Array(CELL))).toBeUndefined();
    expect(judge(judged, judged.payload(write))).toBeUndefined();
  });

  it("allows either value of writes that overlapped in time", () => {
    const judged = oracle();
    const writes = [judged.begin("write", 0, CELL), judged.begin("write", 0, CELL)];
    for (const write of writes) judged.end(write, true);
    for (const write of writes) expect(judge(judged, judged.payload(write))).toBeUndefined();
    expect(judge(judged, new Uint8Array(CELL))).toContain("holds zero");
  });

  it("allows what a read that began earlier may have seen", () => {
    const judged = oracle();
    const read = judged.begin("read", 0, CELL);
    judged.end(judged.begin("write", 0, CELL), true);
    expect(judged.check(read, new Uint8Array(CELL))).toBeUndefined();
  });

  it("tells the value of another cell and of another disk", () => {
    const judged = oracle();
    const write = judged.begin("write", 0, 2 * CELL);
    judged.end(write, true);
    const moved = judged.payload(write).slice(CELL);
    expect(judge(judged, moved)).toContain("holds operation 1 for cell 1 of disk 3");
    const other = new RegisterOracle({ disk: 4, size: 4 * CELL, cellSize: CELL });
    const foreign = other.payload(other.begin("write", 0, CELL));
    expect(judge(judged, foreign)).toContain("of disk 4");
  });

  it("allows zeroes, scrambled bytes and the old value after a discard", () => {
    const judged = oracle();
    const write = judged.begin("write", 0, CELL);
    judged.end(write, true);
    judged.end(judged.begin("discard", 0, CELL), true);
    for (const content of [new Uint8Array(CELL), new Uint8Array(CELL).fill(0xd5)]) {
      expect(judge(judged, content)).toBeUndefined();
    }
    expect(judge(judged, judged.payload(write))).toBeUndefined();
  });

  it.each([
    { title: "lost without a flush", flushes: false, isStable: false, isAllowed: true },
    { title: "not lost after a flush", flushes: true, isStable: false, isAllowed: false },
    {
      title: "not lost when it was to be stable",
      flushes: false,
      isStable: true,
      isAllowed: false,
    },
  ])("a write may be $title in a crash", ({ flushes, isStable, isAllowed }) => {
    const judged = oracle();
    judged.end(judged.begin("write", 0, CELL), true, isStable);
    if (flushes) judged.beginFlush()();
    const problem = judged.recover(new Uint8Array(4 * CELL));
    if (isAllowed) expect(problem).toBeUndefined();
    else expect(problem).toContain("after a crash: cell 0");
  });

  it("lets a flush cover only what had ended when it began", () => {
    const judged = oracle();
    const write = judged.begin("write", 0, CELL);
    const flushed = judged.beginFlush();
    judged.end(write, true);
    flushed();
    expect(judged.recover(new Uint8Array(4 * CELL))).toBeUndefined();
  });

  it("takes what a crash left as the truth", () => {
    const judged = oracle();
    const write = judged.begin("write", 0, CELL);
    judged.end(write, true);
    judged.recover(new Uint8Array(4 * CELL));
    expect(judge(judged, new Uint8Array(CELL))).toBeUndefined();
    expect(judge(judged, judged.payload(write))).toContain("holds operation 1");
  });

  it("refuses cells that hold no stamp", () => {
    expect(() => new RegisterOracle({ disk: 1, size: 64, cellSize: 16 })).toThrow(
      "cells of 16 bytes do not fit a disk of 64",
    );
  });
});

describe("a stamp", () => {
  it("is read as it was written", () => {
    const words = new Uint32Array(16);
    writeStamp(words, 1, 2, 3);
    expect(readStamp(words)).toEqual({ kind: "stamp", disk: 1, cell: 2, operation: 3 });
  });

  it("is damaged by any word that changes", () => {
    for (let index = 0; index < 16; index += 1) {
      const words = new Uint32Array(16);
      writeStamp(words, 1, 2, 3);
      words[index] = (words[index] ?? 0) + 1;
      expect(readStamp(words)).toEqual({ kind: "damaged" });
    }
  });
});
