import type { BlockError } from "@blocklayer/errors";

/**
 * What a job does about an I/O error of its own:
 *
 * | policy | `ENOSPC` | others |
 * | --- | --- | --- |
 * | `"report"`: fail with it | report | report |
 * | `"ignore"`: go on as if nothing had happened | ignore | ignore |
 * | `"enospc"`, `"auto"` | stop | report |
 * | `"stop"`: pause until the user resumes, then try again | stop | stop |
 *
 * @see spec/jobs.md section 12
 */
export type OnError = "report" | "ignore" | "enospc" | "stop" | "auto";

/** What was decided about one error. */
export type ErrorAction = "report" | "ignore" | "stop";

/** Whether a job was stopped by an error: `"nospace"` for `ENOSPC`, `"failed"` for others. */
export type IoStatus = "ok" | "failed" | "nospace";

/** Applies a policy to an error. */
export function actionFor(policy: OnError, error: BlockError): ErrorAction {
  if (policy === "enospc" || policy === "auto") {
    return error.code === "ENOSPC" ? "stop" : "report";
  }
  return policy;
}
