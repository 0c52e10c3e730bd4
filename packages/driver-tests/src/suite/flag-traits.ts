import { RequestFlag } from "@blocklayer/driver";
import { expect, expectBlockError, outcomeOf } from "../expect.ts";
import type { SuiteContext } from "./conformance-options.ts";
import { perform, RANGE_OPERATIONS, type RangeOperation } from "./operations.ts";
import { type Subject, withSubject } from "./subject.ts";

type FlagName = keyof typeof RequestFlag;

interface FlagRow {
  readonly flag: FlagName;
  readonly on: "write" | "zeroes";
}

const ROWS: readonly FlagRow[] = [
  { flag: "fua", on: "write" },
  { flag: "serialising", on: "write" },
  { flag: "compressed", on: "write" },
  { flag: "fua", on: "zeroes" },
  { flag: "mayUnmap", on: "zeroes" },
  { flag: "serialising", on: "zeroes" },
];

/** A flag that is declared is understood; what is not declared is not sent. */
export function flagTraits(context: SuiteContext): void {
  const { it, capabilities } = context;
  if (capabilities.write) writeFlagTraits(context);
  it("pread understands prefetch and copy-on-read where it declares them", () =>
    withSubject(context, "filled", async (subject) => {
      const { driver, granule, middle } = subject;
      const { copyOnRead, prefetch } = RequestFlag;
      if ((driver.flags.read & copyOnRead) !== 0) {
        await perform(subject, operationNamed("read"), middle, granule, { flags: copyOnRead });
      }
      // What the buffer holds after a prefetch is nobody's business.
      if ((driver.flags.read & prefetch) !== 0) {
        await driver.pread(middle, new Uint8Array(granule), { flags: prefetch });
      }
      await subject.expectContent("content");
    }));
}

function writeFlagTraits(context: SuiteContext): void {
  const { it } = context;
  for (const { flag, on } of ROWS) {
    it(`${on === "write" ? "pwrite" : "pwriteZeroes"} understands ${flag} where it declares it`, () =>
      withSubject(context, "filled", async (subject) => {
        const bit = RequestFlag[flag];
        if ((subject.driver.flags[on] & bit) === 0) return;
        const [offset, length] = wholeCluster(subject);
        await perform(subject, operationNamed(on), offset, length, { flags: bit });
        await subject.expectContent(`content after a request with ${flag}`);
      }));
  }
  it("pwrite that keeps the content keeps it", () =>
    withSubject(context, "filled", async (subject) => {
      const { driver, granule, content, middle } = subject;
      const flags = driver.flags.write & RequestFlag.writeUnchanged;
      await driver.pwrite?.(middle, content.slice(middle, middle + granule), { flags });
      await subject.expectContent("content");
    }));
  it("pwriteZeroes without fallback does it or says ENOTSUP", () =>
    withSubject(context, "filled", async (subject) => {
      const { driver } = subject;
      if ((driver.flags.zeroes & RequestFlag.noFallback) === 0) return;
      const [offset, length] = wholeCluster(subject);
      const options = { flags: RequestFlag.noFallback };
      const work = perform(subject, operationNamed("zeroes"), offset, length, options);
      const outcome = await outcomeOf(work);
      if (!outcome.ok) {
        const { code } = expectBlockError(outcome.error, "pwriteZeroes");
        expect(code === "ENOTSUP", `pwriteZeroes without fallback answers ${code}`);
      }
      await subject.expectContent("content");
    }));
}

function wholeCluster({ clusterSize, content, middle }: Subject): readonly [number, number] {
  return [middle, Math.min(clusterSize, content.length - middle)];
}

function operationNamed(on: "read" | "write" | "zeroes"): RangeOperation {
  const name = { read: "pread", write: "pwrite", zeroes: "pwriteZeroes" }[on];
  const operation = RANGE_OPERATIONS.find((candidate) => candidate.name === name);
  expect(operation !== undefined, `no operation ${name}`);
  return operation;
}
