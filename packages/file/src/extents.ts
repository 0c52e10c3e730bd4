import { type BlockStatus, StatusFlag } from "@blocklayer/driver";
import type { Clock } from "@blocklayer/env";
import { alignUp } from "@blocklayer/offsets";
import type { CallQueue } from "./call-queue.ts";
import type { Descriptor } from "./descriptor.ts";
import { LatencyGate } from "./latency-gate.ts";
import { Errno } from "./native-calls.ts";
import type { OperatingSystem } from "./operating-system.ts";
import type { TurnBudget } from "./turn-budget.ts";

const DATA = StatusFlag.data | StatusFlag.offsetValid;
const HOLE = StatusFlag.zero | StatusFlag.offsetValid;

interface ExtentSettings {
  readonly system: OperatingSystem;
  readonly clock: Clock;
  readonly calls: CallQueue;
  readonly budget: TurnBudget;
  /** Whether asking can never take long: a file system in memory. */
  readonly isMemory: boolean;
  /** Bytes to which data at the end of the file is rounded up. */
  readonly alignment: number;
}

/**
 * Knows which parts of a file are holes, by asking the file system.
 *
 * Asking takes less than a microsecond where the map of the file is in memory; while it is known to be so it is asked
 * within the call. What cannot be found out is data.
 */
export class Extents {
  readonly #settings: ExtentSettings;
  readonly #gate = new LatencyGate();

  constructor(settings: ExtentSettings) {
    this.#settings = settings;
  }

  /** Returns the status of the run that starts at `offset`. */
  status(descriptor: Descriptor, offset: number, length: number): Promise<BlockStatus> {
    const { clock, calls, isMemory, budget } = this.#settings;
    const isQuick = isMemory || (this.#gate.isOpen && !calls.isStalled());
    if (!isQuick || !budget.take(0)) return this.#askPooled(descriptor, offset, length);
    const sinceMs = clock.now();
    const status = this.#askNow(descriptor, offset, length);
    const nowMs = clock.now();
    const tookMs = nowMs - sinceMs;
    this.#gate.ranNow(tookMs, 0, nowMs);
    budget.charge(tookMs);
    return Promise.resolve(status);
  }

  #askNow({ fd }: Descriptor, offset: number, length: number): BlockStatus {
    const { native } = this.#settings.system;
    if (native === undefined) return { flags: DATA, length, offset };
    const data = native.seekNow(fd, offset, "data");
    const hole = data === offset ? native.seekNow(fd, offset, "hole") : 0;
    return this.#answer(offset, length, data, hole);
  }

  async #askPooled(descriptor: Descriptor, offset: number, length: number): Promise<BlockStatus> {
    const { clock, calls, system } = this.#settings;
    const { native } = system;
    if (native === undefined) return { flags: DATA, length, offset };
    const [data, hole] = await descriptor.hold((fd) =>
      calls.run(async () => {
        const sinceMs = clock.now();
        const dataAt = await native.seek(fd, offset, "data");
        const holeAt = dataAt === offset ? await native.seek(fd, offset, "hole") : 0;
        const nowMs = clock.now();
        this.#gate.ranPooled(nowMs - sinceMs, 0, nowMs);
        return [dataAt, holeAt];
      }),
    );
    return this.#answer(offset, length, data ?? 0, hole ?? 0);
  }

  /** @param data - where data follows, @param hole - where a hole follows, if there is data at `offset` */
  #answer(offset: number, length: number, data: number, hole: number): BlockStatus {
    // No data up to the end of the file.
    if (data === -Errno.ENXIO) return { flags: HOLE, length, offset };
    if (data > offset) return { flags: HOLE, length: Math.min(length, data - offset), offset };
    // An error, or a file that changed between the two questions.
    if (data < 0 || hole <= offset) return { flags: DATA, length, offset };
    const run = alignUp(hole - offset, this.#settings.alignment);
    return { flags: DATA, length: Math.min(length, run), offset };
  }
}
