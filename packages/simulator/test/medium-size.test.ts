import {
  Decisions,
  type DiskBehaviour,
  FATES,
  type Fate,
  Medium,
  RegisterOracle,
} from "@blocklayer/simulator";
import { describe, expect, it } from "vitest";

const SECTOR = 512;
const slow: DiskBehaviour = {
  atOnce: 1,
  later: 1,
  early: 1,
  slow: 1,
  faults: 1,
  drops: 1,
  lies: 1,
  misdirects: 1,
};

interface Rig {
  readonly medium: Medium;
  readonly reports: string[];
  /** Delivers what was posted, oldest first. */
  deliver(): void;
}

/** A medium of four sectors whose decisions are given. */
function rig(list: readonly number[], options: Record<string, unknown> = {}): Rig {
  const posted: (() => void)[] = [];
  const reports: string[] = [];
  const medium = new Medium({
    name: "m",
    size: 4 * SECTOR,
    decisions: new Decisions(list),
    post: (_tag, completion) => void posted.push(completion),
    report: (kind, message) => void reports.push(`${kind}: ${message}`),
    ...options,
  });
  const deliver = (): void => {
    for (const one of posted.splice(0)) one();
  };
  return { medium, reports, deliver };
}

function fate(name: Fate): number {
  return FATES.indexOf(name);
}

function codeOf(promise: Promise<unknown>): Promise<string | undefined> {
  return promise.then(
    () => undefined,
    (error: { code: string }) => error.code,
  );
}

const ones = new Uint8Array(2 * SECTOR).fill(1);
const twos = new Uint8Array(SECTOR).fill(2);

describe("a change of length", () => {
  it.each([
    { name: "at once", before: 8, after: 8, code: undefined },
    { name: "later", before: 4, after: 8, code: undefined },
    { name: "early", before: 8, after: 8, code: undefined },
    { name: "slow", before: 4, after: 8, code: undefined },
    { name: "failed", before: 4, after: 4, code: "EIO" },
    { name: "partly", before: 4, after: 8, code: "EIO" },
    { name: "full", before: 4, after: 4, code: "ENOSPC" },
  ] as const)("whose fate is '$name' is made in time", async (row) => {
    const { medium, deliver } = rig([fate(row.name)]);
    medium.behaviour = slow;
    const outcome = codeOf(medium.truncate(8 * SECTOR));
    expect(medium.size).toBe(row.before * SECTOR);
    deliver();
    expect(await outcome).toBe(row.code);
    expect(medium.size).toBe(row.after * SECTOR);
  });

  it.each([
    { flushes: false, list: [0, 0], size: 2 },
    { flushes: false, list: [0, 1], size: 4 },
    { flushes: true, list: [0, 0, 1], size: 2 },
  ])("is after a crash what $list says, unless it was flushed: $flushes", async (row) => {
    const { medium } = rig(row.list);
    await medium.truncate(2 * SECTOR);
    if (row.flushes) await medium.flush();
    expect(medium.crash()).toMatchObject({ isResized: row.size === 4 });
    expect(medium.size).toBe(row.size * SECTOR);
  });

  it("drops what it cuts off, also from within a sector", async () => {
    const { medium } = rig([]);
    await medium.write(0, ones, false);
    await medium.truncate(SECTOR + 100);
    await medium.truncate(4 * SECTOR);
    const buffer = new Uint8Array(4 * SECTOR);
    await medium.read(0, buffer);
    expect(buffer.subarray(0, SECTOR + 100)).toEqual(ones.subarray(0, SECTOR + 100));
    expect(buffer.subarray(SECTOR + 100).every((byte) => byte === 0)).toBe(true);
    expect(await medium.status(2 * SECTOR, SECTOR, SECTOR)).toMatchObject({ isHole: true });
  });

  it("never brings back what it has cut off once a later length is stable", async () => {
    // The newest length; then everything is lost but for what is stable.
    const { medium } = rig([0, 0, 0, 0, 0, 0, 1]);
    await medium.write(0, ones, false);
    await medium.flush();
    await medium.truncate(0);
    await medium.truncate(3 * SECTOR);
    medium.crash();
    expect(medium.size).toBe(3 * SECTOR);
    expect(medium.cache.visible.every((byte) => byte === 0)).toBe(true);
  });

  it("is stable with a write that needs it", async () => {
    const { medium } = rig([0, 0, 1]);
    await medium.truncate(8 * SECTOR);
    await medium.write(7 * SECTOR, twos, true);
    expect(medium.cache.isStable).toBe(true);
    medium.crash();
    expect(medium.size).toBe(8 * SECTOR);
    expect(medium.cache.visible[7 * SECTOR]).toBe(2);
  });

  it("is not stable with a write that it would not cut", async () => {
    const { medium } = rig([]);
    await medium.truncate(8 * SECTOR);
    await medium.write(0, twos, true);
    expect([medium.cache.isStable, medium.cache.dirtySectors]).toEqual([false, 0]);
    expect(medium.cache.possibleSizes).toEqual([4 * SECTOR, 8 * SECTOR]);
  });

  it("is reported when a request is under way in what it cuts off", async () => {
    const { medium, reports, deliver } = rig([fate("later"), fate("at once")]);
    medium.behaviour = slow;
    const write = medium.write(3 * SECTOR, twos, false);
    await medium.truncate(2 * SECTOR);
    deliver();
    await write;
    expect(reports).toEqual([
      "cut in flight: write of 512 bytes at 1536 of m was in flight while it became 1024 long",
    ]);
  });

  it("may come with a write beyond the end, and go with it", async () => {
    const { medium } = rig([0, 0, 1], { grows: true });
    await medium.write(5 * SECTOR, twos, false);
    expect([medium.size, medium.grows, medium.capacity]).toEqual([
      6 * SECTOR,
      true,
      Number.POSITIVE_INFINITY,
    ]);
    expect(await medium.status(4 * SECTOR, SECTOR, SECTOR)).toMatchObject({ isHole: true });
    medium.crash();
    expect(medium.size).toBe(4 * SECTOR);
  });
});

