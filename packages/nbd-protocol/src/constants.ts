/*
 * Every number of the protocol. The peer may send any other, so fields are plain `number`s and these are the
 * names of the known ones. 64-bit magic numbers are written as two halves.
 */

/** The TCP port assigned to NBD. */
export const NBD_PORT: number = 10809;

/** First and fixed numbers of each kind of message; `High` and `Low` are the halves of 64 bits. */
export const NbdMagic = {
  /** "NBDMAGIC". */
  INIT_HIGH: 0x4e42444d,
  INIT_LOW: 0x41474943,
  /** "IHAVEOPT": the newstyle handshake, and the start of each option request. */
  OPTION_HIGH: 0x49484156,
  OPTION_LOW: 0x454f5054,
  OLDSTYLE_HIGH: 0x00004202,
  OLDSTYLE_LOW: 0x81861253,
  OPTION_REPLY_HIGH: 0x0003e889,
  OPTION_REPLY_LOW: 0x045565a9,
  REQUEST: 0x25609513,
  EXTENDED_REQUEST: 0x21e41c71,
  SIMPLE_REPLY: 0x67446698,
  STRUCTURED_REPLY: 0x668e33ef,
  EXTENDED_REPLY: 0x6e8a278c,
} as const;

/** Sizes of fixed parts in bytes. */
export const NbdSize = {
  GREETING: 18,
  OLDSTYLE_GREETING: 152,
  CLIENT_FLAGS: 4,
  OPTION_HEADER: 16,
  OPTION_REPLY_HEADER: 20,
  /** Size and transmission flags that answer EXPORT_NAME, without the zeroes. */
  EXPORT_NAME_REPLY: 10,
  /** Zeroes after them, unless both sides set NO_ZEROES. */
  EXPORT_NAME_ZEROES: 124,
  REQUEST: 28,
  EXTENDED_REQUEST: 32,
  SIMPLE_REPLY: 16,
  STRUCTURED_REPLY: 20,
  EXTENDED_REPLY: 32,
} as const;

/** Flags of the server's greeting. */
export const NbdHandshakeFlag = { FIXED_NEWSTYLE: 1, NO_ZEROES: 2 } as const;

/** Flags of the client's answer to the greeting. */
export const NbdClientFlag = { FIXED_NEWSTYLE: 1, NO_ZEROES: 2 } as const;

/** Options of the haggling phase. */
export const NbdOption = {
  EXPORT_NAME: 1,
  ABORT: 2,
  LIST: 3,
  /** Withdrawn from the protocol. */
  PEEK_EXPORT: 4,
  STARTTLS: 5,
  INFO: 6,
  GO: 7,
  STRUCTURED_REPLY: 8,
  LIST_META_CONTEXT: 9,
  SET_META_CONTEXT: 10,
  EXTENDED_HEADERS: 11,
} as const;

/** Kinds of replies to an option; those with bit 31 are errors. */
export const NbdOptionReply = {
  ACK: 1,
  SERVER: 2,
  INFO: 3,
  META_CONTEXT: 4,
  ERR_UNSUP: 0x80000001,
  ERR_POLICY: 0x80000002,
  ERR_INVALID: 0x80000003,
  ERR_PLATFORM: 0x80000004,
  ERR_TLS_REQD: 0x80000005,
  ERR_UNKNOWN: 0x80000006,
  ERR_SHUTDOWN: 0x80000007,
  ERR_BLOCK_SIZE_REQD: 0x80000008,
  ERR_TOO_BIG: 0x80000009,
  ERR_EXT_HEADER_REQD: 0x8000000a,
} as const;

/** Kinds of information about an export. */
export const NbdInfo = { EXPORT: 0, NAME: 1, DESCRIPTION: 2, BLOCK_SIZE: 3 } as const;

/** What an export can do. */
export const NbdTransmissionFlag = {
  HAS_FLAGS: 0x1,
  READ_ONLY: 0x2,
  SEND_FLUSH: 0x4,
  SEND_FUA: 0x8,
  ROTATIONAL: 0x10,
  SEND_TRIM: 0x20,
  SEND_WRITE_ZEROES: 0x40,
  SEND_DF: 0x80,
  CAN_MULTI_CONN: 0x100,
  SEND_RESIZE: 0x200,
  SEND_CACHE: 0x400,
  SEND_FAST_ZERO: 0x800,
  BLOCK_STATUS_PAYLOAD: 0x1000,
} as const;

