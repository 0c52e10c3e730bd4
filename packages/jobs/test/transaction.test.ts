import { BlockError } from "@blocklayer/errors";
import { runTransaction, type TransactionStep } from "@blocklayer/jobs";
import { describe, expect, it } from "vitest";

function stepsOf(names: readonly string[], fail: Record<string, unknown> = {}) {
  const calls: string[] = [];
  const call = (what: string): void => {
    calls.push(what);
    if (fail[what] !== undefined) throw fail[what];
  };
  const steps = names.map(
    (name): TransactionStep => ({
      name,
      prepare: async () => {
        await null;
        call(`prepare ${name}`);
      },
      commit: () => call(`commit ${name}`),
      abort: () => call(`abort ${name}`),
      clean: async () => {
        await null;
        call(`clean ${name}`);
      },
    }),
  );
  return { calls, steps };
}

async function rejectionOf(promise: Promise<unknown>): Promise<unknown> {
  return await promise.then(
    () => undefined,
    (error: unknown) => error,
  );
}

const failed = new BlockError("ENOSPC", "no room", { node: "a" }, { hint: "make some" });

describe("runTransaction", () => {
  it("prepares, commits and cleans in order", async () => {
    const { calls, steps } = stepsOf(["a", "b"]);
    await runTransaction(steps, { beforeCommit: () => void calls.push("check") });
    expect(calls).toEqual([
      "prepare a",
      "prepare b",
      "check",
      "commit a",
      "commit b",
      "clean a",
      "clean b",
    ]);
  });

  it("of no steps succeeds", async () => {
    await runTransaction([]);
  });

  it("takes steps of nothing but a prepare", async () => {
    const calls: number[] = [];
    await runTransaction([{ prepare: () => void calls.push(1) }]);
    const error = await rejectionOf(
      runTransaction([
        { prepare: () => void calls.push(2) },
        { prepare: () => Promise.reject(failed) },
      ]),
    );
    expect([calls, error]).toEqual([[1, 2], failed]);
  });

  it("aborts in reverse order what was prepared and cleans what was started", async () => {
    const { calls, steps } = stepsOf(["a", "b", "c", "d"], { "prepare c": failed });
    expect(await rejectionOf(runTransaction(steps))).toBe(failed);
    expect(calls).toEqual([
      "prepare a",
      "prepare b",
      "prepare c",
      "abort b",
      "abort a",
      "clean c",
      "clean b",
      "clean a",
    ]);
  });

  it("aborts everything when the last check fails", async () => {
    const { calls, steps } = stepsOf(["a", "b"]);
    const beforeCommit = () => Promise.reject(failed);
    expect(await rejectionOf(runTransaction(steps, { beforeCommit }))).toBe(failed);
    expect(calls.slice(2)).toEqual(["abort b", "abort a", "clean b", "clean a"]);
  });

  it("commits everything in one turn", async () => {
    const { calls, steps } = stepsOf(["a", "b", "c"]);
    const [first, ...rest] = steps;
    const spy: TransactionStep = {
      prepare: () => {},
      commit: () => {
        Promise.resolve()
          .then(() => calls.push("another turn"))
          .catch(() => calls.push("never"));
      },
    };
    await runTransaction([spy, ...(first === undefined ? [] : [first]), ...rest]);
    expect(calls.slice(3, 7)).toEqual(["commit a", "commit b", "commit c", "another turn"]);
  });

  it("keeps the first error's code and adds what went wrong while undoing", async () => {
    const abortFault = new Error("abort");
    const cleanFault = new Error("clean");
    const { steps } = stepsOf(["a", "b"], {
      "prepare b": failed,
      "abort a": abortFault,
      "clean b": cleanFault,
    });
    const error = await rejectionOf(runTransaction(steps));
    expect(error).toBeInstanceOf(BlockError);
    expect(error).toMatchObject({
      code: "ENOSPC",
      message: "no room",
      hint: "make some",
      cause: failed,
      context: { node: "a", undoErrors: [abortFault, cleanFault] },
    });
  });

  it("calls all others when a commit or a clean fails, and says that it was committed", async () => {
    const commitFault = new Error("first");
    const cleanFault = new Error("second");
    const { calls, steps } = stepsOf(["a", "b"], {
      "commit a": commitFault,
      "clean a": cleanFault,
    });
    const error = await rejectionOf(runTransaction(steps));
    expect(calls.slice(2)).toEqual(["commit a", "commit b", "clean a", "clean b"]);
    expect(error).toBeInstanceOf(AggregateError);
    expect(error).toMatchObject({
      errors: [commitFault, cleanFault],
      message: "committed, but could not be finished: Error: first; Error: second",
    });
  });
});
