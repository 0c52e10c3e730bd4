import {
  allowedCommandFlags,
  NbdCommand,
  NbdCommandFlag,
  NbdErrno,
  type NbdRequest,
} from "@blocklayer/nbd-protocol";
import type { NbdExport } from "./nbd-export.ts";

/** What the rules depend on beside the request. */
export interface RequestRules {
  readonly chosen: NbdExport;
  /** Bytes of data of one request. */
  readonly payloadMax: number;
  /** Structured or extended replies were negotiated. */
  readonly structured: boolean;
  /** Extended headers were negotiated. */
  readonly extended: boolean;
}

/**
 * Returns 0 when a request may be carried out, else the error number to answer.
 *
 * @see spec/nbd.md section 3, "Server checks"
 */
export function faultOf(request: NbdRequest, rules: RequestRules): number {
  const { type, length } = request;
  const isTransfer = type === NbdCommand.READ || type === NbdCommand.CACHE;
  if (isTransfer && length > rules.payloadMax) return NbdErrno.EINVAL;
  const isChange = changes(type);
  if (isChange && rules.chosen.isReadOnly) return NbdErrno.EPERM;
  if (request.fault !== NbdErrno.SUCCESS) return request.fault;
  // A flush has no range; what a client writes there has no meaning.
  if (type !== NbdCommand.FLUSH && request.offset + length > rules.chosen.size) {
    return isChange && type !== NbdCommand.TRIM ? NbdErrno.ENOSPC : NbdErrno.EINVAL;
  }
  if ((request.flags & ~allowedFlags(type, rules)) !== 0) return NbdErrno.EINVAL;
  return isKnown(type) ? NbdErrno.SUCCESS : NbdErrno.EINVAL;
}

function changes(type: number): boolean {
  return type === NbdCommand.WRITE || type === NbdCommand.WRITE_ZEROES || type === NbdCommand.TRIM;
}

function allowedFlags(type: number, rules: RequestRules): number {
  const allowed = allowedCommandFlags(type, rules.extended);
  return rules.structured ? allowed : allowed & ~NbdCommandFlag.DF;
}

function isKnown(type: number): boolean {
  return type <= NbdCommand.WRITE_ZEROES && type !== NbdCommand.DISC;
}
