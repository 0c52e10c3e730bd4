import type { BitmapManager, BitmapReference, DirtyBitmap } from "@blocklayer/dirty-bitmap";
import { runTransaction, type TransactionStep } from "@blocklayer/jobs";
import { describe, expect, it } from "vitest";
import { bytes, type Disk, failure, MiB, Rig } from "./bitmap-rig.ts";

const GROUP = 65536;

interface Set {
  readonly rig: Rig;
  readonly disk: Disk;
  /** Recorded a write to group 0. */
  readonly a: DirtyBitmap;
  /** Empty. */
  readonly b: DirtyBitmap;
}

async function set(): Promise<Set> {
  const rig = new Rig();
  const node = await rig.disk();
  const a = await rig.bitmaps.add(node, { name: "a", granularity: GROUP });
  const disk = await rig.backend(node);
  await disk.write(0, bytes(1));
  const b = await rig.bitmaps.add(node, { name: "b", granularity: GROUP });
  return { rig, disk, a, b };
}

const ref = (name: string): BitmapReference => ({ node: "disk", name });

function refuse(): TransactionStep {
  return {
    prepare: () => {
      throw new Error("refused");
    },
  };
}

/** Lets a write happen between the steps. */
function during(work: () => Promise<void>): TransactionStep {
  return { prepare: work };
}

function state(bitmap: DirtyBitmap): unknown {
  const { count, enabled, busy, isReleased } = bitmap;
  return { count, enabled, busy, isReleased };
}

type MakeStep = (bitmaps: BitmapManager) => TransactionStep;

const STEPS: { name: string; step: MakeStep; after: Record<string, unknown> }[] = [
  { name: "clear", step: (m) => m.clearStep(ref("a")), after: { count: 0 } },
  { name: "disable", step: (m) => m.disableStep(ref("a")), after: { enabled: false } },
  { name: "enable", step: (m) => m.enableStep(ref("a")), after: { enabled: true } },
  { name: "remove", step: (m) => m.removeStep(ref("a")), after: { isReleased: true } },
  { name: "merge", step: (m) => m.mergeStep(ref("b"), [ref("a")]), after: { count: GROUP } },
];

describe("a step of a transaction", () => {
  it.each(STEPS)("$name takes effect with the transaction", async ({ name, step, after }) => {
    const { rig, a, b } = await set();
    await runTransaction([step(rig.bitmaps)]);
    expect(name === "merge" ? b : a).toMatchObject(after);
  });

  it.each(STEPS)("$name is taken back with the transaction", async ({ step }) => {
    const { rig, a, b } = await set();
    const before = [state(a), state(b)];
    await expect(runTransaction([step(rig.bitmaps), refuse()])).rejects.toThrow("refused");
    expect([state(a), state(b)]).toEqual(before);
  });

  it.each(STEPS.filter(({ name }) => name !== "remove"))(
    "$name is taken back without losing a write that came meanwhile",
    async ({ step }) => {
      const { rig, disk, a, b } = await set();
      const write = during(() => disk.write(3 * GROUP, bytes(1)));
      const failing = [step(rig.bitmaps), write, refuse()];
      await expect(runTransaction(failing)).rejects.toThrow("refused");
      expect([a.count, b.count]).toEqual([2 * GROUP, GROUP]);
      await disk.write(4 * GROUP, bytes(1));
      expect([a.count, b.count]).toEqual([3 * GROUP, 2 * GROUP]);
    },
  );

  it("that clears keeps a write that came before the commit", async () => {
    const { rig, disk, a } = await set();
    const write = during(() => disk.write(3 * GROUP, bytes(1)));
    await runTransaction([rig.bitmaps.clearStep(a), write]);
    expect(a.map.nextDirtyArea(0)).toEqual({ offset: 3 * GROUP, length: GROUP });
  });

  it("follows a change of length that came before it was taken back", async () => {
    const { rig, disk, a } = await set();
    a.disable();
    const grow = during(() => disk.truncate(2 * MiB));
    await failure(() => runTransaction([rig.bitmaps.clearStep(a), grow, failingLookup(rig)]));
    expect(a).toMatchObject({ size: 2 * MiB, count: GROUP });
  });

  it("that adds shows the bitmap and removes it again", async () => {
    const { rig, disk } = await set();
    const step = rig.bitmaps.addStep("disk", { name: "c", granularity: GROUP });
    expect(step.bitmap).toBeUndefined();
    await runTransaction([step, during(() => disk.write(0, bytes(1)))]);
    expect(step.bitmap?.count).toBe(GROUP);
    const again = rig.bitmaps.addStep("disk", { name: "d" });
    await expect(runTransaction([again, refuse()])).rejects.toThrow("refused");
    expect(again.bitmap?.isReleased).toBe(true);
    expect(rig.bitmaps.query(rig.graph.node("disk")).map(({ name }) => name)).toEqual([
      "c",
      "b",
      "a",
    ]);
  });
});

