import {
  type DriverDefinition,
  type FreezeHold,
  ImageReferencePolicy,
  type PermissionName,
  type PermissionSet,
  type RoleMask,
} from "@blocklayer/driver";
import type { Env } from "@blocklayer/env";
import { BlockError, type Emitter, toBlockError } from "@blocklayer/errors";
import type { TransactionStep } from "@blocklayer/jobs";
import { activateNodes, inactivateNodes } from "./activation.ts";
import { attachRoot, detachRoot, type RootOptions, setPermissions } from "./attach.ts";
import type { BackendFor, BackendOptions } from "./backend-handles.ts";
import { createBackend } from "./block-backend.ts";
import type { BlockNode } from "./block-node.ts";
import { type GraphStep, runChange } from "./change.ts";
import { type DrainHold, drainAll } from "./drain.ts";
import type { Edge } from "./edge.ts";
import type { GraphEvents, GraphExtension } from "./events.ts";
import { freezeChain } from "./freeze.ts";
import { deviceNotFound, GraphCore } from "./graph-core.ts";
import { closeAll, removeNode } from "./node-life.ts";
import type { NodeOptions, ReopenOptions } from "./node-options.ts";
import { openNode } from "./open-node.ts";
import type { EdgeParent } from "./parent.ts";
import { reopenNodes, setReadOnly } from "./reopen.ts";
import {
  append,
  attachChild,
  detachChild,
  dropFilter,
  type ReplaceNodeOptions,
  replaceChild,
  replaceNode,
  setBacking,
} from "./surgery.ts";

export interface GraphOptions<Drivers extends readonly DriverDefinition[]> {
  readonly env: Env;
  /** The drivers that options may name. */
  readonly drivers: Drivers;
  /** Decides about names found inside images. Default: deny. */
  readonly policy?: ImageReferencePolicy;
  /** Gets lines for people. Default: they are dropped. */
  readonly log?: (line: string) => void;
}

export interface OpenOptions {
  /** Decides about names found inside this node's images. Default: the graph's. */
  readonly policy?: ImageReferencePolicy;
}

/**
 * All nodes of a process and the edges between them.
 *
 * | to | use |
 * | --- | --- |
 * | open and close nodes | `open`, `remove`, `insertNode`, `close` |
 * | find them | `node`, `findNode`, `nodes` |
 * | read and write | `createBackend` |
 * | hold a node as a job or an export | `attachRoot`, `detachRoot`, `setPermissions` |
 * | move edges | `change` with steps: `replaceNode`, `append`, `dropFilter`, `setBacking`, … |
 * | change options | `reopen`, `setReadOnly` |
 * | stop everything for a moment | `drainAll`; `drain` of a node |
 *
 * `Drivers` decides only which options `open`, `insertNode` and `reopen` take; a `Graph` of any drivers is a `Graph`.
 *
 * @see spec/graph.md; docs/design.md section 4 for the rules of surgery in an event loop
 */
