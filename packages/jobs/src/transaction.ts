import { BlockError, toBlockError } from "@blocklayer/errors";

/**
 * One step of a change that happens completely or not at all.
 *
 * | callback | called | may fail | may wait |
 * | --- | --- | --- | --- |
 * | `prepare` | in order, until one fails | yes | yes |
 * | `commit` | in order, all in one turn, once everything is prepared | no | no |
 * | `abort` | in reverse order, for steps whose `prepare` succeeded | no | no |
 * | `clean` | after commit (in order) or abort (in reverse), for steps whose `prepare` was started | reported | yes |
 *
 * A `prepare` that fails takes back what it has done itself, or leaves it to its `clean`.
 *
 * @see docs/design.md section 4: the rules for surgery in an event loop
 */
export interface TransactionStep {
  /** Names the step in a debugger and in logs. */
  readonly name?: string;
  prepare(): void | Promise<void>;
  commit?(): void;
  abort?(): void;
  clean?(): void | Promise<void>;
}

export interface TransactionOptions {
  /** The last word before the commits (one permission check over everything, say); a failure aborts. */
  beforeCommit?(): void | Promise<void>;
}

/**
 * Runs `steps` as one: all of them commit, or none does.
 *
 * Between the first `commit` and the last nothing else runs, so nobody sees half of the change. A `commit`
 * or `abort` that throws is a defect; the others are called nevertheless.
 *
 * @throws the first error of a `prepare` or of `beforeCommit`, as it is: nothing was changed. If undoing
 *   failed too, a {@link BlockError} of the same code and message with those errors in `context.undoErrors`
 * @throws AggregateError everything was committed, but a `commit` or a `clean` failed
 */
export async function runTransaction(
  steps: readonly TransactionStep[],
  options: TransactionOptions = {},
): Promise<void> {
  const started: TransactionStep[] = [];
  const prepared: TransactionStep[] = [];
  try {
    for (const step of steps) {
      started.push(step);
      await step.prepare();
      prepared.push(step);
    }
    await options.beforeCommit?.();
  } catch (error) {
    throw await undo(error, prepared, started);
  }
  const faults: unknown[] = [];
  // No `await` in this loop: the whole change is one instant.
  for (const step of prepared) collect(() => step.commit?.(), faults);
  await clean(prepared, faults);
  if (faults.length > 0) {
    throw new AggregateError(faults, `committed, but could not be finished: ${faults.join("; ")}`);
  }
}

async function undo(
  error: unknown,
  prepared: readonly TransactionStep[],
  started: readonly TransactionStep[],
): Promise<unknown> {
  const faults: unknown[] = [];
  for (const step of prepared.toReversed()) collect(() => step.abort?.(), faults);
  await clean(started.toReversed(), faults);
  if (faults.length === 0) return error;
  const { code, message, context, hint, errorClass } = toBlockError(error, "transaction failed");
  const options =
    hint === undefined ? { cause: error, errorClass } : { cause: error, errorClass, hint };
  return new BlockError(code, message, { ...context, undoErrors: faults }, options);
}

function collect(call: () => void, faults: unknown[]): void {
  try {
    call();
  } catch (error) {
    faults.push(error);
  }
}

async function clean(steps: readonly TransactionStep[], faults: unknown[]): Promise<void> {
  for (const step of steps) {
    try {
      await step.clean?.();
    } catch (error) {
      faults.push(error);
    }
  }
}
