import { BlockCopy, type BlockCopyOptions } from "@blocklayer/block-copy";
import { type BlockStatus, type DriverFlags, RequestFlag, StatusFlag } from "@blocklayer/driver";
import { patternBytes, ScriptedDriver, TestChild, testChild } from "@blocklayer/driver-tests";
import { type ManualEnv, manualEnv } from "@blocklayer/env";

export const CLUSTER = 65536;

/** A source with content, an empty target, and an engine between them. */
export interface Fixture {
  readonly env: ManualEnv;
  readonly source: ScriptedDriver;
  readonly target: ScriptedDriver;
  readonly engine: BlockCopy;
  /** What the source held at the beginning. */
  readonly before: Uint8Array;
}

export function fixture(
  options: { readonly size?: number } & Partial<BlockCopyOptions> = {},
): Fixture {
  const size = options.size ?? 4 * CLUSTER;
  const env = manualEnv();
  const source = new ScriptedDriver({ size });
  if (size > 0) source.bytes.set(patternBytes(size, 1));
  const target = new ScriptedDriver({ size });
  const engine = new BlockCopy({
    env,
    source: testChild(source),
    target: testChild(target),
    clusterSize: CLUSTER,
    ...options,
  });
  return { env, source, target, engine, before: source.bytes.slice() };
}

/** An edge that knows which parts of its disk are zero, and which are not allocated in its layer. */
export class SparseChild extends TestChild {
  readonly holes: readonly (readonly [offset: number, length: number])[];

  constructor(
    driver: ScriptedDriver,
    holes: readonly (readonly [offset: number, length: number])[],
  ) {
    super(driver);
    this.holes = holes;
  }

  override chainStatus(offset: number, length: number): Promise<BlockStatus & { depth: number }> {
    return this.#status(offset, length, StatusFlag.zero | StatusFlag.allocated);
  }

  override blockStatus(offset: number, length: number): Promise<BlockStatus> {
    return this.#status(offset, length, 0);
  }

  #status(offset: number, length: number, hole: number): Promise<BlockStatus & { depth: number }> {
    let run = length;
    for (const [start, size] of this.holes) {
      const end = start + size;
      if (start <= offset && offset < end) {
        return Promise.resolve({ flags: hole, length: Math.min(length, end - offset), depth: 1 });
      }
      if (start > offset) run = Math.min(run, start - offset);
    }
    return Promise.resolve({
      flags: StatusFlag.data | StatusFlag.allocated,
      length: run,
      depth: 1,
    });
  }
}

/** An edge to a disk that takes compressed writes, without compressing. */
export class CompressingChild extends TestChild {
  override get flags(): DriverFlags {
    const { flags } = this.driver;
    const more = RequestFlag.compressed | RequestFlag.serialising;
    return { ...flags, write: flags.write | more, zeroes: flags.zeroes | more };
  }
}

/** Whether two disks hold the same; much faster than `toEqual`. */
export function isSame(left: Uint8Array, right: Uint8Array): boolean {
  return Buffer.compare(left, right) === 0;
}

/** The numbers of the clusters that have still to be copied. */
export function dirtyClusters(engine: BlockCopy): number[] {
  const clusters: number[] = [];
  const { copyBitmap, clusterSize } = engine;
  for (let at = copyBitmap.nextDirty(0); at >= 0; at = copyBitmap.nextDirty(at + clusterSize)) {
    clusters.push(at / clusterSize);
  }
  return clusters;
}
