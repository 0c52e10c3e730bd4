import { RequestFlag, type WriteKind } from "@blocklayer/driver";
import type { BlockNode } from "../block-node.ts";
import { FlushQueue } from "./flush-path.ts";
import { InFlightCounter } from "./in-flight.ts";
import { checkRange } from "./request-checks.ts";
import { StatusCache } from "./status-cache.ts";
import { RequestTracker } from "./tracked-request.ts";
import { WriteAnnouncer } from "./write-announcer.ts";

/** A request in flight, for the log of a drain that makes no progress. */
export interface RequestInFlight {
  readonly kind: string;
  /** Bytes. */
  readonly offset: number;
  /** Bytes. */
  readonly length: number;
  /** Whether it waits for an overlapping request. */
  readonly isWaiting: boolean;
}

/**
 * What the requests of one node share: who is in flight, who watches, and what is known of the content. Settles what
 * follows from a change, whichever path it took.
 */
export class RequestState extends InFlightCounter {
  readonly node: BlockNode;
  readonly tracker: RequestTracker;
  readonly announcer: WriteAnnouncer = new WriteAnnouncer();
  readonly flushes: FlushQueue = new FlushQueue();
  readonly statusCache: StatusCache = new StatusCache();
  /** Counts changes of content. A flush covers those that were counted when it started. */
  writeGeneration = 0;
  /** {@link writeGeneration} of the last flush that succeeded. */
  flushedGeneration = 0;
  /** End of the highest write so far, in bytes. */
  highestWriteOffset = 0;
  /** How many want every read to be copied into this layer. */
  copyOnReadCount = 0;

  constructor(node: BlockNode) {
    super(node.graph.env);
    this.node = node;
    this.tracker = new RequestTracker(node.graph.env);
  }

  /** The requests that are tracked. Those that complete within their call never are. */
  requestsInFlight(): readonly RequestInFlight[] {
    return Array.from(this.tracker.requests, ({ kind, offset, length, isWaiting }) => ({
      kind,
      offset,
      length,
      isWaiting,
    }));
  }

  /** The flags of a read, with those that the node adds. */
  readFlags(flags: number): number {
    const wanted = this.copyOnReadCount === 0 ? flags : flags | RequestFlag.copyOnRead;
    // A node that must not be written is read as if nobody had asked for copies.
    const mayWrite = this.node.active && !this.node.readOnly;
    return mayWrite ? wanted : wanted & ~RequestFlag.copyOnRead;
  }

  /** Forgets what is known of where data is, in a range whose content may become a hole. */
  invalidateStatusCache(offset: number, length: number): void {
    this.statusCache.invalidate(offset, length);
  }

  /** Tells the observers that content changed outside the write path. Await it before the change. */
  contentReplaced(offset: number, length: number): Promise<void> {
    return this.counted(async () => {
      checkRange(this.node, { operation: "contentReplaced", offset, length });
      await this.announcer.before(this.node.observers, "replace", offset, length, 0);
      this.changed("replace", offset, length, 0, undefined);
    });
  }

  /** Takes the driver's size as the node's, after something changed it. */
  resized(): void {
    const { size } = this.node.driver;
    if (size !== this.node.size) {
      this.invalidateStatusCache(Math.min(size, this.node.size), Math.abs(size - this.node.size));
      this.node.setSize(size);
    }
  }

  /** Settles what follows from every change of content, also a failed one: then what is stored is unknown. */
  changed(kind: WriteKind, offset: number, length: number, flags: number, error: unknown): void {
    this.writeGeneration += 1;
    if (kind !== "write") this.statusCache.invalidate(offset, length);
    if (kind === "write" || kind === "zeroes") {
      const end = offset + length;
      if (end > this.highestWriteOffset) this.highestWriteOffset = end;
    }
    const { observers } = this.node;
    if (observers.length > 0) {
      this.announcer.after(observers, kind, offset, length, flags, error);
    }
  }
}
