import { Permissions, RequestFlag } from "@blocklayer/driver";
import { patternBytes, ScriptedDriver } from "@blocklayer/driver-tests";
import { describe, expect, it } from "vitest";
import type { BlockNode } from "../src/block-node.ts";
import { isAllocated } from "../src/io/status-queries.ts";
import { diskNode, rigNode, rootEdge } from "./io-rig.ts";
import { memoryLayer } from "./layers.ts";
import { loggedDisk } from "./logged-disk.ts";

const { copyOnRead, prefetch } = RequestFlag;
const CLUSTER = 1024;

async function turns(): Promise<void> {
  for (let turn = 0; turn < 60; turn += 1) await Promise.resolve();
}

/** An empty overlay of eight clusters over a disk that is full but for cluster 5, which is zeroes. */
function overlay(rig: Parameters<typeof memoryLayer>[2] = {}): {
  readonly top: BlockNode;
  readonly content: Uint8Array;
} {
  const { node: base, disk } = diskNode({ size: 8 * CLUSTER });
  disk.bytes.set(patternBytes(8 * CLUSTER, 1));
  disk.bytes.fill(0, 5 * CLUSTER, 6 * CLUSTER);
  const top = memoryLayer("top", { size: 8 * CLUSTER, clusterSize: CLUSTER, backing: base }, rig);
  return { top, content: disk.bytes.slice() };
}

async function allocatedClusters(node: BlockNode): Promise<number[]> {
  const found: number[] = [];
  for (let cluster = 0; cluster < 8; cluster += 1) {
    if ((await isAllocated(node, cluster * CLUSTER, CLUSTER)).allocated) found.push(cluster);
  }
  return found;
}

