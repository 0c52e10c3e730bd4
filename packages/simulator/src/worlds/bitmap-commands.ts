import type { Graph } from "@blocklayer/block-graph";
import type { BitmapManager, BitmapReference } from "@blocklayer/dirty-bitmap";
import type { TransactionStep } from "@blocklayer/jobs";
import type { BitmapLedger, Held } from "./bitmap-ledger.ts";

interface Place {
  readonly node: string;
  readonly name: string;
}

interface AddAction extends Place {
  readonly kind: "add";
  readonly granularity: number;
  readonly persistent: boolean;
  readonly disabled: boolean;
}

interface MergeAction extends Place {
  readonly kind: "merge";
  readonly sources: readonly Place[];
}

interface SimpleAction extends Place {
  readonly kind: "remove" | "clear" | "enable" | "disable";
}

interface ResizeAction {
  readonly kind: "resize";
  readonly node: string;
  /** Bytes. */
  readonly size: number;
}

/** What a user can want of bitmaps. */
export type PlacedAction = AddAction | MergeAction | SimpleAction;

/** Also another length of the disk, a step that takes its time, and one that fails. */
export type BitmapAction =
  | PlacedAction
  | ResizeAction
  | { readonly kind: "pause" }
  | { readonly kind: "refuse" };

/** What an action may fail with; none: it has to succeed. */
export type ErrorCodes = readonly string[];

/** A bitmap as actions see it that come after others. */
interface Sight {
  readonly size: number;
  readonly isBusy: boolean;
  readonly isReadonly: boolean;
  readonly isInconsistent: boolean;
}

const NOTHING: ErrorCodes = [];

/** Says how actions that are carried out one after the other, all or none, have to end. */
export class BitmapForesight {
  readonly #sights = new Map<string, Sight>();
  readonly #ledger: BitmapLedger;

  constructor(ledger: BitmapLedger) {
    this.#ledger = ledger;
    for (const held of ledger.all) {
      const { isBusy, isReadonly, isInconsistent } = held;
      const { size } = held.model.disk;
      this.#sights.set(key(held), { size, isBusy, isReadonly, isInconsistent });
    }
  }

  /** @see spec/dirty-bitmap.md sections 3 to 6 */
  after(actions: readonly BitmapAction[]): ErrorCodes {
    for (const action of actions) {
      const codes = this.#act(action);
      if (codes.length > 0) return codes;
    }
    return NOTHING;
  }

  #act(action: BitmapAction): ErrorCodes {
    switch (action.kind) {
      case "pause":
        return NOTHING;
      case "refuse":
        return ["ECANCELED"];
      case "resize": {
        const sights = [...this.#sights].filter(([at]) => at.startsWith(`${action.node}/`));
        return sights.some(([, { isBusy }]) => isBusy) ? ["EBUSY"] : NOTHING;
      }
      case "add":
        return this.#add(action);
      case "remove": {
        const codes = this.#check(action, "remove");
        const sight = this.#sights.get(key(action));
        // It is in use by its removal.
        if (sight !== undefined) this.#sights.set(key(action), { ...sight, isBusy: true });
        return codes;
      }
      case "clear":
        return this.#check(action, "default");
      case "enable":
      case "disable":
        return this.#check(action, "allow-readonly");
      case "merge":
        return this.#merge(action);
    }
  }

  #add(place: Place): ErrorCodes {
    if (this.#sights.has(key(place))) return ["EEXIST"];
    const { size } = this.#ledger.disk(place.node);
    const isBusy = false;
    this.#sights.set(key(place), { size, isBusy, isReadonly: false, isInconsistent: false });
    return NOTHING;
  }

  #merge(action: MergeAction): ErrorCodes {
    const codes = [...this.#check(action, "default")];
    const size = this.#sights.get(key(action))?.size;
    for (const source of action.sources) {
      codes.push(...this.#check(source, "allow-readonly"));
      const other = this.#sights.get(key(source))?.size;
      if (size !== undefined && other !== undefined && size !== other) codes.push("EINVAL");
    }
    return codes;
  }

  #check(place: Place, use: "default" | "allow-readonly" | "remove"): ErrorCodes {
    const sight = this.#sights.get(key(place));
    if (sight === undefined) return ["ENOENT"];
    if (sight.isBusy) return ["EBUSY"];
    if (sight.isReadonly && use !== "allow-readonly") return ["EPERM"];
    if (sight.isInconsistent && use !== "remove") return ["EINVAL"];
    return NOTHING;
  }
}

/** What commands act on. */
export interface BitmapScene {
  readonly graph: Graph;
  readonly bitmaps: BitmapManager;
  readonly ledger: BitmapLedger;
}

/** Carries out in the ledger what a transaction has done. */
export function applyAction({ ledger, bitmaps, graph }: BitmapScene, action: BitmapAction): void {
  if (!isPlaced(action)) return;
  if (action.kind === "add") {
    const bitmap = bitmaps.find(graph.node(action.node), action.name);
    // A later action may have removed it already.
    if (bitmap !== undefined) ledger.hold(bitmap, !action.disabled, action.persistent);
    return;
  }
  const held = ledger.find(action.node, action.name);
  if (held !== undefined) changeHeld(ledger, held, action);
}

function changeHeld(ledger: BitmapLedger, held: Held, action: SimpleAction | MergeAction): void {
  switch (action.kind) {
    case "remove":
      ledger.drop(held);
      break;
    case "clear":
      held.model.clear();
      break;
    case "enable":
      held.isSwitchedInPassing = held.isReadonly;
      held.model.start();
      break;
    case "disable":
      held.model.stop();
      break;
    case "merge":
      for (const source of action.sources) {
        const other = ledger.find(source.node, source.name);
        if (other !== undefined) held.model.include(other.model);
      }
      break;
  }
}

/** The bitmaps that actions are about, those that are only read too. */
export function concerned(ledger: BitmapLedger, actions: readonly BitmapAction[]): Held[] {
  const places = actions.flatMap((action): readonly Place[] => {
    if (action.kind === "resize") return ledger.all.filter(({ node }) => node === action.node);
    if (!isPlaced(action)) return [];
    return action.kind === "merge" ? [action, ...action.sources] : [action];
  });
  return places.flatMap(({ node, name }) => ledger.find(node, name) ?? []);
}

/** The step of a transaction that does it. */
export function stepOf(manager: BitmapManager, action: PlacedAction): TransactionStep {
  const place: BitmapReference = { node: action.node, name: action.name };
  switch (action.kind) {
    case "add":
      return manager.addStep(action.node, action);
    case "remove":
      return manager.removeStep(place);
    case "clear":
      return manager.clearStep(place);
    case "enable":
      return manager.enableStep(place);
    case "disable":
      return manager.disableStep(place);
    case "merge":
      return manager.mergeStep(place, action.sources);
  }
}

/** Whether it is about one bitmap. */
export function isPlaced(action: BitmapAction): action is PlacedAction {
  return "name" in action;
}

function key({ node, name }: Place): string {
  return `${node}/${name}`;
}
