import { HBitmap, HBitmapIterator } from "@blocklayer/hbitmap";
import fc from "fast-check";
import { expect, it } from "vitest";
import { Shadow } from "./shadow.ts";

/*
 * 200 scripts of 500 steps against the plainest bitmap. A step is a name and two fractions, from which
 * offsets and lengths are made that fit the bitmap of that moment; "pass" is what a failing script
 * shrinks its innocent steps to.
 */

const SCALE = 2 ** 20;

class World {
  bitmap: HBitmap;
  shadow: Shadow;
  iterator: HBitmapIterator;
  /** What the iterator has left behind; infinite at its end. */
  visited = 0;

  constructor(groups: number, granularity: number, cut: number) {
    const size = Math.max(0, groups * granularity - (cut % granularity));
    this.bitmap = new HBitmap(size, granularity);
    this.shadow = new Shadow(size, granularity);
    this.iterator = new HBitmapIterator(this.bitmap);
  }

  /** An offset below the size: anywhere, at a group, at a word, or just before one. */
  offset(fraction: number): number {
    const anywhere = Math.floor((fraction / SCALE) * this.shadow.size);
    const { granularity } = this.shadow;
    const step = [1, granularity, granularity * 32, granularity * 64][fraction % 4] as number;
    const aligned = Math.floor(anywhere / step) * step;
    return fraction % 8 === 7 ? Math.max(0, aligned - 1) : aligned;
  }

  /** A length that fits behind `offset`: a few bytes, some groups, a part, or all the rest. */
  length(offset: number, fraction: number): number {
    const room = this.shadow.size - offset;
    const wanted = [
      fraction % 7,
      (fraction % 71) * this.shadow.granularity,
      Math.floor((fraction / SCALE) * room),
      fraction % 32 === 3 ? room : (fraction % 1100) * this.shadow.granularity,
    ][fraction % 4] as number;
    return Math.min(wanted, room);
  }

  chunk(a: number, b: number): [number, number] {
    const align = this.bitmap.serializationAlign;
    const offset = Math.floor(this.offset(a) / align) * align;
    const end = Math.ceil((offset + this.length(offset, b)) / align) * align;
    return [offset, Math.min(end, this.shadow.size) - offset];
  }

  /** Continues with another object of the same content. */
  adopt(bitmap: HBitmap): void {
    this.bitmap = bitmap;
    this.iterator = new HBitmapIterator(bitmap);
    this.visited = 0;
  }
}

type Step = (world: World, a: number, b: number) => unknown;

const changes: Record<string, Step> = {
  set: (world, a, b) => {
    const offset = world.offset(a);
    const length = world.length(offset, b);
    return [world.bitmap.set(offset, length), world.shadow.fill(offset, length, 1)];
  },
  reset: (world, a, b) => {
    const { granularity, size } = world.shadow;
    const offset = Math.floor(world.offset(a) / granularity) * granularity;
    const end = Math.ceil((offset + world.length(offset, b)) / granularity) * granularity;
    // Either the end of the last group or, sometimes, the size itself.
    const length = (b % 3 === 0 ? Math.min(end, size) : end) - offset;
    return [world.bitmap.reset(offset, length), world.shadow.fill(offset, length, 0)];
  },
  resetAll: ({ bitmap, shadow }, a) => {
    if (a % 4 !== 0) return [0, 0];
    bitmap.resetAll();
    shadow.groups.fill(0);
    return [0, 0];
  },
  setAll: ({ bitmap, shadow }, a) => {
    if (a % 4 !== 0) return [0, 0];
    bitmap.setAll();
    shadow.groups.fill(1);
    return [0, 0];
  },
  truncate: ({ bitmap, shadow }, a, b) => {
    const difference = (b % (a % 5 === 0 ? 5000 : 80)) * (a % 2 === 0 ? 1 : -1);
    const size = Math.max(0, shadow.size + difference);
    bitmap.truncate(size);
    shadow.truncate(size);
    return [bitmap.size, size];
  },
  merge: ({ bitmap, shadow }, a, b) => {
    const granularity = 2 ** (a % 9);
    const other = new HBitmap(shadow.size, granularity);
    const plain = new Shadow(shadow.size, granularity);
    for (const part of [a, b, a ^ b]) {
      const offset = Math.floor(((part % 997) / 997) * shadow.size);
      const length = Math.min(part % 300, shadow.size - offset);
      other.set(offset, length);
      plain.fill(offset, length, 1);
    }
    bitmap.merge(other);
    for (
      let group = plain.groups.indexOf(1);
      group !== -1;
      group = plain.groups.indexOf(1, group + 1)
    ) {
      const offset = group * granularity;
      shadow.fill(offset, Math.min(granularity, shadow.size - offset), 1);
    }
    return [0, 0];
  },
  roundTrip: (world, a) => {
    const { bitmap, shadow } = world;
    const copy = new HBitmap(shadow.size, shadow.granularity);
    if (a % 2 === 0) copy.setAll();
    const step = bitmap.serializationAlign * (1 + (a % 40));
    for (let offset = 0; offset < shadow.size; offset += step) {
      const length = Math.min(step, shadow.size - offset);
      copy.deserializePart(bitmap.serializePart(offset, length), offset, length);
    }
    copy.deserializeFinish();
    world.adopt(copy);
    return [0, 0];
  },
  loadZeroes: (world, a, b) => {
    const [offset, length] = world.chunk(a, b);
    world.bitmap.deserializeZeroes(offset, length, true);
    world.shadow.fill(offset, length, 0);
    return [0, 0];
  },
  loadOnes: (world, a, b) => {
    const [offset, length] = world.chunk(a, b);
    world.bitmap.deserializeOnes(offset, length);
    world.bitmap.deserializeFinish();
    world.shadow.fill(offset, length, 1);
    return [0, 0];
  },
  clone: (world) => {
    const former = world.bitmap;
    world.adopt(former.clone());
    former.setAll();
    return [0, 0];
  },
};

