import { Decisions, type DiskBehaviour, FATES, type Fate, Medium } from "@blocklayer/simulator";
import { describe, expect, it } from "vitest";

const SECTOR = 512;
const slow: DiskBehaviour = { atOnce: 1, later: 1, early: 1, slow: 1, faults: 1 };

interface Rig {
  readonly medium: Medium;
  readonly reports: string[];
  /** Delivers what was posted, oldest first. */
  deliver(): void;
  readonly delays: number[];
}

/** A medium of four sectors whose decisions are given. */
function rig(list: readonly number[], options: Record<string, unknown> = {}): Rig {
  const posted: (() => void)[] = [];
  const delays: number[] = [];
  const reports: string[] = [];
  const medium = new Medium({
    name: "m",
    size: 4 * SECTOR,
    decisions: new Decisions(list),
    post: (_tag, completion, delayMs = 0) => {
      posted.push(completion);
      delays.push(delayMs);
    },
    report: (kind, message) => void reports.push(`${kind}: ${message}`),
    ...options,
  });
  const deliver = (): void => {
    for (const one of posted.splice(0)) one();
  };
  return { medium, reports, deliver, delays };
}

function fate(name: Fate): number {
  return FATES.indexOf(name);
}

const ones = new Uint8Array(2 * SECTOR).fill(1);

describe("a write", () => {
  it.each([
    { name: "at once", before: 1, after: 1, code: undefined },
    { name: "later", before: 0, after: 1, code: undefined },
    { name: "early", before: 1, after: 1, code: undefined },
    { name: "slow", before: 0, after: 1, code: undefined },
    { name: "failed", before: 0, after: 0, code: "EIO" },
    { name: "partly", before: 0, after: 1, code: "EIO" },
    { name: "full", before: 0, after: 1, code: "ENOSPC" },
  ] as const)("whose fate is '$name' shows its effect in time", async (row) => {
    // The number after the fate is the length of the part, or the delay.
    const { medium, deliver, delays } = rig([fate(row.name), 1]);
    medium.behaviour = slow;
    const outcome = medium.write(0, ones, false).then(
      () => undefined,
      (error: { code: string }) => error.code,
    );
    expect(medium.cache.visible[0]).toBe(row.before);
    deliver();
    expect(await outcome).toBe(row.code);
    expect(medium.cache.visible[0]).toBe(row.after);
    expect(medium.cache.visible[SECTOR]).toBe(row.code === undefined ? 1 : 0);
    expect(medium.faultCount).toBe(row.code === undefined ? 0 : 1);
    expect(medium.inFlight).toBe(0);
    if (row.name === "slow") expect(delays).toEqual([2]);
  });

  it("names itself in its failure", async () => {
    const { medium, deliver } = rig([fate("failed")]);
    medium.behaviour = slow;
    const write = medium.write(SECTOR, ones, false);
    deliver();
    await expect(write).rejects.toMatchObject({
      code: "EIO",
      message: "simulated failure of write, 1024 bytes at 512",
      context: { medium: "m", operation: "write", offset: 512, length: 1024 },
    });
  });

  it("reports a buffer that changes while it is in flight", async () => {
    const { medium, deliver, reports } = rig([fate("later")]);
    medium.behaviour = slow;
    const buffer = ones.slice();
    const write = medium.write(0, buffer, false);
    buffer[3] = 9;
    deliver();
    await write;
    expect(reports).toEqual([
      "buffer changed: 1024 bytes at 0 of m changed while the write was in flight",
    ]);
  });

  it("tells who watches before it has any effect", () => {
    const { medium } = rig([]);
    const seen: unknown[] = [];
    medium.onSubmit = (...request) => void seen.push([...request, medium.cache.visible[0]]);
    void medium.write(0, ones, false);
    void medium.discard(0, SECTOR);
    expect(seen).toEqual([
      ["write", 0, 1024, 0],
      ["discard", 0, 512, 1],
    ]);
  });
});

describe("a read", () => {
  it("fills the buffer with what nobody wrote until it is done", async () => {
    const { medium, deliver } = rig([fate("later")]);
    medium.behaviour = slow;
    const buffer = new Uint8Array(4);
    const read = medium.read(0, buffer);
    expect([...buffer]).toEqual([0xee, 0xee, 0xee, 0xee]);
    deliver();
    await read;
    expect([...buffer]).toEqual([0, 0, 0, 0]);
  });

  it("finds a bad sector until it is written again, or the medium is healed", async () => {
    const { medium, deliver } = rig([fate("latent")]);
    medium.behaviour = slow;
    const readCode = async (offset: number): Promise<string | undefined> => {
      const read = medium.read(offset, new Uint8Array(SECTOR)).then(
        () => undefined,
        (error: { code: string }) => error.code,
      );
      deliver();
      return read;
    };
    expect(await readCode(SECTOR)).toBe("EIO");
    expect(await readCode(SECTOR)).toBe("EIO");
    expect(await readCode(0)).toBeUndefined();
    await medium.write(SECTOR, ones, false);
    expect(await readCode(SECTOR)).toBeUndefined();
    medium.heal();
    expect(medium.behaviour.faults).toBe(0);
  });
});

