import type { BlockNode, Graph, GraphExtension } from "@blocklayer/block-graph";
import { assert, BlockError } from "@blocklayer/errors";
import type { HBitmap } from "@blocklayer/hbitmap";
import { runTransaction, type TransactionStep } from "@blocklayer/jobs";
import { type BitmapInfo, bitmapInfo } from "./bitmap-info.ts";
import { prepareReadOnly, prepareWritable } from "./bitmap-reopen.ts";
import {
  bitmapBusy,
  bitmapExists,
  bitmapNotFound,
  checkBitCount,
  checkGranularity,
  checkNameLength,
  checkNotEmpty,
  defaultGranularity,
  notStorable,
} from "./bitmap-rules.ts";
import { AddStep, ClearStep, EnableStep, MergeStep, RemoveStep } from "./bitmap-steps.ts";
import { loadBitmaps, storeBitmaps } from "./bitmap-storage.ts";
import { DirtyBitmap } from "./dirty-bitmap.ts";
import { NodeBitmaps } from "./node-bitmaps.ts";

export interface AddOptions {
  /** Unique on its node, 1 to 1023 bytes in UTF-8. */
  readonly name: string;
  /** Bytes per bit: a power of two from 512 to 2 GiB. Default: the format's cluster size, from 4096 to 65536. */
  readonly granularity?: number | undefined;
  /** Whether the image keeps it when the node closes. Default `false`. */
  readonly persistent?: boolean | undefined;
  /** Whether it begins without recording. Default `false`. */
  readonly disabled?: boolean | undefined;
}

export interface AnonymousOptions {
  /** Bytes per bit, a power of two. */
  readonly granularity: number;
  /** Default `false`. */
  readonly disabled?: boolean;
}

/** A bitmap, or where to find it. */
export type BitmapReference = DirtyBitmap | { readonly node: string; readonly name: string };

/**
 * The dirty bitmaps of a graph's nodes.
 *
 * Made before the nodes are opened: it takes part in their opening and closing, where bitmaps are loaded and stored.
 *
 * Changes come in two forms, with the same effects and errors: at once (`add`, `remove`, `merge`, and the methods of
 * {@link DirtyBitmap}), and as steps of a transaction that takes effect completely or not at all. Transactions
 * over the same bitmaps are to be run one after the other.
 *
 * @see spec/dirty-bitmap.md
 */
export class BitmapManager implements Disposable {
  readonly #graph: Graph;
  readonly #homes = new Map<BlockNode, NodeBitmaps>();
  readonly #extension: Disposable;

  constructor(graph: Graph) {
    this.#graph = graph;
    this.#extension = graph.use(this.#nodeLife());
  }

  /**
   * Adds a named bitmap, all clean.
   *
   * @throws BlockError `ENOENT` no such node; `EINVAL` the name is empty or too long, or the granularity is not possible;
   *   `EEXIST`; `EFBIG` the node is too large for the granularity; `ENOTSUP` the image keeps no bitmaps, and whatever
   *   else it has against this one
   */
  async add(at: BlockNode | string, options: AddOptions): Promise<DirtyBitmap> {
    const { name, persistent = false, disabled = false } = options;
    checkNotEmpty(name);
    const node = typeof at === "string" ? this.#nodeToAddTo(at) : at;
    if (options.granularity !== undefined) checkGranularity(options.granularity);
    const granularity = options.granularity ?? (await defaultGranularity(node));
    this.#checkNew(node, name, granularity);
    if (persistent) {
      await checkStorable(node, name, granularity);
      // Somebody else may have added one of the name meanwhile.
      this.#checkNew(node, name, granularity);
    }
    const home = this.#home(node);
    const bitmap = new DirtyBitmap(home, { name, granularity, persistent, enabled: !disabled });
    home.add(bitmap);
    return bitmap;
  }

  /**
   * Adds a nameless bitmap: a job's own. To be given back by {@link BitmapManager.release}.
   *
   * @throws BlockError `EFBIG` the node is too large for the granularity
   */
  createAnonymous(node: BlockNode, options: AnonymousOptions): DirtyBitmap {
    const { granularity, disabled = false } = options;
    checkBitCount(node, node.size, granularity);
    const home = this.#home(node);
    const bitmap = new DirtyBitmap(home, { granularity, enabled: !disabled });
    home.add(bitmap);
    return bitmap;
  }

  /** Takes a bitmap away, whatever its name; the image is not told. Nobody may be using it. */
  release(bitmap: DirtyBitmap): void {
    this.homeOf(bitmap).release(bitmap);
  }

  /**
   * Removes a named bitmap, from the image too.
   *
   * @throws BlockError `ENOENT`; `EBUSY`, `EPERM` as {@link DirtyBitmap.check}; what the image reports: the bitmap stays
   */
  remove(node: BlockNode | string, name: string): Promise<void> {
    const nodeName = typeof node === "string" ? node : node.name;
    return runTransaction([this.removeStep({ node: nodeName, name })]);
  }

