import type { ScriptedDriver } from "@blocklayer/driver-tests";
import { BlockError } from "@blocklayer/errors";
import { describe, expect, it } from "vitest";
import { backupFixture, CLUSTER } from "./fixture.ts";

type Figure = number | undefined | BlockError;

function tells(disk: ScriptedDriver, name: "allocatedSize" | "freeSpace", figure: Figure): void {
  const value = (): Promise<number | undefined> =>
    figure instanceof BlockError ? Promise.reject(figure) : Promise.resolve(figure);
  Object.defineProperty(disk, name, { value });
}

const SIZE = 4 * CLUSTER;
const unknown = new BlockError("EIO", "nobody knows");

describe("a target without room", () => {
  it.each([
    [SIZE, CLUSTER, 3 * CLUSTER - 1, "full", "ENOSPC"],
    [SIZE, CLUSTER, 3 * CLUSTER, "full", undefined],
    [SIZE + 4096, 0, SIZE, "full", undefined],
    [CLUSTER, 0, CLUSTER, "full", undefined],
    [CLUSTER, 0, CLUSTER - 1, "full", "ENOSPC"],
    [undefined, 0, 0, "full", undefined],
    [SIZE, undefined, 0, "full", undefined],
    [SIZE, 0, undefined, "full", undefined],
    [SIZE, 0, unknown, "full", undefined],
    [SIZE, 0, 0, "top", undefined],
  ] as [Figure, Figure, Figure, "full" | "top", string | undefined][])(
    "for %s bytes, holding %s with %s free, sync %s, is answered %s before anything is copied",
    async (needed, held, free, sync, code) => {
      const { fixture, env, source, target } = await backupFixture(SIZE);
      tells(source, "allocatedSize", needed);
      tells(target, "allocatedSize", held);
      tells(target, "freeSpace", free);
      const before = fixture.remains();
      const started = fixture.start({ sync });
      if (code === undefined) {
        const job = await started;
        await env.clock.advance(5);
        await job.completed();
        return;
      }
      await expect(started).rejects.toMatchObject({
        code,
        message: expect.stringContaining("target 'target' has room for"),
        context: { node: "target", needed, held, free },
      });
      expect([fixture.remains(), target.log]).toEqual([before, []]);
    },
  );
});
