import { completed, Permissions, Role } from "@blocklayer/driver";
import { ScriptedDriver } from "@blocklayer/driver-tests";
import { describe, expect, it } from "vitest";
import { rigNode, rootEdge } from "./io-rig.ts";
import { type LoggedDisk, loggedDisk } from "./logged-disk.ts";

async function turns(): Promise<void> {
  for (let turn = 0; turn < 30; turn += 1) await Promise.resolve();
}

/** A node that keeps nothing itself, over two disks of which it may write the first. */
function overTwo(overrides: Parameters<typeof loggedDisk>[1] = {}): {
  readonly own: LoggedDisk;
  readonly log: string[];
  readonly edge: ReturnType<typeof rootEdge>;
  readonly io: ReturnType<typeof rigNode>["io"];
} {
  const log: string[] = [];
  const child = (name: string): ReturnType<typeof rigNode> =>
    rigNode({
      name,
      driver: () =>
        loggedDisk({ size: 4096 }, { flush: async () => void log.push(`flush ${name}`) }).driver,
    });
  const own = loggedDisk(
    { size: 4096 },
    {
      flushToOs: async () => void log.push("to os"),
      flushToDisk: async () => void log.push("to disk"),
      ...overrides,
    },
  );
  const node = rigNode({
    driver: () => own.driver,
    children: {
      file: { node: child("written"), role: Role.data | Role.primary },
      backing: { node: child("read"), role: Role.cow, perm: Permissions.consistentRead },
      log: { node: child("kept"), role: Role.metadata, perm: Permissions.writeUnchanged },
    },
  });
  return { own, log, edge: rootEdge(node), io: node.io };
}

describe("flush", () => {
  it("goes to the system, then to the disk, then to the children that may be written", async () => {
    const { log, edge } = overTwo();
    await edge.pwrite(0, new Uint8Array(512));
    await edge.flush();
    expect(log).toEqual(["to os", "to disk", "flush written", "flush kept"]);
  });

  it("leaves everything to a driver with a complete flush of its own", async () => {
    const { log, edge } = overTwo({ flush: async () => void log.push("complete") });
    await edge.flush();
    expect(log).toEqual(["complete"]);
  });

  it("goes to the disk only when something was written since the last that succeeded", async () => {
    const { log, edge } = overTwo();
    await edge.flush();
    expect(log).not.toContain("to disk");
    await edge.pwriteZeroes(0, 512);
    await edge.flush();
    await edge.flush();
    expect(log.filter((line) => line === "to disk")).toHaveLength(1);
  });

  it("does not go to the disk where flushes to disk are ignored", async () => {
    const { driver, log } = loggedDisk({ size: 4096 });
    const node = rigNode({ driver: () => driver, generic: { cacheNoFlush: true } });
    const edge = rootEdge(node);
    await edge.pwrite(0, new Uint8Array(512));
    await edge.flush();
    expect(log).toEqual(["pwrite 0+512"]);
  });

  it.each(["readOnly", "inactive"])(
    "of a node that is %s succeeds without action",
    async (kind) => {
      const { driver, log } = loggedDisk({ size: 4096 });
      const node = rigNode({ driver: () => driver, generic: { readOnly: kind === "readOnly" } });
      node.active = kind !== "inactive";
      node.io.writeGeneration = 1;
      await node.io.flush();
      expect(log).toEqual([]);
    },
  );

  it("reports the first failure of a child, asks the others all the same, and remembers nothing", async () => {
    const asked: string[] = [];
    const failing = (name: string): ReturnType<typeof rigNode> =>
      rigNode({
        name,
        driver: () =>
          loggedDisk(
            { size: 4096 },
            {
              flush: async () => {
                asked.push(name);
                throw new Error(`${name} failed`);
              },
            },
          ).driver,
      });
    const node = rigNode({
      driver: () => loggedDisk({ size: 4096 }).driver,
      children: {
        file: { node: failing("first"), role: Role.data },
        second: { node: failing("second"), role: Role.data },
      },
    });
    const edge = rootEdge(node);
    await edge.pwrite(0, new Uint8Array(512));
    await expect(edge.flush()).rejects.toThrow("first failed");
    expect(asked).toEqual(["first", "second"]);
    expect(node.io.flushedGeneration).toBe(0);
    expect(node.io.inFlight).toBe(0);
  });

  it("that failed is done again by the next", async () => {
    const driver = new ScriptedDriver({ size: 4096 });
    const edge = rootEdge(rigNode({ driver: () => driver }));
    await edge.pwrite(0, new Uint8Array(512));
    driver.failNth("flush");
    await expect(edge.flush()).rejects.toMatchObject({ code: "EIO" });
    await edge.flush();
    await edge.flush();
    expect(
      driver.log.filter(({ operation }) => operation === "flush").map(({ state }) => state),
    ).toEqual(["failed", "done"]);
  });

  it("covers only what had completed when it started", async () => {
    const driver = new ScriptedDriver({ size: 4096 });
    const edge = rootEdge(rigNode({ driver: () => driver }));
    await edge.pwrite(0, new Uint8Array(512));
    driver.hold("flush");
    const first = edge.flush();
    await turns();
    await edge.pwrite(512, new Uint8Array(512));
    driver.releaseAll();
    await first;
    await edge.flush();
    expect(driver.log.filter(({ operation }) => operation === "flush")).toHaveLength(2);
  });

  it.each(["succeeds", "fails"])(
    "that others asked for meanwhile is one for all of them and %s for all",
    async (how) => {
      const driver = new ScriptedDriver({ size: 4096 });
      const edge = rootEdge(rigNode({ driver: () => driver }));
      await edge.pwrite(0, new Uint8Array(512));
      driver.hold("flush");
      const first = edge.flush();
      await turns();
      await edge.pwrite(512, new Uint8Array(512));
      const later = [edge.flush(), edge.flush(), edge.flush()];
      await turns();
      expect(driver.held).toHaveLength(1);
      driver.release();
      await first;
      await turns();
      expect(driver.held).toHaveLength(1);
      if (how === "succeeds") driver.release();
      else driver.fail(driver.held[0]?.index ?? 0);
      driver.unhold();
      for (const { status } of await Promise.allSettled(later)) {
        expect(status).toBe(how === "succeeds" ? "fulfilled" : "rejected");
      }
      await edge.flush();
      const count = driver.log.filter(({ operation }) => operation === "flush").length;
      expect(count).toBe(how === "succeeds" ? 2 : 3);
    },
  );

  it("runs one at a time", async () => {
    let running = 0;
    let most = 0;
    const { driver } = loggedDisk(
      { size: 4096 },
      {
        flush: async () => {
          running += 1;
          most = Math.max(most, running);
          await turns();
          running -= 1;
        },
      },
    );
    const node = rigNode({ driver: () => driver });
    const edge = rootEdge(node);
    const flushes: Promise<void>[] = [];
    for (let count = 0; count < 20; count += 1) {
      flushes.push(edge.flush());
      await Promise.resolve();
    }
    await Promise.all(flushes);
    expect(most).toBe(1);
    expect(node.io.idle() ?? completed).toBe(completed);
  });
});
