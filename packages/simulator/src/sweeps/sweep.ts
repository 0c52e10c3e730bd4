import { BlockError } from "@blocklayer/errors";
import { runSeed } from "../run-seed.ts";
import type { Simulation, World } from "../simulation.ts";
import { type Fault, FaultPlan, type SweptOperation } from "./fault-plan.ts";
import { SweepStage } from "./stage.ts";

/** A deterministic sequence of operations, each of which is made to fail in turn. */
export interface SweepScenario {
  readonly name: string;
  /** Makes what the scenario begins with. Nothing fails here. */
  setUp(stage: SweepStage): Promise<void>;
  /** What may fail. Rejects with the first error. Can be repeated after {@link tidy}. */
  act(stage: SweepStage): Promise<void>;
  /**
   * Judges what a failure has left, and brings back what was there after {@link setUp}. Nothing fails here.
   *
   * @param error - how `act` has ended
   */
  tidy(stage: SweepStage, error: unknown): Promise<void>;
  /** Judges what `act` has done when it did not fail. */
  verify(stage: SweepStage): Promise<void> | void;
  /** Failures that nobody has to be told of, as `disk operation`, with the reason. */
  readonly absorbed?: Readonly<Record<string, string>>;
}

/** A failure that was not treated as it should be. */
export interface SweepFinding {
  readonly scenario: string;
  readonly fault: Fault | undefined;
  readonly message: string;
}

/** What a sweep came to. */
export interface SweepReport {
  readonly scenario: string;
  /** Points at which a failure was injected, by `disk operation`. */
  readonly points: ReadonlyMap<string, number>;
  readonly runs: number;
  readonly findings: readonly SweepFinding[];
}

/** Points of one kind that are tried at most: loops that go on as long as a disk fails end there, with a finding. */
const POINTS_MAX = 100;

/**
 * Makes the n-th operation of each kind on each disk of a scenario fail, for every n until no operation is left to
 * fail: once and for as long as the disk is not healed, with `EIO` and `ENOSPC`.
 *
 * @param every - of the points of a kind, tries each `every`-th one. Default 1
 * @param pointsMax - points of one kind that are tried; more are a finding. Default 100
 */
export async function sweep(
  scenario: SweepScenario,
  every = 1,
  pointsMax: number = POINTS_MAX,
): Promise<SweepReport> {
  const findings: SweepFinding[] = [];
  const points = new Map<string, number>();
  let runs = 0;
  const attempt = async (fault: Fault | undefined): Promise<Rehearsal> => {
    const rehearsal = await rehearse(scenario, fault);
    const { message } = rehearsal;
    runs += 1;
    if (message !== undefined) findings.push({ scenario: scenario.name, fault, message });
    return rehearsal;
  };
  const { counts } = await attempt(undefined);
  for (const key of counts.keys()) {
    let injected = 0;
    for (const kind of KINDS) {
      for (let nth = 1; ; nth += every) {
        const fault = { ...parsed(key), ...kind, nth };
        const { wasInjected } = await attempt(fault);
        if (!wasInjected) break;
        injected += 1;
        if (nth <= pointsMax) continue;
        const message = `cut off: more than ${pointsMax} points of ${key}`;
        findings.push({ scenario: scenario.name, fault, message });
        break;
      }
    }
    points.set(key, injected);
  }
  return { scenario: scenario.name, points, runs, findings };
}

const KINDS = [
  { isPersistent: false, code: "EIO" },
  { isPersistent: true, code: "EIO" },
  { isPersistent: false, code: "ENOSPC" },
  { isPersistent: true, code: "ENOSPC" },
] as const;

function parsed(key: string): Pick<Fault, "disk" | "operation"> {
  const at = key.indexOf(" ");
  return { disk: key.slice(0, at), operation: key.slice(at + 1) as SweptOperation };
}

interface Rehearsal {
  readonly counts: ReadonlyMap<string, number>;
  readonly wasInjected: boolean;
  readonly message: string | undefined;
}

async function rehearse(scenario: SweepScenario, fault: Fault | undefined): Promise<Rehearsal> {
  const plan = new FaultPlan(fault);
  const world: World = {
    name: scenario.name,
    situations: [],
    run: (simulation) => live(simulation, scenario, plan),
  };
  const { failure } = await runSeed(world, []);
  const { counts, injected } = plan;
  return { counts, wasInjected: injected.length > 0, message: failure?.message };
}

async function live(
  simulation: Simulation,
  scenario: SweepScenario,
  plan: FaultPlan,
): Promise<void> {
  const stage = new SweepStage(simulation, plan);
  await scenario.setUp(stage);
  plan.arm();
  let error: unknown;
  try {
    await scenario.act(stage);
  } catch (reason) {
    error = reason;
  }
  plan.heal();
  judge(stage, scenario, error);
  if (error === undefined) await scenario.verify(stage);
  await scenario.tidy(stage, error);
  // Whatever has happened, the second attempt has to succeed.
  await simulation.operation("second attempt", () => scenario.act(stage));
  await scenario.verify(stage);
  await scenario.tidy(stage, undefined);
  await simulation.scheduler.rest();
  await simulation.expectNothingPending();
}

/** What a job says of its own errors, by what has failed: nothing but reads and writes. */
const SIDES: Readonly<Partial<Record<SweptOperation, "read" | "write">>> = {
  read: "read",
  status: "read",
  write: "write",
  zeroes: "write",
  "copy range": "write",
};

/** An error comes from where it was injected, with its code; and what was injected was told to somebody. */
function judge(stage: SweepStage, scenario: SweepScenario, error: unknown): void {
  const { plan, told } = stage;
  const [first] = plan.injected;
  if (error !== undefined) {
    const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
    stage.expect(plan.explains(error), "error from nowhere", () => text);
    const code = error instanceof BlockError ? error.code : firstCode(error);
    stage.expect(code === first?.code, "other code", () => `${code ?? "none"}: ${text}`);
    const context = error instanceof BlockError ? error.context : {};
    stage.expect(Object.keys(context ?? {}).length > 0, "no context", () => text);
    return;
  }
  if (first === undefined) return;
  const { disk, operation } = first.context as { disk: string; operation: SweptOperation };
  const isAbsorbed = scenario.absorbed?.[`${disk} ${operation}`] !== undefined;
  const side = SIDES[operation];
  const wasTold = told.some(
    (line) =>
      line.includes(first.message) ||
      (side !== undefined && line.startsWith("job ") && line.includes(`: ${side} error`)),
  );
  stage.expect(isAbsorbed || wasTold, "swallowed", () => `${first.message}; told: ${told.join()}`);
}

function firstCode(error: unknown): string | undefined {
  const [one] = error instanceof AggregateError ? error.errors : [];
  return one instanceof BlockError ? one.code : undefined;
}
