import { completed, type PermissionName, Permissions } from "@blocklayer/driver";
import { ScriptedDriver } from "@blocklayer/driver-tests";
import { type Env, manualEnv } from "@blocklayer/env";
import { memory } from "@blocklayer/memory";
import { raw } from "@blocklayer/raw";
import { describe, expect, expectTypeOf, it } from "vitest";
import type { BackendOptions, ReadableBackend, WritableBackend } from "../src/backend-handles.ts";
import { type BackendGraph, BlockBackend, createBackend } from "../src/block-backend.ts";
import type { BlockNode } from "../src/block-node.ts";
import type { Edge } from "../src/edge.ts";
import { Graph } from "../src/graph.ts";
import type { EdgeParent } from "../src/parent.ts";
import { diskNode, rigNode, rootEdge } from "./io-rig.ts";

interface BackendRig {
  readonly graph: BackendGraph;
  readonly names: Set<string>;
  readonly detached: Edge[];
}

function backendRig(node: BlockNode, env: Env = manualEnv()): BackendRig {
  const names = new Set<string>();
  const detached: Edge[] = [];
  const graph = {
    env,
    core: {
      claimDeviceName: (name: string) => {
        names.add(name);
        return { [Symbol.dispose]: () => void names.delete(name) };
      },
    },
    node: () => node,
    attachRoot: (parent: EdgeParent, _node: BlockNode, { perm }: { readonly perm: number }) =>
      Promise.resolve(rootEdge(node, perm, parent)),
    detachRoot: (edge: Edge) => {
      edge.isAttached = false;
      detached.push(edge);
      return Promise.resolve();
    },
  } as unknown as BackendGraph;
  return { graph, names, detached };
}

/** A backend with every method, whatever the permissions: they are checked when it runs. */
async function open(
  node: BlockNode,
  options: Partial<BackendOptions> = {},
  env?: Env,
): Promise<BlockBackend> {
  const perm: readonly PermissionName[] = options.perm ?? ["consistent-read", "write", "resize"];
  const backend = await createBackend(backendRig(node, env).graph, { node, ...options, perm });
  return backend as unknown as BlockBackend;
}

async function turns(): Promise<void> {
  for (let turn = 0; turn < 30; turn += 1) await Promise.resolve();
}

