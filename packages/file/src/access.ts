import {
  ALL_PERMISSIONS,
  type NodeHost,
  type Permission,
  type PermissionChange,
  Permissions,
  type PreparedReopen,
} from "@blocklayer/driver";
import { BlockError } from "@blocklayer/errors";
import type { Descriptor } from "./descriptor.ts";
import type { FileIo } from "./file-io.ts";
import type { FileOpener } from "./file-opener.ts";
import type { FileOptions } from "./file-options.ts";
import type { FlushLine } from "./flush-line.ts";
import { isLockingUnsupported, type OpenLocks } from "./image-locks.ts";
import { ioError } from "./io-error.ts";

const WRITING = Permissions.write | Permissions.writeUnchanged | Permissions.resize;

type Locking = FileOptions["locking"];

/** What a change that was prepared will do. */
interface Pending {
  readonly descriptor: Descriptor | undefined;
}

/** A reopen that was prepared and not yet committed or aborted. */
interface Reopening extends Pending {
  readonly readOnly: boolean;
}

export interface AccessSettings {
  readonly host: NodeHost;
  readonly opener: FileOpener;
  readonly io: FileIo;
  readonly flushes: FlushLine;
  /** The `locking` option, and the locks that it led to. */
  readonly locking: Locking;
  readonly openLocks: OpenLocks | undefined;
}

/**
 * Who may do what: the descriptor's access mode and the image's locks follow the permissions of the node.
 *
 * With auto-read-only the file is opened for reading, for writing only while a parent writes, and for
 * reading again after. A descriptor is exchanged, never changed; what runs on the old one ends there.
 *
 * @see spec/filters-and-raw.md section 6.1 and 6.2
 */
export class Access {
  readonly #host: NodeHost;
  readonly #opener: FileOpener;
  readonly #io: FileIo;
  readonly #flushes: FlushLine;
  #openLocks: OpenLocks | undefined;
  #locking: Locking;
  #current: PermissionChange = { perm: 0, shared: ALL_PERMISSIONS };
  #pending: Pending | undefined;
  #reopening: Reopening | undefined;
  #isActive: boolean = true;
  /** Descriptors on their way out. */
  readonly #retiring = new Set<Promise<void>>();

  constructor(settings: AccessSettings) {
    this.#host = settings.host;
    this.#opener = settings.opener;
    this.#io = settings.io;
    this.#flushes = settings.flushes;
    this.#openLocks = settings.openLocks;
    this.#locking = settings.locking;
  }

  /** Whether writing is possible, now or when what was prepared is committed. */
  get canWrite(): boolean {
    const next = this.#pending?.descriptor ?? this.#reopening?.descriptor ?? this.#io.descriptor;
    return next.isWritable || (this.#host.autoReadOnly && !this.#isReadOnly);
  }

  /** Whether the node is read-only, or will be after the reopen in progress. */
  get #isReadOnly(): boolean {
    return this.#reopening?.readOnly ?? this.#host.options.readOnly;
  }

  /**
   * Opens what the new permissions need and takes their locks.
   *
   * @throws BlockError `EAGAIN` another user of the image is in the way; `EACCES`, `EROFS` the file cannot be opened
   *   for writing
   */
  async prepare(change: PermissionChange): Promise<void> {
    this.abort();
    const descriptor = await this.#descriptorFor(change.perm);
    try {
      await this.#prepareLocks(change);
    } catch (error) {
      await descriptor?.retire();
      throw error;
    }
    this.#pending = { descriptor };
  }

