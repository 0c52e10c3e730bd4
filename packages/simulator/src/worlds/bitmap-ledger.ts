import type { BlockNode } from "@blocklayer/block-graph";
import type { BitmapManager, DirtyBitmap } from "@blocklayer/dirty-bitmap";
import { assert } from "@blocklayer/errors";
import { sameBytes } from "../disk/same-bytes.ts";
import type { Simulation } from "../simulation.ts";
import { BitmapModel, type ModelDisk } from "./bitmap-model.ts";

/** A bitmap as it has to be. */
export class Held {
  readonly node: string;
  readonly name: string;
  readonly isPersistent: boolean;
  model: BitmapModel;
  bitmap: DirtyBitmap;
  /** What records while it is frozen. */
  successor: BitmapModel | undefined;
  /** Content while it is frozen. */
  frozen: Uint8Array | undefined;
  /** A job or an export uses it. */
  isBusy: boolean = false;
  isReadonly: boolean = false;
  isInconsistent: boolean = false;
  /** A command that has not ended is about it: it is in no state that could be judged. */
  isInTransition: boolean = false;
  /** Whether something happened to it, or to its disk while it records, since it was stored or loaded. */
  isTouched: boolean = true;
  /** Whether the image holds it. */
  isStored: boolean = false;
  /** Whether it was switched on where the image could not be told. */
  isSwitchedInPassing: boolean = false;

  constructor(bitmap: DirtyBitmap, model: BitmapModel, isPersistent: boolean) {
    this.bitmap = bitmap;
    this.node = bitmap.node.name;
    this.name = bitmap.name ?? "";
    this.model = model;
    this.isPersistent = isPersistent;
  }

  get isRecording(): boolean {
    return (this.successor ?? this.model).isRecording;
  }

  /** What it says, with what was recorded since it is frozen. */
  get content(): Uint8Array {
    const content = this.bitmap.bottomBytes().slice();
    const since = this.bitmap.successor?.bottomBytes() ?? [];
    for (const [index, byte] of since.entries()) content[index] = (content[index] ?? 0) | byte;
    return content;
  }

  freeze(): void {
    this.successor = this.model.freeze(this.bitmap.map);
    this.frozen = this.bitmap.bottomBytes();
    this.isBusy = true;
  }

  /** The successor takes its place. */
  abdicate(bitmap: DirtyBitmap): void {
    assert(this.successor !== undefined, "who is not frozen has no successor");
    this.model.disk.forget(this.model);
    this.model = this.successor;
    this.bitmap = bitmap;
    this.#thaw();
  }

  reclaim(): void {
    assert(this.successor !== undefined, "who is not frozen has no successor");
    this.model.reclaim(this.successor);
    this.#thaw();
  }

  /** Ends the story of a bitmap that is gone. */
  forget(): void {
    this.model.disk.forget(this.model);
    if (this.successor !== undefined) this.model.disk.forget(this.successor);
  }

  #thaw(): void {
    this.successor = undefined;
    this.frozen = undefined;
    this.isBusy = false;
  }
}

/** All named bitmaps of a life, as they have to be, and the judgement of those that there are. */
export class BitmapLedger {
  readonly #simulation: Simulation;
  readonly #bitmaps: BitmapManager;
  readonly #held = new Map<string, Held>();
  readonly disks: Map<string, ModelDisk> = new Map();

  constructor(simulation: Simulation, bitmaps: BitmapManager, disks: readonly ModelDisk[]) {
    this.#simulation = simulation;
    this.#bitmaps = bitmaps;
    for (const disk of disks) this.disks.set(disk.name, disk);
  }

  get all(): readonly Held[] {
    return [...this.#held.values()];
  }

  find(node: string, name: string): Held | undefined {
    return this.#held.get(keyOf(node, name));
  }

  disk(node: string): ModelDisk {
    const disk = this.disks.get(node);
    assert(disk !== undefined, () => `no model of the disk ${node}`);
    return disk;
  }

  /** A bitmap was added. */
  hold(bitmap: DirtyBitmap, isRecording: boolean, isPersistent: boolean): Held {
    const model = new BitmapModel(this.disk(bitmap.node.name), bitmap.granularity, isRecording);
    return this.adopt(new Held(bitmap, model, isPersistent));
  }

  adopt(held: Held): Held {
    this.#held.set(keyOf(held.node, held.name), held);
    return held;
  }

  drop(held: Held): void {
    held.forget();
    this.#held.delete(keyOf(held.node, held.name));
  }

  /** A change of the disk has begun: it outdates what the image holds of bitmaps that record. */
  touch(node: string): void {
    for (const held of this.#held.values()) {
      if (held.node === node && held.isRecording) held.isTouched = true;
    }
  }

  /** Judges all bitmaps at this instant. */
  judge(): void {
    for (const held of this.#held.values()) {
      const problem = held.isInTransition ? undefined : problemOf(held);
      if (problem === undefined) continue;
      this.#simulation.fail("bitmap", `'${held.name}' of '${held.node}': ${problem}`);
    }
  }

  /** Judges also which bitmaps there are; nothing may be under way. */
  judgeNames(node: BlockNode): void {
    const are = this.#bitmaps.list(node).flatMap(({ name }) => (name === undefined ? [] : [name]));
    const have = this.all.filter((held) => held.node === node.name).map(({ name }) => name);
    this.#simulation.expect(
      are.toSorted().join() === have.toSorted().join(),
      "wrong bitmaps",
      () => `there are ${are.join()} instead of ${have.join()}`,
    );
  }
}

/** What is wrong with a bitmap, `undefined` when nothing is. */
function problemOf(held: Held): string | undefined {
  const { bitmap, successor, frozen } = held;
  if (held.isInconsistent) return bitmap.inconsistent ? undefined : "it is not inconsistent";
  return stateProblem(held) ?? held.model.problem(bitmap.map) ?? frozenProblem();

  function frozenProblem(): string | undefined {
    if (successor === undefined || frozen === undefined) return undefined;
    if (bitmap.successor === undefined) return "it has no successor";
    if (!sameBytes(bitmap.bottomBytes(), frozen)) return "it has changed while it was frozen";
    const problem = successor.problem(bitmap.successor.map);
    return problem === undefined ? undefined : `in its successor ${problem}`;
  }
}

function stateProblem({ bitmap, ...held }: Held): string | undefined {
  const isRecording = (held.successor ?? held.model).isRecording;
  const rows = [
    ["released", bitmap.isReleased, false],
    ["recording", bitmap.recording, isRecording],
    ["busy", bitmap.busy, held.isBusy],
    ["readonly", bitmap.readonly, held.isReadonly],
    ["persistent", bitmap.persistent, held.isPersistent],
    ["inconsistent", bitmap.inconsistent, false],
  ] as const;
  const wrong = rows.find(([, is, ought]) => is !== ought);
  return wrong === undefined ? undefined : `${wrong[0]} is ${wrong[1]}`;
}

function keyOf(node: string, name: string): string {
  return `${node}/${name}`;
}
