import type { BlockNode } from "@blocklayer/block-graph";
import type { PermissionName } from "@blocklayer/driver";
import { BlockError } from "@blocklayer/errors";
import type { Simulation } from "../simulation.ts";
import { CLUSTER } from "./backup-plan.ts";
import { attempt, type BackupRun } from "./backup-run.ts";
import type { BackupStack } from "./backup-stack.ts";

/** What happens to a backup while it runs, dullest first. */
const DISTURBANCES = [
  "nothing",
  "drain",
  "pause",
  "speed",
  "a second",
  "insert",
  "remove",
  "reopen",
  "refused user",
  "refused verb",
  "refused bitmap",
] as const;
const WEIGHTS = [3, 4, 4, 3, 3, 2, 2, 1, 2, 2, 1];

/** Somebody who does to a running backup whatever its users may do, and what they may not. */
export class Disturber {
  readonly #simulation: Simulation;
  readonly #stack: BackupStack;
  readonly #run: BackupRun;
  /** A filter that was put in beside that of the backup. */
  #inserted: BlockNode | undefined;
  #insertedCount = 0;

  constructor(simulation: Simulation, stack: BackupStack, run: BackupRun) {
    this.#simulation = simulation;
    this.#stack = stack;
    this.#run = run;
  }

  async disturb(count: number): Promise<void> {
    const { decisions, scheduler } = this.#simulation;
    for (let rest = count; rest > 0; rest -= 1) {
      await scheduler.turn("before the next disturbance");
      const what =
        DISTURBANCES[decisions.weighted("disturbance", WEIGHTS, DISTURBANCES)] ?? "nothing";
      await this.#simulation.operation(what, () => this.#do(what));
    }
  }

  /** Reads the target now and then, if it is one that shows the instant while the backup lasts. */
  async fleece(count: number): Promise<void> {
    for (let rest = count; rest > 0 && this.#run.target.shape === "fleecing"; rest -= 1) {
      await this.#simulation.scheduler.turn("before the next fleecing");
      await this.#simulation.operation("fleece", () => this.#fleece());
    }
  }

  /** Takes out what was put in. */
  async undo(): Promise<void> {
    const node = this.#inserted;
    this.#inserted = undefined;
    if (node !== undefined) await this.#stack.dropFilter(node);
  }

