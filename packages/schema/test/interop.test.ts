import { execFileSync, spawnSync } from "node:child_process";
import { describe, expect, it } from "vitest";
import { dottedRows, jsonRows } from "./reference-rows.ts";

/** The negative size passes the reference's schema and is refused later, for want of a node name. */
const isJudgedByTheSchema = (message: string): boolean => !message.includes("below 2^64");

function versionOfDaemon(): string | undefined {
  const { status, stdout } = spawnSync("qemu-storage-daemon", ["--version"], { encoding: "utf8" });
  return status === 0 ? /version (\S+)/.exec(stdout)?.[1] : undefined;
}

const version = versionOfDaemon();
const reason = version === undefined ? " (skipped: qemu-storage-daemon is not on PATH)" : "";

describe.skipIf(version === undefined)(`qemu-storage-daemon${reason}`, () => {
  it("says of every row of blockdev-add what we say", () => {
    const rows = jsonRows.filter(([, message]) => isJudgedByTheSchema(message));
    const requests = [
      { execute: "qmp_capabilities" },
      ...rows.map(([value]) => ({ execute: "blockdev-add", arguments: value })),
      { execute: "quit" },
    ];
    const output = execFileSync(
      "qemu-storage-daemon",
      ["--chardev", "stdio,id=m", "--monitor", "m"],
      {
        input: requests.map((request) => JSON.stringify(request)).join("\n"),
        encoding: "utf8",
        timeout: 20_000,
      },
    );
    const answers = output
      .trim()
      .split("\r\n")
      .map((line): { error?: { desc: string } } => JSON.parse(line))
      .filter((answer) => answer.error !== undefined)
      .map((answer) => answer.error?.desc);
    expect(answers).toEqual(rows.map(([, message]) => message));
  });

  // Sizes are the one type whose text differs: the reference takes no suffix here.
  it.each(dottedRows.filter(([text]) => !text.includes("size=")))(
    "says of --blockdev %s what we say: %s",
    (text, message) => {
      const { stderr } = spawnSync("qemu-storage-daemon", ["--blockdev", text], {
        encoding: "utf8",
        timeout: 20_000,
      });
      expect(stderr.trimEnd()).toBe(`qemu-storage-daemon: --blockdev ${text}: ${message}`);
    },
  );
});
