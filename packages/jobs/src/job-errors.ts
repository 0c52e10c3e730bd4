import { BlockError, textOfErrno, toBlockError } from "@blocklayer/errors";
import type { JobContext } from "./job-driver.ts";
import type { JobVerb } from "./job-status.ts";

/** What a refusal tells beside the job, its status and the verb. */
export interface RefusalDetails {
  readonly cause?: unknown;
  readonly [detail: string]: unknown;
}

/** Returns the error for a verb that is not accepted. */
export function refusal(
  job: JobContext,
  verb: JobVerb,
  code: string,
  message: string,
  details: RefusalDetails = {},
): BlockError {
  const { cause, ...rest } = details;
  const context = { job: job.id, operation: verb, status: job.status, ...rest };
  return new BlockError(code, message, context, { cause });
}

/** Returns the error for a verb that the status does not allow. */
export function refusalByStatus(job: JobContext, verb: JobVerb): BlockError {
  const where = `Job '${job.id ?? ""}' in state '${job.status}'`;
  return refusal(job, verb, "EPERM", `${where} cannot accept command verb '${verb}'`);
}

/** Returns an error with the operating system's text. */
export function errnoError(job: JobContext, code: string): BlockError {
  return new BlockError(code, textOfErrno(code), { job: job.id });
}

/** Returns what a driver has thrown as the error that the job ends with. */
export function failureOf(job: JobContext, error: unknown): BlockError {
  const failure = toBlockError(error, `job ${job.id ?? job.type} failed`, { job: job.id });
  if (failure.message !== "") return failure;
  const context = { ...failure.context, job: job.id };
  return new BlockError(failure.code, textOfErrno(failure.code), context, { cause: failure });
}
