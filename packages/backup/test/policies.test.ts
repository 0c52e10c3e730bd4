import { patternBytes } from "@blocklayer/driver-tests";
import { SeededScheduler } from "@blocklayer/env";
import { describe, expect, it } from "vitest";
import { backupFixture, CLUSTER, Fixture } from "./fixture.ts";

const single = { "x-perf": { "max-workers": 1, "max-chunk": CLUSTER } } as const;

describe("a failing request of the job", () => {
  it.each([
    ["source", "pread", "report", "EIO", "EIO"],
    ["source", "pread", "ignore", "EIO", undefined],
    ["target", "pwrite", "report", "ENOSPC", "ENOSPC"],
    ["target", "pwrite", "ignore", "EIO", undefined],
    ["target", "pwrite", "enospc", "EIO", "EIO"],
    ["target", "pwrite", "auto", "EIO", "EIO"],
  ] as const)(
    "of the %s (%s) with policy %s and %s ends the job with %s",
    async (side, operation, policy, code, outcome) => {
      const made = await backupFixture();
      const { fixture, env, target, before } = made;
      made[side === "source" ? "source" : "target"].failNth(operation, 2, code);
      const job = await fixture.start({ [`on-${side}-error`]: policy, ...single });
      await env.clock.advance(5);
      const error = await job.job.completed();
      expect(error?.code).toBe(outcome);
      if (outcome === undefined) expect(target.bytes).toEqual(before);
      expect(fixture.events).toContain("error");
    },
  );

  it.each([
    ["stop", "EIO", "failed"],
    ["stop", "ENOSPC", "nospace"],
    ["enospc", "ENOSPC", "nospace"],
  ] as const)(
    "with policy %s and %s waits for its user with io-status %s, and is tried again",
    async (policy, code, status) => {
      const { fixture, env, target, before } = await backupFixture();
      target.failNth("pwrite", 2, code);
      const job = await fixture.start({ "on-target-error": policy, ...single });
      await env.clock.advance(5);
      expect([job.job.status, job.job.userPaused, job.blockJob.ioStatus]).toEqual([
        "paused",
        true,
        status,
      ]);
      job.job.resume();
      await env.clock.advance(5);
      await job.completed();
      expect([target.bytes, job.blockJob.ioStatus]).toEqual([before, "ok"]);
    },
  );

  it("that is ignored for ever can be cancelled", async () => {
    const scheduler = new SeededScheduler({ seed: 1 });
    await scheduler.run(async () => {
      const fixture = new Fixture(scheduler.env);
      await fixture.disk("disk", 4 * CLUSTER, patternBytes(4 * CLUSTER, 1));
      const target = await fixture.disk("target", 4 * CLUSTER);
      target.failNth("pwrite", 1, "EIO", { persistent: true });
      const job = await fixture.start({ "on-target-error": "ignore" });
      await scheduler.env.clock.sleep(0);
      while (target.log.length < 5) await scheduler.turn("wait");
      await job.job.cancelAndWait();
      expect((await job.job.completed())?.code).toBe("ECANCELED");
    });
    expect(scheduler.pending).toBe(0);
  });
});

describe("a guest write whose old data can not be saved", () => {
  it("fails, and the job goes on", async () => {
    const { fixture, env, target, before } = await backupFixture();
    const guest = await fixture.guest("disk");
    const job = await fixture.start({ "auto-finalize": false, speed: 1, ...single });
    await env.clock.advance(1);
    target.failNth("pwrite", 1, "EIO");
    await expect(guest.write(3 * CLUSTER, patternBytes(10, 3))).rejects.toMatchObject({
      code: "EIO",
    });
    await guest.write(3 * CLUSTER, patternBytes(10, 3));
    job.job.setSpeed(0);
    await env.clock.advance(5);
    job.job.finalize();
    await job.completed();
    expect(target.bytes).toEqual(before);
  });

  it("goes through with on-cbw-error break-snapshot, and the job ends with the error", async () => {
    const { fixture, env, target, source } = await backupFixture();
    const guest = await fixture.guest("disk");
    const job = await fixture.start({ "on-cbw-error": "break-snapshot", speed: 1 });
    target.failNth("pwrite", 1, "ENOSPC");
    await guest.write(3 * CLUSTER, patternBytes(10, 3));
    expect(source.bytes.subarray(3 * CLUSTER, 3 * CLUSTER + 10)).toEqual(patternBytes(10, 3));
    await env.clock.advance(5);
    expect((await job.job.completed())?.code).toBe("ENOSPC");
  });

  it("waits no longer than cbw-timeout, and the leftover is waited for before the filter goes", async () => {
    const { fixture, env, target } = await backupFixture();
    const guest = await fixture.guest("disk");
    const job = await fixture.start({ sync: "none", "cbw-timeout": 1 });
    target.hold("pwrite");
    const write = expect(guest.write(0, patternBytes(10, 3))).rejects.toMatchObject({
      code: "ETIMEDOUT",
    });
    await env.clock.advance(1000);
    await write;
    let isGone = false;
    const ended = job.job.cancelAndWait().then(() => {
      isGone = true;
    });
    await env.clock.advance(5);
    expect(isGone).toBe(false);
    target.releaseAll();
    await env.clock.advance(5);
    await ended;
    expect(fixture.graph.nodes().length).toBe(2);
  });
});

