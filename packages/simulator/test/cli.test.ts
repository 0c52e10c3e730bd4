import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { spaces, worlds } from "@blocklayer/simulator";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { canaries } from "../src/canaries/canary-list.ts";
import { readCliOptions } from "../src/cli-options.ts";
import { COMMAND } from "../src/command/campaigns.ts";
import { listAll } from "../src/command/list.ts";
import { type Request, readRequest } from "../src/command/request.ts";
import { type SimOptions, type SimResult, sim as simWith } from "./sim-process.ts";

function sim(...args: readonly string[]): Promise<SimResult> {
  return simWith(args);
}

function requested(...args: readonly string[]): Request {
  return readRequest(readCliOptions(args));
}

/** The toy fails, whatever it draws. */
function failing(...args: readonly string[]): Promise<SimResult> {
  const options: SimOptions = { isToy: true, env: { TOY_FAILS: "always" } };
  return simWith(args, options);
}

describe("the command", { timeout: 120_000 }, () => {
  let directory = "";
  beforeAll(() => {
    directory = mkdtempSync(join(tmpdir(), "blocklayer-sim-"));
  });
  afterAll(() => rmSync(directory, { recursive: true }));

  function fileWith(text: string): string {
    const file = join(directory, "life.json");
    writeFileSync(file, text);
    return file;
  }

  it("prints one line for each world, and what happened in it", async () => {
    const { code, out } = await sim("--", "--seeds", "4", "--jobs", "2");
    for (const { name } of worlds) {
      expect(out).toMatch(
        new RegExp(
          `^${name}: 4 seeds, \\d+ seeds/s, \\d+ events, median \\S+ ms, p99 \\S+ ms, hash [0-9a-f]{16}, 0 failures$`,
          "m",
        ),
      );
    }
    expect(out).toMatch(/^ {2}in \d+ lives: /m);
    expect(out).toMatch(new RegExp(`^all worlds: ${4 * worlds.length} seeds, `, "m"));
    expect(code).toBe(0);
  });

  it("gives the same hash with one process and with several", async () => {
    const hash = async (jobs: string): Promise<string | undefined> =>
      /hash ([0-9a-f]{16})/.exec(
        (await sim("--world", "range-lock", "--seeds", "50", "--jobs", jobs)).out,
      )?.[1];
    const one = await hash("1");
    expect(one).toMatch(/^[0-9a-f]{16}$/);
    expect(await hash("2")).toBe(one);
  });

  it("stops when its time is over", async () => {
    const { code, out } = await sim("--world", "range-lock", "--time", "0.3", "--jobs", "1");
    expect(out).toMatch(/^range-lock: \d+ seeds, /m);
    expect(code).toBe(0);
  });

  it("replays a seed with its trace, the same each time", async () => {
    const { code, out } = await sim("--world", "backup", "--seed", "5");
    expect(out).toMatch(/^0 ms: /m);
    expect(out).toMatch(/^ {2}\S.* -> 2 \(early\)$/m);
    expect(out).toMatch(
      /backup seed 5: \d+ events, \d+ decisions, hash [0-9a-f]{16}, no failure\n$/,
    );
    expect(code).toBe(0);
    expect((await sim("--world", "backup", "--seed", "5")).out).toBe(out);
  });

  it("says where a life failed", async () => {
    const { code, out } = await failing("--world", "hbitmap", "--seed", "5");
    expect(out).toMatch(/^hbitmap seed 5: .*, Error: unlucky 7\n {2}at Object.run \(/m);
    expect(code).toBe(1);
  });

  it("puts the shrunk decisions last", async () => {
    const { code, out } = await failing("--world", "hbitmap", "--seed", "5", "--shrink");
    expect(out).toMatch(
      /^hbitmap seed 5, shrunk: .*, Error: unlucky 7\n {2}at .*\nshrunk from \d+ to 0 decisions in \d+ runs\n\[\]\n$/m,
    );
    expect(code).toBe(1);
  });

  it("refuses wrong arguments in two lines", async () => {
    const { code, out, err } = await sim("--wrong");
    expect(err).toBe("Unknown option '--wrong'\nsim --help shows what there is\n");
    expect({ code, out }).toEqual({ code: 2, out: "" });
  });

  it.each([
    { args: ["--world", "nowhere"], message: "there is no world 'nowhere'; there are: hbitmap, " },
    {
      args: ["--canary", "none"],
      message: "there is no canary 'none'; sim --list has their names",
    },
    { args: ["--decisions", "/nowhere"], message: "/nowhere: ENOENT" },
    {
      args: ["--canary", "rmw-not-serialised", "--world", "jobs", "--seed", "3"],
      message: "the world of canary 'rmw-not-serialised' is 'request-layer', not 'jobs'",
    },
  ])("refuses $args", ({ args, message }) => {
    expect(() => requested(...args)).toThrow(message);
  });

  it.each([
    {
      args: ["--world", "jobs"],
      text: '{"world":"backup","seed":3}',
      message: "its world is 'backup', not 'jobs'",
    },
    { args: [], text: "[1]", message: "it names no world, --world has to" },
    { args: ["--world", "jobs"], text: "[-1]", message: "there is no life: " },
  ])("refuses $args and a file with $text", ({ args, text, message }) => {
    const file = fileWith(text);
    expect(() => requested(...args, "--decisions", file)).toThrow(`${file}: ${message}`);
  });

  it("takes the world or space that a file names", () => {
    const { name } = spaces[0] ?? { name: "" };
    const file = fileWith(JSON.stringify({ world: name, decisions: [0, 1] }));
    const { chosen, source } = requested("--decisions", file);
    expect({ chosen, source }).toEqual({ chosen: [spaces[0]], source: [0, 1] });
  });

  it("replays decisions from a file", async () => {
    const { code, out } = await sim("--world", "range-lock", "--decisions", fileWith("[0,0,1]"));
    expect(out).toMatch(/range-lock 3 given decisions: \d+ events, .*, no failure\n$/);
    expect(code).toBe(0);
  });

  it("replays a life with a planted bug", async () => {
    const { out } = await sim("--canary", "rmw-not-serialised", "--seed", "3");
    expect(out).toMatch(/^request-layer seed 3: \d+ events, /m);
  });

  it("lists what there is", () => {
    const lines: string[] = [];
    expect(listAll((line) => void lines.push(line))).toBe(0);
    const expected = [
      ...worlds.map(({ name }) => `world ${name}`),
      ...spaces.map(({ name }) => `space ${name}`),
      ...canaries.map((one) => `canary ${one.id} (world ${one.world}, invariant ${one.invariant})`),
    ];
    expect(lines).toEqual(expect.arrayContaining(expected));
  });

  it("explains itself", async () => {
    const { code, out } = await sim("-h");
    expect(out).toContain("sim --canaries");
    expect(code).toBe(0);
  });

  it("is called as the repository calls it", () => {
    const text = readFileSync(join(import.meta.dirname, "../../../package.json"), "utf8");
    const { packageManager, scripts } = JSON.parse(text) as {
      readonly packageManager: string;
      readonly scripts: Readonly<Record<string, string>>;
    };
    expect(COMMAND).toBe(`npx ${packageManager} sim`);
    expect(Object.keys(scripts)).toContain("sim");
  });
});
