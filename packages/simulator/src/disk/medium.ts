import { completed, rejected } from "@blocklayer/driver";
import { BlockError } from "@blocklayer/errors";
import type { Decisions } from "../decisions.ts";
import {
  type DiscardEffect,
  type DiskBehaviour,
  type DiskOperation,
  FATES,
  type Fate,
  fateWeights,
  PROMPT,
} from "./disk-behaviour.ts";
import { crashOutcome } from "./medium-crash.ts";
import { sameBytes } from "./same-bytes.ts";
import { type CachedChange, VolatileCache } from "./volatile-cache.ts";

/** Slow requests take up to this many simulated milliseconds. */
const SLOW_MS = 10_000;
/** What scrambled sectors are filled with. */
export const SCRAMBLED = 0xd5;

export interface MediumOptions {
  readonly name: string;
  /** Bytes, a multiple of the sector size. */
  readonly size: number;
  /** Bytes that are written as one, unless a crash tears them. Default 512. */
  readonly sectorSize?: number;
  /** Bytes: a sector is torn at multiples of it only. Default: the sector size, so never. */
  readonly tearSize?: number;
  /** Default `"zeroes"`. */
  readonly discard?: DiscardEffect;
  readonly decisions: Decisions;
  /** Adds a completion that is delivered later. */
  readonly post: (tag: string, deliver: () => void, delayMs?: number) => void;
  /** Told of a rule that the code above has broken. */
  readonly report: (kind: string, message: string) => void;
}

/** A request on its way. */
interface Job {
  readonly operation: DiskOperation;
  readonly offset: number;
  readonly length: number;
  /** Has its effect; at most once. */
  readonly effect: () => void;
  /** Has a part of its effect: the first `length` bytes. */
  readonly partly?: (length: number) => void;
  /** What the effect made; acknowledged when the request ends. */
  change?: CachedChange | undefined;
}

/**
 * The storage of a simulated disk. It outlives the drivers that open it, and crashes: then unflushed sectors are
 * any of their versions, in any combination, some of them torn.
 *
 * Each request draws its fate, see {@link Fate}. Requests of a crashed process are forgotten with their promises.
 */
export class Medium {
  readonly name: string;
  readonly cache: VolatileCache;
  behaviour: DiskBehaviour = PROMPT;
  /** Requests that were made to fail so far. */
  faultCount = 0;
  /** Called when a request that changes content is submitted. */
  onSubmit: ((operation: DiskOperation, offset: number, length: number) => void) | undefined;
  readonly #options: MediumOptions;
  readonly #discard: DiscardEffect;
  /** Sectors that can not be read. */
  readonly #bad = new Set<number>();
  /** Sectors that are known to be zeroes, 1 for yes. */
  readonly #holes: Uint8Array;
  readonly #running = new Set<Job>();
  /** Counts crashes: a driver of an earlier life has none. */
  #life = 0;

  constructor(options: MediumOptions) {
    this.name = options.name;
    this.#options = options;
    this.#discard = options.discard ?? "zeroes";
    this.cache = new VolatileCache(options.size, options.sectorSize ?? 512);
    this.#holes = new Uint8Array(options.size / this.cache.sectorSize).fill(1);
  }

  get size(): number {
    return this.cache.visible.length;
  }

  get life(): number {
    return this.#life;
  }

  /** Requests that have not ended. */
  get inFlight(): number {
    return this.#running.size;
  }

  /** Puts content in place, stable at once. Sectors of zeroes are holes. */
  format(content: Uint8Array): void {
    const { sectorSize } = this.cache;
    this.cache.format(content);
    const isZero = (sector: number): boolean =>
      content.subarray(sector * sectorSize, (sector + 1) * sectorSize).every((byte) => byte === 0);
    for (let sector = 0; sector < this.#holes.length; sector += 1) {
      this.#holes[sector] = isZero(sector) ? 1 : 0;
    }
  }

  /** Requests do not fail from here on, and every sector can be read. */
  heal(): void {
    this.behaviour = { ...this.behaviour, faults: 0 };
    this.#bad.clear();
  }

