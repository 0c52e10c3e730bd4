import type { Command, Testimony } from "../scenario/stage.ts";
import type { FoundPrograms } from "./found-programs.ts";
import { shellLine } from "./quoting.ts";

/** What a witness says, and how to ask it again. */
export interface Hearing {
  readonly testimony: Testimony;
  readonly command?: Command;
}

/** Lets `fsck.ext4` check the restored disk, reading only. */
export async function askFsck(
  programs: FoundPrograms,
  restored: string,
  reasonToSkip: string | undefined,
): Promise<Hearing> {
  const who = "fsck.ext4 -fn on the restored disk";
  if (reasonToSkip !== undefined) return skipped(who, reasonToSkip);
  if (programs.fsck === undefined) return skipped(who, "it is not installed");
  const args = ["-fn", restored];
  const { code, stdout, stderr } = await programs.run(programs.fsck, args);
  const detail = code === 0 ? lastLine(stdout) : `exit code ${code}: ${lastLine(stderr + stdout)}`;
  return {
    testimony: { who, outcome: code === 0 ? "passed" : "failed", detail },
    command: { purpose: "check the file system", line: shellLine([programs.fsck, ...args]) },
  };
}

/**
 * Lets `qemu-img` compare the restored disk with the frozen view, which is served over NBD while the disk goes on being
 * written to.
 *
 * @param frozenFile - the view as a file, if it was kept: named in the command, since the server will be gone
 */
export async function askQemuImg(
  programs: FoundPrograms,
  restored: string,
  frozenUri: string,
  frozenFile: string | undefined,
): Promise<Hearing> {
  const who = "qemu-img compare, restored disk with the frozen view over NBD";
  const { qemuImg } = programs;
  if (qemuImg === undefined) return skipped(who, "it is not installed");
  const words = ["compare", "-f", "raw", "-F", "raw", restored];
  const { code, stdout, stderr } = await programs.run(qemuImg, [...words, frozenUri]);
  const detail = code === 0 ? lastLine(stdout) : `exit code ${code}: ${lastLine(stderr + stdout)}`;
  return {
    testimony: { who, outcome: code === 0 ? "passed" : "failed", detail },
    command: {
      purpose: "compare with the frozen view",
      line: shellLine([qemuImg, ...words, frozenFile ?? frozenUri]),
    },
  };
}

function skipped(who: string, reason: string): Hearing {
  return { testimony: { who, outcome: "skipped", detail: reason } };
}

function lastLine(text: string): string {
  return text.trim().split("\n").at(-1)?.trim() ?? "";
}
