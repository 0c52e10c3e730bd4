import { spawnSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

const root = join(import.meta.dirname, "../../..");

/** Each is one line, wrong in core packages. */
const samples = [
  { name: "Date", line: "export const it = Date.now();" },
  { name: "the type Date", line: "export const it: Date | undefined = undefined;" },
  { name: "performance", line: "export const it = performance.now();" },
  { name: "setTimeout", line: "setTimeout(() => undefined, 1);" },
  { name: "setInterval", line: "setInterval(() => undefined, 1);" },
  { name: "setImmediate", line: "setImmediate(() => undefined);" },
  { name: "queueMicrotask", line: "queueMicrotask(() => undefined);" },
  { name: "MessageChannel", line: "export const it = new MessageChannel();" },
  { name: "process", line: "export const it = process.env;" },
  { name: "crypto", line: "export const it = crypto.randomUUID();" },
  { name: "WeakRef", line: "export const it = new WeakRef({});" },
  { name: "FinalizationRegistry", line: "export const it = new FinalizationRegistry(String);" },
  { name: "Atomics", line: "export const it = Atomics;" },
  { name: "Intl", line: "export const it = Intl.DateTimeFormat;" },
  { name: "Buffer", line: "export const it = Buffer.alloc(1);" },
  { name: "fetch", line: 'export const it = fetch("");' },
  { name: "Math.random", line: "export const it = Math.random();" },
  { name: "Math.random as a value", line: "export const it = Math.random;" },
  { name: "AbortSignal.timeout", line: "export const it = AbortSignal.timeout(1);" },
  { name: "a member of globalThis", line: "export const it = globalThis.Date;" },
  { name: "localeCompare", line: 'export const it = "a".localeCompare("b");' },
  { name: "toLocaleString", line: "export const it = (1).toLocaleString();" },
  { name: "an import of Node", line: 'import "node:fs";' },
  { name: "a dynamic import of Node", line: 'await import("node:net");' },
] as const;

/** Where the same is allowed. */
const doors = [
  "packages/file/src/sample.ts",
  "packages/nbd-client/src/node/sample.ts",
  "packages/env/src/real-env.ts",
  "apps/demo/src/sample.ts",
];

interface Report {
  readonly diagnostics: readonly {
    readonly category: string;
    readonly location: { readonly path: string };
  }[];
}

describe("in a core package the linter forbids", () => {
  const found = new Map<string, string[]>();
  const directory = mkdtempSync(join(tmpdir(), "blocklayer-lint-"));

  beforeAll(() => {
    const config = JSON.parse(readFileSync(join(root, "biome.json"), "utf8"));
    writeFileSync(
      join(directory, "biome.json"),
      JSON.stringify({ ...config, $schema: undefined, vcs: { enabled: false } }),
    );
    cpSync(join(root, "lint"), join(directory, "lint"), { recursive: true });
    for (const [index, { line }] of samples.entries()) write(`packages/raw/src/${index}.ts`, line);
    for (const door of doors) write(door, samples.map(({ line }) => line).join("\n"));
    const biome = join(root, "node_modules/.bin/biome");
    const args = ["lint", "--reporter=json", "--max-diagnostics=none", "."];
    const { stdout } = spawnSync(biome, args, { cwd: directory, encoding: "utf8" });
    for (const { category, location } of (JSON.parse(stdout) as Report).diagnostics) {
      found.set(location.path, [...(found.get(location.path) ?? []), category]);
    }
  }, 30_000);

  afterAll(() => rmSync(directory, { recursive: true }));

  function write(path: string, text: string): void {
    mkdirSync(dirname(join(directory, path)), { recursive: true });
    writeFileSync(join(directory, path), `${text}\n`);
  }

  function offences(path: string): string[] {
    return (found.get(path) ?? []).filter(
      (category) => category === "plugin" || category.startsWith("lint/style/noRestricted"),
    );
  }

  it.each(samples.map(({ name }, index) => ({ name, index })))("$name", ({ index }) => {
    expect(offences(`packages/raw/src/${index}.ts`)).not.toEqual([]);
  });

  it.each(doors)("nothing of it in %s", (door) => {
    expect(offences(door)).toEqual([]);
  });
});
