import { BlockError } from "@blocklayer/errors";
import { expect } from "vitest";

/** Waits for a `BlockError` with this code; `message` is a part of its text. */
export async function rejection(
  promise: Promise<unknown>,
  code: string,
  message: RegExp | string = "",
): Promise<BlockError> {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(BlockError);
  const found = error as BlockError;
  expect([found.code, found.message]).toEqual([
    code,
    typeof message === "string" ? expect.stringContaining(message) : expect.stringMatching(message),
  ]);
  return found;
}

/** Whether a promise has settled, a turn later. */
export function watch(promise: Promise<unknown>): { isSettled: boolean } {
  const state = { isSettled: false };
  const mark = (): void => {
    state.isSettled = true;
  };
  promise.then(mark, mark);
  return state;
}
