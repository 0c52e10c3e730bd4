import type {
  BlockDriver,
  BlockLimits,
  DriverDefinition,
  GenericNodeOptions,
  PermissionSet,
  WriteObserver,
} from "@blocklayer/driver";
import { DEFAULT_LIMITS, mergeLimits, Role } from "@blocklayer/driver";
import { BlockError } from "@blocklayer/errors";
import {
  backingChainNext,
  cowChild,
  filterChild,
  filterOrCowChild,
  primaryChild,
} from "./chain.ts";
import { beginDrain, type DrainHold, drain, drainSubtree } from "./drain.ts";
import type { Edge } from "./edge.ts";
import type { Graph } from "./graph.ts";
import { NodeIo } from "./io/node-io.ts";
import { releaseOrphans } from "./node-life.ts";
import type { NodeSpec } from "./node-spec.ts";
import { type BlockOperation, type OperationBlock, OperationBlocks } from "./op-blockers.ts";
import type { EdgeParent } from "./parent.ts";

/** `opening`: only its host knows it. `closing`: nobody can become its parent any more. */
export type NodeState = "opening" | "open" | "closing" | "closed";

/** A claim that keeps a node open; see `BlockNode.use`. */
export interface NodeUse {
  readonly name: string;
  /** Gives the claim up, and closes the node if it was the last. @throws whatever closing reported */
  release(): Promise<void>;
}

/**
 * One node of the graph: a driver, its edges up and down, and the request path.
 *
 * Made by `Graph.open`. It lives until its last owner has gone: the user (until `Graph.remove`), the edges of
 * its parents, and uses by name.
 *
 * @see spec/graph.md section 1
 */
export class BlockNode implements EdgeParent {
  readonly kind = "node";
  readonly graph: Graph;
  readonly name: string;
  readonly definition: DriverDefinition;
  /** Set when the definition's `open` has resolved; the node is not visible before. */
  driver!: BlockDriver;
  /** Bytes; what the graph believes the driver's size to be. Changed by {@link BlockNode.setSize}. */
  size = 0;
  limits: BlockLimits = DEFAULT_LIMITS;
  /** The generic options as they are now. Changed by reopen. */
  options: GenericNodeOptions;
  /** What the node was opened, or reopened, with. */
  spec: NodeSpec;
  state: NodeState = "opening";
  /** The edges that lead here. */
  readonly parents: Set<Edge> = new Set();
  /** The edges that lead down, by name. */
  readonly children: Map<string, Edge> = new Map();
  /** Watchers of content changes, in the order in which they were added. Replaced, never changed in place. */
  observers: readonly WriteObserver[] = [];
  /** The request path. */
  readonly io: NodeIo;
  /** What management commands are kept away. */
  readonly operations: OperationBlocks;
  /** `false` after inactivation. */
  active: boolean = true;
  /** Opened by a package for its own ends, not by name; walking "explicit" chains skips such filters. */
  isImplicit: boolean = false;
  /** No chain may be frozen through it: a job's filter that has to move by itself. */
  neverFreeze: boolean = false;
  /** The node whose options defined this one inline; its reopen reaches here. */
  inheritsFrom: BlockNode | undefined = undefined;

  /** How many drained sections the node is in. Changed by `drain.ts` only. */
  quiesceCount = 0;
  /** How many of them reach everything below. Changed by `drain.ts` only. */
  subtreeCount = 0;
  /** Whether the driver was told to be quiet, and is. */
  isDriverQuiet: boolean = false;
  /** Set while the driver becomes quiet. */
  driverEntering: Promise<void> | undefined = undefined;
  /** The permissions the driver was told last. */
  granted: PermissionSet | undefined = undefined;
  /** Set within the turn of a reopen that takes writing away. */
  isBecomingReadOnly: boolean = false;
  /** Whether the user who opened the node still owns it. */
  isOwned: boolean = false;
  /** Claims that keep the node open. */
  readonly uses: Set<NodeUse> = new Set();
  /** Changes under way that are about this node. */
  changeCount = 0;

  constructor(graph: Graph, spec: NodeSpec) {
    this.graph = graph;
    this.name = spec.name;
    this.definition = spec.definition;
    this.options = spec.generic;
    this.spec = spec;
    this.quiesceCount = graph.core.drainAllCount;
    this.operations = new OperationBlocks(this);
    this.io = new NodeIo(this);
  }

  get driverName(): string {
    return this.definition.driverName;
  }

  get readOnly(): boolean {
    return this.options.readOnly;
  }

  /** Whether the driver is there: `false` while it opens. */
  get hasDriver(): boolean {
    return (this.driver as BlockDriver | undefined) !== undefined;
  }

  /** Whether the node is inside a drained section: then nobody may send requests. */
  get isDrained(): boolean {
    return this.quiesceCount > 0;
  }

  get filterChild(): Edge | undefined {
    return filterChild(this);
  }

