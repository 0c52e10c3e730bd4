import {
  ALL_PERMISSIONS,
  type BlockChild,
  type BlockDriver,
  type BlockStatus,
  type DriverDefinition,
  type DriverFlags,
  defineDriver,
  type NodeHost,
  type PermissionSet,
  type PreparedReopen,
  type RequestOptions,
  Role,
  rejected,
  type StatusOptions,
} from "@blocklayer/driver";
import { BlockError } from "@blocklayer/errors";
import { object, type Schema } from "@blocklayer/schema";
import { type SnapshotSource, snapshotSourceBelow } from "./snapshot-source.ts";

/**
 * Shows the point in time that its child, a copy-before-write filter, keeps.
 *
 * | request | here |
 * | --- | --- |
 * | read without flags | a read of the snapshot |
 * | read with flags | `ENOTSUP` |
 * | block status | that of the layer that holds the snapshot there |
 * | discard | gives clusters of the snapshot up |
 * | write, write-zeroes | there are none: the graph answers `ENOTSUP` |
 *
 * It takes no permission on the filter and shares all of them, so it is in nobody's way. It can be opened over
 * any node; over one without a snapshot every request is `ENOTSUP`.
 *
 * @see spec/copy-before-write-and-backup.md section 4.5
 */
export class SnapshotAccessDriver implements BlockDriver {
  readonly driverName: string = "snapshot-access";
  readonly flags: DriverFlags = { read: 0, write: 0, zeroes: 0, truncateZero: false };
  readonly zeroes = "none";
  /** Bytes: the filter's length at open. */
  readonly size: number;
  readonly #host: Pick<NodeHost, "nodeName">;
  readonly #child: BlockChild;

  constructor(host: Pick<NodeHost, "nodeName">, child: BlockChild) {
    this.#host = host;
    this.#child = child;
    this.size = child.size;
  }

  pread(offset: number, buffer: Uint8Array, options?: RequestOptions): Promise<void> {
    const request = { operation: "pread", offset, length: buffer.length };
    if ((options?.flags ?? 0) !== 0) {
      return rejected(this.#cannot("reads with flags", { ...request, flags: options?.flags }));
    }
    const source = this.#source();
    if (source === undefined) return rejected(this.#noSnapshot(request));
    const signal = options?.signal;
    return source.snapshotRead(offset, buffer, signal === undefined ? undefined : { signal });
  }

  pdiscard(offset: number, length: number): Promise<void> {
    const source = this.#source();
    if (source !== undefined) return source.snapshotDiscard(offset, length);
    return rejected(this.#noSnapshot({ operation: "pdiscard", offset, length }));
  }

  blockStatus(offset: number, length: number, options?: StatusOptions): Promise<BlockStatus> {
    const source = this.#source();
    if (source !== undefined) return source.snapshotStatus(offset, length, options);
    return rejected(this.#noSnapshot({ operation: "blockStatus", offset, length }));
  }

  childPermissions(): PermissionSet {
    return { perm: 0, shared: ALL_PERMISSIONS };
  }

  prepareReopen(): Promise<PreparedReopen> {
    return Promise.resolve({ commit: () => undefined, abort: () => undefined });
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #source(): SnapshotSource | undefined {
    return snapshotSourceBelow(this.#child);
  }

  #noSnapshot(request: Readonly<Record<string, unknown>>): BlockError {
    const child = this.#child.nodeName;
    return this.#cannot(`node '${child}', which keeps no snapshot`, { ...request, child });
  }

  #cannot(what: string, request: Readonly<Record<string, unknown>>): BlockError {
    const node = this.#host.nodeName;
    return new BlockError("ENOTSUP", `Driver 'snapshot-access' does not support ${what}`, {
      node,
      ...request,
    });
  }
}

const schema: Schema<Readonly<Record<never, never>>> = object({});

/** The driver `snapshot-access`: the disk as it was when the copy-before-write filter below was inserted. */
export const snapshotAccess: DriverDefinition<
  "snapshot-access",
  Readonly<Record<never, never>>,
  "file"
> = defineDriver({
  driverName: "snapshot-access",
  schema,
  children: [{ name: "file", role: Role.data | Role.primary, required: true }],
  isFilter: false,
  isProtocol: false,
  supportsBacking: false,
  open: async (host) =>
    new SnapshotAccessDriver(host, await host.openChild("file", Role.data | Role.primary)),
});
