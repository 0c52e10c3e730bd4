import { BlockError } from "@blocklayer/errors";
import type { Job } from "@blocklayer/jobs";
import type { Simulation } from "../simulation.ts";
import type { JobRecord } from "./job-record.ts";
import type { Verb } from "./job-rules.ts";
import type { ToyDriver } from "./toy-driver.ts";

/** A job, what is known of it, and what it does. */
export interface Toy {
  readonly record: JobRecord;
  readonly driver: ToyDriver;
}

/** A verb is answered by nothing, or by an error of one of these codes. */
type Answer = "done" | readonly string[];

const DO = [
  "pause",
  "resume",
  "cancel",
  "kill",
  "set-speed",
  "complete",
  "finalize",
  "dismiss",
  "cancel and wait",
  "kill and wait",
  "complete and wait",
  "finish and wait",
  "wait until quiescent",
] as const;

type What = (typeof DO)[number];

/** By user: one who cancels now and then, and one who never does. */
const WEIGHTS: readonly [readonly number[], readonly number[]] = [
  [8, 8, 3, 1, 3, 4, 4, 4, 1, 1, 1, 1, 2],
  [8, 8, 0, 0, 3, 4, 6, 4, 0, 0, 1, 1, 2],
];

/** What makes sense in a state, the dullest first. */
const SENSIBLE: Readonly<Record<string, readonly [What, ...What[]]>> = {
  created: ["pause", "set-speed", "cancel"],
  running: ["pause", "set-speed", "cancel"],
  paused: ["resume", "pause", "kill"],
  ready: ["complete", "pause", "cancel"],
  standby: ["resume", "complete", "kill"],
  waiting: ["finish and wait", "cancel"],
  pending: ["finalize", "kill"],
  concluded: ["dismiss"],
};

/** Users of jobs: they ask for anything at any time, and know what has to be answered. */
export class JobUsers {
  readonly #simulation: Simulation;
  readonly #find: (record: JobRecord) => Job | undefined;
  readonly #background: (work: Promise<void>) => void;
  readonly #weights: readonly number[];

  /**
   * @param find - returns the job of a record, if it is there
   * @param background - is given what is to be waited for in the end
   */
  constructor(
    simulation: Simulation,
    find: (record: JobRecord) => Job | undefined,
    background: (work: Promise<void>) => void,
  ) {
    this.#simulation = simulation;
    this.#find = find;
    this.#background = background;
    this.#weights = simulation.decisions.among<readonly number[]>("users", WEIGHTS);
  }

  /** Does one thing to a job, if it is there. */
  act(toy: Toy): void {
    const job = this.#find(toy.record);
    if (job === undefined) return;
    const what = this.#draw(toy.record);
    this.#simulation.trace.note(`user: ${what} ${toy.record.traits.id} (${toy.record.status})`);
    this.do(what, toy, job);
  }

  /** Draws anything, or what makes sense; who never cancels does not do it because it makes sense. */
  #draw({ status }: JobRecord): What {
    const { decisions } = this.#simulation;
    const sensible = SENSIBLE[status];
    if (sensible !== undefined && decisions.choose("sensible", 2) === 1) {
      const what = decisions.among<What>("what", sensible);
      if ((this.#weights[DO.indexOf(what)] ?? 0) > 0) return what;
    }
    return DO[decisions.weighted("user", this.#weights, DO)] ?? "pause";
  }

  do(what: What, toy: Toy, job: Job): void {
    const { record } = toy;
    const { decisions } = this.#simulation;
    const actions: Record<typeof what, () => void> = {
      pause: () => this.#pause(record, job),
      resume: () => this.#resume(record, job),
      cancel: () => this.#cancel(toy, job, false),
      kill: () => this.#cancel(toy, job, true),
      "set-speed": () =>
        this.#setSpeed(record, job, decisions.among("speed", [0, 1000, 50_000, -1])),
      complete: () => this.#complete(toy, job),
      finalize: () => this.#finalize(record, job),
      dismiss: () => this.#dismiss(record, job),
      "cancel and wait": () => this.#cancelAndWait(toy, job, false),
      "kill and wait": () => this.#cancelAndWait(toy, job, true),
      "complete and wait": () => this.#completeAndWait(toy, job),
      "finish and wait": () => this.#wait(toy, job, "finish", () => job.finishAndWait()),
      "wait until quiescent": () => this.#quiescent(record, job),
    };
    actions[what]();
  }

  #pause(record: JobRecord, job: Job): void {
    if (!record.accepts("pause")) {
      this.#expect(record, "pause", ["EPERM"], () => job.pause());
      return;
    }
    const { userPaused } = record;
    if (!userPaused) record.paused(true);
    if (!userPaused && record.drains > 0) this.#simulation.sometimes("a drained job was paused");
    const answer = userPaused ? ["EBUSY"] : "done";
    this.#expect(record, "pause", record.isDoomed ? undefined : answer, () => job.pause());
  }

  #resume(record: JobRecord, job: Job): void {
    const isRefused = record.accepts("resume") ? "done" : ["EPERM"];
    const answer = record.userPaused ? isRefused : ["EINVAL"];
    if (answer === "done") record.paused(false);
    this.#expect(record, "resume", record.isDoomed ? undefined : answer, () => job.resume());
  }

  #setSpeed(record: JobRecord, job: Job, speed: number): void {
    const isRefused = speed < 0 ? ["EINVAL"] : "done";
    const answer = record.accepts("set-speed") ? isRefused : ["EPERM"];
    this.#expect(record, "set-speed", answer, () => job.setSpeed(speed));
  }

