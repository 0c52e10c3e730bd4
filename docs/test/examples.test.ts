import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { exampleBlocks, promisedLines } from "../src/example-blocks.ts";

const root = join(import.meta.dirname, "../..");

const documents = [
  "README.md",
  ...readdirSync(join(root, "packages")).map((name) => `packages/${name}/README.md`),
  ...readdirSync(join(root, "docs"))
    .filter((name) => name.endsWith(".md"))
    .map((name) => `docs/${name}`),
];

describe.each(documents.filter(isTested))("%s", (document) => {
  const path = join(root, document);
  // A package without a README is a failing row, not a failing file.
  const text = existsSync(path) ? readFileSync(path, "utf8") : "";
  const blocks = exampleBlocks(text);

  if (document.startsWith("packages/")) {
    it("has an example", () => {
      expect(blocks.length).toBeGreaterThan(0);
    });

    it("fits on a screen or two", () => {
      expect(text.split("\n").length).toBeLessThanOrEqual(150);
    });
  }

  if (blocks.length > 0) {
    it.each(blocks.map((code, index) => ({ code, number: index + 1 })))(
      "example $number prints what it promises",
      ({ code }) => {
        // Below `docs`, so that the example resolves every package of the workspace.
        const folder = mkdtempSync(join(root, "docs", ".readme-"));
        try {
          const file = join(folder, "example.ts");
          writeFileSync(file, code);
          const printed = execFileSync(
            process.execPath,
            ["--conditions=@blocklayer/source", file],
            {
              encoding: "utf8",
              cwd: folder,
              timeout: 60_000,
            },
          );
          expect(printed === "" ? [] : printed.trimEnd().split("\n")).toEqual(promisedLines(code));
        } finally {
          rmSync(folder, { recursive: true });
        }
      },
      60_000,
    );
  }
});

/** Package READMEs owe an example; other documents are tested if they have one. */
function isTested(document: string): boolean {
  if (document.startsWith("packages/")) return true;
  return exampleBlocks(readFileSync(join(root, document), "utf8")).length > 0;
}
