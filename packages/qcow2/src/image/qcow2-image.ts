import type { BlockChild } from "@blocklayer/driver";
import type { Env } from "@blocklayer/env";
import { BlockError } from "@blocklayer/errors";
import { RangeLock } from "@blocklayer/range-lock";
import type { Codecs } from "../codecs.ts";
import { Autoclear, Incompatible } from "../format/constants.ts";
import type { Geometry } from "../format/geometry.ts";
import { Allocator } from "./allocator.ts";
import type { CacheSizes } from "./cache-sizes.ts";
import type { HeaderStore } from "./header-store.ts";
import { childOf, type HostFile, type ImageHost } from "./host-file.ts";
import { L2Tables } from "./l2-tables.ts";
import { Mapping } from "./mapping.ts";
import { type DiscardClass, PendingFrees } from "./pending-frees.ts";
import { Refcounts } from "./refcounts.ts";
import { RequestGate } from "./request-gate.ts";
import type { TableFile } from "./table-file.ts";
import { Writeback } from "./writeback.ts";

/** Bytes that may wait to be freed before they are made free: a disk that is rewritten does not grow for long. */
const PENDING_BYTES_MIN = 16 * 2 ** 20;

/** What can be changed while the image is open. */
export interface ImageSettings {
  readonly lazyRefcounts: boolean;
  readonly discards: Readonly<Record<DiscardClass, boolean>>;
}

export interface ImageParts {
  readonly env: Env;
  readonly host: ImageHost;
  readonly file: HostFile;
  readonly header: HeaderStore;
  readonly l1: TableFile;
  readonly refcountTable: TableFile;
  readonly caches: CacheSizes;
  readonly settings: ImageSettings;
  readonly codecs: Codecs;
  /** The image is there to be checked: guests cannot write. */
  readonly forCheck?: boolean;
}

/**
 * An open image: what its parts share. The parts that read, write, zero and so on are built on it.
 */
export class Qcow2Image {
  readonly env: Env;
  readonly host: ImageHost;
  readonly file: HostFile;
  readonly geometry: Geometry;
  readonly header: HeaderStore;
  readonly refcounts: Refcounts;
  readonly allocator: Allocator;
  readonly l2: L2Tables;
  readonly mapping: Mapping;
  readonly frees: PendingFrees = new PendingFrees();
  readonly writeback: Writeback;
  /** Between requests and operations on the whole image. */
  readonly gate: RequestGate;
  /** Guest ranges whose mapping somebody is about to change. */
  readonly changing: RangeLock;
  readonly codecs: Codecs;
  /** Why guests cannot write to an image that was opened to be checked. */
  readonly #checkOnly: BlockError | undefined;
  settings: ImageSettings;
  /** Why nothing can be read or written any more. */
  #damage: BlockError | undefined;
  /** Why nothing can be written any more. */
  #flushFailure: BlockError | undefined;
  #wasReported: boolean = false;
  /** The image was marked as dirty by somebody else. */
  #wasFoundDirty: boolean;

  constructor(parts: ImageParts) {
    const { env, host, file, header, l1, refcountTable, caches, settings, codecs } = parts;
    this.#checkOnly =
      parts.forCheck === true
        ? new BlockError("EPERM", "the image is open for a check only", { node: host.nodeName })
        : undefined;
    this.env = env;
    this.host = host;
    this.file = file;
    this.geometry = file.geometry;
    this.header = header;
    this.settings = settings;
    this.codecs = codecs;
    this.#wasFoundDirty = header.header.incompatible.has(Incompatible.dirty);
    this.gate = new RequestGate(env);
    this.changing = new RangeLock(env, "qcow2 mapping");
    this.refcounts = new Refcounts({
      env,
      file,
      table: refcountTable,
      capacity: caches.refcountBlocks,
      frees: this.frees,
      switchTable: (offset, clusters) => header.setRefcountTable(offset, clusters),
    });
    this.allocator = new Allocator({
      env,
      file,
      refcounts: this.refcounts,
      frees: this.frees,
      discards: (discard) => this.settings.discards[discard],
    });
    this.l2 = new L2Tables({
      env,
      file,
      l1,
      allocator: this.allocator,
      frees: this.frees,
      sliceSize: caches.sliceSize,
      capacity: caches.slices,
      makeRoom: () => this.writeback.makeRoom(),
    });
    this.writeback = new Writeback({
      env,
      file,
      allocator: this.allocator,
      l1,
      l2: this.l2.cache,
      frees: this.frees,
      flushData: () => this.#flushData(),
      isLazy: () => this.isDirty,
    });
    this.mapping = new Mapping(this.l2, this.geometry, {
      hasDataFile: this.hasDataFile,
      version: () => header.header.version,
    });
    file.onWriteLost = (error) => this.#writeLost(error);
    file.onCorruption = (message, offset, length) => this.corrupt(message, { offset, length });
  }

