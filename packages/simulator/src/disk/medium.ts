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
import { type MediumRun, SectorStates } from "./sector-states.ts";
import { type CachedChange, VolatileCache } from "./volatile-cache.ts";

/** Slow requests take up to this many simulated milliseconds. */
const SLOW_MS = 10_000;
/** What scrambled sectors are filled with. */
export const SCRAMBLED = 0xd5;

export interface MediumOptions {
  readonly name: string;
  /** Bytes. */
  readonly size: number;
  /** Bytes: what would make it longer fails with `ENOSPC`. Default: no limit. */
  readonly capacity?: number;
  /** Whether writes beyond the end make it longer, as in a file. Default `false`: they fail with `ENOSPC`. */
  readonly grows?: boolean;
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
  /** Has its effect elsewhere. */
  readonly misdirected?: () => void;
  /** Forgets what it was to make stable. */
  readonly drop?: () => void;
  /** What the effect made; acknowledged when the request ends. */
  change?: CachedChange | undefined;
}

/** What a crash has done to a medium. */
export interface MediumCrash {
  /** Sectors that are not what they were. */
  readonly lost: number;
  /** Sectors that are part of one version and part of another. */
  readonly torn: number;
  /** Whether the length is not what it was. */
  readonly isResized: boolean;
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
  /** Flushes that have forgotten what they covered so far. */
  lostCount = 0;
  /** Writes that went elsewhere so far. */
  misdirectedCount = 0;
  /** Called when a request that changes content is submitted. */
  onSubmit: ((operation: DiskOperation, offset: number, length: number) => void) | undefined;
  readonly #options: MediumOptions;
  readonly #discard: DiscardEffect;
  readonly #sectors: SectorStates;
  readonly #running = new Set<Job>();
  /** Counts crashes: a driver of an earlier life has none. */
  #life = 0;

  constructor(options: MediumOptions) {
    this.name = options.name;
    this.#options = options;
    this.#discard = options.discard ?? "zeroes";
    this.cache = new VolatileCache(options.size, options.sectorSize ?? 512);
    this.#sectors = new SectorStates(options.size, this.cache.sectorSize);
  }

  get size(): number {
    return this.cache.size;
  }

  /** Whether writes beyond the end make it longer. */
  get grows(): boolean {
    return this.#options.grows ?? false;
  }

  /** Bytes: the longest that it can become. */
  get capacity(): number {
    return this.#options.capacity ?? Number.POSITIVE_INFINITY;
  }

  get life(): number {
    return this.#life;
  }

  /** Requests that have not ended. */
  get inFlight(): number {
    return this.#running.size;
  }

  /** Whether a request of the kind that touches the range has not ended. */
  isUnderWay(operation: DiskOperation, offset: number, length: number): boolean {
    for (const job of this.#running) {
      const touches = job.offset < offset + length && offset < job.offset + job.length;
      if (job.operation === operation && touches) return true;
    }
    return false;
  }

  /** Puts content in place, stable at once. Sectors of zeroes are holes. */
  format(content: Uint8Array): void {
    this.cache.format(content);
    this.#sectors.format(content);
  }

  /** Requests do not fail from here on, and every sector can be read. */
  heal(): void {
    this.behaviour = { ...this.behaviour, faults: 0, drops: 0, lies: 0, misdirects: 0 };
    this.#sectors.heal();
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
      (at, length) => {
        if (!sameBytes(given, buffer)) {
          const where = `${buffer.length} bytes at ${offset} of ${this.name}`;
          this.#options.report("buffer changed", `${where} changed while the write was in flight`);
        }
        return this.#put(at, given.subarray(0, length), 0);
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
      (at, part) => this.#put(at, new Uint8Array(part), unmaps ? 1 : 0),
      fua,
    );
  }

  discard(offset: number, length: number): Promise<void> {
    return this.#change(
      "discard",
      offset,
      length,
      (at, part) => {
        if (this.#discard === "keep") return undefined;
        const isZeroed = this.#discard === "zeroes";
        const bytes = new Uint8Array(part).fill(isZeroed ? 0 : SCRAMBLED);
        return this.#put(at, bytes, isZeroed ? 1 : 0);
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
      drop: () => {
        for (const change of covered) change.isDropped = true;
      },
    });
  }

