import { type BlockLimits, completed, RequestFlag, type RequestOptions } from "@blocklayer/driver";
import type { ExportBackend, WritableExportBackend } from "@blocklayer/nbd-server";
import { type Medium, unanswered } from "../disk/medium.ts";
import type { NbdPlan } from "./nbd-plan.ts";

/**
 * A medium as a server's disk, without a graph. It trusts its caller: what lies outside of the export lies on the
 * medium, where it can be seen afterwards.
 */
export class MediumBackend implements WritableExportBackend {
  readonly limits: BlockLimits;
  readonly #medium: Medium;
  readonly #plan: NbdPlan;
  readonly #life: number;
  #inFlight: number = 0;
  #idle: () => void = nobody;

  constructor(medium: Medium, plan: NbdPlan) {
    this.#medium = medium;
    this.#plan = plan;
    this.#life = medium.life;
    this.limits = limitsOf(plan);
  }

  get size(): number {
    return this.#plan.size;
  }

  read(offset: number, buffer: Uint8Array): Promise<void> {
    return this.#do(() => this.#medium.read(this.#at(offset), buffer));
  }

  write(offset: number, buffer: Uint8Array, options?: RequestOptions): Promise<void> {
    return this.#do(() => this.#medium.write(this.#at(offset), buffer, isFua(options)));
  }

  writeZeroes(offset: number, length: number, options?: RequestOptions): Promise<void> {
    const unmaps = ((options?.flags ?? 0) & RequestFlag.mayUnmap) !== 0;
    return this.#do(() => this.#medium.zero(this.#at(offset), length, unmaps, isFua(options)));
  }

  discard(offset: number, length: number): Promise<void> {
    return this.#do(() => this.#medium.discard(this.#at(offset), length));
  }

  flush(): Promise<void> {
    return this.#do(() => this.#medium.flush());
  }

  /** Waits for what is in flight, and flushes. */
  async close(): Promise<void> {
    if (this.#inFlight > 0) {
      await new Promise<void>((resolve) => {
        this.#idle = resolve;
      });
    }
    await this.flush();
  }

  #at(offset: number): number {
    return this.#plan.margin + offset;
  }

  #do(work: () => Promise<void>): Promise<void> {
    if (this.#life !== this.#medium.life) return unanswered();
    const done = work();
    if (done === completed) return done;
    this.#inFlight += 1;
    return done.finally(() => {
      this.#inFlight -= 1;
      if (this.#inFlight === 0) this.#idle();
    });
  }
}

/** Returns the same disk with fewer bytes. */
export function shortened(backend: WritableExportBackend, size: number): ExportBackend {
  return {
    size,
    limits: backend.limits,
    read: (offset, buffer, options) => backend.read(offset, buffer, options),
    write: (offset, buffer, options) => backend.write(offset, buffer, options),
    writeZeroes: (offset, length, options) => backend.writeZeroes(offset, length, options),
    discard: (offset, length, options) => backend.discard(offset, length, options),
    flush: () => backend.flush(),
    close: () => backend.close(),
  };
}

function limitsOf({ alignment, maxTransfer }: NbdPlan): BlockLimits {
  return {
    requestAlignment: alignment,
    maxTransfer,
    optTransfer: 0,
    maxPwriteZeroes: 0,
    pwriteZeroesAlignment: alignment,
    maxPdiscard: 0,
    pdiscardAlignment: alignment,
  };
}

function isFua(options: RequestOptions | undefined): boolean {
  return ((options?.flags ?? 0) & RequestFlag.fua) !== 0;
}

function nobody(): void {
  // Nobody waits for the end.
}
