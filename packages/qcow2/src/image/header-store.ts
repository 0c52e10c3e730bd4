import { BlockError } from "@blocklayer/errors";
import { writeU32, writeU64 } from "@blocklayer/offsets";
import { encodeFeatureNames, FEATURE_NAMES, knownAutoclear } from "../format/feature-names.ts";
import type { FeatureWord } from "../format/feature-word.ts";
import { encodeHeader, type Header } from "../format/header.ts";
import {
  concatenated,
  encodeExtensions,
  encodeText,
  type HeaderExtensions,
} from "../format/header-extensions.ts";
import type { HostFile } from "./host-file.ts";

/** Clusters up to this many bytes have no room for names of features. */
const NAMELESS_CLUSTER_MAX = 4096;

/** What cluster 0 says. */
export interface HeaderContent {
  readonly header: Header;
  readonly extensions: HeaderExtensions;
  /** Name of the backing file, `undefined` for none. */
  readonly backingName: string | undefined;
}

type FeatureWords = Partial<Pick<Header, "incompatible" | "compatible" | "autoclear">>;

/**
 * Cluster 0 of an image: what it says, and how it is changed. Every change is one write and stable when it
 * resolves; memory follows the disk.
 *
 * @see spec/qcow2.md section 2
 */
export class HeaderStore {
  readonly #file: HostFile;
  #content: HeaderContent;

  constructor(file: HostFile, content: HeaderContent) {
    this.#file = file;
    this.#content = content;
  }

  get header(): Header {
    return this.#content.header;
  }

  get extensions(): HeaderExtensions {
    return this.#content.extensions;
  }

  get backingName(): string | undefined {
    return this.#content.backingName;
  }

  /**
   * Writes all of cluster 0 with these changes.
   *
   * @throws BlockError `ENOSPC` it does not fit a cluster; then nothing was changed
   */
  async update(change: {
    readonly header?: Partial<Header>;
    readonly extensions?: Partial<HeaderExtensions>;
    readonly backingName?: string | null;
  }): Promise<void> {
    const { backingName } = change;
    const content: HeaderContent = {
      header: { ...this.header, ...change.header },
      extensions: { ...this.extensions, ...change.extensions },
      backingName: backingName === undefined ? this.backingName : (backingName ?? undefined),
    };
    const encoded = encodeCluster0(content);
    await this.#write(0, encoded.bytes);
    this.#content = { ...content, header: encoded.header };
  }

  /** Takes all that was read from the file anew. */
  replace(content: HeaderContent): void {
    this.#content = content;
  }

  /** Takes what is in the file already. */
  adopt(header: Partial<Header>): void {
    this.#content = { ...this.#content, header: { ...this.header, ...header } };
  }

  /** Takes what is in the file already. */
  adoptExtensions(extensions: Partial<HeaderExtensions>): void {
    const { header, backingName } = this.#content;
    this.#content = { header, backingName, extensions: { ...this.extensions, ...extensions } };
  }

  /**
   * Writes a part of cluster 0, which is stable then; memory does not follow.
   *
   * @param bytes - within one sector, so that no disk tears them, or what nothing refers to yet
   */
  patch(offset: number, bytes: Uint8Array): Promise<void> {
    return this.#write(offset, bytes);
  }

  /**
   * Writes the feature words alone: one write that no disk tears. Version 3 only.
   *
   * When a write fails that only makes the image more careful, whatever the disk has then is as good: it may be tried
   * again.
   */
  async setFeatures(words: FeatureWords): Promise<void> {
    const header = { ...this.header, ...words };
    if (header.version === 2) return;
    const bytes = new Uint8Array(24);
    header.incompatible.write(bytes, 0);
    header.compatible.write(bytes, 8);
    header.autoclear.write(bytes, 16);
    await this.#write(72, bytes, isMoreCareful(this.header, header));
    this.adopt(words);
  }

