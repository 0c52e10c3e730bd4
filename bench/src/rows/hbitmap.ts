import { HBitmap } from "@blocklayer/hbitmap";
import { type BenchSettings, median, type Row } from "../row.ts";

const BITS = 2 ** 24;
const GRANULARITY = 65536;
const SETS = 2 ** 21;
const SEARCHES = 2 ** 18;

/** Setting, searching and memory of a bitmap of 2^24 bits. */
export function hbitmapRow({ rounds }: BenchSettings): Promise<Row[]> {
  const sets: number[] = [];
  const searches: number[] = [];
  let memory = 0;
  for (let round = 0; round < rounds + 1; round += 1) {
    const bitmap = new HBitmap(BITS * GRANULARITY, GRANULARITY);
    memory = bitmap.memoryBytes;
    const offsets = Float64Array.from(
      { length: SETS },
      () => Math.floor(Math.random() * BITS) * GRANULARITY,
    );
    let started = performance.now();
    for (let index = 0; index < SETS; index += 1) bitmap.set(offsets[index] ?? 0, 1);
    sets.push(((performance.now() - started) * 1e6) / SETS);
    const sparse = new HBitmap(BITS * GRANULARITY, GRANULARITY);
    for (let count = 0; count < 1000; count += 1) {
      sparse.set(Math.floor(Math.random() * BITS) * GRANULARITY, 1);
    }
    started = performance.now();
    let found = 0;
    for (let count = 0; count < SEARCHES; count += 1) {
      if (sparse.nextDirty(offsets[count] ?? 0) >= 0) found += 1;
    }
    searches.push(((performance.now() - started) * 1e6) / SEARCHES);
    if (found === 0) throw new Error("no search found anything");
  }
  // The first round warms the compiler up.
  const set = median(sets.slice(1));
  const search = median(searches.slice(1));
  return Promise.resolve([
    {
      what: "hbitmap of 2^24 bits: random set",
      ours: `${set.toFixed(1)} ns`,
      goal: "<= 40 ns",
      isMet: set <= 40,
    },
    {
      what: "next dirty in a sparse map",
      ours: `${search.toFixed(0)} ns`,
      goal: "<= 1000 ns",
      isMet: search <= 1000,
    },
    {
      what: "memory",
      ours: `${(memory / 2 ** 20).toFixed(2)} MiB`,
      goal: "<= 2.2 MiB",
      isMet: memory <= 2.2 * 2 ** 20,
    },
  ]);
}
