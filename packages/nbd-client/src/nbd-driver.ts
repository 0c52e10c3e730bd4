import {
  type BlockDriver,
  type BlockLimits,
  type BlockStatus,
  completed,
  type DriverFlags,
  type NodeHost,
  type PreparedReopen,
  type ReopenChange,
  RequestFlag,
  type RequestOptions,
  rejected,
  StatusFlag,
  type TruncateOptions,
} from "@blocklayer/driver";
import { BlockError } from "@blocklayer/errors";
import { NbdCommand, NbdCommandFlag } from "@blocklayer/nbd-protocol";
import { alignDown } from "@blocklayer/offsets";
import { ClientRequest } from "./client-request.ts";
import { exportLimits, type NbdExportInfo } from "./export-info.ts";
import type { NbdOptions } from "./nbd-options.ts";
import type { NbdSession } from "./nbd-session.ts";

/**
 * A remote disk as a node: each operation is one request of the protocol.
 *
 * | server offers | driver has |
 * | --- | --- |
 * | writing | `pwrite`, `pwritev` |
 * | WRITE_ZEROES | `pwriteZeroes`; without it the graph writes zero bytes |
 * | TRIM | `pdiscard` |
 * | FLUSH | a flush of its own; without it flushing does nothing |
 * | FUA | the flag `fua`; without it the graph flushes |
 * | FAST_ZERO | the flag `noFallback` of write-zeroes |
 * | CACHE | the flag `prefetch` of reads |
 *
 * A signal stops the wait for a place in flight or for a new connection; what was sent is answered.
 */
export class NbdDriver implements BlockDriver {
  readonly driverName: string = "nbd";
  readonly size: number;
  readonly limits: BlockLimits;
  readonly flags: DriverFlags;
  readonly zeroes: "native" | "emulated";
  readonly pwrite?: BlockDriver["pwrite"] & {};
  readonly pwritev?: BlockDriver["pwritev"] & {};
  readonly pwriteZeroes?: BlockDriver["pwriteZeroes"] & {};
  readonly pdiscard?: BlockDriver["pdiscard"] & {};
  readonly #host: NodeHost;
  readonly #session: NbdSession;
  #isClosed: boolean = false;

  constructor(host: NodeHost, session: NbdSession) {
    const { info } = session;
    this.#host = host;
    this.#session = session;
    this.limits = exportLimits(info);
    this.size = alignDown(info.size, this.limits.requestAlignment);
    this.flags = flagsOf(info);
    this.zeroes = info.canWriteZeroes ? "native" : "emulated";
    if (!info.isReadOnly) {
      this.pwrite = (offset, buffer, options) => this.#write(offset, [buffer], options);
      this.pwritev = (offset, buffers, options) => this.#write(offset, buffers, options);
    }
    if (info.canWriteZeroes) {
      this.pwriteZeroes = (offset, length, options) => this.#writeZeroes(offset, length, options);
    }
    if (info.canTrim) {
      this.pdiscard = (offset, length, options) =>
        this.#range(NbdCommand.TRIM, "pdiscard", offset, length, fuaOf(options), options);
    }
  }

  /** What the server told of the export. */
  get info(): NbdExportInfo {
    return this.#session.info;
  }

