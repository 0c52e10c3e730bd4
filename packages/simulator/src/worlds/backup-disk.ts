import type { WritableBackend } from "@blocklayer/block-graph";
import { assert, type BlockError } from "@blocklayer/errors";
import type { Medium } from "../disk/medium.ts";
import { OverlayStore } from "../disk/overlay-store.ts";
import { sameBytes } from "../disk/same-bytes.ts";
import { RegisterOracle } from "../register-oracle.ts";
import type { Simulation } from "../simulation.ts";
import { drawBehaviour } from "./drawn-behaviour.ts";
import { Guest, type GuestDisk } from "./guest.ts";

export const CELL = 512;
export const SECTOR = 4096;

/** What the nodes of a disk are, dullest first. */
export const SOURCE_SHAPES = ["plain", "overlay", "filtered", "filtered overlay"] as const;
export type SourceShape = (typeof SOURCE_SHAPES)[number];

/** What a backup writes to, dullest first; `fleecing` is an image over the source. */
export const TARGET_SHAPES = ["plain", "image", "wide image", "filtered", "fleecing"] as const;
export type TargetShape = (typeof TARGET_SHAPES)[number];

/** What a medium of a backup holds, for whoever judges it: not as any of the nodes sees it. */
export class DiskContent {
  readonly medium: Medium;
  readonly #store: OverlayStore | undefined;
  readonly #below: () => Uint8Array | undefined;

  /** @param below - what is read where the store holds nothing */
  constructor(
    medium: Medium,
    store?: OverlayStore,
    below: () => Uint8Array | undefined = () => undefined,
  ) {
    this.medium = medium;
    this.#store = store;
    this.#below = below;
  }

  /** Returns what reads would return now; not to be kept. */
  now(): Uint8Array {
    return this.#store?.contentOver(this.#below()) ?? this.medium.cache.visible;
  }

  /** Returns a test of ranges: whether the disk itself, and nothing below it, holds some of it now. */
  allocation(): (at: number, end: number) => boolean {
    const store = this.#store;
    if (store === undefined) return () => true;
    const units = store.units();
    return (at, end) => units.subarray(at / store.unit, Math.ceil(end / store.unit)).includes(1);
  }

  /** Whether the disk itself holds this content in the whole range, or zeroes where there is nothing below it. */
  holds(content: Uint8Array, at: number, end: number): boolean {
    const store = this.#store;
    const { visible } = this.medium.cache;
    if (store === undefined) return sameBytes(visible.subarray(at, end), content.subarray(at, end));
    const isAlone = this.#below() === undefined;
    for (let position = at; position < end; ) {
      const { isAllocated, length } = store.run(position, end - position);
      const wanted = content.subarray(position, position + length);
      const isHeld = isAllocated
        ? sameBytes(visible.subarray(position, position + length), wanted)
        : isAlone && wanted.every((byte) => byte === 0);
      if (!isHeld) return false;
      position += length;
    }
    return true;
  }
}

/** Which sectors of a medium somebody has tried to write. */
export class WrittenSectors {
  readonly #sectors: Uint8Array;

  constructor(size: number) {
    this.#sectors = new Uint8Array(Math.ceil(size / SECTOR));
  }

  touch(offset: number, length: number): void {
    this.#sectors.fill(1, Math.floor(offset / SECTOR), Math.ceil((offset + length) / SECTOR));
  }

  isTouched(at: number, end: number): boolean {
    return this.#sectors.subarray(Math.floor(at / SECTOR), Math.ceil(end / SECTOR)).includes(1);
  }
}

/** A range of a guest's request that is under way. */
interface RunningRange {
  readonly offset: number;
  readonly end: number;
}

export interface SourceDiskOptions {
  readonly simulation: Simulation;
  /** Node name of the disk. */
  readonly name: string;
  /** Number of the disk in stamps. */
  readonly disk: number;
  readonly size: number;
  readonly shape: SourceShape;
}

/** A disk that guests work on and that is backed up: its media, and the oracle of what guests read. */
export class SourceDisk {
  readonly name: string;
  readonly size: number;
  readonly shape: SourceShape;
  readonly medium: Medium;
  readonly store: OverlayStore | undefined;
  readonly base: Medium | undefined;
  readonly content: DiskContent;
  readonly oracle: RegisterOracle;
  /** What guests use; set when the disk is open. */
  backend: WritableBackend | undefined;
  readonly #simulation: Simulation;
  /** Discards of guests that are under way. */
  readonly #discards = new Set<RunningRange>();

