import type { Canary } from "./canary.ts";

/** Bugs planted in the lock of byte ranges. */
export const rangeLockCanaries: readonly Canary[] = [
  {
    id: "cancelled-waiter-blocks-on",
    invariant: "RQ-1",
    bug: "Those who waited for a waiter that was cancelled are not woken.",
    world: "range-lock",
    file: "range-lock/src/range-lock.ts",
    find: "        this.#remove(request);\n        reject(signal?.reason);",
    replace: "        this.#requests.delete(request);\n        reject(signal?.reason);",
    seedsMax: 200,
  },
  {
    id: "granted-range-is-cancelled",
    invariant: "RQ-1",
    bug: "A request that was granted can still be cancelled: its range stays held for ever.",
    world: "range-lock",
    file: "range-lock/src/range-lock.ts",
    find: '        signal?.removeEventListener("abort", abort);\n',
    replace: "",
    seedsMax: 200,
  },
  {
    id: "shrink-frees-all",
    invariant: "RQ-2",
    bug: "Who shrinks a range lets those in as well who wait for what is kept.",
    world: "range-lock",
    file: "range-lock/src/range-lock.ts",
    find: "        request.conflicts(waiter) &&\n        !request.conflicts(waiter, newLength);",
    replace: "        request.conflicts(waiter) && newLength < request.length;",
    seedsMax: 200,
  },
  {
    id: "shared-overtakes",
    invariant: "RQ-2",
    bug: "A shared request overtakes exclusive ones that wait.",
    world: "range-lock",
    file: "range-lock/src/range-lock.ts",
    find: "if (earlier.conflicts(request)) request.blockers += 1;",
    replace:
      'const isPassed = mode === "shared" && earlier.grant !== undefined;\n      if (!isPassed && earlier.conflicts(request)) request.blockers += 1;',
    seedsMax: 200,
  },
];
