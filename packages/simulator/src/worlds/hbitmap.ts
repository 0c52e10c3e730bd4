import { HBitmap } from "@blocklayer/hbitmap";
import type { Decisions } from "../decisions.ts";
import type { Simulation, World } from "../simulation.ts";
import { DirtyRuns } from "./dirty-runs.ts";
import {
  type DrawnRange,
  drawBytes,
  drawHBitmapPlan,
  drawSize,
  type HBitmapPlan,
  PlaceDrawer,
} from "./hbitmap-plan.ts";
import { ModelledBitmap } from "./modelled-bitmap.ts";

/**
 * Hierarchical bitmaps of all sizes, changed and asked in any order while iterators walk over them, each beside a model
 * of plain runs.
 */
export const hbitmapWorld: World = {
  name: "hbitmap",
  situations: [
    "a shrink cut dirty bits",
    "an iterator met a truncation",
    "bits ahead of an iterator were cleared",
    "bitmaps of different granularity were merged",
    "the count exceeds the size",
    "ones were loaded behind the end",
    "a bitmap was asked while it was loaded",
    "a bitmap of a tebibyte",
  ],
  run: (simulation) => new HBitmapLife(simulation).live(),
};

const WALKS_MAX = 4;

class HBitmapLife {
  readonly #simulation: Simulation;
  readonly #decisions: Decisions;
  readonly #plan: HBitmapPlan;
  readonly #places: PlaceDrawer;
  readonly #bitmaps: ModelledBitmap[];

