import { assert } from "@blocklayer/errors";

/** What an image refers to a host cluster for. */
export type Use =
  | "header"
  | "refcount table"
  | "refcount block"
  | "L1 table"
  | "snapshot table"
  | "L1 table of a snapshot"
  | "L2 table"
  | "data"
  | "compressed data";

interface Reference {
  readonly use: Use;
  /** What tells two references of one use apart that may share: the guest's place. */
  readonly place: number;
  /** Of the active disk, or of a snapshot. */
  readonly owner: string;
  /** What the entry says: nobody else refers to it. `undefined` where there is no such mark. */
  readonly isCopied: boolean | undefined;
}

/** What was found in the bytes of an image. */
export interface StructureReport {
  /** What makes the image unsafe to write to, or to read from. */
  readonly problems: readonly string[];
  /** Marks of the active disk that say less, or more, than the counts. */
  readonly marks: readonly string[];
  /** Clusters that are counted more often than they are referred to. */
  readonly leaks: readonly string[];
  /** Counts may be too low: the image says so itself. */
  readonly isDirty: boolean;
  readonly isCorrupt: boolean;
  readonly size: number;
  readonly clusterSize: number;
  /** Clusters that anything refers to. */
  readonly used: number;
  /** Names of the snapshots. */
  readonly snapshots: readonly string[];
  readonly compatible: number;
  readonly autoclear: number;
  /** What a host offset is used for. */
  readonly useOf: (offset: number) => Use | undefined;
}

const MAGIC = 0x514649fb;
const ENTRY_OFFSET = 0x00ff_ffff_ffff_fe00n;
const COPIED = 1n << 63n;
const COMPRESSED = 1n << 62n;
const DESCRIBED_MAX = 4;

/**
 * Reads the structure of a qcow2 image from its bytes, by the words of the format alone. Sound for small images: all of
 * it is in memory.
 *
 * @see spec/qcow2.md sections 1 to 4, 11; docs/reliability.md section 3.2, Q2-1 to Q2-4
 */
export function readStructure(bytes: Uint8Array): StructureReport {
  return new Structure(bytes).judge();
}

/** Says in one line what is wrong; `undefined` when nothing is. */
export function describeProblems(problems: readonly string[]): string | undefined {
  if (problems.length === 0) return undefined;
  const more =
    problems.length > DESCRIBED_MAX ? `, and ${problems.length - DESCRIBED_MAX} more` : "";
  return `${problems.slice(0, DESCRIBED_MAX).join("; ")}${more}`;
}

class Structure {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #problems: string[] = [];
  readonly #references = new Map<number, Reference[]>();
  readonly #version: number;
  readonly #clusterSize: number;
  readonly #entrySize: number;
  readonly #refcountBits: number;
  readonly #incompatible: number;
  readonly #snapshots: string[] = [];

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    assert(bytes.length >= 104 && this.#u32(0) === MAGIC, "the bytes are those of an image");
    this.#version = this.#u32(4);
    this.#clusterSize = 2 ** this.#u32(20);
    this.#incompatible = this.#version === 3 ? this.#u32(76) : 0;
    this.#entrySize = (this.#incompatible & 0x10) === 0 ? 8 : 16;
    this.#refcountBits = this.#version === 3 ? 2 ** this.#u32(96) : 16;
  }

