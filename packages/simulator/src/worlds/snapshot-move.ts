import type { DiskBehaviour, DiskOperation } from "../disk/disk-behaviour.ts";
import type { Medium } from "../disk/medium.ts";
import type { RegisterOracle } from "../register-oracle.ts";
import type { Simulation } from "../simulation.ts";
import type { SnapshotDisks } from "./snapshot-oracle.ts";

/** Whatever is asked of a disk fails. */
export const GONE: DiskBehaviour = { atOnce: 0, later: 0, early: 0, slow: 0, faults: 1 };

/** What is copied is soon read, and late discarded. */
export const SLOW_DISCARDS: DiskBehaviour = {
  atOnce: 0,
  later: 20,
  early: 20,
  slow: 80,
  faults: 0,
  prompt: ["read", "status"],
};

/** A source that is discarded where it was copied, while guests use it: what it loses, and what it may not lose. */
export class SnapshotMove {
  /** Called when the target is lost: whoever writes now where nothing is copied yet breaks the snapshot. */
  onTargetLost: (() => void) | undefined;
  readonly #simulation: Simulation;
  readonly #source: Medium;
  readonly #target: Medium;
  readonly #writes: RegisterOracle;
  /** What the source held at the instant. */
  readonly #image: Uint8Array;
  /** Discards until the target is lost: the next copy fails, while earlier ones are still being discarded. */
  #discardsLeft: number;

  /** To be made in the turn of the instant. @param writes - learns what is discarded */
  constructor(
    simulation: Simulation,
    { source, target }: Pick<SnapshotDisks, "source" | "target">,
    writes: RegisterOracle,
  ) {
    this.#simulation = simulation;
    this.#source = source;
    this.#target = target;
    this.#writes = writes;
    this.#image = source.cache.visible.slice();
    this.#discardsLeft = [2, 3, 1, 0][simulation.decisions.choose("target is lost", 4)] ?? 0;
  }

  /** A change of the source is submitted: guests and the move never work on the same place at the same time. */
  onSubmit(operation: DiskOperation, offset: number, length: number): void {
    const isOwn = operation === "discard";
    const others: readonly DiskOperation[] = isOwn ? ["write", "zeroes"] : ["discard"];
    this.#simulation.expect(
      !others.some((other) => this.#source.isUnderWay(other, offset, length)),
      "changed while it was discarded",
      () => `${operation} of ${length} bytes at ${offset}`,
    );
    if (isOwn) this.#discard(offset, length);
  }

  /** A snapshot breaks: what guests write from here on is kept nowhere else. */
  broken(): void {
    if (this.#source.isUnderWay("discard", 0, this.#source.size)) {
      this.#simulation.sometimes("a snapshot was broken while its source was discarded");
    }
  }

  /** The target is not lost any more. */
  calm(): void {
    this.#discardsLeft = 0;
  }

  /** Guests may find gone what was there at the instant, but nothing that they have written since. */
  #discard(offset: number, length: number): void {
    this.#simulation.sometimes("a source was discarded where it was copied");
    const end = Math.min(offset + length, this.#source.size);
    const now = this.#source.cache.visible;
    let wrong = offset;
    while (wrong < end && now[wrong] === this.#image[wrong]) wrong += 1;
    this.#simulation.expect(
      wrong === end,
      "discarded what was written since",
      () => `${length} bytes at ${offset}, byte ${wrong}`,
    );
    this.#writes.end(this.#writes.begin("discard", offset, end - offset), true);
    this.#discardsLeft -= 1;
    if (this.#discardsLeft !== 0) return;
    this.#target.behaviour = GONE;
    this.onTargetLost?.();
  }
}