  pread(offset: number, buffer: Uint8Array, options?: RequestOptions): Promise<void> {
    const { length } = buffer;
    if (((options?.flags ?? 0) & RequestFlag.prefetch) !== 0) {
      return this.#range(NbdCommand.CACHE, "prefetch", offset, length, 0, options);
    }
    return this.#session.submit(
      new ClientRequest({
        command: NbdCommand.READ,
        operation: "pread",
        offset,
        length,
        buffer,
        signal: options?.signal,
        node: this.#host.nodeName,
      }),
    );
  }

  flush(options?: RequestOptions): Promise<void> {
    if (!this.info.canFlush) return this.#isClosed ? this.#closedError("flush") : completed;
    return this.#range(NbdCommand.FLUSH, "flush", 0, 0, 0, options);
  }

  /** Everything is data: what the server stores where is not negotiated. */
  blockStatus(offset: number, length: number): Promise<BlockStatus> {
    if (this.#isClosed) return this.#closedError("blockStatus");
    const flags = StatusFlag.data | StatusFlag.offsetValid;
    return Promise.resolve({ flags, length: Math.min(length, this.size - offset), offset });
  }

  /** Accepts the size that is there, and a smaller one where that need not be met. */
  truncate(size: number, options: TruncateOptions = {}): Promise<void> {
    if (this.#isClosed) return this.#closedError("truncate");
    if (size === this.size || (options.exact === false && size < this.size)) return completed;
    const message = options.exact === false ? "Cannot grow NBD nodes" : "Cannot resize NBD nodes";
    return rejected(
      new BlockError("ENOTSUP", message, {
        node: this.#host.nodeName,
        operation: "truncate",
        size,
        limit: this.size,
      }),
    );
  }

  cancelInFlight(): void {
    this.#session.cancelWaiting();
  }

  /** The delay may change, and the node may become read-only, or writable if the export is. */
  prepareReopen(change: ReopenChange): Promise<PreparedReopen> {
    if (!change.readOnly && this.info.isReadOnly && !this.#host.autoReadOnly) {
      return rejected(readOnlyError(this.#host.nodeName, this.info.exportName));
    }
    const options = change.options as NbdOptions;
    return Promise.resolve({
      commit: () => {
        this.#session.reconnectDelayMs = options["reconnect-delay"] * 1000;
      },
      abort: () => undefined,
    });
  }

  /** Flushes what was acknowledged and not flushed, waits for what is in flight and says goodbye. */
  close(): Promise<void> {
    this.#isClosed = true;
    return this.#session.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #write(
    offset: number,
    payload: readonly Uint8Array[],
    options: RequestOptions | undefined,
  ): Promise<void> {
    let length = 0;
    for (const buffer of payload) length += buffer.length;
    return this.#session.submit(
      new ClientRequest({
        command: NbdCommand.WRITE,
        operation: "pwrite",
        offset,
        length,
        flags: fuaOf(options),
        payload,
        signal: options?.signal,
        node: this.#host.nodeName,
      }),
    );
  }

  #writeZeroes(offset: number, length: number, options: RequestOptions | undefined): Promise<void> {
    const wanted = options?.flags ?? 0;
    const noHole = (wanted & RequestFlag.mayUnmap) === 0 ? NbdCommandFlag.NO_HOLE : 0;
    const fast = (wanted & RequestFlag.noFallback) !== 0 ? NbdCommandFlag.FAST_ZERO : 0;
    const flags = fuaOf(options) | noHole | fast;
    return this.#range(NbdCommand.WRITE_ZEROES, "pwriteZeroes", offset, length, flags, options);
  }

  #range(
    command: number,
    operation: string,
    offset: number,
    length: number,
    flags: number,
    options: RequestOptions | undefined,
  ): Promise<void> {
    const node = this.#host.nodeName;
    const signal = options?.signal;
    return this.#session.submit(
      new ClientRequest({ command, operation, offset, length, flags, signal, node }),
    );
  }

  #closedError<T>(operation: string): Promise<T> {
    const context = { node: this.#host.nodeName, operation };
    return rejected(
      new BlockError("ESHUTDOWN", `${operation} failed: the node was closed`, context),
    );
  }
}

/** Returns the error for a writable node over an export that is not. */
export function readOnlyError(node: string, exportName: string): BlockError {
  return new BlockError(
    "EACCES",
    "Could not open image: Permission denied",
    { node, operation: "open", exportName },
    { hint: "the server exports it read-only: open it with read-only or auto-read-only" },
  );
}

function flagsOf(info: NbdExportInfo): DriverFlags {
  const fua = info.canFua ? RequestFlag.fua : 0;
  const fast = info.canFastZero ? RequestFlag.noFallback : 0;
  return {
    read: info.canCache ? RequestFlag.prefetch : 0,
    write: fua,
    zeroes: info.canWriteZeroes ? fua | fast | RequestFlag.mayUnmap : 0,
    truncateZero: false,
  };
}

function fuaOf(options: RequestOptions | undefined): number {
  return ((options?.flags ?? 0) & RequestFlag.fua) !== 0 ? NbdCommandFlag.FUA : 0;
}