  #cancel(toy: Toy, job: Job, force: boolean): void {
    const { record } = toy;
    const isRefused = record.accepts("cancel") ? "done" : ["EPERM"];
    const answer = record.userPaused && !force ? ["EBUSY"] : isRefused;
    if (answer === "done") this.#cancelled(toy, force);
    this.#expect(record, "cancel", record.isDoomed ? undefined : answer, () =>
      job.cancel({ force }),
    );
  }

  #cancelled({ record, driver }: Toy, force: boolean): void {
    const byForce = !record.isStarted || driver.cancelsByForce(force);
    if (record.userPaused) this.#simulation.sometimes("a paused job was cancelled");
    if (byForce && record.status === "pending")
      this.#simulation.sometimes("a pending job was cancelled");
    record.cancelled(byForce);
  }

  #complete(toy: Toy, job: Job): void {
    const { answer, call } = this.#completion(toy, () => job.complete());
    this.#later(toy.record, "complete", answer, call);
  }

  /** How `complete` is answered; with `undefined` it may be either way. */
  #completion(
    { record, driver }: Toy,
    call: () => Promise<unknown>,
  ): { readonly answer: Answer | undefined; readonly call: () => Promise<unknown> } {
    if (!record.accepts("complete")) return { answer: ["EPERM"], call };
    if (record.wasCancelled || !driver.canComplete) return { answer: ["EBUSY"], call };
    // A soft cancel in the very turn in which the work ended: not told apart here.
    if (record.hasRun || record.group.hasCause) return { answer: undefined, call };
    return { answer: driver.completeFails ? ["ERANGE"] : "done", call };
  }

  #finalize(record: JobRecord, job: Job): void {
    const answer = record.accepts("finalize") ? "done" : ["EPERM"];
    if (answer === "done") record.group.wasFinalized = true;
    this.#later(record, "finalize", answer, async () => {
      await job.finalize();
      const left = record.group.alive.filter(
        ({ status }) => status !== "concluded" && status !== "null",
      );
      this.#simulation.expect(
        left.length === 0,
        "JB-3 finalized too early",
        () => `${left.length} left`,
      );
    });
  }

  #dismiss(record: JobRecord, job: Job): void {
    const answer = record.accepts("dismiss") ? "done" : ["EPERM"];
    if (answer === "done") record.wasDismissed = true;
    this.#expect(record, "dismiss", answer, () => job.dismiss());
  }

  /** Of a concluded job it is a dismissal. */
  #cancelAndWait(toy: Toy, job: Job, force: boolean): void {
    if (toy.record.status === "concluded") toy.record.wasDismissed = true;
    else if (!toy.record.isOver || toy.record.accepts("cancel")) this.#cancelled(toy, force);
    this.#wait(toy, job, "cancel", () => job.cancelAndWait({ force }));
  }

  #completeAndWait(toy: Toy, job: Job): void {
    const { answer } = this.#completion(toy, () => job.complete());
    this.#wait(toy, job, "complete", async () => {
      const error = await job.completeAndWait();
      const isRefused = answer !== undefined && answer !== "done";
      if (isRefused) this.#check(toy.record, error?.code === "EBUSY", "complete is not refused");
      return error;
    });
  }

  /** The work is over when this ends, whatever the outcome. */
  #wait(toy: Toy, job: Job, what: string, call: () => Promise<BlockError | undefined>): void {
    const { record } = toy;
    const name = `${what} ${record.traits.id} and wait`;
    this.#background(
      this.#simulation.operation(name, async () => {
        const error = await call();
        const isRefused = error?.code === "EBUSY";
        this.#check(
          record,
          isRefused || record.isOver || job.isCompleted,
          `${name} ended too early`,
        );
      }),
    );
  }

  #quiescent(record: JobRecord, job: Job): void {
    if (!record.userPaused) return;
    const name = `wait until ${record.traits.id} is quiescent`;
    this.#background(this.#simulation.operation(name, () => job.quiescent()));
  }

  /** @param answer - `undefined` if it may be either way */
  #expect(record: JobRecord, verb: Verb, answer: Answer | undefined, call: () => void): void {
    let code: string | undefined;
    try {
      call();
    } catch (error) {
      code = codeOf(error);
    }
    if (answer !== undefined) this.#compare(record, verb, answer, code);
  }

  #later(
    record: JobRecord,
    verb: Verb,
    answer: Answer | undefined,
    call: () => Promise<unknown>,
  ): void {
    const work = async (): Promise<void> => {
      let code: string | undefined;
      try {
        await call();
      } catch (error) {
        code = codeOf(error);
      }
      if (answer !== undefined) this.#compare(record, verb, answer, code);
    };
    this.#background(this.#simulation.operation(`${verb} ${record.traits.id}`, work));
  }

  #compare(record: JobRecord, verb: Verb, answer: Answer, code: string | undefined): void {
    const isRight =
      answer === "done" ? code === undefined : code !== undefined && answer.includes(code);
    const expected = answer === "done" ? "done" : answer.join(" or ");
    this.#check(record, isRight, `verb ${verb}`, `${code ?? "done"}, not ${expected}`);
  }

  #check(record: JobRecord, isRight: boolean, what: string, details = ""): void {
    const { traits, status } = record;
    this.#simulation.expect(
      isRight,
      "JB-1 wrong answer",
      () => `${what}: ${traits.id}, now in state '${status}': ${details}`,
    );
  }
}

/** Returns the code of an error that is an answer. */
function codeOf(error: unknown): string {
  if (error instanceof BlockError) return error.code;
  throw error;
}
