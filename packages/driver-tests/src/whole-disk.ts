import { type BlockDriver, type BlockStatus, mergeLimits, StatusFlag } from "@blocklayer/driver";
import { isAligned } from "@blocklayer/offsets";
import { expect, expectBytes } from "./expect.ts";

/** Longest disk that is read whole, in bytes. */
const SIZE_MAX = 64 * 1024 * 1024;

/** Reads everything, in requests that the driver's limits allow. */
export async function readAll(driver: BlockDriver): Promise<Uint8Array> {
  expect(driver.size <= SIZE_MAX, `a disk of ${driver.size} bytes is too large to be read whole`);
  const content = new Uint8Array(driver.size);
  await inPieces(driver, content.length, (offset, length) =>
    driver.pread(offset, content.subarray(offset, offset + length)),
  );
  return content;
}

/** Writes everything, in requests that the driver's limits allow. */
export async function writeAll(driver: BlockDriver, content: Uint8Array): Promise<void> {
  await inPieces(
    driver,
    content.length,
    (offset, length) =>
      driver.pwrite?.(offset, content.subarray(offset, offset + length)) ?? Promise.resolve(),
  );
}

async function inPieces(
  driver: BlockDriver,
  size: number,
  work: (offset: number, length: number) => Promise<void>,
): Promise<void> {
  const { maxTransfer, requestAlignment } = mergeLimits([], driver.limits);
  expect(
    isAligned(size, requestAlignment),
    `a disk of ${size} bytes is not a multiple of its alignment, ${requestAlignment}`,
  );
  const step = maxTransfer === 0 ? size : maxTransfer;
  for (let offset = 0; offset < size; offset += step) {
    await work(offset, Math.min(step, size - offset));
  }
}

/** Returns what lies below a range that a driver does not store; `undefined` where nobody knows. */
export type ContentReader = (offset: number, length: number) => Promise<Uint8Array | undefined>;

/**
 * Walks the status of the whole disk and compares it with the content: runs tile, flags go together, zero
 * reads as zeroes, unallocated reads as what is below, and a location holds what it is said to hold.
 *
 * @param content - what the driver reads
 * @param below - what unallocated ranges show
 * @returns the runs
 */
export async function checkStatus(
  driver: BlockDriver,
  content: Uint8Array,
  below: ContentReader,
  options: { readonly wantZero?: boolean } = {},
): Promise<BlockStatus[]> {
  const { requestAlignment } = mergeLimits([], driver.limits);
  const runs: BlockStatus[] = [];
  for (let offset = 0; offset < content.length; ) {
    const asked = content.length - offset;
    const run = await driver.blockStatus?.(offset, asked, options);
    expect(run !== undefined, "the driver has no blockStatus");
    const what = `status at ${offset} (flags ${run.flags}, length ${run.length})`;
    expect(run.length > 0 && run.length <= asked, `${what}: the length is not within ${asked}`);
    expect(isAligned(run.length, requestAlignment), `${what}: not aligned`);
    checkFlags(run, what);
    await checkRun(run, offset, content, below, what);
    runs.push(run);
    offset += run.length;
  }
  return runs;
}

function checkFlags({ flags, offset, child }: BlockStatus, what: string): void {
  const has = (flag: number): boolean => (flags & flag) !== 0;
  expect(!has(StatusFlag.allocated), `${what}: allocated is added by the graph`);
  expect(!has(StatusFlag.eof), `${what}: eof is added by the graph`);
  expect(
    !has(StatusFlag.raw) || flags === (StatusFlag.raw | StatusFlag.offsetValid),
    `${what}: raw goes with offsetValid alone`,
  );
  expect(!has(StatusFlag.raw) || child !== undefined, `${what}: raw names no child`);
  expect(has(StatusFlag.offsetValid) === (offset !== undefined), `${what}: offset and offsetValid`);
  expect(
    !has(StatusFlag.recurse) || (has(StatusFlag.data) && has(StatusFlag.offsetValid)),
    `${what}: recurse needs data and offsetValid`,
  );
}

async function checkRun(
  run: BlockStatus,
  offset: number,
  content: Uint8Array,
  below: ContentReader,
  what: string,
): Promise<void> {
  const part = content.subarray(offset, offset + run.length);
  if ((run.flags & StatusFlag.zero) !== 0) {
    expectBytes(part, new Uint8Array(part.length), `${what}: zero`, offset);
    return;
  }
  const isDecided = (run.flags & (StatusFlag.data | StatusFlag.raw)) !== 0;
  // A place that is kept for a range that is not decided here holds anything.
  if (isDecided && run.child !== undefined && run.offset !== undefined) {
    const stored = new Uint8Array(part.length);
    await run.child.pread(run.offset, stored);
    expectBytes(part, stored, `${what}: the location ${run.offset} of ${run.child.name}`, offset);
  }
  const shown = isDecided ? undefined : await below(offset, part.length);
  if (shown !== undefined) expectBytes(part, shown, `${what}: what is below`, offset);
}
