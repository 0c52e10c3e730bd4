import { type BlockChild, type BlockStatus, rejected, StatusFlag } from "@blocklayer/driver";
import { BlockError } from "@blocklayer/errors";
import type { Simulation } from "../simulation.ts";
import type { BlockCopyPlan } from "./block-copy-plan.ts";

type CopyRequest = "read" | "write" | "zeroes" | "offload";

interface Running {
  readonly kind: CopyRequest;
  readonly offset: number;
  readonly length: number;
}

/** What the watch has to be told, and whom it tells. */
export interface CopyWatchHooks {
  /** Whether a cluster is to be copied, as of now. */
  readonly isWanted: (offset: number) => boolean;
  /** The source is discarded. Returns what to call when that has ended. */
  readonly discarding: (offset: number, length: number) => (succeeded: boolean) => void;
}

/**
 * Stands between the engine and its two disks, and judges every request of a copy by itself: made of whole clusters,
 * wanted, the only one there, not repeated, within the memory, and not begun after the end of all calls.
 */
export class CopyWatch {
  readonly #simulation: Pick<Simulation, "expect">;
  readonly #plan: BlockCopyPlan;
  readonly #hooks: CopyWatchHooks;
  readonly #running = new Set<Running>();
  /** How often each cluster was copied, by its number. */
  readonly #copies: number[];
  /** Clusters of the target that a copy, perhaps one that failed, has touched, by their offsets. */
  readonly #touched = new Set<number>();
  /** Why no copy may begin. */
  #silence: string | undefined;

  constructor(simulation: Pick<Simulation, "expect">, plan: BlockCopyPlan, hooks: CopyWatchHooks) {
    this.#simulation = simulation;
    this.#plan = plan;
    this.#hooks = hooks;
    this.#copies = Array.from({ length: plan.clusterCount }, () => 0);
  }

  /** Everything may be copied once more. */
  restart(): void {
    this.#copies.fill(0);
    this.#touched.clear();
  }

  isCopied(offset: number): boolean {
    return (this.#copies[offset / this.#plan.clusterSize] ?? 0) > 0;
  }

  isTouched(offset: number): boolean {
    return this.#touched.has(offset);
  }

  get copiedClusters(): number {
    return this.#copies.reduce((sum, count) => sum + count, 0);
  }

  get inFlight(): number {
    return this.#running.size;
  }

  /** From here on no copy may begin, until `undefined` is given. */
  silence(reason: string | undefined): void {
    this.#silence = reason;
  }

  source(edge: BlockChild, target: BlockChild): BlockChild {
    return overridden(edge, {
      pread: (offset, buffer) =>
        this.#during("read", offset, buffer.length, () => edge.pread(offset, buffer)),
      pdiscard: (offset, length) => this.#discard(edge, offset, length),
      blockStatus: (offset, length, options) =>
        this.#layerStatus(offset, edge.blockStatus(offset, length, options)),
      copyRangeFrom: (offset, _target, _targetOffset, length) =>
        this.#offload(edge, target, offset, length),
    });
  }

  target(edge: BlockChild): BlockChild {
    return overridden(edge, {
      pwrite: (offset, buffer, options) =>
        this.#during("write", offset, buffer.length, () => edge.pwrite(offset, buffer, options)),
      pwriteZeroes: (offset, length, options) =>
        this.#during("zeroes", offset, length, () => edge.pwriteZeroes(offset, length, options)),
    });
  }

  #during(
    kind: CopyRequest,
    offset: number,
    length: number,
    work: () => Promise<void>,
  ): Promise<void> {
    const running: Running = { kind, offset, length };
    this.#judge(running);
    this.#running.add(running);
    // What completes within the call does so here too.
    return work().then(
      () => this.#end(running, true),
      (error: unknown) => {
        this.#end(running, false);
        throw error;
      },
    );
  }

