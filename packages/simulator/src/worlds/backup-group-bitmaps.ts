import type { BitmapManager, DirtyBitmap } from "@blocklayer/dirty-bitmap";
import type { BlockError } from "@blocklayer/errors";
import type { HBitmap } from "@blocklayer/hbitmap";
import type { TransactionStep } from "@blocklayer/jobs";
import type { Simulation } from "../simulation.ts";
import type { SourceDisk } from "./backup-disk.ts";
import type { ActionPlan } from "./backup-group-plan.ts";
import { expectSound } from "./backup-oracles.ts";
import type { BackupRun } from "./backup-run.ts";

/** What is known of one bitmap. */
interface KnownBitmap {
  readonly source: SourceDisk;
  readonly name: string;
  /** The content that it refers to. */
  reference: Uint8Array;
  /** The content of the moment from which it records no more. */
  recordedUntil: Uint8Array | undefined;
  /** It refers to what a failed backup has copied, and else to what it referred to before. */
  isMixed: boolean;
}

/** A bitmap as it was. */
interface BitmapState {
  readonly name: string;
  readonly recording: boolean;
  readonly map: HBitmap;
}

/** Bitmap actions in the transactions that start backups, and what has to become of the bitmaps. */
export class GroupBitmaps {
  readonly #simulation: Simulation;
  readonly #manager: BitmapManager;
  readonly #known: KnownBitmap[] = [];
  #addedCount = 0;

  constructor(simulation: Simulation, manager: BitmapManager) {
    this.#simulation = simulation;
    this.#manager = manager;
  }

  /** A bitmap was added. */
  know(source: SourceDisk, name: string): void {
    const reference = source.content.now().slice();
    this.#known.push({ source, name, reference, recordedUntil: undefined, isMixed: false });
  }

  /**
   * Returns the steps of an action: one that does it, and one that takes note of it in the turn of the commit.
   *
   * Bitmap `bm` is that of the backups, `other` nobody's.
   */
  steps({ action, disk }: ActionPlan, sources: readonly SourceDisk[]): TransactionStep[] {
    const source = sources[disk] as SourceDisk;
    const manager = this.#manager;
    const other = { node: source.name, name: "other" };
    const own = { node: source.name, name: "bm" };
    const commit = (note: () => void): TransactionStep => ({
      name: `note ${action}`,
      prepare: () => undefined,
      commit: note,
    });
    switch (action) {
      case "add": {
        this.#addedCount += 1;
        const name = `added${this.#addedCount}`;
        return [
          manager.addStep(source.name, { name, granularity: 4096 }),
          commit(() => this.know(source, name)),
        ];
      }
      case "clear":
        return [manager.clearStep(other), commit(() => this.#refer(source, "other"))];
      case "clear its own":
        return [manager.clearStep(own), commit(() => this.#refer(source, "bm"))];
      case "disable":
        return [manager.disableStep(other), commit(() => this.#stop(source))];
      case "merge":
        return [manager.mergeStep(other, [own]), commit(() => this.#expectMerged(source))];
    }
  }

  /** Returns how the bitmaps are, for {@link expectAsBefore}. */
  states(): BitmapState[] {
    return this.#known.map(({ source, name }) => {
      const { recording, map } = this.#manager.lookup(source.name, name);
      return { name, recording, map: map.clone() };
    });
  }

  /** Nothing has come of a transaction: no bitmap is new, none is gone, none has lost what it had. */
  expectAsBefore(before: readonly BitmapState[], sources: readonly SourceDisk[]): void {
    const count = sources.reduce((sum, { name }) => sum + this.#list(name).length, 0);
    this.#simulation.expect(
      count === before.length,
      "bitmaps left behind",
      () => `${count} bitmaps instead of ${before.length}`,
    );
    for (const [index, { source, name }] of this.#known.entries()) {
      const state = before[index];
      const bitmap = this.#manager.lookup(source.name, name);
      if (state === undefined) continue;
      const isKept = bitmap.recording === state.recording && !bitmap.busy && !bitmap.hasSuccessor;
      this.#simulation.expect(isKept, "bitmap not restored", () => `'${name}' of ${source.name}`);
      this.#expectContains(bitmap, state.map, "rolled back bits lost");
    }
  }

  /** A backup has ended: one that went well, or that the bitmap goes by as far as it came, is what it refers to. */
  refer({ options, oracles, source }: BackupRun, error: BlockError | undefined): void {
    const { instant } = oracles;
    const mode = options["bitmap-mode"] ?? "on-success";
    const known = this.#find(source, options.bitmap ?? "");
    if (instant === undefined || known === undefined || mode === "never") return;
    if (error === undefined)
      Object.assign(known, { reference: instant.source.slice(), isMixed: false });
    else if (mode === "always") known.isMixed = true;
  }

  /** All that differs from what the bitmaps refer to is marked. */
  expectSound(): void {
    for (const { source, name, reference, recordedUntil, isMixed } of this.#known) {
      if (isMixed) continue;
      const bitmap = this.#manager.lookup(source.name, name);
      const now = recordedUntil ?? source.content.now();
      expectSound(this.#simulation, bitmap, { now, reference });
    }
  }

  #list(node: string): readonly DirtyBitmap[] {
    const source = this.#known.find((known) => known.source.name === node)?.source;
    const at = source?.backend?.node?.graph.findNode(node);
    return at === undefined ? [] : this.#manager.list(at);
  }

  #find(source: SourceDisk, name: string): KnownBitmap | undefined {
    return this.#known.find((known) => known.source === source && known.name === name);
  }

  /** A bitmap was cleared. One that records no more has nothing to mark from here on. */
  #refer(source: SourceDisk, name: string): void {
    const known = this.#find(source, name);
    if (known === undefined) return;
    known.reference = known.recordedUntil ?? source.content.now().slice();
    known.isMixed = false;
  }

  #stop(source: SourceDisk): void {
    const known = this.#find(source, "other");
    if (known !== undefined) known.recordedUntil ??= source.content.now().slice();
  }

  #expectMerged(source: SourceDisk): void {
    const other = this.#manager.lookup(source.name, "other");
    const { map } = this.#manager.lookup(source.name, "bm");
    // Of two steps the later one may have cleared either.
    if (map.count > 0 && other.count === 0) return;
    this.#simulation.sometimes("bitmaps were merged in the instant of a start");
  }

  #expectContains(bitmap: DirtyBitmap, before: HBitmap, kind: string): void {
    for (let at = before.nextDirty(0); at >= 0; ) {
      const offset = at;
      this.#simulation.expect(bitmap.map.get(offset), kind, () => `dirty byte at ${offset}`);
      const next = offset + before.granularity;
      at = next >= before.size ? -1 : before.nextDirty(next);
    }
  }
}
