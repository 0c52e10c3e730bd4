import { Permissions, RequestFlag } from "@blocklayer/driver";
import { patternBytes, ScriptedDriver } from "@blocklayer/driver-tests";
import { describe, expect, it } from "vitest";
import type { Edge } from "../src/edge.ts";
import { rigNode, rootEdge } from "./io-rig.ts";

async function turns(): Promise<void> {
  for (let turn = 0; turn < 20; turn += 1) await Promise.resolve();
}

const fixed = Permissions.consistentRead | Permissions.write;

describe("a request that waited for a disk to become shorter", () => {
  it.each<[string, (edge: Edge) => Promise<void>]>([
    ["pwrite", (edge) => edge.pwrite(3072, new Uint8Array(512))],
    ["pwriteZeroes", (edge) => edge.pwriteZeroes(3072, 512)],
    ["pdiscard", (edge) => edge.pdiscard(3072, 512)],
    ["copyRangeTo", (edge) => edge.copyRangeTo(edge.node.driver, 0, 3072, 512)],
  ])("%s is EIO and nothing of it reaches the driver", async (operation, request) => {
    const driver = Object.assign(new ScriptedDriver({ size: 4096, hold: true, growing: true }), {
      copyRangeTo: () => Promise.reject(new Error("reached the driver")),
    });
    const node = rigNode({ driver: () => driver });
    const narrow = rootEdge(node, fixed);
    const cut = rootEdge(node).truncate(2048);
    await turns();
    const late = request(narrow);
    await turns();
    driver.unhold();
    driver.release();
    await cut;
    await expect(late).rejects.toMatchObject({ code: "EIO", context: { operation } });
    expect(driver.log.map((entry) => entry.operation)).toEqual(["truncate"]);
    expect([node.size, node.io.inFlight, driver.size]).toEqual([2048, 0, 2048]);
  });

  it("a copy from what was cut off is ENOTSUP", async () => {
    const driver = Object.assign(new ScriptedDriver({ size: 4096, hold: true }), {
      copyRangeFrom: () => Promise.reject(new Error("reached the driver")),
    });
    const node = rigNode({ driver: () => driver });
    const edge = rootEdge(node);
    const cut = edge.truncate(2048);
    await turns();
    const late = edge.copyRangeFrom(3072, edge, 0, 512);
    driver.releaseAll();
    await turns();
    driver.releaseAll();
    await cut;
    await expect(late).rejects.toMatchObject({ code: "ENOTSUP" });
  });
});

describe("changes of length", () => {
  it("happen one after the other, as they came", async () => {
    const driver = new ScriptedDriver({ size: 4096, hold: true });
    const node = rigNode({ driver: () => driver });
    const edge = rootEdge(node);
    const resizes = [8192, 2048, 6144, 6144].map((size) => edge.truncate(size));
    for (let count = 1; count <= 4; count += 1) {
      await turns();
      expect(driver.log).toHaveLength(count);
      driver.release();
    }
    await Promise.all(resizes);
    expect([node.size, driver.size]).toEqual([6144, 6144]);
  });

  it("wait for a write beyond the end, also for the flush that follows it", async () => {
    const driver = new ScriptedDriver({ size: 1024, growing: true });
    Object.defineProperty(driver, "flags", {
      value: { read: 0, write: 0, zeroes: 0, truncateZero: true },
    });
    const node = rigNode({ driver: () => driver });
    const edge = rootEdge(node);
    driver.hold("flush");
    const growing = edge.pwrite(2048, patternBytes(512, 1), { flags: RequestFlag.fua });
    await turns();
    const cut = edge.truncate(512);
    await turns();
    driver.releaseAll();
    await Promise.all([growing, cut]);
    expect([node.size, driver.size]).toEqual([512, 512]);
  });

  it("keep those out who come while a queue of them empties", async () => {
    const driver = new ScriptedDriver({ size: 4096, hold: true, growing: true });
    const node = rigNode({ driver: () => driver });
    const edge = rootEdge(node);
    const resizes = [2048, 3072].map((size) => edge.truncate(size));
    await turns();
    driver.release();
    await turns();
    // The disk has 2048 bytes and becomes longer: the new area is nobody else's.
    const write = edge.pwrite(2048, patternBytes(512, 1));
    await turns();
    expect(driver.held.map(({ operation }) => operation)).toEqual(["truncate"]);
    driver.releaseAll();
    await Promise.all([...resizes, write]);
    expect(driver.bytes.subarray(2048, 2560)).toEqual(patternBytes(512, 1));
    expect(node.size).toBe(3072);
  });
});

