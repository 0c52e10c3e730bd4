import { backupScenarios } from "./backup-scenarios.ts";
import { diskScenarios } from "./disk-scenarios.ts";
import type { SweepScenario } from "./sweep.ts";

/** What is swept: every operation that they ask of a disk is made to fail. */
export const allScenarios: readonly SweepScenario[] = [...diskScenarios, ...backupScenarios];
