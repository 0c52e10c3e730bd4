import {
  type BlockDriver,
  type BlockLimits,
  type BlockStatus,
  completed,
  type DriverDefinition,
  type DriverFlags,
  defineDriver,
  type RequestOptions,
  rejected,
  type StatusOptions,
  type TruncateOptions,
} from "@blocklayer/driver";
import { settleTurn } from "@blocklayer/env";
import { BlockError } from "@blocklayer/errors";
import { object, type Schema, size } from "@blocklayer/schema";
import { expect } from "./expect.ts";
import { ReferenceDisk, type ReferenceDiskOptions } from "./reference-disk.ts";

/** The operations that a script can hold and let fail. */
export type ScriptedOperation =
  | "pread"
  | "pwrite"
  | "pwriteZeroes"
  | "pdiscard"
  | "flush"
  | "blockStatus"
  | "truncate";

/** A request as the script sees it. */
export interface ScriptedRequest {
  /** Its place in the log, from 0. */
  readonly index: number;
  readonly operation: ScriptedOperation;
  /** Bytes; the new size for `truncate`, 0 for `flush`. */
  readonly offset: number;
  /** Bytes. */
  readonly length: number;
  /** `RequestFlag` bits. */
  readonly flags: number;
  readonly signal: AbortSignal | undefined;
  readonly state: "held" | "done" | "failed";
}

export interface ScriptedDriverOptions extends ReferenceDiskOptions {
  /** Whether requests wait for the script from the beginning. Default `false`. */
  readonly hold?: boolean;
  /** When requests that nobody holds complete. Default `"same-turn"`. */
  readonly completion?: "same-turn" | "later-turn";
}

interface Entry extends ScriptedRequest {
  state: "held" | "done" | "failed";
  go?(error?: unknown): void;
}

interface Failure {
  readonly operation: ScriptedOperation;
  readonly error: unknown;
  readonly persistent: boolean;
  countdown: number;
}

interface Waiter {
  readonly matches: (request: ScriptedRequest) => boolean;
  resolve(request: ScriptedRequest): void;
}

/**
 * A disk whose requests complete in the order that the test says.
 *
 * A request that is held waits for `release` or `fail`; only then is it carried out, so a buffer that its owner
 * changes too early shows in the content. Requests that are not held complete within the call or in a later turn.
 * Abort signals are recorded and not obeyed, as by a disk that can not take a request back.
 */
export class ScriptedDriver implements BlockDriver {
  readonly driverName: string = "x-blocklayer-scripted";
  readonly zeroes = "native";
  /** Every request since open, in the order in which they came. */
  readonly log: readonly ScriptedRequest[];
  completion: "same-turn" | "later-turn";
  readonly #disk: ReferenceDisk;
  readonly #entries: Entry[] = [];
  #failures: Failure[] = [];
  #waiters: Waiter[] = [];
  #holding: ReadonlySet<ScriptedOperation> | "all" | "none";

  constructor(options: ScriptedDriverOptions) {
    this.#disk = new ReferenceDisk(options);
    this.log = this.#entries;
    this.completion = options.completion ?? "same-turn";
    this.#holding = options.hold === true ? "all" : "none";
  }

  get size(): number {
    return this.#disk.size;
  }

  get limits(): BlockLimits {
    return this.#disk.limits;
  }

  get flags(): DriverFlags {
    return this.#disk.flags;
  }

  /** The content, to look at and to set up. */
  get bytes(): Uint8Array {
    return this.#disk.bytes;
  }

  /** The requests that wait, oldest first. */
  get held(): readonly ScriptedRequest[] {
    return this.#entries.filter(({ state }) => state === "held");
  }

  /** Holds the requests that come from here on: all, or those of some operations. */
  hold(...operations: ScriptedOperation[]): void {
    this.#holding = operations.length === 0 ? "all" : new Set(operations);
  }

  /** Holds none of those that come. Those that wait go on waiting. */
  unhold(): void {
    this.#holding = "none";
  }

  /** Carries a held request out and completes it. @param index - its place in the log; default the oldest held */
  release(index: number = this.#oldestHeld()): void {
    this.#settle(index, undefined);
  }

  /** Releases all that wait, oldest first, and holds no more. */
  releaseAll(): void {
    this.unhold();
    for (const { index } of this.held) this.release(index);
  }

  /**
   * Makes a held request fail; nothing of it is carried out.
   *
   * @param index - its place in the log
   * @param error - an error, or an errno name
   */
  fail(index: number, error: unknown = "EIO"): void {
    this.#settle(index, this.#errorOf(error));
  }

