import { assert, type BlockError } from "@blocklayer/errors";
import type { Simulation, World } from "../simulation.ts";
import { ChainOracle } from "./backup-chain.ts";
import { misbehave, SECTOR, SourceDisk } from "./backup-disk.ts";
import { Disturber } from "./backup-disturbance.ts";
import { expectSound } from "./backup-oracles.ts";
import { drawBackupPlan, drawStackPlan, type StackPlan } from "./backup-plan.ts";
import { BackupRun } from "./backup-run.ts";
import { BackupStack } from "./backup-stack.ts";

/**
 * Backups under fire: guests write, zero and discard while they run, disks are slow and fail, jobs are paused, drained,
 * slowed down and cancelled, filters come and go, a second backup starts beside the first, and a chain of backups
 * follows. Judged by the point in time, the soundness of the bitmap, what guests read, what the chain restores, and by
 * what is left behind.
 */
export const backupWorld: World = {
  name: "backup",
  situations: [
    "a backup succeeded",
    "a backup failed with ECANCELED",
    "a backup of mode top succeeded",
    "a backup of mode incremental succeeded",
    "a chain of backups was restored",
    "a change of a bitmap was refused",
    "a crash ended everything",
    "a filter was put in during a backup",
    "a filter was reopened",
    "a fleecing image was read",
    "a guest waited for a copy",
    "a job gave back what it had copied",
    "a job was cancelled",
    "a job was cancelled in a drained section",
    "a paused job was quiescent",
    "a pending job was cancelled",
    "a user was refused",
    "a verb was refused",
    "an error stopped a job",
    "everything was drained",
    "two backups ran on one source",
  ],
  run: (simulation) => new BackupLife(simulation).live(),
};

class BackupLife {
  readonly #simulation: Simulation;
  readonly #plan: StackPlan;
  readonly #source: SourceDisk;
  readonly #stack: BackupStack;
  readonly #chain: ChainOracle;
  /** Backups that may be running. */
  #runs: readonly BackupRun[] = [];
  /** What the bitmap refers to. */
  #reference: Uint8Array;

  constructor(simulation: Simulation) {
    this.#simulation = simulation;
    this.#plan = drawStackPlan(simulation.decisions);
    const { size, shape, filled, held } = this.#plan;
    this.#source = new SourceDisk({ simulation, name: "disk", disk: 1, size, shape });
    this.#source.fill(filled, held);
    this.#stack = new BackupStack(simulation);
    this.#chain = new ChainOracle(simulation, this.#source);
    this.#reference = this.#source.content.now().slice();
  }

