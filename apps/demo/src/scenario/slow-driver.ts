import {
  type BlockChild,
  type DriverDefinition,
  defineDriver,
  FilterDriver,
  type RequestOptions,
  Role,
} from "@blocklayer/driver";
import type { Env } from "@blocklayer/env";
import { integer, object } from "@blocklayer/schema";

/** How slow it is. */
export interface SlowOptions {
  /** Bytes a second that pass, one request after the other. */
  readonly "bytes-per-second": number;
  /** Milliseconds that each request takes besides. */
  readonly "latency-ms": number;
}

/**
 * A filter that makes a disk as slow as one at the far end of a thin line: requests that change it pass one after the
 * other at a bounded rate, and each takes its time besides.
 */
export class SlowFilter extends FilterDriver {
  readonly driverName: string = "x-demo-slow";
  readonly #env: Env;
  readonly #options: SlowOptions;
  #freeAtMs: number = 0;
  #hurry: AbortController = new AbortController();

  constructor(child: BlockChild, options: SlowOptions, env: Env) {
    super(child);
    this.#options = options;
    this.#env = env;
  }

  override async pwrite(
    offset: number,
    buffer: Uint8Array,
    options?: RequestOptions,
  ): Promise<void> {
    await this.#pass(buffer.length);
    await this.child.pwrite(offset, buffer, options);
  }

  override async pwritev(
    offset: number,
    buffers: readonly Uint8Array[],
    options?: RequestOptions,
  ): Promise<void> {
    await this.#pass(buffers.reduce((sum, { length }) => sum + length, 0));
    await this.child.pwritev(offset, buffers, options);
  }

  /** Zeroes are a short message, however many they are. */
  override async pwriteZeroes(
    offset: number,
    length: number,
    options?: RequestOptions,
  ): Promise<void> {
    await this.#pass(0);
    await this.child.pwriteZeroes(offset, length, options);
  }

  /** Lets those pass at once that wait: nobody who ends has to wait for the line. */
  cancelInFlight(): void {
    this.#hurry.abort();
    this.#hurry = new AbortController();
    this.#freeAtMs = 0;
  }

  async #pass(length: number): Promise<void> {
    const { clock } = this.#env;
    const { signal } = this.#hurry;
    const nowMs = clock.now();
    const takesMs = (length / this.#options["bytes-per-second"]) * 1000;
    this.#freeAtMs = Math.max(nowMs, this.#freeAtMs) + takesMs;
    try {
      await clock.sleep(this.#freeAtMs - nowMs + this.#options["latency-ms"], signal);
    } catch (error) {
      if (!signal.aborted) throw error;
    }
  }
}

/** {@link SlowFilter} for a graph, under the name `x-demo-slow`. */
export const slow: DriverDefinition<"x-demo-slow", SlowOptions, "file"> = defineDriver({
  driverName: "x-demo-slow",
  schema: object({
    "bytes-per-second": integer({ min: 1 }),
    "latency-ms": integer({ min: 0 }),
  }),
  children: [{ name: "file", role: Role.filtered | Role.primary, required: true }],
  isFilter: true,
  isProtocol: false,
  supportsBacking: false,
  open: async (host, options: SlowOptions, env) =>
    new SlowFilter(await host.openChild("file", Role.filtered | Role.primary), options, env),
});