  constructor(options: SourceDiskOptions) {
    const { simulation, name, disk, size, shape } = options;
    this.#simulation = simulation;
    this.name = name;
    this.size = size;
    this.shape = shape;
    this.medium = simulation.medium({ name: `${name}-medium`, size, sectorSize: SECTOR });
    this.oracle = new RegisterOracle({ disk, size, cellSize: CELL });
    const isOverlay = shape === "overlay" || shape === "filtered overlay";
    if (isOverlay) {
      const base = simulation.medium({ name: `${name}-base`, size, sectorSize: SECTOR });
      this.base = base;
      this.store = new OverlayStore(this.medium, simulation.decisions);
      this.content = new DiskContent(this.medium, this.store, () => base.cache.visible);
    } else {
      this.content = new DiskContent(this.medium);
    }
  }

  /** Every medium that the disk consists of. */
  get media(): readonly Medium[] {
    return this.base === undefined ? [this.medium] : [this.medium, this.base];
  }

  get disk(): WritableBackend {
    const { backend } = this;
    assert(backend !== undefined, "the disk is not open");
    return backend;
  }

  /**
   * Puts stamped content on the disk.
   *
   * @param filled - bytes from the start that hold data
   * @param held - where the overlay holds data of its own, if it is one; whole sectors
   */
  fill(filled: number, [from, to]: readonly [from: number, to: number]): void {
    if (filled > 0) {
      const content = new Uint8Array(this.size);
      content.set(this.#stamped(0, filled));
      (this.base ?? this.medium).format(content);
    }
    if (from < to) this.store?.format(from, this.#stamped(from, to - from));
  }

  /** Draws how the media behave from here on. */
  misbehave(): void {
    for (const medium of this.media) misbehave(this.#simulation, medium);
  }

  /**
   * A client of the disk.
   *
   * @param size - bytes from the start that it uses
   */
  guest(name: string, mayFail: (error: BlockError) => boolean, size: number = this.size): Guest {
    const { decisions } = this.#simulation;
    return new Guest({
      name,
      simulation: this.#simulation,
      oracle: this.oracle,
      disk: this.#watched(size),
      cellsMax: decisions.among(`${name} longest request`, [8, 1, 200]),
      hotCells: decisions.among(`${name} hot cells`, [4, 130, 300]),
      mayFail,
    });
  }

  /** Whether a guest is discarding all of the range. */
  isDiscardedByGuest(offset: number, length: number): boolean {
    for (const range of this.#discards) {
      if (range.offset <= offset && offset + length <= range.end) return true;
    }
    return false;
  }

  /** Reads the whole disk, and judges it. */
  async readAll(): Promise<void> {
    const { disk } = this;
    const operation = this.oracle.begin("read", 0, disk.size);
    const buffer = new Uint8Array(disk.size);
    await disk.read(0, buffer);
    const problem = this.oracle.check(operation, buffer);
    this.oracle.end(operation, true);
    if (problem !== undefined) this.#simulation.fail("wrong data at the end", problem);
  }

  /** Sees discards on their way, so that those of jobs are told from them. */
  #watched(size: number): GuestDisk {
    const { disk } = this;
    const discard = async (offset: number, length: number): Promise<void> => {
      const range = { offset, end: offset + length };
      this.#discards.add(range);
      try {
        await disk.discard(offset, length);
      } finally {
        this.#discards.delete(range);
      }
    };
    return {
      size,
      read: (offset, buffer) => disk.read(offset, buffer),
      write: (offset, buffer, options) => disk.write(offset, buffer, options),
      writev: (offset, buffers, options) => disk.writev(offset, buffers, options),
      writeZeroes: (offset, length, options) => disk.writeZeroes(offset, length, options),
      discard,
      flush: () => disk.flush(),
    };
  }

  #stamped(offset: number, length: number): Uint8Array {
    const operation = this.oracle.begin("write", offset, length);
    const content = this.oracle.payload(operation);
    this.oracle.end(operation, true, true);
    return content;
  }
}

/** Draws how a medium behaves from here on; some fail often, so that jobs have to try again and again. */
export function misbehave({ decisions }: Simulation, medium: Medium): void {
  const behaviour = drawBehaviour(decisions, medium.name);
  const rate = behaviour.faults > 0 ? decisions.among(`${medium.name} fails often`, [1, 1, 6]) : 1;
  medium.behaviour = { ...behaviour, faults: behaviour.faults * rate };
}
