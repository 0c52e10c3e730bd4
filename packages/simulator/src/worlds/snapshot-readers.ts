import type { ReadableBackend, WritableBackend } from "@blocklayer/block-graph";
import { StatusFlag } from "@blocklayer/driver";
import { BlockError } from "@blocklayer/errors";
import type { Simulation } from "../simulation.ts";
import type { SnapshotAccess, SnapshotOracle } from "./snapshot-oracle.ts";

/** Somebody who reads a snapshot, asks for its status, and gives up what he has read. */
export class SnapshotReader {
  readonly #name: string;
  readonly #simulation: Simulation;
  readonly #oracle: SnapshotOracle;
  readonly #disk: ReadableBackend;
  /** Set: may discard. */
  readonly #discards: Pick<WritableBackend, "discard"> | undefined;
  #isStopped: boolean = false;

  constructor(
    name: string,
    parts: {
      readonly simulation: Simulation;
      readonly oracle: SnapshotOracle;
      readonly disk: ReadableBackend;
      readonly discards: Pick<WritableBackend, "discard"> | undefined;
    },
  ) {
    this.#name = name;
    this.#simulation = parts.simulation;
    this.#oracle = parts.oracle;
    this.#disk = parts.disk;
    this.#discards = parts.discards;
  }

  /** No further access from here on; those that run go on. */
  stop(): void {
    this.#isStopped = true;
  }

  async work(count: number): Promise<void> {
    const { decisions, scheduler } = this.#simulation;
    const running: Promise<void>[] = [];
    for (let index = 0; index < count && !this.#isStopped; index += 1) {
      const access = this.#access();
      if (decisions.chance(`${this.#name} goes on`, 1, 2)) running.push(access);
      else await access;
      await scheduler.turn(`${this.#name} rests`);
    }
    await Promise.all(running);
  }

  #access(): Promise<void> {
    const { decisions } = this.#simulation;
    const weights = [6, 2, this.#discards === undefined ? 0 : 2];
    const kind = decisions.weighted(`${this.#name} access`, weights);
    const { size } = this.#disk;
    const offset = decisions.among(`${this.#name} grain`, [512, 65536, 1]);
    const start = offset * decisions.choose(`${this.#name} offset`, Math.ceil(size / offset));
    const longest = decisions.among(`${this.#name} longest`, [200_000, 4096, 1]);
    const length = 1 + decisions.choose(`${this.#name} length`, Math.min(longest, size - start));
    if (kind === 2) return this.#discard(start, length, size);
    return this.#judged(kind === 1 ? "status" : "read", start, length);
  }

  async #judged(what: "read" | "status", offset: number, length: number): Promise<void> {
    await this.#simulation.operation(`${this.#name} ${what} ${offset}+${length}`, async () => {
      const access = this.#oracle.access(what, offset, length);
      try {
        if (what === "read") {
          const buffer = new Uint8Array(length);
          await this.#disk.read(offset, buffer);
          this.#oracle.judgeRead(access, buffer);
        } else {
          const status = await this.#disk.blockStatus(offset, length);
          const isZero = (status.flags & StatusFlag.zero) !== 0;
          this.#oracle.judgeStatus(access, status.length, isZero);
        }
      } catch (error) {
        this.#judgeError(access, error);
      }
    });
  }

  /** Whole clusters now and then, since others are not given up. */
  async #discard(start: number, length: number, size: number): Promise<void> {
    const isToEnd = this.#simulation.decisions.chance(`${this.#name} discards to the end`, 1, 3);
    const end = isToEnd ? size : start + length;
    await this.#simulation.operation(`${this.#name} discard ${start}..${end}`, async () => {
      const access = this.#oracle.access("discard", start, end - start);
      const succeeded = this.#oracle.discard(start, end - start);
      try {
        await this.#discards?.discard(start, end - start);
        succeeded();
      } catch (error) {
        this.#judgeError(access, error);
      }
    });
  }

  #judgeError(access: SnapshotAccess, error: unknown): void {
    // What waits for the end of a drained section when the disk is closed does not begin.
    const isTooLate = error instanceof BlockError && error.code === "ENOMEDIUM" && this.#isStopped;
    if (!isTooLate) this.#oracle.judgeError(access, error);
  }
}
