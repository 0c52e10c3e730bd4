import type { Clock, Env, Random } from "./env.ts";
import { OffloadQueue } from "./offload-queue.ts";
import { settleTurn } from "./turn.ts";

export interface RealEnvOptions {
  /** Works of `offload` that run at once. Default: the number of processors, at least 2. */
  readonly offloadLimit?: number;
}

/** Returns the environment of production: the monotonic clock, real timers, cryptographic chance. */
export function realEnv(options: RealEnvOptions = {}): Env {
  const processors = typeof navigator === "undefined" ? undefined : navigator.hardwareConcurrency;
  const queue = new OffloadQueue(options.offloadLimit ?? Math.max(2, processors ?? 2));
  return {
    clock: realClock,
    random: realRandom,
    wake: (resume) => resume(),
    offload: (work) => queue.run(work),
    buggify: () => false,
  };
}

/** The longest delay that timers keep; longer sleeps are made of several. */
const DELAY_MAX_MS = 2 ** 31 - 1;

const realClock: Clock = {
  now: () => performance.now(),
  async sleep(delayMs, signal) {
    signal?.throwIfAborted();
    if (delayMs <= 0) {
      await settleTurn();
      signal?.throwIfAborted();
      return;
    }
    for (let rest = delayMs; rest > 0; rest -= DELAY_MAX_MS) {
      await timer(Math.min(rest, DELAY_MAX_MS), signal);
    }
  },
};

function timer(delayMs: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const handle = setTimeout(() => {
      signal?.removeEventListener("abort", abort);
      resolve();
    }, delayMs);
    const abort = (): void => {
      clearTimeout(handle);
      reject(signal?.reason);
    };
    signal?.addEventListener("abort", abort, { once: true });
  });
}

/** `getRandomValues` fills at most this many bytes a call. */
const FILL_MAX = 65536;

function randomBytes(length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let offset = 0; offset < length; offset += FILL_MAX) {
    crypto.getRandomValues(bytes.subarray(offset, Math.min(offset + FILL_MAX, length)));
  }
  return bytes;
}

function randomU32(): number {
  const bytes = randomBytes(4);
  return new DataView(bytes.buffer).getUint32(0);
}

const realRandom: Random = {
  u32: randomU32,
  below: (bound) => Math.floor((randomU32() / 2 ** 32) * bound),
  bytes: randomBytes,
};
