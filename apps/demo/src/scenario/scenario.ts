import { realEnv } from "@blocklayer/env";
import type { Programs } from "../cleanup/programs.ts";
import type { Workplace } from "../cleanup/workplace.ts";
import type { DemoDisk } from "../disk/demo-disk.ts";
import { makeDisk } from "../disk/made-disk.ts";
import { takeUserDisk } from "../disk/user-disk.ts";
import { FoundPrograms } from "../witness/found-programs.ts";
import { startWriter, type Writer } from "../writer/writer.ts";
import { fullBackup } from "./full-backup.ts";
import { incrementalBackup } from "./incremental-backup.ts";
import { type Scene, writerSpeed } from "./scene.ts";
import { ServedDisk } from "./served-disk.ts";
import type { Settings } from "./settings.ts";
import { slowTarget } from "./slow-target.ts";
import type { GuestWriteMeasure, Stage } from "./stage.ts";
import { hearWitnesses, stateOf } from "./witnesses.ts";

export interface ScenarioOptions {
  readonly stage: Stage;
  readonly settings: Settings;
  readonly place: Workplace;
  readonly programs: Programs;
  /** Aborting it ends the scenario; what it started is gone when its promise settles. */
  readonly signal: AbortSignal;
  /** The user's raw disk, if there is one. */
  readonly usersDisk: string | undefined;
  readonly inPlace: boolean;
  readonly keep: boolean;
}

/** The writer's first write has to arrive within this time, milliseconds. */
const FIRST_WRITE_MS = 15_000;

/**
 * What happens: a disk is served and written to all the time; it is backed up in full, to a slow target, and
 * incrementally; what can be restored is compared with the disk of that instant.
 *
 * @returns whether all checks have passed
 * @throws what went wrong; the signal's reason. Processes, sockets and locks are gone in every case
 */
export async function playScenario(options: ScenarioOptions): Promise<boolean> {
  const { stage, settings, place, signal, keep, usersDisk } = options;
  const programs = new FoundPrograms(options.programs, signal);
  stage.phase("0  A disk, a server and a writer");
  const users =
    usersDisk === undefined
      ? undefined
      : { path: usersDisk, before: await stateOf(usersDisk).catch(() => undefined) };
  const disk = await prepareDisk(options, programs);
  stage.fact(`disk: ${disk.description}`);
  const env = realEnv();
  await using served = await ServedDisk.start({ env, disk, socket: place.socket });
  stage.fact(`served at ${served.uri("disk")}`);
  await using writer = await writerFor(options, served, disk);
  const scene: Scene = { stage, settings, place, programs, disk, served, writer, signal, keep };
  stage.fact(`writer: ${writer.description}, process ${writer.pid}`);
  await firstWrite(scene);
  const rows: GuestWriteMeasure[] = [await withoutBackup(scene)];
  const phases = [
    async () => void rows.push(await fullBackup(scene)),
    async () => void rows.push(...(await slowTarget(scene))),
  ];
  for (const phase of phases) {
    await stage.ask("Press Enter to go on.", signal);
    await phase();
  }
  stage.measured(rows);
  await stage.ask("Press Enter to go on.", signal);
  const increment = await incrementalBackup(scene);
  stage.measured([increment.measure]);
  const before = users?.before;
  const passed = await hearWitnesses(scene, {
    increment,
    users: users === undefined || before === undefined ? undefined : { path: users.path, before },
  });
  await stage.ask("All of it is still there. Press Enter to end and clean up.", signal);
  return passed;
}

async function prepareDisk(options: ScenarioOptions, programs: FoundPrograms): Promise<DemoDisk> {
  const { settings, place, signal, stage, usersDisk, inPlace } = options;
  const { writableSize } = settings;
  if (usersDisk === undefined) {
    const { diskSize: size, fileSystemSize, scratchSize } = settings;
    const sizes = { size, fileSystemSize, scratchSize, writableSize };
    return await makeDisk({ place, programs, signal, ...sizes });
  }
  const file = usersDisk;
  return await takeUserDisk({ place, programs, stage, signal, file, inPlace, writableSize });
}

async function writerFor(
  { programs, settings }: ScenarioOptions,
  served: ServedDisk,
  { areas }: DemoDisk,
): Promise<Writer & AsyncDisposable> {
  const writer = await startWriter({ programs, uri: served.uri("disk"), areas }, settings.writer);
  return Object.assign(writer, { [Symbol.asyncDispose]: () => writer.stop() });
}

async function firstWrite({ served, writer, signal }: Scene): Promise<void> {
  const { clock } = served.graph.env;
  const lastMs = clock.now() + FIRST_WRITE_MS;
  while (served.writeCount === 0) {
    if (writer.failure !== undefined) throw new Error(writer.failure);
    if (clock.now() > lastMs) throw new Error("the writer does not write");
    await clock.sleep(10, signal);
  }
}

async function withoutBackup({ served, writer, signal, settings }: Scene) {
  const { clock } = served.graph.env;
  const { writesPerSecond } = await writerSpeed(writer, () => clock.sleep(settings.idleMs, signal));
  return { what: "without any backup", delay: undefined, writesPerSecond };
}
