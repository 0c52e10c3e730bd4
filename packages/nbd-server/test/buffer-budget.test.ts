import { describe, expect, it } from "vitest";
import { BufferBudget } from "../src/buffer-budget.ts";
import { BufferPool } from "../src/buffer-pool.ts";
import { Slab } from "../src/slab.ts";

const MIB = 1024 * 1024;
const budget = (): BufferBudget =>
  new BufferBudget({ total: 16 * MIB, perAccount: 8 * MIB, accounts: 4 });

describe("the budget of buffers", () => {
  it.each([
    [8 * MIB - 1, true],
    [8 * MIB, true],
    [8 * MIB + 1, false],
  ])("an account that holds a byte may not come to %d bytes more: %s", (bytes, isGiven) => {
    const account = budget().open(() => undefined);
    expect(account.take(1)).toBe(true);
    expect(account.take(bytes - 1)).toBe(isGiven);
  });

  it("a request that is larger than the limit is served alone", () => {
    const account = budget().open(() => undefined);
    expect(account.take(9 * MIB)).toBe(true);
    expect(account.take(1)).toBe(false);
  });

  it("each has a part that nobody can take from it", () => {
    const all = budget();
    const greedy = [all.open(() => undefined), all.open(() => undefined)];
    // 12 MiB are shared, and each may draw beyond its own MiB.
    expect(greedy.map((each) => each.take(8 * MIB))).toEqual([true, false]);
    expect(greedy[1]?.take(6 * MIB)).toBe(true);
    const other = all.open(() => undefined);
    expect(other.take(MIB)).toBe(true);
    expect(other.take(1)).toBe(false);
    expect(all.used).toBe(15 * MIB);
  });

  it("who holds least is woken first, and those who hold more can not overtake", () => {
    const all = budget();
    const woken: string[] = [];
    const open = (name: string): ReturnType<BufferBudget["open"]> =>
      all.open(() => woken.push(name));
    const [full, much, little] = [open("full"), open("much"), open("little")];
    expect(full.take(8 * MIB)).toBe(true);
    expect(much.take(5 * MIB)).toBe(true);
    expect(much.take(2 * MIB)).toBe(false);
    expect(little.take(3 * MIB)).toBe(false);
    expect(all.waiting).toBe(2);
    full.give(3 * MIB);
    expect(woken).toEqual(["little"]);
    expect(much.take(2 * MIB)).toBe(false);
    expect(little.take(3 * MIB)).toBe(true);
    full.give(5 * MIB);
    expect(woken.at(-1)).toBe("much");
    expect(much.take(2 * MIB)).toBe(true);
    expect(all.waiting).toBe(0);
  });

  it("of those who hold the same the one that has waited longest is woken, and served", () => {
    const all = budget();
    const woken: string[] = [];
    const full = all.open(() => undefined);
    const first = all.open(() => woken.push("first"));
    const second = all.open(() => woken.push("second"));
    full.take(8 * MIB);
    expect(first.take(8 * MIB)).toBe(false);
    expect(second.take(7 * MIB)).toBe(false);
    full.give(8 * MIB);
    expect(woken).toEqual(["first"]);
    expect(second.take(7 * MIB)).toBe(false);
    expect(first.take(8 * MIB)).toBe(true);
    first.give(8 * MIB);
    expect(woken).toEqual(["first", "second"]);
    expect(second.take(7 * MIB)).toBe(true);
  });

  it("who goes away does not hold up those behind it", () => {
    const all = budget();
    const woken: string[] = [];
    const full = all.open(() => undefined);
    const first = all.open(() => woken.push("first"));
    const second = all.open(() => woken.push("second"));
    full.take(8 * MIB);
    expect(first.take(8 * MIB)).toBe(false);
    expect(second.take(2 * MIB)).toBe(false);
    first.close();
    expect(woken).toEqual(["second"]);
  });

  it("an account that gives back more than it took is a defect", () => {
    expect(() =>
      budget()
        .open(() => undefined)
        .give(1),
    ).toThrow("gives back what it took");
  });
});

describe("the pool of buffers", () => {
  it("gives the same buffer again, and forgets what is too much", () => {
    const pool = new BufferPool(200_000);
    const buffer = pool.take(65_536);
    expect(buffer.length).toBe(65_536 + 4096);
    pool.give(buffer);
    expect(pool.retained).toBe(buffer.length);
    pool.give(pool.take(300_000));
    expect(pool.retained).toBe(buffer.length);
    expect(pool.take(1)).toBe(buffer);
    pool.give(buffer);
    pool.clear();
    expect(pool.retained).toBe(0);
    expect(pool.take(1)).not.toBe(buffer);
  });

  it.each([
    { poisons: true, byte: 0xa5 },
    { poisons: false, byte: 7 },
  ])("spoils what it gets back when a simulation wants it: $poisons", ({ poisons, byte }) => {
    const pool = new BufferPool(200_000, { buggify: () => poisons });
    const buffer = pool.take(1).fill(7);
    pool.give(buffer);
    expect(pool.take(1)[0]).toBe(byte);
  });

  it.each([
    [0, 69_632],
    [69_632, 69_632],
    [69_633, 135_168],
    [33_554_432 + 16, 33_558_528],
  ])("%d bytes are found in %d", (length, size) => {
    expect(new BufferPool(0).take(length).length).toBe(size);
  });
});

describe("a slab", () => {
  it("is charged whole from when it is retired to its last pin", () => {
    const all = budget();
    const account = all.open(() => undefined);
    const pool = new BufferPool(10 * MIB);
    const slab = new Slab(pool, account);
    slab.pins = 2;
    expect(all.used).toBe(0);
    slab.retire();
    expect(all.used).toBe(slab.bytes.length);
    slab.unpin();
    expect(all.used).toBe(slab.bytes.length);
    slab.unpin();
    expect(all.used).toBe(0);
    expect(pool.retained).toBe(slab.bytes.length);
    expect(() => slab.unpin()).toThrow("as often as it was pinned");
    expect(() => slab.retire()).toThrow("retired once");
  });
});
