import { assert } from "@blocklayer/errors";
import { CELL_MIN, type CellContent, describeCell, readStamp, writeStamp } from "./stamp.ts";

export type OracleKind = "read" | "write" | "zeroes" | "discard";

/** A request of a client, with its place in real time. */
export interface OracleOperation {
  readonly id: number;
  readonly kind: OracleKind;
  readonly offset: number;
  readonly length: number;
  readonly startedAt: number;
  /** Infinity while it runs. */
  readonly endedAt: number;
  readonly succeeded: boolean;
  /** A flush that succeeded began after its end, or it was one itself. */
  readonly isStable: boolean;
}

/** What a disk held at some instant, cell by cell: what each cell may have held. */
export interface OracleImage {
  readonly cells: readonly (readonly OracleOperation[])[];
}

type Entry = { -readonly [Member in keyof OracleOperation]: OracleOperation[Member] } & {
  /** The disk goes back to an earlier content: the values that each cell may have then. */
  restored?: OracleImage;
  /** Copies of the request that may still have their effect. */
  lingering?: number;
  /** Part of it may have been acknowledged before a crash, and lost. */
  hasSurvived?: boolean;
};

export interface RegisterOracleOptions {
  /** Number of the disk in stamps. */
  readonly disk: number;
  /** Bytes, a multiple of the cell size. */
  readonly size: number;
  /** Bytes, a multiple of 4, at least 32: what a request covers wholly or not at all. */
  readonly cellSize: number;
}

/**
 * Judges what clients of one disk read, cell by cell, by real-time order alone.
 *
 * The value of an operation is allowed unless another one that began after its end has itself ended, well and
 * before the read began. After a crash only operations that a flush covered rule others out. A failed operation may
 * have had its effect or not. A discard allows zeroes and scrambled bytes, and rules nothing out.
 *
 * @see docs/reliability.md section 3.3.6
 */
export class RegisterOracle {
  readonly cellSize: number;
  readonly #disk: number;
  /** Those that touched each cell, oldest first. */
  readonly #cells: Entry[][];
  readonly #running = new Set<Entry>();
  readonly #unstable = new Set<Entry>();
  #tick = 1;
  #idCount = 0;

  /** The disk is zeroes at first, and stable. */
  constructor(options: RegisterOracleOptions) {
    const { disk, size, cellSize } = options;
    assert(
      cellSize >= CELL_MIN && cellSize % 4 === 0 && size % cellSize === 0,
      () => `cells of ${cellSize} bytes do not fit a disk of ${size}`,
    );
    this.#disk = disk;
    this.cellSize = cellSize;
    const first = entryOf(0, "zeroes", 0, size, 0);
    Object.assign(first, { endedAt: 0, succeeded: true, isStable: true });
    this.#cells = Array.from({ length: size / cellSize }, () => [first]);
  }

