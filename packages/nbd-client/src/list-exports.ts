import { type Env, realEnv } from "@blocklayer/env";
import type { ByteStream } from "@blocklayer/nbd-protocol";
import { converse, NEGOTIATION_TIMEOUT_MS, type OpenStream } from "./establish.ts";
import { type NbdListedExport, negotiateList } from "./negotiation.ts";

export interface ListOptions {
  /** Also ask for the properties of each export. Default `false`. */
  readonly withInfo?: boolean;
  /** Time. Default the real one. */
  readonly env?: Env;
  /** What all of it may take. Default 30 s. */
  readonly negotiationTimeoutMs?: number;
  readonly signal?: AbortSignal;
}

/**
 * Lists what a server exports, and says goodbye.
 *
 * @param stream - fresh, or what opens one; it is closed in any case
 * @throws BlockError `ENOTSUP` the server keeps no list or wants TLS; `EPERM` it does not tell; `EPROTO`, `ECONNRESET`,
 *   `ETIMEDOUT` as `NbdConnection.open`
 */
export function listExportsOver(
  stream: ByteStream | OpenStream,
  options: ListOptions = {},
): Promise<NbdListedExport[]> {
  const { withInfo = false, env = realEnv(), signal } = options;
  const timeoutMs = options.negotiationTimeoutMs ?? NEGOTIATION_TIMEOUT_MS;
  const open = typeof stream === "function" ? stream : () => Promise.resolve(stream);
  return converse(open, env, timeoutMs, signal, (conversation) =>
    negotiateList(conversation, withInfo),
  );
}
