import { HBitmap, HBitmapIterator } from "@blocklayer/hbitmap";
import { sameBytes } from "../disk/same-bytes.ts";
import type { Simulation } from "../simulation.ts";
import { DirtyRuns } from "./dirty-runs.ts";
import type { DrawnRange } from "./hbitmap-plan.ts";

/** An iterator that lives on while its bitmap changes. */
interface Walk {
  readonly iterator: HBitmapIterator;
  /** The group from which it goes on. */
  position: number;
  hasEnded: boolean;
}

/** Bits up to which the serialised form is compared as a whole. */
const WHOLE_BITS_MAX = 70_000;

/** A bitmap beside its model: each operation is done to both, and every answer compared. */
export class ModelledBitmap {
  readonly name: string;
  readonly bitmap: HBitmap;
  #runs: DirtyRuns;
  readonly #simulation: Simulation;
  readonly #walks: Walk[] = [];
  /** The size that the model knows, in bytes. */
  #size: number;

  constructor(simulation: Simulation, name: string, bitmap: HBitmap, runs: DirtyRuns) {
    this.#simulation = simulation;
    this.name = name;
    this.bitmap = bitmap;
    this.#size = bitmap.size;
    this.#runs = runs;
  }

  /** Bytes, as the model has it. */
  get size(): number {
    return this.#size;
  }

  get granularity(): number {
    return this.bitmap.granularity;
  }