  /**
   * Makes the `nth` request of an operation that comes from now on fail, without being held.
   *
   * @param nth - from 1
   * @param error - an error, or an errno name
   */
  failNth(
    operation: ScriptedOperation,
    nth = 1,
    error: unknown = "EIO",
    options: { readonly persistent?: boolean } = {},
  ): void {
    this.#failures.push({
      operation,
      error: this.#errorOf(error),
      persistent: options.persistent ?? false,
      countdown: nth,
    });
  }

  /** Forgets failures that were set and have not happened. */
  clearFailures(): void {
    this.#failures = [];
  }

  /** Resolves to the first request in the log, now or later, that matches; default: is held. */
  waitFor(
    matches: (request: ScriptedRequest) => boolean = ({ state }) => state === "held",
  ): Promise<ScriptedRequest> {
    const found = this.#entries.find(matches);
    if (found !== undefined) return Promise.resolve(found);
    return new Promise((resolve) => {
      this.#waiters.push({ matches, resolve });
    });
  }

  pread(offset: number, buffer: Uint8Array, options?: RequestOptions): Promise<void> {
    return this.#request("pread", offset, buffer.length, options, () =>
      this.#disk.pread(offset, buffer),
    );
  }

  pwrite(offset: number, buffer: Uint8Array, options?: RequestOptions): Promise<void> {
    return this.#request("pwrite", offset, buffer.length, options, () =>
      this.#disk.pwrite(offset, buffer),
    );
  }

  pwriteZeroes(offset: number, length: number, options?: RequestOptions): Promise<void> {
    return this.#request("pwriteZeroes", offset, length, options, () =>
      this.#disk.pwriteZeroes(offset, length),
    );
  }

  pdiscard(offset: number, length: number, options?: RequestOptions): Promise<void> {
    return this.#request("pdiscard", offset, length, options, () =>
      this.#disk.pdiscard(offset, length),
    );
  }

  flushToDisk(options?: RequestOptions): Promise<void> {
    return this.#request("flush", 0, 0, options, () => this.#disk.flushToDisk());
  }

  async blockStatus(offset: number, length: number, options?: StatusOptions): Promise<BlockStatus> {
    await this.#request("blockStatus", offset, length, options, () => completed);
    return this.#disk.blockStatus(offset, length);
  }

  truncate(newSize: number, options?: TruncateOptions): Promise<void> {
    return this.#request("truncate", newSize, 0, options, () =>
      this.#disk.truncate(newSize, options),
    );
  }

  close(): Promise<void> {
    return this.#disk.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #request(
    operation: ScriptedOperation,
    offset: number,
    length: number,
    options: { readonly flags?: number; readonly signal?: AbortSignal } | undefined,
    run: () => Promise<void>,
  ): Promise<void> {
    const entry: Entry = {
      index: this.#entries.length,
      operation,
      offset,
      length,
      flags: options?.flags ?? 0,
      signal: options?.signal,
      state: "held",
    };
    this.#entries.push(entry);
    const failure = this.#takeFailure(operation);
    const isHeld = failure === undefined && this.#holds(operation);
    const work = isHeld ? holdEntry(entry, run) : this.#runNow(entry, failure, run);
    this.#tell(entry);
    return work;
  }

  #runNow(entry: Entry, failure: Failure | undefined, run: () => Promise<void>): Promise<void> {
    entry.state = failure === undefined ? "done" : "failed";
    if (this.completion === "later-turn") {
      return settleTurn().then(() => (failure === undefined ? run() : rejected(failure.error)));
    }
    return failure === undefined ? run() : rejected(failure.error);
  }

  #tell(entry: Entry): void {
    const waiters = this.#waiters;
    this.#waiters = waiters.filter(({ matches }) => !matches(entry));
    for (const { matches, resolve } of waiters) if (matches(entry)) resolve(entry);
  }

  #settle(index: number, error: unknown): void {
    const entry = this.#entries[index];
    expect(entry?.go !== undefined && entry.state === "held", `request ${index} is not held`);
    entry.state = error === undefined ? "done" : "failed";
    entry.go(error);
  }

  #oldestHeld(): number {
    return this.#entries.findIndex(({ state }) => state === "held");
  }

  #holds(operation: ScriptedOperation): boolean {
    if (typeof this.#holding === "string") return this.#holding === "all";
    return this.#holding.has(operation);
  }

  #takeFailure(operation: ScriptedOperation): Failure | undefined {
    let chosen: Failure | undefined;
    for (const failure of this.#failures) {
      if (failure.operation !== operation) continue;
      failure.countdown -= 1;
      if (failure.countdown > 0) continue;
      if (failure.countdown === 0 || failure.persistent) chosen ??= failure;
    }
    return chosen;
  }

  #errorOf(error: unknown): unknown {
    return typeof error === "string"
      ? new BlockError(error, `the script let the request fail with ${error}`)
      : error;
  }
}

function holdEntry(entry: Entry, run: () => Promise<void>): Promise<void> {
  return new Promise((resolve, reject) => {
    entry.go = (error) => {
      if (error !== undefined) reject(error);
      else resolve(run());
    };
  });
}

/** Options of the driver `x-blocklayer-scripted`. */
export interface ScriptedNodeOptions {
  /** Bytes. */
  readonly size: number;
}

/** A definition that remembers what it opened. */
export interface ScriptedDefinition
  extends DriverDefinition<"x-blocklayer-scripted", ScriptedNodeOptions, never> {
  /**
   * The driver that was opened last for a node.
   *
   * @throws ConformanceError no node of that name was opened
   */
  instance(nodeName: string): ScriptedDriver;
}

const schema: Schema<ScriptedNodeOptions> = object({ size: size() });

/**
 * Returns {@link ScriptedDriver} for a graph, under the driver name `x-blocklayer-scripted`. Make one per test:
 * it remembers its drivers by node name.
 *
 * @param settings - what every disk starts with, and who is told of it
 */
export function scriptedDefinition(
  settings: Omit<ScriptedDriverOptions, "size"> & {
    readonly onOpen?: (driver: ScriptedDriver, nodeName: string) => void;
  } = {},
): ScriptedDefinition {
  const instances = new Map<string, ScriptedDriver>();
  const definition = defineDriver({
    driverName: "x-blocklayer-scripted",
    schema,
    children: [],
    isFilter: false,
    isProtocol: true,
    supportsBacking: false,
    open: (host, options) => {
      const driver = new ScriptedDriver({ ...settings, size: options.size });
      instances.set(host.nodeName, driver);
      settings.onOpen?.(driver, host.nodeName);
      return Promise.resolve(driver);
    },
  });
  return {
    ...definition,
    instance: (nodeName) => {
      const driver = instances.get(nodeName);
      expect(driver !== undefined, `no scripted disk was opened as ${nodeName}`);
      return driver;
    },
  };
}