describe("a flush", () => {
  it("that drops leaves what it covered to be lost, also after a later flush", async () => {
    const { medium, deliver } = rig([fate("at once"), fate("dropped")]);
    medium.behaviour = slow;
    await medium.write(0, ones, false);
    const flush = codeOf(medium.flush());
    deliver();
    expect(await flush).toBe("EIO");
    expect([medium.lostCount, medium.faultCount]).toEqual([1, 1]);
    await medium.flush();
    expect([medium.cache.visible[0], medium.cache.isStable]).toEqual([1, false]);
    await medium.write(0, ones, false);
    await medium.flush();
    expect(medium.cache.isStable).toBe(true);
  });

  it("that lies succeeds and makes nothing stable", async () => {
    const { medium, deliver } = rig([fate("at once"), fate("lied")]);
    medium.behaviour = slow;
    await medium.write(0, ones, false);
    const flush = medium.flush();
    deliver();
    await flush;
    expect(medium.cache.dirtySectors).toBe(2);
  });
});

it("a misdirected write succeeds and changes another place", async () => {
  const { medium, deliver } = rig([fate("misdirected"), 2]);
  medium.behaviour = slow;
  const write = medium.write(0, twos, false);
  deliver();
  await write;
  expect([medium.cache.visible[0], medium.cache.visible[2 * SECTOR]]).toEqual([0, 2]);
  expect(medium.misdirectedCount).toBe(1);
});

it("a healed medium neither drops, lies nor misdirects", () => {
  const { medium } = rig([]);
  medium.behaviour = slow;
  medium.heal();
  expect(medium.behaviour).toMatchObject({ faults: 0, drops: 0, lies: 0, misdirects: 0 });
});

it("a status that does not begin with a unit ends with it", async () => {
  const { medium } = rig([]);
  await medium.write(SECTOR, twos, false);
  expect(await medium.status(100, 4 * SECTOR, SECTOR)).toEqual({ isHole: true, length: 412 });
  expect(await medium.status(SECTOR + 100, 4 * SECTOR, SECTOR)).toEqual({
    isHole: false,
    length: 412,
  });
});

it("data of a misdirected write is told from what belongs there", async () => {
  const size = 4 * SECTOR;
  const oracle = new RegisterOracle({ disk: 1, size, cellSize: SECTOR });
  const { medium, deliver } = rig([fate("misdirected"), 2]);
  medium.behaviour = slow;
  const operation = oracle.begin("write", 0, SECTOR);
  const write = medium.write(0, oracle.payload(operation), false);
  deliver();
  await write;
  oracle.end(operation, true);
  const buffer = new Uint8Array(size);
  await medium.read(0, buffer);
  expect(oracle.check(oracle.begin("read", 0, size), buffer)).toContain(
    "cell 0 of disk 1 holds zero",
  );
  const there = oracle.begin("read", 2 * SECTOR, SECTOR);
  expect(oracle.check(there, buffer.subarray(2 * SECTOR, 3 * SECTOR))).toContain(
    "cell 2 of disk 1 holds operation 1 for cell 0 of disk 1",
  );
});
