import type { WritableBackend } from "@blocklayer/block-graph";
import type { RequestOptions } from "@blocklayer/driver";
import type { ModelDisk } from "./bitmap-model.ts";
import type { GuestDisk } from "./guest.ts";

/** A disk whose changes a model is told of when they begin and when they have ended. */
export class WatchedDisk implements GuestDisk {
  readonly backend: WritableBackend;
  readonly #model: ModelDisk;
  readonly #onChange: (isBegin: boolean) => void;

  constructor(
    backend: WritableBackend,
    model: ModelDisk,
    onChange: (isBegin: boolean) => void = () => undefined,
  ) {
    this.backend = backend;
    this.#model = model;
    this.#onChange = onChange;
  }

  get size(): number {
    return this.backend.size;
  }

  read(offset: number, buffer: Uint8Array): Promise<void> {
    return this.backend.read(offset, buffer);
  }

  write(offset: number, buffer: Uint8Array, options?: RequestOptions): Promise<void> {
    return this.#watched(offset, buffer.length, () => this.backend.write(offset, buffer, options));
  }

  writev(offset: number, buffers: readonly Uint8Array[], options?: RequestOptions): Promise<void> {
    const length = buffers.reduce((sum, buffer) => sum + buffer.length, 0);
    return this.#watched(offset, length, () => this.backend.writev(offset, buffers, options));
  }

  writeZeroes(offset: number, length: number, options?: RequestOptions): Promise<void> {
    return this.#watched(offset, length, () => this.backend.writeZeroes(offset, length, options));
  }

  discard(offset: number, length: number): Promise<void> {
    return this.#watched(offset, length, () => this.backend.discard(offset, length));
  }

  flush(): Promise<void> {
    return this.backend.flush();
  }

  async #watched(offset: number, length: number, work: () => Promise<void>): Promise<void> {
    const change = this.#model.begin(offset, length);
    this.#onChange(true);
    try {
      await work();
    } finally {
      this.#model.end(change);
      this.#onChange(false);
    }
  }
}
