import { RequestFlag } from "@blocklayer/driver";
import { SeededScheduler } from "@blocklayer/env";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { BlockNode } from "../src/block-node.ts";
import type { Edge } from "../src/edge.ts";
import { rigNode, rootEdge } from "./io-rig.ts";
import { filterLayer, memoryLayer } from "./layers.ts";
import { RegisterOracle } from "./register-oracle.ts";
import { SimulatedDisk } from "./simulated-disk.ts";

const UNIT = 128;
const UNIT_COUNT = 128;
const SIZE = UNIT * UNIT_COUNT;

interface Command {
  readonly kind:
    | "read"
    | "write"
    | "writev"
    | "zeroes"
    | "discard"
    | "flush"
    | "exclusive"
    | "wait";
  readonly from: number;
  readonly count: number;
}

interface World {
  readonly alignment: 1 | 512 | 4096;
  readonly maxTransfer: 0 | 4096;
  readonly shape: "disk" | "filter" | "overlay";
  readonly observers: number;
  readonly seed: number;
  readonly commands: readonly Command[];
  readonly failNth?: number;
}

const command: fc.Arbitrary<Command> = fc.record({
  kind: fc.constantFrom(
    "read",
    "read",
    "write",
    "write",
    "write",
    "writev",
    "zeroes",
    "discard",
    "flush",
    "exclusive",
    "wait",
  ),
  from: fc.nat(UNIT_COUNT - 1),
  count: fc.oneof(fc.integer({ min: 1, max: 6 }), fc.integer({ min: 1, max: UNIT_COUNT })),
});

const world: fc.Arbitrary<World> = fc.record({
  alignment: fc.constantFrom(1, 512, 4096),
  maxTransfer: fc.constantFrom(0, 4096),
  shape: fc.constantFrom("disk", "filter", "overlay"),
  observers: fc.nat(2),
  seed: fc.nat(),
  commands: fc.array(command, { minLength: 4, maxLength: 16 }),
});

class Run {
  readonly scheduler: SeededScheduler;
  readonly disk: SimulatedDisk;
  readonly nodes: readonly BlockNode[];
  readonly edge: Edge;
  readonly #oracle = new RegisterOracle(UNIT_COUNT);
  readonly #world: World;
  /** Writes that were announced and not told the end of. */
  announced = 0;
  failures = 0;
  /** Changes of the disk from when its node last took note of one that completed: what a flush has to cover. */
  #settledCount = 0;

  constructor(settings: World) {
    this.#world = settings;
    const { alignment: requestAlignment, maxTransfer, seed, failNth } = settings;
    this.scheduler = new SeededScheduler({ seed });
    const limits = { requestAlignment, maxTransfer };
    const fails = failNth === undefined ? {} : { failNth };
    this.disk = new SimulatedDisk({ size: SIZE, limits, scheduler: this.scheduler, ...fails });
    this.nodes = this.#nodes();
    const [top] = this.nodes;
    if (top === undefined) throw new Error("no node");
    for (let index = 0; index < settings.observers; index += 1) this.#observe(top, index === 1);
    this.edge = rootEdge(top);
  }

  #nodes(): BlockNode[] {
    const { env } = this.scheduler;
    const disk = rigNode({ name: "disk", env, driver: () => this.disk });
    const changed = disk.io.changed.bind(disk.io);
    disk.io.changed = (...change) => {
      changed(...change);
      this.#settledCount = this.disk.changeCount;
    };
    if (this.#world.shape === "filter") return [filterLayer("filter", disk, { env }), disk];
    if (this.#world.shape === "disk") return [disk];
    const overlay = memoryLayer(
      "overlay",
      { size: SIZE, clusterSize: 1024, backing: disk },
      { env },
    );
    overlay.io.copyOnReadCount = 1;
    return [overlay, disk];
  }

  #observe(node: BlockNode, isSlow: boolean): void {
    node.addObserver({
      beforeWrite: () => {
        this.announced += 1;
        return isSlow && this.scheduler.random.below(2) === 0
          ? this.scheduler.turn("observer")
          : undefined;
      },
      afterWrite: () => {
        this.announced -= 1;
      },
    });
  }

  async main(): Promise<void> {
    let pending: Promise<void>[] = [];
    for (const [index, next] of this.#world.commands.entries()) {
      if (next.kind === "wait") {
        await Promise.all(pending);
        pending = [];
      } else {
        pending.push(this.#tolerating(this.#issue(next, index + 1)));
      }
      if (this.scheduler.random.below(3) === 0) await this.scheduler.turn("client");
    }
    await Promise.all(pending);
    await this.#tolerating(this.#read(0, UNIT_COUNT));
  }

  async #tolerating(request: Promise<void>): Promise<void> {
    try {
      await request;
    } catch (error) {
      // Nothing but the failure that was told may come up.
      if (!(error instanceof Error) || !error.message.endsWith("failed as told")) throw error;
      this.failures += 1;
    }
  }