  commit(change: PermissionChange): void {
    const descriptor = this.#pending?.descriptor;
    this.#pending = undefined;
    // Written to since it was flushed for the exchange: only the old descriptor would hear of a failure.
    if (descriptor !== undefined && !descriptor.isWritable && this.#io.isDirty) {
      this.#retire(descriptor);
    } else this.#exchange(descriptor);
    this.#current = change;
    if (this.#isActive) this.#openLocks?.locks.commit(change.perm, this.#shared(change));
  }

  abort(): void {
    const descriptor = this.#pending?.descriptor;
    this.#pending = undefined;
    if (descriptor !== undefined) this.#retire(descriptor);
    this.#openLocks?.locks.abort();
  }

  /** Lets other programs have the image. */
  inactivate(): void {
    this.#isActive = false;
    this.#openLocks?.locks.release();
  }

  /** Takes the locks again. @throws BlockError `EAGAIN` somebody else has the image */
  async activate(): Promise<void> {
    if (this.#isActive) return;
    this.#isActive = true;
    try {
      await this.#prepareLocks(this.#current);
      this.#openLocks?.locks.commit(this.#current.perm, this.#shared(this.#current));
    } catch (error) {
      this.#isActive = false;
      throw error;
    }
  }

  /** @throws BlockError `EACCES`, `EROFS` the file cannot be opened so; `ENOTSUP` no locks; `EAGAIN` locked */
  async prepareReopen(wanted: {
    readonly readOnly: boolean;
    readonly locking: Locking;
  }): Promise<PreparedReopen> {
    const descriptor = await this.#descriptorForReopen(wanted.readOnly);
    let openLocks: OpenLocks | undefined;
    try {
      openLocks = await this.#locksForReopen(wanted.locking);
    } catch (error) {
      await descriptor?.retire();
      throw error;
    }
    this.#reopening = { descriptor, readOnly: wanted.readOnly };
    return {
      commit: () => {
        this.#reopening = undefined;
        this.#exchange(descriptor);
        this.#locking = wanted.locking;
        if (openLocks === this.#openLocks) return;
        openLocks?.locks.commit(this.#current.perm, this.#shared(this.#current));
        this.#closeLocks(this.#openLocks);
        this.#openLocks = openLocks;
      },
      abort: () => {
        this.#reopening = undefined;
        if (descriptor !== undefined) this.#retire(descriptor);
        if (openLocks !== this.#openLocks) this.#closeLocks(openLocks);
      },
      clean: () => this.#settled(),
    };
  }

  /** A descriptor that writes through the page cache: the current one, or a new one to be retired by the caller. */
  bufferedDescriptor(): Promise<Descriptor> {
    return this.#opener.isDirect
      ? this.#opener.open(true, { isDirect: false })
      : Promise.resolve(this.#io.descriptor);
  }

  /** Drops the locks and closes all descriptors. @throws BlockError the first of their errors */
  async close(): Promise<void> {
    this.abort();
    const lastLocks = this.#openLocks;
    this.#openLocks = undefined;
    const results = await Promise.allSettled([
      this.#io.descriptor.retire(),
      lastLocks?.close(),
      this.#settled(),
    ]);
    for (const result of results) {
      if (result.status === "rejected") {
        throw ioError(result.reason, "closing failed", { node: this.#host.nodeName });
      }
    }
  }

  async #descriptorFor(perm: Permission): Promise<Descriptor | undefined> {
    const { isWritable } = this.#reopening?.descriptor ?? this.#io.descriptor;
    const wantsWritable = (perm & WRITING) !== 0;
    if (!this.#host.autoReadOnly || wantsWritable === isWritable) return undefined;
    // A node that is read-only is refused by the check.
    if (wantsWritable) return this.#isReadOnly ? undefined : this.#openForWriting();
    return this.#reopening === undefined ? this.#openForReading() : undefined;
  }

  async #descriptorForReopen(readOnly: boolean): Promise<Descriptor | undefined> {
    const { isWritable } = this.#io.descriptor;
    const isNeeded = !this.#host.autoReadOnly || (this.#current.perm & WRITING) !== 0;
    const wantsWritable = !readOnly && isNeeded;
    if (wantsWritable === isWritable) return undefined;
    if (wantsWritable) return this.#openForWriting();
    await this.#flushes.flush();
    return this.#opener.open(false);
  }

  async #openForWriting(): Promise<Descriptor> {
    try {
      return await this.#opener.open(true);
    } catch (error) {
      const context = { node: this.#host.nodeName, fileName: this.#opener.path };
      const cause = error instanceof BlockError ? (error.cause ?? error) : error;
      throw ioError(cause, "Could not reopen file", context);
    }
  }

  /** Giving up the right to write is no reason to fail: then the descriptor stays as it is. */
  async #openForReading(): Promise<Descriptor | undefined> {
    try {
      // Errors of writes are told to the descriptor that wrote, so they are asked for before it goes.
      this.#io.isDirty = false;
      await this.#flushes.flush();
      return await this.#opener.open(false);
    } catch (error) {
      this.#io.isDirty = true;
      const text = error instanceof Error ? error.message : String(error);
      this.#host.warn(`'${this.#opener.path}' stays open for writing: ${text}`);
      return undefined;
    }
  }

  async #prepareLocks(change: PermissionChange): Promise<void> {
    if (!this.#isActive || this.#openLocks === undefined) return;
    try {
      this.#openLocks.locks.prepare(change.perm, this.#shared(change));
    } catch (error) {
      if (this.#locking !== "auto" || !isLockingUnsupported(error)) throw error;
      this.#host.warn(`'${this.#opener.path}' is not locked: its file system has no locks`);
      const unusable = this.#openLocks;
      this.#openLocks = undefined;
      await unusable.close();
    }
  }

  async #locksForReopen(locking: Locking): Promise<OpenLocks | undefined> {
    if (locking === "off") return undefined;
    if (this.#openLocks !== undefined) return this.#openLocks;
    const openLocks = await this.#opener.openLocks(locking);
    try {
      if (this.#isActive) {
        openLocks?.locks.prepare(this.#current.perm, this.#shared(this.#current));
      }
    } catch (error) {
      await openLocks?.close();
      throw error;
    }
    return openLocks;
  }

  /** What others may do; with force-share everything. */
  #shared({ shared }: PermissionChange): Permission {
    return this.#host.options.forceShare ? ALL_PERMISSIONS : shared;
  }

  #exchange(descriptor: Descriptor | undefined): void {
    if (descriptor === undefined) return;
    const old = this.#io.descriptor;
    this.#io.descriptor = descriptor;
    this.#retire(old);
  }

  #retire(descriptor: Descriptor): void {
    this.#track(descriptor.retire());
  }

  #closeLocks(openLocks: OpenLocks | undefined): void {
    if (openLocks !== undefined) this.#track(openLocks.close());
  }

  #track(closing: Promise<void>): void {
    const tracked = closing
      .catch((error: unknown) => {
        const text = error instanceof Error ? error.message : String(error);
        this.#host.warn(`closing a descriptor of '${this.#opener.path}' failed: ${text}`);
      })
      .finally(() => this.#retiring.delete(tracked));
    this.#retiring.add(tracked);
  }

  async #settled(): Promise<void> {
    while (this.#retiring.size > 0) await Promise.all(this.#retiring);
  }
}
