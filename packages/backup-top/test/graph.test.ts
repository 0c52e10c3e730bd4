import { asCopyBeforeWrite, copyBeforeWrite, snapshotAccess } from "@blocklayer/backup-top";
import { checkGraph, Graph } from "@blocklayer/block-graph";
import { BitmapManager } from "@blocklayer/dirty-bitmap";
import { completed, StatusFlag } from "@blocklayer/driver";
import {
  passThrough,
  patternBytes,
  type ScriptedDefinition,
  scriptedDefinition,
} from "@blocklayer/driver-tests";
import { manualEnv, settleTurn } from "@blocklayer/env";
import { assert } from "@blocklayer/errors";
import { memory } from "@blocklayer/memory";
import { describe, expect, it } from "vitest";
import { bytes, CLUSTER, isSame } from "./fixture.ts";

const SIZE = 4 * CLUSTER;

interface World {
  readonly graph: Graph;
  readonly env: ReturnType<typeof manualEnv>;
  readonly scripted: ScriptedDefinition;
  readonly log: string[];
  readonly before: Uint8Array;
}

/** A graph with a scripted disk `disk` with content and an empty one `target`. */
async function world(): Promise<World> {
  const env = manualEnv();
  const scripted = scriptedDefinition();
  const log: string[] = [];
  const graph: Graph = new Graph({
    env,
    drivers: [scripted, memory, passThrough, copyBeforeWrite(), snapshotAccess],
    log: (line) => log.push(line),
  });
  await graph.open({ driver: "x-blocklayer-scripted", "node-name": "disk", size: SIZE });
  await graph.open({
    driver: "x-blocklayer-scripted",
    "node-name": "target",
    size: SIZE,
    discard: "unmap",
  });
  const before = patternBytes(SIZE, 4);
  scripted.instance("disk").bytes.set(before);
  return { graph, env, scripted, log, before };
}

const filterOptions = {
  driver: "copy-before-write",
  "node-name": "cbw",
  file: "disk",
  target: "target",
};

