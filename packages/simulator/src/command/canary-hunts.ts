import type { Canary } from "../canaries/canary.ts";
import { describeHunt, huntInProcess } from "../canaries/hunt-all.ts";

export interface HuntsOptions {
  /** Times that each is to be found. */
  readonly findings: number;
  /** Runs to shrink the first finding of each with. */
  readonly shrinkRunsMax: number;
  /** Processes. */
  readonly jobs: number;
  readonly print: (line: string) => void;
}

/** Hunts planted bugs side by side and prints what came of each, in their order. Returns the exit code. */
export async function huntAll(list: readonly Canary[], options: HuntsOptions): Promise<number> {
  const { findings, shrinkRunsMax, jobs, print } = options;
  const lines: (string | undefined)[] = [];
  let [next, printed, found] = [0, 0, 0];
  const work = async (): Promise<void> => {
    while (next < list.length) {
      const index = next;
      next += 1;
      const canary = list[index] as Canary;
      try {
        const result = await huntInProcess(canary, findings, shrinkRunsMax);
        if (result.seeds.length > 0) found += 1;
        lines[index] = describeHunt(canary, result);
      } catch (error) {
        lines[index] = `${canary.id} (${canary.invariant}): ${String(error)}`;
      }
      for (let line = lines[printed]; line !== undefined; line = lines[printed]) {
        print(line);
        printed += 1;
      }
    }
  };
  await Promise.all(Array.from({ length: jobs }, work));
  print(`canaries: ${found} of ${list.length} found`);
  return found < list.length ? 1 : 0;
}
