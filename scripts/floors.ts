/** Fails when a member depends on one that is not on a lower floor, or has no floor or licence. */
import { workspaceMembers } from "./manifests.ts";

const manifests = workspaceMembers().map(({ manifest }) => manifest);
const floors = new Map(manifests.map(({ name, floor }) => [name, floor]));
const faults: string[] = [];
for (const { name, floor, license, ...manifest } of manifests) {
  if (!Number.isInteger(floor)) faults.push(`${name} has no floor`);
  if (license !== "MIT") faults.push(`${name} has no MIT licence in its manifest`);
  const dependencies = Object.keys({
    ...manifest.dependencies,
    ...manifest.devDependencies,
    ...manifest.peerDependencies,
    ...manifest.optionalDependencies,
  });
  for (const dependency of dependencies) {
    const below = floors.get(dependency) ?? -1;
    if (below >= floor) {
      faults.push(`imports upward: ${name} (floor ${floor}) -> ${dependency} (floor ${below})`);
    }
  }
}
for (const fault of faults) console.error(fault);
console.log(`floors: ${manifests.length} members, ${faults.length} faults`);
process.exitCode = faults.length > 0 ? 1 : 0;
