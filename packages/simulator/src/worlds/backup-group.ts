import type { BackupJob } from "@blocklayer/backup";
import { BlockError } from "@blocklayer/errors";
import type { Simulation, World } from "../simulation.ts";
import { misbehave, SECTOR, SourceDisk } from "./backup-disk.ts";
import { GroupBitmaps } from "./backup-group-bitmaps.ts";
import { GroupObstacle, type Transaction } from "./backup-group-obstacle.ts";
import {
  drawActions,
  drawGroup,
  drawGroupDisks,
  type GroupDiskPlan,
  type GroupMemberPlan,
} from "./backup-group-plan.ts";
import { Journal } from "./backup-journal.ts";
import { attempt, BackupRun } from "./backup-run.ts";
import { BackupStack } from "./backup-stack.ts";

/**
 * Several disks that are backed up in one transaction, with changes of bitmaps in the same instant, while a program
 * keeps a journal across them. Judged by that journal, by what each backup and each bitmap has to be, by all or none in
 * a group, and by what a transaction leaves behind that did not happen.
 */
export const backupGroupWorld: World = {
  name: "backup-group",
  situations: [
    "a bitmap was changed in the instant of a start",
    "a group failed as one",
    "a group succeeded",
    "a step failed behind the commit of a start",
    "a transaction was refused",
    "a user cancelled a backup before it was started",
    "an instant fell into the journal",
    "bitmaps were merged in the instant of a start",
    "of single backups one failed and one succeeded",
    "two backups of one disk had one instant",
  ],
  run: (simulation) => new BackupGroupLife(simulation).live(),
};

/** A transaction with those who judge its backups. */
interface ReadyTransaction extends Transaction {
  readonly runs: readonly BackupRun[];
}

class BackupGroupLife {
  readonly #simulation: Simulation;
  readonly #plans: readonly GroupDiskPlan[];
  readonly #sources: readonly SourceDisk[];
  readonly #stack: BackupStack;
  readonly #bitmaps: GroupBitmaps;
  readonly #journal: Journal;
  #runs: readonly BackupRun[] = [];

