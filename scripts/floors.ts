/** Fails when a package depends on a package that is not on a lower floor. */
import { readdirSync, readFileSync } from "node:fs";

interface Manifest {
  readonly name: string;
  readonly floor: number;
  readonly dependencies?: Readonly<Record<string, string>>;
  readonly devDependencies?: Readonly<Record<string, string>>;
  readonly peerDependencies?: Readonly<Record<string, string>>;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
}

const folders = ["packages", "apps"].flatMap((folder) =>
  readdirSync(folder).map((name) => `${folder}/${name}`),
);
const manifests = [...folders, "docs", "bench"].map(
  (folder) => JSON.parse(readFileSync(`${folder}/package.json`, "utf8")) as Manifest,
);
for (const { name, floor } of manifests) {
  if (!Number.isInteger(floor)) throw new Error(`${name} has no floor`);
}
const floors = new Map(manifests.map(({ name, floor }) => [name, floor]));
const faults = manifests.flatMap(({ name, floor, ...m }) =>
  Object.keys({
    ...m.dependencies,
    ...m.devDependencies,
    ...m.peerDependencies,
    ...m.optionalDependencies,
  })
    .filter((dependency) => (floors.get(dependency) ?? -1) >= floor)
    .map(
      (dependency) => `${name} (floor ${floor}) -> ${dependency} (floor ${floors.get(dependency)})`,
    ),
);
for (const fault of faults) console.error(`imports upward: ${fault}`);
process.exitCode = faults.length > 0 ? 1 : 0;
