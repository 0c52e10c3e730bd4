import { alignDown, remainder } from "@blocklayer/offsets";
import { type BounceSlots, SLOT_SIZE } from "./bounce-slots.ts";
import { retried } from "./io-error.ts";
import type { OperatingSystem } from "./operating-system.ts";

/** Request alignments that are tried, bytes. */
const CANDIDATES: readonly number[] = [512, 1024, 2048, 4096];
const LAST_RESORT = 4096;

/**
 * Finds out in what units a file that bypasses the page cache is read.
 *
 * A file system that reads single bytes takes requests apart by itself and says nothing about the disk, so
 * then, and when nothing works, the answer is 4096.
 *
 * @returns bytes
 * @see spec/filters-and-raw.md section 6.1
 */
export async function probeAlignment(
  system: OperatingSystem,
  fd: number,
  slots: BounceSlots,
): Promise<number> {
  const canRead = (length: number): Promise<boolean> =>
    slots.lend((slot) =>
      system.read(fd, slot.subarray(0, length), 0).then(
        () => true,
        () => false,
      ),
    );
  if (await canRead(1)) return LAST_RESORT;
  for (const alignment of CANDIDATES) if (await canRead(alignment)) return alignment;
  return LAST_RESORT;
}

/**
 * Reads into a slot and copies from there, as far as one slot goes.
 *
 * @returns bytes read, less than both the slot and the buffer only at the end of the file
 */
export function readDirect(
  system: OperatingSystem,
  slots: BounceSlots,
  request: { readonly fd: number; readonly alignment: number },
  buffer: Uint8Array,
  offset: number,
): Promise<number> {
  const length = Math.min(buffer.length, SLOT_SIZE);
  return slots.lend(async (slot) => {
    let done = 0;
    while (done < length) {
      const count = await retried(() =>
        system.read(request.fd, slot.subarray(done, length), offset + done),
      );
      done += count;
      // A part of a unit is read at the end of the file only, and cannot be gone on from.
      if (count === 0 || remainder(count, request.alignment) !== 0) break;
    }
    buffer.set(slot.subarray(0, done));
    return done;
  });
}

/**
 * Gathers buffers into a slot and writes it, as far as one slot goes.
 *
 * @returns bytes written, whole units
 */
export function writeDirect(
  system: OperatingSystem,
  slots: BounceSlots,
  request: { readonly fd: number; readonly alignment: number },
  buffers: readonly Uint8Array[],
  offset: number,
): Promise<number> {
  return slots.lend(async (slot) => {
    let length = 0;
    for (const buffer of buffers) {
      const part = buffer.subarray(0, SLOT_SIZE - length);
      slot.set(part, length);
      length += part.length;
      if (length === SLOT_SIZE) break;
    }
    const count = await system.write(request.fd, [slot.subarray(0, length)], offset);
    // What was written of a unit beyond whole ones is written again.
    return alignDown(count, request.alignment);
  });
}
