import type { BlockNode, DrainHold } from "@blocklayer/block-graph";
import type { BlockJob } from "@blocklayer/block-job";
import { Permissions } from "@blocklayer/driver";
import { settleTurn } from "@blocklayer/env";
import { describe, expect, it } from "vitest";
import { CHUNK, CopyDriver, IdleDriver, Rig, SIZE } from "./job-rig.ts";

interface Copy {
  readonly rig: Rig;
  readonly source: BlockNode;
  readonly target: BlockNode;
  readonly driver: CopyDriver;
  readonly blockJob: BlockJob;
}

async function copy(): Promise<Copy> {
  const rig = new Rig();
  const [source, target] = [await rig.scriptedDisk("source"), await rig.scriptedDisk("target")];
  const driver = new CopyDriver();
  return { rig, source, target, driver, blockJob: await rig.copy(source, target, { driver }) };
}

/** Whether a promise has settled by now. */
async function isSettled(promise: Promise<unknown>): Promise<boolean> {
  let settled = false;
  const note = (): void => {
    settled = true;
  };
  promise.then(note, note);
  await settleTurn();
  return settled;
}

async function finish({ rig, blockJob }: Copy): Promise<void> {
  for (let turn = 0; turn < 3 * (SIZE / CHUNK) && !blockJob.job.isCompleted; turn += 1) {
    await rig.tick();
  }
  expect(await blockJob.job.completed()).toBeUndefined();
  expect(rig.defects).toEqual([]);
}

describe("a drained section", () => {
  it.each<{ of: string; count: number; begin: (c: Copy) => Promise<DrainHold> }>([
    { of: "the source", count: 1, begin: ({ source }) => source.drain() },
    { of: "the target", count: 1, begin: ({ target }) => target.drain() },
    { of: "the source and what is below", count: 1, begin: ({ source }) => source.drainSubtree() },
    { of: "the whole graph", count: 2, begin: ({ rig }) => rig.graph.drainAll() },
  ])("of $of pauses the job $count times", async ({ count, begin }) => {
    const all = await copy();
    const { rig, blockJob, driver } = all;
    blockJob.job.start();
    await rig.tick();
    const hold = await begin(all);
    const { pauseCount, isQuiescent, userPaused } = blockJob.job;
    expect([pauseCount, isQuiescent, userPaused]).toEqual([count, true, false]);
    const copied = driver.copied;
    await rig.tick();
    await rig.tick();
    expect(driver.copied).toBe(copied);
    expect(blockJob.job.status).toBe("paused");
    hold.end();
    expect(blockJob.job.pauseCount).toBe(0);
    await finish(all);
    expect(driver.copied).toBe(SIZE);
  });

  it("of a node below a node of the job reaches the job", async () => {
    const rig = new Rig();
    const base = await rig.disk("base");
    const filter = await rig.filter("filter", "base");
    const blockJob = await rig.create({ nodes: [{ name: "main node", node: filter }] });
    blockJob.job.start();
    const hold = await base.drain();
    expect(blockJob.job.pauseCount).toBe(1);
    hold.end();
    expect(blockJob.job.pauseCount).toBe(0);
  });

  it("counts beside the user's pause, and outlasts his resume", async () => {
    const all = await copy();
    const { rig, source, blockJob } = all;
    blockJob.job.start();
    await rig.settle();
    const hold = await source.drain();
    blockJob.job.pause();
    expect(blockJob.job.pauseCount).toBe(2);
    blockJob.job.resume();
    await rig.tick();
    expect(blockJob.job.status).toBe("paused");
    hold.end();
    await finish(all);
  });

  it("waits for the request in flight, and no other is in flight until it ends", async () => {
    const all = await copy();
    const { rig, source, target, blockJob } = all;
    const disk = rig.scripted.instance("target");
    disk.hold("pwrite");
    blockJob.job.start();
    await rig.tick();
    expect(target.io.inFlight).toBe(1);
    const drain = source.drain();
    expect(await isSettled(drain)).toBe(false);
    disk.releaseAll();
    const hold = await drain;
    for (let turn = 0; turn < 5; turn += 1) {
      await rig.tick();
      expect([source.io.inFlight, target.io.inFlight]).toEqual([0, 0]);
    }
    hold.end();
    await finish(all);
  });

  it("at the end of which the job finishes lets it finish", async () => {
    const all = await copy();
    const { rig, source, driver, blockJob } = all;
    blockJob.job.start();
    while (driver.copied < SIZE - CHUNK) await rig.tick();
    const hold = await source.drain();
    const copied = driver.copied;
    expect(copied).toBeLessThan(SIZE);
    hold.end();
    await finish(all);
    expect(source.parents.size).toBe(0);
    expect(blockJob.job.pauseCount).toBe(0);
  });

  it("that is open when the job ends is ended for nobody", async () => {
    const rig = new Rig();
    const node = await rig.disk("disk");
    const blockJob = await rig.create({ nodes: [{ name: "main node", node }] });
    blockJob.job.start();
    await rig.settle();
    const hold = await node.drain();
    expect(await blockJob.job.cancelAndWait({ force: true })).toMatchObject({ code: "ECANCELED" });
    expect(node.parents.size).toBe(0);
    hold.end();
    expect([blockJob.job.pauseCount, node.quiesceCount, rig.defects]).toEqual([0, 0, []]);
  });

  it("that is open when the job starts lets it begin by pausing", async () => {
    const all = await copy();
    const { rig, source, blockJob } = all;
    const hold = await source.drain();
    expect(blockJob.job.pauseCount).toBe(2);
    blockJob.job.start();
    await rig.settle();
    expect(rig.events).toEqual(["S:created", "S:running", "S:paused"]);
    hold.end();
    await finish(all);
    expect(rig.events).toEqual([
      "S:created",
      "S:running",
      "S:paused",
      "S:running",
      "S:waiting",
      "S:pending",
      "COMPLETED",
      "S:concluded",
      "S:null",
    ]);
  });

  it("pauses a job that gets the node while it is open", async () => {
    const rig = new Rig();
    const node = await rig.disk("disk");
    const blockJob = await rig.create();
    const hold = await node.drain();
    const edge = await blockJob.addNode("main node", node);
    expect(blockJob.job.pauseCount).toBe(2);
    await blockJob.removeNode(edge);
    expect(blockJob.job.pauseCount).toBe(1);
    hold.end();
  });

  it("asks the driver whether work is in flight beside the job", async () => {
    const rig = new Rig();
    const node = await rig.disk("disk");
    let isAtWork = true;
    const gate = Promise.withResolvers<void>();
    const blockJob = await rig.create({
      nodes: [{ name: "main node", node }],
      driver: { run: () => gate.promise, drainedPoll: () => isAtWork },
    });
    blockJob.job.start();
    await settleTurn();
    const drain = node.drain();
    expect(await isSettled(drain)).toBe(false);
    isAtWork = false;
    blockJob.job.notifyIdle();
    (await drain).end();
    gate.resolve();
    await blockJob.job.completed();
  });
});