describe("in a graph", () => {
  it("a filter inserted below a guest keeps the disk as it was at that moment", async () => {
    const { graph, scripted, before } = await world();
    const guest = await graph.createBackend({ node: "disk", perm: ["consistent-read", "write"] });
    await guest.write(0, bytes(CLUSTER, 3));
    before.fill(3, 0, CLUSTER);
    const cbw = await graph.insertNode(filterOptions, graph.node("disk"));
    await guest.write(100, bytes(2 * CLUSTER, 9));
    await graph.open({ driver: "snapshot-access", "node-name": "access", file: "cbw" });
    const reader = await graph.createBackend({ node: "access", perm: ["consistent-read"] });
    const seen = new Uint8Array(SIZE);
    await reader.read(0, seen);
    expect(isSame(seen, before)).toBe(true);
    expect(await reader.blockStatus(0, 10)).toMatchObject({ length: 10, depth: 1 });
    const { disk, target } = {
      disk: scripted.instance("disk"),
      target: scripted.instance("target"),
    };
    expect([disk.bytes[100], target.bytes[100]]).toEqual([9, 3]);
    expect(asCopyBeforeWrite(cbw).writeDelay.snapshot().count).toBe(1);
    checkGraph(graph);
    await reader.close();
    await graph.remove("access");
    await graph.change([graph.dropFilter(cbw)]);
    await graph.remove("cbw");
    await guest.write(0, bytes(10, 1));
    expect(disk.bytes[0]).toBe(1);
    await guest.close();
    await graph.close();
  });

  it("a write whose clusters are clean completes within the call", async () => {
    const { graph } = await world();
    const guest = await graph.createBackend({ node: "disk", perm: ["write"] });
    await graph.insertNode(filterOptions, graph.node("disk"));
    await guest.write(0, bytes(512, 1));
    expect(guest.write(512, bytes(512, 2))).toBe(completed);
    await guest.close();
    await graph.close();
  });

  it("begin in the commit of a change makes that turn the point in time", async () => {
    const { graph, scripted, before } = await world();
    const guest = await graph.createBackend({ node: "disk", perm: ["write"] });
    const cbw = await graph.open(filterOptions);
    const driver = asCopyBeforeWrite(cbw);
    driver.engine.reset(0, SIZE);
    await guest.write(5, bytes(1, 7));
    before.fill(7, 5, 6);
    await graph.change([
      graph.replaceNode(graph.node("disk"), cbw),
      { prepare: () => Promise.resolve(), commit: () => driver.begin() },
    ]);
    await guest.write(5, bytes(10, 9));
    expect(
      isSame(scripted.instance("target").bytes.subarray(0, CLUSTER), before.subarray(0, CLUSTER)),
    ).toBe(true);
    await guest.close();
    await graph.close();
  });

  it("is told from other nodes", async () => {
    const { graph } = await world();
    const cbw = await graph.open(filterOptions);
    expect(asCopyBeforeWrite(cbw).target.nodeName).toBe("target");
    expect(() => asCopyBeforeWrite(graph.node("disk"))).toThrow(
      expect.objectContaining({
        code: "EINVAL",
        message: "Node 'disk' is not a copy-before-write filter",
        context: { node: "disk" },
      }),
    );
    await graph.close();
  });

  it("goes by its historical name too", async () => {
    const { graph } = await world();
    const node = await graph.open({ ...filterOptions, driver: "backup-top" });
    expect(node.driverName).toBe("copy-before-write");
    await graph.close();
  });

  it("nobody writes to or resizes the source behind the filter", async () => {
    const { graph } = await world();
    await graph.insertNode(filterOptions, graph.node("disk"));
    const guest = await graph.createBackend({ node: "cbw", perm: ["consistent-read", "write"] });
    for (const perm of ["write", "resize"] as const) {
      const other = graph.createBackend({ node: "disk", perm: [perm] });
      await expect(other).rejects.toMatchObject({
        code: "EPERM",
        message: expect.stringMatching(
          `permissions '${perm}' are both required by .* \\(uses node 'disk' as 'root' child\\) and unshared by node 'cbw' \\(uses node 'disk' as 'file' child\\)`,
        ),
      });
    }
    await guest.close();
    await graph.close();
  });

  it("a source that somebody else writes to keeps the filter from being inserted", async () => {
    const { graph } = await world();
    const guest = await graph.createBackend({ node: "disk", perm: ["write"] });
    await graph.open({ driver: "x-blocklayer-pass-through", "node-name": "other", file: "disk" });
    const second = await graph.createBackend({ node: "other", perm: ["write"] });
    const cbw = await graph.open(filterOptions);
    await graph.createBackend({ node: "cbw", perm: ["consistent-read"] }).then(
      () => expect.unreachable(),
      (error: unknown) => expect(error).toMatchObject({ code: "EPERM" }),
    );
    expect(cbw.parents.size).toBe(0);
    await second.close();
    await guest.close();
    await graph.close();
  });

  it("a target may be written, but not resized, by others", async () => {
    const { graph } = await world();
    await graph.open(filterOptions);
    const other = await graph.createBackend({ node: "target", perm: ["write"] });
    await expect(graph.createBackend({ node: "target", perm: ["resize"] })).rejects.toMatchObject({
      code: "EPERM",
    });
    await other.close();
    await graph.close();
  });

  it("is not reopened with other options, nor resized", async () => {
    const { graph } = await world();
    await graph.open(filterOptions);
    await graph.reopen([filterOptions]);
    await expect(graph.reopen([{ ...filterOptions, "cbw-timeout": 4 }])).rejects.toMatchObject({
      code: "EINVAL",
      message: "Cannot change the option 'cbw-timeout'",
    });
    const backend = await graph.createBackend({ node: "cbw", perm: ["resize"] });
    await expect(backend.truncate(CLUSTER)).rejects.toMatchObject({ code: "ENOTSUP" });
    await backend.close();
    await graph.close();
  });

  it("a drain waits for a copy that outlived its write", async () => {
    const { graph, scripted, env } = await world();
    const cbw = await graph.open({ ...filterOptions, "cbw-timeout": 1 });
    const guest = await graph.createBackend({ node: "cbw", perm: ["write"] });
    const target = scripted.instance("target");
    target.hold("pwrite");
    const write = expect(guest.write(0, bytes(1, 1))).rejects.toMatchObject({ code: "ETIMEDOUT" });
    await env.clock.advance(1000);
    await write;
    let isDrained = false;
    const draining = cbw.drain().then((hold) => {
      isDrained = true;
      return hold;
    });
    await settleTurn();
    expect(isDrained).toBe(false);
    target.releaseAll();
    (await draining).end();
    await guest.close();
    await graph.close();
  });

  it("a drain of the source waits for reads of the snapshot and holds new ones", async () => {
    const { graph, scripted, before } = await world();
    const cbw = await graph.open(filterOptions);
    const access = await graph.open({
      driver: "snapshot-access",
      "node-name": "access",
      file: "cbw",
    });
    const reader = await graph.createBackend({ node: "access", perm: ["consistent-read"] });
    const disk = scripted.instance("disk");
    disk.hold("pread");
    const seen = new Uint8Array(10);
    const read = reader.read(0, seen);
    let isDrained = false;
    const draining = graph
      .node("disk")
      .drain()
      .then((drained) => {
        isDrained = true;
        return drained;
      });
    await settleTurn();
    expect([isDrained, cbw.isDrained, access.isDrained]).toEqual([false, true, true]);
    disk.releaseAll();
    const hold = await draining;
    await read;
    expect(isSame(seen, before.subarray(0, 10))).toBe(true);
    hold.end();
    await reader.close();
    await graph.close();
  });
});

