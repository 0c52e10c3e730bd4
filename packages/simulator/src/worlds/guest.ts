import type { WritableBackend } from "@blocklayer/block-graph";
import { RequestFlag, type RequestOptions } from "@blocklayer/driver";
import { BlockError } from "@blocklayer/errors";
import type { Cancellation } from "../cancellation.ts";
import type { OracleOperation, RegisterOracle } from "../register-oracle.ts";
import type { Simulation } from "../simulation.ts";

/** What a guest does, dullest first. */
const KINDS = ["write", "read", "zeroes", "discard", "flush", "vector"] as const;
const WEIGHTS = [6, 3, 2, 1, 2, 1];

/** What a guest works on: usually a backend of a graph. */
export type GuestDisk = Pick<
  WritableBackend,
  "size" | "read" | "write" | "writev" | "writeZeroes" | "discard" | "flush"
>;

/** What a guest is judged by: usually the oracle of the disk itself. */
export type GuestOracle = Pick<
  RegisterOracle,
  "cellSize" | "begin" | "payload" | "end" | "beginFlush" | "check"
>;

export interface GuestOptions {
  readonly name: string;
  readonly simulation: Simulation;
  readonly oracle: GuestOracle;
  readonly disk: GuestDisk;
  /** Cells of the longest request. */
  readonly cellsMax: number;
  /** Cells at the start of the disk that are hit more often than others. */
  readonly hotCells: number;
  /** Whether a request may fail with this error now. */
  readonly mayFail: (error: BlockError) => boolean;
  /** Whether now and then the guest stops waiting for a request. Default `false`. */
  readonly isImpatient?: boolean;
}

/** A client of a disk: reads, writes, zeroes, discards and flushes in ranges of whole cells, and judges what it reads. */
export class Guest {
  readonly #options: GuestOptions;

  constructor(options: GuestOptions) {
    this.#options = options;
  }

  /** Sends requests, some of them before the last one has ended; resolves when all have. */
  async work(count: number): Promise<void> {
    const { name, simulation } = this.#options;
    const running: Promise<void>[] = [];
    for (let index = 0; index < count; index += 1) {
      const request = this.#request();
      if (simulation.decisions.chance(`${name} goes on`, 1, 2)) running.push(request);
      else await request;
    }
    await Promise.all(running);
  }

  /** Makes a hole. The range is made of whole cells. */
  punch(offset: number, length: number): Promise<void> {
    const { name, simulation } = this.#options;
    return simulation.operation(`${name} punch ${offset}+${length}`, () =>
      this.#discard(offset, length),
    );
  }

