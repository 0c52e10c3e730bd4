import { stat } from "node:fs/promises";
import { digestOfFile } from "../witness/digest.ts";
import { askFsck, askQemuImg, type Hearing } from "../witness/outside-witnesses.ts";
import { shellLine } from "../witness/quoting.ts";
import { restore } from "../witness/restore.ts";
import type { Increment } from "./incremental-backup.ts";
import { RESULTS, type Scene } from "./scene.ts";
import type { Command } from "./stage.ts";

/** How the user's file was before the demo began. */
export interface FileState {
  readonly size: number;
  readonly mtimeMs: number;
  readonly ino: number;
}

/** @returns what can be compared later to see whether a file was changed */
export async function stateOf(path: string): Promise<FileState> {
  const { size, mtimeMs, ino } = await stat(path);
  return { size, mtimeMs, ino };
}

export interface HearingOptions {
  readonly increment: Increment;
  /** The user's own file, if there is one. */
  readonly users: { readonly path: string; readonly before: FileState } | undefined;
}

/**
 * The last phase: restores the chain of backups and lets those judge it who have no part in how it was made.
 *
 * @returns whether nobody objects
 */
export async function hearWitnesses(scene: Scene, options: HearingOptions): Promise<boolean> {
  const { stage, place, programs, served, signal, keep, disk } = scene;
  const { increment } = options;
  stage.phase("4  Witnesses: is the restored chain the disk of that instant?");
  const restored = place.file(RESULTS.restored);
  const full = place.file(RESULTS.full);
  const source = { full, increment: place.file(RESULTS.increment), extents: increment.extents };
  await restore({ ...source, restored, signal });
  stage.fact("restored: the full backup with the incremental one laid over it");
  const frozenFile = keep ? place.file(RESULTS.frozen) : undefined;
  const frozenUri = served.uri("frozen");
  const hearings = [await compareDigests(scene, increment, restored, frozenFile)];
  await served.server.addExport({ name: "frozen", node: served.graph.node("frozen") });
  hearings.push(
    await askQemuImg(programs, restored, frozenUri, frozenFile),
    await askFsck(programs, restored, disk.noFsck),
    hearWriter(scene, increment),
  );
  if (options.users !== undefined) hearings.push(await hearUsersFile(options.users));
  for (const { testimony } of hearings) stage.testified(testimony);
  stage.phase("To repeat it");
  stage.commands(hearings.flatMap(({ command }) => command ?? []));
  return hearings.every(({ testimony }) => testimony.outcome !== "failed");
}

async function compareDigests(
  scene: Scene,
  { frozenDigest }: Increment,
  restored: string,
  frozenFile: string | undefined,
): Promise<Hearing> {
  const digest = await digestOfFile(restored, { signal: scene.signal });
  const isEqual = digest === frozenDigest;
  const files = frozenFile === undefined ? [restored] : [restored, frozenFile];
  const command: Command = {
    purpose: `the frozen view had ${frozenDigest}`,
    line: shellLine(["sha256sum", ...files]),
  };
  const detail = isEqual
    ? `both are ${digest}`
    : `the restored disk is ${digest}, the view was ${frozenDigest}`;
  const who = "sha256 of the restored disk and of the frozen view";
  return { testimony: { who, outcome: isEqual ? "passed" : "failed", detail }, command };
}

/** The disk must have been written to all the time, or the rest proves little. */
function hearWriter({ writer, served }: Scene, increment: Increment): Hearing {
  const since = served.writeCount - increment.writeCount;
  const who = `the writer (process ${writer.pid})`;
  if (writer.failure !== undefined) {
    return { testimony: { who, outcome: "failed", detail: writer.failure } };
  }
  const detail = `no error; ${served.writeCount} writes arrived, ${since} of them after that instant`;
  return { testimony: { who, outcome: since > 0 ? "passed" : "failed", detail } };
}

async function hearUsersFile(users: NonNullable<HearingOptions["users"]>): Promise<Hearing> {
  const { before, path } = users;
  const now = await stateOf(path);
  const isSame =
    now.size === before.size && now.mtimeMs === before.mtimeMs && now.ino === before.ino;
  const detail = isSame ? "as it was" : "it has changed; another program may have written to it";
  return { testimony: { who: `your file ${path}`, outcome: isSame ? "passed" : "failed", detail } };
}
