import { RegisterOracle } from "@blocklayer/simulator";
import { describe, expect, it } from "vitest";

const CELL = 64;
const SIZE = 4 * CELL;

/** Writes a cell, and returns what it wrote. */
function write(oracle: RegisterOracle, cell: number): Uint8Array {
  const operation = oracle.begin("write", cell * CELL, CELL);
  const payload = oracle.payload(operation);
  oracle.end(operation, true, true);
  return payload;
}

function judge(oracle: RegisterOracle, content: Uint8Array): string | undefined {
  const read = oracle.begin("read", 0, content.length);
  const problem = oracle.check(read, content);
  oracle.end(read, true);
  return problem;
}

describe("the register oracle of a disk that goes back", () => {
  it("allows what was there when it was kept, and nothing that came later", () => {
    const oracle = new RegisterOracle({ disk: 1, size: SIZE, cellSize: CELL });
    const first = write(oracle, 0);
    const image = oracle.beginCapture()();
    const second = write(oracle, 0);
    const restore = oracle.beginRestore(image, SIZE);
    expect(judge(oracle, second)).toBeUndefined();
    expect(judge(oracle, first)).toBeUndefined();
    oracle.end(restore, true);
    expect(judge(oracle, second)).toContain("cell 0 of disk 1 holds");
    expect(judge(oracle, first)).toBeUndefined();
  });

  it("allows what was written while it was kept, or before", () => {
    const oracle = new RegisterOracle({ disk: 1, size: SIZE, cellSize: CELL });
    const before = write(oracle, 0);
    const capture = oracle.beginCapture();
    const during = write(oracle, 0);
    const image = capture();
    const after = write(oracle, 0);
    oracle.end(oracle.beginRestore(image, SIZE), true);
    expect(judge(oracle, before)).toBeUndefined();
    expect(judge(oracle, during)).toBeUndefined();
    expect(judge(oracle, after)).toContain("cell 0 of disk 1 holds");
  });

  it("has zeroes behind the length that it goes back to", () => {
    const oracle = new RegisterOracle({ disk: 1, size: SIZE, cellSize: CELL });
    const content = new Uint8Array(SIZE);
    content.set(write(oracle, 0));
    content.set(write(oracle, 1), CELL);
    const image = oracle.beginCapture()();
    oracle.end(oracle.beginRestore(image, CELL), true);
    expect(judge(oracle, content)).toContain("cell 1 of disk 1 holds");
    content.fill(0, CELL);
    expect(judge(oracle, content)).toBeUndefined();
  });

  it("goes on from what is found after a crash", () => {
    const oracle = new RegisterOracle({ disk: 1, size: SIZE, cellSize: CELL });
    const content = new Uint8Array(SIZE);
    const first = write(oracle, 0);
    const image = oracle.beginCapture()();
    const second = write(oracle, 0);
    oracle.beginRestore(image, SIZE);
    content.set(first);
    expect(oracle.recover(content)).toBeUndefined();
    expect(judge(oracle, second)).toContain("cell 0 of disk 1 holds");
    expect(judge(oracle, first)).toBeUndefined();
  });
});
