import { BlockError } from "@blocklayer/errors";
import {
  decodeInfo,
  decodeMessage,
  decodeServerEntry,
  encodeClientFlags,
  encodeExportName,
  encodeInfoRequest,
  encodeOption,
  isOptionError,
  NbdClientFlag,
  NbdHandshakeFlag,
  NbdInfo,
  type NbdInfoReply,
  NbdOption,
  NbdOptionReply,
  type NbdOptionReplyMessage,
  type NbdServerEntry,
  nbdNameOf,
} from "@blocklayer/nbd-protocol";
import type { Conversation } from "./conversation.ts";
import { exportInfo, type NbdExportInfo } from "./export-info.ts";

/** What the server and the client agreed on in the greeting. */
interface Greeted {
  /** Whether options can be haggled over. */
  readonly isFixed: boolean;
  readonly noZeroes: boolean;
}

/**
 * Negotiates an export to the begin of the transmission phase: GO, or EXPORT_NAME with servers that do not know it.
 *
 * @throws BlockError `ENOENT` there is no such export; `EPROTO` the server broke the protocol; `ECONNRESET` it closed
 *   the connection; `ENOTSUP` it wants TLS; or what else it answered
 * @see spec/nbd.md section 1
 */
export async function negotiateExport(
  conversation: Conversation,
  exportName: string,
): Promise<NbdExportInfo> {
  const greeting = await conversation.greeting();
  if (greeting.style === "oldstyle") {
    if (exportName === "") return exportInfo({ exportName, ...greeting });
    throw refusal("ENOENT", "Server does not support non-empty export names", { exportName });
  }
  const greeted = await answerGreeting(conversation, greeting.flags);
  if (greeted.isFixed) {
    const info = await askExport(conversation, NbdOption.GO, exportName);
    if (info !== "unsupported") return info;
  }
  return chooseByName(conversation, exportName, greeted.noZeroes);
}

/**
 * Lists the exports of a server, and ends the negotiation.
 *
 * @param withInfo - also ask for the properties of each
 * @throws BlockError `ENOTSUP` the server keeps no list; and as {@link negotiateExport}
 */
export async function negotiateList(
  conversation: Conversation,
  withInfo: boolean,
): Promise<NbdListedExport[]> {
  const greeting = await conversation.greeting();
  const hasOptions =
    greeting.style === "newstyle" && (await answerGreeting(conversation, greeting.flags)).isFixed;
  if (!hasOptions) {
    throw refusal("ENOTSUP", "Server does not support options, so it lists no exports", {});
  }
  const entries = await askList(conversation);
  const listed: NbdListedExport[] = [];
  for (const entry of entries) {
    const info = withInfo ? await infoOf(conversation, entry.exportName) : undefined;
    listed.push({ ...entry, info });
  }
  await abortNegotiation(conversation);
  return listed;
}

/** One export of a server's list. */
export interface NbdListedExport extends NbdServerEntry {
  /** Its properties, when they were asked for and the server told. */
  readonly info: NbdExportInfo | undefined;
}

/** Says goodbye while haggling; the server may acknowledge or just close. */
export async function abortNegotiation(conversation: Conversation): Promise<void> {
  await conversation.send(encodeOption(NbdOption.ABORT));
  await conversation.finish();
}

async function answerGreeting(conversation: Conversation, flags: number): Promise<Greeted> {
  const isFixed = (flags & NbdHandshakeFlag.FIXED_NEWSTYLE) !== 0;
  const noZeroes = (flags & NbdHandshakeFlag.NO_ZEROES) !== 0;
  const fixed = isFixed ? NbdClientFlag.FIXED_NEWSTYLE : 0;
  const answer = fixed | (noZeroes ? NbdClientFlag.NO_ZEROES : 0);
  await conversation.send(encodeClientFlags(answer));
  return { isFixed, noZeroes };
}

