import { Permissions, RequestFlag, Role } from "@blocklayer/driver";
import { ScriptedDriver } from "@blocklayer/driver-tests";
import { BlockError } from "@blocklayer/errors";
import { describe, expect, it } from "vitest";
import { diskNode, rigNode, rootEdge } from "./io-rig.ts";
import { filterLayer, memoryLayer } from "./layers.ts";
import { loggedDisk } from "./logged-disk.ts";

async function turns(): Promise<void> {
  for (let turn = 0; turn < 30; turn += 1) await Promise.resolve();
}

describe("truncate", () => {
  it.each([2048, 8192, 4096, 0])(
    "to %d changes the length of the node, and says so",
    async (size) => {
      const { node, disk } = diskNode({ size: 4096 });
      const told: number[] = [];
      const edge = rootEdge(node, 15, {
        kind: "other",
        describe: () => "x",
        resized: () => told.push(node.size),
      });
      await edge.truncate(size);
      expect([node.size, disk.size]).toEqual([size, size]);
      expect(told).toEqual(size === 4096 ? [] : [size]);
    },
  );

  it.each([
    ["a negative size", -2, {}, "EINVAL", "Required size -2 is negative"],
    [
      "a size that is too large",
      2 ** 53,
      {},
      "EFBIG",
      "Required size 9007199254740992 is too large",
    ],
    ["a read-only node", 512, { readOnly: true }, "EACCES", "Image is read-only"],
  ])("of %s", async (_title, size, generic, code, message) => {
    const { node } = diskNode({ size: 4096 }, { generic });
    await expect(rootEdge(node).truncate(size)).rejects.toMatchObject({
      code,
      message,
      context: { node: "node0", operation: "truncate" },
    });
  });

  it("of an inactive node is EPERM", async () => {
    const { node } = diskNode({ size: 4096 });
    node.active = false;
    await expect(rootEdge(node).truncate(512)).rejects.toMatchObject({ code: "EPERM" });
  });

  it("without the permission is the parent's defect", async () => {
    const { node } = diskNode({ size: 4096 });
    await expect(rootEdge(node, Permissions.write).truncate(512)).rejects.toThrow(
      "the test may not resize node 'node0'",
    );
  });

  it("goes to the filtered child where the driver has none, and is ENOTSUP where neither has", async () => {
    const { node: below } = diskNode({ size: 4096 });
    const { driver } = loggedDisk({ size: 4096 }, { truncate: undefined });
    const filter = rigNode({
      name: "filter",
      driver: () => driver,
      children: { file: { node: below, role: Role.filtered } },
    });
    await rootEdge(filter).truncate(1024);
    expect(below.size).toBe(1024);
    await expect(rootEdge(rigNode({ driver: () => driver })).truncate(512)).rejects.toMatchObject({
      code: "ENOTSUP",
      message: "Image format driver does not support resize",
    });
  });

  it.each([
    [1024, 4096, "truncate 4096 zero"],
    [1024, 512, "truncate 512"],
    [8192, 4096, "truncate 4096 zero"],
  ])(
    "from %d to %d over a backing node of 16 KiB keeps old data away",
    async (size, newSize, expected) => {
      const { driver, log } = loggedDisk({ size: Math.min(size, 2048) });
      const backing = diskNode({ size: 16384 }).node;
      const node = rigNode({
        driver: () => driver,
        children: { backing: { node: backing, role: Role.cow } },
      });
      await rootEdge(node).truncate(newSize);
      expect(log).toEqual([expected]);
    },
  );

  it("with zeroes is ENOTSUP where the driver cannot", async () => {
    const { driver } = loggedDisk(
      { size: 512 },
      { flags: { read: 0, write: 0, zeroes: 0, truncateZero: false } },
    );
    const node = rigNode({ driver: () => driver });
    await expect(rootEdge(node).truncate(1024, { zero: true })).rejects.toMatchObject({
      code: "ENOTSUP",
      message: "Driver 'x-test' does not support growing with zeroes",
    });
    expect(node.io.inFlight).toBe(0);
  });

  it("waits for writes in what it cuts off, and keeps others out of it", async () => {
    const driver = new ScriptedDriver({ size: 4096, hold: true });
    const node = rigNode({ driver: () => driver });
    const edge = rootEdge(node);
    const inside = edge.pwrite(3072, new Uint8Array(512));
    const before = edge.pwrite(0, new Uint8Array(512));
    const cut = edge.truncate(2048);
    await turns();
    expect(driver.log.map(({ operation }) => operation)).toEqual(["pwrite", "pwrite"]);
    driver.release(0);
    await turns();
    expect(driver.log.map(({ operation }) => operation)).toEqual(["pwrite", "pwrite", "truncate"]);
    driver.releaseAll();
    await Promise.all([inside, before, cut]);
    expect(node.size).toBe(2048);
  });

  it("that fails takes the driver's word for the length", async () => {
    const driver = new ScriptedDriver({ size: 4096 });
    const node = rigNode({ driver: () => driver });
    driver.failNth("truncate", 1, "ENOSPC");
    await expect(rootEdge(node).truncate(8192)).rejects.toMatchObject({ code: "ENOSPC" });
    expect(node.size).toBe(4096);
    expect(node.io.tracker.serialisingCount).toBe(0);
  });
});

