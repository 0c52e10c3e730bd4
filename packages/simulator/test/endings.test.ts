import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { runSeed } from "@blocklayer/simulator";
import { describe, expect, it } from "vitest";
import { sim } from "./sim-process.ts";

/** Returns what the toy draws from a seed. */
async function fateOf(seed: number): Promise<string> {
  let fate = 0;
  await runSeed(
    {
      name: "toy",
      situations: [],
      run: ({ decisions }) => {
        fate = decisions.choose("fate", 2 ** 32);
        return Promise.resolve();
      },
    },
    seed,
  );
  return String(fate);
}

/** Returns whether a process is gone within some seconds. */
async function isGone(pid: number): Promise<boolean> {
  for (let rest = 400; rest > 0; rest -= 1) {
    try {
      process.kill(pid, 0);
    } catch {
      return true;
    }
    await sleep(50);
  }
  return false;
}

function pidIn(text: string): number {
  return Number(/endless in (\d+)/.exec(text)?.[1]);
}

const CAMPAIGN = ["--world", "hbitmap", "--seeds", "60", "--jobs", "2"];

describe("a campaign", { timeout: 120_000 }, () => {
  it("goes on behind lives that never end, and that end their process", async () => {
    const env = {
      TOY_ENDLESS: await fateOf(25),
      TOY_ENDS: await fateOf(9),
      TOY_FAILS: await fateOf(41),
    };
    const { code, out } = await sim([...CAMPAIGN, "--life", "2"], { env, isToy: true });
    const lines = out.split("\n");
    expect(lines.slice(0, 3)).toEqual([
      "hbitmap seed 9: worker ended: its process ended by SIGKILL",
      "hbitmap seed 25: endless loop: its turn did not end within 2 s",
      "hbitmap seed 41: Error: unlucky 7",
    ]);
    expect(lines[3]).toMatch(
      /^hbitmap: 60 seeds, .* 3 failures \(hbitmap 9, hbitmap 25, hbitmap 41\)$/,
    );
    expect(lines.slice(4, 7).sort()).toEqual([
      "  1 × Error: unlucky #",
      "  1 × endless loop",
      "  1 × worker ended",
    ]);
    expect(lines.slice(7)).toEqual([
      "  replay: npx pnpm@12.21.0 sim --world hbitmap --seed 9 --shrink",
      "  in 0 lives: never seen",
      "",
    ]);
    expect(code).toBe(1);
  });

  it.each([
    { signal: "SIGINT", expected: 130 },
    { signal: "SIGTERM", expected: 143 },
  ] as const)("says what it has when $signal tells it to stop", async ({ signal, expected }) => {
    const env = { TOY_ENDLESS: "always" };
    const { code, out, err } = await sim(CAMPAIGN, {
      env,
      isToy: true,
      onText: (_, child) => void (child.killed || child.kill(signal)),
    });
    expect(out).toMatch(/^hbitmap: 0 seeds, .*, 0 failures, interrupted$/m);
    expect(code).toBe(expected);
    expect(await isGone(pidIn(err))).toBe(true);
  });

  it("takes its processes with it when it is killed", async () => {
    const { signal, err } = await sim(CAMPAIGN, {
      env: { TOY_ENDLESS: "always" },
      isToy: true,
      onText: (text, child) => void (pidIn(text) > 0 && child.kill("SIGKILL")),
    });
    expect(signal).toBe("SIGKILL");
    expect(await isGone(pidIn(err))).toBe(true);
  });
});

it("a night ends in time whatever its processes do, and its file says nothing", async () => {
  const directory = mkdtempSync(join(tmpdir(), "blocklayer-night-"));
  const args = ["--night", "--world", "hbitmap", "--jobs", "1", "--hours", "0.0001"];
  const { code, out } = await sim(args, {
    cwd: directory,
    env: { TOY_ENDLESS: "always" },
    isToy: true,
  });
  const text = readFileSync(join(directory, "sim-night.jsonl"), "utf8");
  rmSync(directory, { recursive: true });
  expect(out).toMatch(/^0\.\d min: seeds 0 lives/m);
  expect({ code, text }).toEqual({ code: 0, text: "" });
}, 60_000);

it("nobody who reads ends the command without a word", async () => {
  const { code, err } = await sim(["--seeds", "30", "--jobs", "1"], {
    onText: (_, child) => void child.stdout?.destroy(),
  });
  expect({ code, err }).toEqual({ code: 141, err: "" });
}, 60_000);
