import {
  type BlockChild,
  type BlockDriver,
  type BlockStatus,
  type ChainStatusOptions,
  type CheckOptions,
  type CheckResult,
  completed,
  type ImageInfo,
  MAX_REQUEST,
  Permissions,
  RequestFlag,
  type RequestOptions,
  rejected,
  type StatusOptions,
  type TruncateOptions,
} from "@blocklayer/driver";
import { assert } from "@blocklayer/errors";
import { filterChild, primaryChild } from "../chain.ts";
import type { Edge } from "../edge.ts";
import { type ChainStatus, chainStatus, layerStatus } from "./block-status.ts";
import { copyRangeFrom, copyRangeTo } from "./copy-range-path.ts";
import { discardRange } from "./discard-path.ts";
import { flushNode } from "./flush-path.ts";
import { allocatedSize, checkImage, freeSpace, imageInfo } from "./image-queries.ts";
import { Payload } from "./payload.ts";
import { readRange } from "./read-path.ts";
import { noMedium } from "./request-checks.ts";
import { RequestState } from "./request-state.ts";
import { makeNodeEmpty, truncateNode } from "./truncate-path.ts";
import { writeRange, zeroRange } from "./write-path.ts";

/**
 * The request path of one node: everything that is the same for every driver happens here, once.
 *
 * Reads and writes have a fast form for what almost all of them are: aligned, inside the node, within its limits, with
 * nobody to wait for. It calls the driver, and when the driver is done within the call (it returned the very promise
 * `completed`) there was no allocation and no other turn. Only a request that stays pending is tracked; that happens in
 * the turn of the call, so whoever comes later finds it. Everything else takes the general form, in the `*-path.ts` files.
 *
 * @see spec/graph.md section 7; docs/design.md section 4
 */
export class NodeIo extends RequestState {
  /** Fast requests whose driver is being called this moment: they are not tracked yet. */
  #onStack = 0;

  pread(edge: Edge, offset: number, buffer: Uint8Array, options?: RequestOptions): Promise<void> {
    const { length } = buffer;
    if (
      (options !== undefined && !saysNothing(options)) ||
      this.copyOnReadCount !== 0 ||
      !edge.isAttached ||
      !this.#isPlain(offset, length)
    ) {
      return this.#attached(edge, () => readRange(this, offset, buffer, options));
    }
    const { driver } = this.node;
    let promise: Promise<void>;
    this.enter();
    this.#onStack += 1;
    try {
      promise = driver.pread(offset, buffer, options);
    } catch (error) {
      promise = rejected(error);
    }
    this.#onStack -= 1;
    if (promise === completed) {
      this.leave();
      return completed;
    }
    return this.#trackRead(promise, offset, length);
  }

