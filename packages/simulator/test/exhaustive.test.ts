import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import {
  Decisions,
  explore,
  following,
  PROMPT,
  smallSpaces,
  type World,
  WorldScheduler,
} from "@blocklayer/simulator";
import { describe, expect, it } from "vitest";
import { fateWeights } from "../src/disk/disk-behaviour.ts";
import { describeExploration, exploreAll } from "../src/exhaustive/explore-all.ts";
import { answerOf, JobVerbModel } from "../src/exhaustive/job-verb-model.ts";
import { jobVerbs } from "../src/exhaustive/job-verbs.ts";
import { requestOrders } from "../src/exhaustive/request-orders.ts";
import { savedBeforeOverwrite } from "../src/exhaustive/saved-before-overwrite.ts";
import { orders, tuples } from "../src/exhaustive/tuples.ts";

/** Asks for numbers below the bounds, and fails when all are as large as can be. */
function counter(bounds: readonly number[]): World {
  return {
    name: "counter",
    situations: [],
    run: ({ decisions }) => {
      const values = bounds.map((bound) => decisions.choose("digit", bound));
      const isLast = values.every((value, index) => value + 1 === bounds[index]);
      return isLast ? Promise.reject(new Error("the last one")) : Promise.resolve();
    },
  };
}

describe("an exploration", () => {
  it("makes every run once and says how they came out", async () => {
    const report = await explore(counter([2, 3, 2]));
    // Twice: with wake-ups as decisions, and without.
    expect(report).toMatchObject({ runs: 24, distinct: 24, failures: 2, isComplete: true });
    expect(report.described.map(({ decisions }) => decisions)).toEqual([
      [0, 1, 2, 1],
      [1, 1, 2, 1],
    ]);
  });

  it.each([
    { options: { runsMax: 5 }, runs: 5 },
    { options: { failuresMax: 1 }, runs: 12 },
  ])("that is cut off by $options says so", async ({ options, runs }) => {
    const report = await explore(counter([2, 3, 2]), options);
    expect(report).toMatchObject({ runs, isComplete: false });
    expect(describeExploration(report, 1.25)).toContain(`1.3 s, CUT OFF after ${runs} runs`);
  });

  it("notices a world in which not everything is a decision", async () => {
    let lives = 0;
    const report = await explore({
      name: "moody",
      situations: [],
      run: ({ decisions }) => {
        lives += 1;
        if (lives === 1) decisions.choose("once", 2);
        return Promise.resolve();
      },
    });
    expect(report.described[0]?.message).toContain("not repeatable: decision 1 of [0,1]");
  });

  it.each([
    { decisions: [0, 1, 0], nextValues: [1, 2, -1], next: [0, 2] },
    { decisions: [1, 0], nextValues: [-1, 4], next: [1, 4] },
    { decisions: [3], nextValues: [-1], next: undefined },
    { decisions: [], nextValues: [], next: undefined },
  ])("goes on from $decisions with $next", ({ next, ...outcome }) => {
    expect(following(outcome)).toEqual(next);
  });

  it("does not try weights of 0", () => {
    const decisions = new Decisions([0, 3, 0]);
    const weights = [0, 2, 0, 1, 0];
    const answers = [1, 2, 3].map(() => decisions.weighted("which", weights));
    expect([answers, decisions.nextValues]).toEqual([
      [1, 3, 1],
      [3, -1, 3],
    ]);
  });
});

describe("what tiny worlds need:", () => {
  it("rest is over when nothing else is pending, in the order of those who wait, and is no decision", async () => {
    const decisions = new Decisions([]);
    const scheduler = new WorldScheduler({ decisions });
    const log: string[] = [];
    const before = decisions.recorded.length;
    await scheduler.run(async () => {
      scheduler.post("one", () => {
        log.push("one");
        scheduler.post("two", () => void log.push("two"));
      });
      const second = scheduler.rest().then(() => scheduler.rest());
      await scheduler.rest();
      log.push("at rest");
      await second;
    });
    expect([log, decisions.recorded.length]).toEqual([["one", "two", "at rest"], before]);
  });

  it("a disk ends some operations within the call, whatever the weights say", () => {
    const behaviour = { ...PROMPT, atOnce: 0, later: 1, prompt: ["read"] } as const;
    expect(fateWeights(behaviour, "read")).toEqual([1]);
    expect(fateWeights(behaviour, "write").slice(0, 2)).toEqual([0, 1]);
  });
});

