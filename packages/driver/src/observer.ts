/**
 * How a node's content changes: by a write, write-zeroes or discard request, or by something outside the
 * write path (`"replace"`: a snapshot applied, an image restored), of the whole node if the range is unknown.
 */
export type WriteKind = "write" | "zeroes" | "discard" | "replace";

/** A change of content as observers see it: aligned as the driver receives it. The object is reused; copy what you keep. */
export interface WriteRequest {
  readonly kind: WriteKind;
  /** Bytes from the start of the node. */
  readonly offset: number;
  /** Bytes. */
  readonly length: number;
  /** `RequestFlag` bits of the request. */
  readonly flags: number;
}

export interface ResizeRequest {
  readonly oldSize: number;
  readonly newSize: number;
}

/**
 * Watches the changes of one node's content. Dirty bitmaps are observers, and so is a write-intent log.
 *
 * `beforeWrite` runs after the request waited for its overlaps and before it is issued to the driver; the
 * request is issued only when every observer agreed. Copy-on-read is not a change and is not announced.
 * What an observer itself stores goes below the node it watches. Observers may not start graph surgery.
 *
 * @see docs/design.md section 4; spec/write-intent-log.md section 3 for why it is before issue
 */
export interface WriteObserver {
  /**
   * May throw or reject to refuse the write, and may return a promise to hold it back. Returning `undefined`
   * is the fast path.
   */
  beforeWrite?(request: WriteRequest): Promise<void> | undefined;
  /**
   * Called when the driver is done, before the requester is told, also when it failed (`error`): what is on
   * the disk is then unknown. Must not throw.
   */
  afterWrite?(request: WriteRequest, error: unknown): void;
  /** May throw or reject to refuse a change of length. */
  beforeResize?(request: ResizeRequest): Promise<void> | undefined;
  /** Called when the length has changed. Must not throw. */
  resized?(request: ResizeRequest): void;
}
