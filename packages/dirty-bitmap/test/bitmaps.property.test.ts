import type { BlockNode } from "@blocklayer/block-graph";
import type { DirtyBitmap } from "@blocklayer/dirty-bitmap";
import { BlockError } from "@blocklayer/errors";
import fc from "fast-check";
import { expect, it } from "vitest";
import { type Disk, Rig } from "./bitmap-rig.ts";
import { imageOf } from "./keeping-disk.ts";

const SECTOR = 512;
const SIZE = 64 * SECTOR;
const MAX_SIZE = 96 * SECTOR;

/** The dumbest correct bitmap: a set of groups. */
class Model {
  readonly granularity: number;
  dirty: Set<number> = new Set();
  enabled: boolean = true;
  successor: Model | undefined;
  /** The content that "clean" means; unknown once it has not recorded something. */
  reference: Uint8Array | undefined;

  constructor(granularity: number, reference: Uint8Array) {
    this.granularity = granularity;
    this.reference = reference.slice();
  }

  record(offset: number, length: number): void {
    this.successor?.record(offset, length);
    if (this.enabled) this.mark(offset, length);
    else if (this.successor?.enabled !== true) this.reference = undefined;
  }

  mark(offset: number, length: number): void {
    const last = Math.floor((offset + length - 1) / this.granularity);
    let group = Math.floor(offset / this.granularity);
    for (; group <= last; group += 1) this.dirty.add(group);
  }

  truncate(size: number): void {
    this.successor?.truncate(size);
    const count = Math.ceil(size / this.granularity);
    this.dirty = new Set([...this.dirty].filter((group) => group < count));
  }

  /** Groups that hold a sector in which `other` is dirty. */
  merge(other: Model, size: number): void {
    const step = Math.min(this.granularity, other.granularity);
    for (let at = 0; at < size; at += step) {
      if (other.dirty.has(Math.floor(at / other.granularity))) this.mark(at, 1);
    }
  }
}

const range = fc.tuple(fc.nat(SIZE / SECTOR - 1), fc.integer({ min: 1, max: 9 }));
const which = fc.constantFrom("fine", "coarse");
const action = fc.oneof(
  { weight: 6, arbitrary: fc.record({ do: fc.constantFrom("write", "zeroes", "discard"), range }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("odd write"), range }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("truncate"), range }) },
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constantFrom("freeze", "abdicate", "reclaim", "enable", "disable", "clear", "merge"),
      which,
    }),
  },
);

/** A disk with two bitmaps, and the same in the model. */
class World {
  readonly rig: Rig = new Rig();
  readonly models = new Map<string, Model>();
  content: Uint8Array = new Uint8Array(SIZE);
  #fill = 0;

  async open(): Promise<Disk> {
    const node = await this.rig.disk("disk", { size: SIZE, "cluster-size": SECTOR });
    for (const [name, granularity] of Object.entries({ fine: SECTOR, coarse: 4096 })) {
      await this.rig.bitmaps.add(node, { name, granularity });
      this.models.set(name, new Model(granularity, this.content));
    }
    return this.rig.backend(node);
  }

  bitmap(name: string): DirtyBitmap {
    return this.rig.bitmaps.lookup("disk", name);
  }