  judge(): StructureReport {
    this.#refer(0, { use: "header", place: 0, owner: "", isCopied: undefined });
    this.#walkRefcountTable();
    this.#walkTree("the disk", "L1 table", this.#u64(40), this.#u32(36));
    this.#walkSnapshots();
    const marks: string[] = [];
    const leaks: string[] = [];
    this.#judgeCounts(leaks);
    for (const [cluster, references] of this.#references) {
      this.#judgeSharing(cluster, references);
      this.#judgeMarks(cluster, references, marks);
    }
    return {
      problems: this.#problems,
      marks,
      leaks,
      isDirty: this.#isDirty,
      isCorrupt: (this.#incompatible & 2) !== 0,
      size: this.#u64(24),
      clusterSize: this.#clusterSize,
      used: this.#references.size,
      snapshots: this.#snapshots,
      compatible: this.#version === 3 ? this.#u32(84) : 0,
      autoclear: this.#version === 3 ? this.#u32(92) : 0,
      useOf: (offset) => this.#references.get(Math.floor(offset / this.#clusterSize))?.[0]?.use,
    };
  }

  get #isDirty(): boolean {
    return (this.#incompatible & 1) !== 0;
  }

  #walkRefcountTable(): void {
    const offset = this.#u64(48);
    const clusters = this.#u32(56);
    this.#referAll(offset, clusters * this.#clusterSize, "refcount table");
    for (let index = 0; index < (clusters * this.#clusterSize) / 8; index += 1) {
      const block = this.#u64(offset + index * 8);
      if (block === 0) continue;
      if (!this.#isPlace(block, `refcount block ${index}`)) continue;
      this.#refer(block, { use: "refcount block", place: index, owner: "", isCopied: undefined });
    }
  }

  #walkSnapshots(): void {
    let at = this.#u64(64);
    const start = at;
    for (let count = this.#u32(60); count > 0; count -= 1) {
      at = Math.ceil(at / 8) * 8;
      const [idLength, nameLength] = [this.#u16(at + 12), this.#u16(at + 14)];
      const text = at + 40 + this.#u32(at + 36);
      const nameAt = text + idLength;
      const name = String.fromCharCode(...this.#bytes.subarray(nameAt, nameAt + nameLength));
      this.#snapshots.push(name);
      this.#walkTree(
        `snapshot ${name}`,
        "L1 table of a snapshot",
        this.#u64(at),
        this.#u32(at + 8),
      );
      at = nameAt + nameLength;
    }
    this.#referAll(start, at - start, "snapshot table");
  }

  #walkTree(owner: string, use: Use, l1Offset: number, l1Size: number): void {
    this.#referAll(l1Offset, l1Size * 8, use);
    for (let index = 0; index < l1Size; index += 1) {
      const entry = this.#word(l1Offset + index * 8);
      const offset = Number(entry & ENTRY_OFFSET);
      if (offset === 0 || !this.#isPlace(offset, `L2 table ${index} of ${owner}`)) continue;
      const isCopied = (entry & COPIED) !== 0n;
      this.#refer(offset, { use: "L2 table", place: index, owner, isCopied });
      this.#walkTable(owner, index, offset);
    }
  }

  #walkTable(owner: string, index: number, table: number): void {
    const entries = this.#clusterSize / this.#entrySize;
    for (let slot = 0; slot < entries; slot += 1) {
      const entry = this.#word(table + slot * this.#entrySize);
      const place = index * entries + slot;
      const isCopied = (entry & COPIED) !== 0n;
      if ((entry & COMPRESSED) !== 0n) {
        this.#referCompressed(entry, { use: "compressed data", place, owner, isCopied });
        continue;
      }
      const offset = Number(entry & ENTRY_OFFSET);
      if (this.#version === 2 && (entry & 1n) !== 0n) this.#problems.push(`zero entry ${place}`);
      if (offset === 0) {
        if (isCopied)
          this.#problems.push(`guest cluster ${place} of ${owner} is marked, and absent`);
      } else if (this.#isPlace(offset, `guest cluster ${place} of ${owner}`)) {
        this.#refer(offset, { use: "data", place, owner, isCopied });
      }
    }
  }

  #referCompressed(entry: bigint, reference: Reference): void {
    const bits = BigInt(62 - (Math.log2(this.#clusterSize) - 8));
    const offset = Number(entry & ((1n << bits) - 1n));
    const sectors = Number((entry & (COMPRESSED - 1n)) >> bits) + 1;
    const end = Math.floor(offset / 512) * 512 + sectors * 512;
    const first = Math.floor(offset / this.#clusterSize);
    const last = Math.floor((end - 1) / this.#clusterSize);
    for (let cluster = first; cluster <= last; cluster += 1) {
      this.#refer(cluster * this.#clusterSize, reference);
    }
  }

  #referAll(offset: number, length: number, use: Use): void {
    for (let at = 0; at < length; at += this.#clusterSize) {
      if (!this.#isPlace(offset, use)) return;
      this.#refer(offset + at, { use, place: offset, owner: "", isCopied: undefined });
    }
  }

  #refer(offset: number, reference: Reference): void {
    const cluster = offset / this.#clusterSize;
    const references = this.#references.get(cluster);
    if (references === undefined) this.#references.set(cluster, [reference]);
    else references.push(reference);
  }

  /** Nothing lies beyond the end of the file: what is written there was written before it was referred to. */
  #isPlace(offset: number, what: string): boolean {
    const isRight = offset % this.#clusterSize === 0 && offset < this.#bytes.length;
    if (!isRight) this.#problems.push(`${what} at ${offset} of ${this.#bytes.length} bytes`);
    return isRight;
  }

  #judgeCounts(leaks: string[]): void {
    const end = Math.ceil(this.#bytes.length / this.#clusterSize);
    const last = Math.max(...this.#references.keys(), end - 1);
    for (let cluster = 0; cluster <= last; cluster += 1) {
      const references = this.#references.get(cluster) ?? [];
      const count = this.#countOf(cluster);
      const list = references.map(({ use, place, owner }) => `${use} ${place} ${owner}`.trim());
      const what = `cluster ${cluster} is counted ${count} times for ${references.length} references (${list.join(", ")})`;
      // Counts of what lies behind the end are found once the file is longer: they cost nothing before.
      if (count > references.length && cluster < end) leaks.push(what);
      if (count < references.length && !this.#isDirty) this.#problems.push(what);
    }
  }

  #judgeSharing(cluster: number, references: readonly Reference[]): void {
    const [first] = references;
    if (first === undefined || references.length === 1) return;
    const isShared = (other: Reference): boolean => {
      if (first.use !== other.use) return false;
      if (first.use === "compressed data") return true;
      const isOfTree = first.use === "data" || first.use === "L2 table";
      return isOfTree && first.place === other.place;
    };
    const owners = new Set(references.map(({ owner }) => owner));
    const isOncePerOwner = first.use === "compressed data" || owners.size === references.length;
    if (references.every(isShared) && isOncePerOwner) return;
    const list = references.map(({ use, place, owner }) => `${use} ${place} ${owner}`.trim());
    this.#problems.push(`cluster ${cluster} is shared by ${list.join(", ")}`);
  }

  #judgeMarks(cluster: number, references: readonly Reference[], marks: string[]): void {
    const count = this.#isDirty ? references.length : this.#countOf(cluster);
    for (const { use, place, owner, isCopied } of references) {
      if (isCopied === undefined || owner !== "the disk") continue;
      const isRight = use === "compressed data" ? !isCopied : isCopied === (count === 1);
      if (isRight) continue;
      const what = `${use} ${place} is ${isCopied ? "marked" : "not marked"} with count ${count}`;
      marks.push(what);
      // Whoever believes it writes into what somebody else refers to.
      if (isCopied && references.length > 1) this.#problems.push(what);
    }
  }

  #countOf(cluster: number): number {
    const perBlock = (this.#clusterSize * 8) / this.#refcountBits;
    const index = Math.floor(cluster / perBlock);
    if (index >= (this.#u32(56) * this.#clusterSize) / 8) return 0;
    const block = this.#u64(this.#u64(48) + index * 8);
    if (block === 0 || block >= this.#bytes.length) return 0;
    const bit = (cluster % perBlock) * this.#refcountBits;
    const at = block + Math.floor(bit / 8);
    switch (this.#refcountBits) {
      case 8:
        return this.#byte(at);
      case 16:
        return this.#u16(at);
      case 32:
        return this.#u32(at);
      case 64:
        return this.#u64(at);
      default:
        return (this.#byte(at) >>> (bit % 8)) & (2 ** this.#refcountBits - 1);
    }
  }

  // Behind the end of the file are zeroes.

  #byte(at: number): number {
    return this.#bytes[at] ?? 0;
  }

  #u16(at: number): number {
    return this.#byte(at) * 256 + this.#byte(at + 1);
  }

  #u32(at: number): number {
    if (at + 4 <= this.#bytes.length) return this.#view.getUint32(at);
    return this.#u16(at) * 65536 + this.#u16(at + 2);
  }

  #u64(at: number): number {
    return this.#u32(at) * 2 ** 32 + this.#u32(at + 4);
  }

  #word(at: number): bigint {
    return (BigInt(this.#u32(at)) << 32n) + BigInt(this.#u32(at + 4));
  }
}
