import { NbdCommand, NbdMagic, NbdOption, NbdOptionReply } from "@blocklayer/nbd-protocol";
import { readU16, readU32 } from "@blocklayer/offsets";

/** A request as it was seen on the wire. */
export interface SeenRequest {
  /** Both halves, as text. */
  readonly cookie: string;
  readonly type: number;
  readonly flags: number;
  readonly offset: number;
  readonly length: number;
  /** Of a write of stamped cells: the guest's operation. */
  readonly operation: number;
  /** Bytes that the client had sent with the last byte of it. */
  readonly endsAt: number;
}

/** A simple reply as it was seen on the wire, without its data. */
export interface SeenReply {
  readonly cookie: string;
  readonly error: number;
  readonly endsAt: number;
}

/** What the server tells of an export in the negotiation. */
export interface SeenExport {
  readonly size: number;
  readonly flags: number;
}

/** Bytes of one direction, of which whole frames are taken. */
class Feed {
  #bytes: Uint8Array = new Uint8Array(0);
  #consumed = 0;

  /** Bytes that were taken so far. */
  get consumed(): number {
    return this.#consumed;
  }

  push(bytes: Uint8Array): void {
    const joined = new Uint8Array(this.#bytes.length + bytes.length);
    joined.set(this.#bytes);
    joined.set(bytes, this.#bytes.length);
    this.#bytes = joined;
  }

  peek(length: number): Uint8Array | undefined {
    return this.#bytes.length < length ? undefined : this.#bytes.subarray(0, length);
  }

  take(length: number): Uint8Array | undefined {
    const bytes = this.peek(length);
    if (bytes === undefined) return undefined;
    this.#bytes = this.#bytes.subarray(length);
    this.#consumed += length;
    return bytes;
  }
}

const OPTION_HEADER = 16;
const REQUEST = 28;
/** Where a stamp names the operation. */
const STAMP_OPERATION = 12;
const STAMP_MIN = 32;

/** Reads what a client sends: options until it has chosen an export, then requests. */
export class ClientFrames {
  readonly #feed = new Feed();
  #stage: "flags" | "options" | "requests" | "nonsense" = "flags";

  /** Whether what was sent is no NBD. */
  get isNonsense(): boolean {
    return this.#stage === "nonsense";
  }

  push(bytes: Uint8Array): SeenRequest[] {
    this.#feed.push(bytes);
    const requests: SeenRequest[] = [];
    while (this.#step(requests));
    return requests;
  }

  #step(requests: SeenRequest[]): boolean {
    switch (this.#stage) {
      case "flags":
        if (this.#feed.take(4) === undefined) return false;
        this.#stage = "options";
        return true;
      case "options":
        return this.#option();
      case "requests":
        return this.#request(requests);
      case "nonsense":
        return false;
    }
  }

  #option(): boolean {
    const header = this.#feed.peek(OPTION_HEADER);
    if (header === undefined) return false;
    if (readU32(header, 0) !== NbdMagic.OPTION_HIGH) {
      this.#stage = "nonsense";
      return false;
    }
    const option = readU32(header, 8);
    if (this.#feed.take(OPTION_HEADER + readU32(header, 12)) === undefined) return false;
    if (option === NbdOption.GO || option === NbdOption.EXPORT_NAME) this.#stage = "requests";
    return true;
  }

  #request(requests: SeenRequest[]): boolean {
    const header = this.#feed.peek(REQUEST);
    if (header === undefined) return false;
    if (readU32(header, 0) !== NbdMagic.REQUEST) {
      this.#stage = "nonsense";
      return false;
    }
    const type = readU16(header, 6);
    const length = readU32(header, 24);
    const isWrite = type === NbdCommand.WRITE;
    const frame = this.#feed.take(REQUEST + (isWrite ? length : 0));
    if (frame === undefined) return false;
    requests.push({
      cookie: cookieAt(frame, 8),
      type,
      flags: readU16(frame, 4),
      offset: readU32(frame, 16) * 2 ** 32 + readU32(frame, 20),
      length,
      operation:
        isWrite && length >= STAMP_MIN
          ? new DataView(frame.buffer, frame.byteOffset).getUint32(REQUEST + STAMP_OPERATION, true)
          : 0,
      endsAt: this.#feed.consumed,
    });
    return true;
  }
}

const GREETING = 18;
const OPTION_REPLY = 20;
const SIMPLE_REPLY = 16;

export interface ServerFramesEvents {
  /** Told of an export. */
  readonly told: (seen: SeenExport) => void;
  /** @returns bytes of data that follow a reply of success to this request; `undefined` when there is none such */
  readonly dataLength: (cookie: string) => number | undefined;
  readonly reply: (reply: SeenReply) => void;
  /** The server sent what is no NBD. */
  readonly nonsense: (what: string) => void;
}

/** Reads what a server sends: a greeting, replies to options, then simple replies. */
export class ServerFrames {
  /** Where frames begin, in bytes that were sent before. */
  readonly starts: Set<number> = new Set();
  readonly #feed = new Feed();
  readonly #events: ServerFramesEvents;
  #stage: "greeting" | "options" | "replies" | "nonsense" = "greeting";

  constructor(events: ServerFramesEvents) {
    this.#events = events;
  }

  push(bytes: Uint8Array): void {
    this.#feed.push(bytes);
    while (this.#step());
  }

  #step(): boolean {
    switch (this.#stage) {
      case "greeting":
        if (this.#feed.take(GREETING) === undefined) return false;
        this.#stage = "options";
        return true;
      case "options":
        return this.#optionReply();
      case "replies":
        return this.#reply();
      case "nonsense":
        return false;
    }
  }

  #optionReply(): boolean {
    const header = this.#feed.peek(OPTION_REPLY);
    if (header === undefined) return false;
    this.starts.add(this.#feed.consumed);
    if (readU32(header, 0) !== NbdMagic.OPTION_REPLY_HIGH) return this.#lost("an option reply");
    const option = readU32(header, 8);
    const type = readU32(header, 12);
    const frame = this.#feed.take(OPTION_REPLY + readU32(header, 16));
    if (frame === undefined) return false;
    if (type === NbdOptionReply.INFO && readU16(frame, OPTION_REPLY) === 0) {
      const size = readU32(frame, 22) * 2 ** 32 + readU32(frame, 26);
      this.#events.told({ size, flags: readU16(frame, 30) });
    }
    if (type === NbdOptionReply.ACK && option === NbdOption.GO) this.#stage = "replies";
    return true;
  }

  #reply(): boolean {
    const header = this.#feed.peek(SIMPLE_REPLY);
    if (header === undefined) return false;
    this.starts.add(this.#feed.consumed);
    if (readU32(header, 0) !== NbdMagic.SIMPLE_REPLY) return this.#lost("a reply");
    const cookie = cookieAt(header, 8);
    const error = readU32(header, 4);
    const dataLength = this.#events.dataLength(cookie);
    if (dataLength === undefined) return this.#lost(`a reply to request ${cookie}`);
    const length = SIMPLE_REPLY + (error === 0 ? dataLength : 0);
    if (this.#feed.take(length) === undefined) return false;
    this.#events.reply({ cookie, error, endsAt: this.#feed.consumed });
    return true;
  }

  #lost(what: string): boolean {
    this.#stage = "nonsense";
    this.#events.nonsense(what);
    return false;
  }
}

function cookieAt(bytes: Uint8Array, at: number): string {
  return `${readU32(bytes, at)}:${readU32(bytes, at + 4)}`;
}