  /** Changes the length. What is new reads as zeroes; after a crash the length is the old one or the new one. */
  truncate(size: number): Promise<void> {
    const [offset, length] = [Math.min(size, this.size), Math.abs(size - this.size)];
    const make = (): void => {
      this.#sectors.resize(size);
      job.change = this.cache.truncate(size);
    };
    const job: Job = { operation: "truncate", offset, length, effect: make, partly: make };
    this.onSubmit?.("truncate", offset, length);
    return this.#submit(job);
  }

  /**
   * Finds out what is stored at `offset`.
   *
   * @param unit - bytes, a multiple of the sector size: runs are made of whole ones
   */
  async status(offset: number, length: number, unit: number): Promise<MediumRun> {
    let found = { isHole: false, length };
    await this.#submit({
      operation: "status",
      offset,
      length,
      effect: () => {
        found = this.runAt(offset, length, unit);
      },
    });
    return found;
  }

  /** What {@link status} would find now. */
  runAt(offset: number, length: number, unit: number): MediumRun {
    return this.#sectors.run(offset, length, unit);
  }

  /** The power fails. What was in flight is forgotten, with effect or without. */
  crash(): MediumCrash {
    const { decisions, tearSize } = this.#options;
    this.#life += 1;
    for (const { partly, length, change } of this.#running) {
      const isApplied = change === undefined && partly !== undefined;
      if (isApplied && decisions.chance(`${this.name} crash applies`, 1, 3)) partly(length);
    }
    this.#running.clear();
    const outcome = crashOutcome(this.cache, this.name, decisions, tearSize);
    this.cache.lose(outcome.sectors);
    this.#sectors.resize(this.size);
    this.#sectors.forgetHoles();
    return outcome;
  }

  #put(offset: number, bytes: Uint8Array, hole: 0 | 1): CachedChange | undefined {
    if (bytes.length === 0) return undefined;
    this.#sectors.change(offset, bytes.length, hole);
    return this.cache.write(offset, bytes);
  }

  #change(
    operation: "write" | "zeroes" | "discard",
    offset: number,
    length: number,
    put: (at: number, length: number) => CachedChange | undefined,
    fua: boolean,
  ): Promise<void> {
    const isInside = offset + length <= this.size;
    const partly = (part: number): void => {
      if (isInside && offset + part > this.size) this.#reportCut(operation, offset, part);
      job.change = put(offset, part);
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
      misdirected: () => {
        job.change = put(this.#elsewhere(offset, length), length);
      },
    };
    this.onSubmit?.(operation, offset, length);
    return this.#submit(job);
  }

  /** A request that was inside of the disk must not be under way while its place is cut off. */
  #reportCut(operation: DiskOperation, offset: number, length: number): void {
    const where = `${operation} of ${length} bytes at ${offset} of ${this.name}`;
    this.#options.report(
      "cut in flight",
      `${where} was in flight while it became ${this.size} long`,
    );
  }

  #submit(job: Job): Promise<void> {
    const { decisions } = this.#options;
    const tag = `${this.name} ${job.operation}`;
    const weights = fateWeights(this.behaviour, job.operation);
    const fate = FATES[decisions.weighted(tag, weights, FATES)] ?? "at once";
    const isBad = job.operation === "read" && this.#sectors.isBad(job.offset, job.length);
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
          this.#sectors.spoil(job.offset);
        }
        return this.#fault("EIO", job);
      case "partly":
      case "full":
        // There is no half of a change of length.
        if (job.operation !== "truncate") job.partly?.(this.#firstPart(job.length));
        else if (fate === "partly") job.effect();
        return this.#fault(fate === "full" ? "ENOSPC" : "EIO", job);
      case "dropped":
        this.lostCount += 1;
        job.drop?.();
        return this.#fault("EIO", job);
      case "misdirected":
        this.misdirectedCount += 1;
        job.misdirected?.();
        break;
      case "lied":
        break;
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

  /** Another place of the same length, at a multiple of the sector size. */
  #elsewhere(offset: number, length: number): number {
    const { sectorSize } = this.cache;
    const count = Math.max(1, Math.floor((this.size - length) / sectorSize) + 1);
    const place = this.#options.decisions.choose(`${this.name} misdirected to`, count);
    const shift = offset % sectorSize;
    return Math.min(place * sectorSize + shift, Math.max(0, this.size - length));
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
