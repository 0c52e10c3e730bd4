import { withoutGlobals } from "./forbidden-globals.ts";

/** A way to let every promise job run between two steps. */
export interface Drain {
  readonly name: "native" | "immediate" | "channel";
  /**
   * Calls `step` until it returns `false`; before each call every promise job has run.
   *
   * @throws what `step` throws
   */
  loop(step: () => boolean): Promise<void>;
}

/** Goes round by Node's immediates: needs no flags. */
export const immediateDrain: Drain = {
  name: "immediate",
  loop: (step) => turnByTurn((turn) => void setImmediate(turn), step),
};

/** What Node and browsers both have of a message channel, which their types name differently. */
interface TurnChannel {
  readonly port1: { onmessage: (() => void) | null; close(): void };
  readonly port2: { postMessage(message: number): void };
}

/** Goes round by messages to itself: runs in a browser's worker too. */
export const channelDrain: Drain = {
  name: "channel",
  async loop(step) {
    const { port1, port2 } = new MessageChannel() as unknown as TurnChannel;
    try {
      await turnByTurn((turn) => {
        port1.onmessage = turn;
        port2.postMessage(0);
      }, step);
    } finally {
      port1.close();
    }
  },
};

function turnByTurn(nextTurn: (turn: () => void) => void, step: () => boolean): Promise<void> {
  return new Promise((resolve, reject) => {
    const turn = (): void => {
      try {
        if (step()) nextTurn(turn);
        else resolve();
      } catch (error) {
        reject(error);
      }
    };
    nextTurn(turn);
  });
}

/**
 * Returns a drain that asks V8 to run its promise jobs, many times faster than turns of the event loop; `undefined`
 * where that is not to be had.
 *
 * The loop runs in an immediate: inside a promise job V8 would ignore the request. While it runs there are no clocks,
 * timers, chance or processes but those of the scheduler.
 */
export function nativeDrain(): Drain | undefined {
  const checkpoint = loadCheckpoint();
  if (checkpoint === undefined) return undefined;
  return {
    name: "native",
    loop: (step) =>
      new Promise((resolve, reject) => {
        setImmediate(() => {
          try {
            withoutGlobals(() => {
              do checkpoint();
              while (step());
            });
            resolve();
          } catch (error) {
            reject(error);
          }
        });
      }),
  };
}

/** The fastest drain there is here. */
export function defaultDrain(): Drain {
  fastest ??= nativeDrain() ?? turnDrain();
  return fastest;
}

/** A drain by turns of the event loop: what an engine only tells between turns, it tells between steps. */
export function turnDrain(): Drain {
  return hasImmediates() ? immediateDrain : channelDrain;
}

let fastest: Drain | undefined;

function hasImmediates(): boolean {
  return typeof setImmediate === "function";
}

/** The text is not JavaScript without the flag, so it is compiled only after the flag was set. */
function loadCheckpoint(): (() => void) | undefined {
  if (typeof process === "undefined" || !hasImmediates()) return undefined;
  const v8 = process.getBuiltinModule?.("node:v8");
  if (v8 === undefined) return undefined;
  v8.setFlagsFromString("--allow-natives-syntax");
  try {
    const checkpoint = new Function("%PerformMicrotaskCheckpoint()") as () => void;
    checkpoint();
    return checkpoint;
  } catch (error) {
    // An engine that does not know the function, or the flag.
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}
