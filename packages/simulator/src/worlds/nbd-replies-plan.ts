import {
  encodeChunk,
  encodeErrorChunk,
  encodeOffsetData,
  encodeOffsetHole,
  encodeStatus,
  NbdChunk,
  NbdChunkFlag,
  NbdCommand,
  NbdCommandFlag,
  NbdErrno,
  type NbdExtent,
} from "@blocklayer/nbd-protocol";
import type { Decisions } from "../decisions.ts";

/** Contexts that the client has selected. */
export const CONTEXTS: readonly number[] = [1, 7];

/** What a server can get wrong in one reply. */
export type Fault =
  | "none"
  | "overlap"
  | "gap"
  | "outside"
  | "fragmented"
  | "unknown context"
  | "context twice"
  | "context missing"
  | "several extents"
  | "empty extent"
  | "other offset"
  | "other cookie";

const READ_FAULTS = ["overlap", "gap", "outside", "other cookie", "other offset"] as const;
const STATUS_FAULTS = [
  "context twice",
  "context missing",
  "unknown context",
  "empty extent",
  "other cookie",
] as const;

/** A request of the model's client. */
export interface ModelRequest {
  readonly cookie: number;
  readonly type: number;
  readonly flags: number;
  /** Bytes. */
  readonly offset: number;
  /** Bytes. */
  readonly length: number;
  readonly fault: Fault;
  /** Of a read: what the reply says. */
  readonly data: Uint8Array;
  /** Of a block status: what the reply says of each context. */
  readonly extents: readonly (readonly NbdExtent[])[];
  /** Error number, 0 for success. */
  readonly error: number;
}

const BLOCK = 16;

export function drawRequest(decisions: Decisions, cookie: number, mayFault: boolean): ModelRequest {
  const isRead = !decisions.chance("status", 1, 3);
  const offset = decisions.choose("offset", 8) * BLOCK;
  const length = (1 + decisions.choose("length", 8)) * BLOCK;
  const isWhole = decisions.chance("whole", 1, 4);
  const error = decisions.chance("error", 1, 8) ? NbdErrno.EIO : NbdErrno.SUCCESS;
  const isWrong = mayFault && error === NbdErrno.SUCCESS && decisions.chance("fault", 1, 3);
  const data = Uint8Array.from({ length }, (_, index) =>
    Math.floor(index / BLOCK) % 3 === 2 ? 0 : (cookie * 31 + index) % 251,
  );
  const extents = CONTEXTS.map(() => drawExtents(decisions, length, isWhole));
  const wholeFault = isRead ? "fragmented" : "several extents";
  const faults = isRead ? READ_FAULTS : STATUS_FAULTS;
  const fault: Fault = !isWrong
    ? "none"
    : isWhole && length > BLOCK && decisions.chance("not whole", 1, 2)
      ? wholeFault
      : decisions.among<Fault>("kind of fault", faults as readonly [Fault, ...Fault[]]);
  const flags = !isWhole ? 0 : isRead ? NbdCommandFlag.DF : NbdCommandFlag.REQ_ONE;
  const type = isRead ? NbdCommand.READ : NbdCommand.BLOCK_STATUS;
  return { cookie, type, flags, offset, length, fault, data, extents, error };
}

function drawExtents(decisions: Decisions, length: number, isOne: boolean): NbdExtent[] {
  const extents: NbdExtent[] = [];
  for (let at = 0; at < length && !(isOne && extents.length === 1); ) {
    const run = (1 + decisions.choose("extent", 4)) * BLOCK;
    extents.push({ length: run, flags: decisions.choose("flags", 4), flagsHigh: 0 });
    at += run;
  }
  return extents;
}

interface Piece {
  readonly at: number;
  readonly end: number;
}

/** Returns the chunks of a reply, in an order that is allowed; the first wrong one is wrong by the request's fault. */
export function chunksOf(
  decisions: Decisions,
  request: ModelRequest,
  extended: boolean,
): Uint8Array[] {
  const { fault, cookie, offset } = request;
  const payloads =
    request.type === NbdCommand.READ
      ? readPayloads(decisions, request)
      : statusPayloads(request, extended);
  if (request.error !== NbdErrno.SUCCESS) {
    payloads.push({ type: NbdChunk.ERROR, payload: encodeErrorChunk(request.error, "model") });
  }
  return payloads.map(({ type, payload }, index) =>
    encodeChunk(
      {
        flags: index === payloads.length - 1 ? NbdChunkFlag.DONE : 0,
        type,
        cookieHigh: fault === "other cookie" ? 8 : 9,
        cookieLow: cookie,
        offset: fault === "other offset" ? offset + 1 : offset,
      },
      extended,
      payload,
    ),
  );
}

