import { type Env, manualEnv, settleTurn } from "@blocklayer/env";
import { describe, expect, it } from "vitest";
import { CLUSTER, fixture, isSame } from "./fixture.ts";

function envWith(site: string): Env {
  return { ...manualEnv(), buggify: (asked) => asked === site };
}

describe("under a simulator", () => {
  it("a buffer that was given back holds nothing that anybody could take for data", async () => {
    const { engine, source, target, before } = fixture({ env: envWith("poison released buffers") });
    const seen: Uint8Array[] = [];
    const pread = source.pread.bind(source);
    source.pread = (offset, buffer, options) => {
      seen.push(buffer);
      return pread(offset, buffer, options);
    };
    await engine.copy(0, 4 * CLUSTER);
    expect(isSame(target.bytes, before)).toBe(true);
    expect(seen.length).toBeGreaterThan(0);
    expect(seen.every((buffer) => buffer.every((byte) => byte === 0xa5))).toBe(true);
  });

  it("tasks wait for memory, of which there are two clusters", async () => {
    const { engine, source, target, before } = fixture({ env: envWith("tight copy memory") });
    source.hold("pread");
    const calls = [0, 1, 2, 3].map((cluster) => engine.copy(cluster * CLUSTER, CLUSTER));
    for (let turn = 0; turn < 5; turn += 1) await settleTurn();
    expect(source.log.filter(({ operation }) => operation === "pread")).toHaveLength(2);
    source.unhold();
    source.releaseAll();
    await Promise.all(calls);
    expect(isSame(target.bytes, before)).toBe(true);
  });
});