describe("copy-on-read", () => {
  it.each([
    ["a byte", 1500, 1, [1]],
    ["a cluster", CLUSTER, CLUSTER, [1]],
    ["a range over clusters", 1500, 2000, [1, 2, 3]],
    ["a range with zeroes", 4 * CLUSTER, 3 * CLUSTER, [4, 5, 6]],
    ["everything", 0, 8 * CLUSTER, [0, 1, 2, 3, 4, 5, 6, 7]],
  ])(
    "of %s allocates whole clusters and reads the same",
    async (_title, offset, length, expected) => {
      const { top, content } = overlay();
      const buffer = new Uint8Array(length);
      const edge = rootEdge(top, Permissions.consistentRead);
      await edge.pread(offset, buffer, { flags: copyOnRead });
      expect(buffer).toEqual(content.subarray(offset, offset + length));
      expect(await allocatedClusters(top)).toEqual(expected);
      const again = new Uint8Array(8 * CLUSTER);
      await edge.pread(0, again);
      expect(again).toEqual(content);
    },
  );

  it("is what every read of the node does while somebody asks for it", async () => {
    const { top } = overlay();
    const edge = rootEdge(top);
    top.io.copyOnReadCount = 1;
    await edge.pread(0, new Uint8Array(CLUSTER));
    top.io.copyOnReadCount = 0;
    await edge.pread(CLUSTER, new Uint8Array(CLUSTER));
    expect(await allocatedClusters(top)).toEqual([0]);
  });

  it.each([
    ["allocated by the read", 0, [0]],
    ["allocated before", 3 * CLUSTER, [3]],
  ])("with prefetch leaves the buffer as it is: %s", async (_title, offset, expected) => {
    const { top } = overlay();
    const edge = rootEdge(top);
    if (offset > 0) await edge.pwrite(offset, new Uint8Array(CLUSTER).fill(7));
    const buffer = new Uint8Array(CLUSTER).fill(99);
    await edge.pread(offset, buffer, { flags: copyOnRead | prefetch });
    expect(buffer.every((byte) => byte === 99)).toBe(true);
    expect(await allocatedClusters(top)).toEqual(expected);
  });

  it.each([
    ["inactive", (node: BlockNode) => Object.assign(node, { active: false }), {}],
    ["read-only", () => undefined, { generic: { readOnly: true } }],
  ])("never writes to a node that is %s", async (_title, prepare, rig) => {
    const { top, content } = overlay(rig);
    prepare(top);
    const buffer = new Uint8Array(CLUSTER);
    await rootEdge(top).pread(0, buffer, { flags: copyOnRead });
    expect(buffer).toEqual(content.subarray(0, CLUSTER));
    expect(await allocatedClusters(top)).toEqual([]);
  });

  it("is not told to observers, but is something to flush", async () => {
    const { top } = overlay();
    const seen: string[] = [];
    top.addObserver({
      beforeWrite: ({ kind }) => void seen.push(kind),
      afterWrite: ({ kind }) => void seen.push(kind),
    });
    await rootEdge(top).pread(0, new Uint8Array(CLUSTER), { flags: copyOnRead });
    expect(seen).toEqual([]);
    expect(top.io.writeGeneration).toBeGreaterThan(top.io.flushedGeneration);
  });

  it("beyond the end reads zeroes", async () => {
    const { top, content } = overlay();
    const buffer = new Uint8Array(2 * CLUSTER).fill(9);
    await rootEdge(top).pread(7 * CLUSTER, buffer, { flags: copyOnRead });
    expect(buffer.subarray(0, CLUSTER)).toEqual(content.subarray(7 * CLUSTER));
    expect(buffer.subarray(CLUSTER).every((byte) => byte === 0)).toBe(true);
  });

  /** A disk whose layer holds nothing, to the request path. */
  function unallocated(driver: ScriptedDriver): BlockNode {
    const holding = Object.assign(driver, {
      getInfo: () => Promise.resolve({ clusterSize: CLUSTER }),
      blockStatus: (_offset: number, length: number) => Promise.resolve({ flags: 0, length }),
    });
    return rigNode({ driver: () => holding });
  }

  it.each(["pread", "pwrite"] as const)(
    "fails when the %s of the copy fails",
    async (operation) => {
      const driver = new ScriptedDriver({ size: 8 * CLUSTER });
      driver.bytes.fill(1);
      const node = unallocated(driver);
      driver.failNth(operation, 1, "ENOSPC");
      const read = rootEdge(node).pread(0, new Uint8Array(10), { flags: copyOnRead });
      await expect(read).rejects.toMatchObject({ code: "ENOSPC" });
      expect(node.io.inFlight).toBe(0);
      expect(node.io.tracker.serialisingCount).toBe(0);
    },
  );

  it("copies what it cannot ask about", async () => {
    const driver = new ScriptedDriver({ size: 8 * CLUSTER });
    driver.bytes.set(patternBytes(8 * CLUSTER, 1));
    let asked = 0;
    const node = unallocated(driver);
    Object.assign(driver, {
      blockStatus: (_offset: number, length: number) => {
        asked += 1;
        return asked === 1
          ? Promise.resolve({ flags: 0, length })
          : Promise.reject(new Error("no answer"));
      },
    });
    const buffer = new Uint8Array(CLUSTER);
    await rootEdge(node).pread(0, buffer, { flags: copyOnRead });
    expect(buffer).toEqual(driver.bytes.subarray(0, CLUSTER));
    expect(driver.log.map(({ operation }) => operation)).toEqual(["pread", "pwrite"]);
  });

  it("never overwrites what a guest writes meanwhile", async () => {
    const driver = new ScriptedDriver({ size: 8 * CLUSTER, hold: true });
    driver.bytes.fill(1);
    const node = unallocated(driver);
    const edge = rootEdge(node);
    const buffer = new Uint8Array(CLUSTER);
    const read = edge.pread(0, buffer, { flags: copyOnRead });
    await turns();
    const write = edge.pwrite(512, new Uint8Array(10).fill(2));
    await turns();
    expect(driver.log.map(({ operation }) => operation)).toEqual(["pread"]);
    driver.release();
    await turns();
    expect(driver.log.map(({ operation }) => operation)).toEqual(["pread", "pwrite"]);
    driver.releaseAll();
    await Promise.all([read, write]);
    expect([buffer[512], driver.bytes[512]]).toEqual([1, 2]);
    expect(driver.log.map(({ offset, length }) => `${offset}+${length}`)).toEqual([
      "0+1024",
      "0+1024",
      "512+10",
    ]);
  });

  it("copies in pieces that the driver and memory allow", async () => {
    const { driver, log, disk } = loggedDisk(
      { size: 8 * CLUSTER, limits: { maxTransfer: 2 * CLUSTER } },
      { blockStatus: (_offset, length) => Promise.resolve({ flags: 0, length }) },
    );
    disk.bytes.fill(1);
    await rootEdge(rigNode({ driver: () => driver })).pread(0, new Uint8Array(5 * CLUSTER), {
      flags: copyOnRead,
    });
    expect(log).toEqual([
      "pread 0+2048",
      "pwrite 0+2048 flags=64",
      "pread 2048+2048",
      "pwrite 2048+2048 flags=64",
      "pread 4096+1024",
      "pwrite 4096+1024 flags=64",
    ]);
  });

  it("hands on an unexpected failure to learn the cluster size", async () => {
    const driver = Object.assign(new ScriptedDriver({ size: 8 * CLUSTER }), {
      getInfo: () => Promise.reject(new Error("corrupt header")),
    });
    const read = rootEdge(rigNode({ driver: () => driver })).pread(0, new Uint8Array(1), {
      flags: copyOnRead,
    });
    await expect(read).rejects.toThrow("corrupt header");
  });
});
