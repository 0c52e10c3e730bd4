import {
  type BlockDriver,
  type BlockStatus,
  type ChildPermissionsInput,
  completed,
  FilterDriver,
  type PermissionSet,
  type PreparedReopen,
  RequestFlag,
  type RequestOptions,
  StatusFlag,
} from "@blocklayer/driver";
import {
  type DriverCapabilities,
  modelTest,
  patternBytes,
  ReferenceDisk,
  TestHost,
  testChild,
  testDriver,
} from "@blocklayer/driver-tests";
import { describe, expect, it } from "vitest";

const SIZE = 16 * 1024;

class Disk extends ReferenceDisk {
  constructor() {
    super({ size: SIZE });
  }
}

class Filter extends FilterDriver {
  override readonly driverName: string = "broken";
  constructor() {
    super(testChild(new ReferenceDisk({ size: SIZE })));
  }
}

/** A filter whose child goes through the host's gate, so that its requests can fail and wait. */
abstract class GatedFilter extends FilterDriver {
  override readonly driverName: string = "broken";
}

class LosesTail extends Disk {
  override pwrite(offset: number, buffer: Uint8Array): Promise<void> {
    return super.pwrite(offset, buffer.length > 1 ? buffer.subarray(0, -1) : buffer);
  }
}

class ReadsShort extends Disk {
  override pread(offset: number, buffer: Uint8Array): Promise<void> {
    return buffer.length > 1 ? super.pread(offset, buffer.subarray(0, -1)) : completed;
  }
}

class ReadsOutside extends Disk {
  override pread(offset: number, buffer: Uint8Array): Promise<void> {
    new Uint8Array(buffer.buffer)[buffer.byteOffset + buffer.length] = 1;
    return super.pread(offset, buffer);
  }
}

class KeepsBuffer extends Disk {
  #kept: (() => void) | undefined;
  override pwrite(offset: number, buffer: Uint8Array): Promise<void> {
    this.#kept?.();
    this.#kept = () => void super.pwrite(offset, buffer);
    return completed;
  }
  override pread(offset: number, buffer: Uint8Array): Promise<void> {
    this.#kept?.();
    this.#kept = undefined;
    return super.pread(offset, buffer);
  }
}

class ChangesBuffer extends Disk {
  override pwrite(offset: number, buffer: Uint8Array): Promise<void> {
    const work = super.pwrite(offset, buffer);
    buffer.reverse();
    return work;
  }
}

class LazyZeroes extends Disk {
  override pwriteZeroes(): Promise<void> {
    return completed;
  }
}

class GreedyDiscard extends Disk {
  override pdiscard(offset: number, length: number): Promise<void> {
    return super.pdiscard(Math.max(0, offset - 1), length);
  }
}

class LyingStatus extends Disk {
  override blockStatus(_offset: number, length: number): Promise<BlockStatus> {
    return Promise.resolve({ flags: StatusFlag.zero, length });
  }
}

class EmptyStatus extends Disk {
  override blockStatus(): Promise<BlockStatus> {
    return Promise.resolve({ flags: StatusFlag.data, length: 0 });
  }
}

class WrongPlace extends Filter {
  override async blockStatus(offset: number, length: number): Promise<BlockStatus> {
    const status = await super.blockStatus(offset, length);
    const half = Math.ceil(length / 2);
    return { ...status, offset: offset === 0 ? 1 : offset, length: half };
  }
}

class StaysOpen extends Disk {
  override close(): Promise<void> {
    return completed;
  }
}

