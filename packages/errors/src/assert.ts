/**
 * Throws when `condition` does not hold. For what can not happen: a failed assertion is a defect of the
 * program, has no code, and is nobody's to catch. Stays on in production.
 *
 * @param condition - what must hold
 * @param message - what was broken, as a sentence or a function that makes one (called only on failure)
 * @throws Error named `AssertionError`
 */
export function assert(condition: boolean, message: string | (() => string)): asserts condition {
  if (condition) return;
  const error = new Error(typeof message === "string" ? message : message());
  error.name = "AssertionError";
  throw error;
}
