import { type BlockChild, completed, RequestFlag, type RequestOptions } from "@blocklayer/driver";
import type { Env } from "@blocklayer/env";
import { BufferPool } from "./buffer-pool.ts";
import { BUFFERED_MAX, type MethodChooser, OFFLOAD_MAX } from "./copy-method.ts";
import type { CopyTask } from "./copy-task.ts";

/**
 * Moves the bytes of one task from source to target, by the method that the task was made for.
 *
 * Differs: zeroes may be written by deallocating, so that a sparse disk stays sparse where the target's discard
 * option allows it.
 */
export class CopyTransfer {
  readonly #source: BlockChild;
  readonly #target: BlockChild;
  readonly #methods: MethodChooser;
  readonly #buffers: BufferPool;
  /** Bytes of one read and write, unless the target compresses. */
  readonly #pieceMax: number;
  readonly #baseFlags: number;
  #compress: boolean = false;
  // Requests without options take the nodes' shortest way.
  #writeOptions: RequestOptions | undefined;
  readonly #zeroOptions: RequestOptions;
  readonly #offloadOptions: RequestOptions | undefined;

  /** @param serialising - whether writes overlap with no other request of the target */
  constructor(
    source: BlockChild,
    target: BlockChild,
    settings: {
      readonly env: Env;
      readonly methods: MethodChooser;
      readonly clusterSize: number;
      readonly serialising: boolean;
    },
  ) {
    this.#source = source;
    this.#target = target;
    this.#methods = settings.methods;
    this.#pieceMax = Math.max(BUFFERED_MAX, Math.min(settings.clusterSize, OFFLOAD_MAX));
    this.#buffers = new BufferPool(settings.env, this.#pieceMax);
    this.#baseFlags = settings.serialising ? RequestFlag.serialising : 0;
    this.#zeroOptions = { flags: this.#baseFlags | RequestFlag.mayUnmap };
    this.#offloadOptions = optionsOf(this.#baseFlags);
    this.#writeOptions = this.#offloadOptions;
  }

  /** Whether data is written compressed, one cluster at a time. */
  setCompress(compress: boolean): void {
    this.#compress = compress;
    this.#writeOptions = optionsOf(this.#baseFlags | (compress ? RequestFlag.compressed : 0));
  }

  /**
   * Copies `[task.offset, task.offset + length)`. After a failure `task.isReading` says which side failed.
   *
   * @param length - bytes of the task that lie inside the source
   */
  async run(task: CopyTask, length: number): Promise<void> {
    if (task.isZero) await this.#target.pwriteZeroes(task.offset, length, this.#zeroOptions);
    else if (!(await this.#offload(task, length))) await this.#readAndWrite(task, length);
  }

  /** Frees the source where it was copied. */
  async discard(offset: number, length: number): Promise<void> {
    try {
      await this.#source.pdiscard(offset, length);
    } catch {
      // The copy is what was asked for; a source that keeps its space is no failure.
    }
  }

  async #readAndWrite(task: CopyTask, length: number): Promise<void> {
    const pieceMax = this.#compress ? length : this.#pieceMax;
    for (let done = 0; done < length; done += pieceMax) {
      const buffer = this.#buffers.take(Math.min(pieceMax, length - done));
      task.isReading = true;
      const read = this.#source.pread(task.offset + done, buffer);
      if (read !== completed) await read;
      task.isReading = false;
      const written = this.#target.pwrite(task.offset + done, buffer, this.#writeOptions);
      if (written !== completed) await written;
      // Not in `finally`: after a failure somebody may still hold the buffer.
      this.#buffers.give(buffer);
    }
  }

  /** Copies without buffers; returns `false` when the task has to be read and written instead. */
  async #offload(task: CopyTask, length: number): Promise<boolean> {
    const { method, offset } = task;
    if (method !== "offload-small" && method !== "offload-full") return false;
    try {
      await this.#source.copyRangeFrom(offset, this.#target, offset, length, this.#offloadOptions);
      this.#methods.learn(method, true);
      return true;
    } catch {
      // Whatever went wrong, reading and writing will either work or report it properly.
      this.#methods.learn(method, false);
      return false;
    }
  }
}

function optionsOf(flags: number): RequestOptions | undefined {
  return flags === 0 ? undefined : { flags };
}
