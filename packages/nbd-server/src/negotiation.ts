import { BlockError } from "@blocklayer/errors";
import {
  decodeExportName,
  decodeInfoRequest,
  encodeExportNameReply,
  encodeInfo,
  encodeOptionError,
  encodeOptionReply,
  encodeServerEntry,
  NBD_LIMITS,
  NbdClientFlag,
  NbdInfo,
  type NbdInfoReply,
  type NbdInfoRequest,
  NbdOption,
  NbdOptionReply,
  type NbdOptionRequest,
} from "@blocklayer/nbd-protocol";
import { readU32 } from "@blocklayer/offsets";
import type { NbdExport } from "./nbd-export.ts";

/** Where the exports of a server are looked up. */
export interface ExportDirectory {
  /** Returns the export that a client means by `name`; `""` is the default export. */
  find(name: string): NbdExport | undefined;
  /** Returns what LIST shows, `undefined` when nobody may see it. */
  list(): readonly NbdExport[] | undefined;
}

/**
 * What follows an option: the next one; the end of the connection after the replies, or at once; or the
 * transmission phase with an export.
 */
export type NextStep = "option" | "end" | "drop" | NbdExport;

const reply = NbdOptionReply;

/**
 * Answers the options of one client. Holds what was agreed so far, knows nothing of streams.
 *
 * @see spec/nbd.md section 1
 */
export class Negotiation {
  readonly #exports: ExportDirectory;
  readonly #send: (bytes: Uint8Array) => void;

  /** @param send - takes the replies; their memory is given away */
  constructor(exports: ExportDirectory, send: (bytes: Uint8Array) => void) {
    this.#exports = exports;
    this.#send = send;
  }