interface Payload {
  readonly type: number;
  readonly payload: Uint8Array;
}

function readPayloads(decisions: Decisions, request: ModelRequest): Payload[] {
  const { fault, offset, data, error } = request;
  const isCut = fault === "fragmented" || fault === "overlap" || fault === "outside";
  const isWhole = (request.flags & NbdCommandFlag.DF) !== 0 && !isCut;
  const pieces = isWhole ? [{ at: 0, end: data.length }] : drawPieces(decisions, request);
  if (fault === "gap" || (error !== NbdErrno.SUCCESS && decisions.chance("fails early", 1, 2))) {
    pieces.splice(decisions.choose("gap", pieces.length), 1);
  }
  const payloads: Payload[] = pieces.map(({ at, end }) => {
    const bytes = isInside(at, end, data)
      ? data.subarray(at, end)
      : new Uint8Array(end - at).fill(1);
    return !isWhole && bytes.every((byte) => byte === 0)
      ? { type: NbdChunk.OFFSET_HOLE, payload: encodeOffsetHole(offset + at, end - at) }
      : { type: NbdChunk.OFFSET_DATA, payload: encodeOffsetData(offset + at, bytes) };
  });
  if (fault === "gap" && payloads.length === 0) {
    payloads.push({ type: NbdChunk.NONE, payload: new Uint8Array(0) });
  }
  return payloads;
}

function drawPieces(decisions: Decisions, { data, fault, offset }: ModelRequest): Piece[] {
  const pieces: Piece[] = [];
  const blocksMax = fault === "fragmented" ? 1 : 4;
  for (let at = 0; at < data.length; ) {
    const run = (1 + decisions.choose("piece", blocksMax)) * BLOCK;
    const end = Math.min(at + run, data.length);
    pieces.push({ at, end });
    at = end;
  }
  for (let index = pieces.length - 1; index > 0; index -= 1) {
    const other = index - decisions.choose("order", index + 1);
    const moved = pieces[index] as Piece;
    pieces[index] = pieces[other] as Piece;
    pieces[other] = moved;
  }
  const { at, end } = pieces.at(-1) as Piece;
  if (fault === "overlap") pieces.push({ at: at + decisions.choose("overlap", end - at), end });
  if (fault === "outside") {
    const { length } = data;
    const isBefore = offset > 0 && decisions.chance("before the start", 1, 2);
    pieces.push(isBefore ? { at: -1, end: 0 } : { at: length, end: length + 1 });
  }
  return pieces;
}

function isInside(at: number, end: number, { length }: Uint8Array): boolean {
  return at >= 0 && end <= length;
}

function statusPayloads(request: ModelRequest, extended: boolean): Payload[] {
  const { fault, extents, length } = request;
  const type = extended ? NbdChunk.BLOCK_STATUS_EXT : NbdChunk.BLOCK_STATUS;
  const statuses = CONTEXTS.map((contextId, index) => ({
    contextId,
    extents: extents[index] as readonly NbdExtent[],
  }));
  const [first, second] = statuses as [(typeof statuses)[0], (typeof statuses)[0]];
  const one: NbdExtent = { length: length / 2, flags: 1, flagsHigh: 0 };
  switch (fault) {
    case "context missing":
      statuses.pop();
      break;
    case "context twice":
      statuses[1] = first;
      break;
    case "unknown context":
      statuses[1] = { ...second, contextId: 5 };
      break;
    case "several extents":
      statuses[1] = { ...second, extents: [one, one] };
      break;
    default:
      break;
  }
  const payloads = statuses.map((status) => ({ type, payload: encodeStatus(status, extended) }));
  // The length of the first extent follows the context, in extended replies also the count and a half of zeroes.
  if (fault === "empty extent") payloads[0]?.payload.fill(0, extended ? 8 : 4, extended ? 16 : 8);
  return payloads;
}
