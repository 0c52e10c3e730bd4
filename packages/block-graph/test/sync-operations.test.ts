import { type BlockDriver, Permissions, RequestFlag, StatusFlag } from "@blocklayer/driver";
import { ReferenceDisk } from "@blocklayer/driver-tests";
import { describe, expect, it } from "vitest";
import type { BlockNode } from "../src/block-node.ts";
import type { Edge } from "../src/edge.ts";
import { isAllocated } from "../src/io/status-queries.ts";
import { type RigNode, rigNode, rootEdge } from "./io-rig.ts";
import { loggedDisk } from "./logged-disk.ts";

const SIZE = 64 * 1024;

/** A node whose driver has all callbacks. */
function node(generic: RigNode["generic"] = {}, overrides: Partial<BlockDriver> = {}): BlockNode {
  const { driver } = loggedDisk(
    { size: SIZE },
    { blockStatus: (_offset, length) => Promise.resolve({ flags: 0, length }), ...overrides },
  );
  return rigNode({ driver: () => driver, generic });
}

type Row = readonly [string, () => Promise<unknown>, string | undefined];

function edge(generic: RigNode["generic"] = {}): Edge {
  return rootEdge(node(generic));
}

const ROWS: readonly Row[] = [
  ["read", () => edge().pread(0, new Uint8Array(512)), undefined],
  ["read at -2", () => edge().pread(-2, new Uint8Array(512)), "EIO"],
  ["write", () => edge().pwrite(0, new Uint8Array(512)), undefined],
  ["write at -2", () => edge().pwrite(-2, new Uint8Array(512)), "EIO"],
  [
    "compressed write",
    () => edge().pwrite(0, new Uint8Array(512), { flags: RequestFlag.compressed }),
    "ENOTSUP",
  ],
  ["discard with unmap", () => edge().pdiscard(0, 512), undefined],
  ["discard without unmap", () => edge({ discard: "ignore" }).pdiscard(0, 512), undefined],
  ["discard at -2", () => edge().pdiscard(-2, 512), "EIO"],
  ["truncate", () => edge().truncate(65536), undefined],
  ["truncate to -2", () => edge().truncate(-2), "EINVAL"],
  ["truncate a read-only node", () => edge({ readOnly: true }).truncate(65536), "EACCES"],
  ["flush", () => edge().flush(), undefined],
  ["flush a read-only node", () => edge({ readOnly: true }).flush(), undefined],
  ["check", () => edge().check(), "ENOTSUP"],
];

/** @see spec/graph.md section 10 */
describe("operations of a node without a graph", () => {
  it.each(ROWS)("%s", async (_title, operation, code) => {
    if (code === undefined) await operation();
    else await expect(operation()).rejects.toMatchObject({ code });
  });

  it.each([
    ["a driver that answers 0", node(), 0, 512, false, 512],
    ["no bytes", node(), 0, 0, false, 0],
    ["an offset beyond the end", node(), SIZE + 512, 512, false, 0],
    [
      "a driver without the callback",
      rigNode({ driver: () => new ReferenceDisk({ size: SIZE }) }),
      0,
      512,
      true,
      512,
    ],
  ])("is-allocated with %s", async (_title, asked, offset, length, allocated, run) => {
    expect(await isAllocated(asked, offset, length)).toEqual({ allocated, length: run });
  });

  it("a status of data is allocated", async () => {
    const blockStatus = (
      _offset: number,
      length: number,
    ): Promise<{ flags: number; length: number }> =>
      Promise.resolve({ flags: StatusFlag.data, length });
    expect(await isAllocated(node({}, { blockStatus }), 0, 512)).toEqual({
      allocated: true,
      length: 512,
    });
  });

  it("a write without the permission never reaches the driver", async () => {
    const { driver, log } = loggedDisk({ size: SIZE });
    const reader = rootEdge(rigNode({ driver: () => driver }), Permissions.consistentRead);
    await expect(reader.pwrite(0, new Uint8Array(512))).rejects.toThrow(
      "may not pwrite on node 'node0'",
    );
    expect(log).toEqual([]);
  });
});