describe("make-empty", () => {
  it("drops what the layer holds and tells the observers that everything changed", async () => {
    const base = memoryLayer("base", { size: 4096 });
    await rootEdge(base).pwrite(0, new Uint8Array(512).fill(1));
    const top = memoryLayer("top", { size: 4096, backing: base });
    const edge = rootEdge(top);
    await edge.pwrite(0, new Uint8Array(512).fill(2));
    const seen: string[] = [];
    top.addObserver({
      afterWrite: ({ kind, offset, length }) => void seen.push(`${kind} ${offset}+${length}`),
    });
    await edge.makeEmpty({ flags: RequestFlag.writeUnchanged });
    expect(seen).toEqual([]);
    await edge.makeEmpty();
    expect(seen).toEqual(["replace 0+4096"]);
    const buffer = new Uint8Array(512);
    await edge.pread(0, buffer);
    expect(buffer[0]).toBe(1);
  });

  it("is ENOTSUP, naming the format, where the driver cannot", async () => {
    const { node } = diskNode({ size: 4096 }, { definition: { driverName: "raw" } });
    await expect(rootEdge(node, Permissions.writeUnchanged).makeEmpty()).rejects.toMatchObject({
      code: "ENOTSUP",
      message: "Driver 'raw' does not support dropping its data",
      context: { operation: "makeEmpty" },
    });
  });

  it("that fails tells the observers too", async () => {
    const { driver } = loggedDisk(
      { size: 512 },
      { makeEmpty: () => Promise.reject(new BlockError("EIO", "broken")) },
    );
    const node = rigNode({ driver: () => driver });
    const seen: unknown[] = [];
    node.addObserver({
      afterWrite: (_request, error) => void seen.push((error as BlockError).code),
    });
    await expect(rootEdge(node).makeEmpty()).rejects.toMatchObject({ code: "EIO" });
    expect(seen).toEqual(["EIO"]);
  });
});

