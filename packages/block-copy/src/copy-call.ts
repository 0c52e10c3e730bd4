import type { Env } from "@blocklayer/env";
import { BlockError, toBlockError } from "@blocklayer/errors";

export interface BackgroundOptions {
  /** Tasks at once, 1 or more. */
  readonly maxWorkers: number;
  /** Bytes of the longest task; 0 for no limit of its own. */
  readonly maxChunk: number;
}

/** A copy that goes on in the background. */
export interface CopyCall {
  /** Resolves when the call has ended, however it ended; never rejects. */
  readonly done: Promise<void>;
  readonly finished: boolean;
  /** Whether it ended with its range copied. Never true for a cancelled call. */
  readonly succeeded: boolean;
  /** Whether it ended with an error. Never true for a cancelled call. */
  readonly failed: boolean;
  readonly cancelled: boolean;
  /** The first error of one of its own tasks. */
  readonly error: BlockError | undefined;
  /** Whether that error came from reading the source. */
  readonly errorIsRead: boolean;
  /** Starts no further task; those that run are finished. Cancelling a finished call does nothing. */
  cancel(): void;
  /** Ends a wait for the speed limit. */
  kick(): void;
}

/** State of one call, of a guest's write or of the background. */
export class CallState implements CopyCall {
  readonly offset: number;
  readonly length: number;
  readonly maxWorkers: number;
  readonly maxChunk: number;
  readonly ignoreRateLimit: boolean;
  /** Nobody waits for it: it lets others have their turn between tasks. */
  readonly isBackground: boolean;
  done: Promise<void> = Promise.resolve();
  finished: boolean = false;
  cancelled: boolean = false;
  error: BlockError | undefined;
  errorIsRead: boolean = false;
  #sleep: AbortController | undefined;

  constructor(
    offset: number,
    length: number,
    options: BackgroundOptions & {
      readonly ignoreRateLimit: boolean;
      readonly isBackground: boolean;
    },
  ) {
    this.offset = offset;
    this.length = length;
    this.maxWorkers = options.maxWorkers;
    this.maxChunk = options.maxChunk;
    this.ignoreRateLimit = options.ignoreRateLimit;
    this.isBackground = options.isBackground;
  }

  get succeeded(): boolean {
    return this.finished && !this.cancelled && this.error === undefined;
  }

  get failed(): boolean {
    return this.finished && !this.cancelled && this.error !== undefined;
  }

  /** Whether no further task may start. */
  get isStopping(): boolean {
    return this.cancelled || this.error !== undefined;
  }

  cancel(): void {
    if (this.finished) return;
    this.cancelled = true;
    this.kick();
  }

  kick(): void {
    this.#sleep?.abort(KICKED);
  }

  /** Keeps the first error of the call's own tasks. */
  fail(error: unknown, isRead: boolean): void {
    if (this.error !== undefined) return;
    this.error = toBlockError(error, "copy failed", { offset: this.offset, length: this.length });
    this.errorIsRead = isRead;
  }

  /** Sleeps until the speed limit lets the call go on, or it is kicked or cancelled. */
  async sleep(env: Env, delayMs: number): Promise<void> {
    if (this.cancelled) return;
    this.#sleep = new AbortController();
    try {
      await env.clock.sleep(delayMs, this.#sleep.signal);
    } catch (error) {
      if (error !== KICKED) throw error;
    } finally {
      this.#sleep = undefined;
    }
  }
}

/** Settles as the call ends. */
export async function outcomeOf(call: CallState): Promise<void> {
  await call.done;
  if (call.error !== undefined) throw call.error;
}

/**
 * Settles as the call ends, or when its time is over: then it starts no further task, and those that run go on.
 *
 * @param target - the node that is named in the error
 * @throws BlockError `ETIMEDOUT`
 */
export async function outcomeWithin(
  call: CallState,
  env: Env,
  timeoutMs: number,
  target: string,
): Promise<void> {
  const timer = new AbortController();
  const expired = env.clock.sleep(timeoutMs, timer.signal).then(
    () => true,
    () => false,
  );
  const isLate = await Promise.race([expired, call.done.then(() => false)]);
  timer.abort();
  // What ended in the very moment in which its time was over has ended.
  if (!isLate || call.finished) return outcomeOf(call);
  call.cancel();
  throw new BlockError("ETIMEDOUT", `copy took longer than ${timeoutMs} ms`, {
    node: target,
    operation: "copy",
    offset: call.offset,
    length: call.length,
  });
}

const KICKED = new BlockError("ECANCELED", "the wait was ended early");