describe("a guest write whose copy takes too long, with on-cbw-error break-snapshot", () => {
  it("goes through, and the job ends when the leftover has", async () => {
    const { fixture, env, source, target } = await backupFixture();
    const guest = await fixture.guest("disk");
    const job = await fixture.start({
      sync: "none",
      "cbw-timeout": 1,
      "on-cbw-error": "break-snapshot",
    });
    target.hold("pwrite");
    const write = guest.write(0, patternBytes(10, 3));
    await env.clock.advance(1000);
    await write;
    expect(source.bytes.subarray(0, 10)).toEqual(patternBytes(10, 3));
    await env.clock.advance(5);
    expect([job.job.status, fixture.graph.nodes().length]).toEqual(["aborting", 3]);
    target.releaseAll();
    await env.clock.advance(5);
    expect((await job.job.completed())?.code).toBe("ETIMEDOUT");
    expect([fixture.graph.nodes().length, env.clock.sleeping]).toEqual([2, 0]);
  });
});

describe("a drained section", () => {
  it("pauses the job with none of its requests in flight, and lets it go on after", async () => {
    const { fixture, env, source, target, before } = await backupFixture();
    source.hold("pread");
    const job = await fixture.start(single);
    await env.clock.advance(1);
    const draining = fixture.node("disk").drain();
    await env.clock.advance(1);
    source.releaseAll();
    await env.clock.advance(1);
    const hold = await draining;
    expect([
      job.job.status,
      job.filterNode.io.inFlight,
      fixture.node("target").io.inFlight,
    ]).toEqual(["paused", 0, 0]);
    const requests = target.log.length;
    await env.clock.advance(10);
    expect(target.log.length).toBe(requests);
    hold.end();
    await env.clock.advance(5);
    await job.completed();
    expect(target.bytes).toEqual(before);
  });

  it("of the target pauses the job too", async () => {
    const { fixture, env } = await backupFixture();
    const job = await fixture.start({ speed: CLUSTER, ...single });
    const draining = fixture.node("target").drain();
    await env.clock.advance(1);
    const hold = await draining;
    expect(job.job.paused).toBe(true);
    hold.end();
    await env.clock.advance(10_000);
    await job.completed();
  });
});

describe("speed", () => {
  it.each([
    ["clusters", single],
    ["buffers", {}],
  ])("is met in the long run, copying by %s", async (_title, how) => {
    const { fixture, env } = await backupFixture(400 * CLUSTER);
    const job = await fixture.start({ speed: 20 * CLUSTER, ...how });
    const beganMs = env.clock.now();
    while (fixture.jobs.list().length > 0 && env.clock.now() - beganMs < 30_000) {
      await env.clock.advance(100);
    }
    await job.completed();
    const tookMs = env.clock.now() - beganMs;
    expect(tookMs).toBeGreaterThanOrEqual(19_000);
    expect(tookMs).toBeLessThanOrEqual(20_200);
  });

  it("is kept, and a new one counts at once", async () => {
    const { fixture, env } = await backupFixture();
    const job = await fixture.start({ speed: CLUSTER, ...single });
    await env.clock.advance(1500);
    const { current } = job.job.progress.snapshot();
    expect(current).toBeLessThanOrEqual(3 * CLUSTER);
    job.job.setSpeed(0);
    await env.clock.advance(5);
    await job.completed();
  });
});

describe("discard-source", () => {
  it("discards what was copied", async () => {
    const { fixture, env, source, target, before } = await backupFixture();
    const job = await fixture.start({ "discard-source": true });
    await env.clock.advance(5);
    await job.completed();
    expect(target.bytes).toEqual(before);
    expect(source.log.every(({ operation }) => operation !== "pwrite")).toBe(true);
  });
});