  /** Points to another active L1 table. */
  async setL1(l1Offset: number, l1Size: number): Promise<void> {
    const bytes = new Uint8Array(12);
    writeU32(bytes, 0, l1Size);
    writeU64(bytes, 4, l1Offset);
    await this.#write(36, bytes);
    this.adopt({ l1Offset, l1Size });
  }

  /** Points to another refcount table. */
  async setRefcountTable(
    refcountTableOffset: number,
    refcountTableClusters: number,
  ): Promise<void> {
    const bytes = new Uint8Array(12);
    writeU64(bytes, 0, refcountTableOffset);
    writeU32(bytes, 8, refcountTableClusters);
    await this.#write(48, bytes);
    this.adopt({ refcountTableOffset, refcountTableClusters });
  }

  /** Points to another table of snapshots. */
  async setSnapshots(snapshotCount: number, snapshotTableOffset: number): Promise<void> {
    const bytes = new Uint8Array(12);
    writeU32(bytes, 0, snapshotCount);
    writeU64(bytes, 4, snapshotTableOffset);
    await this.#write(60, bytes);
    this.adopt({ snapshotCount, snapshotTableOffset });
  }

  /** @param size - bytes of the disk */
  async setSize(size: number): Promise<void> {
    const bytes = new Uint8Array(8);
    writeU64(bytes, 0, size);
    await this.#write(24, bytes);
    this.adopt({ size });
  }

  async setIncompatible(change: (word: FeatureWord) => FeatureWord): Promise<void> {
    const incompatible = change(this.header.incompatible);
    if (incompatible.equals(this.header.incompatible)) return;
    await this.setFeatures({ incompatible });
  }

  async #write(offset: number, bytes: Uint8Array, isRepeatable = false): Promise<void> {
    try {
      await this.#file.write(offset, bytes, "main-header");
    } catch (error) {
      // Whether the disk has the old header or the new one is not known.
      if (!isRepeatable) this.#file.onWriteLost(error);
      throw error;
    }
    await this.#file.flush();
  }
}

/** Whether marks of damage are only added, and promises that something holds only taken back. */
function isMoreCareful(before: Header, after: Header): boolean {
  return (
    isSubset(before.incompatible, after.incompatible) && isSubset(after.autoclear, before.autoclear)
  );
}

function isSubset(part: FeatureWord, whole: FeatureWord): boolean {
  const bits = whole.bits();
  return part.bits().every((bit) => bits.includes(bit));
}

/**
 * Encodes a whole cluster 0: header, extensions, name of the backing file, and zeroes.
 *
 * @returns the bytes, and the header as they say it
 * @throws BlockError `ENOSPC` it does not fit
 */
export function encodeCluster0(content: HeaderContent): {
  readonly bytes: Uint8Array;
  readonly header: Header;
} {
  const { header, backingName, extensions } = content;
  const clusterSize = 2 ** header.clusterBits;
  const hasNames = header.version === 3 && clusterSize > NAMELESS_CLUSTER_MAX;
  const names = hasNames ? encodeFeatureNames(FEATURE_NAMES) : undefined;
  const name = backingName === undefined ? new Uint8Array(0) : encodeText(backingName);
  const tail = encodeExtensions(extensions, names);
  const fixed = encodeHeader(header);
  const nameOffset = fixed.length + tail.length;
  if (nameOffset + name.length > clusterSize) {
    throw new BlockError("ENOSPC", "the header does not fit the first cluster", {
      bytes: nameOffset + name.length,
      limit: clusterSize,
    });
  }
  const complete: Header = {
    ...header,
    autoclear: knownAutoclear(header.autoclear),
    headerLength: fixed.length,
    backingNameOffset: name.length === 0 ? 0 : nameOffset,
    backingNameLength: name.length,
  };
  const bytes = new Uint8Array(clusterSize);
  bytes.set(concatenated([encodeHeader(complete), tail, name]));
  return { bytes, header: complete };
}