describe("a backend", () => {
  it("has the methods that its permissions allow", async () => {
    const { node } = diskNode({ size: 4096 });
    const { graph } = backendRig(node);
    const reader = await createBackend(graph, { node, perm: ["consistent-read"] });
    const writer = await createBackend(graph, { node, perm: ["consistent-read", "write"] });
    const resizer = await createBackend(graph, { node, perm: ["write", "resize"] });
    const unchanging = await createBackend(graph, { node, perm: ["write-unchanged"] });
    expectTypeOf(reader).toEqualTypeOf<ReadableBackend>();
    expectTypeOf(writer).toEqualTypeOf<WritableBackend>();
    expectTypeOf(unchanging).toEqualTypeOf<WritableBackend>();
    expectTypeOf(resizer.truncate).toBeFunction();
    // @ts-expect-error: opened for reading
    expect(reader.write).toBeDefined();
    // @ts-expect-error: opened without "resize"
    expect(writer.truncate).toBeDefined();
  });

  it("passes on what completed within the call", async () => {
    const backend = await open(diskNode({ size: 4096 }).node);
    expect(backend.write(0, new Uint8Array(512))).toBe(completed);
    expect(backend.read(0, new Uint8Array(512))).toBe(completed);
    expect(backend.inFlight).toBe(0);
  });

  it("counts its requests", async () => {
    const driver = new ScriptedDriver({ size: 4096, hold: true });
    const backend = await open(rigNode({ driver: () => driver }));
    const requests = [
      backend.read(0, new Uint8Array(1)),
      backend.write(0, new Uint8Array(1)),
      backend.writev(0, [new Uint8Array(1), new Uint8Array(1)]),
      backend.writeZeroes(0, 1),
      backend.discard(0, 1),
    ];
    await turns();
    expect(backend.inFlight).toBe(5);
    expect(backend.drainedPoll()).toBeDefined();
    driver.fail(0);
    driver.releaseAll();
    const [read] = await Promise.allSettled(requests);
    expect(read).toMatchObject({ reason: { code: "EIO" } });
    expect(backend.inFlight).toBe(0);
    expect(backend.drainedPoll()).toBeUndefined();
  });

  it("tells what it leads to", async () => {
    const { node } = diskNode({ size: 4096, limits: { requestAlignment: 512 } });
    const backend = await open(node, { name: "disk0" });
    expect(backend).toMatchObject({
      name: "disk0",
      node,
      size: 4096,
      perm: ["consistent-read", "write", "resize"],
    });
    expect(backend.limits.requestAlignment).toBe(512);
    expect(backend.describe()).toBe("block device 'disk0'");
    expect((await open(node)).describe()).toBe("an unnamed block device");
  });

  it.each([
    [[1, 2], "Array"],
    [new Uint16Array(2), "Uint16Array"],
    [new ArrayBuffer(2), "ArrayBuffer"],
    ["text", "String"],
    [5, "Number"],
    [null, "null"],
    [undefined, "undefined"],
  ])("takes no %s for a buffer", async (value, kind) => {
    const { node, disk } = diskNode({ size: 512 });
    const backend = await open(node);
    const buffer = value as unknown as Uint8Array;
    for (const [operation, request] of [
      ["read", backend.read(0, buffer)],
      ["write", backend.write(0, buffer)],
      ["writev", backend.writev(0, [buffer])],
    ] as const) {
      const message = `${operation}: the buffer is a ${kind}, a Uint8Array is needed`;
      await expect(request).rejects.toMatchObject({ name: "TypeError", message });
    }
    expect(disk.bytes.every((byte) => byte === 0)).toBe(true);
  });

  it.each([0.5, Number.NaN, 2 ** 53, Number.POSITIVE_INFINITY])(
    "rejects %d as an offset with a RangeError",
    async (offset) => {
      const backend = await open(diskNode({ size: 4096 }).node, { allowBeyondEnd: true });
      const requests = [
        backend.read(offset, new Uint8Array(1)),
        backend.write(offset, new Uint8Array(1)),
        backend.writev(offset, [new Uint8Array(1)]),
        backend.writeZeroes(offset, 1),
        backend.discard(0, offset),
        backend.blockStatus(offset, 1),
        backend.truncate(offset),
      ];
      for (const result of await Promise.allSettled(requests)) {
        expect(result).toMatchObject({
          reason: {
            name: "RangeError",
            message: `${offset} (number) is not an integer number of bytes`,
          },
        });
      }
      expect(backend.inFlight).toBe(0);
    },
  );

  it.each([
    [-1, 1],
    [4096, 1],
    [4095, 2],
  ])("answers EIO at %d of %d bytes", async (offset, length) => {
    const backend = await open(diskNode({ size: 4096, growing: true }).node);
    const requests = [
      backend.read(offset, new Uint8Array(length)),
      backend.write(offset, new Uint8Array(length)),
      backend.writeZeroes(offset, length),
      backend.discard(offset, length),
    ];
    for (const result of await Promise.allSettled(requests)) {
      expect(result).toMatchObject({
        reason: { code: "EIO", context: { node: "node0", offset, length, size: 4096 } },
      });
    }
  });

  it("may go beyond the end where it was allowed", async () => {
    const { node } = diskNode({ size: 4096, growing: true });
    const backend = await open(node, { allowBeyondEnd: true });
    const buffer = new Uint8Array(10).fill(9);
    await backend.read(4090, buffer);
    expect(buffer[9]).toBe(0);
    await backend.write(4096, new Uint8Array(10));
    expect(node.size).toBe(4106);
    const narrow = await open(node, { allowBeyondEnd: true, perm: ["write"] });
    await expect(narrow.write(8192, new Uint8Array(1))).rejects.toMatchObject({ code: "EIO" });
  });

  it.each([
    [
      "a node that may be written",
      {},
      "block device 'disk0' was opened without the permission for write",
    ],
    ["a read-only node", { readOnly: true }, "Block node is read-only"],
  ])("answers EPERM to a write without permission to %s", async (_title, generic, message) => {
    const { node } = diskNode({ size: 4096 }, { generic });
    const backend = await open(node, { name: "disk0", perm: ["consistent-read"] });
    await expect(backend.write(0, new Uint8Array(1))).rejects.toMatchObject({
      code: "EPERM",
      message,
      context: { node: "node0", operation: "write" },
    });
    for (const request of [backend.discard(0, 1), backend.writeZeroes(0, 1), backend.truncate(0)]) {
      await expect(request).rejects.toMatchObject({ code: "EPERM" });
    }
  });

  it("tells of a new length, of drained sections and of another node", async () => {
    const { node } = diskNode({ size: 4096 });
    const backend = await open(node);
    const sizes: number[] = [];
    const events: string[] = [];
    const listening = backend.onResize((size) => sizes.push(size));
    backend.events.on("drained", () => events.push("drained"));
    backend.events.on("undrained", () => events.push("undrained"));
    backend.events.on("nodeChanged", ({ node: name }) => events.push(name));
    await backend.truncate(1024);
    listening[Symbol.dispose]();
    await backend.truncate(512);
    expect(sizes).toEqual([1024]);
    backend.drainedBegin();
    backend.drainedBegin();
    expect(backend.isDrained).toBe(true);
    backend.drainedEnd();
    backend.drainedEnd();
    if (backend.edge !== undefined) backend.nodeChanged(backend.edge);
    expect(events).toEqual(["drained", "undrained", "node0"]);
  });

  it("asks the whole chain for block status, and flushes", async () => {
    const { node } = diskNode({ size: 4096 });
    const backend = await open(node);
    expect(await backend.blockStatus(0, 4096)).toMatchObject({ length: 4096, depth: 1 });
    await backend.write(0, new Uint8Array(1));
    await backend.flush();
    expect(node.io.flushedGeneration).toBe(1);
    const target = rootEdge(node);
    await expect(backend.copyRange(0, target, 0, 512)).rejects.toMatchObject({ code: "ENOTSUP" });
  });
});

