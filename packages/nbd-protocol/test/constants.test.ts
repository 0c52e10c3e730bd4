import { errnoOf } from "@blocklayer/errors";
import {
  allowedCommandFlags,
  codeOfNbdError,
  isErrorChunk,
  isOptionError,
  NbdChunk,
  NbdCommand,
  NbdCommandFlag,
  NbdErrno,
  NbdOption,
  NbdOptionReply,
  nbdErrorOfCode,
  nbdErrorOfErrno,
  nbdNameOf,
} from "@blocklayer/nbd-protocol";
import { describe, expect, it } from "vitest";

const { FUA, NO_HOLE, DF, REQ_ONE, FAST_ZERO, PAYLOAD_LEN } = NbdCommandFlag;

describe("errors", () => {
  it.each([
    ["EPERM", 1, "EPERM"],
    ["EROFS", 1, "EPERM"],
    ["EIO", 5, "EIO"],
    ["ENOMEM", 12, "ENOMEM"],
    ["EINVAL", 22, "EINVAL"],
    ["ENOSPC", 28, "ENOSPC"],
    ["EDQUOT", 28, "ENOSPC"],
    ["EFBIG", 28, "ENOSPC"],
    ["EOVERFLOW", 75, "EOVERFLOW"],
    ["ENOTSUP", 95, "ENOTSUP"],
    ["EOPNOTSUPP", 95, "ENOTSUP"],
    ["ESHUTDOWN", 108, "ESHUTDOWN"],
    ["EBUSY", 22, "EINVAL"],
    ["ECANCELED", 22, "EINVAL"],
    ["EACCES", 22, "EINVAL"],
  ])("%s is sent as %d and received as %s", (code, error, received) => {
    expect(nbdErrorOfCode(code)).toBe(error);
    expect(nbdErrorOfErrno(errnoOf(code))).toBe(error);
    expect(nbdErrorOfErrno(-errnoOf(code))).toBe(error);
    expect(codeOfNbdError(error)).toBe(received);
  });

  it("sends an unknown name as EINVAL, and success as 0", () => {
    expect([nbdErrorOfCode("EWHATEVER"), nbdErrorOfErrno(0), nbdErrorOfErrno(9999)]).toEqual([
      22, 0, 22,
    ]);
  });

  it.each([2, 30, 107, 4096, 0xffffffff])("takes unknown number %d as EINVAL", (error) => {
    expect(codeOfNbdError(error)).toBe("EINVAL");
  });

  it("names each number on the wire as both sides do", () => {
    for (const [name, value] of Object.entries(NbdErrno)) {
      if (value !== 0) expect([nbdErrorOfCode(name), codeOfNbdError(value)]).toEqual([value, name]);
    }
  });
});

it.each([
  ["READ", NbdCommand.READ, FUA | DF, FUA | DF],
  ["WRITE", NbdCommand.WRITE, FUA, FUA | PAYLOAD_LEN],
  ["DISC", NbdCommand.DISC, FUA, FUA],
  ["FLUSH", NbdCommand.FLUSH, FUA, FUA],
  ["TRIM", NbdCommand.TRIM, FUA, FUA],
  ["CACHE", NbdCommand.CACHE, FUA, FUA],
  ["WRITE_ZEROES", NbdCommand.WRITE_ZEROES, FUA | NO_HOLE | FAST_ZERO, FUA | NO_HOLE | FAST_ZERO],
  ["BLOCK_STATUS", NbdCommand.BLOCK_STATUS, FUA | REQ_ONE, FUA | REQ_ONE | PAYLOAD_LEN],
  ["an unknown command", 99, FUA, FUA],
])("%s may have these flags", (_name, type, compact, extended) => {
  expect([allowedCommandFlags(type, false), allowedCommandFlags(type, true)]).toEqual([
    compact,
    extended,
  ]);
});

it("names numbers for messages", () => {
  expect(nbdNameOf(NbdOption, 7)).toBe("GO");
  expect(nbdNameOf(NbdOption, 42)).toBe("unknown (0x2a)");
});

it("tells errors by their highest bit", () => {
  expect([NbdOptionReply.ACK, NbdOptionReply.ERR_UNSUP, 0xffffffff].map(isOptionError)).toEqual([
    false,
    true,
    true,
  ]);
  expect([NbdChunk.NONE, NbdChunk.ERROR, 0xffff].map(isErrorChunk)).toEqual([false, true, true]);
});
