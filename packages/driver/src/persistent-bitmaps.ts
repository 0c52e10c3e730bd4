/** A dirty bitmap as an image stores it. */
export interface StoredBitmap {
  readonly name: string;
  /** Bytes per bit, a power of two. */
  readonly granularity: number;
  /** Bytes that the bitmap covers. */
  readonly size: number;
  /** Whether it records after loading. */
  readonly enabled: boolean;
  /** Whether it was not stored since somebody began to change it: its content counts for nothing. */
  readonly inUse: boolean;
}

/**
 * A bitmap's content in the serialised form of spec/hbitmap.md section 4, in parts: no bitmap objects cross
 * this interface.
 */
export interface BitmapContent {
  /** Bytes of the serialised form. */
  readonly serializedLength: number;
  /**
   * Returns `length` bytes of the serialised form from `offset`.
   *
   * @returns `undefined` when all of them are zero
   */
  read(offset: number, length: number): Promise<Uint8Array | undefined> | Uint8Array | undefined;
}

/** Whether another program wrote to the image since the owner mark was set. */
export type OwnerState = "intact" | "foreign" | "unknown";

/** Slots for a write-intent log, updated in place and durably one at a time. */
export interface LogStore {
  readonly slotCount: number;
  /** Bytes of a slot. */
  readonly slotSize: number;
  readSlots(): Promise<readonly Uint8Array[]>;
  /** Resolves when the slot is durable. */
  writeSlot(index: number, content: Uint8Array): Promise<void>;
  remove(): Promise<void>;
}

/**
 * What an image format that keeps dirty bitmaps offers; `dirty-bitmap` uses it.
 *
 * @see spec/dirty-bitmap.md section 8; spec/write-intent-log.md
 */
export interface PersistentBitmaps {
  list(): Promise<readonly StoredBitmap[]>;
  /** @throws BlockError `ENOENT`; `EIO` the stored form is damaged */
  load(name: string): Promise<BitmapContent>;
  /**
   * Resolves if a bitmap like this could be stored.
   *
   * @throws BlockError `EEXIST`, `EINVAL`, `EFBIG`, `ENOTSUP` with the reason
   */
  canStore(bitmap: Omit<StoredBitmap, "inUse" | "enabled">): Promise<void>;
  /**
   * Replaces the stored set by these in one durable switch; bitmaps marked `inUse` are cleared by it. When it rejects
   * the image holds the old set or the new one.
   */
  store(bitmaps: readonly (StoredBitmap & { readonly content: BitmapContent })[]): Promise<void>;
  /** Removing what is not there succeeds. */
  remove(name: string): Promise<void>;
  /** Marks stored bitmaps as in use, durably, before the first change of the disk. Names that are not there are ignored. */
  markInUse(names: readonly string[]): Promise<void>;
  /** The write-intent log, when there is one. */
  log(): Promise<LogStore | undefined>;
  createLog(slotCount: number, slotSize: number): Promise<LogStore>;
  /** The owner mark as it was found at open, before any write. */
  readonly owner: OwnerState;
  setOwner(): Promise<void>;
  clearOwner(): Promise<void>;
}
