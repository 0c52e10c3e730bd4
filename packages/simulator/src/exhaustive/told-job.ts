import { BlockError } from "@blocklayer/errors";
import type { Job, JobContext, JobDriver } from "@blocklayer/jobs";
import type { AnsweringJob, Letter } from "./job-verb-model.ts";

/** The work of a job that does what it is told, and counts how it ends. */
export class ToldJob implements JobDriver {
  /** What happened, as its user is told. */
  readonly events: string[] = [];
  readonly calls: Record<"commit" | "abort" | "clean" | "free", number> = {
    commit: 0,
    abort: 0,
    clean: 0,
    free: 0,
  };
  #context: JobContext | undefined;
  #job: Job | undefined;
  #work: "goes on" | "ends well" | "fails" = "goes on";
  #wantsReady: boolean = false;

  get job(): Job {
    if (this.#job === undefined) throw new Error("the job was not made");
    return this.#job;
  }

  set job(job: Job) {
    this.#job = job;
  }

  /** What decides about the answers of the job, as far as its user can see it. */
  get state(): AnsweringJob {
    const { status, userPaused, cancelRequested } = this.job;
    const [work, wantsReady] = [this.#work, this.#wantsReady];
    return { status, userPaused, isSoft: cancelRequested, work, wantsReady };
  }

  /** Does what a letter says. @throws BlockError the job refuses */
  async ask(letter: Letter): Promise<void> {
    const { job } = this;
    switch (letter) {
      case "set-speed":
        job.setSpeed(1);
        break;
      case "kill":
        job.cancel({ force: true });
        break;
      case "ready":
        this.#tell(() => {
          this.#wantsReady = true;
        });
        break;
      case "finish":
      case "fail":
        this.#tell(() => {
          this.#work = letter === "fail" ? "fails" : "ends well";
        });
        break;
      default:
        await job[letter]();
    }
  }

  async run(job: JobContext): Promise<void> {
    this.#context = job;
    for (;;) {
      const isFinishedSoftly = job.status === "ready" && job.cancelRequested;
      if (job.isCancelled || isFinishedSoftly || this.#work === "ends well") return;
      if (this.#work === "fails") throw new BlockError("EIO", "told to fail");
      if (this.#wantsReady && job.status === "running" && !this.events.includes("READY")) {
        job.setReady();
      } else {
        await job.yield();
      }
    }
  }

  complete(): void {
    this.#tell(() => {
      if (this.#work === "goes on") this.#work = "ends well";
    });
  }

  cancel(force: boolean): boolean {
    return force || !this.events.includes("READY");
  }

  commit(): void {
    this.calls.commit += 1;
  }

  abort(): void {
    this.calls.abort += 1;
  }

  clean(): void {
    this.calls.clean += 1;
  }

  free(): void {
    this.calls.free += 1;
  }

  #tell(change: () => void): void {
    change();
    this.#context?.kick();
  }
}
