import type { ReferenceDisk } from "@blocklayer/driver-tests";
import type { ByteStream } from "@blocklayer/nbd-client";
import {
  decodeRequest,
  encodeGreeting,
  encodeInfo,
  encodeOptionReply,
  encodeSimpleReply,
  NbdCommand,
  NbdHandshakeFlag,
  type NbdInfoReply,
  NbdOption,
  NbdOptionReply,
  NbdSize,
  NbdTransmissionFlag,
} from "@blocklayer/nbd-protocol";
import { readU32 } from "@blocklayer/offsets";
import { type StreamOptions, StreamPeer } from "./memory-stream.ts";

const flag = NbdTransmissionFlag;

/** The flags of a server that can do everything that needs no further negotiation. */
export const ALL_FLAGS: number =
  flag.HAS_FLAGS |
  flag.SEND_FLUSH |
  flag.SEND_FUA |
  flag.SEND_TRIM |
  flag.SEND_WRITE_ZEROES |
  flag.SEND_FAST_ZERO |
  flag.SEND_CACHE;

export interface FakeExport {
  readonly size?: number;
  readonly flags?: number;
  readonly blockSize?: {
    readonly minimum: number;
    readonly preferred: number;
    readonly maximum: number;
  };
}

export const GREETING: Uint8Array = encodeGreeting(
  NbdHandshakeFlag.FIXED_NEWSTYLE | NbdHandshakeFlag.NO_ZEROES,
);

/** The replies to GO. */
export function goReplies(facts: FakeExport = {}, option: number = NbdOption.GO): Uint8Array[] {
  const infos: NbdInfoReply[] = [
    { kind: "export", size: facts.size ?? 65536, transmissionFlags: facts.flags ?? ALL_FLAGS },
  ];
  if (facts.blockSize !== undefined) infos.push({ kind: "block-size", ...facts.blockSize });
  return [
    ...infos.map((info) => encodeOptionReply(option, NbdOptionReply.INFO, encodeInfo(info))),
    encodeOptionReply(option, NbdOptionReply.ACK),
  ];
}

export interface FakeRequest {
  readonly type: number;
  readonly flags: number;
  readonly cookieHigh: number;
  readonly cookieLow: number;
  readonly offset: number;
  readonly length: number;
  readonly payload: Uint8Array;
}

/** A server that a test speaks for, byte by byte where it wants to. */
export class FakeServer extends StreamPeer {
  /** The option that the client sent last, with its data. */
  async option(): Promise<{ option: number; payload: Uint8Array }> {
    const header = await this.read(NbdSize.OPTION_HEADER);
    const payload = await this.read(readU32(header, 12));
    return { option: readU32(header, 8), payload };
  }

  /** Greets and reads the client's flags. */
  async greet(greeting: Uint8Array = GREETING): Promise<number> {
    this.send(greeting);
    return readU32(await this.read(NbdSize.CLIENT_FLAGS), 0);
  }

  /** Lets the client have the export that it asks for. */
  async accept(facts: FakeExport = {}): Promise<void> {
    await this.greet();
    const { option } = await this.option();
    this.send(...goReplies(facts, option));
  }

  /** Waits for the next request. */
  async request(): Promise<FakeRequest> {
    const header = decodeRequest(await this.read(NbdSize.REQUEST), false);
    const length = header.type === NbdCommand.WRITE ? header.length : 0;
    return { ...header, payload: (await this.read(length)).slice() };
  }

  /** Waits for several requests. */
  async requests(count: number): Promise<FakeRequest[]> {
    const requests: FakeRequest[] = [];
    while (requests.length < count) requests.push(await this.request());
    return requests;
  }

  /** Answers a request. */
  reply(request: FakeRequest, error = 0, data?: Uint8Array): void {
    const { cookieHigh, cookieLow } = request;
    this.send(
      encodeSimpleReply({ error, cookieHigh, cookieLow }),
      ...(data === undefined ? [] : [data]),
    );
  }
}

/** Servers that a client connects to one after the other. */
export class FakeServers {
  readonly options: StreamOptions;
  readonly servers: FakeServer[] = [];
  /** What the next attempts to connect fail with. */
  readonly refusals: unknown[] = [];
  attempts: number = 0;
  readonly #waiting: ((server: FakeServer) => void)[] = [];

  constructor(options: StreamOptions = {}) {
    this.options = options;
  }

  readonly connect = (): Promise<ByteStream> => {
    this.attempts += 1;
    if (this.refusals.length > 0) return Promise.reject(this.refusals.shift());
    const server = new FakeServer(this.options);
    this.servers.push(server);
    this.#waiting.shift()?.(server);
    return Promise.resolve(server.client);
  };

  /** The server of connection `index`, as soon as there is one. */
  server(index: number): Promise<FakeServer> {
    const server = this.servers[index];
    if (server !== undefined) return Promise.resolve(server);
    return new Promise((resolve) => this.#waiting.push(resolve));
  }
}

/** Serves a disk, as a small server does: every request at once, until the client says goodbye. */
export async function serve(
  server: FakeServer,
  disk: ReferenceDisk,
  facts: FakeExport = {},
): Promise<void> {
  await server.accept({ size: disk.size, ...facts });
  for (;;) {
    if (server.isDestroyed || (server.isEnded && server.receivedLength === 0)) break;
    const request = await server.request().catch(() => undefined);
    if (request === undefined || request.type === NbdCommand.DISC) break;
    await carryOut(server, disk, request);
  }
  server.end();
}

async function carryOut(
  server: FakeServer,
  disk: ReferenceDisk,
  request: FakeRequest,
): Promise<void> {
  const { type, offset, length, payload } = request;
  let data: Uint8Array | undefined;
  switch (type) {
    case NbdCommand.READ:
      data = new Uint8Array(length);
      await disk.pread(offset, data);
      break;
    case NbdCommand.WRITE:
      await disk.pwrite(offset, payload);
      break;
    case NbdCommand.WRITE_ZEROES:
      await disk.pwriteZeroes(offset, length);
      break;
    case NbdCommand.TRIM:
      await disk.pdiscard(offset, length);
      break;
    default:
  }
  server.reply(request, 0, data);
}