describe("offloaded copies", () => {
  it("are stable when they complete if that was asked for", async () => {
    const seen: (number | undefined)[] = [];
    const driver = Object.assign(new ScriptedDriver({ size: 4096 }), {
      copyRangeTo: (...[, , , , options]: Parameters<NonNullable<Edge["copyRangeTo"]>>) => {
        seen.push(options?.flags);
        return Promise.resolve();
      },
    });
    const edge = rootEdge(rigNode({ driver: () => driver }));
    const { fua, writeUnchanged, prefetch } = RequestFlag;
    await edge.copyRangeTo(driver, 0, 1024, 512, { flags: fua | writeUnchanged | prefetch });
    expect(driver.log.map(({ operation }) => operation)).toEqual(["flush"]);
    expect(seen).toEqual([writeUnchanged]);
    await edge.copyRangeTo(driver, 0, 1024, 512);
    expect(driver.log).toHaveLength(1);
  });
});

describe("limits that do not fit together", () => {
  it.each([
    ["zeroes", "pwriteZeroes", { maxPwriteZeroes: 1024, pwriteZeroesAlignment: 4096 }],
    ["discards", "pdiscard", { maxPdiscard: 1024, pdiscardAlignment: 4096 }],
  ] as const)("%s are never longer than the driver takes", async (_title, operation, limits) => {
    const size = 16384;
    const driver = new ScriptedDriver({ size, limits: { requestAlignment: 512, ...limits } });
    const edge = rootEdge(rigNode({ driver: () => driver }));
    for (const [offset, length] of [
      [512, 10240],
      [0, 6144],
      [4096, 512],
    ] as const) {
      const before = driver.log.length;
      await edge[operation](offset, length);
      const pieces = driver.log.slice(before);
      let end = offset;
      for (const piece of pieces) {
        expect([piece.offset, piece.length <= 1024]).toEqual([end, true]);
        end += piece.length;
      }
      expect(end).toBe(offset + length);
      expect(pieces.length).toBeLessThanOrEqual(length / 1024 + 6);
    }
  });

  it("transfers of a child that are shorter than a block of its parent do not stop the parent", async () => {
    const child = rigNode({
      name: "child",
      driver: () => new ScriptedDriver({ size: 16384, limits: { maxTransfer: 1024 } }),
    });
    const driver = new ScriptedDriver({ size: 16384 });
    Object.defineProperty(driver, "limits", { value: { requestAlignment: 4096 } });
    const node = rigNode({ driver: () => driver, children: { file: { node: child, role: 17 } } });
    expect(node.limits.maxTransfer).toBe(4096);
    await rootEdge(node).pread(10, new Uint8Array(8192));
    expect(driver.log.map(({ offset, length }) => `${offset}+${length}`)).toEqual([
      "0+4096",
      "4096+4096",
      "8192+4096",
    ]);
  });
});

describe("a write beyond the end", () => {
  it("fails when the driver took it and did not become longer", async () => {
    const driver = new ScriptedDriver({ size: 1024 });
    Object.assign(driver, { pwrite: () => Promise.resolve() });
    const node = rigNode({ driver: () => driver });
    await expect(rootEdge(node).pwrite(2048, new Uint8Array(512))).rejects.toMatchObject({
      code: "EIO",
      message: "write of 512 bytes at 2048 did not make the node longer than 1024 bytes",
    });
    expect(node.size).toBe(1024);
  });

  it("that fails half-way leaves the node as long as the driver says, and is announced after that", async () => {
    const driver = new ScriptedDriver({ size: 1024, limits: { maxTransfer: 512 }, growing: true });
    const node = rigNode({ driver: () => driver });
    const told: string[] = [];
    node.addObserver({
      resized: ({ newSize }) => void told.push(`resized ${newSize}`),
      afterWrite: ({ length }, error) => void told.push(`${length} ${String(error)}`),
    });
    driver.failNth("pwrite", 2, new Error("full"));
    await expect(rootEdge(node).pwrite(1024, new Uint8Array(1024))).rejects.toThrow("full");
    expect([node.size, told]).toEqual([1536, ["resized 1536", "1024 Error: full"]]);
  });
});
