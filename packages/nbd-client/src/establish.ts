import type { Env } from "@blocklayer/env";
import { BlockError } from "@blocklayer/errors";
import type { ByteStream } from "@blocklayer/nbd-protocol";
import { Conversation } from "./conversation.ts";
import { abortable, withDeadline } from "./deadline.ts";
import type { NbdExportInfo } from "./export-info.ts";
import { abortNegotiation, isRefusal, negotiateExport } from "./negotiation.ts";

/** What a connection and its negotiation may take together. */
export const NEGOTIATION_TIMEOUT_MS = 30_000;

/** Opens a stream to a server. */
export type OpenStream = (signal: AbortSignal) => Promise<ByteStream>;

/** A connection at the begin of its transmission phase. */
export interface Established {
  readonly info: NbdExportInfo;
  readonly conversation: Conversation;
}

/**
 * Opens a stream and has a conversation on it; after a failure nothing is left of either.
 *
 * @throws BlockError `ETIMEDOUT` it took more than `timeoutMs`; and what opening and talking report
 */
export function converse<T>(
  open: OpenStream,
  env: Env,
  timeoutMs: number,
  signal: AbortSignal | undefined,
  talk: (conversation: Conversation) => Promise<T>,
): Promise<T> {
  const late = (): BlockError =>
    new BlockError("ETIMEDOUT", `server did not answer within ${timeoutMs / 1000} s`, {
      operation: "nbd negotiation",
    });
  return withDeadline(env, timeoutMs, late, signal, async (limit) => {
    const stream = await abortable(open(limit), limit, (unwanted) => unwanted.destroy());
    const conversation = new Conversation(stream, limit);
    try {
      return await talk(conversation);
    } catch (error) {
      await leave(conversation, error);
      throw error;
    }
  });
}

/** Negotiates an export. @throws BlockError as {@link negotiateExport}, `ETIMEDOUT` */
export function establish(
  open: OpenStream,
  env: Env,
  exportName: string,
  timeoutMs: number = NEGOTIATION_TIMEOUT_MS,
  signal?: AbortSignal,
): Promise<Established> {
  return converse(open, env, timeoutMs, signal, async (conversation) => ({
    info: await negotiateExport(conversation, exportName),
    conversation,
  }));
}

/** Says goodbye to a server that refused, and cuts the stream to one that broke the protocol or is gone. */
async function leave(conversation: Conversation, error: unknown): Promise<void> {
  try {
    if (isRefusal(error)) await abortNegotiation(conversation);
  } catch {
    // The refusal is the error to report, not that the server did not wait for the goodbye.
  } finally {
    conversation.cut();
  }
}
