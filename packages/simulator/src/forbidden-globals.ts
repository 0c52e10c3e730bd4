const time = "time comes from `env.clock`";
const chance = "chance comes from `env.random`";
const turn = "a turn of the event loop is `env.clock.sleep(0)`";
const process = "a process comes by argument";
const threads = "work is offloaded by `env.offload`";
const garbage = "the garbage collector keeps no times";
const streams = "streams come by argument";

/** What depends on more than a seed, and how to reach it. */
const FORBIDDEN: Readonly<Record<string, string>> = {
  Date: time,
  performance: time,
  setTimeout: time,
  setInterval: time,
  clearTimeout: time,
  clearInterval: time,
  setImmediate: turn,
  clearImmediate: turn,
  MessageChannel: turn,
  BroadcastChannel: turn,
  queueMicrotask: "await a promise",
  crypto: chance,
  process,
  navigator: process,
  Intl: "texts are formatted alike everywhere",
  WeakRef: garbage,
  FinalizationRegistry: garbage,
  Atomics: threads,
  SharedArrayBuffer: threads,
  Worker: threads,
  fetch: streams,
  WebSocket: streams,
  EventSource: streams,
};

/** Members that are forbidden while what they belong to is not. */
const FORBIDDEN_MEMBERS = [
  { owner: Math, of: "Math", member: "random", instead: chance },
  { owner: AbortSignal, of: "AbortSignal", member: "timeout", instead: time },
] as const;

interface Place {
  hide(): void;
  restore(): void;
}

/** Set as long as the stubs are in place. */
let offence: Error | undefined;
let places: readonly Place[] | undefined;

/**
 * Runs `work`, which has to be synchronous, without the globals that depend on more than a seed: whoever touches one
 * gets an error that says what to use instead.
 *
 * Nothing else of the process runs meanwhile, so nobody else misses them.
 *
 * @throws Error somebody touched one of them, even if he caught the error; else what `work` throws
 */
export function withoutGlobals<T>(work: () => T): T {
  places ??= allPlaces();
  offence = undefined;
  for (const place of places) place.hide();
  let result: T;
  try {
    result = work();
  } catch (error) {
    throw offence ?? error;
  } finally {
    for (const place of places) place.restore();
  }
  if (offence !== undefined) throw offence;
  return result;
}

/** Those that this engine has. */
function allPlaces(): Place[] {
  const globals = Object.entries(FORBIDDEN).map(([member, instead]) =>
    placeOf(globalThis, member, member, instead),
  );
  const members = FORBIDDEN_MEMBERS.map(({ owner, of, member, instead }) =>
    placeOf(owner, member, `${of}.${member}`, instead),
  );
  return [...globals, ...members].filter((place) => place !== undefined);
}

function placeOf(owner: object, member: string, name: string, instead: string): Place | undefined {
  const original = Object.getOwnPropertyDescriptor(owner, member);
  if (original?.configurable !== true) return undefined;
  const stub = stubOf(name, instead);
  if (original.writable === true) {
    // Engines compile better against what is stored than against what is defined anew.
    const members = owner as Record<string, unknown>;
    const { value } = original;
    return {
      hide: () => {
        members[member] = stub;
      },
      restore: () => {
        members[member] = value;
      },
    };
  }
  const descriptor = { configurable: true, writable: true, value: stub };
  return {
    hide: () => void Object.defineProperty(owner, member, descriptor),
    restore: () => void Object.defineProperty(owner, member, original),
  };
}

/** Can be named, as in `typeof`, but not used. */
function stubOf(name: string, instead: string): object {
  const refuse = (): never => {
    const error = new Error(`${name} is not to be had in a simulation: ${instead}`);
    offence ??= error;
    throw error;
  };
  return new Proxy(function forbidden() {}, {
    apply: refuse,
    construct: refuse,
    get: refuse,
    set: refuse,
    has: refuse,
  });
}
