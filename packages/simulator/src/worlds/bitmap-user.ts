import type { ResizableBackend } from "@blocklayer/block-graph";
import { BlockError } from "@blocklayer/errors";
import { runTransaction, type TransactionStep } from "@blocklayer/jobs";
import { alignDown, alignUp } from "@blocklayer/offsets";
import type { RegisterOracle } from "../register-oracle.ts";
import type { Simulation } from "../simulation.ts";
import {
  applyAction,
  type BitmapAction,
  BitmapForesight,
  type BitmapScene,
  concerned,
  type ErrorCodes,
  isPlaced,
  stepOf,
} from "./bitmap-commands.ts";
import type { RunningChange } from "./bitmap-model.ts";

export interface BitmapUserOptions extends BitmapScene {
  readonly simulation: Simulation;
  /** Names of the nodes that have bitmaps. */
  readonly nodes: readonly [string, ...string[]];
  /** Whether bitmaps may be persistent. */
  readonly mayPersist: boolean;
  /** Requests that were made to fail so far: an error of a disk that comes with one needs no other reason. */
  readonly faultCount: () => number;
  /** The disk whose length may change. */
  readonly resizable?: ResizableDisk | undefined;
}

export interface ResizableDisk {
  readonly node: string;
  readonly disk: Pick<ResizableBackend, "size" | "truncate" | "close">;
  readonly oracle: RegisterOracle;
  /** Bytes: lengths are multiples of it. */
  readonly unit: number;
  /** Bytes: the longest it may become. */
  readonly capacity: number;
}

const NAMES = ["a", "b", "c", "d"] as const;
const GRANULARITIES = [512, 2048, 1024, 8192] as const;
const COARSEST = 8192;
const KINDS = [
  "add",
  "clear",
  "merge",
  "disable",
  "enable",
  "remove",
  "pause",
  "refuse",
  "resize",
] as const;

/** Somebody who manages bitmaps while disks are in use: one command after the other, alone and in transactions. */
export class BitmapUser {
  readonly #options: BitmapUserOptions;

  constructor(options: BitmapUserOptions) {
    this.#options = options;
  }

  /** Gives so many commands. Never rejects: what may not happen is a finding. */
  async work(count: number): Promise<void> {
    const { simulation } = this.#options;
    for (let index = 0; index < count; index += 1) {
      await simulation.scheduler.turn("before the next command");
      const actions = this.#draw();
      await this.run(actions);
    }
  }

