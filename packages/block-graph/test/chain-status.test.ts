import { StatusFlag } from "@blocklayer/driver";
import { describe, expect, it } from "vitest";
import type { BlockNode } from "../src/block-node.ts";
import { isAllocated, isAllocatedAbove, isZeroFast } from "../src/io/status-queries.ts";
import { rigNode, rootEdge } from "./io-rig.ts";
import { filterLayer, memoryLayer } from "./layers.ts";
import { loggedDisk } from "./logged-disk.ts";

const { data, zero, allocated, eof } = StatusFlag;

/** Three layers of 8 clusters: `top` holds cluster 0, `middle` 1 and 6, `base` 2, and is 4 clusters long. */
async function chain(): Promise<{ readonly top: BlockNode; readonly filter: BlockNode }> {
  const base = memoryLayer("base", { size: 2048 });
  const middle = memoryLayer("middle", { size: 4096, backing: base });
  const filter = filterLayer("filter", middle);
  const top = memoryLayer("top", { size: 4096, backing: filter });
  await rootEdge(base).pwrite(1024, new Uint8Array(512).fill(2));
  await rootEdge(middle).pwrite(512, new Uint8Array(512).fill(1));
  await rootEdge(middle).pwrite(3072, new Uint8Array(512).fill(6));
  await rootEdge(top).pwrite(0, new Uint8Array(512).fill(9));
  return { top, filter };
}

describe("the status over a chain", () => {
  it.each([
    [0, 4096, { flags: data | allocated, length: 512, depth: 1 }],
    // The filter is a layer of the walk, and shows its child's.
    [512, 3584, { flags: data | allocated, length: 512, depth: 2 }],
    [1024, 3072, { flags: data | allocated, length: 512, depth: 4 }],
    [1536, 2560, { flags: zero, length: 512, depth: 0 }],
    [2048, 1024, { flags: zero | allocated, length: 1024, depth: 4 }],
    [3072, 1024, { flags: data | allocated, length: 512, depth: 2 }],
    [3584, 512, { flags: zero | allocated | eof, length: 512, depth: 4 }],
    [4096, 512, { flags: eof, length: 0, depth: 0 }],
  ])("at %d of %d bytes", async (offset, length, expected) => {
    const { top } = await chain();
    const {
      flags,
      length: run,
      depth,
    } = await top.io.chainStatus(offset, length, { wantZero: false });
    expect({ flags, length: run, depth }).toEqual(expected);
  });

  it.each([
    ["top", false, 0, { flags: 0, length: 512, depth: 0 }],
    ["top", true, 512, { flags: 0, length: 512, depth: 0 }],
    ["middle", false, 512, { length: 512, depth: 2 }],
    ["middle", true, 1024, { flags: 0, length: 512, depth: 0 }],
    ["base", false, 1024, { flags: 0, length: 512, depth: 0 }],
    ["base", true, 1024, { flags: data | allocated, length: 512, depth: 4 }],
    ["filter", false, 512, { flags: 0, length: 512, depth: 0 }],
  ] as const)(
    "stops at %s (included: %s) for offset %d",
    async (base, includeBase, offset, expected) => {
      const { top } = await chain();
      const options = { base, includeBase, wantZero: false };
      expect(await top.io.chainStatus(offset, 512, options)).toMatchObject(expected);
    },
  );

  it("with a base that is not in the chain is EINVAL", async () => {
    const { top } = await chain();
    await expect(top.io.chainStatus(0, 512, { base: "elsewhere" })).rejects.toMatchObject({
      code: "EINVAL",
      message: "Node 'elsewhere' is not in the backing chain of 'top'",
      context: { node: "top", operation: "chainStatus", base: "elsewhere" },
    });
    expect(top.io.inFlight).toBe(0);
  });

  it("tiles the disk and says zero only of zeroes", async () => {
    const { top } = await chain();
    const content = new Uint8Array(4096);
    await rootEdge(top).pread(0, content);
    let offset = 0;
    while (offset < 4096) {
      const { flags, length } = await top.io.chainStatus(offset, 4096 - offset);
      expect(length).toBeGreaterThan(0);
      if ((flags & zero) !== 0) {
        expect(content.subarray(offset, offset + length).every((byte) => byte === 0)).toBe(true);
      }
      offset += length;
    }
    expect(offset).toBe(4096);
  });
});

describe("queries of allocation", () => {
  it.each([
    [
      "with a driver that says nothing is here",
      { flags: 0, length: 100 },
      0,
      100,
      { allocated: false, length: 100 },
    ],
    ["without an answer of the driver", undefined, 0, 100, { allocated: true, length: 100 }],
    ["of no bytes", { flags: data, length: 100 }, 0, 0, { allocated: false, length: 0 }],
    ["beyond the end", { flags: data, length: 100 }, 8192, 100, { allocated: false, length: 0 }],
  ])("isAllocated %s", async (_title, answer, offset, length, expected) => {
    const blockStatus = answer === undefined ? undefined : () => Promise.resolve(answer);
    const { driver } = loggedDisk({ size: 4096 }, { blockStatus });
    const node = rigNode({ driver: () => driver });
    expect(await isAllocated(node, offset, length)).toEqual(expected);
  });

  it.each([
    [0, {}, 1],
    [512, {}, 2],
    [1024, {}, 4],
    [1024, { base: "base" }, 0],
    [1024, { base: "base", includeBase: true }, 4],
    [1536, {}, 0],
  ])("isAllocatedAbove at %d with %o is at depth %d", async (offset, options, depth) => {
    const { top } = await chain();
    expect(await isAllocatedAbove(top, offset, 512, options)).toEqual({ depth, length: 512 });
  });

  it.each([
    [0, 512, false],
    [1536, 512, true],
    [1536, 2048, false],
    [2048, 1024, true],
    [0, 0, true],
  ])("isZeroFast at %d of %d bytes is %s", async (offset, length, expected) => {
    const { top } = await chain();
    expect(await isZeroFast(top, offset, length)).toBe(expected);
  });
});
