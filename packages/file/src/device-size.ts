import { BlockError } from "@blocklayer/errors";
import type { BounceSlots } from "./bounce-slots.ts";
import { nativeError } from "./io-error.ts";
import type { FileStat, OperatingSystem } from "./operating-system.ts";

/** Unit in which the kernel's text files count, bytes. */
const SECTOR = 512;
/** Exponent of the largest size that is looked for by reading, 2^50 bytes. */
const SEARCH_BITS = 50;
/** What is read at once in the search; no device has larger units. */
const UNIT = 4096;

/**
 * Returns the bytes of a block device: asks the device, else the kernel's text files, else reads to find the end.
 *
 * @throws BlockError `EIO`, … the device does not answer
 */
export async function deviceSize(
  system: OperatingSystem,
  fd: number,
  stat: Pick<FileStat, "device">,
  slots: BounceSlots | undefined,
): Promise<number> {
  if (system.native !== undefined) {
    const size = system.native.deviceSize(fd);
    if (size < 0) throw nativeError(size, "asking for the size of the device failed", {});
    return size;
  }
  return (await sizeFromText(system, stat.device)) ?? searchEnd(system, fd, slots);
}

async function sizeFromText(system: OperatingSystem, device: number): Promise<number | undefined> {
  // Twelve bits of major number between eight low and the rest of the minor number's bits.
  const major = Math.floor(device / 2 ** 8) % 2 ** 12;
  const minor = (device % 2 ** 8) + (Math.floor(device / 2 ** 20) % 2 ** 12) * 2 ** 8;
  try {
    const text = await system.readText(`/sys/dev/block/${major}:${minor}/size`);
    const sectors = Number(text.trim());
    return Number.isSafeInteger(sectors) ? sectors * SECTOR : undefined;
  } catch {
    return undefined;
  }
}

/** Halves the range in which the end lies, from sector to sector. */
async function searchEnd(
  system: OperatingSystem,
  fd: number,
  slots: BounceSlots | undefined,
): Promise<number> {
  const read = async (offset: number): Promise<number> =>
    slots === undefined
      ? system.read(fd, new Uint8Array(UNIT), offset)
      : slots.lend((slot) => system.read(fd, slot.subarray(0, UNIT), offset));
  let low = 0;
  let high = 2 ** SEARCH_BITS;
  if ((await read(high)) > 0) {
    throw new BlockError("EFBIG", "the device is too large for its size to be found by reading");
  }
  // Data at `low` or nothing at all; none at `high`.
  while (high - low > UNIT) {
    const middle = low + Math.floor((high - low) / 2 / UNIT) * UNIT;
    if ((await read(middle)) > 0) low = middle;
    else high = middle;
  }
  return low + (await read(low));
}
