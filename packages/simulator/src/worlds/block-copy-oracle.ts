import type { BlockCopy, CopyProgress } from "@blocklayer/block-copy";
import type { Medium } from "../disk/medium.ts";
import { sameBytes } from "../disk/same-bytes.ts";
import type { Simulation } from "../simulation.ts";
import { type BlockCopyPlan, isAllocated } from "./block-copy-plan.ts";
import type { CopyWatch } from "./copy-watch.ts";

/** What a copy has to be, by a model of its own: two images of an instant, and what was wanted of it. */
export class BlockCopyOracle implements CopyProgress {
  readonly #simulation: Pick<Simulation, "expect">;
  readonly #plan: BlockCopyPlan;
  readonly #disks: { readonly source: Medium; readonly target: Medium };
  /** What both held at the beginning of the round. */
  #source: Uint8Array = new Uint8Array();
  #target: Uint8Array = new Uint8Array();
  /** Clusters to be copied, by their offsets. */
  readonly #wanted = new Set<number>();
  #done = 0;
  #doneBefore = 0;
  #remaining = 0;
  /** Set while a range is given up on purpose. */
  #givesUp: boolean = false;

  constructor(
    simulation: Pick<Simulation, "expect">,
    plan: BlockCopyPlan,
    disks: { readonly source: Medium; readonly target: Medium },
  ) {
    this.#simulation = simulation;
    this.#plan = plan;
    this.#disks = disks;
  }

  workDone(length: number): void {
    this.#done += length;
  }

  setRemaining(length: number): void {
    this.#remaining = length;
  }

  /** A round begins: these clusters are to be copied. */
  begin(wanted: Iterable<number>): void {
    this.#source = this.#disks.source.cache.visible.slice();
    this.#target = this.#disks.target.cache.visible.slice();
    this.#wanted.clear();
    for (const at of wanted) this.#wanted.add(at);
    this.#doneBefore = this.#done;
  }

  isWanted(at: number): boolean {
    return this.#wanted.has(at);
  }

  /** Runs `work`, which takes clusters out of what is wanted on purpose. */
  givingUp(work: () => void): void {
    this.#givesUp = true;
    work();
    this.#givesUp = false;
  }

  /** The engine says that it does not copy these clusters. */
  skipped(offset: number, length: number, watch: CopyWatch): void {
    for (const at of this.#clusters(offset, length)) {
      const isRight = this.#givesUp || !isAllocated(this.#plan, at);
      this.#expect(isRight && this.isWanted(at), "skipped what was wanted", at);
      this.#expect(!watch.isCopied(at), "skipped what was copied", at);
      this.#wanted.delete(at);
    }
  }

  /** What is wanted and not in the target is still to be copied, at any moment. */
  expectNothingLost(engine: BlockCopy): void {
    for (const at of this.#wanted) {
      const isKnown = this.#holds(this.#source, at) || !engine.isClean(at, this.#plan.clusterSize);
      this.#expect(isKnown, "bit lost", at);
    }
  }

  /** The range was copied. */
  expectCopied(
    { engine, watch }: { readonly engine: BlockCopy; readonly watch: CopyWatch },
    offset: number,
    length: number,
  ): void {
    for (const at of this.#clusters(offset, length)) {
      if (this.isWanted(at)) {
        this.#expect(this.#holds(this.#source, at), "not copied", at);
      } else {
        // What was given up may be there in part, by a copy that failed before.
        const isAsBefore = watch.isTouched(at) || this.#holds(this.#target, at);
        this.#expect(isAsBefore, "wrote what was not wanted", at);
      }
      this.#expect(engine.isClean(at, this.#plan.clusterSize), "not clean", at);
    }
  }

  /** No call is under way: the counters are exact. */
  expectIdle(engine: BlockCopy, watch: CopyWatch): void {
    const { clusterSize } = this.#plan;
    const missing = [...this.#wanted].filter((at) => !watch.isCopied(at));
    const expected = {
      inFlight: 0,
      done: watch.copiedClusters * clusterSize,
      remaining: missing.length * clusterSize,
      reported: missing.length * clusterSize,
    };
    const actual = {
      inFlight: engine.inFlightBytes + watch.inFlight,
      done: this.#done - this.#doneBefore,
      remaining: engine.remaining,
      reported: this.#remaining,
    };
    this.#simulation.expect(
      JSON.stringify(actual) === JSON.stringify(expected),
      "wrong progress",
      () => `${JSON.stringify(actual)} instead of ${JSON.stringify(expected)}`,
    );
  }

  *#clusters(offset: number, length: number): Iterable<number> {
    const end = Math.min(offset + length, this.#plan.size);
    for (let at = offset; at < end; at += this.#plan.clusterSize) yield at;
  }

  #holds(content: Uint8Array, at: number): boolean {
    const end = at + this.#plan.clusterSize;
    const { visible } = this.#disks.target.cache;
    return sameBytes(visible.subarray(at, end), content.subarray(at, end));
  }

  #expect(condition: boolean, kind: string, at: number): void {
    this.#simulation.expect(condition, kind, () => `cluster at ${at}`);
  }
}