  #judge(request: Running): void {
    const { kind, offset, length } = request;
    const { clusterSize, size } = this.#plan;
    const end = offset + length;
    const what = `${kind} of ${length} bytes at ${offset}`;
    this.#expect(
      offset % clusterSize === 0 && (end % clusterSize === 0 || end === size) && end <= size,
      "not whole clusters",
      what,
    );
    for (const other of this.#running) {
      const isApart = other.offset >= end || offset >= other.offset + other.length;
      this.#expect(isApart, "copied twice at once", `${what}, during ${other.kind}`);
    }
    const isFirst = kind !== "write";
    this.#expect(
      !isFirst || this.#silence === undefined,
      `began after ${this.#silence ?? ""}`,
      what,
    );
    for (let at = offset; at < end; at += clusterSize) {
      this.#expect(!this.isCopied(at), "copied again", `${what}, cluster at ${at}`);
      this.#expect(this.#hooks.isWanted(at), "copied what was not wanted", `${what}, ${at}`);
      if (kind !== "read") this.#touched.add(at);
    }
    this.#judgeMemory(request);
  }

  #judgeMemory({ kind, length }: Running): void {
    if (!this.#plan.hasTightMemory || this.#running.size === 0) return;
    let sum = length;
    for (const other of this.#running) sum += other.length;
    this.#expect(sum <= 2 * this.#plan.clusterSize, "too much memory", `${kind}, ${sum} bytes`);
  }

  #end(request: Running, succeeded: boolean): void {
    this.#running.delete(request);
    if (!succeeded || request.kind === "read") return;
    const { clusterSize } = this.#plan;
    const end = request.offset + request.length;
    for (let at = request.offset; at < end; at += clusterSize) {
      const cluster = at / clusterSize;
      this.#copies[cluster] = (this.#copies[cluster] ?? 0) + 1;
    }
  }

  /** A copy that moves the bytes elsewhere: what comes of it is what comes of a read and a write. */
  #offload(edge: BlockChild, target: BlockChild, offset: number, length: number): Promise<void> {
    if (this.#plan.copyRange !== "works") {
      return rejected(new BlockError("ENOTSUP", "no copy without buffers", { offset, length }));
    }
    return this.#during("offload", offset, length, async () => {
      const buffer = new Uint8Array(length);
      await edge.pread(offset, buffer);
      await target.pwrite(offset, buffer);
    });
  }

  async #discard(edge: BlockChild, offset: number, length: number): Promise<void> {
    const { clusterSize } = this.#plan;
    for (let at = offset; at < offset + length; at += clusterSize) {
      this.#expect(this.isCopied(at), "discarded before it was copied", `cluster at ${at}`);
    }
    const ended = this.#hooks.discarding(offset, length);
    try {
      await edge.pdiscard(offset, length);
      ended(true);
    } catch (error) {
      ended(false);
      throw error;
    }
  }

  /** Shows what the plan says of the top layer, instead of a disk without layers. */
  async #layerStatus(offset: number, asked: Promise<BlockStatus>): Promise<BlockStatus> {
    const status = await asked;
    const { isPresent, clusterSize } = this.#plan;
    if (isPresent === undefined || status.length === 0) return status;
    const unit = clusterSize / 2;
    const first = Math.floor(offset / unit);
    let half = first + 1;
    while (half < isPresent.length && isPresent[half] === isPresent[first]) half += 1;
    const length = Math.min(status.length, half * unit - offset);
    if (isPresent[first] === true) {
      return { flags: status.flags | StatusFlag.allocated, length };
    }
    return { flags: 0, length };
  }

  #expect(condition: boolean, kind: string, message: string): void {
    this.#simulation.expect(condition, kind, () => message);
  }
}

/** Returns the child with some of its methods replaced. */
function overridden(child: BlockChild, methods: Partial<BlockChild>): BlockChild {
  return new Proxy(child, {
    get(of, key) {
      const own: unknown = Reflect.get(methods, key);
      if (own !== undefined) return own;
      const value: unknown = Reflect.get(of, key, of);
      return typeof value === "function" ? value.bind(of) : value;
    },
  });
}
