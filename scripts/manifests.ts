import { readdirSync, readFileSync } from "node:fs";

/** What the scripts read of a `package.json`. */
export interface Manifest {
  readonly name: string;
  readonly version?: string;
  readonly private?: boolean;
  readonly license?: string;
  readonly floor: number;
  readonly dependencies?: Readonly<Record<string, string>>;
  readonly devDependencies?: Readonly<Record<string, string>>;
  readonly peerDependencies?: Readonly<Record<string, string>>;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
}

/** A member of the workspace: its folder below the root, and its manifest. */
export interface Member {
  readonly folder: string;
  readonly manifest: Manifest;
}

/** Returns every member of the workspace. The working directory is the root. */
export function workspaceMembers(): Member[] {
  const folders = ["packages", "apps"].flatMap((parent) =>
    readdirSync(parent).map((name) => `${parent}/${name}`),
  );
  return [...folders, "docs", "bench"].map((folder) => ({
    folder,
    manifest: JSON.parse(readFileSync(`${folder}/package.json`, "utf8")) as Manifest,
  }));
}
