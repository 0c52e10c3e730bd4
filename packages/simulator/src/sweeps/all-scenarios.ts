import { backupScenarios } from "./backup-scenarios.ts";
import { copiesOnRead } from "./copy-on-read-scenario.ts";
import { diskScenarios } from "./disk-scenarios.ts";
import { fleeceScenarios } from "./fleece-scenarios.ts";
import { grouped } from "./grouped-scenario.ts";
import type { SweepScenario } from "./sweep.ts";

/** What is swept: every operation that they ask of a disk is made to fail. */
export const allScenarios: readonly SweepScenario[] = [
  ...diskScenarios,
  ...backupScenarios,
  ...fleeceScenarios,
  grouped,
  copiesOnRead,
];
