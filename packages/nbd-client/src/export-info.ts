import type { BlockLimits } from "@blocklayer/driver";
import { NBD_LIMITS, type NbdBlockSize, NbdTransmissionFlag } from "@blocklayer/nbd-protocol";
import { alignDown, isAligned } from "@blocklayer/offsets";

/** An export as the server describes it in the negotiation. */
export interface NbdExportInfo {
  /** As the client asked for it, or as the server calls it. */
  readonly exportName: string;
  readonly description: string | undefined;
  /** Bytes. */
  readonly size: number;
  /** The raw flags, see `NbdTransmissionFlag`. */
  readonly transmissionFlags: number;
  readonly isReadOnly: boolean;
  readonly isRotational: boolean;
  readonly canFlush: boolean;
  readonly canFua: boolean;
  readonly canTrim: boolean;
  readonly canWriteZeroes: boolean;
  readonly canFastZero: boolean;
  readonly canCache: boolean;
  /** A flush on one connection covers the writes that were answered on any. */
  readonly canMultiConnection: boolean;
  /** `undefined` when the server did not tell. */
  readonly blockSize: NbdBlockSize | undefined;
}

/** What the replies of a negotiation say of an export. */
export interface ExportFacts {
  readonly exportName: string;
  readonly size: number;
  readonly transmissionFlags: number;
  readonly description?: string | undefined;
  readonly blockSize?: NbdBlockSize | undefined;
}

/** Reads the flags. Without HAS_FLAGS they mean nothing, but for READ_ONLY, where caution is free. */
export function exportInfo(facts: ExportFacts): NbdExportInfo {
  const { transmissionFlags } = facts;
  const flag = NbdTransmissionFlag;
  const isReadOnly = (transmissionFlags & flag.READ_ONLY) !== 0;
  const isValid = (transmissionFlags & flag.HAS_FLAGS) !== 0;
  const has = (bit: number): boolean => isValid && (transmissionFlags & bit) !== 0;
  return {
    exportName: facts.exportName,
    description: facts.description,
    size: facts.size,
    transmissionFlags,
    isReadOnly,
    isRotational: has(flag.ROTATIONAL),
    canFlush: has(flag.SEND_FLUSH),
    canFua: has(flag.SEND_FUA),
    canTrim: has(flag.SEND_TRIM) && !isReadOnly,
    canWriteZeroes: has(flag.SEND_WRITE_ZEROES) && !isReadOnly,
    canFastZero: has(flag.SEND_FAST_ZERO) && !isReadOnly,
    canCache: has(flag.SEND_CACHE),
    canMultiConnection: has(flag.CAN_MULTI_CONN),
    blockSize: facts.blockSize,
  };
}

/** Bytes; what servers promise to take when they promise nothing. */
const SECTOR = 512;

/** The longest minimum block, so that lengths aligned to it are aligned to every other. */
const LARGEST_MINIMUM = 65536;

/** Commands without payload have lengths of 32 bits; half of that range suits every server. */
const EFFECT_MAX = alignDown(2 ** 31 - 1, LARGEST_MINIMUM);

/**
 * Returns the limits of requests to an export.
 *
 * The alignment is the server's minimum block. A server that tells none gets sectors of 512 bytes, unless its size
 * is not a multiple of them: then single bytes, or the end could not be reached.
 *
 * @see spec/nbd.md sections 7 and 11
 */
export function exportLimits(info: NbdExportInfo): BlockLimits {
  const { blockSize, size } = info;
  const assumed = isAligned(size, SECTOR) ? SECTOR : 1;
  const requestAlignment = blockSize?.minimum ?? assumed;
  return {
    requestAlignment,
    maxTransfer: alignDown(maxPayload(info), requestAlignment),
    optTransfer: blockSize?.preferred ?? 4096,
    maxPwriteZeroes: EFFECT_MAX,
    pwriteZeroesAlignment: requestAlignment,
    maxPdiscard: EFFECT_MAX,
    pdiscardAlignment: requestAlignment,
  };
}

/** Bytes of the longest payload that the server takes and this client sends. */
export function maxPayload({ blockSize }: NbdExportInfo): number {
  return Math.min(blockSize?.maximum ?? NBD_LIMITS.payload, NBD_LIMITS.payload);
}

/**
 * Returns what makes `after` another disk than `before`, `undefined` when it can take its place under a running node.
 *
 * It must have the size, be as writable, take every request that the node may send, and answer flushes as before.
 */
export function exportChange(before: NbdExportInfo, after: NbdExportInfo): string | undefined {
  if (after.size !== before.size) {
    return `its size is ${after.size} bytes, it was ${before.size}`;
  }
  if (after.isReadOnly !== before.isReadOnly) {
    return `it is ${after.isReadOnly ? "read-only" : "writable"} now`;
  }
  for (const ability of ABILITIES) {
    if (before[ability] && !after[ability]) return `it lost the ability ${ability}`;
  }
  const [old, now] = [exportLimits(before), exportLimits(after)];
  if (now.requestAlignment > old.requestAlignment) {
    return `its minimum block is ${now.requestAlignment} bytes, it was ${old.requestAlignment}`;
  }
  if (now.maxTransfer < old.maxTransfer) {
    return `its longest transfer is ${now.maxTransfer} bytes, it was ${old.maxTransfer}`;
  }
  return undefined;
}

const ABILITIES = [
  "canFlush",
  "canFua",
  "canTrim",
  "canWriteZeroes",
  "canFastZero",
  "canCache",
  "canMultiConnection",
] as const;
