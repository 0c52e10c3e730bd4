import { settleTurn } from "@blocklayer/env";
import { describe, expect, it } from "vitest";
import { bytes, CLUSTER, type Fixture, fixture, isSame } from "./fixture.ts";

/** What a guest and a reader do, in order; returns which of the writes went through. */
async function session({ filter }: Fixture): Promise<boolean[]> {
  const outcomes: boolean[] = [];
  const attempt = async (work: Promise<void>): Promise<void> => {
    outcomes.push(
      await work.then(
        () => true,
        () => false,
      ),
    );
  };
  await attempt(filter.pwrite(10, bytes(100, 9)));
  await attempt(filter.pwriteZeroes(CLUSTER, CLUSTER));
  await attempt(filter.pdiscard(3 * CLUSTER, 10));
  await attempt(filter.pwrite(CLUSTER - 5, bytes(10, 8)));
  await attempt(filter.snapshotRead(0, new Uint8Array(4 * CLUSTER)));
  return outcomes;
}

/** The source after the writes that went through. */
function expectedSource(before: Uint8Array, outcomes: readonly boolean[]): Uint8Array {
  const expected = before.slice();
  if (outcomes[0] === true) expected.fill(9, 10, 110);
  if (outcomes[1] === true) expected.fill(0, CLUSTER, 2 * CLUSTER);
  if (outcomes[2] === true) expected.fill(0, 3 * CLUSTER, 3 * CLUSTER + 10);
  if (outcomes[3] === true) expected.fill(8, CLUSTER - 5, CLUSTER + 5);
  return expected;
}

describe("request n of a disk fails, for n = 1, 2, … until none does", () => {
  const rows = (["break-guest-write", "break-snapshot"] as const).flatMap((policy) =>
    (
      [
        ["source", "pread"],
        ["source", "pwrite"],
        ["source", "pwriteZeroes"],
        ["source", "pdiscard"],
        ["target", "pread"],
        ["target", "pwrite"],
      ] as const
    ).map(([side, operation]) => [policy, side, operation] as const),
  );
  it.each(rows)("%s, of the %s, %s", async (policy, side, operation) => {
    for (let at = 1; ; at += 1) {
      expect(at).toBeLessThan(20);
      const made = await fixture({ options: { "on-cbw-error": policy } });
      const { filter, host, source, target, before, env } = made;
      made[side].failNth(operation, at, "EIO");
      const outcomes = await session(made);
      await settleTurn();
      made[side].clearFailures();
      expect([host.inFlight, filter.engine.inFlightBytes, env.clock.sleeping]).toEqual([0, 0, 0]);
      expect(isSame(source.bytes, expectedSource(before, outcomes))).toBe(true);
      const isBroken = filter.snapshotError !== undefined;
      if (policy === "break-guest-write") expect(isBroken).toBe(false);
      if (!isBroken) {
        const seen = new Uint8Array(before.length);
        await filter.snapshotRead(0, seen);
        expect(isSame(seen, before)).toBe(true);
        const call = filter.engine.start(0, 4 * CLUSTER, { maxWorkers: 2, maxChunk: 0 });
        await env.clock.advance(1);
        await call.done;
        expect([call.succeeded, isSame(target.bytes, before)]).toEqual([true, true]);
      }
      const hasFailed = isBroken || outcomes.includes(false);
      await host.close();
      if (!hasFailed) break;
    }
  });
});