it("a sector does not become bad when the medium was healed before the read ended", async () => {
  const { medium, deliver } = rig([fate("latent")]);
  medium.behaviour = slow;
  const first = medium.read(0, new Uint8Array(SECTOR)).catch(() => undefined);
  medium.heal();
  deliver();
  await first;
  const second = medium.read(0, new Uint8Array(SECTOR));
  deliver();
  await expect(second).resolves.toBeUndefined();
});

describe("a discard", () => {
  it.each([
    { discard: "zeroes", byte: 0, isHole: true },
    { discard: "keep", byte: 1, isHole: false },
    { discard: "scramble", byte: 0xd5, isHole: false },
  ])("leaves what the option '$discard' says", async ({ discard, byte, isHole }) => {
    const { medium } = rig([], { discard });
    await medium.write(0, ones, false);
    await medium.discard(0, SECTOR);
    expect(medium.cache.visible[0]).toBe(byte);
    expect(await medium.status(0, SECTOR, SECTOR)).toEqual({ isHole, length: SECTOR });
  });
});

describe("a flush", () => {
  it("covers what was acknowledged when it began", async () => {
    const { medium, deliver } = rig([fate("at once"), fate("later"), fate("at once")]);
    medium.behaviour = slow;
    await medium.write(0, ones, false);
    const flush = medium.flush();
    await medium.write(2 * SECTOR, ones, false);
    deliver();
    await flush;
    expect(medium.cache.undecided().map(({ sector }) => sector)).toEqual([2, 3]);
  });

  it("takes along what a failed write has left", async () => {
    const { medium, deliver } = rig([fate("partly"), 1]);
    medium.behaviour = slow;
    const write = medium.write(0, ones, false).catch(() => undefined);
    deliver();
    await write;
    expect(medium.cache.dirtySectors).toBe(1);
    await medium.flush();
    expect(medium.cache.dirtySectors).toBe(0);
  });
});

describe("a crash", () => {
  it("keeps everything when all decisions are dull", async () => {
    const { medium } = rig([]);
    await medium.write(0, ones, false);
    expect(medium.crash()).toMatchObject({ lost: 0, torn: 0 });
    expect(medium.cache.visible.subarray(0, 2 * SECTOR)).toEqual(ones);
  });

  it("loses everything that was not flushed, but for the exceptions", async () => {
    // Loses all; one exception: the second of the unflushed sectors, its newest version.
    const { medium } = rig([0, 1, 1, 1, 1]);
    await medium.write(0, ones, false);
    expect(medium.crash()).toMatchObject({ lost: 1, torn: 0 });
    expect([medium.cache.visible[0], medium.cache.visible[SECTOR]]).toEqual([0, 1]);
  });

  it("tears a sector between two versions", async () => {
    // Keeps all; one exception: the first sector, its newest version, torn with the stable one behind 64 bytes.
    const { medium } = rig([0, 0, 1, 0, 1, 1, 0, 1], { tearSize: 64 });
    await medium.write(0, ones, false);
    expect(medium.crash()).toMatchObject({ torn: 1 });
    expect([medium.cache.visible[63], medium.cache.visible[64]]).toEqual([0, 1]);
  });

  it("may apply what was in flight, and forgets who waits", async () => {
    const { medium, deliver } = rig([fate("later"), 1]);
    medium.behaviour = slow;
    let isAnswered = false;
    void medium.write(0, ones, false).then(() => {
      isAnswered = true;
    });
    medium.crash();
    deliver();
    await Promise.resolve();
    expect([isAnswered, medium.inFlight, medium.life]).toEqual([false, 0, 1]);
    expect(medium.cache.visible[0]).toBe(1);
  });
});

it("content that is put in place is stable, and its zeroes are holes", async () => {
  const { medium } = rig([]);
  const content = new Uint8Array(4 * SECTOR);
  content.fill(7, SECTOR, 2 * SECTOR);
  medium.format(content);
  expect(medium.cache.dirtySectors).toBe(0);
  expect(await medium.status(0, 4 * SECTOR, SECTOR)).toEqual({ isHole: true, length: SECTOR });
  expect(await medium.status(SECTOR, 4 * SECTOR, SECTOR)).toEqual({
    isHole: false,
    length: SECTOR,
  });
});