  /** Adds so many bitmaps, one after the other. */
  async add(count: number): Promise<void> {
    for (let index = 0; index < count; index += 1) await this.run([this.#action(0)]);
  }

  /** Carries out actions, all or none. */
  async run(actions: readonly BitmapAction[]): Promise<void> {
    const { simulation, ledger, faultCount } = this.#options;
    const expected = new BitmapForesight(ledger).after(actions);
    const touched = concerned(ledger, actions);
    for (const held of touched) {
      held.isInTransition = true;
      held.isTouched = true;
    }
    for (const held of concerned(
      ledger,
      actions.filter(({ kind }) => kind === "remove"),
    )) {
      // It is gone from the image before the end, and comes back with the next store.
      held.isStored = false;
    }
    const faultsBefore = faultCount();
    const takenDown = [...ledger.disks.values()].map((disk) => disk.takeDown());
    let error: BlockError | undefined;
    await simulation.operation(describe(actions), async () => {
      error = await failureOf(() => this.#carryOut(actions));
    });
    for (const held of touched) held.isInTransition = false;
    for (const end of takenDown) this.#mayHaveRecorded(actions, end());
    simulation.trace.note(`outcome: ${error?.message ?? "success"}`);
    simulation.sometimes(error === undefined ? "a command succeeded" : `refused: ${error.code}`);
    const isExplained = isOfDisk(error) && faultCount() > faultsBefore;
    simulation.expect(
      isExplained || fits(error, expected),
      "wrong outcome",
      () => `${describe(actions)}: ${error?.message ?? "success"} instead of ${expected.join()}`,
    );
    if (error !== undefined && actions.length > 1) simulation.sometimes("a transaction failed");
    ledger.judge();
  }

  async #carryOut(actions: readonly BitmapAction[]): Promise<void> {
    const { simulation, graph } = this.#options;
    const { decisions } = simulation;
    const [first] = actions;
    const isAlone = actions.length === 1 && first !== undefined;
    const isOnlyAtOnce = isAlone && first.kind === "resize";
    if (isOnlyAtOnce || (isAlone && decisions.chance("command at once", 1, 2))) {
      return this.#atOnce(first);
    }
    const take: TransactionStep = {
      name: "take note",
      prepare: () => undefined,
      commit: () => {
        for (const action of actions) applyAction(this.#options, action);
      },
    };
    const steps = [...actions.map((action) => this.#step(action)), take];
    switch (decisions.choose("way of the transaction", 3)) {
      case 0:
        return runTransaction(steps);
      case 1:
        return graph.change(steps);
      default: {
        const touches = this.#options.nodes.map((name) => graph.node(name));
        return graph.change([{ touches, prepare: () => undefined }, ...steps]);
      }
    }
  }

  /** The same without a transaction, where there is such a way. */
  async #atOnce(action: BitmapAction): Promise<void> {
    const { bitmaps } = this.#options;
    switch (action.kind) {
      case "add":
        await bitmaps.add(action.node, action);
        break;
      case "remove":
        await bitmaps.remove(action.node, action.name);
        break;
      case "clear":
        bitmaps.lookup(action.node, action.name).clear();
        break;
      case "merge":
        await runTransaction([
          bitmaps.mergeStep(action, action.sources),
          {
            prepare: () => undefined,
            commit: () => applyAction(this.#options, action),
          },
        ]);
        return;
      case "enable": {
        const bitmap = bitmaps.lookup(action.node, action.name);
        if (!bitmap.readonly) await bitmap.invalidateStored();
        bitmap.enable();
        break;
      }
      case "disable":
        bitmaps.lookup(action.node, action.name).disable();
        break;
      case "resize":
        await this.#resize(action.size);
        return;
      case "pause":
        return;
      case "refuse":
        throw refusal();
    }
    applyAction(this.#options, action);
  }

  #step(action: BitmapAction): TransactionStep {
    const { bitmaps } = this.#options;
    if (action.kind === "pause") return { prepare: () => this.#takeTime() };
    if (isPlaced(action)) return stepOf(bitmaps, action);
    return {
      prepare: () => {
        throw refusal();
      },
    };
  }

  /** What was switched on for a moment, or merged and then cleared, may have recorded. */
  #mayHaveRecorded(actions: readonly BitmapAction[], changes: readonly RunningChange[]): void {
    for (const held of concerned(this.#options.ledger, actions)) {
      const { size } = held.model.disk;
      for (const { offset, end } of changes) {
        const from = Math.min(size, alignDown(offset, COARSEST));
        held.model.setRange(from, Math.min(size, alignUp(end, COARSEST)), false);
      }
    }
  }

  async #takeTime(): Promise<void> {
    const { decisions, scheduler } = this.#options.simulation;
    for (let turns = decisions.choose("turns of a step", 8); turns >= 0; turns -= 1) {
      await scheduler.turn("slow step");
    }
  }

  #draw(): BitmapAction[] {
    const { decisions } = this.#options.simulation;
    if (!decisions.chance("in a transaction", 3, 5)) {
      const resizes = this.#options.resizable === undefined ? 0 : 6;
      return [this.#action(decisions.weighted("command", [6, 4, 4, 3, 3, 3, 0, 0, resizes]))];
    }
    const actions: BitmapAction[] = [];
    for (let count = 1 + decisions.choose("actions", 5); count > 0; count -= 1) {
      actions.push(this.#action(decisions.weighted("action", [2, 5, 5, 2, 2, 1, 6, 1])));
    }
    return actions;
  }

  #action(index: number): BitmapAction {
    const { simulation, mayPersist } = this.#options;
    const { decisions } = simulation;
    const kind = KINDS[index] ?? "pause";
    if (kind === "pause" || kind === "refuse") return { kind };
    if (kind === "resize") return this.#newSize();
    const place = this.#place("bitmap", kind === "add");
    if (kind === "add") {
      return {
        ...place,
        kind,
        granularity: decisions.among("granularity", GRANULARITIES),
        persistent: mayPersist && !decisions.chance("passing", 1, 4),
        disabled: decisions.chance("disabled", 1, 5),
      };
    }
    if (kind !== "merge") return { ...place, kind };
    const count = decisions.choose("sources", 3);
    const sources = Array.from({ length: count }, () => this.#place("source", false));
    return { ...place, kind, sources };
  }

  #newSize(): BitmapAction {
    const { simulation, resizable } = this.#options;
    if (resizable === undefined) return { kind: "pause" };
    const { node, unit, capacity } = resizable;
    const units = 1 + simulation.decisions.choose("new size", capacity / unit);
    return { kind: "resize", node, size: units * unit };
  }

  async #resize(size: number): Promise<void> {
    const { ledger, resizable, simulation } = this.#options;
    if (resizable === undefined) return;
    const { node, disk, oracle, capacity } = resizable;
    if (size < disk.size) simulation.sometimes("a disk became shorter");
    const cut = oracle.begin("zeroes", size, capacity - size);
    let succeeded = false;
    try {
      await disk.truncate(size);
      succeeded = true;
    } finally {
      oracle.end(cut, succeeded);
      ledger.disk(node).resized();
    }
  }

  /** Usually a bitmap that is there; any name for a new one. */
  #place(tag: string, isNew: boolean): { readonly node: string; readonly name: string } {
    const { simulation, ledger, nodes } = this.#options;
    const { decisions } = simulation;
    const { all } = ledger;
    const isThere = (node: string, name: string): boolean => ledger.find(node, name) !== undefined;
    const places = isNew
      ? nodes.flatMap((node) => NAMES.map((name) => ({ node, name })))
      : all.map(({ node, name }) => ({ node, name }));
    const choices = places.filter(({ node, name }) => isThere(node, name) !== isNew);
    const isAny = decisions.chance(`any ${tag}`, 1, 12);
    const place = isAny ? undefined : choices[decisions.choose(tag, Math.max(1, choices.length))];
    return (
      place ?? { node: decisions.among(`${tag} node`, nodes), name: decisions.among(tag, NAMES) }
    );
  }
}

function refusal(): BlockError {
  return new BlockError("ECANCELED", "a step was refused");
}

function fits(error: BlockError | undefined, expected: ErrorCodes): boolean {
  return error === undefined ? expected.length === 0 : expected.includes(error.code);
}

function isOfDisk(error: BlockError | undefined): boolean {
  return error?.code === "EIO" || error?.code === "ENOSPC";
}

async function failureOf(work: () => Promise<void>): Promise<BlockError | undefined> {
  try {
    await work();
    return undefined;
  } catch (error) {
    if (error instanceof BlockError) return error;
    throw error;
  }
}

function describe(actions: readonly BitmapAction[]): string {
  return actions
    .map((action) => ("name" in action ? `${action.kind} ${action.name}` : action.kind))
    .join(", ");
}