  /** Bytes of the disk. */
  get size(): number {
    return this.header.header.size;
  }

  get hasDataFile(): boolean {
    return this.header.header.incompatible.has(Incompatible.dataFile);
  }

  /** The data file alone holds the disk: it can be read without this format. */
  get isRawDataFile(): boolean {
    return this.header.header.autoclear.has(Autoclear.rawDataFile);
  }

  /** The counts in the file are not to be relied on. */
  get isDirty(): boolean {
    return this.header.header.incompatible.has(Incompatible.dirty);
  }

  /** Whether somebody else left counts behind that are wrong: they are mended before anything relies on them. */
  get hasStaleCounts(): boolean {
    return this.#wasFoundDirty && this.isDirty;
  }

  /** The image was opened to be checked, nothing else. */
  get isCheckOnly(): boolean {
    return this.#checkOnly !== undefined;
  }

  get readOnly(): boolean {
    return this.host.options.readOnly;
  }

  /** Where guests' data is. */
  get data(): BlockChild {
    return this.hasDataFile ? childOf(this.host, "data-file") : this.file.child;
  }

  /** What answers where nothing is allocated. */
  get backing(): BlockChild | undefined {
    return this.host.children.get("backing");
  }

  /** Why reads are refused: `ENOMEDIUM` the image was found to be damaged. */
  get readFailure(): BlockError | undefined {
    return this.#damage;
  }

  /** Why writes are refused: as reads, `EIO` a flush of the file has failed, or `EPERM` it is open for a check. */
  get writeFailure(): BlockError | undefined {
    return this.#damage ?? this.#flushFailure ?? this.#checkOnly;
  }

  /**
   * The image is damaged: tells so, marks it, and lets no request pass any more. Images that are not writable are
   * told of only.
   *
   * @throws BlockError `EIO`, always
   * @see spec/qcow2.md section 8
   */
  async corrupt(
    message: string,
    place: { readonly offset: number; readonly length: number },
  ): Promise<never> {
    const context = { node: this.host.nodeName, ...place };
    const fatal = !this.readOnly;
    if (!this.#wasReported || (fatal && this.#damage === undefined)) {
      this.#wasReported = true;
      this.host.reportCorruption(message, { fatal, ...place });
    }
    if (fatal && this.#damage === undefined) {
      this.#damage = new BlockError("ENOMEDIUM", `the image is damaged: ${message}`, context);
      await this.header.setIncompatible((word) => word.with(Incompatible.corrupt));
    }
    throw new BlockError("EIO", message, context);
  }

  /**
   * A flush of the file, or a write of the header, has failed: what the file holds is not known, so nothing that
   * builds on it is written any more.
   *
   * @see docs/reliability.md section 3.2, RQ-6
   */
  #writeLost(error: unknown): void {
    this.#flushFailure ??= new BlockError(
      "EIO",
      "a flush of the image file or a write of its header has failed; what was written before may be lost",
      { node: this.host.nodeName },
      { cause: error },
    );
  }

  /** Before clusters are allocated: marks the image as dirty if counts are written late, and frees what has waited long. */
  async prepareToAllocate(): Promise<void> {
    if (this.settings.lazyRefcounts && !this.isDirty) await this.#setDirty();
    const limit = Math.max(PENDING_BYTES_MIN, 64 * this.geometry.clusterSize);
    if (this.frees.bytes > limit) await this.flush();
  }

  /** Makes everything stable. */
  flush(): Promise<void> {
    const failure = this.#damage ?? this.#flushFailure;
    return failure === undefined ? this.writeback.flush() : Promise.reject(failure);
  }

  async #flushData(): Promise<void> {
    if (!this.hasDataFile) return;
    try {
      await this.data.flush();
    } catch (error) {
      this.#writeLost(error);
      throw error;
    }
  }

  /** Writes all back and clears the mark of late counts: the image is as if nobody had it open. */
  async clean(): Promise<void> {
    await this.writeback.finish();
    if (!this.isDirty || this.readOnly || this.hasStaleCounts) return;
    await this.refcounts.write();
    await this.file.flush();
    await this.header.setIncompatible((word) => word.without(Incompatible.dirty));
  }

  /** The image is closed: every request is refused from here on. */
  shutDown(): void {
    const message = "the image is closed";
    this.#damage ??= new BlockError("ESHUTDOWN", message, { node: this.host.nodeName });
  }

  /** The header was read anew. */
  headerReplaced(): void {
    this.#wasFoundDirty = this.isDirty;
  }

  async #setDirty(): Promise<void> {
    this.#wasFoundDirty = false;
    await this.header.setIncompatible((word) => word.with(Incompatible.dirty));
  }
}