describe("questions about the image", () => {
  it("getInfo is the driver's, a filter's is its child's, else ENOTSUP", async () => {
    const { node: below } = diskNode({ size: 512 });
    Object.assign(below.driver, { getInfo: () => Promise.resolve({ clusterSize: 65536 }) });
    const { driver } = loggedDisk({ size: 512 });
    const filter = rigNode({
      driver: () => driver,
      children: { file: { node: below, role: Role.filtered } },
    });
    expect(await filter.io.getInfo()).toEqual({ clusterSize: 65536 });
    await expect(rigNode({ driver: () => driver }).io.getInfo()).rejects.toMatchObject({
      code: "ENOTSUP",
      message: "Driver 'x-test' does not support image information",
    });
  });

  it("check is the driver's or ENOTSUP", async () => {
    const result = { corruptions: 0, leaks: 1, checkErrors: 0, corruptionsFixed: 0, leaksFixed: 0 };
    const { driver } = loggedDisk({ size: 512 }, { check: () => Promise.resolve(result) });
    expect(await rootEdge(rigNode({ driver: () => driver })).check()).toEqual(result);
    await expect(rootEdge(diskNode({ size: 512 }).node).check()).rejects.toMatchObject({
      code: "ENOTSUP",
      message: "This image format does not support checks",
      context: { node: "node0", operation: "check" },
    });
  });

  it("freeSpace is the driver's, else the least of what stores for it, unknown if nobody knows", async () => {
    const disk = (name: string, free: number | undefined): ReturnType<typeof rigNode> =>
      rigNode({
        name,
        driver: () => loggedDisk({ size: 1 }, { freeSpace: () => Promise.resolve(free) }).driver,
      });
    const over = (first: number | undefined): ReturnType<typeof rigNode> =>
      rigNode({
        driver: () => loggedDisk({ size: 512 }).driver,
        children: {
          file: { node: disk("a", first), role: Role.metadata },
          data: { node: disk("b", undefined), role: Role.data },
          backing: { node: disk("c", 1), role: Role.cow },
        },
      });
    expect(await rootEdge(over(20)).freeSpace()).toBe(20);
    expect(await rootEdge(over(undefined)).freeSpace()).toBeUndefined();
  });

  it("allocatedSize is the driver's, else the sum over what stores for it, unknown if one is", async () => {
    const { driver } = loggedDisk({ size: 512 });
    const disk = (name: string, size: number | undefined): ReturnType<typeof rigNode> =>
      rigNode({
        name,
        driver: () =>
          loggedDisk({ size: 1 }, { allocatedSize: () => Promise.resolve(size) }).driver,
      });
    const over = (second: number | undefined): ReturnType<typeof rigNode> =>
      rigNode({
        driver: () => driver,
        children: {
          file: { node: disk("a", 100), role: Role.metadata },
          data: { node: disk("b", second), role: Role.data },
          backing: { node: disk("c", 10_000), role: Role.cow },
        },
      });
    expect(await rootEdge(over(20)).allocatedSize()).toBe(120);
    expect(await rootEdge(over(undefined)).allocatedSize()).toBeUndefined();
    expect(await rootEdge(rigNode({ driver: () => driver })).allocatedSize()).toBeUndefined();
    expect(await rootEdge(disk("d", 7)).allocatedSize()).toBe(7);
  });
});

describe("in flight", () => {
  it("counts holds, once each", async () => {
    const { node } = diskNode({ size: 512 });
    const hold = node.holdInFlight();
    const second = node.io.hold();
    expect(node.io.inFlight).toBe(2);
    hold[Symbol.dispose]();
    hold[Symbol.dispose]();
    expect(node.io.inFlight).toBe(1);
    let isIdle = false;
    const idle = node.io.idle()?.then(() => {
      isIdle = true;
    });
    await turns();
    expect(isIdle).toBe(false);
    second[Symbol.dispose]();
    await idle;
    expect(node.io.idle()).toBeUndefined();
  });

  it("is cancelled by the driver that can, through filters that cannot", () => {
    const cancelled: string[] = [];
    const { driver } = loggedDisk(
      { size: 512 },
      { cancelInFlight: () => void cancelled.push("disk") },
    );
    const below = rigNode({ name: "disk", driver: () => driver });
    filterLayer("filter", below).io.cancelInFlight();
    below.io.cancelInFlight();
    diskNode({ size: 512 }).node.io.cancelInFlight();
    expect(cancelled).toEqual(["disk", "disk"]);
    const image = rigNode({
      driver: () => loggedDisk({ size: 512 }).driver,
      children: { file: { node: below, role: Role.image } },
    });
    image.io.cancelInFlight();
    expect(cancelled.length).toBe(3);
  });

  it("follows a driver that says that its length changed", () => {
    const { node, disk } = diskNode({ size: 512 });
    const sizes: number[] = [];
    node.addObserver({ resized: ({ newSize }) => void sizes.push(newSize) });
    node.io.resized();
    disk.bytes = new Uint8Array(1024);
    node.io.resized();
    expect([node.size, ...sizes]).toEqual([1024, 1024]);
  });
});