/** Commands of the transmission phase. */
export const NbdCommand = {
  READ: 0,
  WRITE: 1,
  DISC: 2,
  FLUSH: 3,
  TRIM: 4,
  CACHE: 5,
  WRITE_ZEROES: 6,
  BLOCK_STATUS: 7,
  RESIZE: 8,
} as const;

/** Flags of commands. */
export const NbdCommandFlag = {
  FUA: 0x1,
  NO_HOLE: 0x2,
  DF: 0x4,
  REQ_ONE: 0x8,
  FAST_ZERO: 0x10,
  PAYLOAD_LEN: 0x20,
} as const;

/** Kinds of chunks of a structured or extended reply; those with bit 15 are errors. */
export const NbdChunk = {
  NONE: 0,
  OFFSET_DATA: 1,
  OFFSET_HOLE: 2,
  BLOCK_STATUS: 5,
  BLOCK_STATUS_EXT: 6,
  ERROR: 0x8001,
  ERROR_OFFSET: 0x8002,
} as const;

/** Flags of chunks. `DONE` marks the last one of a reply. */
export const NbdChunkFlag = { DONE: 1 } as const;

/** Error numbers on the wire, whatever the platforms of both sides. */
export const NbdErrno = {
  SUCCESS: 0,
  EPERM: 1,
  EIO: 5,
  ENOMEM: 12,
  EINVAL: 22,
  ENOSPC: 28,
  EOVERFLOW: 75,
  ENOTSUP: 95,
  ESHUTDOWN: 108,
} as const;

/** Status flags of the context `base:allocation`. */
export const NbdAllocation = { HOLE: 1, ZERO: 2 } as const;

/** Status flags of a context `qemu:dirty-bitmap:NAME`. */
export const NbdDirty = { DIRTY: 1 } as const;

/** Names of meta contexts and the prefixes of families of them. */
export const NbdContext = {
  BASE_ALLOCATION: "base:allocation",
  ALLOCATION_DEPTH: "qemu:allocation-depth",
  DIRTY_BITMAP_PREFIX: "qemu:dirty-bitmap:",
} as const;

/** Returns whether a kind of option reply is an error. */
export function isOptionError(type: number): boolean {
  return type >= 0x80000000;
}

/** Returns whether a kind of chunk is an error, known or not. */
export function isErrorChunk(type: number): boolean {
  return type >= 0x8000;
}

/**
 * Returns the name of `value` in one of the tables of this module, for messages and logs.
 *
 * @returns `"GO"` for `nbdNameOf(NbdOption, 7)`; `"unknown (0x2a)"` for what has no name
 */
export function nbdNameOf(table: Readonly<Record<string, number>>, value: number): string {
  for (const [name, known] of Object.entries(table)) {
    if (known === value) return name;
  }
  return `unknown (0x${value.toString(16)})`;
}

/**
 * Returns the flags that may be set on a command, so that a server answers `EINVAL` to others.
 *
 * FUA is allowed on every command. PAYLOAD_LEN is allowed with extended headers only: on WRITE and BLOCK_STATUS.
 *
 * @param type - a command; unknown ones allow FUA only
 * @param extended - extended headers are in use
 * @see spec/nbd.md section 3
 */
export function allowedCommandFlags(type: number, extended: boolean): number {
  const flag = NbdCommandFlag;
  const payload = extended ? flag.PAYLOAD_LEN : 0;
  switch (type) {
    case NbdCommand.READ:
      return flag.FUA | flag.DF;
    case NbdCommand.WRITE:
      return flag.FUA | payload;
    case NbdCommand.WRITE_ZEROES:
      return flag.FUA | flag.NO_HOLE | flag.FAST_ZERO;
    case NbdCommand.BLOCK_STATUS:
      return flag.FUA | flag.REQ_ONE | payload;
    default:
      return flag.FUA;
  }
}
