import type { PermissionSet } from "@blocklayer/driver";
import { Role } from "@blocklayer/driver";
import type { BlockNode } from "./block-node.ts";
import { checkDepth } from "./depth.ts";
import { settleQuiesce } from "./drain.ts";
import type { GraphCore } from "./graph-core.ts";
import type { LinkChange } from "./links.ts";
import { ALLOWED_ON_BACKING } from "./op-blockers.ts";
import { type PermissionPlan, planPermissions, samePermissions } from "./permission-update.ts";

/** A change of links and permissions that happens in one turn. */
export interface SwitchOver {
  /**
   * Changes links (by `core.links`) and what permissions depend on. May be called several times, each time
   * on the graph as it then is.
   *
   * @returns the nodes at which permissions are computed anew, beside those whose links changed
   */
  apply(): Iterable<BlockNode>;
  /** Takes back what `apply` changed beside links. */
  undo?(): void;
  /** Runs in the turn of the change, when nothing can fail any more. */
  commit?(): void;
  /** Only gives something up: what permissions say then is no reason to fail. */
  readonly isLoosening?: boolean;
  /**
   * Moves edges: a driver that can not get ready to give something up keeps it, which is no reason to refuse that
   * others move. A filter could not be taken away otherwise.
   */
  readonly movesEdges?: boolean;
}

/**
 * Makes a change as one instant, with the permissions that the final graph needs, or not at all.
 *
 * Drivers that have to get ready for new permissions are given the time, and the change is computed anew
 * afterwards, because the graph may be another one by then.
 *
 * @returns the nodes that lost a parent
 */
export async function switchOver(core: GraphCore, change: SwitchOver): Promise<BlockNode[]> {
  const waiting = core.permissions.lock();
  if (waiting !== undefined) await waiting;
  const ready = new Readiness(core, change);
  try {
    for (;;) {
      const attempt = attemptInTurn(core, change, ready);
      if (attempt.bereft !== undefined) return attempt.bereft;
      for (const { node, granted } of attempt.unprepared) await ready.prepare(node, granted);
    }
  } catch (error) {
    if (change.isLoosening !== true) throw error;
    core.log(`not all permissions are given up: ${String(error)}`);
    return giveUpInTurn(core, change, ready);
  } finally {
    ready.abort();
    core.permissions.unlock();
  }
}

/** Which drivers are ready for which permissions. */
class Readiness {
  readonly #core: GraphCore;
  readonly #change: SwitchOver;
  readonly #prepared = new Map<BlockNode, PermissionSet>();
  /** Could not get ready to give something up: they keep what they have, which is enough. */
  readonly #keeping = new Set<BlockNode>();

  constructor(core: GraphCore, change: SwitchOver) {
    this.#core = core;
    this.#change = change;
  }

  /** @throws what the driver reports, if it is to have more than it has */
  async prepare(node: BlockNode, granted: PermissionSet): Promise<void> {
    if (this.#prepared.delete(node)) node.driver.abortPermissions?.();
    try {
      await node.driver.preparePermissions?.(granted);
      this.#prepared.set(node, granted);
      this.#keeping.delete(node);
    } catch (error) {
      if (this.#change.movesEdges !== true || !covers(node.granted, granted)) throw error;
      this.#core.log(`node '${node.name}' does not give up permissions: ${String(error)}`);
      this.#keeping.add(node);
    }
  }

  isReady(node: BlockNode, granted: PermissionSet): boolean {
    if (!isOpen(node) || node.driver.preparePermissions === undefined) return true;
    if (samePermissions(this.#prepared.get(node), granted)) return true;
    return this.keeps(node) && covers(node.granted, granted);
  }

  keeps(node: BlockNode): boolean {
    return this.#keeping.has(node);
  }

  /** The driver has been told: nothing is left to be taken back. */
  forget(node: BlockNode): void {
    this.#prepared.delete(node);
  }

  abort(): void {
    for (const node of this.#prepared.keys()) node.driver.abortPermissions?.();
  }
}

/** Whether who has `held` may do all of `wanted`, and keeps others off no less. */
function covers(held: PermissionSet | undefined, wanted: PermissionSet): boolean {
  if (held === undefined) return false;
  return (wanted.perm & ~held.perm) === 0 && (held.shared & ~wanted.shared) === 0;
}

type Attempt =
  | { readonly bereft: BlockNode[] }
  | { readonly bereft: undefined; readonly unprepared: PermissionPlan["grants"] };

/** No `await` in here: either the change is complete when this returns, or nothing has changed. */
function attemptInTurn(core: GraphCore, change: SwitchOver, ready: Readiness): Attempt {
  let plan: PermissionPlan;
  try {
    const roots = change.apply();
    const affected = core.links.affectedNodes();
    checkDepth(affected);
    plan = planPermissions(new Set([...roots, ...affected]));
  } catch (error) {
    change.undo?.();
    core.links.rollback();
    throw error;
  }
  const unprepared = plan.grants.filter(({ node, granted }) => !ready.isReady(node, granted));
  if (unprepared.length > 0) {
    plan.undo();
    change.undo?.();
    core.links.rollback();
    return { bereft: undefined, unprepared };
  }
  grant(core, plan.grants, ready);
  change.commit?.();
  return { bereft: settleLinks(core) };
}

/** Drivers that could not get ready keep what they have: more than they need. */
function giveUpInTurn(core: GraphCore, change: SwitchOver, ready: Readiness): BlockNode[] {
  const roots = change.apply();
  try {
    const { grants } = planPermissions(new Set([...roots, ...core.links.affectedNodes()]));
    grant(
      core,
      grants.filter(({ node, granted }) => ready.isReady(node, granted)),
      ready,
    );
  } catch (error) {
    core.log(`permissions stay as they were: ${String(error)}`);
  }
  change.commit?.();
  return settleLinks(core);
}

/** Too late to fail: a driver that throws has been asked before, so it is logged and the others are told. */
function grant(core: GraphCore, grants: PermissionPlan["grants"], ready: Readiness): void {
  for (const { node, granted } of grants) {
    if (!isOpen(node) || ready.keeps(node)) continue;
    node.granted = granted;
    ready.forget(node);
    try {
      node.driver.setPermissions?.(granted);
    } catch (error) {
      core.log(`node '${node.name}': the driver did not take its permissions: ${String(error)}`);
    }
  }
}

function isOpen(node: BlockNode): boolean {
  return node.hasDriver && node.state !== "closed";
}

/** Tells everybody concerned what has changed, and adjusts what hangs on edges. */
function settleLinks(core: GraphCore): BlockNode[] {
  const changes = core.links.take();
  if (changes.length === 0) return [];
  for (const change of changes) settleBacking(change);
  for (const { edge, from, to } of changes) {
    if (to === undefined) {
      edge.perm = 0;
      continue;
    }
    if (edge.parent.kind === "node") (edge.parent as BlockNode).refresh();
    if (from !== undefined) edge.parent.nodeChanged?.(edge);
    if (from !== undefined && from.size !== to.size) edge.parent.resized?.(edge);
  }
  // Last, since a parent that is told to go on sends requests at once.
  settleQuiesce(changes, core);
  core.tell("changed", undefined);
  return changes.map(({ from }) => from).filter((node) => node !== undefined);
}

function settleBacking({ edge, to }: LinkChange): void {
  if ((edge.role & Role.cow) === 0 || edge.parent.kind !== "node") return;
  edge.backingBlock?.release();
  edge.backingBlock = to?.operations.addAll(
    `node is used as backing hd of '${(edge.parent as BlockNode).name}'`,
    ALLOWED_ON_BACKING,
  );
}
