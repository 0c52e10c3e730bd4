import { assert } from "@blocklayer/errors";

/**
 * A table of metadata in memory. Valid until the next `await` of whoever looked it up: then it may have been
 * evicted, and is looked up again.
 */
export class CachedTable {
  /** Bytes from the start of the host file. */
  readonly offset: number;
  #bytes: Uint8Array;
  #isDirty: boolean;
  /** The present bytes are being written out: whoever changes them gets a copy. */
  #isLent: boolean = false;
  /** Was used since the last look for a victim. */
  wasUsed: boolean = true;

  constructor(offset: number, bytes: Uint8Array, isDirty: boolean) {
    this.offset = offset;
    this.#bytes = bytes;
    this.#isDirty = isDirty;
  }

  get isDirty(): boolean {
    return this.#isDirty;
  }

  /** Whether it may be forgotten. */
  get isIdle(): boolean {
    return !(this.#isDirty || this.#isLent);
  }

  /** For looking only. */
  get bytes(): Uint8Array {
    return this.#bytes;
  }

  /** For changing. Only {@link TableCache} calls it, which keeps the list of what is dirty. */
  own(): Uint8Array {
    if (this.#isLent) {
      this.#bytes = this.#bytes.slice();
      this.#isLent = false;
    }
    this.#isDirty = true;
    return this.#bytes;
  }

  /** Takes the bytes for writing them out; they do not change until {@link giveBack}. */
  lend(): Uint8Array {
    this.#isLent = true;
    this.#isDirty = false;
    return this.#bytes;
  }

  giveBack(bytes: Uint8Array, isWritten: boolean): void {
    if (this.#bytes === bytes) this.#isLent = false;
    if (!isWritten) this.#isDirty = true;
  }
}

/** Bytes that were lent for writing, with where they go. */
export interface LentTable {
  readonly table: CachedTable;
  readonly bytes: Uint8Array;
}

export interface TableCacheOptions {
  /** Bytes of a table. */
  readonly tableSize: number;
  /** Tables to keep. At least 2. */
  readonly capacity: number;
  /** Fills all of `bytes`. */
  readonly read: (offset: number, bytes: Uint8Array) => Promise<void>;
  /** Writes out some of what is dirty. Called when nothing can be forgotten. */
  readonly makeRoom: () => Promise<void>;
}

/**
 * Tables of one size by their host offset, with write-back. It knows no order of writes: whoever owns it does.
 *
 * @see docs/decisions/0004-qcow2-staged-writeback.md
 */
export class TableCache {
  #tableSize: number;
  #capacity: number;
  /** Told when a table comes into memory, and when tables were written: there is something that could be forgotten. */
  onAdded: () => void = () => undefined;
  readonly #options: TableCacheOptions;
  readonly #tables = new Map<number, CachedTable>();
  readonly #dirty = new Set<CachedTable>();
  readonly #loading = new Map<number, Promise<void>>();
  /** Where the search for a victim goes on. */
  #hand: Iterator<CachedTable> | undefined;
  /** Counts what was dropped: a load that began before does not bring it back. */
  #generation = 0;

  constructor(options: TableCacheOptions) {
    this.#tableSize = options.tableSize;
    this.#capacity = Math.max(2, options.capacity);
    this.#options = options;
  }

  /** Tables in memory. */
  get count(): number {
    return this.#tables.size;
  }

  get hasDirty(): boolean {
    return this.#dirty.size > 0;
  }

  /** Whether it has tables that are not dirty. */
  get hasClean(): boolean {
    return this.#tables.size > this.#dirty.size;
  }

  /** Bytes of a table. */
  get tableSize(): number {
    return this.#tableSize;
  }

  /** Keeps tables of another size from here on, and forgets all that it has: none of them is dirty. */
  reshape(tableSize: number): void {
    assert(!this.hasDirty, "tables of another size come when nothing is dirty");
    this.clear();
    this.#tableSize = tableSize;
  }

  get capacity(): number {
    return this.#capacity;
  }

  /** Takes effect as tables come and go. */
  set capacity(count: number) {
    this.#capacity = Math.max(2, count);
  }

  /** The table at a host offset, if it is in memory. */
  peek(offset: number): CachedTable | undefined {
    const table = this.#tables.get(offset);
    if (table !== undefined) table.wasUsed = true;
    return table;
  }

  /** Brings a table into memory; look it up again then, it may be gone already. */
  load(offset: number): Promise<void> {
    const loading = this.#loading.get(offset);
    if (loading !== undefined) return loading;
    const work = this.#load(offset).finally(() => this.#loading.delete(offset));
    this.#loading.set(offset, work);
    return work;
  }

  /** The bytes of a table that is in memory, to be changed at once: they count as dirty from here on. */
  change(table: CachedTable): Uint8Array {
    assert(this.#tables.get(table.offset) === table, "a table that is changed is in the cache");
    this.#dirty.add(table);
    return table.own();
  }

  /** Puts a new table in place; the bytes are the cache's from here on. */
  put(offset: number, bytes: Uint8Array, isDirty: boolean): CachedTable {
    const known = this.#tables.get(offset);
    if (known !== undefined) this.#forget(known);
    const table = new CachedTable(offset, bytes, isDirty);
    this.#tables.set(offset, table);
    if (isDirty) this.#dirty.add(table);
    this.onAdded();
    return table;
  }

  /** Forgets what lies in a range of the host file, dirty or not: it is no metadata any more. */
  drop(offset: number, length: number): void {
    this.#generation += 1;
    for (let at = offset; at < offset + length; at += this.tableSize) {
      const table = this.#tables.get(at);
      if (table !== undefined) this.#forget(table);
    }
  }

  /** Forgets everything that is not dirty. */
  dropClean(): void {
    this.#generation += 1;
    for (const table of this.#tables.values()) if (table.isIdle) this.#forget(table);
  }

  /** Forgets what is not dirty and was not used since the last call. */
  dropUnused(): void {
    this.#generation += 1;
    for (const table of this.#tables.values()) {
      if (table.isIdle && !table.wasUsed) this.#forget(table);
      table.wasUsed = false;
    }
  }

  /** Forgets everything. */
  clear(): void {
    this.#generation += 1;
    this.#tables.clear();
    this.#dirty.clear();
  }

  /** Takes all dirty tables for writing out, in the order of the host file. */
  lendDirty(): LentTable[] {
    const tables = [...this.#dirty].sort((one, two) => one.offset - two.offset);
    this.#dirty.clear();
    return tables.map((table) => ({ table, bytes: table.lend() }));
  }

  /** Says that lent tables were written, or not: then they are dirty again. */
  giveBack(lent: readonly LentTable[], isWritten: boolean): void {
    for (const { table, bytes } of lent) {
      if (this.#tables.get(table.offset) !== table) continue;
      table.giveBack(bytes, isWritten);
      if (table.isDirty) this.#dirty.add(table);
    }
    if (isWritten) this.onAdded();
  }

  async #load(offset: number): Promise<void> {
    for (;;) {
      await this.#makeRoom();
      const generation = this.#generation;
      const bytes = new Uint8Array(this.tableSize);
      await this.#options.read(offset, bytes);
      // Somebody may have put it meanwhile: that one is newer.
      if (this.#tables.has(offset)) return;
      if (generation !== this.#generation) continue;
      this.put(offset, bytes, false);
      return;
    }
  }

  async #makeRoom(): Promise<void> {
    for (let tries = 0; this.#tables.size >= this.#capacity; tries += 1) {
      const victim = this.#findVictim();
      if (victim !== undefined) this.#forget(victim);
      else if (tries < 2) await this.#options.makeRoom();
      // Others hold more than fits at the moment: more memory is better than no progress.
      else return;
    }
  }

  /** Second chance: goes round and takes the first one that was not used since the last time. */
  #findVictim(): CachedTable | undefined {
    for (let steps = 2 * this.#tables.size; steps > 0; steps -= 1) {
      let next = this.#hand?.next();
      if (next === undefined || next.done === true) {
        this.#hand = this.#tables.values();
        next = this.#hand.next();
      }
      const table = next.value as CachedTable | undefined;
      if (table === undefined || !table.isIdle) continue;
      if (!table.wasUsed) return table;
      table.wasUsed = false;
    }
    return undefined;
  }

  #forget(table: CachedTable): void {
    this.#tables.delete(table.offset);
    this.#dirty.delete(table);
  }
}