  /** A request begins. Its range is made of whole cells. */
  begin(kind: OracleKind, offset: number, length: number): OracleOperation {
    this.#idCount += 1;
    const entry = entryOf(this.#idCount, kind, offset, length, this.#now());
    this.#running.add(entry);
    if (kind !== "read") {
      for (const cell of this.#cellsOf(offset, length)) this.#cells[cell]?.push(entry);
    }
    return entry;
  }

  /** Returns what a write writes: a stamp in every cell. */
  payload(operation: OracleOperation): Uint8Array {
    const buffer = new Uint8Array(operation.length);
    let at = 0;
    for (const cell of this.#cellsOf(operation.offset, operation.length)) {
      writeStamp(this.#words(buffer, at), this.#disk, cell, operation.id);
      at += this.cellSize;
    }
    return buffer;
  }

  /** @param isStable - it was to complete only when stable */
  end(operation: OracleOperation, succeeded: boolean, isStable = false): void {
    const entry = operation as Entry;
    if ((entry.lingering ?? 0) === 0) entry.endedAt = this.#now();
    entry.succeeded = succeeded && entry.hasSurvived !== true;
    entry.isStable = succeeded && isStable;
    this.#running.delete(entry);
    if (succeeded && !isStable && entry.kind !== "read") this.#unstable.add(entry);
  }

  /**
   * A copy of a running request was left behind somewhere and may have its effect even after the request has ended.
   * Call what this returns when it can not any more.
   */
  linger(operation: OracleOperation): () => void {
    const entry = operation as Entry;
    entry.lingering = (entry.lingering ?? 0) + 1;
    return () => {
      entry.lingering = (entry.lingering ?? 0) - 1;
      if (entry.lingering === 0 && !this.#running.has(entry)) entry.endedAt = this.#now();
    };
  }

  /**
   * A flush begins. Call what this returns when it has succeeded.
   *
   * @param covers - which of the operations that have ended it covers. Default: all
   */
  beginFlush(covers: (operation: OracleOperation) => boolean = () => true): () => void {
    const covered = [...this.#unstable].filter(covers);
    return () => {
      for (const entry of covered) {
        entry.isStable = true;
        this.#unstable.delete(entry);
      }
    };
  }

  /**
   * Somebody is about to keep what the disk holds at one instant. Call what this returns when that instant is over, be
   * it by a crash.
   */
  beginCapture(): () => OracleImage {
    const capture = entryOf(0, "read", 0, 0, this.#now());
    return () => ({
      cells: this.#cells.map((entries) =>
        entries.filter((entry) => !isRuledOut(entry, entries, capture, false)),
      ),
    });
  }

  /** The whole disk goes back to what it held at an instant; cells from `size` bytes on become zeroes. */
  beginRestore(image: OracleImage, size: number): OracleOperation {
    this.#idCount += 1;
    const entry = entryOf(this.#idCount, "write", 0, size, this.#now());
    const beyond = [entryOf(this.#idCount, "zeroes", size, 0, 0)];
    const cells = image.cells.map((kept, cell) => (cell * this.cellSize < size ? kept : beyond));
    entry.restored = { cells };
    this.#running.add(entry);
    for (const entries of this.#cells) entries.push(entry);
    return entry;
  }

  /**
   * Returns what is wrong with what a read returned, `undefined` when nothing is. The read has not ended yet.
   *
   * One that has survived a crash may have been answered before: it is not judged.
   */
  check(read: OracleOperation, buffer: Uint8Array): string | undefined {
    if ((read as Entry).hasSurvived === true) return undefined;
    return this.#checkCells(read, buffer, false);
  }

  /**
   * Judges the whole disk after a crash, and takes it as what the disk holds from here on.
   *
   * @param clientsSurvive - only the disk's side has crashed: requests that run go on, and may be carried out again
   * @returns what is wrong, `undefined` when nothing is
   */
  recover(content: Uint8Array, clientsSurvive: boolean = false): string | undefined {
    for (const entry of this.#running) {
      if (clientsSurvive) entry.hasSurvived = true;
      else entry.endedAt = this.#now();
    }
    if (!clientsSurvive) this.#running.clear();
    this.#unstable.clear();
    const whole = entryOf(0, "read", 0, content.length, this.#now());
    const problem = this.#checkCells(whole, content, true);
    for (const [cell, entries] of this.#cells.entries()) {
      const value = readStamp(this.#words(content, cell * this.cellSize));
      const kept = entries.filter((entry) => isValueOf(value, entry, this.#disk, cell));
      const last = sourceOf(value, kept.at(-1), this.#disk, cell);
      const kind = value.kind === "zero" ? "zeroes" : last?.kind;
      const found =
        last === undefined || kind === undefined
          ? []
          : [{ ...last, kind, endedAt: whole.startedAt, succeeded: true, isStable: true }];
      this.#cells[cell] = [...found, ...entries.filter((entry) => this.#running.has(entry))];
    }
    return problem;
  }

  #checkCells(read: OracleOperation, buffer: Uint8Array, isCrash: boolean): string | undefined {
    let at = 0;
    for (const cell of this.#cellsOf(read.offset, read.length)) {
      const value = readStamp(this.#words(buffer, at));
      at += this.cellSize;
      const entries = this.#cells[cell] ?? [];
      const isAllowed = entries.some(
        (entry) =>
          isValueOf(value, entry, this.#disk, cell) && !isRuledOut(entry, entries, read, isCrash),
      );
      if (isAllowed) continue;
      const list = entries
        .slice(-6)
        .map((entry) => describeEntry(entry))
        .join("; ");
      const what = isCrash ? "after a crash" : "a read";
      return `${what}: cell ${cell} of disk ${this.#disk} holds ${describeCell(value)}, written by ${list}`;
    }
    return undefined;
  }

  #words(buffer: Uint8Array, at: number): Uint32Array {
    return new Uint32Array(buffer.buffer, buffer.byteOffset + at, this.cellSize / 4);
  }

  *#cellsOf(offset: number, length: number): Iterable<number> {
    const end = (offset + length) / this.cellSize;
    for (let cell = offset / this.cellSize; cell < end; cell += 1) yield cell;
  }

  #now(): number {
    this.#tick += 1;
    return this.#tick;
  }
}

function entryOf(
  id: number,
  kind: OracleKind,
  offset: number,
  length: number,
  startedAt: number,
): Entry {
  const endedAt = Number.POSITIVE_INFINITY;
  return { id, kind, offset, length, startedAt, endedAt, succeeded: false, isStable: false };
}

/** Returns the operation that wrote a value: if the disk went back to it, the one before that. */
function sourceOf(
  value: CellContent,
  entry: Entry | undefined,
  disk: number,
  cell: number,
): Entry | undefined {
  if (entry?.restored === undefined) return entry;
  const kept = entry.restored.cells[cell]?.findLast((one) => isValueOf(value, one, disk, cell));
  return sourceOf(value, kept, disk, cell);
}

function isValueOf(value: CellContent, entry: Entry, disk: number, cell: number): boolean {
  if (entry.restored !== undefined) {
    return (entry.restored.cells[cell] ?? []).some((one) => isValueOf(value, one, disk, cell));
  }
  switch (value.kind) {
    case "zero":
      return entry.kind === "zeroes" || entry.kind === "discard";
    case "scrambled":
      return entry.kind === "discard";
    case "damaged":
      return false;
    case "stamp":
      return (
        entry.kind === "write" &&
        value.operation === entry.id &&
        value.disk === disk &&
        value.cell === cell
      );
  }
}

/** Whether a later operation must have replaced the value of `entry`. */
function isRuledOut(
  entry: Entry,
  entries: readonly Entry[],
  read: OracleOperation,
  isCrash: boolean,
): boolean {
  return entries.some(
    (later) =>
      later.startedAt > entry.endedAt &&
      later.endedAt < read.startedAt &&
      later.succeeded &&
      later.kind !== "discard" &&
      (!isCrash || later.isStable),
  );
}

function describeEntry({ id, kind, startedAt, endedAt, succeeded, isStable }: Entry): string {
  const outcome = succeeded ? (isStable ? "stable" : "ended") : "not ended well";
  return `${kind} ${id} (${startedAt} to ${endedAt}, ${outcome})`;
}