  async io(disk: Disk, what: string, [sector, sectors]: [number, number]): Promise<void> {
    if (what === "truncate") {
      await this.#truncate(disk, Math.min((sector + sectors) * SECTOR, MAX_SIZE));
      return;
    }
    const odd = what === "odd write" ? 100 : 0;
    const offset = Math.min(sector * SECTOR + odd, this.content.length);
    const length = Math.min(sectors * SECTOR - 2 * odd, this.content.length - offset);
    this.#fill = (this.#fill % 255) + 1;
    if (what === "discard") await disk.discard(offset, length);
    else if (what === "zeroes") await disk.writeZeroes(offset, length);
    else await disk.write(offset, new Uint8Array(length).fill(this.#fill));
    if (length === 0) return;
    const now = new Uint8Array(this.content.length);
    await disk.read(0, now);
    this.content = now;
    for (const model of this.models.values()) model.record(offset, length);
  }

  async #truncate(disk: Disk, size: number): Promise<void> {
    const frozen = [...this.models.values()].some(({ successor }) => successor !== undefined);
    const outcome = await disk.truncate(size).then(
      () => "done",
      (error: BlockError) => error.code,
    );
    expect(outcome).toBe(frozen ? "EBUSY" : "done");
    if (frozen) return;
    const resized = (bytes: Uint8Array): Uint8Array => {
      const result = new Uint8Array(size);
      result.set(bytes.subarray(0, size));
      return result;
    };
    this.content = resized(this.content);
    for (const model of this.models.values()) {
      model.truncate(size);
      if (model.reference !== undefined) model.reference = resized(model.reference);
    }
  }

  async control(what: string, name: string): Promise<void> {
    const model = this.models.get(name) as Model;
    const other = this.models.get(name === "fine" ? "coarse" : "fine") as Model;
    const isFrozen = model.successor !== undefined;
    if (what === "abdicate" || what === "reclaim") {
      if (isFrozen) this.#thaw(what, name, model);
      return;
    }
    const isRefused = isFrozen || (what === "merge" && other.successor !== undefined);
    let code = "done";
    try {
      await this.#command(what, name);
    } catch (error) {
      code = (error as BlockError).code;
    }
    expect(code).toBe(isRefused ? "EBUSY" : "done");
    if (!isRefused) this.#model(what, model, other);
  }

  #thaw(what: string, name: string, model: Model): void {
    const { successor } = model;
    if (successor === undefined) return;
    if (what === "abdicate") {
      this.bitmap(name).abdicate();
      this.models.set(name, successor);
      return;
    }
    this.bitmap(name).reclaim();
    for (const group of successor.dirty) model.dirty.add(group);
    model.enabled = successor.enabled;
    model.successor = undefined;
  }

  #command(what: string, name: string): unknown {
    const bitmap = this.bitmap(name);
    if (what === "freeze") return bitmap.createSuccessor();
    if (what === "merge") {
      const other = this.bitmap(name === "fine" ? "coarse" : "fine");
      return this.rig.bitmaps.merge(bitmap, [other]);
    }
    return bitmap[what as "enable" | "disable" | "clear"]();
  }

  #model(what: string, model: Model, other: Model): void {
    if (what === "enable" || what === "disable") model.enabled = what === "enable";
    if (what === "merge") model.merge(other, this.content.length);
    if (what === "clear") {
      model.dirty.clear();
      model.reference = this.content.slice();
    }
    if (what === "freeze") {
      model.successor = new Model(model.granularity, this.content);
      model.successor.enabled = model.enabled;
      model.enabled = false;
    }
  }

  check(): void {
    for (const [name, model] of this.models) {
      const bitmap = this.bitmap(name);
      expect(bitmap.size).toBe(this.content.length);
      expect(groups(bitmap)).toEqual([...model.dirty].sort((a, b) => a - b));
      expect(bitmap.busy).toBe(model.successor !== undefined);
      expect(bitmap.recording).toBe(model.enabled || model.successor?.enabled === true);
    }
  }

  /** What differs from the reference is dirty in the bitmap or in its successor. */
  checkContent(): void {
    for (const [name, { reference }] of this.models) this.#checkSound(this.bitmap(name), reference);
  }

  #checkSound(bitmap: DirtyBitmap, reference: Uint8Array | undefined): void {
    if (reference === undefined) return;
    const { content } = this;
    const missing = content.findIndex(
      (byte, at) =>
        byte !== reference[at] && !bitmap.map.get(at) && bitmap.successor?.map.get(at) !== true,
    );
    expect(missing).toBe(-1);
  }
}

function groups({ map, granularity }: DirtyBitmap): number[] {
  const found: number[] = [];
  for (let at = map.nextDirty(0); at !== -1; at = map.nextDirty(at + granularity)) {
    found.push(at / granularity);
  }
  return found;
}

it("bitmaps equal sets of groups, and what has changed is dirty, whatever happens", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(action, { maxLength: 40 }), async (actions) => {
      const world = new World();
      const disk = await world.open();
      for (const step of actions) {
        if ("range" in step) await world.io(disk, step.do, step.range);
        else await world.control(step.do, step.which);
        world.check();
      }
      world.checkContent();
    }),
    { numRuns: 200 },
  );
});

