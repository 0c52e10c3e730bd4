import { type BlockLimits, RequestFlag, type RequestOptions } from "@blocklayer/driver";
import { expectBytes } from "../expect.ts";
import { patternBytes } from "../pattern.ts";
import { piecesOf } from "../pieces.ts";
import type { DriverCapabilities } from "./conformance-options.ts";
import type { Subject } from "./subject.ts";

/** An operation on a range, so that a trait is stated once and applied to all. */
export interface RangeOperation {
  readonly name: string;
  /** Whether a driver with these capabilities has it. */
  has(capabilities: Required<DriverCapabilities>): boolean;
  /** Longest request, in bytes; 0 for no limit. */
  lengthMax(limits: BlockLimits): number;
  /** Sends it; the result is checked against `subject.content`, which does not change. */
  send(subject: Subject, offset: number, length: number, options?: RequestOptions): Promise<void>;
  /** What the range holds afterwards; `undefined` when that is the driver's decision. */
  result(subject: Subject, offset: number, length: number): Uint8Array | undefined;
}

/** The bytes that the suite writes at a place: other than those it fills disks with. */
function written(offset: number, length: number): Uint8Array {
  return patternBytes(length, 11 + offset);
}

function current({ content }: Subject, offset: number, length: number): Uint8Array {
  return content.slice(offset, offset + length);
}

const read: RangeOperation = {
  name: "pread",
  has: () => true,
  lengthMax: ({ maxTransfer }) => maxTransfer,
  send: async (subject, offset, length, options) => {
    // Bytes around the buffer show a driver that writes outside of it.
    const guarded = new Uint8Array(length + 2).fill(0xa5);
    await subject.driver.pread(offset, guarded.subarray(1, length + 1), options);
    subject.expectRead(guarded.subarray(1, length + 1), offset, `pread at ${offset}`);
    const edges = new Uint8Array([guarded[0] ?? 0, guarded[length + 1] ?? 0]);
    expectBytes(edges, new Uint8Array([0xa5, 0xa5]), "the bytes around the buffer");
  },
  result: current,
};

const write: RangeOperation = {
  name: "pwrite",
  has: (capabilities) => capabilities.write,
  lengthMax: ({ maxTransfer }) => maxTransfer,
  send: async ({ driver }, offset, length, options) => {
    const buffer = written(offset, length);
    try {
      await driver.pwrite?.(offset, buffer, options);
      expectBytes(buffer, written(offset, length), "the caller's buffer");
    } finally {
      // The buffer is the caller's again: a driver that kept it would now show this.
      buffer.fill(0xee);
    }
  },
  result: (_subject, offset, length) => written(offset, length),
};

const writeVector: RangeOperation = {
  ...write,
  name: "pwritev",
  has: (capabilities) => capabilities.writeVector,
  send: async ({ driver, granule }, offset, length, options) => {
    const buffer = written(offset, length);
    const cut = Math.min(length, Math.max(1, Math.floor(granule / 2)));
    await driver.pwritev?.(offset, [buffer.subarray(0, cut), buffer.subarray(cut)], options);
    expectBytes(buffer, written(offset, length), "the caller's buffers");
    buffer.fill(0xee);
  },
};

const writeZeroes: RangeOperation = {
  name: "pwriteZeroes",
  has: (capabilities) => capabilities.writeZeroes,
  lengthMax: ({ maxPwriteZeroes }) => maxPwriteZeroes,
  send: async ({ driver, limits }, offset, length, options) => {
    const { pwriteZeroesAlignment, maxPwriteZeroes } = limits;
    for (const piece of piecesOf(offset, length, pwriteZeroesAlignment, maxPwriteZeroes)) {
      await driver.pwriteZeroes?.(...piece, options);
    }
  },
  result: (_subject, _offset, length) => new Uint8Array(length),
};

const unmapZeroes: RangeOperation = {
  ...writeZeroes,
  name: "pwriteZeroes that may unmap",
  send: (subject, offset, length, options) => {
    const flags = (options?.flags ?? 0) | (subject.driver.flags.zeroes & RequestFlag.mayUnmap);
    return writeZeroes.send(subject, offset, length, { ...options, flags });
  },
};

export const discard: RangeOperation = {
  name: "pdiscard",
  has: (capabilities) => capabilities.discard,
  lengthMax: ({ maxPdiscard }) => maxPdiscard,
  send: async ({ driver, limits }, offset, length, options) => {
    const { pdiscardAlignment, maxPdiscard } = limits;
    for (const piece of piecesOf(offset, length, pdiscardAlignment, maxPdiscard)) {
      await driver.pdiscard?.(...piece, options);
    }
  },
  result: () => undefined,
};

export const RANGE_OPERATIONS: readonly RangeOperation[] = [
  read,
  write,
  writeVector,
  writeZeroes,
  unmapZeroes,
  discard,
];

/** Sends an operation and takes over what it changes; the rest must be as before. */
export async function perform(
  subject: Subject,
  operation: RangeOperation,
  offset: number,
  length: number,
  options?: RequestOptions,
): Promise<void> {
  await operation.send(subject, offset, length, options);
  await takeResult(subject, operation, offset, length);
}

/** After an operation succeeded: what `subject.content` is now. */
export async function takeResult(
  subject: Subject,
  operation: RangeOperation,
  offset: number,
  length: number,
): Promise<void> {
  if (!subject.storesContent) return;
  const result = operation.result(subject, offset, length) ?? new Uint8Array(length);
  if (operation.result(subject, offset, length) === undefined) {
    await readRange(subject, offset, result);
  }
  subject.content.set(result, offset);
}

/** Reads a range in requests that the limits allow. */
export async function readRange(
  { driver, limits }: Subject,
  offset: number,
  buffer: Uint8Array,
): Promise<void> {
  const step = limits.maxTransfer === 0 ? buffer.length : limits.maxTransfer;
  for (let position = 0; position < buffer.length; position += step) {
    const end = Math.min(position + step, buffer.length);
    await driver.pread(offset + position, buffer.subarray(position, end));
  }
}
