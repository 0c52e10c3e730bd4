import type { NbdServerLimits } from "@blocklayer/nbd-server";
import type { Decisions } from "../decisions.ts";

/** Bytes: what a guest's request is made of. No request of a client is smaller, so nobody reads, modifies and writes. */
export const CELL = 512;

/** How a client connects and how long it waits. */
export interface NbdClientPlan {
  /** Seconds. */
  readonly "reconnect-delay": number;
  /** Seconds. */
  readonly "x-blocklayer-request-timeout": number;
  readonly "x-blocklayer-requests-max": number;
}

/** What is drawn before the server starts. */
export interface NbdPlan {
  /** Bytes of the export. */
  readonly size: number;
  /** Bytes of the medium before the export begins, and behind its end. */
  readonly margin: number;
  readonly alignment: number;
  readonly maxTransfer: number;
  /** What is exported: a node of a graph, or a backend that trusts its caller. */
  readonly kind: "node" | "backend";
  readonly isWritable: boolean;
  readonly multiConnection: boolean;
  readonly limits: Partial<NbdServerLimits>;
  readonly clients: readonly NbdClientPlan[];
  /** Pieces of long time-outs: with 1, any of them may go off early. */
  readonly sleepPieces: number;
  /** Of 16 bursts of a server, how many are tampered with. */
  readonly tampers: number;
  readonly troubles: number;
  readonly strangers: number;
}

const NO_LIMITS: Partial<NbdServerLimits> = {};

const LIMITS = [
  NO_LIMITS,
  { requests: 1 },
  { requests: 3, requestBytes: 8192, bufferBytes: 24_576, connections: 6 },
  { requestBytes: 2048, bufferBytes: 12_288, connections: 6 },
  { unreadBytes: 32_768, unreadMs: 5000, payloadMs: 5000, lingerMs: 100 },
] as const satisfies readonly [Partial<NbdServerLimits>, ...Partial<NbdServerLimits>[]];

const LARGE_LIMITS = [LIMITS[0], LIMITS[1], LIMITS[2], LIMITS[3]] as const;

export function drawNbdPlan(decisions: Decisions): NbdPlan {
  const isLarge = decisions.chance("large disk", 1, 12);
  const cells = isLarge ? 320 : decisions.among("cells", [8, 24, 48]);
  const clients: NbdClientPlan[] = [];
  for (let count = 1 + decisions.choose("clients", 3); count > 0; count -= 1) {
    clients.push({
      "reconnect-delay": decisions.among("reconnect delay", [0, 100, 1000, 2]),
      "x-blocklayer-request-timeout": decisions.among("request time-out", [0, 0, 15]),
      "x-blocklayer-requests-max": decisions.among("requests at once", [64, 1, 2]),
    });
  }
  return {
    size: cells * CELL,
    margin: 4096,
    alignment: decisions.among("alignment", [CELL, 1]),
    maxTransfer: decisions.among("max transfer", [0, 4096]),
    kind: decisions.among("export of", ["node", "backend"]),
    isWritable: !decisions.chance("read-only", 1, 16),
    multiConnection: decisions.chance("multi-connection", 1, 2),
    // A read of everything has to fit what may be unread.
    limits: decisions.among<Partial<NbdServerLimits>>("limits", isLarge ? LARGE_LIMITS : LIMITS),
    clients,
    sleepPieces: decisions.among("pieces of a sleep", [12, 12, 12, 1]),
    tampers: decisions.among("tampers", [0, 0, 0, 2]),
    troubles: decisions.choose("troubles", 6),
    strangers: decisions.among("strangers", [0, 0, 1, 2]),
  };
}
