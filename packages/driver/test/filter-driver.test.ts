import {
  type BlockChild,
  completed,
  FilterDriver,
  RequestFlag,
  StatusFlag,
} from "@blocklayer/driver";
import { describe, expect, it } from "vitest";

class Filter extends FilterDriver {
  readonly driverName: string = "filter";
}

const answer = Promise.resolve("the child's answer");

/** A child that records what it is asked, and always gives the same promise. */
function recordingChild(): { child: BlockChild; calls: unknown[][] } {
  const calls: unknown[][] = [];
  const facts = {
    name: "file",
    nodeName: "below",
    size: 4096,
    zeroes: "native",
    flags: { read: 0x200, write: 0x10, zeroes: 0x14, truncateZero: true },
  };
  const child = new Proxy(facts, {
    get: (target, key) =>
      key in target
        ? target[key as keyof typeof target]
        : (...parameters: unknown[]) => {
            calls.push([key, ...parameters]);
            return answer;
          },
  });
  return { child: child as unknown as BlockChild, calls };
}

const buffer = new Uint8Array(8);
const options = { flags: RequestFlag.fua };
const other = {} as never;

describe("a filter without anything of its own", () => {
  it.each<[string, (filter: Filter) => Promise<unknown>, unknown[]]>([
    ["pread", (f) => f.pread(1, buffer, options), [1, buffer, options]],
    ["pwrite", (f) => f.pwrite(2, buffer, options), [2, buffer, options]],
    ["pwritev", (f) => f.pwritev(3, [buffer], options), [3, [buffer], options]],
    ["pwriteZeroes", (f) => f.pwriteZeroes(4, 5, options), [4, 5, options]],
    ["pdiscard", (f) => f.pdiscard(6, 7, options), [6, 7, options]],
    ["truncate", (f) => f.truncate(8, { zero: true }), [8, { zero: true }]],
    ["copyRangeFrom", (f) => f.copyRangeFrom(1, other, 2, 3, options), [1, other, 2, 3, options]],
    ["copyRangeTo", (f) => f.copyRangeTo(other, 1, 2, 3, options), [other, 1, 2, 3, options]],
    ["getInfo", (f) => f.getInfo(), []],
    ["allocatedSize", (f) => f.allocatedSize(), []],
    ["freeSpace", (f) => f.freeSpace(), []],
    ["check", (f) => f.check({ repair: "all" }), [{ repair: "all" }]],
  ])("forwards %s as it is and returns the child's promise", (name, act, parameters) => {
    const { child, calls } = recordingChild();
    expect(act(new Filter(child))).toBe(answer);
    expect(calls).toEqual([[name, ...parameters]]);
  });

  it("sends whoever asks for the status to its child", async () => {
    const { child, calls } = recordingChild();
    const status = await new Filter(child).blockStatus(512, 1024);
    const { flags, length, offset } = status;
    expect([flags, length, offset]).toEqual([StatusFlag.raw | StatusFlag.offsetValid, 1024, 512]);
    expect(status.child).toBe(child);
    expect(calls).toEqual([]);
  });

  it("has the size and the flags of its child, and write-unchanged always", () => {
    const { child } = recordingChild();
    const filter = new Filter(child);
    expect(filter.size).toBe(4096);
    expect(filter.limits).toEqual({});
    expect(filter.flags).toEqual({ read: 0x200, write: 0x50, zeroes: 0x54, truncateZero: true });
  });

  it.each([
    ["native", "native"],
    ["emulated", "native"],
    ["none", "none"],
  ] as const)("over zeroes %s says %s", (zeroes, expected) => {
    const { child } = recordingChild();
    expect(new Filter({ ...child, zeroes }).zeroes).toBe(expected);
  });

  it("leaves flushing to the graph, which flushes its child", () => {
    const filter = new Filter(recordingChild().child);
    const flushes = ["flush", "flushToOs", "flushToDisk"].filter((name) => name in filter);
    expect(flushes).toEqual([]);
  });

  it("accepts any reopen, and changes nothing by it", async () => {
    const prepared = await new Filter(recordingChild().child).prepareReopen({
      options: {},
      readOnly: true,
    });
    expect([prepared.commit(), prepared.abort()]).toEqual([undefined, undefined]);
  });

  it("closes without touching its child", async () => {
    const { child, calls } = recordingChild();
    const filter = new Filter(child);
    await filter.close();
    await filter.close();
    await filter[Symbol.asyncDispose]();
    expect(calls).toEqual([]);
  });
});

describe("a filter that changes one thing", () => {
  it("changes that and passes the rest", () => {
    const { child, calls } = recordingChild();
    class Counting extends Filter {
      bytes: number = 0;
      override pread(offset: number, target: Uint8Array): Promise<void> {
        this.bytes += target.length;
        return super.pread(offset, target);
      }
    }
    const filter = new Counting(child);
    expect(filter.pread(0, buffer)).toBe(answer);
    expect(filter.pwrite(0, buffer)).toBe(answer);
    expect([filter.bytes, calls.length]).toEqual([8, 2]);
    expect(completed).not.toBe(answer);
  });
});
