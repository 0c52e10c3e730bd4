import { expect, expectBlockError, outcomeOf } from "../expect.ts";
import type { GateFailure } from "../request-gate.ts";
import { readAll } from "../whole-disk.ts";
import { takeOldOrNew } from "./concurrency-traits.ts";
import type { SuiteContext } from "./conformance-options.ts";
import { RANGE_OPERATIONS, type RangeOperation, takeResult } from "./operations.ts";
import { type Subject, withSubject } from "./subject.ts";

/** Lets request n to the children fail, for n = 1, 2, … until nothing fails any more. */
export function failureTraits(context: SuiteContext): void {
  const { it, capabilities } = context;
  for (const when of ["before", "after"] as const) {
    const how = when === "before" ? "fails" : "is carried out and its answer lost";
    for (const operation of RANGE_OPERATIONS.filter(({ has }) => has(capabilities))) {
      it(`${operation.name} loses no other byte when a child's request ${how}`, () =>
        sweep(context, when, (subject, failure) => failRange(subject, operation, failure)));
    }
    it(`flush reports a child's request that ${how}, and the disk goes on`, () =>
      sweep(context, when, failFlush));
  }
  if (capabilities.truncate) {
    it("truncate that fails leaves the old or the new length and every byte below both", () =>
      sweep(context, "before", failTruncate));
  }
}

async function sweep(
  context: SuiteContext,
  when: "before" | "after",
  attempt: (subject: Subject, failure: GateFailure) => Promise<void>,
): Promise<void> {
  for (const start of ["fresh", "filled"] as const) {
    let hasFailed = true;
    for (let at = 1; hasFailed; at += 1) {
      expect(at < ATTEMPTS_MAX, `a single operation makes ${ATTEMPTS_MAX} requests`);
      await withSubject(context, start, async (subject) => {
        await attempt(subject, { at, when });
        hasFailed = subject.host.gate.hasFailed;
        expect(subject.host.inFlight === 0, "something is still held in flight");
      });
    }
  }
}

async function failRange(
  subject: Subject,
  operation: RangeOperation,
  failure: GateFailure,
): Promise<void> {
  const { granule, middle, content, host } = subject;
  const [offset, length] = [middle - granule, 2 * granule];
  const before = content.slice(offset, offset + length);
  host.gate.failAt(failure);
  const outcome = await outcomeOf(operation.send(subject, offset, length));
  host.gate.disarm();
  if (outcome.ok) {
    await takeResult(subject, operation, offset, length);
  } else {
    expectBlockError(outcome.error, `${operation.name} with a failing child`);
    await takeOldOrNew(subject, operation, offset, before);
  }
  await subject.expectContent(`content after request ${failure.at} failed`);
  await operation.send(subject, offset, length);
  await takeResult(subject, operation, offset, length);
  await subject.expectContent(`content after ${operation.name} was done again`);
}

async function failFlush(subject: Subject, failure: GateFailure): Promise<void> {
  const { driver, granule, middle, host, content } = subject;
  if (driver.pwrite !== undefined) {
    const bytes = new Uint8Array(granule).fill(0x3d);
    await driver.pwrite(middle, bytes);
    content.set(bytes, middle);
  }
  host.gate.failAt(failure);
  const outcome = await outcomeOf(subject.flush());
  host.gate.disarm();
  const { hasFailed } = host.gate;
  if (hasFailed) expect(!outcome.ok, "a flush succeeded although a child's request failed");
  if (!outcome.ok) expectBlockError(outcome.error, "flush with a failing child");
  await subject.expectContent("content after the flush");
  // A disk whose flush failed may refuse every later flush, but it says so.
  const again = await outcomeOf(subject.flush());
  if (!again.ok) expectBlockError(again.error, "flush after a failed flush");
}

async function failTruncate(subject: Subject, failure: GateFailure): Promise<void> {
  const { driver, host, content, clusterSize } = subject;
  const [oldSize, newSize] = [content.length, content.length + 2 * clusterSize];
  host.gate.failAt(failure);
  const outcome = await outcomeOf(
    driver.truncate?.(newSize, { zero: driver.flags.truncateZero }) ?? Promise.resolve(),
  );
  host.gate.disarm();
  if (!outcome.ok) expectBlockError(outcome.error, "truncate with a failing child");
  const expected = outcome.ok ? [newSize] : [oldSize, newSize];
  expect(expected.includes(driver.size), `the size is ${driver.size}`);
  const kept = (await readAll(driver)).subarray(0, oldSize);
  subject.expectRead(kept, 0, "content below the old length");
}

const ATTEMPTS_MAX = 200;
