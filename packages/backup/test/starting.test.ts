import type { BackupOptions, StartAllOptions } from "@blocklayer/backup";
import { BlockError } from "@blocklayer/errors";
import { afterEach, describe, expect, it, vi } from "vitest";
import { backupFixture, CLUSTER, type Started } from "./fixture.ts";

afterEach(() => void vi.restoreAllMocks());

const list: readonly BackupOptions[] = [
  {
    "job-id": "a",
    device: "disk",
    target: "target",
    sync: "full",
    bitmap: "bm",
    "bitmap-mode": "always",
  },
  { "job-id": "b", device: "disk2", target: "target2", sync: "full" },
];

async function twoDisks(): Promise<Started> {
  const made = await backupFixture();
  const { fixture } = made;
  await fixture.disk("disk2", 2 * CLUSTER, new Uint8Array(2 * CLUSTER).fill(5));
  await fixture.disk("target2", 2 * CLUSTER);
  await fixture.bitmaps.add(fixture.node("disk"), { name: "bm", granularity: CLUSTER });
  await (await fixture.guest("disk")).write(CLUSTER, new Uint8Array(1).fill(1));
  await fixture.guest("disk2");
  return made;
}

/** Lets the `nth` call of what a start calls do something else. Returns how many calls there were. */
function atCall({ fixture }: Started, nth: number, act: () => unknown): () => number {
  let calls = 0;
  const watch = (object: object, ...methods: string[]): void => {
    const target = object as Record<string, (...args: unknown[]) => unknown>;
    for (const method of methods) {
      const original = target[method];
      vi.spyOn(target, method).mockImplementation((...args) => {
        calls += 1;
        if (calls === nth) act();
        return original?.apply(object, args);
      });
    }
  };
  watch(fixture.graph, "open", "change", "attachRoot");
  watch(fixture.jobs, "create");
  watch(fixture.node("disk"), "drain");
  watch(fixture.node("disk2"), "drain");
  return () => calls;
}

const injected = (): never => {
  throw new BlockError("EIO", "injected");
};

describe.each([
  ["one by one", {}],
  ["grouped", { grouped: true }],
] as [string, StartAllOptions][])("starting two backups %s", (_title, options) => {
  it("leaves nothing behind, whichever of its steps fails", async () => {
    let steps = 0;
    for (let nth = 1; ; nth += 1) {
      const made = await twoDisks();
      const { fixture, env } = made;
      const before = fixture.remains();
      const calls = atCall(made, nth, injected);
      const outcome = await fixture.backups.startAll(list, options).then(
        (jobs) => jobs,
        (error: unknown) => error,
      );
      if (calls() < nth) break;
      steps = nth;
      expect(outcome, `step ${nth}`).toMatchObject({ code: "EIO", message: "injected" });
      await env.clock.advance(1);
      expect(fixture.remains(), `step ${nth}`).toEqual(before);
      for (const name of ["target", "target2"]) fixture.node(name).checkOperation("backup-target");
      expect(env.clock.sleeping).toBe(0);
    }
    expect(steps).toBeGreaterThanOrEqual(10);
  });

  it.each(["a", "b"])(
    "leaves nothing behind when job %s is cancelled at any of its steps",
    async (id) => {
      let refusals = 0;
      for (let nth = 1; ; nth += 1) {
        const made = await twoDisks();
        const { fixture, env } = made;
        const before = fixture.remains();
        const calls = atCall(made, nth, async () => {
          // As soon as somebody else has a turn: not between a check and what it is for.
          await Promise.resolve();
          fixture.jobs.find(id)?.cancel();
        });
        const outcome = await fixture.backups.startAll(list, options).then(
          (jobs) => jobs,
          (error: unknown) => error,
        );
        await env.clock.advance(5);
        if (calls() < nth) break;
        if (!Array.isArray(outcome)) {
          refusals += 1;
          expect(outcome, `step ${nth}`).toMatchObject({ code: "ECANCELED" });
          expect(fixture.remains(), `step ${nth}`).toEqual(before);
        }
      }
      expect(refusals).toBeGreaterThan(3);
    },
  );
});