  constructor(simulation: Simulation) {
    const { decisions } = simulation;
    this.#simulation = simulation;
    this.#decisions = decisions;
    this.#places = new PlaceDrawer(decisions);
    this.#plan = drawHBitmapPlan(decisions);
    const { granularities, size, isSparse } = this.#plan;
    if (isSparse) simulation.sometimes("a bitmap of a tebibyte");
    this.#bitmaps = granularities.map((granularity, index) => {
      const bitmap = new HBitmap(size, granularity);
      return new ModelledBitmap(simulation, `bitmap ${index}`, bitmap, new DirtyRuns());
    });
  }

  async live(): Promise<void> {
    const { scheduler } = this.#simulation;
    const bursts = 1 + this.#decisions.choose("bursts", 6);
    for (let burst = 0; burst < bursts; burst += 1) {
      for (let count = this.#decisions.choose("operations", 24); count > 0; count -= 1) {
        this.#operate(this.#pick());
      }
      for (const bitmap of this.#bitmaps) bitmap.compare();
      await scheduler.turn("a burst is over");
    }
  }

  #pick(): ModelledBitmap {
    return this.#bitmaps[this.#decisions.choose("bitmap", this.#bitmaps.length)] as ModelledBitmap;
  }

  #operate(it: ModelledBitmap): void {
    const sparse = this.#plan.isSparse;
    if (it.groups === 0) {
      this.#truncate(it);
      return;
    }
    const operations: readonly (readonly [weight: number, operate: () => void])[] = [
      [8, () => it.set(this.#anyRange(it))],
      [6, () => it.reset(this.#alignedRange(it))],
      [3, () => it.next(this.#window(it))],
      [2, () => it.area(this.#window(it), this.#max(it))],
      [2, () => it.status(this.#anyRange(it))],
      [1, () => it.get(this.#anyRange(it).offset)],
      [2, () => it.count(this.#window(it))],
      [3, () => this.#walk(it)],
      [8, () => it.step(this.#decisions.choose("iterator", Math.max(1, it.walks)))],
      [4, () => this.#truncate(it)],
      [3, () => this.#load(it)],
      [2, () => this.#serialise(it)],
      [3, () => it.merge(this.#pick())],
      [sparse ? 0 : 2, () => this.#copy(it)],
      [1, () => this.#mistake(it)],
      [1, () => this.#fill(it)],
    ];
    const index = this.#decisions.weighted(
      "operation",
      operations.map(([weight]) => weight),
    );
    operations[index]?.[1]();
  }

  // What to operate on.

  #anyRange(it: ModelledBitmap): DrawnRange {
    return this.#places.any(it.size, it.granularity);
  }

  #alignedRange(it: ModelledBitmap): DrawnRange {
    return this.#places.aligned(it.size, it.granularity);
  }

  /** A range to ask about: it may reach beyond the end, or begin there. */
  #window(it: ModelledBitmap): DrawnRange {
    const { offset, length } = this.#anyRange(it);
    if (this.#decisions.chance("beyond the end", 1, 8)) {
      return { offset: offset + length, length: it.size };
    }
    return { offset, length: this.#decisions.chance("all the rest", 1, 3) ? it.size : length };
  }

  #max(it: ModelledBitmap): number {
    return this.#decisions.among("limit", [2 ** 53 - 1, 1, it.granularity, it.granularity * 33]);
  }

  #size(it: ModelledBitmap): number {
    const { granularity } = it;
    if (this.#plan.isSparse) {
      const cut = this.#decisions.among("groups cut", [0, 1, 33, 2 ** 19, 2 ** 23]) * granularity;
      return Math.max(0, this.#plan.size - cut - drawBytes(this.#decisions, "cut", granularity));
    }
    const near = (this.#decisions.choose("groups more", 9) - 4) * Math.min(granularity, 2 ** 30);
    if (this.#decisions.choose("size near", 3) < 2) return Math.max(0, it.size + near);
    const scale = Math.min(...this.#plan.granularities);
    const isCoarse = granularity / scale > 512;
    return drawSize(this.#decisions, isCoarse ? granularity / 512 : granularity);
  }

  // What takes more than one call.

  #truncate(it: ModelledBitmap): void {
    const size = this.#size(it);
    // Mostly all of them, or they would not fit together any more.
    const isAlone = this.#decisions.chance("alone", 1, 4);
    for (const bitmap of isAlone ? [it] : this.#bitmaps) bitmap.truncate(size);
  }

  #walk(it: ModelledBitmap): void {
    if (it.walks < WALKS_MAX) it.beginWalk(this.#anyRange(it).offset);
  }

  #fill(it: ModelledBitmap): void {
    if (this.#decisions.choose("fill", 2) === 0) it.resetAll();
    else it.setAll();
  }

  #mistake(it: ModelledBitmap): void {
    const { bitmap, granularity } = it;
    const groupsEnd = it.groups * granularity;
    const { offset, length } = this.#alignedRange(it);
    const kind = this.#decisions.choose("mistake", 4);
    if (kind === 0) it.mistake("set beyond", () => bitmap.set(offset, groupsEnd - offset + 1));
    if (kind === 1) it.mistake("get beyond", () => bitmap.get(groupsEnd));
    if (kind === 2) it.mistake("count of nothing", () => bitmap.countBetween(-1, offset));
    const isPart = granularity > 1 && offset + granularity < it.size;
    if (kind !== 3 || !isPart) return;
    it.mistake("reset of a part", () => bitmap.reset(offset, granularity - 1));
    if (length > granularity)
      it.mistake("reset within", () => bitmap.reset(offset + 1, granularity));
  }

  /** A copy has the same bits, and is another bitmap: what happens to it does not happen to the original. */
  #copy(it: ModelledBitmap): void {
    const kind = this.#decisions.choose("copy", 3);
    const name = `copy of ${it.name}`;
    const other = this.#pick();
    let copy = it.clone(name);
    if (kind === 1) copy = it.withGranularity(name, other.granularity);
    if (kind === 2 && other.size === it.size) copy = it.merged(name, other);
    copy.compare();
    copy.set(this.#anyRange(copy));
    copy.reset(this.#alignedRange(copy));
    const index = this.#bitmaps.indexOf(it);
    const stays = copy.granularity === it.granularity && this.#decisions.chance("stays", 1, 4);
    it.compare();
    if (stays) this.#bitmaps[index] = copy;
  }

  /** Groups `[first, end)` that make a chunk of the serialised form. */
  #chunk(it: ModelledBitmap): [first: number, end: number] {
    const words = Math.ceil(it.groups / 64);
    const first = Math.min(words - 1, Math.floor(this.#places.group(it.groups) / 64));
    const count = 1 + this.#decisions.choose("words more", Math.min(words - first, 80));
    return [first * 64, Math.min((first + count) * 64, it.groups)];
  }

  #serialise(it: ModelledBitmap): void {
    it.serialised(...this.#chunk(it));
  }

  /** Chunks from another bitmap, ones with padding, or noise, in any order, then the end of loading. */
  #load(it: ModelledBitmap): void {
    for (let count = 1 + this.#decisions.choose("more chunks", 3); count > 0; count -= 1) {
      this.#loadChunk(it);
    }
    if (this.#decisions.chance("ask too early", 1, 8)) this.#askTooEarly(it);
    if (this.#decisions.chance("give it up", 1, 8)) this.#fill(it);
    else it.finishLoading();
  }

  #loadChunk(it: ModelledBitmap): void {
    const { bitmap } = it;
    const [first, end] = this.#chunk(it);
    const { offset, length } = it.chunk(first, end);
    const kind = this.#decisions.choose("content", 4);
    if (kind === 0) {
      bitmap.deserializeZeroes(offset, length);
      it.loaded("zeroes", first, end);
      return;
    }
    if (kind === 1) {
      const hasPadding = end === it.groups && end % 64 !== 0;
      if (hasPadding) this.#simulation.sometimes("ones were loaded behind the end");
      bitmap.deserializeOnes(offset, length);
      it.loaded("ones", first, end);
      return;
    }
    const bytes = this.#bytes(Math.ceil((end - first) / 64) * 8, kind === 2);
    bitmap.deserializePart(bytes, offset, length);
    it.loaded(bytes, first, end);
  }

  /** One bit or some noise, and the same byte behind it up to the end of the chunk. */
  #bytes(length: number, isNoise: boolean): Uint8Array {
    const rest = this.#decisions.among("rest", [0, 0xff, 0x0f]);
    const bytes = new Uint8Array(length).fill(length > 64 && rest === 0x0f ? 0 : rest);
    if (isNoise) bytes.set(this.#simulation.env.random.bytes(8), 0);
    else bytes[this.#decisions.choose("byte", length)] = 1 << this.#decisions.choose("bit", 8);
    return bytes;
  }

  #askTooEarly({ bitmap, name }: ModelledBitmap): void {
    this.#simulation.sometimes("a bitmap was asked while it was loaded");
    try {
      bitmap.nextDirty(0);
    } catch (error) {
      if (error instanceof Error && error.name === "AssertionError") return;
      throw error;
    }
    this.#simulation.fail("HB-5 half loaded", `${name} answers before it is loaded`);
  }
}
