import type { BlockCopy, CopyCall } from "@blocklayer/block-copy";
import type { WritableBackend } from "@blocklayer/block-graph";
import { BlockError } from "@blocklayer/errors";
import { alignDown, alignUp } from "@blocklayer/offsets";
import type { DiskBehaviour } from "../disk/disk-behaviour.ts";
import type { Medium } from "../disk/medium.ts";
import type { RegisterOracle } from "../register-oracle.ts";
import type { Simulation } from "../simulation.ts";
import type { BlockCopyOracle } from "./block-copy-oracle.ts";
import { type BlockCopyPlan, CELL } from "./block-copy-plan.ts";
import type { CopyWatch } from "./copy-watch.ts";

/** Whatever is asked of the disk fails. */
const GONE: DiskBehaviour = { atOnce: 0, later: 0, early: 0, slow: 0, faults: 1 };
/** Calls of one caller in the background, until it gives up. */
const ATTEMPTS = 4;

export interface CopyCallersParts {
  readonly simulation: Simulation;
  readonly plan: BlockCopyPlan;
  readonly engine: BlockCopy;
  /** The source, for those who write to it. */
  readonly disk: WritableBackend;
  readonly watch: CopyWatch;
  readonly oracle: BlockCopyOracle;
  readonly writes: RegisterOracle;
  readonly media: readonly Medium[];
}

/** Those who use one copy engine at the same time. */
export class CopyCallers {
  readonly #parts: CopyCallersParts;
  /** Errors that calls have ended with: each belongs to one call. */
  readonly #errors = new Set<BlockError>();
  /** Calls that have not ended. */
  readonly #running = new Set<CopyCall>();
  #writersRunning = 0;
  #ended: (() => void) | undefined;
  /** Whether nothing may be copied: the only call was cancelled. */
  #isSilent: boolean = false;

  constructor(parts: CopyCallersParts) {
    this.#parts = parts;
  }

  /** Resolves when the last writer's call has really ended, also one that is out of time. */
  async whenEnded(): Promise<void> {
    while (this.#writersRunning > 0) {
      await new Promise<void>((resolve) => {
        this.#ended = resolve;
      });
    }
  }

  /** Somebody who has clusters copied, and then overwrites them. */
  async write(name: string, count: number): Promise<void> {
    const { decisions } = this.#parts.simulation;
    const running: Promise<void>[] = [];
    for (let index = 0; index < count; index += 1) {
      const write = this.#writeOnce(name);
      if (decisions.chance(`${name} goes on`, 1, 2)) running.push(write);
      else await write;
    }
    await Promise.all(running);
  }

  async #writeOnce(name: string): Promise<void> {
    const { simulation, plan, engine, oracle } = this.#parts;
    const { decisions, scheduler } = simulation;
    const cells = plan.size / CELL;
    const cell = decisions.choose(`${name} cell`, cells);
    const longest = Math.min(cells - cell, decisions.among(`${name} longest`, [8, 1, 100]));
    const offset = cell * CELL;
    const length = (1 + decisions.choose(`${name} cells`, longest)) * CELL;
    const start = alignDown(offset, plan.clusterSize);
    const clusters = alignUp(offset + length, plan.clusterSize) - start;
    const timeoutMs = decisions.among(`${name} timeout`, [0, 0, 0, 500]);
    await simulation.operation(`${name} ${offset}+${length}`, async () => {
      try {
        this.#writersRunning += 1;
        this.#silence(false);
        await engine.copy(start, clusters, {
          ignoreRateLimit: true,
          timeoutMs,
          onEnd: () => this.#callEnded(),
        });
        oracle.expectCopied(this.#parts, start, clusters);
      } catch (error) {
        this.#judgeError(error, timeoutMs !== 0);
        return;
      } finally {
        oracle.expectNothingLost(engine);
      }
      await this.#overwrite(offset, length);
    });
    await scheduler.turn(`${name} rests`);
  }