const event = fc.oneof(
  { weight: 5, arbitrary: fc.record({ do: fc.constant("write"), group: fc.nat(15) }) },
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constantFrom("enable", "disable", "clear", "freeze", "abdicate", "reclaim", "merge"),
      group: fc.constant(0),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constantFrom("close", "crash", "read-only", "writable", "fault", "no fault"),
      group: fc.nat(1),
    }),
  },
);

const GROUP = 65536;

/** A persistent bitmap, and which groups must be dirty in it: those written while it recorded, since it was cleared. */
class Life {
  rig: Rig = new Rig();
  node: BlockNode | undefined;
  must: Set<number> = new Set();
  since: Set<number> | undefined;

  async open(before?: Rig): Promise<void> {
    this.rig = new Rig(before?.shelf);
    imageOf(this.rig.shelf, "i").fail.clear();
    this.node = await this.rig.open({ driver: "keeper", "node-name": "disk", image: "i" });
  }

  get bitmap(): DirtyBitmap | undefined {
    return this.node && this.rig.bitmaps.find(this.node, "x");
  }

  async step(what: string, group: number): Promise<void> {
    const attempt: Record<string, () => unknown> = {
      write: () => this.#write(group),
      close: () => this.#restart(() => this.rig.graph.close()),
      crash: () => this.#restart(() => undefined),
      "read-only": () => this.rig.graph.setReadOnly(this.node as BlockNode, true),
      writable: () => this.rig.graph.setReadOnly(this.node as BlockNode, false),
      fault: () => imageOf(this.rig.shelf, "i").fail.add(group === 0 ? "store" : "markInUse"),
      "no fault": () => imageOf(this.rig.shelf, "i").fail.clear(),
    };
    try {
      await (attempt[what] ?? (() => this.#control(what)))();
    } catch (error) {
      if (!(error instanceof BlockError)) throw error;
    }
  }

  async #write(group: number): Promise<void> {
    if (this.node?.readOnly === true) return;
    const disk = await this.rig.backend(this.node as BlockNode);
    try {
      await disk.write(group * GROUP, new Uint8Array(1));
      if (this.bitmap?.recording !== true) return;
      if (this.since === undefined) this.must.add(group);
      else this.since.add(group);
    } finally {
      await disk.close();
    }
  }

  /** A bitmap whose job has not ended is, after a restart, what both of its halves would have been. */
  async #restart(end: () => unknown): Promise<void> {
    for (const group of this.since ?? []) this.must.add(group);
    this.since = undefined;
    try {
      await end();
    } finally {
      await this.open(this.rig);
      if (this.bitmap === undefined || this.bitmap.inconsistent) await this.#renew();
    }
  }

  async #renew(): Promise<void> {
    if (this.bitmap !== undefined) await this.rig.bitmaps.remove("disk", "x");
    await this.rig.bitmaps.add(this.node as BlockNode, { name: "x", persistent: true });
    this.must = new Set();
  }

  async #control(what: string): Promise<void> {
    const { bitmap } = this;
    if (bitmap === undefined) {
      await this.#renew();
      return;
    }
    if (what === "enable") bitmap.enable();
    if (what === "disable") bitmap.disable();
    if (what === "merge") await this.rig.bitmaps.merge(bitmap, [bitmap]);
    if (what === "clear") {
      bitmap.clear();
      this.must = new Set();
    }
    if (what === "freeze") {
      bitmap.createSuccessor();
      this.since = new Set();
    }
    if (this.since !== undefined && what === "abdicate") {
      bitmap.abdicate();
      this.must = this.since;
      this.since = undefined;
    }
    if (this.since !== undefined && what === "reclaim") {
      bitmap.reclaim();
      for (const group of this.since) this.must.add(group);
      this.since = undefined;
    }
  }

  check(): void {
    const { bitmap } = this;
    if (bitmap === undefined) return;
    for (const group of this.must) expect(bitmap.map.get(group * GROUP)).toBe(true);
    for (const group of this.since ?? []) {
      expect(bitmap.successor?.map.get(group * GROUP)).toBe(true);
    }
  }
}

it("a bitmap that comes back from the image and is consistent lacks nothing", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(event, { maxLength: 40 }), async (events) => {
      const life = new Life();
      await life.open();
      for (const { do: what, group } of events) {
        await life.step(what, group);
        life.check();
      }
    }),
    { numRuns: 200 },
  );
});