describe("a drained backend", () => {
  it("lets requests wait, not in flight, and starts them in order", async () => {
    const driver = new ScriptedDriver({ size: 4096 });
    const backend = await open(rigNode({ driver: () => driver }));
    backend.drainedBegin();
    backend.drainedBegin();
    const order: number[] = [];
    const requests = [3, 1, 2].map((index) =>
      backend.write(index * 512, new Uint8Array(512)).then(() => order.push(index)),
    );
    await turns();
    expect([driver.log.length, backend.inFlight]).toEqual([0, 0]);
    backend.drainedEnd();
    await turns();
    expect(driver.log).toHaveLength(0);
    backend.drainedEnd();
    const late = backend.write(0, new Uint8Array(512)).then(() => order.push(0));
    expect(driver.log).toHaveLength(0);
    await Promise.all([...requests, late]);
    expect(order).toEqual([3, 1, 2, 0]);
  });

  it("keeps the rest waiting when a new section begins", async () => {
    const { node } = diskNode({ size: 4096 });
    const backend = await open(node);
    backend.drainedBegin();
    let isDone = false;
    const request = backend.read(0, new Uint8Array(1)).then(() => {
      isDone = true;
    });
    backend.drainedEnd();
    backend.drainedBegin();
    await turns();
    expect(isDone).toBe(false);
    backend.drainedEnd();
    await request;
  });

  it("lets requests through when it has no queue", async () => {
    const backend = await open(diskNode({ size: 4096 }).node, { queueWhenDrained: false });
    backend.drainedBegin();
    expect(backend.read(0, new Uint8Array(1))).toBe(completed);
  });

  it.each(["before it waits", "while it waits"])(
    "takes a request out whose signal is aborted %s",
    async (when) => {
      const driver = new ScriptedDriver({ size: 4096 });
      const backend = await open(rigNode({ driver: () => driver }));
      backend.drainedBegin();
      const aborting = new AbortController();
      if (when === "before it waits") aborting.abort(new Error("stop"));
      const request = backend.read(0, new Uint8Array(1), { signal: aborting.signal });
      const kept = backend.read(1, new Uint8Array(1));
      aborting.abort(new Error("stop"));
      await expect(request).rejects.toThrow("stop");
      backend.drainedEnd();
      await kept;
      expect(driver.log.map(({ offset }) => offset)).toEqual([1]);
    },
  );

  it("checks a request against the node as it is when the request starts", async () => {
    const { node, disk } = diskNode({ size: 4096 });
    const backend = await open(node);
    backend.drainedBegin();
    const request = backend.read(4000, new Uint8Array(96));
    disk.bytes = new Uint8Array(512);
    node.io.resized();
    backend.drainedEnd();
    await expect(request).rejects.toMatchObject({ code: "EIO" });
  });
});