  #issue({ kind, from, count }: Command, value: number): Promise<void> {
    const to = Math.min(from + count, UNIT_COUNT);
    const offset = from * UNIT;
    const length = (to - from) * UNIT;
    const bytes = new Uint8Array(length).fill(value);
    const half = Math.floor((to - from) / 2) * UNIT;
    const { edge } = this;
    switch (kind) {
      case "write":
        return this.#change(from, to, value, () => edge.pwrite(offset, bytes));
      case "writev":
        return this.#change(from, to, value, () =>
          edge.pwritev(offset, [bytes.subarray(0, half), bytes.subarray(half)]),
        );
      case "exclusive":
        return this.#change(from, to, value, () =>
          edge.pwrite(offset, bytes, { flags: RequestFlag.serialising }),
        );
      case "zeroes":
        return this.#change(from, to, 0, () => edge.pwriteZeroes(offset, length));
      case "discard":
        return this.#change(from, to, 0, () => edge.pdiscard(offset, length), true);
      case "flush":
        return this.#flush();
      default:
        return this.#read(from, to);
    }
  }

  async #change(
    from: number,
    to: number,
    value: number,
    request: () => Promise<void>,
    isAdvice = false,
  ): Promise<void> {
    const change = this.#oracle.begin(from, to, value);
    try {
      await request();
    } catch (error) {
      change.end(false);
      throw error;
    }
    change.end(!isAdvice);
  }

  async #flush(): Promise<void> {
    const before = this.#settledCount;
    await this.edge.flush();
    // The overlay keeps its changes in memory; the disk below it is only read.
    if (this.#world.shape === "overlay") return;
    expect(this.disk.flushedCount).toBeGreaterThanOrEqual(before);
  }

  async #read(from: number, to: number): Promise<void> {
    const startedAt = this.#oracle.now();
    const buffer = new Uint8Array((to - from) * UNIT).fill(255);
    await this.edge.pread(from * UNIT, buffer);
    for (let unit = from; unit < to; unit += 1) {
      const seen = buffer.subarray((unit - from) * UNIT, (unit - from + 1) * UNIT);
      const [value = -1] = seen;
      const isTorn = seen.some((byte) => byte !== value);
      const allowed = this.#oracle.allowed(unit, startedAt);
      if (isTorn || !allowed.has(value)) {
        throw new Error(
          `unit ${unit} holds ${isTorn ? "a mixture" : value}, allowed: ${[...allowed]}`,
        );
      }
    }
  }

  check(): void {
    for (const { io, name } of this.nodes) {
      expect([name, io.inFlight, io.requestsInFlight(), io.tracker.serialisingCount]).toEqual([
        name,
        0,
        [],
        0,
      ]);
    }
    expect(this.announced).toBe(0);
    expect(this.scheduler.pending).toBe(0);
  }
}

async function run(settings: World): Promise<Run> {
  const attempt = new Run(settings);
  await attempt.scheduler.run(() => attempt.main());
  await attempt.scheduler.settle();
  attempt.check();
  return attempt;
}

describe("requests in flight together", () => {
  it("read what was written, at any alignment and in any order of completions", async () => {
    await fc.assert(
      fc.asyncProperty(world, async (settings) => {
        const { failures } = await run(settings);
        expect(failures).toBe(0);
      }),
      { numRuns: 200 },
    );
  });

  it("lose nothing when the n-th request to the disk fails, for every n", async () => {
    await fc.assert(
      fc.asyncProperty(world, async (settings) => {
        for (let failNth = 1; ; failNth += 1) {
          const { disk } = await run({
            ...settings,
            failNth,
            commands: settings.commands.slice(0, 6),
          });
          if (!disk.hasFailed) break;
        }
      }),
      { numRuns: 25 },
    );
  });

  it("happen in the same order for the same seed", async () => {
    const settings: World = {
      alignment: 512,
      maxTransfer: 4096,
      shape: "filter",
      observers: 2,
      seed: 7,
      commands: [
        { kind: "write", from: 1, count: 5 },
        { kind: "zeroes", from: 3, count: 50 },
        { kind: "read", from: 0, count: 60 },
        { kind: "flush", from: 0, count: 1 },
      ],
    };
    const [first, second] = [await run(settings), await run(settings)];
    expect(first.scheduler.trace).toEqual(second.scheduler.trace);
  });
});
