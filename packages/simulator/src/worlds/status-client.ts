import type { ChainStatus, ReadableBackend } from "@blocklayer/block-graph";
import { type BlockStatus, StatusFlag } from "@blocklayer/driver";
import { BlockError } from "@blocklayer/errors";
import type { RegisterOracle } from "../register-oracle.ts";
import type { Simulation } from "../simulation.ts";

export interface StatusClientOptions {
  readonly simulation: Simulation;
  readonly oracle: RegisterOracle;
  readonly disk: Pick<ReadableBackend, "size" | "blockStatus">;
  /** Bytes: where byte 0 of the disk is stored. */
  readonly storedFrom: number;
  /** Whether the length may change meanwhile. */
  readonly isResized: boolean;
}

/**
 * Asks what is stored where, while others write. What is said to be zeroes has to be zeroes at some moment between
 * question and answer, and the answers tile what was asked for.
 *
 * @see docs/reliability.md section 3.2: BS-1 to BS-3
 */
export class StatusClient {
  readonly #options: StatusClientOptions;
  /** Where data was found last: what is remembered anywhere is remembered of this place. */
  #lastData: number | undefined;

  constructor(options: StatusClientOptions) {
    this.#options = options;
  }

  /** @param hotCells - cells at the start of the disk that are asked for more often than others */
  async work(count: number, hotCells: number): Promise<void> {
    const { simulation, oracle, disk } = this.#options;
    const { decisions } = simulation;
    for (let index = 0; index < count; index += 1) {
      await simulation.scheduler.turn("before a status");
      const cells = disk.size / oracle.cellSize;
      const isHot = !decisions.chance("status anywhere", 1, 3);
      const cell = decisions.choose("status cell", isHot ? Math.min(hotCells, cells) : cells);
      const length = (1 + decisions.choose("status cells", cells - cell)) * oracle.cellSize;
      const offset = cell * oracle.cellSize;
      await simulation.operation(`status ${offset}+${length}`, () => this.ask(offset, length));
    }
  }

  /** Asks until the whole range was answered. */
  async ask(offset: number, length: number): Promise<void> {
    const end = offset + length;
    for (let position = offset; position < end; ) {
      const { length: answered } = await this.#askOnce(position, end - position);
      if (answered === 0) return;
      position += answered;
    }
  }

  /**
   * Asks for the whole disk while nothing changes: then holes are what the medium has as holes, as of now.
   *
   * @param isHole - tells of a place of the disk
   */
  async askAll(isHole: (offset: number) => boolean): Promise<void> {
    const { disk } = this.#options;
    const known = this.#lastData;
    if (known !== undefined && known < disk.size) await this.#askNow(known, isHole);
    for (let position = 0; position < disk.size; ) {
      const length = await this.#askNow(position, isHole);
      if (length === 0) return;
      position += length;
    }
  }

  async #askNow(offset: number, isHole: (offset: number) => boolean): Promise<number> {
    const { simulation, disk } = this.#options;
    const { flags, length } = await this.#askOnce(offset, disk.size - offset);
    const isZero = (flags & StatusFlag.zero) !== 0;
    const what = (): string => `${length} bytes at ${offset}: ${isZero ? "zeroes" : "data"}`;
    simulation.expect(isZero === isHole(offset), "status out of date", what);
    return length;
  }

  /** Returns an answer of length 0 when the place is gone. */
  async #askOnce(offset: number, length: number): Promise<BlockStatus> {
    const { simulation, oracle, disk, isResized } = this.#options;
    const operation = oracle.begin("read", offset, length);
    let status: ChainStatus;
    try {
      status = await disk.blockStatus(offset, length);
    } catch (error) {
      oracle.end(operation, false);
      if (isResized && error instanceof BlockError && error.code === "EIO") {
        return { flags: 0, length: 0 };
      }
      throw error;
    }
    if (status.length > 0 && (status.flags & StatusFlag.zero) !== 0) {
      simulation.sometimes("a status was zeroes");
      const run = { ...operation, length: status.length };
      const problem = oracle.check(run, new Uint8Array(status.length));
      if (problem !== undefined) simulation.fail("not zeroes", `status of ${offset}: ${problem}`);
    }
    oracle.end(operation, true);
    this.#judgeRun(offset, length, status);
    if ((status.flags & StatusFlag.data) !== 0) this.#lastData = offset;
    return status;
  }

  #judgeRun(offset: number, length: number, status: ChainStatus): void {
    const { simulation, disk, storedFrom, isResized } = this.#options;
    const { flags } = status;
    const end = offset + status.length;
    const atEnd = (flags & StatusFlag.eof) !== 0;
    const problems = [
      status.length > length && "longer than asked",
      status.length === 0 && !isResized && "empty",
      status.length > 0 && (flags & StatusFlag.allocated) === 0 && "not allocated",
      !isResized && atEnd !== (end === disk.size) && "wrong about the end",
      (flags & StatusFlag.offsetValid) !== 0 &&
        status.offset !== storedFrom + offset &&
        "stored elsewhere",
    ].filter((problem) => problem !== false);
    simulation.expect(
      problems.length === 0,
      "wrong status",
      () => `${problems.join(", ")}: ${status.length} of ${length} bytes at ${offset}, ${flags}`,
    );
  }
}
