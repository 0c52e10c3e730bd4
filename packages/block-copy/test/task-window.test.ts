import { BlockCopy } from "@blocklayer/block-copy";
import { completed } from "@blocklayer/driver";
import { ReferenceDisk, testChild } from "@blocklayer/driver-tests";
import { type ManualEnv, manualEnv } from "@blocklayer/env";
import { describe, expect, it } from "vitest";

const MIB = 2 ** 20;

/** A disk that takes its time: `shared` means one request after the other, else each for itself. */
class SlowDisk extends ReferenceDisk {
  running = 0;
  /** The most requests that ran at once, since it was last set to 0. */
  peak = 0;
  readonly #env: ManualEnv;
  readonly #delayMs: number;
  readonly #isShared: boolean;
  #freeAtMs = 0;

  constructor(env: ManualEnv, size: number, delayMs: number, isShared: boolean) {
    super({ size });
    this.#env = env;
    this.#delayMs = delayMs;
    this.#isShared = isShared;
  }

  override async pwrite(): Promise<void> {
    this.running += 1;
    this.peak = Math.max(this.peak, this.running);
    const nowMs = this.#env.clock.now();
    const fromMs = this.#isShared ? Math.max(this.#freeAtMs, nowMs) : nowMs;
    this.#freeAtMs = fromMs + this.#delayMs;
    await this.#env.clock.sleep(this.#freeAtMs - nowMs);
    this.running -= 1;
  }
}

/** A source that needs no memory. */
class Nothing extends ReferenceDisk {
  override pread(): Promise<void> {
    return completed;
  }
}

async function peakOf(delayMs: number, isShared: boolean): Promise<number> {
  const env = manualEnv();
  const size = 150 * MIB;
  const target = new SlowDisk(env, size, delayMs, isShared);
  const engine = new BlockCopy({
    env,
    source: testChild(new Nothing({ size })),
    target: testChild(target),
    clusterSize: 65536,
  });
  const call = engine.start(0, size, { maxWorkers: 16, maxChunk: 0 });
  // What comes after the beginning counts, when something is known of the disk.
  await env.clock.advance((isShared ? 20 : 4) * delayMs);
  target.peak = target.running;
  await env.clock.advance(200 * delayMs);
  await call.done;
  expect(call.succeeded).toBe(true);
  return target.peak;
}

describe("background tasks at once", () => {
  it.each([
    ["are as many as allowed on a quick disk", 1, true, 16, 16],
    ["are as many as allowed over a distant connection", 150, false, 16, 16],
    ["are few on a slow disk, where a guest would wait behind them", 60, true, 1, 8],
  ] as const)("%s", async (_title, delayMs, isShared, least, most) => {
    const peak = await peakOf(delayMs, isShared);
    expect(peak).toBeGreaterThanOrEqual(least);
    expect(peak).toBeLessThanOrEqual(most);
  });
});
