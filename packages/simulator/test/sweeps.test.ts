import { allScenarios, type SweepScenario, sweep } from "@blocklayer/simulator";
import { describe, expect, it } from "vitest";
import { describeSweep } from "../src/sweeps/sweep-all.ts";

describe("with every second operation failing in turn", () => {
  it.each(allScenarios)(
    "$name leaves nothing wrong",
    async (scenario) => {
      const { findings, points } = await sweep(scenario, 2);
      expect(findings).toEqual([]);
      expect([...points.values()].reduce((one, two) => one + two, 0)).toBeGreaterThan(20);
    },
    60_000,
  );
});

/** Opens a disk and reads it. */
function reader(act: SweepScenario["act"]): SweepScenario {
  return {
    name: "reader",
    setUp: (stage) => stage.open("disk"),
    act,
    tidy: () => Promise.resolve(),
    verify: () => undefined,
  };
}

describe("a sweep", () => {
  it("finds an error that nobody is told of", async () => {
    const report = await sweep(
      reader(async (stage) => {
        const disk = await stage.writer("disk");
        await disk.read(0, new Uint8Array(512)).catch(() => undefined);
        await disk.close();
      }),
    );
    const faults = report.findings.map(({ fault }) => fault?.operation);
    expect(new Set(faults)).toEqual(new Set(["read"]));
    expect(report.findings[0]?.message).toContain("swallowed: injected failure of disk read 1");
    expect(describeSweep(report, 2)).toContain(
      "  read 1 of disk fails with EIO: swallowed: injected failure of disk read 1",
    );
    expect(report.points.get("disk read")).toBe(4);
  });

  it("finds an error that comes from nowhere, and one with another code", async () => {
    const report = await sweep(
      reader(async (stage) => {
        const disk = await stage.writer("disk");
        try {
          await disk.read(0, new Uint8Array(512));
        } catch (error) {
          throw new Error("something", { cause: error });
        } finally {
          await disk.close();
        }
      }),
    );
    expect(report.findings[0]?.message).toContain("other code: none");
  });

  it("does not take what a job says of another operation for the error", async () => {
    const report = await sweep(
      reader(async (stage) => {
        stage.told.push("job one: write error, ignore");
        const disk = await stage.writer("disk");
        await disk.read(0, new Uint8Array(512)).catch(() => undefined);
        await disk.close();
      }),
    );
    expect(report.findings[0]?.message).toContain("swallowed: injected failure of disk read 1");
  });

  it("takes what a job says of this operation for the error", async () => {
    const report = await sweep(
      reader(async (stage) => {
        stage.told.push("job one: read error, ignore");
        const disk = await stage.writer("disk");
        await disk.read(0, new Uint8Array(512)).catch(() => undefined);
        await disk.close();
      }),
    );
    expect(report.findings).toEqual([]);
  });

  it("says so when it does not try all points", async () => {
    const report = await sweep(
      reader(async (stage) => {
        const disk = await stage.writer("disk");
        try {
          for (let count = 0; count < 3; count += 1) await disk.read(0, new Uint8Array(512));
        } finally {
          await disk.close();
        }
      }),
      1,
      2,
    );
    const messages = report.findings.map(({ message }) => message);
    expect(messages.filter((message) => message.endsWith("disk read"))).toEqual(
      Array.from({ length: 4 }, () => "cut off: more than 2 points of disk read"),
    );
  });
});