  async #do(what: (typeof DISTURBANCES)[number]): Promise<void> {
    const { decisions, scheduler } = this.#simulation;
    const { job } = this.#run.backup;
    switch (what) {
      case "nothing":
        return;
      case "drain":
        return this.#drain();
      case "pause":
        return this.#pause();
      case "speed":
        attempt(() => job.setSpeed(CLUSTER * decisions.choose("speed", 3)));
        return;
      case "a second":
        return scheduler.turn("a second", 1000);
      case "insert":
        return this.#insert();
      case "remove":
        return this.undo();
      case "reopen":
        return this.#reopen();
      case "refused user":
        return this.#refusedUser();
      case "refused verb":
        return this.#refusedVerb();
      case "refused bitmap":
        return this.#refusedBitmap();
    }
  }

  /** In a drained section nothing is in flight below it, and the job rests. */
  async #drain(): Promise<void> {
    const { decisions, scheduler } = this.#simulation;
    const { graph } = this.#stack;
    const { source, target } = this.#run;
    const what = decisions.choose("drained", 4);
    const node = [graph.node(source.name), this.#run.filterNode, graph.node(target.name)][what];
    const hold = node === undefined ? await graph.drainAll() : await node.drain();
    const isAll = node === undefined;
    if (isAll) this.#simulation.sometimes("everything was drained");
    const inFlight = (): number => {
      // Who reopens a node flushes it, in a section of his own: no content changes by it.
      if (this.#stack.reopening > 0) return 0;
      if (isAll) return this.#stack.inFlight;
      // Below the filter that of another backup may be at work.
      return what === 1 ? 0 : (what === 2 ? target : source).medium.inFlight;
    };
    const { job } = this.#run.backup;
    const expectNone = (kind: string): void => {
      const count = inFlight();
      this.#simulation.expect(count === 0, kind, () => `${count} requests`);
    };
    expectNone("drained in flight");
    if (this.#run.plan.isCancelled && decisions.chance("cancels in the section", 1, 3)) {
      this.#simulation.sometimes("a job was cancelled in a drained section");
      attempt(() => job.cancel({ force: true }));
      await scheduler.turn("cancelled");
    }
    await scheduler.turn("drained");
    expectNone("began in a drained section");
    hold.end();
  }

  async #pause(): Promise<void> {
    const { decisions, scheduler } = this.#simulation;
    const { job } = this.#run.backup;
    attempt(() => job.pause());
    for (let turns = decisions.choose("turns paused", 4); turns >= 0; turns -= 1) {
      await scheduler.turn("paused");
    }
    if (job.isQuiescent && !job.isCompleted)
      this.#simulation.sometimes("a paused job was quiescent");
    attempt(() => job.resume());
  }

  /** Above the filter of the backup, or between it and the source. */
  async #insert(): Promise<void> {
    if (this.#inserted !== undefined) return;
    const isBelow = this.#simulation.decisions.chance("between filter and source", 1, 2);
    const node = isBelow ? this.#stack.graph.node(this.#run.source.name) : this.#run.filterNode;
    if (node === undefined) return;
    this.#insertedCount += 1;
    const name = `extra-${this.#run.options["job-id"] ?? ""}-${this.#insertedCount}`;
    try {
      this.#inserted = await this.#stack.insertFilter(name, node);
      if (this.#run.isSaving) this.#simulation.sometimes("a filter was put in during a backup");
    } catch (error) {
      // It may have gone meanwhile; nothing else is a reason.
      this.#expectRefused(error, () => node.state !== "open");
    }
  }

  /** Lets the filter pass discards on, or not. */
  async #reopen(): Promise<void> {
    const { options, filterNode } = this.#run;
    if (filterNode === undefined) return;
    const passes = this.#simulation.decisions.chance("discards pass", 1, 2);
    const [file, target] = [filterNode.children.get("file"), filterNode.children.get("target")];
    this.#stack.reopening += 1;
    try {
      await this.#stack.graph.reopen([
        {
          driver: "copy-before-write",
          "node-name": filterNode.name,
          file: file?.node.name,
          target: target?.node.name,
          "on-cbw-error": options["on-cbw-error"],
          "cbw-timeout": options["cbw-timeout"],
          "min-cluster-size": options["x-perf"]?.["min-cluster-size"],
          "x-blocklayer-discard-source": options["discard-source"],
          discard: passes ? "unmap" : "ignore",
        },
      ]);
      this.#simulation.sometimes("a filter was reopened");
    } catch (error) {
      // A flush is part of it, and nodes come and go.
      this.#expectRefused(error, () => true);
    } finally {
      this.#stack.reopening -= 1;
    }
  }

  /** While the backup holds source and target nobody else writes to the one, or resizes either. */
  async #refusedUser(): Promise<void> {
    const { decisions } = this.#simulation;
    const { source, target } = this.#run;
    const [node, perm] = decisions.among<readonly [string, PermissionName]>("refused user", [
      [source.name, "resize"],
      [target.name, "resize"],
      [source.name, "write"],
    ]);
    const isRefusable = (): boolean => this.#run.isHolding;
    const wasHeld = isRefusable();
    try {
      const backend = await this.#stack.graph.createBackend({ node, perm: [perm] });
      this.#simulation.expect(
        !(wasHeld && isRefusable()),
        "not refused",
        () => `somebody got the permission ${perm} on '${node}'`,
      );
      await backend.close();
    } catch (error) {
      this.#simulation.sometimes("a user was refused");
      this.#expectRefused(error, () => error instanceof BlockError && error.code === "EPERM");
    }
  }

  /** What a job's state, or the job's hold, does not allow. */
  async #refusedVerb(): Promise<void> {
    const { decisions } = this.#simulation;
    const { graph, backups } = this.#stack;
    const { options, source } = this.#run;
    const { job } = this.#run.backup;
    const attempts = [
      ["complete", () => job.complete()],
      ["remove the source", () => graph.remove(source.name)],
      ["remove the filter", () => graph.remove(options["filter-node-name"] ?? "")],
      ["the same id", () => backups.start({ ...options, target: source.name, sync: "none" })],
      ["the same target", () => backups.start({ ...options, "job-id": "refused" })],
      ["a target of another size", () => this.#startToo(source.size)],
    ] as const satisfies readonly [readonly [string, () => Promise<unknown>], ...unknown[]];
    const [name, verb] = decisions.among<readonly [string, () => Promise<unknown>]>(
      "refused verb",
      attempts,
    );
    if (!this.#run.isHolding || job.isCompleted) return;
    try {
      await verb();
      this.#simulation.fail("not refused", name);
    } catch (error) {
      this.#simulation.sometimes("a verb was refused");
      this.#expectRefused(error, () => true);
    }
  }

  #startToo(size: number): Promise<unknown> {
    const { graph, backups } = this.#stack;
    const node = graph.nodes().find((one) => one.size !== size)?.name ?? "to-nobody";
    return backups.start({
      "job-id": "refused",
      device: this.#run.source.name,
      target: node,
      sync: "full",
    });
  }

  /** A bitmap that a job uses is nobody else's. */
  async #refusedBitmap(): Promise<void> {
    const { decisions } = this.#simulation;
    const { bitmaps } = this.#stack;
    const { options, source } = this.#run;
    const { bitmap: name } = options;
    if (name === undefined) return;
    const target = { node: source.name, name };
    const verb = decisions.among<() => unknown>("refused bitmap verb", [
      () => bitmaps.remove(source.name, name),
      () => bitmaps.merge(target, []),
      () => bitmaps.lookup(source.name, name).clear(),
      () => bitmaps.lookup(source.name, name).disable(),
    ]);
    if (!this.#run.isHolding || !bitmaps.lookup(source.name, name).busy) return;
    try {
      await verb();
      this.#simulation.fail("not refused", `a change of bitmap '${name}'`);
    } catch (error) {
      this.#simulation.sometimes("a change of a bitmap was refused");
      this.#expectRefused(error, () => error instanceof BlockError && error.code === "EBUSY");
    }
  }

  /** Reads the target of a backup that lies over the source: it is as of the instant. */
  async #fleece(): Promise<void> {
    const { decisions } = this.#simulation;
    const { target, source } = this.#run;
    if (target.shape !== "fleecing" || !this.#run.isSaving) return;
    const sectors = Math.floor(source.size / 4096);
    // Mostly where guests write most.
    const isAnywhere = decisions.chance("fleeced anywhere", 1, 3);
    const sector = isAnywhere ? decisions.choose("fleeced from", sectors) : 0;
    const length = 4096 * (1 + decisions.choose("fleeced", sectors - sector));
    const backend = await this.#stack.graph.createBackend({
      node: target.name,
      perm: ["consistent-read"],
    });
    const buffer = new Uint8Array(length);
    try {
      await backend.read(sector * 4096, buffer);
      if (this.#run.isSaving) {
        this.#simulation.sometimes("a fleecing image was read");
        this.#run.oracles.expectFleeced(sector * 4096, buffer);
      }
    } catch (error) {
      this.#expectRefused(
        error,
        () => error instanceof BlockError && this.#stack.isExplained(error),
      );
    }
    await backend.close();
  }

  #expectRefused(error: unknown, isExpected: () => boolean): void {
    if (!(error instanceof BlockError)) throw error;
    this.#simulation.expect(
      isExpected() || this.#stack.isExplained(error),
      "error from nowhere",
      () => `${error.code} ${error.message}`,
    );
  }
}