describe("a target over the source", () => {
  const overlay = async (made: World, file: string) => {
    const { graph } = made;
    await graph.open({ driver: "memory", "node-name": "fleece", size: SIZE, backing: "disk" });
    if (file !== "disk") {
      await graph.open({ driver: "x-blocklayer-pass-through", "node-name": file, file: "disk" });
    }
    const cbw = await graph.open({ ...filterOptions, file, target: "fleece" });
    const guest = await graph.createBackend({ node: "cbw", perm: ["write"] });
    const reader = await graph.createBackend({ node: "fleece", perm: ["consistent-read"] });
    return { cbw, guest, reader };
  };

  it.each(["disk", "filtered"])(
    "shows the disk as it was to readers, also while they read %s below",
    async (file) => {
      const made = await world();
      const { graph, scripted, before, log } = made;
      const { cbw, guest, reader } = await overlay(made, file);
      // With a backing image below the target its cluster size needs no warning.
      expect([asCopyBeforeWrite(cbw).engine.clusterSize, log]).toEqual([CLUSTER, []]);
      const disk = scripted.instance("disk");
      disk.hold("pread");
      const seen = new Uint8Array(SIZE);
      const read = reader.read(0, seen);
      await disk.waitFor();
      disk.unhold();
      const write = guest.write(0, bytes(CLUSTER, 9));
      for (let turn = 0; turn < 5; turn += 1) await settleTurn();
      // The copy waits for the reader, and the guest for the copy.
      expect(disk.bytes[0]).toBe(before[0]);
      disk.releaseAll();
      await Promise.all([read, write]);
      expect([disk.bytes[0], isSame(seen, before)]).toEqual([9, true]);
      await reader.read(0, seen);
      expect(isSame(seen, before)).toBe(true);
      await reader.close();
      await guest.close();
      await graph.close();
    },
  );
});