  constructor(simulation: Simulation) {
    this.#simulation = simulation;
    this.#plans = drawGroupDisks(simulation.decisions);
    this.#sources = this.#plans.map(
      ({ name, size, shape }, index) =>
        new SourceDisk({ simulation, name, disk: index + 1, size, shape }),
    );
    this.#stack = new BackupStack(simulation);
    this.#bitmaps = new GroupBitmaps(simulation, this.#stack.bitmaps);
    this.#journal = new Journal(simulation, this.#sources, (error) =>
      this.#stack.isExplained(error),
    );
  }

  async live(): Promise<void> {
    const { decisions } = this.#simulation;
    await this.#open();
    const guests = this.#sources.map((source) => this.#guest(source, "guest"));
    guests.push(this.#journal.work(decisions.choose("entries", 13)));
    for (let count = decisions.weighted("refused", [4, 3, 1]); count > 0; count -= 1) {
      await this.#refused(`refused${count}`);
    }
    const isGrouped = decisions.chance("grouped", 2, 3);
    const { runs, list, steps } = await this.#draw("job");
    const jobs = await this.#simulation.operation("start", () =>
      this.#stack.backups.startAll(list, { grouped: isGrouped, steps }),
    );
    for (const [index, run] of runs.entries()) run.begin(jobs[index] as BackupJob);
    for (const source of this.#sources) guests.push(this.#guest(source, "late guest"));
    await this.#disturb(runs);
    const errors = await this.#end(runs);
    this.#judge(runs, errors, isGrouped);
    await Promise.all(guests);
    await this.#close(runs);
  }

  async #open(): Promise<void> {
    const { decisions } = this.#simulation;
    for (const [index, source] of this.#sources.entries()) {
      const filled = this.#plans[index]?.filled ?? 0;
      source.fill(filled, [0, Math.min(filled, SECTOR * 2)]);
      await this.#stack.openSource(source, decisions.among("alignment", [512, 4096]), false);
      for (const name of ["bm", "other"]) {
        await this.#stack.addBitmap(source.name, name);
        this.#bitmaps.know(source, name);
      }
      await this.#guest(source, "early guest");
      source.misbehave();
      source.medium.onSubmit = (operation, offset, length) => {
        for (const run of this.#runs) {
          if (run.source === source) run.onSubmit(operation, offset, length);
        }
      };
    }
  }

  /** Works on all of a disk but its journal. */
  #guest(source: SourceDisk, name: string): Promise<void> {
    const guest = source.guest(
      `${name} of ${source.name}`,
      (error) => this.#stack.isExplained(error),
      source.size - SECTOR,
    );
    return guest.work(this.#simulation.decisions.choose("requests", 4));
  }

  /** Draws backups and bitmap actions, and opens the targets. */
  async #draw(round: string): Promise<ReadyTransaction> {
    const { decisions } = this.#simulation;
    const members = drawGroup(decisions, this.#sources.length, round);
    const runs: BackupRun[] = [];
    for (const member of members) runs.push(await this.#prepare(member));
    this.#runs = runs;
    for (const run of runs) run.listen();
    const actions = drawActions(decisions, this.#sources.length);
    if (members.length > this.#sources.length) {
      this.#simulation.sometimes("two backups of one disk had one instant");
    }
    if (actions.length > 0) {
      this.#simulation.sometimes("a bitmap was changed in the instant of a start");
    }
    const steps = [
      ...actions.flatMap((action) => this.#bitmaps.steps(action, this.#sources)),
      ...runs.map((run) => run.rememberStep()),
    ];
    return { runs, list: members.map(({ options }) => options), steps };
  }

  async #prepare({ disk, options, targetShape, isCancelled }: GroupMemberPlan): Promise<BackupRun> {
    const source = this.#sources[disk] as SourceDisk;
    const { size } = source;
    const alignment = 512;
    const stale = 0;
    const target = await this.#stack.openTarget({
      name: options.target,
      shape: targetShape,
      size,
      alignment,
      stale,
      source,
    });
    misbehave(this.#simulation, target.medium);
    const plan = { options, targetShape, stale, isCancelled };
    return new BackupRun({
      simulation: this.#simulation,
      stack: this.#stack,
      source,
      target,
      plan,
    });
  }

  /** A transaction that can not happen: nothing of it is left. */
  async #refused(round: string): Promise<void> {
    const { decisions } = this.#simulation;
    const transaction = await this.#draw(round);
    const before = this.#bitmaps.states();
    const obstacle = new GroupObstacle(this.#simulation, this.#stack);
    const { list, steps } = obstacle.putInTheWayOf(transaction);
    const grouped = decisions.chance("grouped", 1, 2);
    const started = this.#stack.backups.startAll(list, { grouped, steps }).then(
      (jobs) => jobs,
      (error: unknown) => error,
    );
    if (obstacle.name === "a user cancels") await this.#cancelEarly(transaction.runs);
    const outcome = await this.#simulation.operation(obstacle.name, () => started);
    obstacle.judge(outcome);
    if (outcome instanceof BlockError) this.#afterRefusal(before);
    else await this.#undo(outcome, obstacle, transaction.runs);
    for (const { target } of transaction.runs) {
      target.medium.heal();
      await this.#stack.removeTarget(target);
    }
  }

  #afterRefusal(before: ReturnType<GroupBitmaps["states"]>): void {
    this.#simulation.sometimes("a transaction was refused");
    for (const run of this.#runs) run.giveUp();
    this.#runs = [];
    const left = this.#stack.structure();
    this.#simulation.expect(left.length === 0, "left by a refusal", () => left.join(", "));
    this.#bitmaps.expectAsBefore(before, this.#sources);
  }

  /** Only a user may have been too late, and a step that fails. */
  async #undo(
    outcome: unknown,
    obstacle: GroupObstacle,
    runs: readonly BackupRun[],
  ): Promise<void> {
    this.#simulation.expect(
      obstacle.mayBeLate && Array.isArray(outcome),
      "not refused",
      () => `${obstacle.name}: ${String(outcome)}`,
    );
    const jobs = outcome as readonly BackupJob[];
    for (const [index, run] of runs.entries()) run.begin(jobs[index] as BackupJob);
    if (obstacle.isCommitted) this.#expectRunning(runs);
    const errors = await Promise.all(
      runs.map((run) => {
        run.plan = { ...run.plan, isCancelled: true };
        return run.end(() => undefined);
      }),
    );
    this.#settle(runs, errors);
    this.#runs = [];
  }

  /** Nobody has cancelled the jobs: unless one of a group has failed, nothing that was started is taken back. */
  #expectRunning(runs: readonly BackupRun[]): void {
    const hasFailed = runs.some(({ backup }) => {
      const { error } = backup.job;
      return error !== undefined && error.code !== "ECANCELED";
    });
    if (hasFailed) return;
    for (const { backup, oracles } of runs) {
      const { job } = backup;
      const isRunning = oracles.instant !== undefined && !job.isCancelled;
      this.#simulation.expect(isRunning, "started and taken back", () => `job is ${job.status}`);
    }
  }

  /** Somebody who cancels a job that he has just found. */
  async #cancelEarly(runs: readonly BackupRun[]): Promise<void> {
    const { decisions, scheduler } = this.#simulation;
    const victim = runs[decisions.choose("cancelled early", runs.length)];
    for (let turns = decisions.choose("turns until the cancel", 12); turns >= 0; turns -= 1) {
      const job = this.#stack.jobs.find(victim?.options["job-id"] ?? "");
      if (job?.status === "created" && turns === 0) {
        this.#simulation.sometimes("a user cancelled a backup before it was started");
        attempt(() => job.cancel({ force: true }));
      }
      await scheduler.turn("before the cancel");
    }
  }

  async #disturb(runs: readonly BackupRun[]): Promise<void> {
    const { decisions, scheduler } = this.#simulation;
    for (let count = decisions.choose("disturbances", 5); count > 0; count -= 1) {
      await scheduler.turn("before the next disturbance");
      const run = runs[decisions.choose("disturbed", runs.length)];
      if (run === undefined) continue;
      const { job } = run.backup;
      switch (decisions.choose("disturbance", 4)) {
        case 1:
          attempt(() => job.pause());
          await scheduler.turn("paused");
          attempt(() => job.resume());
          break;
        case 2: {
          const hold = await this.#stack.graph.node(run.source.name).drain();
          await scheduler.turn("drained");
          hold.end();
          break;
        }
        case 3:
          attempt(() => job.setSpeed(SECTOR * decisions.choose("speed", 3)));
          break;
        default:
      }
    }
  }

  async #end(runs: readonly BackupRun[]): Promise<(BlockError | undefined)[]> {
    const heal = (): void => this.#simulation.calm();
    const ends = runs.map((run) => run.end(heal));
    const errors = await this.#simulation.operation("ends", () => Promise.all(ends));
    this.#simulation.calm();
    return errors;
  }

  #judge(
    runs: readonly BackupRun[],
    errors: readonly (BlockError | undefined)[],
    isGrouped: boolean,
  ): void {
    const failed = errors.filter((error) => error !== undefined);
    const isMixed = failed.length > 0 && failed.length < errors.length;
    if (isGrouped) {
      this.#simulation.expect(
        !isMixed,
        "half of a group",
        () => `${failed.length} of ${errors.length} failed`,
      );
      this.#simulation.sometimes(failed.length > 0 ? "a group failed as one" : "a group succeeded");
    } else if (isMixed) {
      this.#simulation.sometimes("of single backups one failed and one succeeded");
    }
    const isExplained =
      failed.length === 0 ||
      failed.some(({ code }) => code !== "ECANCELED") ||
      runs.some(({ plan }) => plan.isCancelled);
    this.#simulation.expect(isExplained, "cancelled by nobody", () => "all of a group");
    for (const [index, run] of runs.entries()) {
      const isAlone = !(isGrouped && failed.length > 0);
      run.judge(errors[index], { isAlone });
    }
    this.#journal.judge((source) => this.#copyOf(runs, errors, source));
    this.#settle(runs, errors);
  }

  /** What the backup of a disk holds, if it holds the journal. */
  #copyOf(
    runs: readonly BackupRun[],
    errors: readonly (BlockError | undefined)[],
    source: SourceDisk,
  ): Uint8Array | undefined {
    const index = runs.findIndex(
      (run, at) =>
        run.source === source &&
        errors[at] === undefined &&
        run.oracles.isWanted(source.size - SECTOR, source.size),
    );
    return runs[index]?.target.content.now();
  }

  #settle(runs: readonly BackupRun[], errors: readonly (BlockError | undefined)[]): void {
    for (const [index, run] of runs.entries()) {
      run.dismiss();
      this.#bitmaps.refer(run, errors[index]);
    }
  }

  async #close(runs: readonly BackupRun[]): Promise<void> {
    for (const source of this.#sources) await source.readAll();
    this.#bitmaps.expectSound();
    for (const { target } of runs) await this.#stack.removeTarget(target);
    await this.#stack.close(this.#sources);
  }
}