  /** Answers one option. @param clientFlags - see `NbdClientFlag` */
  answer(request: NbdOptionRequest, clientFlags: number): NextStep {
    const { option } = request;
    if (option === NbdOption.EXPORT_NAME) return this.#exportName(request, clientFlags);
    // Without fixed newstyle a client would not understand any reply.
    if ((clientFlags & NbdClientFlag.FIXED_NEWSTYLE) === 0) return "drop";
    if (request.isOversize) {
      this.#refuse(option, reply.ERR_TOO_BIG, `option of ${request.length} bytes is too long`);
      return "end";
    }
    switch (option) {
      case NbdOption.ABORT:
        this.#acknowledge(option);
        return "end";
      case NbdOption.LIST:
        return this.#list(request);
      case NbdOption.INFO:
      case NbdOption.GO:
        return this.#info(request);
      case NbdOption.STARTTLS:
        if (request.length > 0) return this.#refuseLength(option);
        return this.#refuse(option, reply.ERR_POLICY, "TLS not configured");
      default:
        return this.#refuse(
          option,
          reply.ERR_UNSUP,
          `Unsupported option ${option} (${nameOf(option)})`,
        );
    }
  }

  #exportName(request: NbdOptionRequest, clientFlags: number): NextStep {
    const chosen = request.isOversize ? undefined : this.#findNamed(request.payload);
    if (chosen === undefined) return "drop";
    const { size, transmissionFlags } = chosen;
    const noZeroes = (clientFlags & NbdClientFlag.NO_ZEROES) !== 0;
    this.#send(encodeExportNameReply({ size, transmissionFlags }, noZeroes));
    return chosen;
  }

  #findNamed(payload: Uint8Array): NbdExport | undefined {
    try {
      return this.#exports.find(decodeExportName(payload));
    } catch (error) {
      if (error instanceof BlockError) return undefined;
      throw error;
    }
  }

  #list(request: NbdOptionRequest): NextStep {
    const { option } = request;
    if (request.length > 0) return this.#refuseLength(option);
    const exports = this.#exports.list();
    if (exports === undefined) {
      return this.#refuse(option, reply.ERR_POLICY, "exports are not listed");
    }
    for (const { name, description } of exports) {
      const entry = encodeServerEntry({ exportName: name, description: description ?? "" });
      this.#send(encodeOptionReply(option, reply.SERVER, entry));
    }
    return this.#acknowledge(option);
  }

  #info(request: NbdOptionRequest): NextStep {
    const { option, payload } = request;
    const wanted = this.#decodeInfo(option, payload);
    if (wanted === undefined) return "option";
    const chosen = this.#exports.find(wanted.exportName);
    if (chosen === undefined) {
      const shown = shorten(wanted.exportName);
      return this.#refuse(option, reply.ERR_UNKNOWN, `export '${shown}' not present`);
    }
    this.#sendInfos(option, chosen, wanted.infos);
    const isInfo = option === NbdOption.INFO;
    if (isInfo && chosen.alignment > 1 && !wanted.infos.includes(NbdInfo.BLOCK_SIZE)) {
      return this.#refuse(
        option,
        reply.ERR_BLOCK_SIZE_REQD,
        "request NBD_INFO_BLOCK_SIZE to use this export",
      );
    }
    this.#acknowledge(option);
    return isInfo ? "option" : chosen;
  }

  #sendInfos(option: number, chosen: NbdExport, infos: readonly number[]): void {
    const isObeyed = option === NbdOption.INFO || infos.includes(NbdInfo.BLOCK_SIZE);
    const { name, description, size, transmissionFlags } = chosen;
    const answers: NbdInfoReply[] = [];
    if (infos.includes(NbdInfo.NAME)) answers.push({ kind: "name", name });
    if (description !== undefined) answers.push({ kind: "description", description });
    answers.push({ kind: "block-size", ...chosen.blockSize(isObeyed) });
    answers.push({ kind: "export", size, transmissionFlags });
    for (const answer of answers) {
      this.#send(encodeOptionReply(option, reply.INFO, encodeInfo(answer)));
    }
  }

  #decodeInfo(option: number, payload: Uint8Array): NbdInfoRequest | undefined {
    try {
      return decodeInfoRequest(payload);
    } catch (error) {
      if (!(error instanceof BlockError)) throw error;
      this.#refuse(option, reply.ERR_INVALID, explain(option, payload, error));
      return undefined;
    }
  }

  #acknowledge(option: number): NextStep {
    this.#send(encodeOptionReply(option, reply.ACK));
    return "option";
  }

  #refuseLength(option: number): NextStep {
    const message = `option '${nameOf(option)}' has unexpected length`;
    return this.#refuse(option, reply.ERR_INVALID, message);
  }

  #refuse(option: number, error: number, message: string): NextStep {
    this.#send(encodeOptionError(option, error, message));
    return "option";
  }
}

/** Says what is wrong with INFO and GO as the reference does, and more precisely where it has no word for it. */
function explain(option: number, payload: Uint8Array, error: BlockError): string {
  const nameLength = payload.length < 4 ? 0 : readU32(payload, 0);
  if (nameLength > NBD_LIMITS.string) return `Invalid name length: ${nameLength}`;
  const { field } = error.context;
  switch (field) {
    case "information count":
      return `option '${nameOf(option)}' has unexpected length`;
    case "export name":
      return payload.length - 4 < nameLength ? inconsistent(option) : error.message;
    default:
      return inconsistent(option);
  }
}

function inconsistent(option: number): string {
  return `Inconsistent lengths in option ${nameOf(option)}`;
}

/** The names that the reference's messages use. */
const NAMES: Readonly<Record<number, string>> = {
  [NbdOption.LIST]: "list",
  [NbdOption.STARTTLS]: "starttls",
  [NbdOption.INFO]: "info",
  [NbdOption.GO]: "go",
  [NbdOption.STRUCTURED_REPLY]: "structured reply",
  [NbdOption.LIST_META_CONTEXT]: "list meta context",
  [NbdOption.SET_META_CONTEXT]: "set meta context",
  [NbdOption.EXTENDED_HEADERS]: "extended headers",
};

function nameOf(option: number): string {
  return NAMES[option] ?? "<unknown>";
}

const SHOWN = 80;

/** Cuts the name of an export that does not exist, which a hostile client may have made up. */
function shorten(name: string): string {
  return name.length <= SHOWN ? name : `${name.slice(0, SHOWN)}...`;
}
