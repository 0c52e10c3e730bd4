import {
  ALL_PERMISSIONS,
  type BlockLimits,
  type ChainStatusOptions,
  completed,
  DEFAULT_LIMITS,
  type Permission,
  type PermissionName,
  Permissions,
  permissionMask,
  permissionNames,
  RequestFlag,
  type RequestOptions,
  rejected,
  type TruncateOptions,
} from "@blocklayer/driver";
import { BlockError, Emitter } from "@blocklayer/errors";
import type {
  BackendEvents,
  BackendFor,
  BackendOptions,
  ResizableBackend,
} from "./backend-handles.ts";
import { BackendQueue } from "./backend-queue.ts";
import type { BlockNode } from "./block-node.ts";
import type { Edge } from "./edge.ts";
import type { Graph } from "./graph.ts";
import type { ChainStatus } from "./io/block-status.ts";
import { InFlightCounter } from "./io/in-flight.ts";
import type { EdgeParent } from "./parent.ts";

/** What a backend needs of its graph. */
export type BackendGraph = Pick<Graph, "env" | "core" | "node" | "attachRoot" | "detachRoot">;

/**
 * Attaches a backend to a node. Its type follows from the permissions: without `"write"` it has no `write`.
 *
 * @throws BlockError `EPERM` another parent does not share a permission; `EEXIST` the name is taken
 */
export async function createBackend<const Perm extends PermissionName>(
  graph: BackendGraph,
  options: BackendOptions<Perm>,
): Promise<BackendFor<Perm>> {
  const node = typeof options.node === "string" ? graph.node(options.node) : options.node;
  const claim = options.name === undefined ? undefined : graph.core.claimDeviceName(options.name);
  try {
    const backend = new BlockBackend(graph, options, claim);
    const perm = permissionMask(options.perm);
    const shared = options.shared === undefined ? ALL_PERMISSIONS : permissionMask(options.shared);
    backend.bind(await graph.attachRoot(backend, node, { name: "root", perm, shared }));
    return backend as unknown as BackendFor<Perm>;
  } catch (error) {
    claim?.[Symbol.dispose]();
    throw error;
  }
}

/**
 * The handle of a user of a disk: checked requests to one node.
 *
 * While the node is drained, new requests wait in a queue and are not in flight; they start in order when the last
 * drained section ends. A request that completes within its call returns the promise `completed`.
 *
 * @see spec/graph.md sections 5.1 and 7.3
 */
export class BlockBackend implements ResizableBackend, EdgeParent {
  readonly kind = "backend";
  readonly name: string | undefined;
  readonly events: Emitter<BackendEvents> = new Emitter();
  readonly #graph: BackendGraph;
  readonly #allowBeyondEnd: boolean;
  readonly #queueWhenDrained: boolean;
  readonly #nameClaim: Disposable | undefined;
  readonly #inFlight: InFlightCounter;
  readonly #queue: BackendQueue;
  #edge: Edge | undefined;
  #quiesceCount = 0;
  #closing: Promise<void> | undefined;

  /** For the graph; users call `Graph.createBackend`. */
  constructor(
    graph: BackendGraph,
    options: BackendOptions<PermissionName>,
    nameClaim?: Disposable,
  ) {
    this.name = options.name;
    this.#graph = graph;
    this.#allowBeyondEnd = options.allowBeyondEnd ?? false;
    this.#queueWhenDrained = options.queueWhenDrained ?? true;
    this.#nameClaim = nameClaim;
    this.#inFlight = new InFlightCounter(graph.env);
    this.#queue = new BackendQueue(graph.env, () => this.#quiesceCount === 0);
  }

  /** For the graph: gives the backend its edge, or takes it away with the node. */
  bind(edge: Edge | undefined): void {
    this.#edge = edge;
  }

  get edge(): Edge | undefined {
    return this.#edge;
  }

  get node(): BlockNode | undefined {
    return this.#edge?.node;
  }

  get size(): number {
    return this.#edge?.node.size ?? 0;
  }

  get limits(): BlockLimits {
    return this.#edge?.node.limits ?? DEFAULT_LIMITS;
  }