  /**
   * Makes dirty in `target` what is dirty in any of `sources`, or changes nothing.
   *
   * @throws BlockError `ENOENT`; `EINVAL` the sizes differ; `EBUSY`, `EPERM`, `EINVAL` as {@link DirtyBitmap.check}
   */
  merge(target: BitmapReference, sources: readonly BitmapReference[]): Promise<void> {
    return runTransaction([this.mergeStep(target, sources)]);
  }

  /** Returns the bitmap of that name, `undefined` if there is none. */
  find(node: BlockNode, name: string): DirtyBitmap | undefined {
    return this.#homes.get(node)?.find(name);
  }

  /** @throws BlockError `ENOENT` no such node, no such bitmap */
  lookup(nodeName: string, name: string): DirtyBitmap {
    const node = this.#graph.findNode(nodeName);
    if (node === undefined) {
      throw new BlockError("ENOENT", `Node '${nodeName}' not found`, { node: nodeName });
    }
    const bitmap = this.find(node, name);
    if (bitmap === undefined) throw bitmapNotFound(nodeName, name);
    return bitmap;
  }

  /** The bitmaps of a node, newest first, nameless ones too. */
  list(node: BlockNode): readonly DirtyBitmap[] {
    return this.#homes.get(node)?.list ?? [];
  }

  /** What the query of a node shows, newest first; a node without bitmaps has no such member. */
  query(node: BlockNode): BitmapInfo[] {
    return this.list(node).map(bitmapInfo);
  }

  /**
   * Finds the bitmap that an export is to show, and checks that it may.
   *
   * A plain name is looked for on the node and on those below it, through filters and backing files.
   *
   * @param options - `writable`: whether the export is
   * @throws BlockError `ENOENT`; `EBUSY`, `EINVAL` as {@link DirtyBitmap.check}; `EINVAL` the bitmap would change under
   *   the eyes of a client who cannot write
   * @see spec/dirty-bitmap.md section 9
   */
  forExport(
    node: BlockNode,
    reference: string | { readonly node: string; readonly name: string },
    options: { readonly writable: boolean },
  ): DirtyBitmap {
    const bitmap =
      typeof reference === "string"
        ? this.#findBelow(node, reference)
        : this.lookup(reference.node, reference.name);
    bitmap.check("allow-readonly");
    const changes = bitmap.enabled && !bitmap.node.readOnly && !options.writable;
    if (changes && typeof reference === "string") {
      const message = `Enabled bitmap '${reference}' incompatible with readonly export`;
      throw new BlockError("EINVAL", message, { node: node.name, bitmap: reference });
    }
    return bitmap;
  }

  /** Adds a bitmap; aborting removes it. */
  addStep(
    node: BlockNode | string,
    options: AddOptions,
  ): TransactionStep & { readonly bitmap: DirtyBitmap | undefined } {
    return new AddStep(this, node, options);
  }

  /** Removes a bitmap: from the image at once, from memory at the commit. Aborting stores it again at close. */
  removeStep(target: BitmapReference): TransactionStep {
    return new RemoveStep(this, target);
  }

  clearStep(target: BitmapReference): TransactionStep {
    return new ClearStep(this, target);
  }

  enableStep(target: BitmapReference): TransactionStep {
    return new EnableStep(this, target, true);
  }

  disableStep(target: BitmapReference): TransactionStep {
    return new EnableStep(this, target, false);
  }

  mergeStep(target: BitmapReference, sources: readonly BitmapReference[]): TransactionStep {
    return new MergeStep(this, target, sources);
  }

  /** Takes no part in the graph's life any more. Bitmaps of open nodes go on recording. */
  [Symbol.dispose](): void {
    this.#extension[Symbol.dispose]();
  }

  // What follows is for this package.

  /** @throws BlockError `ENOENT` */
  resolve(reference: BitmapReference): DirtyBitmap {
    if (!isBitmap(reference)) return this.lookup(reference.node, reference.name);
    if (reference.isReleased) throw bitmapNotFound(reference.node.name, reference.name ?? "");
    return reference;
  }

  /**
   * Looks again after a wait.
   *
   * @param bitmap - what the reference was resolved to before
   * @throws BlockError `ENOENT` it is gone; `EBUSY` another one has its name by now: somebody was using it meanwhile
   */
  resolveAgain(reference: BitmapReference, bitmap: DirtyBitmap): void {
    if (this.resolve(reference) !== bitmap) throw bitmapBusy(bitmap.node.name, bitmap.name ?? "");
  }