/** Sends GO or INFO and collects what the server tells. */
async function askExport(
  conversation: Conversation,
  option: number,
  exportName: string,
): Promise<NbdExportInfo | "unsupported"> {
  const payload = encodeInfoRequest({ exportName, infos: [NbdInfo.BLOCK_SIZE] });
  await conversation.send(encodeOption(option, payload));
  const infos = new Map<NbdInfoReply["kind"], NbdInfoReply>();
  for (;;) {
    const reply = await nextReply(conversation, option);
    if (reply.type === NbdOptionReply.ACK) return collectInfo(exportName, infos);
    if (reply.type === NbdOptionReply.ERR_UNSUP) return "unsupported";
    if (isOptionError(reply.type)) throw optionError(reply, exportName);
    if (reply.type !== NbdOptionReply.INFO) throw unexpectedReply(reply);
    const info = decoded(() => decodeInfo(reply.payload));
    infos.set(info.kind, info);
  }
}

function collectInfo(
  exportName: string,
  infos: ReadonlyMap<NbdInfoReply["kind"], NbdInfoReply>,
): NbdExportInfo {
  const facts = infos.get("export");
  if (facts?.kind !== "export") {
    throw violation("server accepted the export without telling its size", "export information");
  }
  const name = infos.get("name");
  const description = infos.get("description");
  const blockSize = infos.get("block-size");
  return exportInfo({
    exportName: name?.kind === "name" ? name.name : exportName,
    size: facts.size,
    transmissionFlags: facts.transmissionFlags,
    description: description?.kind === "description" ? description.description : undefined,
    blockSize: blockSize?.kind === "block-size" ? blockSize : undefined,
  });
}

async function chooseByName(
  conversation: Conversation,
  exportName: string,
  noZeroes: boolean,
): Promise<NbdExportInfo> {
  await conversation.send(encodeOption(NbdOption.EXPORT_NAME, encodeExportName(exportName)));
  try {
    return exportInfo({ exportName, ...(await conversation.exportNameReply(noZeroes)) });
  } catch (error) {
    if (!(error instanceof BlockError) || error.code !== "ECONNRESET") throw error;
    // Closing is the only way such a server has to say no.
    throw refusal("ENOENT", "Requested export not available", { exportName }, undefined, error);
  }
}

/** Bytes of a list of exports that a server can make this client keep. */
const LIST_MAX = 4 * 1024 * 1024;

async function askList(conversation: Conversation): Promise<NbdServerEntry[]> {
  await conversation.send(encodeOption(NbdOption.LIST));
  const entries: NbdServerEntry[] = [];
  for (let length = 0; ; ) {
    const reply = await nextReply(conversation, NbdOption.LIST);
    length += reply.payload.length;
    if (length > LIST_MAX) {
      throw violation(`list of exports is longer than ${LIST_MAX} bytes`, "list", length, LIST_MAX);
    }
    if (reply.type === NbdOptionReply.ACK) return entries;
    if (isOptionError(reply.type)) throw optionError(reply, undefined);
    if (reply.type !== NbdOptionReply.SERVER) throw unexpectedReply(reply);
    entries.push(decoded(() => decodeServerEntry(reply.payload)));
  }
}

/** The properties of an export; an error of the server about one export does not end the list. */
async function infoOf(
  conversation: Conversation,
  exportName: string,
): Promise<NbdExportInfo | undefined> {
  try {
    const info = await askExport(conversation, NbdOption.INFO, exportName);
    return info === "unsupported" ? undefined : info;
  } catch (error) {
    if (isRefusal(error)) return undefined;
    throw error;
  }
}

/** Whether an error is the server's answer to an option, so that the conversation can go on. */
export function isRefusal(error: unknown): boolean {
  if (!(error instanceof BlockError)) return false;
  const { option } = error.context;
  return option !== undefined;
}

