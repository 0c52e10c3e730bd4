import { describe, expect, it } from "vitest";
import { bytes, CLUSTER, fixture } from "./fixture.ts";

const options = {
  "x-blocklayer-discard-source": true,
  "on-cbw-error": "break-snapshot",
  "cbw-timeout": 1,
};

describe("a copy that is too late for a guest's write, and would discard the source", () => {
  it.each([
    ["one write", 1],
    ["two writes", 2],
  ] as const)(
    "discards nothing when the snapshot broke while it ran (%s)",
    async (_title, times) => {
      const { filter, source, env } = await fixture({ options });
      source.hold("pread");
      const call = filter.engine.start(0, CLUSTER, { maxWorkers: 1, maxChunk: 0 });
      await env.clock.advance(1);
      const written = filter.pwrite(100, bytes(50, 9));
      await env.clock.advance(1100);
      await written;
      for (let time = 1; time < times; time += 1) await filter.pwrite(100, bytes(50, 9));
      expect(filter.snapshotError?.code).toBe("ETIMEDOUT");
      source.releaseAll();
      await env.clock.advance(1);
      await call.done;
      expect(source.log.some(({ operation }) => operation === "pdiscard")).toBe(false);
      expect(source.bytes.slice(100, 150)).toEqual(bytes(50, 9));
    },
  );

  it("is waited for while its discard is under way", async () => {
    const { filter, source, env } = await fixture({ options });
    source.hold("pdiscard");
    const call = filter.engine.start(0, CLUSTER, { maxWorkers: 1, maxChunk: 0 });
    await env.clock.advance(1);
    expect(source.held.length).toBe(1);
    expect([filter.engine.isDiscarding(200, 1), filter.engine.isDiscarding(CLUSTER, 1)]).toEqual([
      true,
      false,
    ]);
    let count = 0;
    const write = async (): Promise<void> => {
      await filter.pwrite(100, bytes(50, 9));
      count += 1;
    };
    const writes = [write()];
    await env.clock.advance(1100);
    expect(filter.snapshotError?.code).toBe("ETIMEDOUT");
    // One that comes when the snapshot is broken already waits too; elsewhere nobody does.
    writes.push(write());
    await filter.pwrite(2 * CLUSTER, bytes(50, 9));
    await env.clock.advance(10);
    expect(count).toBe(0);
    source.releaseAll();
    await env.clock.advance(1);
    await Promise.all([...writes, call.done]);
    expect(source.bytes.slice(100, 150)).toEqual(bytes(50, 9));
  });

  it("discards again after a new point in time", async () => {
    const { filter, source, target, env } = await fixture({ options });
    target.failNth("pwrite", 1, "EIO");
    await filter.pwrite(0, bytes(50, 9));
    expect(filter.snapshotError?.code).toBe("EIO");
    filter.begin();
    const call = filter.engine.start(0, CLUSTER, { maxWorkers: 1, maxChunk: 0 });
    await env.clock.advance(1);
    await call.done;
    expect(source.log.some(({ operation }) => operation === "pdiscard")).toBe(true);
  });
});
