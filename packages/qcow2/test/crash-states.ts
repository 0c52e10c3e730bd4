import { ReferenceDisk } from "@blocklayer/driver-tests";

/** A change of a disk, or a flush. */
type Change = { readonly offset: number; readonly bytes: Uint8Array } | "flush";

const SECTOR = 512;

/** A disk that remembers what was done to it, in order. */
export class RecordingDisk extends ReferenceDisk {
  readonly log: Change[] = [];

  constructor(bytes: Uint8Array) {
    super({ size: bytes.length, growing: true });
    this.bytes.set(bytes);
  }

  override pwrite(offset: number, buffer: Uint8Array): Promise<void> {
    this.log.push({ offset, bytes: buffer.slice() });
    return super.pwrite(offset, buffer);
  }

  override pwriteZeroes(offset: number, length: number): Promise<void> {
    this.log.push({ offset, bytes: new Uint8Array(length) });
    return super.pwriteZeroes(offset, length);
  }

  override pdiscard(offset: number, length: number): Promise<void> {
    this.log.push({ offset, bytes: new Uint8Array(length) });
    return super.pdiscard(offset, length);
  }

  override flushToDisk(): Promise<void> {
    this.log.push("flush");
    return super.flushToDisk();
  }
}

export interface CrashState {
  readonly what: string;
  readonly bytes: Uint8Array;
  /** All requests up to some, and none behind. */
  readonly isPrefix: boolean;
}

/** A part of a change that a disk writes completely or not at all. */
interface Sector {
  readonly offset: number;
  readonly bytes: Uint8Array;
}

/**
 * What a disk may hold after it stopped behind the n-th request, for all n: of what was written since the last flush
 * everything, nothing, the first or the last sectors only, or any of them.
 */
export function* crashStates(
  base: Uint8Array,
  log: readonly Change[],
): Generator<CrashState, void, undefined> {
  let stable = base;
  let pending: Sector[] = [];
  for (const [index, change] of [...log, "flush" as const].entries()) {
    for (const [how, kept] of choices(pending, index)) {
      const bytes = applied(stable, kept);
      yield { what: `request ${index}: ${how}`, bytes, isPrefix: how === "all" };
    }
    if (change === "flush") {
      stable = applied(stable, pending);
      pending = [];
    } else {
      pending = [...pending, ...sectorsOf(change)];
    }
  }
  yield { what: "the end", bytes: stable, isPrefix: true };
}

function* choices(
  pending: readonly Sector[],
  seed: number,
): Generator<readonly [string, readonly Sector[]], void, undefined> {
  yield ["all", pending];
  if (pending.length === 0) return;
  yield ["none", []];
  for (let count = 1; count < Math.min(pending.length, 9); count += 1) {
    yield [`the first ${count}`, pending.slice(0, count)];
    yield [`the last ${count}`, pending.slice(-count)];
  }
  for (let round = 0; round < 3; round += 1) {
    let state = seed * 3 + round + 1;
    const kept = pending.filter(() => {
      state = (state * 48_271) % 2_147_483_647;
      return state % 2 === 0;
    });
    yield [`some (${round})`, kept];
  }
}

function sectorsOf({ offset, bytes }: { offset: number; bytes: Uint8Array }): Sector[] {
  const sectors: Sector[] = [];
  for (let at = 0; at < bytes.length; ) {
    const length = Math.min(bytes.length - at, SECTOR - ((offset + at) % SECTOR));
    sectors.push({ offset: offset + at, bytes: bytes.subarray(at, at + length) });
    at += length;
  }
  return sectors;
}

/** A longer disk reads as zeroes where nothing was written. */
function applied(base: Uint8Array, sectors: readonly Sector[]): Uint8Array {
  const end = sectors.reduce((max, one) => Math.max(max, one.offset + one.bytes.length), 0);
  const disk = new Uint8Array(Math.max(base.length, end));
  disk.set(base);
  for (const { offset, bytes } of sectors) disk.set(bytes, offset);
  return disk;
}