async function nextReply(
  conversation: Conversation,
  option: number,
): Promise<NbdOptionReplyMessage> {
  const reply = await conversation.reply();
  if (reply.option !== option) {
    throw violation(
      `server answered option ${reply.option} where ${option} was asked`,
      "option",
      reply.option,
      option,
    );
  }
  if (reply.type === NbdOptionReply.ACK && reply.payload.length > 0) {
    const { length } = reply.payload;
    throw violation(`acknowledgement carries ${length} bytes`, "option reply length", length, 0);
  }
  return reply;
}

function unexpectedReply({ option, type }: NbdOptionReplyMessage): BlockError {
  return violation(`reply of type ${type} does not answer option ${option}`, "reply type", type);
}

/** What cannot be decoded is, coming from a server, a breach of the protocol; a size beyond limits is not. */
function decoded<T>(decode: () => T): T {
  try {
    return decode();
  } catch (error) {
    if (!(error instanceof BlockError) || error.code !== "EINVAL") throw error;
    throw new BlockError("EPROTO", error.message, error.context, { cause: error });
  }
}

/** Code and message of each answer; the messages are those that users of the reference know. */
const REFUSALS: ReadonlyMap<number, readonly [code: string, message: string]> = new Map([
  [NbdOptionReply.ERR_UNSUP, ["ENOTSUP", "Server does not support the option"]],
  [NbdOptionReply.ERR_POLICY, ["EPERM", "Denied by server"]],
  [NbdOptionReply.ERR_INVALID, ["EINVAL", "Server finds the option invalid"]],
  [NbdOptionReply.ERR_PLATFORM, ["ENOTSUP", "Server lacks support for the option"]],
  [NbdOptionReply.ERR_TLS_REQD, ["ENOTSUP", "TLS negotiation required"]],
  [NbdOptionReply.ERR_UNKNOWN, ["ENOENT", "Requested export not available"]],
  [NbdOptionReply.ERR_SHUTDOWN, ["ESHUTDOWN", "Server shutting down"]],
  [
    NbdOptionReply.ERR_BLOCK_SIZE_REQD,
    ["EINVAL", "Server requires its block size to be asked for"],
  ],
  [NbdOptionReply.ERR_TOO_BIG, ["EINVAL", "Server finds the option too long"]],
  [NbdOptionReply.ERR_EXT_HEADER_REQD, ["ENOTSUP", "Server requires extended headers"]],
]);

function optionError(reply: NbdOptionReplyMessage, exportName: string | undefined): BlockError {
  const { option, type, payload } = reply;
  const optionName = nbdNameOf(NbdOption, option);
  const [code, message] = REFUSALS.get(type) ?? ["EINVAL", `Server answered error ${type}`];
  const text = decodeMessage(payload, 0, payload.length);
  const hint =
    type === NbdOptionReply.ERR_TLS_REQD
      ? "this client does not speak TLS"
      : text === ""
        ? undefined
        : `server reported: ${text}`;
  const context = { option: optionName, ...(exportName === undefined ? {} : { exportName }) };
  return refusal(
    code,
    `${message}${SHOWS_OPTION.has(type) ? ` (${optionName})` : ""}`,
    context,
    hint,
  );
}

const SHOWS_OPTION: ReadonlySet<number> = new Set([
  NbdOptionReply.ERR_UNSUP,
  NbdOptionReply.ERR_POLICY,
  NbdOptionReply.ERR_INVALID,
  NbdOptionReply.ERR_PLATFORM,
  NbdOptionReply.ERR_TLS_REQD,
]);

function refusal(
  code: string,
  message: string,
  context: Readonly<Record<string, unknown>>,
  hint?: string,
  cause?: unknown,
): BlockError {
  return new BlockError(
    code,
    message,
    { operation: "nbd negotiation", ...context },
    { ...(hint === undefined ? {} : { hint }), cause },
  );
}

function violation(message: string, field: string, value?: number, limit?: number): BlockError {
  return new BlockError("EPROTO", message, { operation: "nbd negotiation", field, value, limit });
}