  get cowChild(): Edge | undefined {
    return cowChild(this);
  }

  get filterOrCowChild(): Edge | undefined {
    return filterOrCowChild(this);
  }

  get primaryChild(): Edge | undefined {
    return primaryChild(this);
  }

  /** The next layer down that stores data of its own. */
  get backing(): BlockNode | undefined {
    return backingChainNext(this);
  }

  describe(): string {
    return `node '${this.name}'`;
  }

  /**
   * Resolves inside a drained section: nothing is in flight at the node, and its parents issue nothing until
   * the hold ends. Sections nest.
   *
   * Not to be awaited from within one of the node's own requests: it would wait for itself.
   *
   * @see spec/graph.md section 5.1
   */
  drain(): Promise<DrainHold> {
    return drain(this);
  }

  /** Begins a drained section without waiting for the requests in flight. */
  beginDrain(): DrainHold {
    return beginDrain(this);
  }

  /** The same as {@link BlockNode.drain} for the node and everything below it, now and while it lasts. */
  drainSubtree(): Promise<DrainHold> {
    return drainSubtree(this);
  }

  /** Adds a watcher of content changes; disposing removes it. */
  addObserver(observer: WriteObserver): Disposable {
    this.observers = [...this.observers, observer];
    let isAdded = true;
    return {
      [Symbol.dispose]: () => {
        if (!isAdded) return;
        isAdded = false;
        // One observer may watch twice: only one of its entries goes.
        const index = this.observers.lastIndexOf(observer);
        this.observers = this.observers.toSpliced(index, 1);
      },
    };
  }

  /** Closes the node to one management command until the block is disposed. */
  blockOperation(operation: BlockOperation, reason: string): OperationBlock {
    return this.operations.add([operation], reason);
  }

  /** Closes the node to all management commands but some. */
  blockAllOperations(reason: string, except: readonly BlockOperation[] = []): OperationBlock {
    return this.operations.addAll(reason, except);
  }

  /** @throws BlockError `EBUSY` the node is closed to the command; the message says why */
  checkOperation(operation: BlockOperation): void {
    this.operations.check(operation);
  }

  /** Counts as in flight until disposed, so that drain and close wait for it. */
  holdInFlight(): Disposable {
    return this.io.hold();
  }

  /** Keeps the node open, under a name that says for what. */
  use(name: string): NodeUse {
    const use: NodeUse = {
      name,
      release: async () => {
        if (!this.uses.delete(use)) return;
        const [fault] = await releaseOrphans([this]);
        if (fault !== undefined) throw fault;
      },
    };
    this.uses.add(use);
    return use;
  }

  /**
   * Takes note of a new length: tells the observers and the parents.
   *
   * @param newSize - bytes
   */
  setSize(newSize: number): void {
    const oldSize = this.size;
    if (newSize === oldSize) return;
    this.size = newSize;
    for (const observer of this.observers) observer.resized?.({ oldSize, newSize });
    for (const edge of [...this.parents]) edge.parent.resized?.(edge);
  }

  /** A child has another length: the driver may show another one too. */
  resized(): void {
    this.refresh();
  }

  /** Reads the driver's size and limits again, and so does everything above. */
  refresh(): void {
    if (!this.hasDriver) return;
    this.refreshLimits();
    this.setSize(this.driver.size);
  }

  /**
   * Computes the limits anew from the children's and the driver's own.
   *
   * @throws BlockError `EINVAL` the driver's own contradict each other
   */
  refreshLimits(): void {
    const own = this.driver.limits;
    checkLimits(this, own);
    const inherited = [...this.children.values()]
      .filter(({ role }) => (role & (Role.data | Role.filtered | Role.cow)) !== 0)
      .map((edge) => edge.limits);
    const merged = mergeLimits(inherited, own);
    if (sameLimits(merged, this.limits)) return;
    this.limits = merged;
    for (const edge of this.parents) {
      if (edge.parent.kind === "node") (edge.parent as BlockNode).refresh();
    }
  }
}

/**
 * Limits may come from the options of a node, so that they are wrong is no defect.
 *
 * @param own - what the driver says, or will say
 * @throws BlockError `EINVAL` it takes less than a block at a time: no request could be split so far
 */
export function checkLimits(node: BlockNode, own: Partial<BlockLimits> = {}): void {
  const { maxTransfer, requestAlignment } = { ...DEFAULT_LIMITS, ...own };
  if (maxTransfer === 0 || maxTransfer >= requestAlignment) return;
  const { name, driverName } = node;
  throw new BlockError(
    "EINVAL",
    `Node '${name}': driver '${driverName}' takes ${maxTransfer} bytes at a time, less than its request alignment of ${requestAlignment}`,
    { node: name, driver: driverName, maxTransfer, requestAlignment },
  );
}

function sameLimits(left: BlockLimits, right: BlockLimits): boolean {
  return (Object.keys(left) as (keyof BlockLimits)[]).every((name) => left[name] === right[name]);
}
