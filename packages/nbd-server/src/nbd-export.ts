import type { BlockLimits, RequestOptions } from "@blocklayer/driver";
import { Emitter } from "@blocklayer/errors";
import {
  encodeExportName,
  encodeServerEntry,
  type NbdBlockSize,
  NbdTransmissionFlag,
} from "@blocklayer/nbd-protocol";
import { alignDown } from "@blocklayer/offsets";
import type { ConnectionInfo, NbdConnection } from "./nbd-connection.ts";

/**
 * What an export asks of its disk: the part of a `BlockBackend` that it uses. Without `write` it can only be exported
 * read-only.
 */
export interface ExportBackend {
  /** Bytes. */
  readonly size: number;
  readonly limits: BlockLimits;
  read(offset: number, buffer: Uint8Array, options?: RequestOptions): Promise<void>;
  flush(options?: RequestOptions): Promise<void>;
  /** Waits for the requests in flight. */
  close(): Promise<void>;
  write?(offset: number, buffer: Uint8Array, options?: RequestOptions): Promise<void>;
  writeZeroes?(offset: number, length: number, options?: RequestOptions): Promise<void>;
  discard?(offset: number, length: number, options?: RequestOptions): Promise<void>;
}

/** The same with everything that writes. */
export type WritableExportBackend = Required<ExportBackend>;

export interface NbdExportEvents {
  /** A client has chosen the export. */
  connected: ConnectionInfo;
  /** Its connection is gone, and its last request has ended. */
  disconnected: ConnectionInfo;
}

export interface NbdExportParts {
  readonly name: string;
  readonly description: string | undefined;
  readonly backend: ExportBackend;
  readonly writable: boolean;
  readonly multiConnection: boolean;
  /** Bytes of the longest request that the server takes. */
  readonly payloadMax: number;
}

/** One disk of a server. All its connections share one backend, so a flush of one covers the writes of all. */
export class NbdExport {
  readonly name: string;
  readonly description: string | undefined;
  readonly backend: ExportBackend;
  /** The backend if it may be written to. */
  readonly writer: WritableExportBackend | undefined;
  readonly events: Emitter<NbdExportEvents> = new Emitter();
  readonly #connections = new Set<NbdConnection>();
  readonly #multiConnection: boolean;
  readonly #payloadMax: number;
  #isRemoved: boolean = false;

  constructor(parts: NbdExportParts) {
    // Both throw for a name or description that the protocol can not carry.
    encodeExportName(parts.name);
    encodeServerEntry({ exportName: parts.name, description: parts.description ?? "" });
    this.name = parts.name;
    this.description = parts.description;
    this.backend = parts.backend;
    this.writer = parts.writable ? asWritable(parts.backend) : undefined;
    this.#multiConnection = parts.multiConnection;
    this.#payloadMax = parts.payloadMax;
  }

  /** Bytes, exactly those of the disk. Differs: the reference rounds down to 512. */
  get size(): number {
    return this.backend.size;
  }

  get isReadOnly(): boolean {
    return this.writer === undefined;
  }

  /** Connections that use the export. */
  get connections(): readonly ConnectionInfo[] {
    return [...this.#connections].map((connection) => connection.info);
  }

  /** Whether it was taken from its server: nobody can choose it any more. */
  get isRemoved(): boolean {
    return this.#isRemoved;
  }

  /** Smallest unit of requests that the disk serves without read-modify-write, bytes. */
  get alignment(): number {
    return this.backend.limits.requestAlignment;
  }

  /** See `NbdTransmissionFlag`. @see spec/nbd.md section 2 */
  get transmissionFlags(): number {
    const flag = NbdTransmissionFlag;
    const always = flag.HAS_FLAGS | flag.SEND_FLUSH | flag.SEND_FUA | flag.SEND_CACHE;
    const access = this.isReadOnly
      ? flag.READ_ONLY
      : flag.SEND_TRIM | flag.SEND_WRITE_ZEROES | flag.SEND_FAST_ZERO;
    return always | access | (this.#multiConnection ? flag.CAN_MULTI_CONN : 0);
  }

  /**
   * Returns the sizes of requests to announce.
   *
   * @param isObeyed - the client has asked for them, so that it will obey; others are told that anything goes
   * @see spec/nbd.md section 1
   */
  blockSize(isObeyed: boolean): NbdBlockSize {
    const { maxTransfer, requestAlignment } = this.backend.limits;
    const longest = this.#payloadMax;
    // The longest power of two that the server takes: what is announced is not more, whatever the disk would like.
    const most = 2 ** (31 - Math.clz32(Math.min(longest, 65536)));
    const minimum = isObeyed ? Math.min(requestAlignment, most) : 1;
    const preferred = Math.min(Math.max(4096, minimum), most);
    const transfer = maxTransfer === 0 ? longest : Math.min(maxTransfer, longest);
    return { minimum, preferred, maximum: Math.max(alignDown(transfer, minimum), preferred) };
  }

  /** For the server. */
  attach(connection: NbdConnection): void {
    this.#connections.add(connection);
    this.events.emit("connected", connection.info);
  }

  /** For the server. */
  detach(connection: NbdConnection): void {
    if (this.#connections.delete(connection)) this.events.emit("disconnected", connection.info);
  }

  /** For the server: ends all connections and gives the disk back. */
  async remove(): Promise<void> {
    this.#isRemoved = true;
    const cuts = [...this.#connections].map((connection) => connection.cut());
    // This ends even the requests that wait in a drained section, and with them the connections.
    await this.backend.close();
    await Promise.all(cuts);
  }
}

function asWritable(backend: ExportBackend): WritableExportBackend {
  const { write, writeZeroes, discard } = backend;
  if (write === undefined || writeZeroes === undefined || discard === undefined) {
    throw new TypeError("a writable export needs a backend with write, writeZeroes and discard");
  }
  return backend as WritableExportBackend;
}