  get groups(): number {
    return Math.ceil(this.#size / this.granularity);
  }

  get walks(): number {
    return this.#walks.length;
  }

  // Changes.

  set({ offset, length }: DrawnRange): void {
    const [first, end] = this.#groupsOf(offset, length);
    const changed = this.bitmap.set(offset, length);
    this.#expect("HB-1", `set ${offset}+${length}`, changed, this.#runs.set(first, end));
  }

  reset({ offset, length }: DrawnRange): void {
    const [first, end] = this.#groupsOf(offset, length);
    if (this.#walks.some((walk) => this.#runs.count(Math.max(first, walk.position), end) > 0)) {
      this.#simulation.sometimes("bits ahead of an iterator were cleared");
    }
    const changed = this.bitmap.reset(offset, length);
    this.#expect("HB-1", `reset ${offset}+${length}`, changed, this.#runs.clear(first, end));
  }

  setAll(): void {
    this.#note("set all");
    this.bitmap.setAll();
    this.#runs.set(0, this.groups);
  }

  resetAll(): void {
    this.#note("reset all");
    this.bitmap.resetAll();
    this.#runs = new DirtyRuns();
  }

  /** Does what is a mistake: it is refused, and nothing changes. */
  mistake(what: string, call: () => unknown): void {
    this.#note(what);
    try {
      call();
    } catch (error) {
      if (error instanceof RangeError) return;
      throw error;
    }
    this.#simulation.fail("HB-1 a mistake is not refused", `${this.name}: ${what}`);
  }

  truncate(size: number): void {
    this.#note(`truncate ${this.#size} -> ${size}`);
    this.bitmap.truncate(size);
    this.#size = size;
    const isCut = this.#runs.clear(this.groups, Number.POSITIVE_INFINITY);
    if (isCut) this.#simulation.sometimes("a shrink cut dirty bits");
    if (this.#walks.length > 0) this.#simulation.sometimes("an iterator met a truncation");
    this.#expect("HB-6", "size", this.bitmap.size, size);
    this.#expectCount("HB-6");
  }

  merge(other: ModelledBitmap): void {
    if (other.#size !== this.#size) {
      this.mistake("merge of another size", () => this.bitmap.merge(other.bitmap));
      return;
    }
    if (other.granularity !== this.granularity) {
      this.#simulation.sometimes("bitmaps of different granularity were merged");
    }
    this.#note(`merge ${other.name}`);
    this.bitmap.merge(other.bitmap);
    this.#runs = unionOf(this, [other], this.#runs.clone());
    this.#expectCount("HB-1");
  }

  // Other bitmaps made of this one.

  clone(name: string): ModelledBitmap {
    return new ModelledBitmap(this.#simulation, name, this.bitmap.clone(), this.#runs.clone());
  }

  withGranularity(name: string, granularity: number): ModelledBitmap {
    const copy = this.bitmap.withGranularity(granularity);
    return new ModelledBitmap(this.#simulation, name, copy, unionOf(copy, [this]));
  }

  merged(name: string, other: ModelledBitmap): ModelledBitmap {
    const union = HBitmap.merged(this.bitmap, other.bitmap);
    const runs = unionOf(union, [other], this.#runs.clone());
    return new ModelledBitmap(this.#simulation, name, union, runs);
  }

  // Questions.

  get(offset: number): void {
    const expected = this.#runs.has(Math.floor(offset / this.granularity));
    this.#expect("HB-1", `get ${offset}`, this.bitmap.get(offset), expected);
  }

  next({ offset, length }: DrawnRange): void {
    const dirty = this.#nextDirty(offset, length);
    const clean = this.#nextClean(offset, length);
    this.#expect(
      "HB-1",
      `next dirty ${offset}+${length}`,
      this.bitmap.nextDirty(offset, length),
      dirty,
    );
    this.#expect(
      "HB-1",
      `next zero ${offset}+${length}`,
      this.bitmap.nextZero(offset, length),
      clean,
    );
  }

  area({ offset, length }: DrawnRange, max: number): void {
    const end = Math.min(offset + length, this.#size);
    const first = this.#nextDirty(offset, length);
    const clean = first < 0 ? -1 : this.#nextClean(first, end - first);
    const areaEnd = clean < 0 ? end : clean;
    const expected = first < 0 ? "none" : `${first}+${Math.min(max, areaEnd - first)}`;
    const area = this.bitmap.nextDirtyArea(offset, offset + length, max);
    const answer = area === undefined ? "none" : `${area.offset}+${area.length}`;
    this.#expect("HB-1", `area ${offset}+${length} of ${max}`, answer, expected);
  }

  status({ offset, length }: DrawnRange): void {
    const cut = Math.min(length, this.#size - offset);
    if (cut <= 0) return;
    const isDirty = this.#runs.has(Math.floor(offset / this.granularity));
    const change = isDirty ? this.#nextClean(offset, cut) : this.#nextDirty(offset, cut);
    const { dirty, length: run } = this.bitmap.status(offset, cut);
    const expected = `${isDirty} ${change < 0 ? cut : change - offset}`;
    this.#expect("HB-1", `status ${offset}+${length}`, `${dirty} ${run}`, expected);
  }

  count({ offset, length }: DrawnRange): void {
    this.#expectCount("HB-4");
    const end = Math.min(offset + length, this.#size);
    const [first, last] = this.#groupsOf(offset, Math.max(0, end - offset));
    const expected = this.#runs.count(first, last) * this.granularity;
    const count = this.bitmap.countBetween(offset, offset + length);
    this.#expect("HB-4", `count of ${offset}+${length}`, count, expected);
  }

  // Iterators.

  beginWalk(offset: number): void {
    this.#note(`iterate from ${offset}`);
    const position = Math.floor(offset / this.granularity);
    const iterator = new HBitmapIterator(this.bitmap, offset);
    this.#walks.push({ iterator, position, hasEnded: false });
  }

  /** Lets one iterator take one step. */
  step(index: number): void {
    const walk = this.#walks[index];
    if (walk === undefined) return;
    const found = walk.hasEnded ? -1 : this.#runs.nextDirty(walk.position);
    const expected = found < 0 ? -1 : found * this.granularity;
    this.#expect(
      "HB-3",
      `step ${index} from group ${walk.position}`,
      walk.iterator.next(),
      expected,
    );
    if (found >= 0) {
      walk.position = found + 1;
      return;
    }
    if (walk.hasEnded) this.#walks.splice(index, 1);
    walk.hasEnded = true;
  }

  // The serialised form.

  /** Returns the chunk of groups `[first, end)` as bytes of the disk. */
  chunk(first: number, end: number): DrawnRange {
    const offset = first * this.granularity;
    return { offset, length: Math.min(end * this.granularity, this.#size) - offset };
  }

  serialised(first: number, end: number): Uint8Array {
    const { offset, length } = this.chunk(first, end);
    const bytes = this.bitmap.serializePart(offset, length);
    const expected = this.#runs.bytes(first, end);
    this.#expect("HB-5", `bytes of ${first} to ${end} are right`, sameBytes(bytes, expected), true);
    return bytes;
  }

  /** The chunk is being replaced: the model follows. */
  loaded(bytes: Uint8Array | "zeroes" | "ones", first: number, end: number): void {
    this.#note(`load groups ${first} to ${end}`);
    if (bytes === "zeroes") this.#runs.clear(first, end);
    else if (bytes === "ones") this.#runs.set(first, end);
    else this.#runs.load(bytes, first, end);
  }

  finishLoading(): void {
    this.bitmap.deserializeFinish();
    this.#expectCount("HB-5");
  }

  // The whole.

  /** Compares everything. */
  compare(): void {
    const { bitmap, granularity } = this;
    this.#expectCount("HB-4");
    let position = 0;
    for (const { first, end } of this.#runs.runs) {
      const area = bitmap.nextDirtyArea(position);
      const answer = area === undefined ? "none" : `${area.offset} to ${area.offset + area.length}`;
      position = Math.min(end * granularity, this.#size);
      this.#expect("HB-1", "areas", answer, `${first * granularity} to ${position}`);
    }
    this.#expect("HB-1", "next dirty behind the last area", bitmap.nextDirty(position), -1);
    if (this.groups > WHOLE_BITS_MAX) return;
    const areRight = sameBytes(bitmap.bottomBytes(), this.#wholeBytes());
    this.#expect("HB-5", "all bytes are right", areRight, true);
    bitmap.assertConsistent();
  }

  #wholeBytes(): Uint8Array {
    return this.groups === 0 ? new Uint8Array(8) : this.#runs.bytes(0, this.groups);
  }

  #groupsOf(offset: number, length: number): [first: number, end: number] {
    const first = Math.floor(offset / this.granularity);
    return [first, length === 0 ? first : Math.floor((offset + length - 1) / this.granularity) + 1];
  }

  #nextDirty(offset: number, length: number): number {
    const end = Math.min(offset + length, this.#size);
    const group = this.#runs.nextDirty(Math.floor(offset / this.granularity));
    const found = Math.max(offset, group * this.granularity);
    return group < 0 || found >= end ? -1 : found;
  }

  #nextClean(offset: number, length: number): number {
    const end = Math.min(offset + length, this.#size);
    const group = this.#runs.nextClean(Math.floor(offset / this.granularity));
    const found = Math.max(offset, group * this.granularity);
    return found >= end ? -1 : found;
  }

  #expectCount(invariant: string): void {
    const expected = this.#runs.count() * this.granularity;
    if (expected > this.#size) this.#simulation.sometimes("the count exceeds the size");
    this.#expect(invariant, "count", this.bitmap.count, expected);
    this.#expect(invariant, "is empty", this.bitmap.isEmpty, expected === 0);
  }

  #expect(invariant: string, what: string, answer: unknown, expected: unknown): void {
    this.#note(what);
    this.#simulation.expect(
      answer === expected,
      `${invariant} wrong answer`,
      () => `${this.name}, ${what}: ${String(answer)} instead of ${String(expected)}`,
    );
  }

  #note(what: string): void {
    this.#simulation.trace.note(`${this.name}: ${what}`);
  }

  /** The runs in bytes, cut at the size. */
  byteRuns(): DrawnRange[] {
    return this.#runs.runs.map(({ first, end }) => this.chunk(first, end));
  }
}

/** What is dirty in any of the parts, in groups of the whole, beside what it had. */
function unionOf(
  whole: { readonly granularity: number },
  parts: readonly ModelledBitmap[],
  union: DirtyRuns = new DirtyRuns(),
): DirtyRuns {
  for (const { offset, length } of parts.flatMap((part) => part.byteRuns())) {
    const first = Math.floor(offset / whole.granularity);
    union.set(first, Math.ceil((offset + length) / whole.granularity));
  }
  return union;
}
