import { type JobContext, JobManager } from "@blocklayer/jobs";
import type { Simulation } from "../simulation.ts";
import { SimulationFailure } from "../simulation-failure.ts";

/** Slices of the limiter that a measurement takes: the error of the first one is to be below 1 %. */
const SLICES = 150;

const SLICE_MS = 100;

/**
 * Lets a job with a speed work undisturbed, and measures it: over many slices the error is at most 1 %.
 *
 * Nothing else may have timers, or time would pass while the job is not to blame.
 */
export async function keepTime(simulation: Simulation): Promise<void> {
  const { decisions, env } = simulation;
  const speed = decisions.among("speed to keep", [1_000_000, 10_000, 65_536, 12_345_678, 2 ** 32]);
  const quota = Math.floor((speed * SLICE_MS) / 1000);
  const part = decisions.among("charges", [1, 1 / 3, 2.5, 7.3, 0.999]);
  // Who works is never there at the very instant at which a slice ends.
  const workMs = decisions.among("work ms", [0, 0.02]);
  const isUneven = decisions.choose("uneven", 2) === 1;
  const manager = new JobManager({
    env,
    reportDefect: (error) => simulation.fail("defect", SimulationFailure.of(error).message),
  });
  const run = async (context: JobContext): Promise<void> => {
    const start = env.clock.now();
    let charged = 0;
    while (charged < SLICES * quota) {
      await context.pausePoint();
      const elapsed = env.clock.now() - start;
      const last = Math.max(
        1,
        Math.floor(quota * part * (isUneven ? 0.5 + decisions.choose("part", 4) / 2 : 1)),
      );
      judge(simulation, speed, charged, elapsed);
      charged += last;
      const delayMs = context.limiter.delay(last);
      if (workMs > 0) await env.clock.sleep(workMs);
      if (delayMs > 0) await context.sleep(delayMs);
    }
    const elapsedMs = env.clock.now() - start;
    const errorRate = Math.abs((charged / speed) * 1000 - elapsedMs) / elapsedMs;
    simulation.expect(
      errorRate <= 0.01,
      "JB-6 wrong speed",
      () => `${charged} in ${elapsedMs} ms at ${speed}`,
    );
    simulation.sometimes("a job kept its speed");
  };
  const job = manager.create({ id: "metronome", type: "toy", driver: { run }, speed });
  // A slice never begins when the clock does.
  await env.clock.sleep(1);
  job.start();
  await job.completed();
}

/** At no time more than one slice ahead. */
function judge(simulation: Simulation, speed: number, charged: number, elapsedMs: number): void {
  const allowed = (speed * (elapsedMs + SLICE_MS) * 1.01) / 1000;
  simulation.expect(
    charged <= allowed,
    "JB-6 too fast",
    () => `${charged} within ${elapsedMs} ms at ${speed} a second`,
  );
}
