import { BlockError } from "@blocklayer/errors";
import type { Simulation } from "../simulation.ts";
import { readStamp } from "../stamp.ts";
import { CELL, SECTOR, type SourceDisk } from "./backup-disk.ts";

/** Entries that fit into the last sector of a disk. */
const ENTRIES = SECTOR / CELL;

/** One entry: its place, and the operation that wrote it. */
interface Entry {
  readonly source: SourceDisk;
  readonly offset: number;
  readonly operation: number;
}

/**
 * A program that keeps a journal across disks: it writes to one, and when that has ended, to the next. Whoever sees an
 * entry has to see all entries before it, on whichever disk they are.
 */
export class Journal {
  readonly #simulation: Simulation;
  readonly #sources: readonly SourceDisk[];
  readonly #mayFail: (error: BlockError) => boolean;
  readonly #entries: Entry[] = [];
  #isBroken: boolean = false;

  constructor(
    simulation: Simulation,
    sources: readonly SourceDisk[],
    mayFail: (error: BlockError) => boolean,
  ) {
    this.#simulation = simulation;
    this.#sources = sources;
    this.#mayFail = mayFail;
  }

  /** Entries that were begun. */
  get length(): number {
    return this.#entries.length;
  }

  /** Writes entries, one after the other, until there is no room. */
  async work(count: number): Promise<void> {
    const { length } = this.#sources;
    for (let rest = count; rest > 0 && this.length < ENTRIES * length; rest -= 1) {
      await this.#simulation.scheduler.turn("before the next entry");
      if (!this.#isBroken) await this.#append();
    }
  }

  /**
   * Judges what copies of the disks show, taken in one instant.
   *
   * @param copyOf - the copy of a disk, `undefined` if there is none that holds the journal
   */
  judge(copyOf: (source: SourceDisk) => Uint8Array | undefined): void {
    let missing: number | undefined;
    let seen = 0;
    for (const [index, { source, offset, operation }] of this.#entries.entries()) {
      const copy = copyOf(source);
      if (copy === undefined) continue;
      const cell = readStamp(new Uint32Array(copy.slice(offset, offset + CELL).buffer));
      const isThere = cell.kind === "stamp" && cell.operation === operation;
      if (isThere) seen += 1;
      else missing ??= index;
      const before = missing;
      this.#simulation.expect(
        !isThere || before === undefined,
        "not one instant",
        () => `entry ${index} on ${source.name} is in the backups, entry ${before ?? 0} is not`,
      );
    }
    if (seen > 0 && missing !== undefined) {
      this.#simulation.sometimes("an instant fell into the journal");
    }
  }

  async #append(): Promise<void> {
    const index = this.length;
    const source = this.#sources[index % this.#sources.length] as SourceDisk;
    const offset = source.size - SECTOR + Math.floor(index / this.#sources.length) * CELL;
    const { oracle } = source;
    const operation = oracle.begin("write", offset, CELL);
    this.#entries.push({ source, offset, operation: operation.id });
    try {
      await source.disk.write(offset, oracle.payload(operation));
      oracle.end(operation, true);
    } catch (error) {
      oracle.end(operation, false);
      if (!(error instanceof BlockError)) throw error;
      // It is there or not, and nothing comes after it.
      this.#isBroken = true;
      this.#simulation.expect(this.#mayFail(error), "error from nowhere", () => error.message);
    }
  }
}