it("tuples are all lists, orders are all different ones", () => {
  expect(tuples(["a", "b"], 2)).toEqual([
    ["a", "a"],
    ["a", "b"],
    ["b", "a"],
    ["b", "b"],
  ]);
  expect(orders(["w", "d", "w"])).toEqual([
    ["w", "d", "w"],
    ["w", "w", "d"],
    ["d", "w", "w"],
  ]);
});

describe("the model of job verbs", () => {
  it.each([
    { path: ["start", "finish"], status: "pending", end: "PENDING" },
    { path: ["start", "pause", "kill"], status: "concluded", end: "concluded" },
    { path: ["kill"], status: "null", end: "null" },
    { path: ["start", "ready", "cancel"], status: "pending", end: "PENDING" },
  ] as const)("brings a job by $path to $status", ({ path, status, end }) => {
    const model = new JobVerbModel(1, false);
    for (const letter of path) model.apply(0, letter);
    expect([model.jobs[0]?.status, model.jobs[0]?.events.at(-1)]).toEqual([status, end]);
  });

  it.each([
    { status: "running", letter: "complete", answer: "refused" },
    { status: "ready", letter: "complete", answer: "done" },
    { status: "concluded", letter: "cancel", answer: "refused" },
    { status: "waiting", letter: "start", answer: "impossible" },
  ] as const)("says that $letter is $answer while $status", ({ status, letter, answer }) => {
    const job = { status, userPaused: false, isSoft: false, wantsReady: false } as const;
    expect(answerOf({ ...job, work: "goes on" }, letter)).toBe(answer);
  });
});

describe("a small space has no failure:", () => {
  const [one, ...others] = [
    requestOrders({
      name: "a pair of requests",
      sequences: [
        ["write", "discard"],
        ["write", "write"],
      ],
    }),
    requestOrders({
      name: "three requests",
      sequences: [["write", "discard", "write"]],
    }),
    savedBeforeOverwrite({
      name: "two requests while the rest is copied",
      sequences: [
        ["write", "discard"],
        ["write", "look"],
      ],
      background: ["after"],
    }),
    jobVerbs({ name: "two verbs of two jobs", jobs: 2, length: 2, isRushed: false }),
    jobVerbs({ name: "two verbs at any moment", jobs: 1, length: 2, isRushed: true }),
  ];
  it.each([one, ...others])(
    "$name",
    async (world) => {
      const { runs, failures, isComplete, described } = await explore(world as World);
      expect(described).toEqual([]);
      expect([failures, isComplete, runs > 30]).toEqual([0, true, true]);
    },
    60_000,
  );
});

it("all spaces are printed with their counts, and the exit code says whether they are complete", async () => {
  const lines: string[] = [];
  const print = (line: string): void => void lines.push(line);
  expect(await exploreAll(print, smallSpaces.slice(0, 1), 10)).toBe(1);
  expect(lines[0]).toMatch(/^request layer: pairs: 10 runs, 10 distinct traces, 0 failures, /);
  expect(lines[1]).toBe("exhaustive: 1 spaces, 10 runs, NOT GOOD");
});

const execute = promisify(execFile);

it.each([
  {
    id: "running-copy-counts-as-copied",
    space: "copy-before-write: pairs, the rest after them",
  },
  { id: "rmw-not-serialised", space: "request layer: pairs" },
  { id: "late-writes-forgotten", space: "qcow2: a cluster is used again beside a late write" },
])(
  "the planted bug $id is found in '$space'",
  async ({ id, space }) => {
    const file = join(import.meta.dirname, "../src/exhaustive/find-canary-process.ts");
    const args = ["--conditions=@blocklayer/source", file, id, space];
    const { stdout } = await execute(process.execPath, args);
    expect(JSON.parse(stdout)).toMatchObject({ world: space, failures: 1 });
  },
  60_000,
);
