import type { Env } from "@blocklayer/env";

/**
 * Runs work that stops when its signal aborts: after `delayMs`, or when the caller's signal does.
 *
 * @param late - the reason that the time-out aborts with
 */
export async function withDeadline<T>(
  env: Env,
  delayMs: number,
  late: () => unknown,
  signal: AbortSignal | undefined,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  signal?.throwIfAborted();
  const controller = new AbortController();
  const alarm = new AbortController();
  const cancel = (): void => controller.abort(signal?.reason);
  signal?.addEventListener("abort", cancel, { once: true });
  env.clock.sleep(delayMs, alarm.signal).then(() => controller.abort(late()), switchedOff);
  try {
    return await work(controller.signal);
  } finally {
    signal?.removeEventListener("abort", cancel);
    alarm.abort();
  }
}

/** Settles as `promise` does, or rejects when the signal aborts; what comes later goes to `discard`. */
export function abortable<T>(
  promise: Promise<T>,
  signal: AbortSignal,
  discard: (value: T) => void,
): Promise<T> {
  return new Promise((resolve, reject) => {
    let isOver = false;
    const abort = (): void => {
      isOver = true;
      reject(signal.reason);
    };
    signal.addEventListener("abort", abort, { once: true });
    if (signal.aborted) abort();
    promise.then(
      (value) => {
        signal.removeEventListener("abort", abort);
        if (isOver) discard(value);
        else resolve(value);
      },
      (error: unknown) => {
        signal.removeEventListener("abort", abort);
        reject(error);
      },
    );
  });
}

/** The end of a sleep that is not needed any more. */
export function switchedOff(): void {
  // Nothing is to be done: whoever aborted the sleep goes on by itself.
}