describe("a dirty bitmap of the graph", () => {
  it("restricts what is saved and shown", async () => {
    const scripted = scriptedDefinition();
    let bitmaps: BitmapManager | undefined;
    const lookup = (node: string, name: string) => {
      assert(bitmaps !== undefined, "the bitmaps are there before the first node");
      return bitmaps.lookup(node, name);
    };
    const graph: Graph = new Graph({
      env: manualEnv(),
      drivers: [scripted, copyBeforeWrite({ bitmaps: { lookup } })],
    });
    bitmaps = new BitmapManager(graph);
    const disk = await graph.open({
      driver: "x-blocklayer-scripted",
      "node-name": "disk",
      size: SIZE,
    });
    await graph.open({ driver: "x-blocklayer-scripted", "node-name": "target", size: SIZE });
    await bitmaps.add(disk, { name: "b", granularity: 4096 });
    const guest = await graph.createBackend({ node: "disk", perm: ["write"] });
    await guest.write(2 * CLUSTER + 5000, bytes(1, 3));
    const options = { ...filterOptions, bitmap: { node: "disk", name: "b" } };
    const cbw = await graph.insertNode(options, disk);
    await guest.write(0, bytes(SIZE, 9));
    const saved = scripted.instance("target").log.map(({ offset }) => offset);
    expect(saved).toEqual([2 * CLUSTER]);
    const buffer = new Uint8Array(CLUSTER);
    await asCopyBeforeWrite(cbw).snapshotRead(2 * CLUSTER, buffer);
    expect(buffer[5000]).toBe(3);
    await expect(asCopyBeforeWrite(cbw).snapshotRead(0, buffer)).rejects.toMatchObject({
      code: "EACCES",
    });
    for (const [node, name] of [
      ["disk", "nope"],
      ["nowhere", "b"],
    ]) {
      const wrong = { ...filterOptions, "node-name": "wrong", bitmap: { node, name } };
      await expect(graph.open(wrong)).rejects.toMatchObject({
        message: expect.stringMatching(/'nope' not found|'nowhere' not found/),
      });
    }
    await guest.close();
    await graph.close();
  });
});

describe("a target without information on its clusters", () => {
  it("is warned of, unless it has a backing image", async () => {
    const { graph, log } = await world();
    await graph.open(filterOptions);
    expect(log).toEqual([expect.stringMatching(/^node 'cbw': The target block device doesn't/)]);
    await graph.close();
  });
});

describe("snapshot-access in a graph", () => {
  it("tells zeroes from data below the layer of the source, and what the layer holds", async () => {
    const { graph } = await world();
    await graph.open({ driver: "memory", "node-name": "base", size: SIZE });
    await graph.open({ driver: "memory", "node-name": "top", size: SIZE, backing: "base" });
    const base = await graph.createBackend({ node: "base", perm: ["write"] });
    await base.write(CLUSTER, bytes(CLUSTER, 5));
    await base.close();
    await graph.open({ ...filterOptions, file: "top" });
    await graph.open({ driver: "snapshot-access", "node-name": "access", file: "cbw" });
    const guest = await graph.createBackend({ node: "cbw", perm: ["write"] });
    await guest.write(2 * CLUSTER, bytes(CLUSTER, 6));
    const { io } = graph.node("access");
    const at = async (cluster: number, wantZero: boolean) => {
      const { flags, length } = await io.blockStatus(cluster * CLUSTER, CLUSTER, { wantZero });
      return [flags & (data | zero | allocated), length];
    };
    const { data, zero, allocated } = StatusFlag;
    expect(await at(0, true)).toEqual([zero | allocated, CLUSTER]);
    expect(await at(0, false)).toEqual([0, CLUSTER]);
    expect(await at(1, true)).toEqual([0, CLUSTER]);
    const [flags] = await at(2, true);
    expect((flags ?? 0) & allocated).toBe(allocated);
    await guest.close();
    await graph.close();
  });

  it("refuses writes, and discards what whoever may write gives up", async () => {
    const { graph, scripted } = await world();
    await graph.open(filterOptions);
    await graph.open({
      driver: "snapshot-access",
      "node-name": "access",
      file: "cbw",
      discard: "unmap",
    });
    const mover = await graph.createBackend({ node: "access", perm: ["consistent-read", "write"] });
    await expect(mover.write(0, bytes(512, 1))).rejects.toMatchObject({ code: "ENOTSUP" });
    await expect(mover.writeZeroes(0, 512)).rejects.toMatchObject({ code: "ENOTSUP" });
    await mover.discard(CLUSTER, CLUSTER);
    await expect(mover.read(CLUSTER, new Uint8Array(1))).rejects.toMatchObject({ code: "EACCES" });
    const discards = scripted
      .instance("target")
      .log.filter(({ operation }) => operation === "pdiscard");
    expect(discards).toMatchObject([{ offset: CLUSTER, length: CLUSTER }]);
    await mover.close();
    await graph.close();
  });
});
