import { expect, expectBlockError, expectBytes, expectRejection } from "../expect.ts";
import { checkStatus, readAll } from "../whole-disk.ts";
import type { SuiteContext } from "./conformance-options.ts";
import { perform, RANGE_OPERATIONS } from "./operations.ts";
import { type Subject, withSubject } from "./subject.ts";

/** Block status, length, emptying: what a driver says of itself. */
export function statusTraits(context: SuiteContext): void {
  const { it, capabilities } = context;
  if (capabilities.blockStatus) {
    it("blockStatus tiles the disk and is true, before and after every operation", () =>
      withSubject(context, "fresh", async (subject) => {
        await expectTrueStatus(subject);
        const operations = RANGE_OPERATIONS.filter(({ has }) => has(capabilities));
        for (const [index, operation] of operations.entries()) {
          const { granule, clusterSize, content } = subject;
          const offset = (index * (clusterSize + granule)) % (content.length - granule);
          const length = Math.min(2 * clusterSize, content.length - offset);
          await perform(subject, operation, offset, length);
          await expectTrueStatus(subject);
        }
      }));
    it("blockStatus of a part is not longer than the part", () =>
      withSubject(context, "filled", async ({ driver, granule, content }) => {
        for (const offset of [0, content.length - granule]) {
          const run = await driver.blockStatus?.(offset, granule);
          expect(run?.length === granule, `status of ${granule} bytes has ${run?.length}`);
        }
      }));
  }
  if (capabilities.truncate) truncateTraits(context);
  if (!capabilities.truncate) {
    it("truncate is refused with a code when the length is fixed", () =>
      withSubject(context, "fresh", async ({ driver, content }) => {
        if (driver.truncate === undefined) return;
        await expectRejection(driver.truncate(content.length * 2), "truncate");
        expect(driver.size === content.length, "the size changed although truncate failed");
      }));
  }
  if (capabilities.makeEmpty) {
    it("makeEmpty shows what is below", () =>
      withSubject(context, "filled", async (subject) => {
        await subject.driver.makeEmpty?.();
        const below = await subject.below(0, subject.content.length);
        subject.content = below ?? subject.content;
        await subject.expectContent("content after makeEmpty");
      }));
  }
  it("getInfo and allocatedSize answer sensibly", () =>
    withSubject(context, "filled", async ({ driver }) => {
      const allocated = await driver.allocatedSize?.();
      expect(allocated === undefined || allocated >= 0, `allocatedSize is ${allocated}`);
      const info = await driver.getInfo?.().catch(unsupported);
      const clusterSize = info?.clusterSize ?? 1;
      expect(clusterSize >= 1, `the cluster size is ${clusterSize}`);
    }));
}

async function expectTrueStatus(subject: Subject): Promise<void> {
  for (const wantZero of [true, false]) {
    await checkStatus(subject.driver, subject.content, subject.below, { wantZero });
  }
  await subject.expectContent("content after asking for the status");
}

function truncateTraits(context: SuiteContext): void {
  const { it, capabilities } = context;
  it("truncate makes the disk shorter and longer, and what is new reads as zeroes", () =>
    withSubject(context, "filled", async (subject) => {
      const { driver, granule, middle, content } = subject;
      const zero = driver.flags.truncateZero;
      const shortSize = middle - granule;
      await driver.truncate?.(shortSize);
      expect(driver.size === shortSize, `the size is ${driver.size}, not ${shortSize}`);
      await driver.truncate?.(content.length, { zero });
      expect(driver.size === content.length, `the size is ${driver.size}, not ${content.length}`);
      subject.content.fill(0, shortSize);
      await subject.expectContent("content after shrinking and growing");
      const longer = content.length + 4 * granule;
      await driver.truncate?.(longer, { zero });
      if (capabilities.contents === "ignored") return;
      const grown = new Uint8Array(longer);
      grown.set(subject.content);
      expectBytes(await readAll(driver), grown, "content after growing");
    }));
  it("truncate to the present length changes nothing", () =>
    withSubject(context, "filled", async (subject) => {
      await subject.driver.truncate?.(subject.content.length);
      expect(subject.driver.size === subject.content.length, "the size changed");
      await subject.expectContent("content");
    }));
}

function unsupported(error: unknown): undefined {
  const { code } = expectBlockError(error, "getInfo");
  expect(code === "ENOTSUP", `getInfo answers ${code}`);
}
