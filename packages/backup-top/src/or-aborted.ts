/**
 * Settles as `work` does, or rejects with the signal's reason as soon as that is aborted. `work` goes on then, and
 * how it ends is nobody's concern.
 */
export function orAborted(work: Promise<void>, signal: AbortSignal | undefined): Promise<void> {
  if (signal === undefined) return work;
  return new Promise((resolve, reject) => {
    const abort = (): void => reject(signal.reason);
    if (signal.aborted) abort();
    signal.addEventListener("abort", abort, { once: true });
    const settle = (end: () => void): void => {
      signal.removeEventListener("abort", abort);
      end();
    };
    work.then(
      () => settle(resolve),
      (error: unknown) => settle(() => reject(error)),
    );
  });
}