describe("a transaction of two backups and a cleared bitmap", () => {
  it("either happens or does not, whenever one of the jobs is cancelled", async () => {
    let refusals = 0;
    for (let nth = 1; ; nth += 1) {
      const made = await twoDisks();
      const { fixture, env } = made;
      const other = await fixture.bitmaps.add(fixture.node("disk"), { name: "other" });
      await (await fixture.guest("disk")).write(CLUSTER, new Uint8Array(1).fill(2));
      const calls = atCall(made, nth, async () => {
        await Promise.resolve();
        fixture.jobs.find("b")?.cancel();
      });
      const steps = [fixture.bitmaps.clearStep(other)];
      const outcome = await fixture.backups.startAll(list, { steps }).then(
        () => "started",
        () => "refused",
      );
      if (calls() < nth) break;
      if (outcome === "refused") refusals += 1;
      expect(other.count, `step ${nth}`).toBe(outcome === "refused" ? CLUSTER : 0);
      await env.clock.advance(5);
      expect(fixture.jobs.list()).toEqual([]);
    }
    expect(refusals).toBeGreaterThan(3);
  });
});

describe("starting two backups while the graph is closed", () => {
  it("either starts them or leaves nothing behind", async () => {
    for (let nth = 1; ; nth += 1) {
      const made = await backupFixture();
      const { fixture, env } = made;
      await fixture.disk("disk2", 2 * CLUSTER);
      await fixture.disk("target2", 2 * CLUSTER);
      await fixture.bitmaps.add(fixture.node("disk"), { name: "bm", granularity: CLUSTER });
      let closing: Promise<boolean> | undefined;
      atCall(made, nth, () => {
        closing = fixture.graph.close().then(
          () => true,
          () => false,
        );
      });
      const started = await fixture.backups.startAll(list, { grouped: true }).then(
        (jobs) => jobs.length,
        () => 0,
      );
      // The later calls are those of the jobs' ends.
      if (closing === undefined) break;
      const isClosed = await closing;
      await env.clock.advance(5);
      expect(fixture.jobs.list()).toEqual([]);
      expect([started, isClosed], `step ${nth}`).toEqual(isClosed ? [0, true] : [2, false]);
      expect(fixture.graph.nodes().length, `step ${nth}`).toBe(isClosed ? 0 : 4);
      expect(env.clock.sleeping).toBe(0);
    }
  });
});

describe("a disk that is named by its device", () => {
  it("is backed up all the same", async () => {
    const { fixture, env, target, before } = await backupFixture();
    await fixture.graph.createBackend({
      node: fixture.node("disk"),
      perm: ["consistent-read", "write"],
      name: "drive0",
    });
    await fixture.graph.createBackend({ node: fixture.node("target"), perm: [], name: "copy0" });
    const job = await fixture.backups.start({ device: "drive0", target: "copy0", sync: "full" });
    expect(job.job.id).toBe("drive0");
    await env.clock.advance(1);
    await job.completed();
    expect(target.bytes).toEqual(before);
  });
});

describe("a disk that is resized between its check and the start", () => {
  it.each([2, 6])("to %i clusters is refused, and nothing is left behind", async (clusters) => {
    const { fixture } = await backupFixture();
    const guest = await fixture.graph.createBackend({
      node: fixture.node("disk"),
      perm: ["consistent-read", "write", "resize"],
    });
    const nodes = fixture.graph.nodes().length;
    const create = fixture.jobs.create.bind(fixture.jobs);
    let resizing: Promise<void> | undefined;
    vi.spyOn(fixture.jobs, "create").mockImplementation((options) => {
      resizing = guest.truncate(clusters * CLUSTER);
      return create(options);
    });
    await expect(fixture.start()).rejects.toMatchObject({
      code: "EINVAL",
      message: "Source and target image have different sizes",
      context: { sourceSize: clusters * CLUSTER, targetSize: 4 * CLUSTER },
    });
    await resizing;
    expect(fixture.graph.nodes().length).toBe(nodes);
    expect(fixture.jobs.list()).toEqual([]);
  });
});

describe("a disk that gets ready for new permissions by and by", () => {
  it.each([undefined, "EACCES"])("is backed up, or not if that fails with %s", async (code) => {
    const made = await twoDisks();
    const { fixture, env, source } = made;
    const before = fixture.remains();
    let calls = 0;
    Object.defineProperty(source, "preparePermissions", {
      value: async () => {
        calls += 1;
        await Promise.resolve();
        if (code !== undefined && calls === 1) throw new BlockError(code, "not now");
      },
    });
    const starting = fixture.backups.startAll(list);
    if (code !== undefined) {
      await expect(starting).rejects.toMatchObject({ code });
      expect(fixture.remains()).toEqual(before);
      return;
    }
    const jobs = await starting;
    await env.clock.advance(5);
    await Promise.all(jobs.map((job) => job.completed()));
    expect(calls).toBeGreaterThan(0);
    expect(fixture.bitmap("bm")).toMatchObject({ count: 0, busy: false, enabled: true });
  });
});
