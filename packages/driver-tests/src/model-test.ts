import { type BlockDriver, type BlockLimits, mergeLimits, RequestFlag } from "@blocklayer/driver";
import { SeededRandom } from "@blocklayer/env";
import { ConformanceError, expect, expectBytes } from "./expect.ts";
import { patternBytes } from "./pattern.ts";
import { piecesOf } from "./pieces.ts";
import { type ContentReader, checkStatus, readAll } from "./whole-disk.ts";

/**
 * Runs random operations on a driver and on an array of bytes, and compares them.
 *
 * Writes, vectored writes, write-zeroes, discards, reads, flushes and groups of neighbouring writes at once, as
 * far as the driver has them. What a discarded range holds is taken from the driver, once. The content at the
 * beginning may be anything.
 *
 * @param seed - an integer; the same seed gives the same operations
 * @param steps - number of operations
 * @throws ConformanceError the first difference, with the seed, the step and the last operations
 */
export async function modelTest(driver: BlockDriver, seed: number, steps: number): Promise<void> {
  const run = new ModelRun(driver, seed, await readAll(driver));
  for (let step = 0; step < steps; step += 1) await run.step(step);
  await run.finish();
}

class ModelRun {
  readonly #driver: BlockDriver;
  readonly #seed: number;
  readonly #random: SeededRandom;
  readonly #limits: BlockLimits;
  readonly #model: Uint8Array;
  readonly #recent: string[] = [];
  readonly #operations: readonly (() => Promise<void>)[];
  #step: number = 0;

