/**
 * Packs every public package, installs the tarballs with plain npm into an empty project, and runs the example
 * of each README there: what a consumer gets, and nothing of the workspace.
 */
import { execFileSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { exampleBlocks, promisedLines } from "../docs/src/example-blocks.ts";
import { workspaceMembers } from "./manifests.ts";

const project = mkdtempSync(join(tmpdir(), "blocklayer-pack-"));
try {
  const packages = workspaceMembers().filter(({ manifest }) => manifest.private !== true);
  const unbuilt = packages.filter(({ folder }) => !existsSync(`${folder}/dist`));
  if (unbuilt.length > 0) throw new Error(`run build first: ${unbuilt[0]?.folder} has no dist`);
  const tarballs = join(project, "tarballs");
  mkdirSync(tarballs);
  for (const { folder } of packages) {
    execFileSync("pnpm", ["pack", "--pack-destination", tarballs], { cwd: folder, stdio: "pipe" });
  }
  const files = readdirSync(tarballs);
  const dependencies: Record<string, string> = {};
  for (const { manifest } of packages) {
    const prefix = `${manifest.name.replace("@", "").replace("/", "-")}-${manifest.version}.tgz`;
    const file = files.find((name) => name === prefix);
    if (file === undefined) throw new Error(`${manifest.name} was not packed as ${prefix}`);
    dependencies[manifest.name] = `file:tarballs/${file}`;
  }
  // Overrides make the packages find each other among the tarballs: none is published yet.
  const consumer = {
    name: "consumer",
    private: true,
    type: "module",
    dependencies,
    overrides: dependencies,
  };
  writeFileSync(join(project, "package.json"), JSON.stringify(consumer, null, 2));
  execFileSync("npm", ["install", "--no-audit", "--no-fund", "--ignore-scripts"], {
    cwd: project,
    stdio: "pipe",
  });
  let faults = 0;
  let count = 0;
  for (const {
    folder,
    manifest: { name },
  } of packages) {
    for (const [index, code] of exampleBlocks(
      readFileSync(`${folder}/README.md`, "utf8"),
    ).entries()) {
      count += 1;
      const file = join(project, `${folder.replaceAll("/", "-")}-${index}.ts`);
      writeFileSync(file, code);
      try {
        const printed = execFileSync(process.execPath, [file], {
          encoding: "utf8",
          cwd: project,
          timeout: 60_000,
        });
        const promised = promisedLines(code).join("\n");
        if (printed.trimEnd() !== promised)
          throw new Error(`printed\n${printed}\ninstead of\n${promised}`);
      } catch (error) {
        faults += 1;
        console.error(`${name}: ${error instanceof Error ? error.message : String(error)}`);
      }
    }
  }
  console.log(
    `pack: ${packages.length} packages installed by npm, ${count} examples run, ${faults} faults`,
  );
  process.exitCode = faults > 0 ? 1 : 0;
} finally {
  rmSync(project, { recursive: true, force: true });
}