const questions: Record<string, Step> = {
  pass: () => [0, 0],
  get: (world, a) => {
    if (world.shadow.size === 0) return [0, 0];
    const offset = world.offset(a);
    return [world.bitmap.get(offset), world.shadow.get(offset)];
  },
  nextDirty: (world, a, b) => {
    const offset = world.offset(a);
    const length = b % 2 === 0 ? b % 5000 : 2 ** 40;
    return [world.bitmap.nextDirty(offset, length), world.shadow.nextDirty(offset, length)];
  },
  nextZero: (world, a, b) => {
    const offset = world.offset(a);
    const length = b % 2 === 0 ? b % 5000 : 2 ** 40;
    return [world.bitmap.nextZero(offset, length), world.shadow.nextZero(offset, length)];
  },
  nextDirtyArea: ({ bitmap, shadow }, a, b) => {
    const start = Math.floor((a / SCALE) * shadow.size);
    const end = start + (b % 5000);
    const max = 1 + (a % 700);
    return [bitmap.nextDirtyArea(start, end, max), shadow.nextDirtyArea(start, end, max)];
  },
  status: (world, a, b) => {
    const offset = world.offset(a);
    const length = Math.min(1 + (b % 3000), world.shadow.size - offset);
    if (length === 0) return [0, 0];
    const dirty = world.shadow.get(offset);
    const change = dirty
      ? world.shadow.nextZero(offset, length)
      : world.shadow.nextDirty(offset, length);
    const expected = { dirty, length: change === -1 ? length : change - offset };
    return [world.bitmap.status(offset, length), expected];
  },
  countBetween: (world, a, b) => {
    const start = world.offset(a);
    const end = world.offset(b);
    return [world.bitmap.countBetween(start, end), world.shadow.countBetween(start, end)];
  },
  iterate: (world, a) => {
    world.visited = Math.floor(world.offset(a) / world.shadow.granularity);
    world.iterator = new HBitmapIterator(world.bitmap, world.offset(a));
    return [0, 0];
  },
  next: (world) => {
    const expected = Number.isFinite(world.visited)
      ? world.shadow.groups.indexOf(1, world.visited)
      : -1;
    world.visited = expected === -1 ? Number.POSITIVE_INFINITY : expected + 1;
    const offset = expected === -1 ? -1 : expected * world.shadow.granularity;
    return [world.iterator.next(), offset];
  },
};

const often = ["set", "set", "set", "reset", "reset", "next", "next", "next", "truncate"];
const names = [...Object.keys(questions), ...Object.keys(changes), ...often];
const steps: Record<string, Step> = { ...questions, ...changes };

function run(world: World, script: [string, number, number][]): void {
  for (const [index, [name, a, b]] of script.entries()) {
    const [answer, expected] = (steps[name] as Step)(world, a, b) as [unknown, unknown];
    if (answer !== expected) expect([name, answer]).toEqual([name, expected]);
    // A large bitmap is compared whole at every fiftieth step only.
    const isDue = index % 50 === 0 || (name in changes && world.shadow.groups.length < 140);
    const state = isDue ? world.shadow.compare(world.bitmap) : "same";
    // An expectation costs more than a step does; so only a failing one is stated.
    if (state !== "same") expect([index, name, state]).toEqual([index, name, "same"]);
  }
  expect(world.shadow.compare(world.bitmap)).toBe("same");
}

it("behaves as a plain array of groups after any operations", () => {
  const groups = fc.oneof(
    { weight: 12, arbitrary: fc.nat(130) },
    { weight: 7, arbitrary: fc.nat(2200) },
    { weight: 1, arbitrary: fc.integer({ min: 30_000, max: 36_000 }) },
  );
  const granularity = fc.constantFrom(1, 1, 2, 8, 64);
  const script = fc.array(
    fc.tuple(fc.constantFrom(...names), fc.nat(SCALE - 1), fc.nat(SCALE - 1)),
    { minLength: 500, maxLength: 500 },
  );
  let executed = 0;
  fc.assert(
    fc.property(groups, granularity, fc.nat(63), script, (count, bytes, cut, entries) => {
      run(new World(count, bytes, cut), entries);
      executed += entries.length;
    }),
    { numRuns: 200 },
  );
  expect(executed).toBe(100_000);
});