describe("a backend in a graph", () => {
  it("waits while its node or one below it is drained, and goes on afterwards", async () => {
    const graph = new Graph({ env: manualEnv(), drivers: [memory, raw] });
    const file = { driver: "memory", "node-name": "file", size: 4096 } as const;
    const node = await graph.open({ driver: "raw", "node-name": "disk", file });
    const backend = await graph.createBackend({ node, name: "disk0", perm: ["write"] });
    await expect(graph.createBackend({ node, name: "disk0", perm: [] })).rejects.toMatchObject({
      code: "EEXIST",
    });
    for (const drained of [node, graph.node("file")]) {
      const hold = await drained.drain();
      let isDone = false;
      const write = backend.write(0, new Uint8Array(512)).then(() => {
        isDone = true;
      });
      await turns();
      expect([isDone, backend.isDrained]).toEqual([false, true]);
      hold.end();
      await write;
      expect(backend.isDrained).toBe(false);
    }
    await backend.close();
    await expect(backend.flush()).rejects.toMatchObject({ code: "ENOMEDIUM" });
    await graph.close();
  });
});

describe("a backend without a node", () => {
  it("answers ENOMEDIUM, and is busy until it has", async () => {
    const backend = await open(diskNode({ size: 4096 }).node);
    backend.bind(undefined);
    const flush = backend.flush();
    expect(backend.inFlight).toBe(1);
    const idle = backend.drainedPoll();
    await expect(flush).rejects.toMatchObject({ code: "ENOMEDIUM", message: "No medium found" });
    await idle;
    expect(backend.drainedPoll()).toBeUndefined();
    await expect(backend.read(0, new Uint8Array(1))).rejects.toMatchObject({ code: "ENOMEDIUM" });
    expect([backend.size, backend.node, backend.perm]).toEqual([0, undefined, []]);
    expect(backend.limits.requestAlignment).toBe(1);
  });

  it("closes after its requests, rejects those that wait, and gives its name back", async () => {
    const driver = new ScriptedDriver({ size: 4096, hold: true });
    const node = rigNode({ driver: () => driver });
    const rig = backendRig(node);
    const backend = (await createBackend(rig.graph, {
      node: "node0",
      name: "disk0",
      perm: ["consistent-read"] as readonly PermissionName[],
    })) as unknown as BlockBackend;
    expect([...rig.names]).toEqual(["disk0"]);
    const request = backend.read(0, new Uint8Array(1));
    backend.drainedBegin();
    const waiting = backend.read(0, new Uint8Array(1));
    const closing = backend.close();
    await expect(waiting).rejects.toMatchObject({
      code: "ENOMEDIUM",
      context: { device: "disk0" },
    });
    await turns();
    expect(rig.detached).toHaveLength(0);
    driver.releaseAll();
    await Promise.all([request, closing, backend.close(), backend[Symbol.asyncDispose]()]);
    expect(rig.detached).toHaveLength(1);
    expect([...rig.names]).toEqual([]);
    await expect(backend.read(0, new Uint8Array(1))).rejects.toMatchObject({ code: "ENOMEDIUM" });
  });

  it("gives its name back when it cannot be attached", async () => {
    const { node } = diskNode({ size: 4096 });
    const rig = backendRig(node);
    const graph = { ...rig.graph, attachRoot: () => Promise.reject(new Error("conflict")) };
    const options = { node, name: "disk0", perm: ["write"] as const };
    await expect(createBackend(graph, options)).rejects.toThrow("conflict");
    expect([...rig.names]).toEqual([]);
  });

  it("holds no permission that its edge does not", () => {
    const { node } = diskNode({ size: 4096 });
    const backend = new BlockBackend(backendRig(node).graph, { node, perm: ["write"] });
    backend.bind(rootEdge(node, Permissions.consistentRead, backend));
    expect(backend.perm).toEqual(["consistent-read"]);
  });
});