describe("a job that changes the graph", () => {
  async function surgeon(change: (rig: Rig, blockJob: BlockJob) => Promise<void>): Promise<{
    rig: Rig;
    node: BlockNode;
    blockJob: BlockJob;
    log: string[];
  }> {
    const rig = new Rig();
    const node = await rig.disk("disk");
    const log: string[] = [];
    const blockJob = await rig.create({
      nodes: [{ name: "main node", node, perm: Permissions.write }],
      driver: {
        run: async (self) => {
          await self.surgery(() => change(rig, self));
          log.push(`works while drained: ${node.isDrained}`);
        },
      },
    });
    return { rig, node, blockJob, log };
  }

  it("may drain its own nodes by that", async () => {
    const { rig, node, blockJob, log } = await surgeon(async ({ graph }) => {
      const filter = await graph.open({
        driver: "x-blocklayer-pass-through",
        "node-name": "filter",
        file: "disk",
      } as never);
      await graph.change([graph.replaceNode(node, filter)]);
    });
    const backend = await rig.graph.createBackend({ node, perm: ["write"] });
    blockJob.job.start();
    expect(await blockJob.job.completed()).toBeUndefined();
    expect((backend as unknown as { node: BlockNode }).node.name).toBe("filter");
    expect(log).toEqual(["works while drained: false"]);
  });

  it("does not keep others from draining while it waits, and rests until they have done", async () => {
    const gate = Promise.withResolvers<void>();
    const { rig, node, blockJob, log } = await surgeon(() => gate.promise);
    blockJob.job.start();
    await settleTurn();
    const hold = await node.drain();
    gate.resolve();
    await rig.settle();
    expect([log, blockJob.job.status]).toEqual([[], "paused"]);
    hold.end();
    expect(await blockJob.job.completed()).toBeUndefined();
    expect(log).toEqual(["works while drained: false"]);
  });

  it("wakes a drain that waited for it already", async () => {
    const rig = new Rig();
    const node = await rig.disk("disk");
    const [before, during] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    const blockJob = await rig.create({
      nodes: [{ name: "main node", node }],
      driver: {
        run: async (self) => {
          await before.promise;
          await self.surgery(() => during.promise);
        },
      },
    });
    blockJob.job.start();
    await settleTurn();
    const drain = node.drain();
    expect(await isSettled(drain)).toBe(false);
    before.resolve();
    const hold = await drain;
    during.resolve();
    hold.end();
    await blockJob.job.completed();
  });

  it("gets the error of a change that fails, at a pause point", async () => {
    const { rig, node, blockJob } = await surgeon(() => Promise.reject(new Error("refused")));
    const hold = await node.drain();
    blockJob.job.start();
    await rig.settle();
    hold.end();
    const outcome = await blockJob.job.completed();
    expect(outcome?.message).toContain("refused");
  });

  it("needs no pause point outside of its work", async () => {
    const rig = new Rig();
    const node = await rig.disk("disk");
    const driver = new IdleDriver();
    const seen: number[] = [];
    const blockJob: BlockJob = await rig.create({
      nodes: [{ name: "main node", node }],
      driver: {
        run: (self) => driver.run(self),
        prepare: () =>
          blockJob.surgery(async () => {
            const hold = await node.drain();
            seen.push(blockJob.job.pauseCount);
            hold.end();
          }),
      },
    });
    blockJob.job.start();
    await rig.settle();
    driver.finish();
    expect(await blockJob.job.completed()).toBeUndefined();
    expect(seen).toEqual([1]);
  });
});

describe("the speed of a block job", () => {
  it("is kept over time and ends a wait when it is raised", async () => {
    const all = await copy();
    const { rig, driver, blockJob } = all;
    blockJob.job.setSpeed(4 * CHUNK);
    blockJob.job.start();
    await rig.env.clock.advance(1000);
    expect(driver.copied).toBeGreaterThanOrEqual(3 * CHUNK);
    expect(driver.copied).toBeLessThanOrEqual(5 * CHUNK);
    blockJob.job.setSpeed(0);
    await finish(all);
  });
});