  pwrite(edge: Edge, offset: number, buffer: Uint8Array, options?: RequestOptions): Promise<void> {
    if (!this.#isPlainWrite(edge, offset, buffer.length, options)) {
      return this.#attached(edge, () =>
        writeRange(this, edge, offset, new Payload([buffer]), options),
      );
    }
    return this.#writeFast(offset, buffer.length, buffer, options);
  }

  pwritev(
    edge: Edge,
    offset: number,
    buffers: readonly Uint8Array[],
    options?: RequestOptions,
  ): Promise<void> {
    const [first] = buffers;
    if (buffers.length === 1 && first !== undefined)
      return this.pwrite(edge, offset, first, options);
    let length = 0;
    for (const buffer of buffers) length += buffer.length;
    if (
      this.node.driver.pwritev === undefined ||
      !this.#isPlainWrite(edge, offset, length, options)
    ) {
      return this.#attached(edge, () =>
        writeRange(this, edge, offset, new Payload(buffers), options),
      );
    }
    return this.#writeFast(offset, length, buffers, options);
  }

  pwriteZeroes(
    edge: Edge,
    offset: number,
    length: number,
    options?: RequestOptions,
  ): Promise<void> {
    return this.#attached(edge, () => zeroRange(this, edge, offset, length, options));
  }

  pdiscard(edge: Edge, offset: number, length: number, options?: RequestOptions): Promise<void> {
    return this.#attached(edge, () => discardRange(this, edge, offset, length, options));
  }

  /**
   * Makes stable what was written before the flush started. Without an edge it is the graph's own.
   *
   * @throws BlockError whatever the driver or a child reports; the next flush asks them again
   */
  flush(edge?: Edge, options?: RequestOptions): Promise<void> {
    return this.#attached(edge, async () => {
      options?.signal?.throwIfAborted();
      await flushNode(this);
    });
  }

  truncate(edge: Edge, size: number, options?: TruncateOptions): Promise<void> {
    return this.#attached(edge, () => truncateNode(this, edge, size, options));
  }

  makeEmpty(edge: Edge, options?: RequestOptions): Promise<void> {
    return this.#attached(edge, () => makeNodeEmpty(this, edge, options));
  }

  copyRangeFrom(
    edge: Edge,
    offset: number,
    target: BlockChild,
    targetOffset: number,
    length: number,
    options?: RequestOptions,
  ): Promise<void> {
    const range = { offset, otherOffset: targetOffset, length };
    return this.#attached(edge, () => copyRangeFrom(this, target, range, options));
  }

  copyRangeTo(
    edge: Edge,
    source: BlockDriver,
    sourceOffset: number,
    offset: number,
    length: number,
    options?: RequestOptions,
  ): Promise<void> {
    const range = { offset, otherOffset: sourceOffset, length };
    return this.#attached(edge, () => copyRangeTo(this, edge, source, range, options));
  }

  /** The status of this node's own layer. */
  blockStatus(offset: number, length: number, options?: StatusOptions): Promise<BlockStatus> {
    return layerStatus(this.node, offset, length, options);
  }

  /** The status over the chain that starts here. */
  chainStatus(offset: number, length: number, options?: ChainStatusOptions): Promise<ChainStatus> {
    return this.counted(() => chainStatus(this.node, offset, length, options));
  }

  /** @throws BlockError `ENOTSUP` the driver has nothing to tell */
  getInfo(): Promise<ImageInfo> {
    return this.counted(() => imageInfo(this.node));
  }

  /** @throws BlockError `ENOTSUP` the format has no check */
  check(options?: CheckOptions): Promise<CheckResult> {
    return this.counted(() => checkImage(this.node, options));
  }

  /** Bytes occupied in storage, `undefined` where unknown. */
  allocatedSize(): Promise<number | undefined> {
    return this.counted(() => allocatedSize(this.node));
  }

  /** Bytes by which the storage below may still grow, `undefined` where unknown. */
  freeSpace(): Promise<number | undefined> {
    return this.counted(() => freeSpace(this.node));
  }

  /** Makes requests fail that wait for something that may never come; a driver without a way asks its primary child. */
  cancelInFlight(): void {
    const { driver } = this.node;
    if (driver.cancelInFlight !== undefined) driver.cancelInFlight();
    else (filterChild(this.node) ?? primaryChild(this.node))?.node.io.cancelInFlight();
  }

  /**
   * Lets fast requests whose driver is being called this moment be tracked. A request that is about to serialise could
   * not find them, were it started from within such a call.
   */
  unwindStack(): Promise<void> | undefined {
    return this.#onStack === 0 ? undefined : Promise.resolve();
  }

  /** Aligned, not empty, inside the node, short enough, and nobody serialises. */
  #isPlain(offset: number, length: number): boolean {
    const { limits, size } = this.node;
    const { requestAlignment, maxTransfer } = limits;
    return (
      this.tracker.serialisingCount === 0 &&
      offset >= 0 &&
      length > 0 &&
      offset + length <= size &&
      length <= (maxTransfer === 0 ? MAX_REQUEST : maxTransfer) &&
      Math.floor(offset / requestAlignment) * requestAlignment === offset &&
      Math.floor(length / requestAlignment) * requestAlignment === length
    );
  }

  #isPlainWrite(
    edge: Edge,
    offset: number,
    length: number,
    options: RequestOptions | undefined,
  ): boolean {
    const { node } = this;
    return (
      (options === undefined || saysNothing(options) || this.#isNativeFua(options)) &&
      (edge.perm & Permissions.write) !== 0 &&
      edge.isAttached &&
      node.active &&
      !node.readOnly &&
      node.options.detectZeroes === "off" &&
      node.driver.pwrite !== undefined &&
      this.#isPlain(offset, length)
    );
  }

  /** `fua` alone, which the driver does itself. */
  #isNativeFua({ flags, signal }: RequestOptions): boolean {
    const { fua } = RequestFlag;
    return flags === fua && signal?.aborted !== true && (this.node.driver.flags.write & fua) !== 0;
  }

  #writeFast(
    offset: number,
    length: number,
    data: Uint8Array | readonly Uint8Array[],
    options: RequestOptions | undefined,
  ): Promise<void> {
    const { observers } = this.node;
    const flags = options?.flags ?? 0;
    this.enter();
    this.#onStack += 1;
    if (observers.length > 0) {
      const held = this.#announce(offset, length, flags);
      if (held !== undefined) {
        this.#onStack -= 1;
        const issue = (): Promise<void> => this.#callDriver(offset, data, options);
        return this.#writeWhenAgreed(held, issue, offset, length, flags);
      }
    }
    const promise = this.#callDriver(offset, data, options);
    this.#onStack -= 1;
    if (promise !== completed) return this.#trackWrite(promise, offset, length, flags);
    try {
      this.changed("write", offset, length, flags, undefined);
    } catch (error) {
      return rejected(error);
    } finally {
      this.leave();
    }
    return completed;
  }

  #announce(offset: number, length: number, flags: number): Promise<void> | undefined {
    try {
      return this.announcer.before(this.node.observers, "write", offset, length, flags);
    } catch (error) {
      return rejected(error);
    }
  }

  #callDriver(
    offset: number,
    data: Uint8Array | readonly Uint8Array[],
    options: RequestOptions | undefined,
  ): Promise<void> {
    const { driver } = this.node;
    try {
      const promise = Array.isArray(data)
        ? driver.pwritev?.(offset, data, options)
        : driver.pwrite?.(offset, data as Uint8Array, options);
      assert(promise !== undefined, "a fast write has a driver that writes");
      return promise;
    } catch (error) {
      return rejected(error);
    }
  }

  #trackRead(promise: Promise<void>, offset: number, length: number): Promise<void> {
    const request = this.tracker.begin("read", offset, length);
    return promise.then(
      () => {
        this.tracker.end(request);
        this.leave();
      },
      (error: unknown) => {
        this.tracker.end(request);
        this.leave();
        throw error;
      },
    );
  }

  #trackWrite(
    promise: Promise<void>,
    offset: number,
    length: number,
    flags: number,
  ): Promise<void> {
    const request = this.tracker.begin("write", offset, length);
    const done = (error: unknown): void => {
      try {
        this.changed("write", offset, length, flags, error);
      } finally {
        this.tracker.end(request);
        this.leave();
      }
    };
    return promise.then(
      () => done(undefined),
      (error: unknown) => {
        done(error);
        throw error;
      },
    );
  }

  async #writeWhenAgreed(
    held: Promise<void>,
    issue: () => Promise<void>,
    offset: number,
    length: number,
    flags: number,
  ): Promise<void> {
    const request = this.tracker.begin("write", offset, length);
    try {
      await held;
      try {
        await issue();
      } catch (error) {
        this.changed("write", offset, length, flags, error);
        throw error;
      }
      this.changed("write", offset, length, flags, undefined);
    } finally {
      this.tracker.end(request);
      this.leave();
    }
  }

  /** Counts a request that comes through an edge, which has to lead here. */
  #attached(edge: Edge | undefined, work: () => Promise<void>): Promise<void> {
    if (edge !== undefined && !edge.isAttached) return rejected(noMedium(this.node));
    return this.counted(work);
  }
}

/** Whether a request goes the way of one without options; its signal is the driver's to heed. */
function saysNothing({ flags, signal }: RequestOptions): boolean {
  return (flags === undefined || flags === 0) && signal?.aborted !== true;
}
