import type { DirtyBitmap } from "@blocklayer/dirty-bitmap";
import { BlockError } from "@blocklayer/errors";
import type { TransactionStep } from "@blocklayer/jobs";
import { describe, expect, it } from "vitest";
import { backupFixture, CLUSTER, type Started } from "./fixture.ts";

const full = { "job-id": "job", device: "disk", target: "target", sync: "full" } as const;
const second = { ...full, "job-id": "job2", device: "disk2", target: "target2" } as const;

const prepare = (): void => undefined;
const fault = (): never => {
  throw new BlockError("EIO", "too late");
};
const lateSteps: readonly (readonly [string, TransactionStep])[] = [
  ["commit", { prepare, commit: fault }],
  ["clean", { prepare, clean: () => Promise.reject(new BlockError("EIO", "too late")) }],
];

async function withOld(): Promise<Started & { readonly old: DirtyBitmap }> {
  const made = await backupFixture();
  const { fixture } = made;
  await fixture.disk("disk2", CLUSTER);
  await fixture.disk("target2", CLUSTER);
  const old = await fixture.bitmaps.add(fixture.node("disk"), { name: "old" });
  const guest = await fixture.guest("disk");
  await guest.write(CLUSTER, new Uint8Array(1).fill(1));
  return { ...made, old, before: made.source.bytes.slice() };
}

describe.each(lateSteps)("a step whose %s fails when the start is committed", (_title, step) => {
  it.each([false, true])("takes nothing back (grouped: %s)", async (grouped) => {
    const { fixture, env, old, target, before } = await withOld();
    const guest = await fixture.guest("disk");
    const steps = [fixture.bitmaps.clearStep(old), step];
    const jobs = await fixture.backups.startAll([full, second], { grouped, steps });
    expect(fixture.lines.at(-1)).toContain("backup: started: ");
    expect(fixture.lines.at(-1)).toContain("too late");
    expect(old.count).toBe(0);
    await guest.write(0, new Uint8Array(10).fill(7));
    await env.clock.advance(5);
    const errors = await Promise.all(jobs.map(({ job }) => job.completed()));
    expect(errors).toEqual([undefined, undefined]);
    expect(target.bytes).toEqual(before);
    expect(fixture.jobs.list()).toEqual([]);
    expect(fixture.graph.nodes().length).toBe(4);
  });
});

it("a refusal stays one when its own clean-up fails", async () => {
  const { fixture, old } = await withOld();
  const before = fixture.remains();
  const steps = [
    fixture.bitmaps.clearStep(old),
    { prepare, clean: () => Promise.reject(new BlockError("EIO", "not cleaned")) },
    { prepare: () => Promise.reject(new BlockError("ENOSPC", "refused")) },
  ];
  await expect(fixture.backups.startAll([full], { steps })).rejects.toMatchObject({
    code: "ENOSPC",
    context: { undoErrors: [{ message: "not cleaned" }] },
  });
  expect(fixture.remains()).toEqual(before);
  expect(old.count).toBe(CLUSTER);
});
