import { completed, Permissions, RequestFlag, type RequestOptions } from "@blocklayer/driver";
import { patternBytes, ScriptedDriver } from "@blocklayer/driver-tests";
import { describe, expect, it } from "vitest";
import type { Edge } from "../src/edge.ts";
import { diskNode, rigNode, rootEdge } from "./io-rig.ts";
import { loggedDisk } from "./logged-disk.ts";

const KiB = 1024;

function bytes(length: number, seed = 1): Uint8Array {
  return patternBytes(length, seed);
}

describe("reads and writes that are plain", () => {
  it("pass the driver's promise through when it completed within the call", () => {
    const { node } = diskNode({ size: 8 * KiB, limits: { requestAlignment: 512 } });
    const edge = rootEdge(node);
    expect(edge.pwrite(512, bytes(512))).toBe(completed);
    expect(edge.pread(512, new Uint8Array(512))).toBe(completed);
    expect(edge.pwritev(0, [bytes(512)])).toBe(completed);
    expect(node.io.inFlight).toBe(0);
    expect(node.io.idle()).toBeUndefined();
  });

  it.each([
    ["a signal", { signal: new AbortController().signal }],
    ["flags that say nothing", { flags: 0 }],
    ["fua, which the driver does itself", { flags: RequestFlag.fua }],
  ])("complete within the call with %s, and hand it on", (_title, options) => {
    const seen: unknown[] = [];
    const { driver } = loggedDisk({ size: 4096 });
    const { pwrite } = driver;
    Object.assign(driver, {
      pwrite: (offset: number, buffer: Uint8Array, given: unknown) => {
        seen.push(given);
        return pwrite?.(offset, buffer);
      },
    });
    const edge = rootEdge(rigNode({ driver: () => driver }));
    expect(edge.pwrite(0, bytes(512), options)).toBe(completed);
    expect(seen).toEqual([options]);
  });

  it("are in flight and tracked while the driver works", async () => {
    const driver = new ScriptedDriver({ size: 8 * KiB, hold: true });
    const node = rigNode({ driver: () => driver });
    const edge = rootEdge(node);
    const write = edge.pwrite(0, bytes(512));
    const read = edge.pread(1024, new Uint8Array(512));
    expect(node.io.inFlight).toBe(2);
    expect(node.io.requestsInFlight()).toEqual([
      { kind: "write", offset: 0, length: 512, isWaiting: false },
      { kind: "read", offset: 1024, length: 512, isWaiting: false },
    ]);
    const idle = node.io.idle();
    driver.releaseAll();
    await Promise.all([write, read, idle]);
    expect(node.io.inFlight).toBe(0);
    expect(node.io.requestsInFlight()).toEqual([]);
  });

  it.each(["pread", "pwrite"] as const)(
    "turn a %s that throws into a rejection",
    async (operation) => {
      const { driver } = loggedDisk(
        { size: 4096 },
        {
          [operation]: () => {
            throw new Error("thrown, not rejected");
          },
        },
      );
      const node = rigNode({ driver: () => driver });
      await expect(rootEdge(node)[operation](0, new Uint8Array(512))).rejects.toThrow(
        "thrown, not rejected",
      );
      expect(node.io.inFlight).toBe(0);
    },
  );

  it("reject when an observer throws that must not", async () => {
    const { node } = diskNode({ size: 4096 });
    node.addObserver({
      afterWrite: () => {
        throw new Error("a defect");
      },
    });
    await expect(rootEdge(node).pwrite(0, bytes(512))).rejects.toThrow("a defect");
    expect(node.io.inFlight).toBe(0);
  });

  it("count right when a driver re-enters its own node", () => {
    const { driver, disk } = loggedDisk(
      { size: 4096 },
      {
        pread: (offset, buffer) => {
          if (offset === 0) void edge.pread(512, new Uint8Array(512));
          return disk.pread(offset, buffer);
        },
      },
    );
    const node = rigNode({ driver: () => driver });
    const edge = rootEdge(node);
    expect(edge.pread(0, new Uint8Array(512))).toBe(completed);
    expect(node.io.inFlight).toBe(0);
  });

  it("are found by a request that serialises although it began within the driver's call", async () => {
    const order: string[] = [];
    let finish = (): void => undefined;
    let inner: Promise<void> = completed;
    const { driver } = loggedDisk(
      { size: 4096, limits: { requestAlignment: 512 } },
      {
        pwrite: (offset, buffer) => {
          order.push(`pwrite ${offset}+${buffer.length}`);
          if (order.length > 1) return completed;
          inner = edge.pwrite(100, new Uint8Array(10));
          return new Promise((resolve) => {
            finish = resolve;
          });
        },
      },
    );
    const node = rigNode({ driver: () => driver });
    const edge = rootEdge(node);
    const outer = edge.pwrite(0, new Uint8Array(512));
    for (let turn = 0; turn < 10; turn += 1) await Promise.resolve();
    expect(order).toEqual(["pwrite 0+512"]);
    finish();
    await Promise.all([outer, inner]);
    expect(order).toEqual(["pwrite 0+512", "pwrite 0+512"]);
  });
});

