import {
  type BlockChild,
  type BlockDriver,
  type BlockLimits,
  type BlockStatus,
  type ChainStatusOptions,
  type CheckOptions,
  type CheckResult,
  type DriverFlags,
  type ImageInfo,
  type Permission,
  type PermissionSet,
  type RequestOptions,
  type RoleMask,
  rejected,
  type StatusOptions,
  type TruncateOptions,
} from "@blocklayer/driver";
import type { BlockNode } from "./block-node.ts";
import { noMedium } from "./io/request-checks.ts";
import type { OperationBlock } from "./op-blockers.ts";
import type { EdgeParent } from "./parent.ts";

const NO_FLAGS: DriverFlags = { read: 0, write: 0, zeroes: 0, truncateZero: false };

/**
 * The only door to a node. Carries what its parent may do there and what it lets others do, and the requests
 * themselves: each is handed to the request path of the node it leads to.
 *
 * Only the graph's own steps change where an edge leads and what it may do.
 */
export class Edge implements BlockChild {
  readonly parent: EdgeParent;
  readonly name: string;
  readonly role: RoleMask;
  /** The node it leads to. Changed by graph steps only. */
  node: BlockNode;
  /** What the parent may do. Changed by permission updates only. */
  perm: Permission;
  /** What the parent lets others do. */
  shared: Permission;
  /** Number of holds that keep the edge from being re-pointed. */
  frozenCount: number = 0;
  /** `false` before the edge is linked and after it was detached; requests are then refused. */
  isAttached: boolean = false;
  /** How many drained sections of the child the parent was told of through this edge. */
  quiesceCount: number = 0;
  /** How many subtree sections of the parent the child was told of through this edge. */
  subtreeCount: number = 0;
  /** What a root edge gave up when its node became inactive, and gets back. */
  givenUp: PermissionSet | undefined = undefined;
  /** What a backing node may not be used for while this edge leads to it. */
  backingBlock: OperationBlock | undefined = undefined;

  constructor(
    parent: EdgeParent,
    name: string,
    role: RoleMask,
    node: BlockNode,
    permissions: { readonly perm: Permission; readonly shared: Permission },
  ) {
    this.parent = parent;
    this.name = name;
    this.role = role;
    this.node = node;
    this.perm = permissions.perm;
    this.shared = permissions.shared;
  }

  get nodeName(): string {
    return this.node.name;
  }

  get driverName(): string {
    return this.node.driverName;
  }

  get size(): number {
    return this.node.size;
  }

  get limits(): BlockLimits {
    return this.node.limits;
  }

  /** None once the edge was detached: what it led to may stand above its parent by now, and would ask it in turn. */
  get flags(): DriverFlags {
    return this.isAttached ? this.node.driver.flags : NO_FLAGS;
  }

  get zeroes(): BlockDriver["zeroes"] {
    // Whoever tries learns that the edge leads nowhere.
    return this.isAttached ? this.node.driver.zeroes : "native";
  }

  get isFrozen(): boolean {
    return this.frozenCount > 0;
  }

  pread(offset: number, buffer: Uint8Array, options?: RequestOptions): Promise<void> {
    return this.node.io.pread(this, offset, buffer, options);
  }

  pwrite(offset: number, buffer: Uint8Array, options?: RequestOptions): Promise<void> {
    return this.node.io.pwrite(this, offset, buffer, options);
  }

  pwritev(offset: number, buffers: readonly Uint8Array[], options?: RequestOptions): Promise<void> {
    return this.node.io.pwritev(this, offset, buffers, options);
  }

  pwriteZeroes(offset: number, length: number, options?: RequestOptions): Promise<void> {
    return this.node.io.pwriteZeroes(this, offset, length, options);
  }

  pdiscard(offset: number, length: number, options?: RequestOptions): Promise<void> {
    return this.node.io.pdiscard(this, offset, length, options);
  }

  flush(options?: RequestOptions): Promise<void> {
    return this.node.io.flush(this, options);
  }

  blockStatus(offset: number, length: number, options?: StatusOptions): Promise<BlockStatus> {
    return this.#ask(() => this.node.io.blockStatus(offset, length, options));
  }

  chainStatus(
    offset: number,
    length: number,
    options?: ChainStatusOptions,
  ): Promise<BlockStatus & { readonly depth: number }> {
    return this.#ask(() => this.node.io.chainStatus(offset, length, options));
  }

  truncate(size: number, options?: TruncateOptions): Promise<void> {
    return this.node.io.truncate(this, size, options);
  }

  makeEmpty(options?: RequestOptions): Promise<void> {
    return this.node.io.makeEmpty(this, options);
  }

  copyRangeFrom(
    offset: number,
    target: BlockChild,
    targetOffset: number,
    length: number,
    options?: RequestOptions,
  ): Promise<void> {
    return this.node.io.copyRangeFrom(this, offset, target, targetOffset, length, options);
  }

  copyRangeTo(
    source: BlockDriver,
    sourceOffset: number,
    offset: number,
    length: number,
    options?: RequestOptions,
  ): Promise<void> {
    return this.node.io.copyRangeTo(this, source, sourceOffset, offset, length, options);
  }

  getInfo(): Promise<ImageInfo> {
    return this.#ask(() => this.node.io.getInfo());
  }

  check(options?: CheckOptions): Promise<CheckResult> {
    return this.#ask(() => this.node.io.check(options));
  }

  allocatedSize(): Promise<number | undefined> {
    return this.#ask(() => this.node.io.allocatedSize());
  }

  freeSpace(): Promise<number | undefined> {
    return this.#ask(() => this.node.io.freeSpace());
  }

  /** A question, which only an edge that leads somewhere may ask; for requests the node's request path sees to it. */
  #ask<T>(question: () => Promise<T>): Promise<T> {
    return this.isAttached ? question() : rejected(noMedium(this.node));
  }
}