  /** One request. Never rejects: what may not happen is a finding. */
  #request(): Promise<void> {
    const { name, simulation } = this.#options;
    const { decisions } = simulation;
    const kind = KINDS[decisions.weighted(`${name} request`, WEIGHTS, KINDS)] ?? "write";
    const [offset, length] = kind === "flush" ? [0, 0] : this.#range();
    return simulation.operation(`${name} ${kind} ${offset}+${length}`, () => {
      switch (kind) {
        case "flush":
          return this.#flush();
        case "read":
          return this.#read(offset, length);
        case "zeroes":
          return this.#zero(offset, length);
        case "discard":
          return this.#discard(offset, length);
        case "write":
        case "vector":
          return this.#write(offset, length, kind === "vector");
      }
    });
  }

  #range(): readonly [offset: number, length: number] {
    const { name, simulation, oracle, disk, cellsMax, hotCells } = this.#options;
    const { decisions } = simulation;
    const cells = disk.size / oracle.cellSize;
    const isHot = !decisions.chance(`${name} anywhere`, 1, 3);
    const cell = decisions.choose(`${name} cell`, isHot ? Math.min(hotCells, cells) : cells);
    const count = 1 + decisions.choose(`${name} cells`, Math.min(cellsMax, cells - cell));
    return [cell * oracle.cellSize, count * oracle.cellSize];
  }

  async #read(offset: number, length: number): Promise<void> {
    const { simulation, oracle, disk } = this.#options;
    const operation = oracle.begin("read", offset, length);
    const buffer = new Uint8Array(length);
    await this.#change(operation, false, async (options) => {
      await disk.read(offset, buffer, options);
      const problem = oracle.check(operation, buffer);
      if (problem !== undefined) simulation.fail("wrong data", problem);
    });
  }

  #write(offset: number, length: number, isVector: boolean): Promise<void> {
    const { oracle, disk } = this.#options;
    const operation = oracle.begin("write", offset, length);
    const buffer = oracle.payload(operation);
    const flags = this.#flags();
    const isStable = (flags & RequestFlag.fua) !== 0;
    return this.#change(operation, isStable, (options) => {
      if (!isVector) return disk.write(offset, buffer, { ...options, flags });
      const middle = Math.floor(length / 2);
      const parts = [buffer.subarray(0, middle), buffer.subarray(middle)];
      return disk.writev(offset, parts, { ...options, flags });
    });
  }

  #zero(offset: number, length: number): Promise<void> {
    const { name, simulation, oracle, disk } = this.#options;
    const unmaps = simulation.decisions.chance(`${name} unmaps`, 1, 2);
    const flags = this.#flags() | (unmaps ? RequestFlag.mayUnmap : 0);
    const operation = oracle.begin("zeroes", offset, length);
    const isStable = (flags & RequestFlag.fua) !== 0;
    return this.#change(operation, isStable, (options) =>
      disk.writeZeroes(offset, length, { ...options, flags }),
    );
  }

  #discard(offset: number, length: number): Promise<void> {
    const { oracle, disk } = this.#options;
    const operation = oracle.begin("discard", offset, length);
    return this.#change(operation, false, (options) => disk.discard(offset, length, options));
  }

  async #flush(): Promise<void> {
    const { oracle, disk } = this.#options;
    const succeeded = oracle.beginFlush();
    try {
      await disk.flush();
      succeeded();
    } catch (error) {
      this.#judge(error);
    }
  }

  #flags(): number {
    const { name, simulation } = this.#options;
    const choice = simulation.decisions.weighted(`${name} flags`, [8, 2, 1]);
    return [0, RequestFlag.fua, RequestFlag.serialising][choice] ?? 0;
  }

  async #change(
    operation: OracleOperation,
    isStable: boolean,
    work: (options: RequestOptions | undefined) => Promise<void>,
  ): Promise<void> {
    const { oracle } = this.#options;
    const cancellation = this.#cancellation();
    const patience = cancellation === undefined ? undefined : this.#losePatience(cancellation);
    try {
      await work(cancellation === undefined ? undefined : { signal: cancellation.signal });
      oracle.end(operation, true, isStable);
    } catch (error) {
      oracle.end(operation, false);
      this.#judge(error, cancellation);
    }
    await patience;
  }

  #cancellation(): Cancellation | undefined {
    const { name, simulation, isImpatient = false } = this.#options;
    const isPatient = !isImpatient || !simulation.decisions.chance(`${name} is impatient`, 1, 4);
    return isPatient ? undefined : simulation.cancellation();
  }

  async #losePatience(cancellation: Cancellation): Promise<void> {
    const { name, simulation } = this.#options;
    const turns = simulation.decisions.choose(`${name} waits`, 6);
    for (let turn = 0; turn < turns; turn += 1) {
      await simulation.scheduler.turn(`patience of ${name}`);
    }
    if (simulation.decisions.chance(`${name} stops waiting`, 3, 4)) cancellation.abort();
  }

  #judge(error: unknown, cancellation?: Cancellation): void {
    const { name, simulation, mayFail } = this.#options;
    if (error === cancellation?.reason) {
      simulation.sometimes("a guest stopped waiting");
      return;
    }
    if (!(error instanceof BlockError)) throw error;
    simulation.sometimes(`guest request failed with ${error.code}`);
    simulation.expect(
      mayFail(error),
      "error from nowhere",
      () => `${name}: ${error.code} ${error.message}`,
    );
  }
}
