import { realEnv } from "@blocklayer/env";
import { allScenarios } from "./all-scenarios.ts";
import { type SweepFinding, type SweepReport, sweep } from "./sweep.ts";

/** Returns a line about a scenario, one with its points by operation, and one for each finding. */
export function describeSweep(report: SweepReport, seconds: number): string {
  const { scenario, points, runs, findings } = report;
  const counts = [...points].map(([key, count]) => `${key} ${count}`).join(", ");
  const sum = [...points.values()].reduce((one, two) => one + two, 0);
  const title = `${scenario}: ${runs} runs, ${sum} failures injected, ${findings.length} findings, ${seconds.toFixed(1)} s`;
  return [title, `  ${counts}`, ...findings.map(describeFinding)].join("\n");
}

function describeFinding({ fault, message }: SweepFinding): string {
  if (fault === undefined) return `  without a failure: ${message}`;
  const { disk, operation, nth, isPersistent, code } = fault;
  const which = `${operation} ${nth} of ${disk}${isPersistent ? " and all after it" : ""}`;
  return `  ${which} fails with ${code}: ${message}`;
}

/** Sweeps all scenarios and prints what came of them. Returns the exit code. */
export async function sweepAll(print: (line: string) => void): Promise<number> {
  const { clock } = realEnv();
  let [injected, findings] = [0, 0];
  for (const scenario of allScenarios) {
    const startMs = clock.now();
    const report = await sweep(scenario);
    print(describeSweep(report, (clock.now() - startMs) / 1000));
    for (const count of report.points.values()) injected += count;
    findings += report.findings.length;
  }
  print(
    `sweeps: ${allScenarios.length} scenarios, ${injected} failures injected, ${findings} findings`,
  );
  return findings === 0 ? 0 : 1;
}
