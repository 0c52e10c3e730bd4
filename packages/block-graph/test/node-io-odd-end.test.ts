import { Permissions } from "@blocklayer/driver";
import { patternBytes, ScriptedDriver } from "@blocklayer/driver-tests";
import { describe, expect, it } from "vitest";
import type { BlockNode } from "../src/block-node.ts";
import type { Edge } from "../src/edge.ts";
import { rigNode, rootEdge } from "./io-rig.ts";

const SIZE = 1000;

/** A disk of 1000 bytes in blocks of 512. */
function oddDisk(): { driver: ScriptedDriver; node: BlockNode; edge: Edge; requests(): string[] } {
  const driver = new ScriptedDriver({
    size: SIZE,
    limits: { requestAlignment: 512 },
    growing: true,
  });
  driver.bytes.set(patternBytes(SIZE, 1));
  const node = rigNode({ driver: () => driver });
  const requests = (): string[] =>
    driver.log.map(({ operation, offset, length }) => `${operation} ${offset}+${length}`);
  return { driver, node, edge: rootEdge(node), requests };
}

describe("the end of a disk that is not a multiple of its alignment", () => {
  it.each([
    ["to the end", 900, 100],
    ["of everything", 0, SIZE],
    ["of the last block", 512, 488],
    ["beyond the end in the last block", 990, 34],
    ["beyond the last block", 990, 2000],
    ["from beyond the end", 1010, 10],
    ["from beyond the last block", 4096, 10],
  ])("a read %s is data, then zeroes", async (_title, offset, length) => {
    const { edge } = oddDisk();
    const expected = new Uint8Array(8192);
    expected.set(patternBytes(SIZE, 1));
    const buffer = new Uint8Array(length).fill(0xee);
    await edge.pread(offset, buffer);
    expect(buffer).toEqual(expected.subarray(offset, offset + length));
  });

  it.each<[string, (edge: Edge) => Promise<void>, (bytes: Uint8Array) => void, string[]]>([
    [
      "a write to the end",
      (edge) => edge.pwrite(900, patternBytes(100, 2)),
      (bytes) => bytes.set(patternBytes(100, 2), 900),
      ["pread 512+512", "pwrite 512+512"],
    ],
    [
      "a write of everything",
      (edge) => edge.pwrite(0, patternBytes(SIZE, 2)),
      (bytes) => bytes.set(patternBytes(SIZE, 2)),
      ["pread 0+1024", "pwrite 0+1024"],
    ],
    [
      "zeroes to the end",
      (edge) => edge.pwriteZeroes(10, 990),
      (bytes) => bytes.fill(0, 10),
      ["pread 0+512", "pwrite 0+512", "pread 512+512", "pwrite 512+512"],
    ],
  ])("%s keeps what is around it and fills the last block", async (_title, act, model, log) => {
    const { driver, node, edge, requests } = oddDisk();
    const expected = new Uint8Array(1024);
    expected.set(patternBytes(SIZE, 1));
    await act(edge);
    model(expected);
    expect(requests()).toEqual(log);
    expect(driver.bytes).toEqual(expected);
    expect([node.size, driver.size]).toEqual([1024, 1024]);
  });

  it("is not written by a parent that may not resize, since that would move it", async () => {
    const { node, requests } = oddDisk();
    // The graph refuses such a parent, unless the end became odd later (spec/graph.md section 3.2).
    const narrow = rootEdge(node, Permissions.write);
    await narrow.pwrite(0, patternBytes(512, 2));
    for (const refused of [
      narrow.pwrite(900, new Uint8Array(100)),
      narrow.pwriteZeroes(512, 488),
      narrow.pwrite(SIZE, new Uint8Array(1)),
    ]) {
      await expect(refused).rejects.toMatchObject({ code: "EIO" });
    }
    expect(requests()).toEqual(["pwrite 0+512"]);
    expect(node.size).toBe(SIZE);
  });

  it("a discard leaves the incomplete block", async () => {
    const { edge, requests, node } = oddDisk();
    await edge.pdiscard(0, SIZE);
    expect(requests()).toEqual(["pdiscard 0+512"]);
    expect(node.size).toBe(SIZE);
  });

  it("the status tiles the disk and ends with it", async () => {
    const { edge } = oddDisk();
    expect(await edge.blockStatus(0, 4096)).toMatchObject({ length: SIZE, flags: 1 | 4 | 16 | 32 });
    expect(await edge.blockStatus(700, 4096)).toMatchObject({ length: 300, offset: 700 });
    expect(await edge.blockStatus(SIZE, 24)).toMatchObject({ length: 0, flags: 32 });
  });

  it("a request of one turn that reaches beyond is counted out again", async () => {
    const { edge, node } = oddDisk();
    await Promise.all([edge.pread(600, new Uint8Array(400)), edge.pwrite(980, new Uint8Array(20))]);
    expect([node.io.inFlight, [...node.io.tracker.requests].length]).toEqual([0, 0]);
  });
});
