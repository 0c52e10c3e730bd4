import type { BackupOptions } from "@blocklayer/backup";
import { describe, expect, it } from "vitest";
import { backupFixture, CLUSTER } from "./fixture.ts";

type Row = readonly [
  title: string,
  options: Partial<BackupOptions>,
  message: string,
  code?: string,
];

const rows: Row[] = [
  [
    "incremental without a bitmap",
    { sync: "incremental" },
    "must provide a valid bitmap name for 'incremental' sync mode",
  ],
  [
    "bitmap without a bitmap",
    { sync: "bitmap" },
    "must provide a valid bitmap name for 'bitmap' sync mode",
  ],
  [
    "incremental that never clears",
    { sync: "incremental", bitmap: "bm", "bitmap-mode": "never" },
    "Bitmap sync mode must be 'on-success' when using sync mode 'incremental'",
  ],
  [
    "a bitmap that is not there",
    { sync: "bitmap", bitmap: "nope", "bitmap-mode": "never" },
    "Bitmap 'nope' could not be found",
  ],
  [
    "a bitmap without a mode",
    { sync: "bitmap", bitmap: "bm" },
    "Bitmap sync mode must be given when providing a bitmap",
  ],
  [
    "a bitmap that another operation uses",
    { sync: "incremental", bitmap: "busy" },
    "Bitmap 'busy' is currently in use by another operation and cannot be used",
    "EBUSY",
  ],
  [
    "none with a bitmap",
    { sync: "none", bitmap: "bm", "bitmap-mode": "on-success" },
    "sync mode 'none' does not produce meaningful bitmap outputs",
  ],
  [
    "full that never clears",
    { sync: "full", bitmap: "bm", "bitmap-mode": "never" },
    "Bitmap sync mode 'never' has no meaningful effect when combined with sync mode 'full'",
  ],
  [
    "top that never clears",
    { sync: "top", bitmap: "bm", "bitmap-mode": "never" },
    "Bitmap sync mode 'never' has no meaningful effect when combined with sync mode 'top'",
  ],
  [
    "a mode without a bitmap",
    { sync: "full", "bitmap-mode": "always" },
    "Cannot specify bitmap sync mode without a bitmap",
  ],
  ["source and target alike", { target: "disk" }, "Source and target cannot be the same"],
  [
    "a source that is not there",
    { device: "zz" },
    "Cannot find device='zz' nor node-name='zz'",
    "ENOENT",
  ],
  [
    "a target that is not there",
    { target: "zz" },
    "Cannot find device='zz' nor node-name='zz'",
    "ENOENT",
  ],
  [
    "a target that can not compress",
    { compress: true },
    "Compression is not supported for this drive target",
  ],
  [
    "a target of another size",
    { target: "larger" },
    "Source and target image have different sizes",
  ],
  [
    "no workers",
    { "x-perf": { "max-workers": 0 } },
    "max-workers must be between 1 and 2147483647",
  ],
  [
    "too many workers",
    { "x-perf": { "max-workers": 2 ** 31 } },
    "max-workers must be between 1 and 2147483647",
  ],
  [
    "a negative chunk",
    { "x-perf": { "max-chunk": -1 } },
    "max-chunk must be zero (which means no limit) or positive",
  ],
  [
    "a chunk below a cluster",
    { "x-perf": { "max-chunk": 1000 } },
    "Required max-chunk (1000) is less than backup cluster size (65536)",
  ],
  [
    "a cluster size that is no power of two",
    { "x-perf": { "min-cluster-size": 100_000 } },
    "min-cluster-size needs to be a power of 2",
  ],
  [
    "a filter name that is taken",
    { "filter-node-name": "disk" },
    "Duplicate nodes with node-name='disk'",
    "EEXIST",
  ],
  ["a job id that is none", { "job-id": "0j" }, "Invalid job ID '0j'"],
  [
    "no job id for a disk without a name",
    { "job-id": undefined as unknown as string },
    "Invalid job ID ''",
  ],
  ["a negative speed", { speed: -1 }, "Parameter 'speed' expects a non-negative value"],
  [
    "a sync mode that is none",
    { sync: "half" as unknown as "full" },
    "Parameter 'sync' does not accept value 'half'",
  ],
  [
    "an option that is none",
    { quick: true } as Partial<BackupOptions>,
    "Parameter 'quick' is unexpected",
  ],
];

describe("a backup is refused, and nothing is left behind, with", () => {
  it.each(
    rows.map(([title, options, message, code = "EINVAL"]) => ({ title, options, message, code })),
  )("$title", async ({ options, message, code }) => {
    const { fixture, source, target } = await backupFixture();
    await fixture.disk("larger", 8 * CLUSTER);
    await fixture.bitmaps.add(fixture.node("disk"), { name: "bm", granularity: CLUSTER });
    await fixture.bitmaps.add(fixture.node("disk"), { name: "busy", granularity: CLUSTER });
    fixture.bitmap("busy").setBusy(true);
    const before = fixture.remains();
    const failure = await fixture.start(options).then(
      () => undefined,
      (error: unknown) => error,
    );
    expect(failure).toMatchObject({ code, message: expect.stringContaining(message) });
    expect(fixture.remains()).toEqual(before);
    expect([source.log, target.log.filter(({ operation }) => operation !== "flush")]).toEqual([
      [],
      [],
    ]);
  });

  it("a second job on the same target", async () => {
    const { fixture, env } = await backupFixture();
    const first = await fixture.start({ sync: "none" });
    await fixture.disk("other", 4 * CLUSTER);
    const before = fixture.graph.nodes().length;
    await expect(fixture.start({ "job-id": "second", device: "other" })).rejects.toMatchObject({
      message: expect.stringContaining("is busy: block device is in use by block job: backup"),
    });
    expect(fixture.graph.nodes().length).toBe(before);
    await first.job.cancel({ force: true });
    await env.clock.advance(1);
    await first.job.completed();
  });

  it("another writer below the filter", async () => {
    const { fixture } = await backupFixture();
    const sneak = await fixture.graph.createBackend({
      node: fixture.node("disk"),
      perm: ["write", "consistent-read"],
    });
    const job = await fixture.start({ sync: "none" });
    // The writer that was there moved above the filter with the backup; a new one below is not let in.
    await expect(fixture.guest("disk")).rejects.toMatchObject({ code: "EPERM" });
    await sneak.write(0, new Uint8Array(512));
    await job.job.cancel({ force: true });
    await job.job.completed();
  });
});
