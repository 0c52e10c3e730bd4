import { SeededRandom } from "@blocklayer/env";
import { expect, outcomeOf } from "../expect.ts";
import { type ReleaseOrder, releaseOrders } from "../request-gate.ts";
import { readAll } from "../whole-disk.ts";
import type { SuiteContext } from "./conformance-options.ts";
import { RANGE_OPERATIONS, type RangeOperation, readRange, takeResult } from "./operations.ts";
import { type Subject, withSubject } from "./subject.ts";

const ORDERS: readonly (readonly [string, () => ReleaseOrder])[] = [
  ["in order", () => releaseOrders.first],
  ["backwards", () => releaseOrders.last],
  ["in any order", () => releaseOrders.random(new SeededRandom(5))],
];

/** Requests at once: overlapping, neighbouring, cancelled. */
export function concurrencyTraits(context: SuiteContext): void {
  const { it, capabilities } = context;
  const operations = RANGE_OPERATIONS.filter(({ has }) => has(capabilities));
  if (capabilities.write) {
    for (const [title, order] of ORDERS) {
      it(`neighbouring writes at once lose no byte when children answer ${title}`, () =>
        withSubject(context, "fresh", (subject) => writeNeighbours(subject, order())));
      for (const operation of operations) {
        it(`${operation.name} overlapping a write ends as one of them when children answer ${title}`, () =>
          withSubject(context, "filled", (subject) =>
            overlap(subject, operation, order(), capabilities.contents === "stored"),
          ));
      }
    }
  }
  for (const operation of operations) {
    it(`${operation.name} with an aborted signal completes or rejects with its reason`, () =>
      withSubject(context, "filled", (subject) => cancel(subject, operation, "before")));
    it(`${operation.name} aborted while its children work leaves the disk usable`, () =>
      withSubject(context, "filled", (subject) => cancel(subject, operation, "meanwhile")));
  }
}

/** Writes single granules on both sides of a cluster boundary, all at once. */
async function writeNeighbours(subject: Subject, order: ReleaseOrder): Promise<void> {
  const { granule, middle, content, driver, host } = subject;
  const unit = Math.max(granule, Math.floor(512 / granule) * granule);
  const count = Math.min(NEIGHBOURS, Math.floor((2 * middle) / unit / 2) * 2);
  const first = middle - (count / 2) * unit;
  host.gate.hold();
  const writes: Promise<void>[] = [];
  for (let index = 0; index < count; index += 1) {
    const offset = first + index * unit;
    const bytes = new Uint8Array(unit).fill(index + 1);
    content.set(bytes, offset);
    writes.push(driver.pwrite?.(offset, bytes) ?? Promise.resolve());
  }
  const all = Promise.all(writes);
  await host.gate.releaseUntil(all, order);
  await all;
  await subject.expectContent("content after neighbouring writes");
}

async function overlap(
  subject: Subject,
  operation: RangeOperation,
  order: ReleaseOrder,
  storesContent: boolean,
): Promise<void> {
  const { granule, middle, driver, host, content } = subject;
  const before = content.slice();
  const bytes = new Uint8Array(2 * granule).fill(0x5c);
  host.gate.hold();
  const write = driver.pwrite?.(middle - granule, bytes) ?? Promise.resolve();
  // A read may see either content, so its check is not wanted here.
  const other =
    operation.name === "pread"
      ? driver.pread(middle, new Uint8Array(2 * granule))
      : operation.send(subject, middle, 2 * granule);
  const both = Promise.all([write, other]);
  await host.gate.releaseUntil(both, order);
  await both;
  const after = await readAll(driver);
  if (!storesContent) return;
  content.set(bytes, middle - granule);
  const result = operation.result(subject, middle, 2 * granule);
  for (let index = 0; index < after.length; index += 1) {
    const inWrite = index >= middle - granule && index < middle + granule;
    const inOther = index >= middle && index < middle + 2 * granule;
    const value = after[index];
    const fromWrite = inWrite && value === 0x5c;
    const fromOther = inOther && (result === undefined || value === result[index - middle]);
    const isUntouched = (!inWrite || !inOther) && !inWrite && value === before[index];
    const isKept = inOther && operation.name === "pread" && !inWrite && value === before[index];
    expect(
      fromWrite || fromOther || isUntouched || isKept,
      () => `byte ${index} is ${value}: neither of the requests that overlap`,
    );
  }
}

async function cancel(
  subject: Subject,
  operation: RangeOperation,
  when: "before" | "meanwhile",
): Promise<void> {
  const { granule, middle, host, content } = subject;
  const controller = new AbortController();
  const reason = new Error("cancelled by the test");
  const [offset, length] = [middle - granule, 2 * granule];
  const before = content.slice(offset, offset + length);
  host.gate.hold();
  if (when === "before") controller.abort(reason);
  const work = operation.send(subject, offset, length, { signal: controller.signal });
  if (when === "meanwhile") controller.abort(reason);
  const outcome = outcomeOf(work);
  await host.gate.releaseUntil(outcome, releaseOrders.first);
  const ended = await outcome;
  if (ended.ok) {
    await takeResult(subject, operation, offset, length);
  } else {
    expect(ended.error === reason, () => `rejected with ${String(ended.error)}, not the reason`);
    await takeOldOrNew(subject, operation, offset, before);
  }
  await subject.expectContent(`content after ${operation.name} was cancelled`);
  await operation.send(subject, offset, length);
  await takeResult(subject, operation, offset, length);
  await subject.expectContent(`content after ${operation.name} was done again`);
}

/** After a request that failed: each byte of its range is old or new; takes over which. */
export async function takeOldOrNew(
  subject: Subject,
  operation: RangeOperation,
  offset: number,
  before: Uint8Array,
): Promise<void> {
  const found = new Uint8Array(before.length);
  await readRange(subject, offset, found);
  const result = operation.result(subject, offset, before.length);
  for (const [index, value] of found.entries()) {
    const isKnown = value === before[index] || result === undefined || value === result[index];
    expect(isKnown, () => `byte ${offset + index} is ${value}: neither the old nor the new one`);
  }
  subject.content.set(found, offset);
}

const NEIGHBOURS = 16;