  async live(): Promise<void> {
    const { decisions } = this.#simulation;
    const { alignment, isAbove, rounds } = this.#plan;
    await this.#stack.openSource(this.#source, alignment, isAbove);
    await this.#stack.addBitmap("disk", "bm");
    await this.#guest("early guest").work(decisions.choose("requests before", 4));
    this.#source.medium.onSubmit = (operation, offset, length) => {
      for (const run of this.#runs) run.onSubmit(operation, offset, length);
    };
    const crashesIn = this.#drawCrash();
    for (let round = 1; round <= rounds; round += 1) {
      this.#source.misbehave();
      const life = this.#round(`job${round}`, round === rounds);
      if (round < crashesIn) await life;
      else if (await this.#crash()) return;
      else await life;
    }
    await this.#close();
  }

  /** One backup, perhaps with another one beside it. */
  async #round(name: string, isLast: boolean): Promise<void> {
    const { decisions } = this.#simulation;
    // Requests that are under way at the start are before or after its instant, as a whole.
    const guests = [this.#guest(`${name} guest`).work(decisions.choose("requests", 8))];
    const run = await this.#start(name, false);
    const disturber = new Disturber(this.#simulation, this.#stack, run);
    for (let count = decisions.choose("more guests", 2); count > 0; count -= 1) {
      guests.push(this.#guest(`${name} guest ${count}`).work(decisions.choose("requests", 8)));
    }
    if (run.target.shape === "fleecing") {
      guests.push(disturber.fleece(decisions.choose("fleeces", 6)));
    }
    await disturber.disturb(decisions.choose("disturbances", 5));
    const side =
      run.options["discard-source"] !== true && decisions.chance("a second backup", 1, 6)
        ? this.#sideRound(`${name}b`, run)
        : Promise.resolve();
    await disturber.disturb(decisions.choose("more disturbances", 5));
    await this.#end(run, isLast);
    await Promise.all([...guests, side]);
    await this.#simulation.operation("take out", () => disturber.undo());
    await this.#stack.removeTarget(run.target);
  }

  async #sideRound(name: string, beside: BackupRun): Promise<void> {
    const run = await this.#start(name, true);
    if (beside.isSaving && run.isSaving)
      this.#simulation.sometimes("two backups ran on one source");
    const disturber = new Disturber(this.#simulation, this.#stack, run);
    await disturber.disturb(this.#simulation.decisions.choose("disturbances", 4));
    await this.#end(run, false);
    await this.#simulation.operation("take out", () => disturber.undo());
    await this.#stack.removeTarget(run.target);
  }

  async #start(name: string, isBeside: boolean): Promise<BackupRun> {
    const { decisions } = this.#simulation;
    const plan = drawBackupPlan({ decisions, name, isBeside });
    const { size, alignment } = this.#plan;
    const target = await this.#stack.openTarget({
      name: plan.options.target,
      shape: plan.targetShape,
      size,
      alignment,
      stale: plan.stale,
      source: this.#source,
    });
    misbehave(this.#simulation, target.medium);
    const run = new BackupRun({
      simulation: this.#simulation,
      stack: this.#stack,
      source: this.#source,
      target,
      plan,
    });
    this.#runs = [...this.#runs, run];
    run.listen();
    const [backup] = await this.#simulation.operation(`start ${name}`, () =>
      this.#stack.backups.startAll([plan.options], { steps: [run.rememberStep()] }),
    );
    assert(backup !== undefined, "a backup is started, or refused");
    run.begin(backup);
    return run;
  }

  async #end(run: BackupRun, isLast: boolean): Promise<void> {
    const heal = (): void => (isLast ? this.#simulation.calm() : this.#heal(run));
    const error = await this.#simulation.operation("end of a job", () => run.end(heal));
    if (isLast) this.#simulation.calm();
    else this.#heal(run);
    run.judge(error);
    run.dismiss();
    this.#runs = this.#runs.filter((one) => one !== run);
    this.#chain.add({ options: run.options, oracles: run.oracles, target: run.target, error });
    this.#refer(run, error);
  }

  /** What the bitmap refers to is the instant of the last backup that it goes by, as far as that came. */
  #refer({ options, oracles, target }: BackupRun, error: BlockError | undefined): void {
    const { instant } = oracles;
    const mode = options["bitmap-mode"] ?? "on-success";
    if (instant === undefined || options.bitmap === undefined || mode === "never") return;
    if (error === undefined) this.#reference = instant.source.slice();
    if (error === undefined || mode !== "always") return;
    for (const cluster of oracles.wanted()) {
      for (let { at } = cluster; at < cluster.end; at += SECTOR) {
        if (!target.content.holds(instant.source, at, at + SECTOR)) continue;
        this.#reference.set(instant.source.subarray(at, at + SECTOR), at);
      }
    }
  }

  #heal({ target }: BackupRun): void {
    for (const medium of [...this.#source.media, target.medium]) medium.heal();
  }

  #guest(name: string) {
    return this.#source.guest(name, (error) => this.#isExplained(error));
  }

  #isExplained(error: BlockError): boolean {
    const mayBeLate = this.#runs.some(({ options }) => options["cbw-timeout"] !== 0);
    return error.code === "ETIMEDOUT" ? mayBeLate : this.#stack.isExplained(error);
  }

  /** Returns the round that a crash ends, if one does. Where one layer is all there is, so that it is simple to judge. */
  #drawCrash(): number {
    const { decisions } = this.#simulation;
    const { shape, rounds } = this.#plan;
    const mayCrash = shape === "plain" || shape === "filtered";
    const crashes = mayCrash && decisions.chance("crashes", 1, 12);
    return crashes ? 1 + decisions.choose("crashes in round", rounds) : Number.POSITIVE_INFINITY;
  }

  /** The process dies, and what guests were told to be stable is there. Returns whether that came before the end. */
  async #crash(): Promise<boolean> {
    const { decisions, scheduler } = this.#simulation;
    for (let turns = decisions.choose("turns until the crash", 60); turns >= 0; turns -= 1) {
      await scheduler.turn("a moment");
    }
    this.#simulation.crash();
    const { medium, oracle } = this.#source;
    medium.crash();
    this.#simulation.sometimes("a crash ended everything");
    const problem = oracle.recover(medium.cache.visible.slice());
    if (problem !== undefined) this.#simulation.fail("wrong data after a crash", problem);
    return true;
  }

  async #close(): Promise<void> {
    await this.#source.readAll();
    const now = this.#source.content.now();
    const bitmap = this.#stack.bitmaps.lookup("disk", "bm");
    expectSound(this.#simulation, bitmap, { now, reference: this.#reference });
    await this.#stack.close([this.#source]);
  }
}