  homeOf(bitmap: DirtyBitmap): NodeBitmaps {
    const home = this.#homes.get(bitmap.node);
    assert(home?.list.includes(bitmap) === true, "the bitmap is one of this manager's");
    return home;
  }

  /** Records in `map` too what is recorded in `like`, whichever node it comes from. */
  recordLike(like: HBitmap, map: HBitmap): Disposable[] {
    const homes = [...this.#homes.values()].filter((home) => home.records(like));
    return homes.map((home) => home.alsoRecord(map));
  }

  /** The sources of a merge, each checked in its turn, and then the target. @throws BlockError */
  mergeSources(target: DirtyBitmap, references: readonly BitmapReference[]): DirtyBitmap[] {
    const sources = references.map((reference) => {
      const source = this.resolve(reference);
      checkMergeable(target, source);
      return source;
    });
    target.check("default");
    return sources;
  }

  #nodeLife(): GraphExtension {
    return {
      name: "dirty-bitmap",
      nodeOpened: (node) => this.#load(node),
      nodeClosing: (node) => this.#close(node),
      nodeInactivating: (node) => this.#inactivate(node),
      nodeActivated: (node, wasAway) => this.#activate(node, wasAway),
      nodeReopening: (node, readOnly) => {
        const home = this.#homes.get(node);
        if (home === undefined) return undefined;
        return readOnly ? prepareReadOnly(home) : prepareWritable(home);
      },
    };
  }

  async #load(node: BlockNode): Promise<void> {
    const storage = node.driver.persistentBitmaps;
    if (storage === undefined) return;
    try {
      await loadBitmaps(this.#home(node), storage, true);
    } catch (error) {
      this.#homes.delete(node);
      throw error;
    }
  }

  /** What is stored is in memory no more: somebody else may change it. */
  async #inactivate(node: BlockNode): Promise<void> {
    const home = this.#homes.get(node);
    if (home === undefined) return;
    try {
      await storeBitmaps(home);
    } finally {
      home.releaseStored();
    }
  }

  async #activate(node: BlockNode, wasAway: boolean): Promise<void> {
    const storage = node.driver.persistentBitmaps;
    if (storage !== undefined) await loadBitmaps(this.#home(node), storage, wasAway);
  }

  async #close(node: BlockNode): Promise<void> {
    const home = this.#homes.get(node);
    if (home === undefined) return;
    try {
      await storeBitmaps(home);
    } finally {
      home.releaseAll();
      this.#homes.delete(node);
    }
  }

  #home(node: BlockNode): NodeBitmaps {
    let home = this.#homes.get(node);
    if (home === undefined) {
      checkNotClosed(node);
      home = new NodeBitmaps(node);
      this.#homes.set(node, home);
    }
    return home;
  }

  #nodeToAddTo(name: string): BlockNode {
    const node = this.#graph.findNode(name);
    if (node !== undefined) return node;
    const message = `Cannot find device='${name}' nor node-name='${name}'`;
    throw new BlockError("ENOENT", message, { node: name });
  }

  #checkNew(node: BlockNode, name: string, granularity: number): void {
    if (this.find(node, name) !== undefined) throw bitmapExists(node, name);
    checkNameLength(name);
    checkNotClosed(node);
    checkBitCount(node, node.size, granularity);
  }

  #findBelow(node: BlockNode, name: string): DirtyBitmap {
    for (let at: BlockNode | undefined = node; at !== undefined; at = at.filterOrCowChild?.node) {
      const bitmap = this.find(at, name);
      if (bitmap !== undefined) return bitmap;
    }
    const context = { node: node.name, bitmap: name };
    throw new BlockError("ENOENT", `Bitmap '${name}' is not found`, context);
  }
}

function isBitmap(reference: BitmapReference): reference is DirtyBitmap {
  return typeof reference.node !== "string";
}

function checkNotClosed(node: BlockNode): void {
  if (node.state === "open" || node.state === "opening") return;
  throw new BlockError("ENOMEDIUM", `Node '${node.name}' is closed`, { node: node.name });
}

async function checkStorable(node: BlockNode, name: string, granularity: number): Promise<void> {
  const storage = node.driver.persistentBitmaps;
  if (storage === undefined) throw notStorable(node, name);
  try {
    await storage.canStore({ name, granularity, size: node.size });
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    const message = `Can't make bitmap '${name}' persistent in '${node.name}': ${error.message}`;
    const context = { ...error.context, node: node.name, bitmap: name };
    throw new BlockError(error.code, message, context, { cause: error });
  }
}

function checkMergeable(target: DirtyBitmap, source: DirtyBitmap): void {
  source.check("allow-readonly");
  if (source.size === target.size) return;
  const message = `Bitmaps are of different sizes (destination size is ${target.size}, source size is ${source.size}) and can't be merged`;
  throw new BlockError("EINVAL", message, { node: target.node.name, bitmap: target.name });
}
