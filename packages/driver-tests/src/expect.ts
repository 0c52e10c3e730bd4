import { BlockError } from "@blocklayer/errors";

/** A driver broke the contract, or a test asked for something that is not there. */
export class ConformanceError extends Error {
  override readonly name: string = "ConformanceError";
}

/** Throws a {@link ConformanceError} when `condition` does not hold. */
export function expect(condition: boolean, message: string | (() => string)): asserts condition {
  if (condition) return;
  throw new ConformanceError(typeof message === "string" ? message : message());
}

/** Expects two values to be the same. */
export function expectSame<T>(actual: T, expected: T, what: string): void {
  expect(Object.is(actual, expected), () => `${what}: ${String(actual)}, not ${String(expected)}`);
}

/**
 * Expects two buffers to hold the same bytes; the message names the first that differs.
 *
 * @param base - what is added to positions in the message, in bytes
 */
export function expectBytes(
  actual: Uint8Array,
  expected: Uint8Array,
  what: string,
  base = 0,
): void {
  expectSame(actual.length, expected.length, `${what}: length`);
  for (let index = 0; index < actual.length; index += 1) {
    if (actual[index] === expected[index]) continue;
    const [found, wanted] = [actual[index] ?? 0, expected[index] ?? 0];
    expect(false, `${what}: byte ${base + index} is ${hex(found)}, not ${hex(wanted)}`);
  }
}

/** How a promise ended. */
export type Outcome<T = unknown> =
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly error: unknown };

/** Resolves to how `promise` ended and never rejects. */
export function outcomeOf<T>(promise: Promise<T>): Promise<Outcome<T>> {
  return promise.then(
    (value) => ({ ok: true, value }) as const,
    (error: unknown) => ({ ok: false, error }) as const,
  );
}

/** Expects an error to be one of the block layer, with a code. */
export function expectBlockError(error: unknown, what: string): BlockError {
  expect(error instanceof BlockError, () => `${what}: not a BlockError but ${String(error)}`);
  expect(/^E[A-Z0-9]+$/.test(error.code), () => `${what}: the code ${error.code} is no errno name`);
  return error;
}

/** Expects `promise` to reject with a `BlockError` and returns it. */
export async function expectRejection(
  promise: Promise<unknown>,
  what: string,
): Promise<BlockError> {
  const outcome = await outcomeOf(promise);
  expect(!outcome.ok, () => `${what}: succeeded`);
  return expectBlockError(outcome.error, what);
}

function hex(value: number): string {
  return `0x${value.toString(16).padStart(2, "0")}`;
}
