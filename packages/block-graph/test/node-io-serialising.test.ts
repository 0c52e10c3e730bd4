import { RequestFlag } from "@blocklayer/driver";
import { patternBytes, ScriptedDriver } from "@blocklayer/driver-tests";
import { describe, expect, it } from "vitest";
import { rigNode, rootEdge } from "./io-rig.ts";

const KiB = 1024;

function bytes(length: number, seed = 1): Uint8Array {
  return patternBytes(length, seed);
}

describe("serialising writes", () => {
  it.each([
    ["wait for a write in the same cluster", { flags: RequestFlag.serialising }, 4096, false],
    ["pass a write in another cluster", { flags: RequestFlag.serialising }, 65536, true],
  ] as const)("%s", async (_title, options, offset, passes) => {
    const driver = Object.assign(new ScriptedDriver({ size: 256 * KiB, hold: true }), {
      getInfo: () => Promise.resolve({ clusterSize: 64 * KiB }),
    });
    const edge = rootEdge(rigNode({ driver: () => driver }));
    const first = edge.pwrite(0, bytes(512));
    const second = edge.pwrite(offset, bytes(512), options);
    for (let turn = 0; turn < 20; turn += 1) await Promise.resolve();
    expect(driver.held).toHaveLength(passes ? 2 : 1);
    driver.releaseAll();
    await Promise.all([first, second]);
  });

  it("that may not wait are EBUSY", async () => {
    const driver = new ScriptedDriver({ size: 8 * KiB, hold: true });
    const node = rigNode({ driver: () => driver });
    const edge = rootEdge(node);
    const first = edge.pwrite(0, bytes(512));
    const flags = RequestFlag.serialising | RequestFlag.noWait;
    await expect(edge.pwrite(0, bytes(512), { flags })).rejects.toMatchObject({
      code: "EBUSY",
      message: "512 bytes at 0 are in use by another request",
      context: { node: "node0", operation: "pwrite", offset: 0, length: 512 },
    });
    driver.releaseAll();
    await first;
    await edge.pwrite(0, bytes(512), { flags });
    expect(node.io.inFlight).toBe(0);
  });

  it("give up waiting when aborted, and nothing of them reaches the driver", async () => {
    const driver = new ScriptedDriver({
      size: 8 * KiB,
      limits: { requestAlignment: 512 },
      hold: true,
    });
    const node = rigNode({ driver: () => driver });
    const edge = rootEdge(node);
    const first = edge.pwrite(0, bytes(512));
    const aborting = new AbortController();
    const second = edge.pwrite(10, bytes(10), { signal: aborting.signal });
    expect(node.io.requestsInFlight()).toContainEqual({
      kind: "write",
      offset: 0,
      length: 512,
      isWaiting: true,
    });
    aborting.abort(new Error("stop"));
    await expect(second).rejects.toThrow("stop");
    driver.releaseAll();
    await first;
    expect(driver.log).toHaveLength(1);
    expect(node.io.inFlight).toBe(0);
  });

  it("two writes into one block keep each other's bytes", async () => {
    const driver = new ScriptedDriver({
      size: 4096,
      limits: { requestAlignment: 512 },
      completion: "later-turn",
    });
    const edge = rootEdge(rigNode({ driver: () => driver }));
    const writes = Array.from({ length: 8 }, (_, index) =>
      edge.pwrite(index * 64, new Uint8Array(64).fill(index + 1)),
    );
    await Promise.all(writes);
    for (let index = 0; index < 8; index += 1) {
      expect(
        driver.bytes.subarray(index * 64, index * 64 + 64).every((byte) => byte === index + 1),
      ).toBe(true);
    }
  });
});
