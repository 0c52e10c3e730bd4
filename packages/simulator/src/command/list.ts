import { canaries } from "../canaries/canary-list.ts";
import { smallSpaces, spaces } from "../exhaustive/all-spaces.ts";
import { worlds } from "../worlds/all-worlds.ts";

/** Prints the names of all that can be asked for. Returns the exit code. */
export function listAll(print: (line: string) => void): number {
  for (const { name } of worlds) print(`world ${name}`);
  for (const { name } of [...smallSpaces, ...spaces]) print(`space ${name}`);
  for (const { id, world, invariant } of canaries) {
    print(`canary ${id} (world ${world}, invariant ${invariant})`);
  }
  return 0;
}