  get perm(): readonly PermissionName[] {
    return permissionNames(this.#edge?.perm ?? 0);
  }

  get inFlight(): number {
    return this.#inFlight.inFlight;
  }

  get isDrained(): boolean {
    return this.#quiesceCount > 0;
  }

  describe(): string {
    return this.name === undefined ? "an unnamed block device" : `block device '${this.name}'`;
  }

  read(offset: number, buffer: Uint8Array, options?: RequestOptions): Promise<void> {
    const edge = this.#edge;
    if (
      edge !== undefined &&
      buffer instanceof Uint8Array &&
      this.#isOpen() &&
      this.#isInside(edge, offset, buffer.length)
    ) {
      this.#inFlight.enter();
      return this.#finish(edge.node.io.pread(edge, offset, buffer, options));
    }
    return this.#submit(options?.signal, (attached) => {
      checkBuffer("read", buffer);
      this.#check(attached, "read", offset, buffer.length);
      return attached.pread(offset, buffer, options);
    });
  }

  write(offset: number, buffer: Uint8Array, options?: RequestOptions): Promise<void> {
    const edge = this.#edge;
    if (
      edge !== undefined &&
      (edge.perm & Permissions.write) !== 0 &&
      buffer instanceof Uint8Array &&
      this.#isOpen() &&
      this.#isInside(edge, offset, buffer.length)
    ) {
      this.#inFlight.enter();
      return this.#finish(edge.node.io.pwrite(edge, offset, buffer, options));
    }
    return this.#submit(options?.signal, (attached) => {
      checkBuffer("write", buffer);
      this.#checkChange(attached, "write", offset, buffer.length, options?.flags);
      return attached.pwrite(offset, buffer, options);
    });
  }

  writev(offset: number, buffers: readonly Uint8Array[], options?: RequestOptions): Promise<void> {
    return this.#submit(options?.signal, (edge) => {
      let length = 0;
      for (const buffer of buffers) {
        checkBuffer("writev", buffer);
        length += buffer.length;
      }
      this.#checkChange(edge, "write", offset, length, options?.flags);
      return edge.pwritev(offset, buffers, options);
    });
  }

  writeZeroes(offset: number, length: number, options?: RequestOptions): Promise<void> {
    return this.#submit(options?.signal, (edge) => {
      this.#checkChange(edge, "writeZeroes", offset, length, options?.flags);
      return edge.pwriteZeroes(offset, length, options);
    });
  }

  discard(offset: number, length: number, options?: RequestOptions): Promise<void> {
    return this.#submit(options?.signal, (edge) => {
      this.#checkChange(edge, "discard", offset, length, options?.flags);
      return edge.pdiscard(offset, length, options);
    });
  }

  flush(options?: RequestOptions): Promise<void> {
    return this.#submit(options?.signal, (edge) => edge.flush(options));
  }

  truncate(size: number, options?: TruncateOptions): Promise<void> {
    return this.#submit(options?.signal, (edge) => {
      checkInteger(size);
      this.#checkPermission(edge, "truncate", Permissions.resize);
      return edge.truncate(size, options);
    });
  }

  copyRange(
    offset: number,
    target: Edge,
    targetOffset: number,
    length: number,
    options?: RequestOptions,
  ): Promise<void> {
    return this.#submit(options?.signal, (edge) => {
      checkInteger(targetOffset);
      this.#check(edge, "copyRange", offset, length);
      return edge.copyRangeFrom(offset, target, targetOffset, length, options);
    });
  }

  blockStatus(offset: number, length: number, options?: ChainStatusOptions): Promise<ChainStatus> {
    return this.#submit(options?.signal, (edge) => {
      this.#check(edge, "blockStatus", offset, length);
      return edge.chainStatus(offset, length, options);
    });
  }

  onResize(listener: (size: number) => void): Disposable {
    return this.events.on("resized", ({ size }) => listener(size));
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  drainedBegin(): void {
    this.#quiesceCount += 1;
    if (this.#quiesceCount === 1) this.#tell("drained", undefined);
  }

  drainedEnd(): void {
    this.#quiesceCount -= 1;
    if (this.#quiesceCount > 0) return;
    this.#queue.restart();
    this.#tell("undrained", undefined);
  }

  drainedPoll(): Promise<void> | undefined {
    return this.#inFlight.idle();
  }

  resized(edge: Edge): void {
    this.#tell("resized", { size: edge.node.size });
  }

  nodeChanged(edge: Edge): void {
    this.#tell("nodeChanged", { node: edge.node.name });
  }

  async #close(): Promise<void> {
    this.#queue.rejectAll(() => this.#noMedium());
    for (let idle = this.#inFlight.idle(); idle !== undefined; idle = this.#inFlight.idle()) {
      await idle;
    }
    const edge = this.#edge;
    this.#edge = undefined;
    try {
      if (edge?.isAttached === true) await this.#graph.detachRoot(edge);
    } finally {
      this.#nameClaim?.[Symbol.dispose]();
    }
  }

  /** Tells listeners. The graph calls in the middle of its changes, so one that throws is logged. */
  #tell<Name extends keyof BackendEvents>(name: Name, value: BackendEvents[Name]): void {
    try {
      this.events.emit(name, value);
    } catch (error) {
      this.#graph.core.log(`${this.describe()}: a listener of '${name}' failed: ${String(error)}`);
    }
  }

  /** Whether a request may start now instead of waiting in the queue. */
  #isOpen(): boolean {
    if (this.#closing !== undefined) return false;
    return !this.#queueWhenDrained || (this.#quiesceCount === 0 && this.#queue.length === 0);
  }

  #isInside(edge: Edge, offset: number, length: number): boolean {
    return Number.isSafeInteger(offset) && offset >= 0 && offset + length <= edge.node.size;
  }

  #finish(promise: Promise<void>): Promise<void> {
    if (promise === completed) {
      this.#inFlight.leave();
      return completed;
    }
    return promise.then(this.#left, this.#failed);
  }

  readonly #left = (): void => this.#inFlight.leave();

  readonly #failed = (error: unknown): never => {
    this.#inFlight.leave();
    throw error;
  };

  #submit<T>(signal: AbortSignal | undefined, work: (edge: Edge) => Promise<T>): Promise<T> {
    if (signal?.aborted === true) return rejected(signal.reason);
    const start = (): Promise<T> => this.#inFlight.counted(() => this.#run(work));
    if (this.#closing !== undefined || this.#edge === undefined || this.#isOpen()) return start();
    return this.#queue.add(start, signal);
  }

  async #run<T>(work: (edge: Edge) => Promise<T>): Promise<T> {
    const edge = this.#edge;
    if (edge !== undefined && this.#closing === undefined) return work(edge);
    // A request that finds no node is in flight as any other: who drains the backend waits for it.
    await completed;
    throw this.#noMedium();
  }

  #noMedium(): BlockError {
    return new BlockError("ENOMEDIUM", "No medium found", { device: this.name });
  }

  #check(edge: Edge, operation: string, offset: number, length: number): void {
    checkInteger(offset);
    checkInteger(length);
    const { name, size } = edge.node;
    if (offset >= 0 && length >= 0 && (this.#allowBeyondEnd || offset + length <= size)) return;
    const message = `${operation} of ${length} bytes at ${offset} is outside of the ${size} bytes of the device`;
    throw new BlockError("EIO", message, { node: name, operation, offset, length, size });
  }

  #checkChange(edge: Edge, operation: string, offset: number, length: number, flags = 0): void {
    this.#check(edge, operation, offset, length);
    const keepsContent = (flags & RequestFlag.writeUnchanged) !== 0;
    const enough = Permissions.write | (keepsContent ? Permissions.writeUnchanged : 0);
    this.#checkPermission(edge, operation, enough);
  }

  #checkPermission(edge: Edge, operation: string, enough: Permission): void {
    if ((edge.perm & enough) !== 0) return;
    const { readOnly, name } = edge.node;
    const message = readOnly
      ? "Block node is read-only"
      : `${this.describe()} was opened without the permission for ${operation}`;
    throw new BlockError("EPERM", message, { node: name, operation });
  }
}

/** Offsets come from plain JavaScript too, where a bigint prints like a number. */
function checkInteger(value: number): void {
  if (!Number.isSafeInteger(value)) {
    throw new RangeError(`${String(value)} (${typeof value}) is not an integer number of bytes`);
  }
}

/** Other arrays have a length too, and would store or return wrong bytes without a word. */
function checkBuffer(operation: string, buffer: unknown): void {
  if (buffer instanceof Uint8Array) return;
  const kind = buffer === null ? "null" : (buffer?.constructor?.name ?? typeof buffer);
  throw new TypeError(`${operation}: the buffer is a ${kind}, a Uint8Array is needed`);
}
