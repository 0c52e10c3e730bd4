import { nameOfErrno } from "@blocklayer/errors";
import { NbdErrno } from "./constants.ts";

const TO_WIRE: ReadonlyMap<string, number> = new Map([
  ["EPERM", NbdErrno.EPERM],
  ["EROFS", NbdErrno.EPERM],
  ["EIO", NbdErrno.EIO],
  ["ENOMEM", NbdErrno.ENOMEM],
  ["EDQUOT", NbdErrno.ENOSPC],
  ["EFBIG", NbdErrno.ENOSPC],
  ["ENOSPC", NbdErrno.ENOSPC],
  ["EOVERFLOW", NbdErrno.EOVERFLOW],
  ["ENOTSUP", NbdErrno.ENOTSUP],
  ["EOPNOTSUPP", NbdErrno.ENOTSUP],
  ["ESHUTDOWN", NbdErrno.ESHUTDOWN],
]);

const FROM_WIRE: ReadonlyMap<number, string> = new Map(
  Object.entries(NbdErrno)
    .filter(([, value]) => value !== NbdErrno.SUCCESS)
    .map(([name, value]) => [value, name]),
);

/**
 * Returns the error number that a server sends for an errno name (the `code` of a `BlockError`).
 *
 * @returns `EINVAL` (22) for every name that has no number of its own on the wire
 * @see spec/nbd.md section 6
 */
export function nbdErrorOfCode(code: string): number {
  return TO_WIRE.get(code) ?? NbdErrno.EINVAL;
}

/** Returns the error number that a server sends for an operating system's error number of either sign; 0 for 0. */
export function nbdErrorOfErrno(errno: number): number {
  return errno === 0 ? NbdErrno.SUCCESS : nbdErrorOfCode(nameOfErrno(errno) ?? "EINVAL");
}

/**
 * Returns the errno name for a non-zero error number that a client received.
 *
 * @returns `"EINVAL"` for a number that the protocol does not know
 * @see spec/nbd.md section 6
 */
export function codeOfNbdError(error: number): string {
  return FROM_WIRE.get(error) ?? "EINVAL";
}
