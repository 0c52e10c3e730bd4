import type { HBitmap } from "@blocklayer/hbitmap";
import { alignDown, alignUp } from "@blocklayer/offsets";
import { sameBytes } from "../disk/same-bytes.ts";

/** Bytes that are judged as one: the finest granularity there is. */
export const CELL = 512;

/** A change of content that has begun and not ended. */
export interface RunningChange {
  readonly offset: number;
  /** Bytes after the last one that it may touch. */
  readonly end: number;
}

/** A disk as the model of its bitmaps sees it: its content now, and which changes are under way. */
export class ModelDisk {
  readonly name: string;
  readonly #content: () => Uint8Array;
  readonly #alignment: number;
  readonly #running = new Set<RunningChange>();
  readonly #models = new Set<BitmapModel>();
  readonly #listeners = new Set<RunningChange[]>();

  /**
   * @param content - the bytes as a read would return them
   * @param alignment - bytes: a request touches whole multiples
   */
  constructor(name: string, content: () => Uint8Array, alignment: number) {
    this.name = name;
    this.#content = content;
    this.#alignment = Math.max(alignment, CELL);
  }

  get content(): Uint8Array {
    return this.#content();
  }

  get size(): number {
    return this.#content().length;
  }

  /** A change begins. */
  begin(offset: number, length: number): RunningChange {
    const end = alignUp(offset + length, this.#alignment);
    const change = { offset: alignDown(offset, this.#alignment), end };
    this.#running.add(change);
    for (const model of this.#models) model.mayRecord(change);
    for (const changes of this.#listeners) changes.push(change);
    return change;
  }

  end(change: RunningChange): void {
    this.#running.delete(change);
  }

  /** The process is dead, and so is what it was doing. */
  crash(): void {
    this.#running.clear();
    this.#models.clear();
  }

  get running(): ReadonlySet<RunningChange> {
    return this.#running;
  }

  /** Takes down what is under way and what begins, until the function that it returns is called. */
  takeDown(): () => readonly RunningChange[] {
    const changes = [...this.#running];
    this.#listeners.add(changes);
    return () => {
      this.#listeners.delete(changes);
      return changes;
    };
  }

  isRunning(from: number, to: number): boolean {
    for (const { offset, end } of this.#running) if (offset < to && end > from) return true;
    return false;
  }

  follow(model: BitmapModel): void {
    this.#models.add(model);
  }

  forget(model: BitmapModel): void {
    this.#models.delete(model);
  }

  /** The length has changed: what was cut off is forgotten, what is new is clean. */
  resized(): void {
    for (const model of this.#models) model.resize();
  }
}

/**
 * What a bitmap has to say, by content alone: while it records, every byte that is not what it was at the reference
 * instant, unless a change of it is under way; and whatever it had to say before. What a bitmap may say is bounded by the
 * changes that were begun.
 *
 * @see docs/reliability.md section 3.2, BM-1, BM-3, BM-5
 */
export class BitmapModel {
  readonly disk: ModelDisk;
  readonly granularity: number;
  /** Cells that are dirty whatever they hold now, 1 for yes. */
  #owed: Uint8Array;
  /** Cells that somebody may have made dirty. */
  #possible: Uint8Array;
  /** The content at the reference instant; `undefined` while it does not record. */
  #reference: Uint8Array | undefined;

  constructor(disk: ModelDisk, granularity: number, isRecording: boolean) {
    this.disk = disk;
    this.granularity = granularity;
    const cells = Math.ceil(disk.size / CELL);
    this.#owed = new Uint8Array(cells);
    this.#possible = new Uint8Array(cells);
    disk.follow(this);
    if (isRecording) this.start();
  }

  get isRecording(): boolean {
    return this.#reference !== undefined;
  }

  /** Records from here on. */
  start(): void {
    if (this.#reference !== undefined) return;
    this.#reference = this.disk.content.slice();
    for (const change of this.disk.running) this.mayRecord(change);
  }

  /** Records no more: what differs now stays dirty. */
  stop(): void {
    this.#settle();
    this.#reference = undefined;
  }

  clear(): void {
    this.#owed.fill(0);
    this.#possible.fill(0);
    if (this.#reference === undefined) return;
    this.#reference = undefined;
    this.start();
  }

  /** Owes from here on what `source` owes. */
  include(source: BitmapModel): void {
    const { granularity, disk } = source;
    for (let at = 0; at < disk.size; at += CELL) {
      if (source.#owes(at)) this.#owed[at / CELL] = 1;
      // A coarse group is dirty as a whole.
      const from = alignDown(at, granularity);
      const to = Math.min(from + granularity, disk.size);
      if (source.#isPossible(from, to)) this.#possible[at / CELL] = 1;
    }
  }

  /** Everything may be dirty for a reason that the model does not know, or is dirty by order. */
  setRange(from: number, to: number, isOwed: boolean): void {
    const [first, last] = [Math.floor(from / CELL), Math.ceil(to / CELL)];
    this.#possible.fill(1, first, last);
    if (isOwed) this.#owed.fill(1, first, last);
  }

  /**
   * Stops, and leaves recording to a successor if it did record. What `map` does not have, of changes that are under
   * way, the successor has to have: who takes now what is dirty in `map` does not take it.
   */
  freeze(map: HBitmap): BitmapModel {
    const { disk, granularity } = this;
    const before = this.#reference;
    const successor = new BitmapModel(disk, granularity, before !== undefined);
    if (before === undefined) return successor;
    for (let at = 0; at < disk.size; at += granularity) {
      if (!map.get(at)) successor.#reference?.set(before.subarray(at, at + granularity), at);
    }
    this.stop();
    return successor;
  }

  /** Takes back what a successor has recorded, and goes on as it did. */
  reclaim(successor: BitmapModel): void {
    for (const [cell, isOwed] of successor.#owed.entries()) if (isOwed === 1) this.#owed[cell] = 1;
    for (const [cell, is] of successor.#possible.entries()) if (is === 1) this.#possible[cell] = 1;
    this.#reference = successor.#reference;
    this.disk.forget(successor);
  }

  /** A change may be recorded, whether it is or not. */
  mayRecord({ offset, end }: RunningChange): void {
    if (this.#reference !== undefined) this.setRange(offset, end, false);
  }

  /** Lives on in another process, which found `map` in the image. */
  moveTo(disk: ModelDisk, map: HBitmap): BitmapModel {
    const moved = new BitmapModel(disk, this.granularity, false);
    moved.#owed.set(this.#owed);
    moved.#reference = this.#reference;
    for (let at = 0; at < disk.size; at += CELL) {
      if (map.get(at)) moved.#possible[at / CELL] = 1;
    }
    return moved;
  }

  /** Returns what is wrong with a bitmap, `undefined` when nothing is. */
  problem(map: HBitmap): string | undefined {
    const { disk, granularity } = this;
    if (map.size !== disk.size) return `it covers ${map.size} of ${disk.size} bytes`;
    for (let at = 0; at < disk.size; at += granularity) {
      const end = Math.min(at + granularity, disk.size);
      const isDirty = map.get(at);
      if (isDirty && !this.#isPossible(at, end))
        return `the bytes at ${at} are dirty for no reason`;
      const lacking = isDirty ? undefined : this.#firstOwed(at, end);
      if (lacking !== undefined) return `the bytes at ${lacking} are clean`;
    }
    return undefined;
  }

  resize(): void {
    const { disk, granularity } = this;
    const cells = Math.ceil(disk.size / CELL);
    // A group that the end goes through stays dirty as a whole.
    const end = Math.min(this.#possible.length * CELL, disk.size);
    const from = alignDown(Math.max(0, end - 1), granularity);
    const isDirty = this.#isPossible(from, from + granularity);
    this.#owed = resized(this.#owed, new Uint8Array(cells));
    this.#possible = resized(this.#possible, new Uint8Array(cells));
    if (isDirty) this.setRange(from, from + granularity, false);
    // What waited for the change of length comes after it.
    for (const change of disk.running) this.mayRecord(change);
    const before = this.#reference;
    if (before === undefined) return;
    this.#reference = resized(before, disk.content.slice());
  }

  #settle(): void {
    for (let at = 0; at < this.disk.size; at += CELL) {
      if (this.#differs(at)) this.#owed[at / CELL] = 1;
    }
  }

  #firstOwed(at: number, end: number): number | undefined {
    const { content } = this.disk;
    const reference = this.#reference;
    const isSame =
      reference === undefined || sameBytes(content.subarray(at, end), reference.subarray(at, end));
    for (let cell = at; cell < end; cell += CELL) {
      if (this.#owed[cell / CELL] === 1 || (!isSame && this.#differs(cell))) return cell;
    }
    return undefined;
  }

  #owes(at: number): boolean {
    return this.#owed[at / CELL] === 1 || this.#differs(at);
  }

  #differs(at: number): boolean {
    const reference = this.#reference;
    if (reference === undefined || this.disk.isRunning(at, at + CELL)) return false;
    const { content } = this.disk;
    return !sameBytes(content.subarray(at, at + CELL), reference.subarray(at, at + CELL));
  }

  #isPossible(from: number, to: number): boolean {
    return this.#possible.subarray(Math.floor(from / CELL), Math.ceil(to / CELL)).includes(1);
  }
}

/** Puts as much of `before` into `after` as there is room for. */
function resized(before: Uint8Array, after: Uint8Array): Uint8Array {
  after.set(before.subarray(0, after.length));
  return after;
}