  read(offset: number, buffer: Uint8Array): Promise<void> {
    const end = offset + buffer.length;
    // Whoever looks at the buffer too early sees what nobody wrote.
    buffer.fill(0xee);
    return this.#submit({
      operation: "read",
      offset,
      length: buffer.length,
      effect: () => {
        const inside = this.cache.visible.subarray(offset, end);
        buffer.set(inside);
        buffer.fill(0, inside.length);
      },
    });
  }

  /** @param fua - complete only when stable */
  write(offset: number, buffer: Uint8Array, fua: boolean): Promise<void> {
    const given = buffer.slice();
    return this.#change(
      "write",
      offset,
      given.length,
      (length) => {
        if (!sameBytes(given, buffer)) {
          const where = `${buffer.length} bytes at ${offset} of ${this.name}`;
          this.#options.report("buffer changed", `${where} changed while the write was in flight`);
        }
        return this.#put(offset, given.subarray(0, length), 0);
      },
      fua,
    );
  }

  /** @param unmaps - may become a hole */
  zero(offset: number, length: number, unmaps: boolean, fua: boolean): Promise<void> {
    return this.#change(
      "zeroes",
      offset,
      length,
      (part) => this.#put(offset, new Uint8Array(part), unmaps ? 1 : 0),
      fua,
    );
  }

  discard(offset: number, length: number): Promise<void> {
    return this.#change(
      "discard",
      offset,
      length,
      (part) => {
        if (this.#discard === "keep") return undefined;
        const isZeroed = this.#discard === "zeroes";
        const bytes = new Uint8Array(part).fill(isZeroed ? 0 : SCRAMBLED);
        return this.#put(offset, bytes, isZeroed ? 1 : 0);
      },
      false,
    );
  }

  flush(): Promise<void> {
    const covered = this.cache.covered();
    return this.#submit({
      operation: "flush",
      offset: 0,
      length: 0,
      effect: () => this.cache.stabilise(covered),
    });
  }

  /**
   * Finds out what is stored at `offset`.
   *
   * @param unit - bytes, a multiple of the sector size: runs are made of whole ones
   */
  async status(
    offset: number,
    length: number,
    unit: number,
  ): Promise<{ readonly isHole: boolean; readonly length: number }> {
    let found = { isHole: false, length };
    await this.#submit({
      operation: "status",
      offset,
      length,
      effect: () => {
        found = this.#run(offset, length, unit);
      },
    });
    return found;
  }

  /** The power fails. What was in flight is forgotten, with effect or without. */
  crash(): { readonly lost: number; readonly torn: number } {
    const { decisions, tearSize } = this.#options;
    this.#life += 1;
    for (const { partly, length, change } of this.#running) {
      const isApplied = change === undefined && partly !== undefined;
      if (isApplied && decisions.chance(`${this.name} crash applies`, 1, 3)) partly(length);
    }
    this.#running.clear();
    const outcome = crashOutcome(this.cache, this.name, decisions, tearSize);
    this.cache.lose(outcome.sectors);
    this.#holes.fill(0);
    return outcome;
  }

  #put(offset: number, bytes: Uint8Array, hole: 0 | 1): CachedChange | undefined {
    if (bytes.length === 0) return undefined;
    const { sectorSize } = this.cache;
    const end = offset + bytes.length;
    const first = Math.floor(offset / sectorSize);
    for (let sector = first; sector * sectorSize < end; sector += 1) {
      this.#bad.delete(sector);
      const isWhole = sector * sectorSize >= offset && (sector + 1) * sectorSize <= end;
      if (hole === 0 || isWhole) this.#holes[sector] = hole;
    }
    return this.cache.write(offset, bytes);
  }

  #change(
    operation: "write" | "zeroes" | "discard",
    offset: number,
    length: number,
    put: (length: number) => CachedChange | undefined,
    fua: boolean,
  ): Promise<void> {
    const partly = (part: number): void => {
      job.change = put(part);
    };
    const job: Job = {
      operation,
      offset,
      length,
      effect: () => {
        partly(length);
        // Stable with the completion: then everybody may rely on it.
        if (fua && job.change !== undefined) this.cache.stabilise(new Set([job.change]));
      },
      partly,
    };
    this.onSubmit?.(operation, offset, length);
    return this.#submit(job);
  }

  #submit(job: Job): Promise<void> {
    const { decisions } = this.#options;
    const tag = `${this.name} ${job.operation}`;
    const weights = fateWeights(this.behaviour, job.operation);
    const fate = FATES[decisions.weighted(tag, weights)] ?? "at once";
    const isBad = job.operation === "read" && this.#touchesBad(job);
    if (fate === "at once" && !isBad) {
      job.effect();
      if (job.change !== undefined) job.change.acknowledged = true;
      return completed;
    }
    const life = this.#life;
    this.#running.add(job);
    if (fate === "early") job.effect();
    const delayMs = fate === "slow" ? 1 + decisions.choose(`${tag} delay`, SLOW_MS) : 0;
    return new Promise((resolve, reject) => {
      const deliver = (): void => {
        if (life !== this.#life) return;
        this.#running.delete(job);
        const error = this.#complete(job, fate, isBad);
        // Also what a failed write has left behind: a flush takes it along.
        if (job.change !== undefined) job.change.acknowledged = true;
        if (error === undefined) resolve();
        else reject(error);
      };
      this.#options.post(`${tag} ${job.offset}+${job.length}`, deliver, delayMs);
    });
  }

  /** Has the effect that the fate leaves to the end. Returns the error, if it is to fail. */
  #complete(job: Job, fate: Fate, isBad: boolean): BlockError | undefined {
    if (isBad) return this.#fault("EIO", job);
    switch (fate) {
      case "failed":
        return this.#fault("EIO", job);
      case "latent":
        // Who was healed meanwhile stays so.
        if (this.behaviour.faults > 0) {
          this.#bad.add(Math.floor(job.offset / this.cache.sectorSize));
        }
        return this.#fault("EIO", job);
      case "partly":
      case "full":
        job.partly?.(this.#firstPart(job.length));
        return this.#fault(fate === "full" ? "ENOSPC" : "EIO", job);
      case "at once":
      case "later":
      case "slow":
        job.effect();
        break;
      case "early":
        break;
    }
    return undefined;
  }

  /** Whole sectors, fewer than all. */
  #firstPart(length: number): number {
    const { sectorSize } = this.cache;
    const sectors = Math.max(1, Math.floor(length / sectorSize));
    return this.#options.decisions.choose(`${this.name} part`, sectors) * sectorSize;
  }

  #fault(code: string, { operation, offset, length }: Job): BlockError {
    this.faultCount += 1;
    return new BlockError(code, `simulated failure of ${operation}, ${length} bytes at ${offset}`, {
      medium: this.name,
      operation,
      offset,
      length,
    });
  }

  #touchesBad({ offset, length }: Job): boolean {
    if (this.#bad.size === 0) return false;
    const { sectorSize } = this.cache;
    const first = Math.floor(offset / sectorSize);
    return [...this.#bad].some(
      (sector) => sector >= first && sector * sectorSize < offset + length,
    );
  }

  #run(offset: number, length: number, unit: number): { isHole: boolean; length: number } {
    const isHole = this.#isHole(offset, unit);
    let end = offset + unit;
    while (end < offset + length && this.#isHole(end, unit) === isHole) end += unit;
    return { isHole, length: Math.min(end, offset + length) - offset };
  }

  #isHole(offset: number, unit: number): boolean {
    const { sectorSize } = this.cache;
    const first = Math.floor(offset / sectorSize);
    return this.#holes
      .subarray(first, first + Math.ceil(unit / sectorSize))
      .every((one) => one === 1);
  }
}

/** A request to a disk whose process is dead: nobody waits for the answer. */
export function unanswered<T>(): Promise<T> {
  return new Promise<T>(() => undefined);
}

/** Returns the error of a request after close. */
export function afterClose<T>(operation: string): Promise<T> {
  return rejected(
    new BlockError("ESHUTDOWN", `${operation} after the disk was closed`, { operation }),
  );
}
