import type { BlockNode } from "@blocklayer/block-graph";
import type { BitmapManager, DirtyBitmap } from "@blocklayer/dirty-bitmap";
import { sameBytes } from "../disk/same-bytes.ts";
import type { Simulation } from "../simulation.ts";
import { type BitmapLedger, Held } from "./bitmap-ledger.ts";
import { BitmapModel, type ModelDisk } from "./bitmap-model.ts";

/** What may come back of a bitmap when its process has ended. */
interface Expectation {
  readonly model: BitmapModel;
  readonly isRecording: boolean;
  readonly isInconsistent: boolean;
  /** Nothing has outdated what the image holds. */
  readonly isUntouched: boolean;
  /** The image holds it. */
  readonly isStored: boolean;
  /** The content that was stored, when all ended well. */
  readonly content: Uint8Array | undefined;
}

/**
 * What a process leaves to the next one: persistent bitmaps that are valid and lack nothing, or say that they are in
 * use.
 *
 * @see docs/reliability.md section 3.2, BM-4
 */
export class StoredExpectations {
  readonly #simulation: Simulation;
  readonly #expected = new Map<string, Expectation>();

  constructor(simulation: Simulation) {
    this.#simulation = simulation;
  }

  /**
   * The process ends now.
   *
   * @param contents - what it has stored, by name; without it: nobody knows
   */
  remember(ledger: BitmapLedger, contents?: ReadonlyMap<string, Uint8Array>): void {
    const isClean = contents !== undefined;
    this.#expected.clear();
    for (const held of ledger.all) {
      if (!held.isPersistent) continue;
      const content = contents?.get(held.name);
      const { model, successor, isRecording, isInconsistent } = held;
      if (successor !== undefined) model.reclaim(successor);
      this.#expected.set(held.name, {
        model,
        isRecording: isRecording && (isClean || !held.isSwitchedInPassing),
        isInconsistent,
        isUntouched: !held.isTouched && held.isStored,
        isStored: held.isStored || isClean,
        content: isClean && !isInconsistent ? content : undefined,
      });
    }
  }

  /** Judges what has come back, and goes on with it. */
  meet(bitmaps: BitmapManager, node: BlockNode, ledger: BitmapLedger, disk: ModelDisk): void {
    for (const bitmap of bitmaps.list(node)) {
      const { name = "" } = bitmap;
      const expected = this.#expected.get(name);
      this.#expected.delete(name);
      if (expected === undefined) {
        this.#simulation.fail("bitmap from nowhere", name);
        continue;
      }
      this.#judge(bitmap, expected, disk);
      ledger.adopt(heldOf(bitmap, expected, disk));
    }
    const lost = [...this.#expected].filter(([, { isStored }]) => isStored);
    const names = lost.map(([name]) => name).join();
    this.#simulation.expect(lost.length === 0, "bitmap lost", () => names);
  }

  #judge(bitmap: DirtyBitmap, expected: Expectation, disk: ModelDisk): void {
    const simulation = this.#simulation;
    const { inconsistent, enabled } = bitmap;
    const name = `'${bitmap.name ?? ""}'`;
    if (inconsistent) {
      simulation.sometimes("a bitmap came back inconsistent");
      const isNeeded = expected.isInconsistent || !(expected.isUntouched || expected.content);
      simulation.expect(isNeeded, "given up for nothing", () => `${name} is inconsistent`);
      return;
    }
    simulation.sometimes("a bitmap came back");
    simulation.expect(!expected.isInconsistent, "revived", () => `${name} is valid again`);
    simulation.expect(
      enabled || !expected.isRecording,
      "recording lost",
      () => `${name} was switched on and came back switched off`,
    );
    const problem = expected.model.moveTo(disk, bitmap.map).problem(bitmap.map);
    simulation.expect(problem === undefined, "came back wrong", () => `${name}: ${problem ?? ""}`);
    const { content, isRecording } = expected;
    if (content === undefined) return;
    const isSame = sameBytes(content, bitmap.bottomBytes()) && enabled === isRecording;
    simulation.expect(isSame, "came back different", () => `${name} was stored otherwise`);
  }
}

function heldOf(bitmap: DirtyBitmap, { model }: Expectation, disk: ModelDisk): Held {
  const isInconsistent = bitmap.inconsistent;
  const next = isInconsistent
    ? new BitmapModel(disk, bitmap.granularity, false)
    : model.moveTo(disk, bitmap.map);
  if (!isInconsistent && bitmap.enabled) next.start();
  else next.stop();
  const held = new Held(bitmap, next, true);
  held.isInconsistent = isInconsistent;
  held.isReadonly = bitmap.node.readOnly;
  held.isStored = true;
  held.isTouched = false;
  return held;
}