export class Graph<Drivers extends readonly DriverDefinition[] = readonly DriverDefinition[]>
  implements AsyncDisposable
{
  readonly env: Env;
  /** What the parts of this package share; not for users. */
  readonly core: GraphCore;

  constructor(options: GraphOptions<Drivers>) {
    this.env = options.env;
    this.core = new GraphCore(
      options.env,
      options.drivers,
      options.policy ?? ImageReferencePolicy.deny,
      options.log ?? (() => undefined),
    );
  }

  get events(): Emitter<GraphEvents> {
    return this.core.events;
  }

  /**
   * Opens a node and the nodes defined inside its options. Everything is parsed and validated before anything
   * is opened; if anything fails, everything opened on the way is closed again.
   *
   * The caller owns the node until {@link Graph.remove}.
   *
   * @throws BlockError `EINVAL` options are wrong; `EEXIST` a node name is taken; `ENOENT` a name refers to no
   *   node; `EFBIG` the disk is larger than this library counts; whatever the driver reports
   */
  open<Known extends readonly DriverDefinition[] = Drivers>(
    options: NoInfer<NodeOptions<Known>>,
    { policy }: OpenOptions = {},
  ): Promise<BlockNode> {
    return openNode(this, options, policy ?? this.core.policy);
  }

  /** @throws BlockError `ENOENT` no node has the name */
  node(name: string): BlockNode {
    return this.core.node(name, deviceNotFound);
  }

  findNode(name: string): BlockNode | undefined {
    return this.core.nodes.get(name);
  }

  /** The open nodes, in the order in which they were opened. */
  nodes(): BlockNode[] {
    return [...this.core.nodes.values()];
  }

  /**
   * Gives up the ownership that {@link Graph.open} gave, and closes the node and those children that nobody
   * else holds.
   *
   * @throws BlockError `ENOENT`; `EBUSY` somebody uses the node. Whatever closing reported: the node is gone then
   */
  remove(name: string): Promise<void> {
    return removeNode(this.core, name);
  }

  /**
   * Returns a handle to read and write a node, with the methods that its permissions allow.
   *
   * @throws BlockError `EPERM` the permissions conflict with those of others; `ENOENT`
   */
  createBackend<const Perm extends PermissionName>(
    options: BackendOptions<Perm>,
  ): Promise<BackendFor<Perm>> {
    return createBackend(this, options);
  }

  /**
   * Lets a job, an export, or another parent that is not a node hold a node.
   *
   * @throws BlockError `EPERM` the permissions conflict with those of others
   */
  attachRoot(parent: EdgeParent, node: BlockNode, options: RootOptions): Promise<Edge> {
    return attachRoot(this.core, parent, node, options);
  }

  /** Takes back {@link Graph.attachRoot}. @throws what closing the node reported, if nobody else held it */
  detachRoot(edge: Edge): Promise<void> {
    return detachRoot(this.core, edge);
  }

  /** Changes what a root edge takes and shares. Loosening never fails. @throws BlockError `EPERM` */
  setPermissions(edge: Edge, permissions: PermissionSet): Promise<void> {
    return setPermissions(this.core, edge, permissions);
  }

  /**
   * Carries out steps as one change, in one instant, or not at all.
   *
   * Waits for other changes; drains what the steps touch; prepares them; then moves the edges, computes the
   * permissions of the final graph, and commits, in one turn. Not to be awaited from within a request to one of
   * the nodes, nor from a `prepare`.
   *
   * @throws BlockError the first error of a step or of the permissions: nothing has changed
   * @throws AggregateError all was committed, but something could not be finished
   */
  change(steps: readonly (GraphStep | TransactionStep)[]): Promise<void> {
    return runChange(this.core, steps);
  }

  replaceNode(from: BlockNode, to: BlockNode, options?: ReplaceNodeOptions): GraphStep {
    return replaceNode(from, to, options);
  }

  append(top: BlockNode, node: BlockNode): GraphStep {
    return append(top, node);
  }

  dropFilter(filter: BlockNode): GraphStep {
    return dropFilter(filter);
  }

  setBacking(node: BlockNode, backing: BlockNode | undefined): GraphStep {
    return setBacking(node, backing);
  }

  replaceChild(edge: Edge, node: BlockNode): GraphStep {
    return replaceChild(edge, node);
  }

  attachChild(parent: BlockNode, name: string, role: RoleMask, node: BlockNode): GraphStep {
    return attachChild(parent, name, role, node);
  }

  detachChild(edge: Edge): GraphStep {
    return detachChild(edge);
  }

  /**
   * Opens a node whose options refer to `at`, and gives it to the parents of `at`.
   *
   * @throws BlockError whatever failed; the new node is closed again
   */
  async insertNode<Known extends readonly DriverDefinition[] = Drivers>(
    options: NoInfer<NodeOptions<Known>>,
    at: BlockNode,
  ): Promise<BlockNode> {
    let node: BlockNode;
    try {
      node = await this.open<Known>(options);
    } catch (error) {
      throw prefixed("Could not create node", error);
    }
    try {
      await this.change([this.replaceNode(at, node)]);
    } catch (error) {
      // What closing it reports is announced by `closeFailed`; the caller learns why it was closed.
      await this.remove(node.name).catch((reason: unknown) => this.core.log(String(reason)));
      throw prefixed("Could not replace node", error);
    }
    return node;
  }

  /** Keeps the links of a chain where they are. @throws BlockError `EPERM` a link is frozen already */
  freezeChain(top: BlockNode, base?: BlockNode): FreezeHold {
    return freezeChain(top, base);
  }

  /**
   * Gives nodes new options, all of them or none. Each entry is the full set of options of a node: what it does
   * not say returns to its default.
   *
   * @throws BlockError `EINVAL` an option cannot be changed; `EPERM` users of the node need what it would lose
   * @see spec/graph.md section 8
   */
  reopen<Known extends readonly DriverDefinition[] = Drivers>(
    list: readonly NoInfer<ReopenOptions<Known>>[],
  ): Promise<void> {
    return reopenNodes(this.core, list);
  }

  /** Makes a node read-only or writable and leaves its other options. @throws as {@link Graph.reopen} */
  setReadOnly(node: BlockNode, readOnly: boolean): Promise<void> {
    return setReadOnly(this.core, node, readOnly);
  }

  /** Hands the nodes over to another process: they write everything back and write no more. @throws BlockError `EPERM` */
  inactivate(): Promise<void> {
    return inactivateNodes(this.core);
  }

  /** Takes the nodes back. */
  activate(): Promise<void> {
    return activateNodes(this.core);
  }

  /** Resolves when nothing is in flight anywhere; nodes opened meanwhile are drained too. */
  drainAll(): Promise<DrainHold> {
    return drainAll(this.core);
  }

  /** Adds an extension. It is told of all turning points from now on; nodes that are open already open no more. */
  use(extension: GraphExtension): Disposable {
    this.core.extensions.add(extension);
    return { [Symbol.dispose]: () => void this.core.extensions.delete(extension) };
  }

  /**
   * Closes all nodes that are owned by their openers. Jobs, exports and backends have to be gone before.
   *
   * @throws BlockError `EBUSY` somebody still uses a node; nothing was closed
   */
  close(): Promise<void> {
    return closeAll(this.core);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

function prefixed(prefix: string, error: unknown): BlockError {
  const { code, message, context, errorClass } = toBlockError(error, "failed");
  return new BlockError(code, `${prefix}: ${message}`, context, { cause: error, errorClass });
}