describe("arguments", () => {
  it.each([
    ["pread", -2, 512],
    ["pread", Number.NaN, 512],
    ["pread", 2 ** 53, 512],
    ["pwrite", -2, 512],
    ["pwrite", 4096, 1],
    ["pwrite", 2 ** 53, 512],
  ] as const)("%s at %d of %d bytes is EIO", async (operation, offset, length) => {
    const { node } = diskNode({ size: 4096 });
    const edge = rootEdge(node, Permissions.write);
    await expect(edge[operation](offset, new Uint8Array(length))).rejects.toMatchObject({
      code: "EIO",
      context: { node: "node0", operation, offset, length },
    });
    expect(node.io.inFlight).toBe(0);
  });

  it("more than 2^31 - 512 bytes in one request are EIO", async () => {
    const { node } = diskNode({ size: 4096 });
    const half = new Uint8Array(2 ** 30);
    await expect(rootEdge(node).pwritev(0, [half, half])).rejects.toMatchObject({
      code: "EIO",
      message: "pwrite of 2147483648 bytes is longer than 2147483136",
    });
  });

  it.each([0, 5, 4096])("nothing at %d succeeds without asking the driver", async (offset) => {
    const { driver, log } = loggedDisk({ size: 4096, limits: { requestAlignment: 512 } });
    const edge = rootEdge(rigNode({ driver: () => driver }));
    await edge.pread(offset, new Uint8Array(0));
    await edge.pwrite(offset, new Uint8Array(0));
    await edge.pwriteZeroes(offset, 0);
    await edge.pdiscard(offset, 0);
    expect(log).toEqual([]);
  });

  it.each([
    ["read-only", { readOnly: true }, "Block node is read-only"],
    ["inactive", {}, "Node 'node0' is inactive"],
  ] as const)("every change of a node that is %s is EPERM", async (_kind, generic, message) => {
    const { node } = diskNode({ size: 4096 }, { generic });
    if (!node.readOnly) node.active = false;
    const edge = rootEdge(node);
    const changes = [
      edge.pwrite(0, new Uint8Array(512)),
      edge.pwritev(0, [new Uint8Array(1), new Uint8Array(1)]),
      edge.pwriteZeroes(0, 512),
      edge.pdiscard(0, 512),
      edge.makeEmpty(),
    ];
    for (const result of await Promise.allSettled(changes)) {
      expect(result).toMatchObject({ status: "rejected", reason: { code: "EPERM", message } });
    }
    await edge.flush();
  });

  it.each([
    ["without any permission", 0, 0, false],
    ["with write-unchanged for a write that changes", Permissions.writeUnchanged, 0, false],
    [
      "with write-unchanged for a write that does not",
      Permissions.writeUnchanged,
      RequestFlag.writeUnchanged,
      true,
    ],
    [
      "with write for a write that does not change",
      Permissions.write,
      RequestFlag.writeUnchanged,
      true,
    ],
  ])("a request %s is the parent's defect or right", async (_title, perm, flags, works) => {
    const { node } = diskNode({ size: 4096 });
    const edge = rootEdge(node, perm);
    const requests = [
      edge.pwrite(0, new Uint8Array(512), { flags }),
      edge.pwriteZeroes(0, 512, { flags }),
      edge.pdiscard(0, 512, { flags }),
    ];
    for (const result of await Promise.allSettled(requests)) {
      if (works) expect(result).toMatchObject({ status: "fulfilled" });
      else expect(result).toMatchObject({ reason: { name: "AssertionError" } });
    }
  });

  it("a request through an edge that was detached is ENOMEDIUM", async () => {
    const { node } = diskNode({ size: 4096 });
    const edge = rootEdge(node);
    edge.isAttached = false;
    const requests = [
      edge.pread(0, new Uint8Array(512)),
      edge.pwrite(0, new Uint8Array(512)),
      edge.flush(),
    ];
    for (const result of await Promise.allSettled(requests)) {
      expect(result).toMatchObject({ reason: { code: "ENOMEDIUM", message: "No medium found" } });
    }
  });

  it.each<[string, (edge: Edge, options: RequestOptions) => Promise<void>]>([
    ["pread", (edge, options) => edge.pread(0, new Uint8Array(512), options)],
    ["pwrite", (edge, options) => edge.pwrite(0, new Uint8Array(512), options)],
    ["pwriteZeroes", (edge, options) => edge.pwriteZeroes(0, 512, options)],
    ["pdiscard", (edge, options) => edge.pdiscard(0, 512, options)],
    ["flush", (edge, options) => edge.flush(options)],
    ["truncate", (edge, { signal }) => edge.truncate(512, signal === undefined ? {} : { signal })],
    ["makeEmpty", (edge, options) => edge.makeEmpty(options)],
    ["copyRangeFrom", (edge, options) => edge.copyRangeFrom(0, edge, 512, 512, options)],
    ["copyRangeTo", (edge, options) => edge.copyRangeTo(edge.node.driver, 0, 512, 512, options)],
  ])("an aborted signal keeps a %s from starting", async (_operation, request) => {
    const reached = (): Promise<never> => Promise.reject(new Error("reached the driver"));
    const { driver, log } = loggedDisk(
      { size: 4096 },
      { makeEmpty: reached, copyRangeFrom: reached, copyRangeTo: reached },
    );
    const node = rigNode({ driver: () => driver });
    const signal = AbortSignal.abort(new Error("stop"));
    await expect(request(rootEdge(node), { signal })).rejects.toThrow("stop");
    expect([log, node.io.inFlight]).toEqual([[], 0]);
  });
});
