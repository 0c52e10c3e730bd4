import type { BackupOptions } from "@blocklayer/backup";
import { describe, expect, it } from "vitest";
import { backupFixture, CLUSTER } from "./fixture.ts";

type Row = readonly [first: string, second: string, given: Partial<BackupOptions>, said: RegExp];

const noWorkers = { "x-perf": { "max-workers": 0 } } as const;
const small = { "x-perf": { "max-chunk": 1000 } } as const;

/** Each row is wrong in two ways that stand one after the other in the table of the specification. */
const rows: Row[] = [
  [
    "1 no bitmap",
    "9 same nodes",
    { sync: "bitmap", target: "disk" },
    /must provide a valid bitmap/,
  ],
  [
    "2 incremental with another mode",
    "3 no such bitmap",
    { sync: "incremental", bitmap: "nope", "bitmap-mode": "never" },
    /must be 'on-success'/,
  ],
  ["3 no such bitmap", "4 no mode", { sync: "bitmap", bitmap: "nope" }, /could not be found/],
  ["4 no mode", "5 busy", { sync: "bitmap", bitmap: "busy" }, /sync mode must be given/],
  [
    "5 busy",
    "6 none with a bitmap",
    { sync: "none", bitmap: "busy", "bitmap-mode": "never" },
    /currently in use by another operation/,
  ],
  [
    "6 none with a bitmap",
    "9 same nodes",
    { sync: "none", bitmap: "bm", "bitmap-mode": "never", target: "disk" },
    /meaningful bitmap outputs/,
  ],
  [
    "7 never with full",
    "9 same nodes",
    { bitmap: "bm", "bitmap-mode": "never", target: "disk" },
    /no meaningful effect/,
  ],
  [
    "8 mode without bitmap",
    "9 same nodes",
    { "bitmap-mode": "always", target: "disk" },
    /without a bitmap/,
  ],
  ["9 same nodes", "11 compress", { target: "disk", compress: true }, /cannot be the same/],
  ["11 compress", "12 blocked", { target: "blocked", compress: true }, /Compression is not/],
  ["12 blocked", "13 workers", { target: "blocked", ...noWorkers }, /is busy: for the test/],
  [
    "13 workers",
    "14 readonly",
    { bitmap: "readonly", "bitmap-mode": "on-success", ...noWorkers },
    /max-workers must be/,
  ],
  [
    "14 readonly",
    "16 sizes",
    { bitmap: "readonly", "bitmap-mode": "on-success", target: "larger" },
    /is readonly and cannot be modified/,
  ],
  [
    "16 sizes",
    "17 node name",
    { target: "larger", "filter-node-name": "disk" },
    /have different sizes/,
  ],
  ["17 node name", "18 chunk", { "filter-node-name": "disk", ...small }, /Duplicate nodes/],
  ["18 chunk", "19 job id", { "job-id": "0j", ...small }, /less than backup cluster size/],
];

describe("what is wrong with a backup is told in the order of the table", () => {
  it.each(rows)("%s before %s", async (_first, _second, given, said) => {
    const { fixture } = await backupFixture();
    await fixture.disk("larger", 8 * CLUSTER);
    await fixture.disk("blocked", 4 * CLUSTER);
    fixture.node("blocked").blockAllOperations("for the test");
    for (const name of ["bm", "busy", "readonly"]) {
      await fixture.bitmaps.add(fixture.node("disk"), { name, granularity: CLUSTER });
    }
    fixture.bitmap("busy").setBusy(true);
    fixture.bitmap("readonly").setReadonly(true);
    const before = fixture.remains();
    await expect(fixture.start(given)).rejects.toThrow(said);
    expect(fixture.remains()).toEqual(before);
  });

  it("a readonly bitmap may say what to copy, if nothing is to become of it", async () => {
    const { fixture, env, target, before } = await backupFixture();
    await fixture.bitmaps.add(fixture.node("disk"), { name: "bm", granularity: CLUSTER });
    const guest = await fixture.guest("disk");
    await guest.write(CLUSTER, before.slice(CLUSTER, CLUSTER + 1));
    fixture.bitmap("bm").setReadonly(true);
    const job = await fixture.start({ sync: "bitmap", bitmap: "bm", "bitmap-mode": "never" });
    await env.clock.advance(5);
    await job.completed();
    expect(fixture.bitmap("bm").count).toBe(CLUSTER);
    expect(target.bytes.subarray(CLUSTER, 2 * CLUSTER)).toEqual(
      before.subarray(CLUSTER, 2 * CLUSTER),
    );
  });
});