function failingLookup(rig: Rig): TransactionStep {
  return rig.bitmaps.clearStep(ref("nope"));
}

describe("the steps of one transaction", () => {
  it.each<{ name: string; steps: (m: BitmapManager) => TransactionStep[]; code: string }>([
    {
      name: "clear, then add with a bad granularity",
      steps: (m) => [m.clearStep(ref("a")), m.addStep("disk", { name: "c", granularity: 7 })],
      code: "EINVAL",
    },
    {
      name: "add the same name twice",
      steps: (m) => [m.addStep("disk", { name: "c" }), m.addStep("disk", { name: "c" })],
      code: "EEXIST",
    },
    {
      name: "remove, then clear",
      steps: (m) => [m.removeStep(ref("a")), m.clearStep(ref("a"))],
      code: "EBUSY",
    },
    {
      name: "remove, then add the same name",
      steps: (m) => [m.removeStep(ref("a")), m.addStep("disk", { name: "a" })],
      code: "EEXIST",
    },
    {
      name: "disable, clear, enable, and something missing",
      steps: (m) => [
        m.disableStep(ref("a")),
        m.clearStep(ref("a")),
        m.enableStep(ref("b")),
        m.clearStep(ref("nope")),
      ],
      code: "ENOENT",
    },
    {
      name: "enable and disable what is not there",
      steps: (m) => [m.enableStep(ref("nope"))],
      code: "ENOENT",
    },
  ])("$name: nothing changes", async ({ steps, code }) => {
    const { rig, disk, a, b } = await set();
    const before = [state(a), state(b)];
    expect((await failure(() => runTransaction(steps(rig.bitmaps)))).code).toBe(code);
    expect([state(a), state(b)]).toEqual(before);
    expect(rig.bitmaps.list(a.node)).toEqual([b, a]);
    await disk.write(GROUP, bytes(1));
    expect([a.count, b.count]).toEqual([2 * GROUP, GROUP]);
  });

  it("see what the ones before have done: a rotation", async () => {
    const { rig, disk, a } = await set();
    const next = rig.bitmaps.addStep("disk", { name: "c", granularity: GROUP });
    await runTransaction([
      rig.bitmaps.disableStep(a),
      next,
      rig.bitmaps.mergeStep(ref("c"), [a]),
      rig.bitmaps.clearStep(a),
    ]);
    await disk.write(GROUP, bytes(1));
    expect(a.count).toBe(0);
    expect(next.bitmap?.count).toBe(2 * GROUP);
  });

  it.each<{
    name: string;
    before: (m: BitmapManager) => TransactionStep[];
    after?: (m: BitmapManager) => TransactionStep[];
    target: string;
  }>([
    { name: "merged and cleared", before: () => [], target: "b" },
    {
      name: "disabled, merged and cleared",
      before: (m) => [m.disableStep(ref("a"))],
      target: "b",
    },
    { name: "merged into another node's", before: () => [], target: "far" },
    {
      name: "merged before something else is",
      before: () => [],
      after: (m) => [m.mergeStep({ node: "other", name: "far" }, [])],
      target: "far",
    },
    {
      name: "merged by way of another node's",
      before: (m) => [m.mergeStep({ node: "other", name: "far" }, [ref("a")])],
      target: "via",
    },
  ])("lose no write between them of a bitmap that is $name", async ({ before, after, target }) => {
    const { rig, disk, a } = await set();
    const other = await rig.disk("other");
    const { bitmaps } = rig;
    await bitmaps.add(other, { name: "far", granularity: GROUP, disabled: true });
    await bitmaps.add(other, { name: "via", granularity: GROUP, disabled: true });
    const into = target === "b" ? "disk" : "other";
    const source = target === "via" ? { node: "other", name: "far" } : a;
    await runTransaction([
      ...before(bitmaps),
      bitmaps.mergeStep({ node: into, name: target }, [source]),
      ...(after?.(bitmaps) ?? []),
      during(() => disk.write(GROUP, bytes(1))),
      bitmaps.clearStep(a),
    ]);
    const merged = bitmaps.lookup(into, target);
    expect([a.count, merged.count]).toEqual([0, 2 * GROUP]);
    await disk.write(2 * GROUP, bytes(1));
    expect(merged.map.get(2 * GROUP)).toBe(target === "b");
  });

  it("that merge do not follow the length of another node", async () => {
    const { rig, disk, a } = await set();
    const other = await rig.disk("other");
    const far = await rig.bitmaps.add(other, { name: "far", granularity: GROUP });
    await runTransaction([rig.bitmaps.mergeStep(far, [a]), during(() => disk.truncate(GROUP))]);
    expect([a.size, far.size, far.map.size]).toEqual([GROUP, MiB, MiB]);
  });

  it("take effect in the instant of a graph change", async () => {
    const { rig, disk, a } = await set();
    const { graph, bitmaps } = rig;
    await graph.change([bitmaps.clearStep(a), bitmaps.disableStep(ref("b"))]);
    await disk.write(GROUP, bytes(1));
    expect(a.count).toBe(GROUP);
    expect(rig.bitmaps.lookup("disk", "b").count).toBe(0);
  });

  it("do not mind that the bitmap disappears before the end", async () => {
    const { rig, a, b } = await set();
    const gone = during(() => {
      rig.bitmaps.release(a);
      rig.bitmaps.release(b);
      return Promise.resolve();
    });
    const steps = [rig.bitmaps.clearStep(a), rig.bitmaps.disableStep(b), gone];
    await runTransaction(steps);
    expect([a.isReleased, b.isReleased]).toEqual([true, true]);
  });

  it("are taken back when the node has closed meanwhile", async () => {
    const { rig, disk, a } = await set();
    await disk.close();
    const added = rig.bitmaps.addStep("disk", { name: "c" });
    const steps = [
      added,
      rig.bitmaps.disableStep(ref("b")),
      rig.bitmaps.removeStep(a),
      during(() => rig.graph.remove("disk")),
    ];
    await expect(runTransaction([...steps, refuse()])).rejects.toThrow("refused");
    expect([a.isReleased, added.bitmap?.isReleased]).toEqual([true, true]);
  });

  it("commit a removal when the node has closed meanwhile", async () => {
    const { rig, disk, a } = await set();
    await disk.close();
    await runTransaction([rig.bitmaps.removeStep(a), during(() => rig.graph.remove("disk"))]);
    expect(a.isReleased).toBe(true);
  });
});

