export type { ByteReceiver, ByteStream } from "./byte-stream.ts";
export * from "./constants.ts";
export type { Allocate } from "./frame-input.ts";
export {
  decodeClientFlags,
  decodeGreeting,
  encodeClientFlags,
  encodeGreeting,
  type NbdGreeting,
} from "./greeting.ts";
export { GreetingReader } from "./greeting-reader.ts";
export { NBD_LIMITS } from "./limits.ts";
export { codeOfNbdError, nbdErrorOfCode, nbdErrorOfErrno } from "./nbd-error.ts";
export { formatNbdUri, type NbdAddress, parseNbdUri } from "./nbd-uri.ts";
export {
  decodeExportName,
  decodeInfoRequest,
  decodeMetaContextRequest,
  encodeExportName,
  encodeInfoRequest,
  encodeMetaContextRequest,
  encodeOption,
  type NbdInfoRequest,
  type NbdMetaContextRequest,
  writeOptionHeader,
} from "./option.ts";
export { type NbdOptionRequest, OptionReader, type OptionReaderOptions } from "./option-reader.ts";
export {
  decodeExportNameReply,
  decodeInfo,
  decodeMetaContext,
  decodeServerEntry,
  encodeExportNameReply,
  encodeInfo,
  encodeMetaContext,
  encodeOptionError,
  encodeOptionReply,
  encodeServerEntry,
  type NbdBlockSize,
  type NbdExportNameReply,
  type NbdInfoReply,
  type NbdMetaContext,
  type NbdServerEntry,
  writeOptionReplyHeader,
} from "./option-reply.ts";
export {
  type NbdOptionReplyMessage,
  OptionReplyReader,
  type OptionReplyReaderOptions,
} from "./option-reply-reader.ts";
export type { ExpectedReply } from "./pending-reply.ts";
export {
  decodeChunk,
  decodeErrorChunk,
  decodeOffsetData,
  decodeOffsetHole,
  decodeSimpleReply,
  decodeStatus,
  encodeChunk,
  encodeErrorChunk,
  encodeOffsetData,
  encodeOffsetHole,
  encodeSimpleReply,
  encodeStatus,
  type NbdChunkHeader,
  type NbdErrorChunk,
  type NbdExtent,
  type NbdPiece,
  type NbdSimpleReply,
  type NbdStatus,
  statusLength,
  writeExtendedReply,
  writeOffsetData,
  writeOffsetHole,
  writeSimpleReply,
  writeStatus,
  writeStructuredReply,
} from "./reply.ts";
export {
  type NbdReply,
  type ReplyMode,
  ReplyReader,
  type ReplyReaderOptions,
} from "./reply-reader.ts";
export {
  decodeRequest,
  decodeStatusFilter,
  encodeRequest,
  encodeStatusFilter,
  type NbdRequestHeader,
  type NbdStatusFilter,
  writeExtendedRequest,
  writeRequest,
} from "./request.ts";
export { type NbdRequest, RequestReader, type RequestReaderOptions } from "./request-reader.ts";
export { decodeMessage } from "./text.ts";