class ClosesOnce extends Disk {
  #isClosed: boolean = false;
  override close(): Promise<void> {
    if (this.#isClosed) return Promise.reject(new Error("closed already"));
    this.#isClosed = true;
    return super.close();
  }
}

class KeepsOldData extends Disk {
  readonly #old = new Map<number, Uint8Array>();
  override truncate(size: number): Promise<void> {
    this.#old.set(this.size, this.bytes);
    const old = this.#old.get(size);
    if (old === undefined) return super.truncate(size);
    this.bytes = old;
    return completed;
  }
}

class HidesFlushErrors extends GatedFilter {
  async flush(): Promise<void> {
    await this.child.flush().catch(() => undefined);
  }
}

class PlainErrors extends GatedFilter {
  override async pwrite(offset: number, buffer: Uint8Array): Promise<void> {
    try {
      await this.child.pwrite(offset, buffer);
    } catch {
      throw new Error("something went wrong");
    }
  }
}

/** Completes a cluster and writes it back, but does not keep others from doing the same meanwhile. */
class RacingClusters extends GatedFilter {
  override async pwrite(offset: number, buffer: Uint8Array): Promise<void> {
    const start = Math.floor(offset / 4096) * 4096;
    const cluster = new Uint8Array(Math.ceil((offset + buffer.length - start) / 4096) * 4096);
    const inside = cluster.subarray(0, Math.min(cluster.length, this.size - start));
    await this.child.pread(start, inside);
    inside.set(buffer, offset - start);
    await this.child.pwrite(start, inside);
  }
}

/** Writes zeroes first: a failure after that loses what was there and around it. */
class UnsafeOrder extends GatedFilter {
  override async pwrite(offset: number, buffer: Uint8Array): Promise<void> {
    const start = Math.max(0, offset - 512);
    const kept = new Uint8Array(offset - start);
    if (kept.length > 0) await this.child.pread(start, kept);
    await this.child.pwriteZeroes(start, kept.length + buffer.length);
    await this.child.pwritev(start, [kept, buffer]);
  }
}

class WrongReason extends Disk {
  override pread(offset: number, buffer: Uint8Array, options?: RequestOptions): Promise<void> {
    if (options?.signal?.aborted === true) return Promise.reject(new Error("some other error"));
    return super.pread(offset, buffer);
  }
}

/** Forgets a request that is cancelled on its way. */
class NeverAnswers extends GatedFilter {
  override async pdiscard(offset: number, length: number, options?: RequestOptions): Promise<void> {
    await this.child.pdiscard(offset, length);
    if (options?.signal !== undefined) await new Promise(() => undefined);
  }
}

class ForgetfulFlags extends Disk {
  override pwrite(offset: number, buffer: Uint8Array, options?: RequestOptions): Promise<void> {
    if (((options?.flags ?? 0) & RequestFlag.fua) !== 0) return completed;
    return super.pwrite(offset, buffer);
  }
}

class GreedyPermissions extends GatedFilter {
  childPermissions(_child: unknown, { perm, shared }: ChildPermissionsInput): PermissionSet {
    return { perm: perm | 2, shared };
  }
}

class MoodyPermissions extends GatedFilter {
  #count = 0;
  childPermissions(_child: unknown, { perm, shared }: ChildPermissionsInput): PermissionSet {
    this.#count += 1;
    return { perm, shared: this.#count === 100 ? 0 : shared };
  }
}

class ReopensAtOnce extends Disk {
  prepareReopen(): Promise<PreparedReopen> {
    this.bytes = this.bytes.subarray(0, SIZE / 2);
    return Promise.resolve({ commit: () => undefined, abort: () => undefined });
  }
}

class Forgets extends Disk {
  override pwrite(offset: number, buffer: Uint8Array): Promise<void> {
    return super.pwrite(offset, new Uint8Array(buffer.length));
  }
}

type Verdict = Map<string, unknown>;

/** Runs the suite with a runner that only collects. */
async function judge(
  open: () => Promise<TestHost>,
  capabilities: DriverCapabilities,
): Promise<Verdict> {
  const rows: [string, () => Promise<void>][] = [];
  testDriver({
    name: "a broken driver",
    describe: (_title, body) => body(),
    it: (title, body) => rows.push([title, body]),
    open,
    capabilities,
    seedCount: 1,
    stepCount: 30,
  });
  const failed: Verdict = new Map();
  for (const [title, body] of rows) {
    await body().catch((error: unknown) => failed.set(title, error));
  }
  return failed;
}

function hosting(make: () => BlockDriver): () => Promise<TestHost> {
  return () => {
    const host = new TestHost();
    host.driverOptions = {};
    host.adopt(make());
    return Promise.resolve(host);
  };
}

/** A filter in a host that opened its child. */
function filtering(
  make: new (child: ConstructorParameters<typeof FilterDriver>[0]) => BlockDriver,
) {
  return async (): Promise<TestHost> => {
    const host = new TestHost({ children: { file: new ReferenceDisk({ size: SIZE }) } });
    host.adopt(new make(await host.openChild("file", 4 | 16)));
    return host;
  };
}

const disk: DriverCapabilities = { writeVector: false };

describe("the suite finds a driver that", () => {
  it.each<[string, () => Promise<TestHost>, DriverCapabilities, string]>([
    [
      "writes less than it was given",
      hosting(() => new LosesTail()),
      disk,
      "pwrite does both sides",
    ],
    ["reads less than it was asked", hosting(() => new ReadsShort()), disk, "pread does the first"],
    [
      "reads more than it was asked",
      hosting(() => new ReadsOutside()),
      disk,
      "pread does the first",
    ],
    ["keeps buffers", hosting(() => new KeepsBuffer()), disk, "pwrite does the first"],
    ["changes buffers", hosting(() => new ChangesBuffer()), disk, "pwrite does a whole cluster"],
    ["writes no zeroes", hosting(() => new LazyZeroes()), disk, "pwriteZeroes does"],
    ["discards neighbours", hosting(() => new GreedyDiscard()), disk, "pdiscard does"],
    ["says zero of data", hosting(() => new LyingStatus()), disk, "blockStatus tiles"],
    ["says nothing about a range", hosting(() => new EmptyStatus()), disk, "blockStatus tiles"],
    ["points to the wrong place", hosting(() => new WrongPlace()), {}, "blockStatus tiles"],
    ["works after close", hosting(() => new StaysOpen()), disk, "pread after close rejects"],
    ["closes only once", hosting(() => new ClosesOnce()), disk, "closes once, twice"],
    ["shows old data after growing", hosting(() => new KeepsOldData()), disk, "truncate makes"],
    ["hides the errors of flushes", filtering(HidesFlushErrors), {}, "flush reports"],
    ["fails without a code", filtering(PlainErrors), {}, "pwrite loses no other byte"],
    ["loses writes that race", filtering(RacingClusters), {}, "neighbouring writes"],
    ["loses bytes around a failure", filtering(UnsafeOrder), {}, "pwrite loses no other byte"],
    [
      "rejects not with the reason",
      hosting(() => new WrongReason()),
      disk,
      "pread with an aborted",
    ],
    ["never answers", filtering(NeverAnswers), {}, "pdiscard aborted while"],
    [
      "declares flags it does not know",
      hosting(() => new ForgetfulFlags()),
      disk,
      "pwrite understands fua",
    ],
    ["takes write for readers", filtering(GreedyPermissions), {}, "takes permissions"],
    ["takes permissions by mood", filtering(MoodyPermissions), {}, "takes permissions"],
    [
      "reopens before commit",
      hosting(() => new ReopensAtOnce()),
      disk,
      "is as before when a reopen",
    ],
    ["declares what it has not", hosting(() => new Disk()), {}, "has the operations"],
    [
      "has what it does not declare",
      hosting(() => new Disk()),
      { ...disk, discard: false },
      "has the operations",
    ],
    [
      "can not change its length",
      hosting(() => Object.assign(new Disk(), { truncate: undefined })),
      disk,
      "has the operations",
    ],
  ])("%s", async (_title, open, capabilities, row) => {
    const failed = await judge(open, capabilities);
    expect([...failed.keys()].filter((title) => title.startsWith(row))).not.toEqual([]);
  });

  it("fails nothing of one that forgets what it is told", async () => {
    const forgetful = { ...disk, contents: "ignored" } as const;
    expect(
      await judge(
        hosting(() => new Forgets()),
        forgetful,
      ),
    ).toEqual(new Map());
  });

  it("fails nothing of a good one", async () => {
    expect(
      await judge(
        hosting(() => new Disk()),
        disk,
      ),
    ).toEqual(new Map());
  });
});

describe("the model test", () => {
  it("names the seed, the step and the last operations", async () => {
    await expect(modelTest(new LosesTail(), 3, 100)).rejects.toMatchObject({
      name: "ConformanceError",
      message: expect.stringMatching(
        /byte \d+ is 0x.., not 0x.. \(seed 3, step \d+; last: .*pwrite/,
      ),
    });
  });

  it("judges drivers that hold something from the beginning", async () => {
    const good = new Disk();
    good.bytes.set(patternBytes(SIZE, 1));
    await modelTest(good, 1, 100);
  });

  it("gives the same operations for the same seed", async () => {
    const runs = [new Disk(), new Disk()];
    for (const one of runs) await modelTest(one, 9, 50);
    expect(runs[0]?.bytes).toEqual(runs[1]?.bytes);
  });
});
