import { spawnSync } from "node:child_process";
import { delimiter, join } from "node:path";
import { expect, it } from "vitest";

/** Paths of other Nodes, divided as in PATH. */
const { BLOCKLAYER_NODES = "" } = process.env;
const others = BLOCKLAYER_NODES.split(delimiter).filter((path) => path !== "");

/** Returns the lines with the hashes of all worlds. */
function hashes(node: string): string[] {
  const file = join(import.meta.dirname, "../src/cli.ts");
  const args = ["--no-warnings", "--conditions=@blocklayer/source", file];
  const { stdout, stderr } = spawnSync(node, [...args, "--seeds", "20", "--jobs", "1"], {
    encoding: "utf8",
  });
  const found = stdout.matchAll(/^(\S[^:]*): .*hash ([0-9a-f]{16})/gm);
  const lines = Array.from(found, ([, world, hash]) => `${world}: ${hash}`);
  if (lines.length === 0) throw new Error(`${node} printed no hash: ${stderr}`);
  return lines;
}

if (others.length === 0) {
  it.skip("all Nodes give the same hashes: BLOCKLAYER_NODES names no other ones", () => undefined);
} else {
  it.each(others)(
    "%s gives the same hashes",
    (node) => {
      expect(hashes(node)).toEqual(hashes(process.execPath));
    },
    120_000,
  );
}
