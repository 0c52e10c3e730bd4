import { alignDown } from "@blocklayer/offsets";
import { expectBytes } from "../expect.ts";
import type { SuiteContext } from "./conformance-options.ts";
import { discard, perform, RANGE_OPERATIONS, type RangeOperation } from "./operations.ts";
import { type Subject, withSubject } from "./subject.ts";

/** Where a request lies; offsets and lengths follow from the driver's size and limits. */
interface Place {
  readonly title: string;
  range(subject: Subject, operation: RangeOperation): readonly [offset: number, length: number];
}

const PLACES: readonly Place[] = [
  { title: "the first bytes", range: ({ granule }) => [0, granule] },
  {
    title: "the last bytes",
    range: ({ granule, content }) => [content.length - granule, granule],
  },
  {
    title: "a place of its alignment, and no more",
    range: ({ granule }) => [3 * granule, granule],
  },
  {
    title: "both sides of a cluster boundary",
    range: ({ granule, middle }) => [middle - granule, 2 * granule],
  },
  {
    title: "a whole cluster",
    range: (subject, operation) => {
      const { middle, clusterSize, content } = subject;
      return [middle, longest(subject, operation, Math.min(clusterSize, content.length - middle))];
    },
  },
  {
    title: "three clusters and a piece of two more",
    range: (subject, operation) => {
      const { granule, clusterSize, content } = subject;
      const offset = clusterSize - granule;
      const length = Math.min(content.length - offset, 3 * clusterSize + 2 * granule);
      return [offset, longest(subject, operation, alignDown(length, granule))];
    },
  },
  {
    title: "as much as its limits allow",
    range: (subject, operation) => [0, longest(subject, operation, subject.content.length)],
  },
];

/** Cuts a length to what a request may have. */
function longest({ limits }: Subject, operation: RangeOperation, length: number): number {
  const max = operation.lengthMax(limits);
  return max === 0 ? length : Math.min(length, max);
}

/** Every operation at every place, on a fresh disk and on a full one. */
export function dataTraits(context: SuiteContext): void {
  const { it, capabilities } = context;
  for (const operation of RANGE_OPERATIONS.filter(({ has }) => has(capabilities))) {
    for (const { title, range } of PLACES) {
      it(`${operation.name} does ${title} and nothing else`, async () => {
        for (const start of ["fresh", "filled"] as const) {
          await withSubject(context, start, async (subject) => {
            const [offset, length] = range(subject, operation);
            await perform(subject, operation, offset, length);
            await subject.expectContent(`the ${start} disk after ${operation.name}`);
            // A second time, on what the first left.
            await perform(subject, operation, offset, length);
            await subject.expectContent(`the ${start} disk after a second ${operation.name}`);
          });
        }
      });
    }
    it(`${operation.name} works when children answer in a later turn`, () =>
      withSubject(context, "fresh", async (subject) => {
        subject.host.gate.completion = "later-turn";
        const { granule, middle } = subject;
        await perform(subject, operation, middle - granule, 2 * granule);
        await perform(subject, operation, 0, granule);
        await subject.expectContent("content");
      }));
  }
  if (capabilities.discard && capabilities.discardReads === "zeroes") discardTraits(context);
}

function discardTraits(context: SuiteContext): void {
  context.it("pdiscard of aligned ranges leaves zeroes", () =>
    withSubject(context, "filled", async (subject) => {
      const { clusterSize, content, driver, middle } = subject;
      const length = Math.min(clusterSize, content.length - middle);
      await discard.send(subject, middle, length);
      const buffer = new Uint8Array(length).fill(0xa5);
      await driver.pread(middle, buffer);
      expectBytes(buffer, new Uint8Array(length), "the discarded range", middle);
    }),
  );
}
