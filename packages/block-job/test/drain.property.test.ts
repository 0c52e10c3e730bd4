import type { DrainHold } from "@blocklayer/block-graph";
import { settleTurn } from "@blocklayer/env";
import { BlockError } from "@blocklayer/errors";
import fc from "fast-check";
import { expect, it } from "vitest";
import { CopyDriver, Rig, SIZE } from "./job-rig.ts";

const step = fc.oneof(
  { weight: 4, arbitrary: fc.record({ do: fc.constantFrom("tick", "release", "hold", "fail") }) },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constantFrom("drain", "drain tree"),
      node: fc.constantFrom("source", "filter", "target"),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("drain all") }) },
  { weight: 4, arbitrary: fc.record({ do: fc.constant("end"), at: fc.nat(9) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constantFrom("pause", "resume") }) },
);

/** A copy from a filter over one disk to another, with drains that come and go. */
class World {
  readonly rig: Rig = new Rig();
  readonly driver: CopyDriver = new CopyDriver("stop");
  /** Sections that are quiet. */
  readonly holds: { readonly hold: DrainHold; readonly requests: number }[] = [];
  /** Sections that still wait. */
  waiting = 0;

  async open(): Promise<void> {
    const { rig, driver } = this;
    await rig.scriptedDisk("source");
    const filter = await rig.filter("filter", "source");
    const target = await rig.scriptedDisk("target");
    const { job } = await rig.copy(filter, target, { driver });
    job.start();
  }

  get requests(): number {
    const { scripted } = this.rig;
    return scripted.instance("source").log.length + scripted.instance("target").log.length;
  }

  async step(what: string, node: string, at: number): Promise<void> {
    const { graph, scripted } = this.rig;
    const job = this.rig.jobs.find("job0");
    const target = scripted.instance("target");
    const actions: Record<string, () => unknown> = {
      tick: () => this.rig.tick(),
      hold: () => target.hold("pwrite"),
      release: () => target.releaseAll(),
      fail: () => target.failNth("pwrite", 1, "ENOSPC"),
      drain: () => this.#drain(graph.node(node).drain()),
      "drain tree": () => this.#drain(graph.node(node).drainSubtree()),
      "drain all": () => this.#drain(graph.drainAll()),
      end: () => this.#end(at),
      pause: () => job?.pause(),
      resume: () => job?.resume(),
    };
    try {
      await actions[what]?.();
    } catch (error) {
      if (!(error instanceof BlockError)) throw error;
    }
    await this.rig.settle();
  }

  #drain(begun: Promise<DrainHold>): void {
    this.waiting += 1;
    const open = (hold: DrainHold): void => {
      this.waiting -= 1;
      this.holds.push({ hold, requests: this.requests });
    };
    begun.then(open, (error: unknown) => this.rig.defects.push(error));
  }

  #end(at: number): void {
    const [ended] = this.holds.splice(at % Math.max(1, this.holds.length), 1);
    ended?.hold.end();
  }

  /** While a section is quiet the job sends nothing, anywhere. */
  check(): void {
    for (const { requests } of this.holds) expect(this.requests).toBe(requests);
  }

  async finish(): Promise<void> {
    const target = this.rig.scripted.instance("target");
    target.clearFailures();
    target.releaseAll();
    await settleTurn();
    await this.rig.settle();
    expect(this.waiting).toBe(0);
    while (this.holds.length > 0) this.#end(0);
    const job = this.rig.jobs.find("job0");
    if (job?.userPaused === true) job.resume();
    for (let turn = 0; turn < 40 && this.rig.jobs.list().length > 0; turn += 1) {
      await this.rig.tick();
    }
    expect(this.driver.copied).toBe(SIZE);
    expect([this.rig.jobs.list(), this.rig.defects]).toEqual([[], []]);
    expect(this.rig.graph.nodes().map((node) => node.quiesceCount)).toEqual([0, 0, 0]);
  }
}

it("a job sends nothing while any of its nodes is drained, and finishes when none is", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 30 }), async (steps) => {
      const world = new World();
      await world.open();
      for (const next of steps) {
        const node = "node" in next ? next.node : "target";
        await world.step(next.do, node, "at" in next ? next.at : 0);
        world.check();
      }
      await world.finish();
    }),
    { numRuns: 200 },
  );
});