describe("merging", () => {
  it.each([
    { target: 512, source: 65536, expected: 65536 },
    { target: 65536, source: 512, expected: 65536 },
    { target: 2 ** 20, source: 4096, expected: 2 ** 20 },
    { target: 512, source: 512, expected: 512 },
  ])("$source into $target makes $expected dirty", async ({ target, source, expected }) => {
    const rig = new Rig();
    const node = await rig.disk();
    const from = await rig.bitmaps.add(node, { name: "from", granularity: source });
    const into = await rig.bitmaps.add(node, { name: "into", granularity: target });
    from.set(70_000, 1);
    await rig.bitmaps.merge(into, [from]);
    expect(into.count).toBe(expected);
    expect(into.map.get(70_000)).toBe(true);
  });

  it("with itself or with nothing changes nothing", async () => {
    const { rig, a } = await set();
    await rig.bitmaps.merge(a, [a]);
    await rig.bitmaps.merge(a, []);
    expect(a.count).toBe(GROUP);
  });

  it("takes bitmaps of other nodes", async () => {
    const { rig, b } = await set();
    const other = await rig.bitmaps.add(await rig.disk("other"), { name: "o" });
    other.set(5 * GROUP, 1);
    await rig.bitmaps.merge(b, [{ node: "other", name: "o" }, ref("a")]);
    expect(b.count).toBe(2 * GROUP);
  });

  it.each([
    { last: "nope", code: "ENOENT", message: "Dirty bitmap 'nope' not found" },
    {
      last: "large",
      code: "EINVAL",
      message:
        "Bitmaps are of different sizes (destination size is 1048576, source size is 2097152) and can't be merged",
    },
    {
      last: "busy",
      code: "EBUSY",
      message: "Bitmap 'busy' is currently in use by another operation and cannot be used",
    },
  ])("changes nothing when the last source is $last", async ({ last, code, message }) => {
    const { rig, a, b } = await set();
    const large = await rig.disk("large", { size: 2 * MiB });
    await rig.bitmaps.add(large, { name: "large" });
    (await rig.bitmaps.add(large, { name: "busy" })).setBusy(true);
    const node = last === "nope" ? "disk" : "large";
    const sources = [a, { node, name: last }];
    expect(await failure(() => rig.bitmaps.merge(b, sources))).toMatchObject({ code, message });
    expect(b.count).toBe(0);
  });

  it("names the missing source before the busy target", async () => {
    const { rig, b } = await set();
    b.setBusy(true);
    expect((await failure(() => rig.bitmaps.merge(b, [ref("nope")]))).code).toBe("ENOENT");
    expect((await failure(() => rig.bitmaps.merge(b, [ref("a")]))).code).toBe("EBUSY");
    expect((await failure(() => rig.bitmaps.merge(b, []))).code).toBe("EBUSY");
  });
});