  #callEnded(): void {
    this.#writersRunning -= 1;
    this.#expect(this.#writersRunning >= 0, "a call ended twice", () => "");
    this.#ended?.();
  }

  /** In the turn in which the copy has ended. */
  async #overwrite(offset: number, length: number): Promise<void> {
    const { disk, writes, simulation } = this.#parts;
    const isZero = simulation.decisions.chance("overwrites with zeroes", 1, 4);
    const operation = writes.begin(isZero ? "zeroes" : "write", offset, length);
    const payload = writes.payload(operation);
    try {
      if (isZero) await disk.writeZeroes(offset, length);
      else await disk.write(offset, payload);
      writes.end(operation, true);
    } catch (error) {
      writes.end(operation, false);
      this.#expect(this.#isFromDisk(error), "error from nowhere", () => String(error));
    }
  }

  /** Copies until it succeeds, is cancelled, or has failed too often. */
  async copyInBackground(name: string): Promise<void> {
    const { simulation, plan, engine, oracle } = this.#parts;
    const { decisions, scheduler } = simulation;
    const { clusterCount, clusterSize } = plan;
    for (let turns = decisions.choose(`${name} waits`, 4); turns > 0; turns -= 1) {
      await scheduler.turn(`${name} waits`);
    }
    const first = decisions.chance(`${name} copies a part`, 1, 3)
      ? decisions.choose(`${name} first cluster`, clusterCount)
      : 0;
    const offset = first * clusterSize;
    const length = (clusterCount - first) * clusterSize;
    const options = {
      maxWorkers: 1 + decisions.choose(`${name} workers`, 4),
      maxChunk: clusterSize * decisions.choose(`${name} chunk`, 4),
    };
    for (let attempt = 0; attempt < ATTEMPTS; attempt += 1) {
      this.#silence(false);
      const call = engine.start(offset, length, options);
      this.#running.add(call);
      const disturbing = this.#disturbCall(name, call);
      await simulation.operation(name, () => call.done);
      this.#running.delete(call);
      oracle.expectNothingLost(engine);
      if (call.succeeded) oracle.expectCopied(this.#parts, offset, length);
      this.#judgeCall(call);
      await disturbing;
      if (!call.failed) return;
    }
  }

  async #disturbCall(name: string, call: CopyCall): Promise<void> {
    const { decisions, scheduler } = this.#parts.simulation;
    const what = decisions.weighted(`${name} is disturbed`, [3, 2, 1]);
    for (let turns = what === 0 ? 0 : decisions.choose(`${name} goes on`, 12); turns > 0; ) {
      await scheduler.turn(`${name} goes on`);
      turns -= 1;
    }
    if (what === 1) await this.#cancel(call);
    if (what === 2) call.kick();
  }

  async #cancel(call: CopyCall): Promise<void> {
    const { simulation, engine, plan } = this.#parts;
    if (call.finished) return;
    call.cancel();
    simulation.sometimes("a call was cancelled");
    if (engine.remaining > engine.inFlightBytes) {
      simulation.sometimes("a cancelled call had still to copy");
    }
    const isAlone = this.#running.size === 1 && this.#writersRunning === 0;
    // A copy without buffers that fails is read and written by the same task.
    if (!isAlone || plan.copyRange !== "off") return;
    this.#silence(true);
    await call.done;
    const isIdle = !this.#isSilent || engine.inFlightBytes === 0;
    this.#silence(false);
    this.#expect(isIdle, "in flight after a cancel", () => String(engine.inFlightBytes));
  }

  #silence(isSilent: boolean): void {
    this.#isSilent = isSilent;
    this.#parts.watch.silence(isSilent ? "the cancel of the only call" : undefined);
  }

  /** Takes ranges out of what is to be copied. */
  async giveUp(): Promise<void> {
    const { simulation, plan, engine, oracle } = this.#parts;
    const { decisions, scheduler } = simulation;
    for (let count = 1 + decisions.choose("ranges given up", 3); count > 0; count -= 1) {
      for (let turns = decisions.choose("before giving up", 6); turns > 0; turns -= 1) {
        await scheduler.turn("before giving up");
      }
      const first = decisions.choose("first given up", plan.clusterCount);
      const clusters = 1 + decisions.choose("clusters given up", plan.clusterCount - first);
      if (engine.inFlightBytes > 0) {
        simulation.sometimes("a range was given up while a task ran");
      }
      oracle.givingUp(() => engine.reset(first * plan.clusterSize, clusters * plan.clusterSize));
      oracle.expectNothingLost(engine);
    }
  }

  /** Leaves out what the source's top layer does not hold, as a backup of the top layer does at its beginning. */
  async scan(): Promise<void> {
    const { simulation, plan, engine } = this.#parts;
    engine.setSkipUnallocated(true);
    await simulation.operation("scan", async () => {
      for (let at = 0; at < plan.size; ) {
        const run = await engine.resetUnallocated(at);
        if (!run.allocated) simulation.sometimes("the layer does not hold a cluster");
        at += run.length;
      }
    });
    engine.setSkipUnallocated(false);
  }

  /** Changes the speed, lets time pass, takes a disk away and brings it back. */
  async disturb(): Promise<void> {
    const { simulation, engine, plan, media } = this.#parts;
    const { decisions, scheduler } = simulation;
    for (let count = 1 + decisions.choose("disturbances", 5); count > 0; count -= 1) {
      switch (decisions.choose("disturbance", 3)) {
        case 1:
          engine.setSpeed(plan.clusterSize * decisions.among("speed", [0, 4, 40]));
          if (decisions.chance("kicks", 1, 2)) this.#kick();
          break;
        case 2:
          await this.#takeAway(media[decisions.choose("disk that is gone", 2)] as Medium);
          break;
        default:
          await scheduler.turn("a while", decisions.among("while", [0, 100, 1000]));
      }
      if (scheduler.pendingTags.some((tag) => /^sleep \d/.test(tag) && tag !== "sleep 500")) {
        simulation.sometimes("a call waited for the speed limit");
      }
      await scheduler.turn("before the next disturbance");
    }
    engine.setSpeed(0);
    this.#kick();
  }

  #kick(): void {
    for (const call of this.#running) call.kick();
  }

  async #takeAway(medium: Medium): Promise<void> {
    const { simulation } = this.#parts;
    const { behaviour } = medium;
    medium.behaviour = GONE;
    simulation.sometimes("a disk was gone");
    for (let turns = simulation.decisions.choose("turns without it", 8); turns > 0; turns -= 1) {
      await simulation.scheduler.turn("without a disk");
    }
    medium.behaviour = behaviour;
  }

  #judgeCall(call: CopyCall): void {
    const { succeeded, failed, cancelled, error, errorIsRead } = call;
    const states = [succeeded, failed, cancelled].filter(Boolean).length;
    this.#expect(call.finished && states === 1, "no one outcome", () =>
      JSON.stringify({ succeeded, failed, cancelled }),
    );
    if (error === undefined) return;
    this.#judgeError(error, false);
    const isRead = mediumOf(error) === "source";
    this.#expect(errorIsRead === isRead, "wrong side blamed", () => String(error));
  }

  #judgeError(error: unknown, mayBeLate: boolean): void {
    if (!(error instanceof BlockError)) throw error;
    this.#parts.simulation.sometimes(`a call failed with ${error.code}`);
    if (error.code === "ETIMEDOUT" && mayBeLate) return;
    this.#expect(this.#isFromDisk(error), "error from nowhere", () => String(error));
    this.#expect(!this.#errors.has(error), "another call's error", () => String(error));
    this.#errors.add(error);
  }

  /** Whether an error is one that a disk was made to have. */
  #isFromDisk(error: unknown): boolean {
    return error instanceof BlockError && mediumOf(error) !== undefined;
  }

  #expect(condition: boolean, kind: string, message: () => string): void {
    this.#parts.simulation.expect(condition, kind, message);
  }
}

/** The disk that was made to have the error. */
function mediumOf({ context }: BlockError): unknown {
  const { medium } = context;
  return medium;
}