  constructor(driver: BlockDriver, seed: number, model: Uint8Array) {
    this.#driver = driver;
    this.#seed = seed;
    this.#random = new SeededRandom(seed);
    this.#limits = mergeLimits([], driver.limits);
    this.#model = model;
    const { pwrite, pwritev, pwriteZeroes, pdiscard } = driver;
    this.#operations = [
      () => this.#read(),
      ...(pwrite === undefined ? [] : [() => this.#write(), () => this.#writeNeighbours()]),
      ...(pwritev === undefined ? [] : [() => this.#writeVector()]),
      ...(pwriteZeroes === undefined ? [] : [() => this.#writeZeroes()]),
      ...(pdiscard === undefined ? [] : [() => this.#discard()]),
      () => this.#flush(),
    ];
  }

  async step(step: number): Promise<void> {
    this.#step = step;
    const operation = this.#operations[this.#random.below(this.#operations.length)];
    await this.#explained(() => operation?.() ?? Promise.resolve());
  }

  /** Compares everything, and the status with the content. */
  async finish(): Promise<void> {
    await this.#explained(async () => {
      expectBytes(await readAll(this.#driver), this.#model, "content at the end");
      if (this.#driver.blockStatus !== undefined) {
        await checkStatus(this.#driver, this.#model, unknownBacking);
      }
    });
  }

  async #read(): Promise<void> {
    const [offset, length] = this.#range("pread", this.#limits.maxTransfer);
    const buffer = new Uint8Array(length).fill(0xa5);
    await this.#driver.pread(offset, buffer);
    expectBytes(buffer, this.#model.subarray(offset, offset + length), "pread", offset);
  }

  async #write(): Promise<void> {
    const [offset, length] = this.#range("pwrite", this.#limits.maxTransfer);
    const bytes = this.#bytes(length);
    await this.#driver.pwrite?.(offset, bytes);
    this.#model.set(bytes, offset);
  }

  /** Disjoint writes at once, which may share a unit of allocation. */
  async #writeNeighbours(): Promise<void> {
    const [offset, length] = this.#range("neighbours", this.#limits.maxTransfer);
    const { requestAlignment } = this.#limits;
    const granules = length / requestAlignment;
    const partLength = Math.max(1, Math.ceil(granules / NEIGHBOURS)) * requestAlignment;
    const bytes = this.#bytes(length);
    const writes: Promise<void>[] = [];
    for (let position = 0; position < length; position += partLength) {
      const part = bytes.subarray(position, Math.min(position + partLength, length));
      writes.push(this.#driver.pwrite?.(offset + position, part) ?? Promise.resolve());
    }
    const failed = (await Promise.allSettled(writes)).find(({ status }) => status === "rejected");
    if (failed?.status === "rejected") throw failed.reason;
    this.#model.set(bytes, offset);
  }

  async #writeVector(): Promise<void> {
    const [offset, length] = this.#range("pwritev", this.#limits.maxTransfer);
    const bytes = this.#bytes(length);
    const cut = this.#random.below(length);
    await this.#driver.pwritev?.(offset, [bytes.subarray(0, cut), bytes.subarray(cut)]);
    this.#model.set(bytes, offset);
  }

  async #writeZeroes(): Promise<void> {
    const { maxPwriteZeroes } = this.#limits;
    const [offset, length] = this.#range("pwriteZeroes", 0);
    const { zeroes } = this.#driver.flags;
    const flags = zeroes & (this.#random.below(2) === 0 ? 0 : RequestFlag.mayUnmap);
    const { pwriteZeroesAlignment } = this.#limits;
    for (const piece of piecesOf(offset, length, pwriteZeroesAlignment, maxPwriteZeroes)) {
      await this.#driver.pwriteZeroes?.(...piece, { flags });
    }
    this.#model.fill(0, offset, offset + length);
  }

  async #discard(): Promise<void> {
    const [offset, length] = this.#range("pdiscard", 0);
    const { pdiscardAlignment, maxPdiscard } = this.#limits;
    for (const piece of piecesOf(offset, length, pdiscardAlignment, maxPdiscard)) {
      await this.#driver.pdiscard?.(...piece);
    }
    const content = await readAll(this.#driver);
    this.#model.set(content.subarray(offset, offset + length), offset);
  }

  async #flush(): Promise<void> {
    this.#note("flush");
    const driver = this.#driver;
    if (driver.flush !== undefined) return driver.flush();
    await driver.flushToOs?.();
    await driver.flushToDisk?.();
  }

  /** A valid range: mostly short, sometimes up to everything. */
  #range(operation: string, lengthMax: number): [offset: number, length: number] {
    const { requestAlignment } = this.#limits;
    const granules = this.#model.length / requestAlignment;
    const longest = lengthMax === 0 ? granules : Math.min(granules, lengthMax / requestAlignment);
    const bound = this.#random.below(4) === 0 ? longest : Math.ceil(longest / 8);
    const count = 1 + this.#random.below(Math.max(1, Math.floor(bound)));
    const offset = this.#random.below(granules - count + 1) * requestAlignment;
    const length = count * requestAlignment;
    this.#note(`${operation} of ${length} bytes at ${offset}`);
    return [offset, length];
  }

  #bytes(length: number): Uint8Array {
    // Some writes are of zeroes, which drivers may notice.
    if (this.#random.below(8) === 0) return new Uint8Array(length);
    return patternBytes(length, this.#seed * 1009 + this.#step);
  }

  #note(text: string): void {
    this.#recent.push(text);
    if (this.#recent.length > RECENT_MAX) this.#recent.shift();
  }

  async #explained(work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      const text = error instanceof Error ? error.message : String(error);
      const place = `seed ${this.#seed}, step ${this.#step}`;
      throw new ConformanceError(`${text} (${place}; last: ${this.#recent.join("; ")})`, {
        cause: error,
      });
    }
  }
}

/** The model does not know what is below, so unallocated ranges may hold anything. */
const unknownBacking: ContentReader = () => Promise.resolve(undefined);

const NEIGHBOURS = 8;
const RECENT_MAX = 12;

/** Runs {@link modelTest} with every seed below `count`, on a fresh driver each. */
export async function modelTests(
  open: () => Promise<BlockDriver>,
  count: number,
  steps: number,
): Promise<void> {
  expect(count > 0, "at least one run");
  for (let seed = 0; seed < count; seed += 1) {
    const driver = await open();
    try {
      await modelTest(driver, seed, steps);
    } finally {
      await driver.close();
    }
  }
}
