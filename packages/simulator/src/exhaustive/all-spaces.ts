import type { World } from "../simulation.ts";
import { jobVerbs } from "./job-verbs.ts";
import {
  clusterPairs,
  clusterTriples,
  LATE_WRITES,
  qcow2Orders,
  REUSED_CLUSTERS,
} from "./qcow2-orders.ts";
import { requestOrders } from "./request-orders.ts";
import type { RequestKind } from "./requests.ts";
import { type SavedRequestKind, savedBeforeOverwrite } from "./saved-before-overwrite.ts";
import { orders, tuples } from "./tuples.ts";

const REQUESTS: readonly RequestKind[] = ["write", "zeroes", "discard", "read", "flush"];
const SAVED: readonly SavedRequestKind[] = [...REQUESTS, "look"];
const WRITE_DISCARD_WRITE = orders<RequestKind>(["write", "discard", "write"]);
const TRANSFERS = ["read", "write", "zeroes", "discard"] as const;

/** Every request, one at a time and in pairs, and the orders of write, discard and write: small enough for each test run. */
export const smallSpaces: readonly World[] = [
  requestOrders({ name: "request layer: pairs", sequences: tuples(REQUESTS, 2) }),
  requestOrders({ name: "request layer: write, discard, write", sequences: WRITE_DISCARD_WRITE }),
  savedBeforeOverwrite({
    name: "copy-before-write: pairs, the rest after them",
    sequences: tuples(SAVED, 2),
    background: ["after"],
  }),
  qcow2Orders({ name: "qcow2: pairs", sequences: clusterPairs(REQUESTS) }),
  qcow2Orders({ name: "qcow2: write, discard, and a third", sequences: LATE_WRITES }),
  jobVerbs({ name: "one job: 4 verbs", jobs: 1, length: 4, isRushed: false }),
  jobVerbs({ name: "two jobs: 2 verbs", jobs: 2, length: 2, isRushed: false }),
  jobVerbs({ name: "one job: 3 verbs at any moment", jobs: 1, length: 3, isRushed: true }),
];

/** All that is explored completely on demand. */
export const spaces: readonly World[] = [
  requestOrders({
    name: "request layer: pairs at any moment",
    sequences: tuples(REQUESTS, 2),
    atAnyMoment: true,
  }),
  requestOrders({
    name: "request layer: pairs at any moment, split",
    sequences: tuples(REQUESTS, 2),
    atAnyMoment: true,
    maxTransfer: 512,
  }),
  requestOrders({ name: "request layer: triples", sequences: tuples(REQUESTS, 3) }),
  requestOrders({
    name: "request layer: write, discard, write at any moment",
    sequences: WRITE_DISCARD_WRITE,
    atAnyMoment: true,
  }),
  requestOrders({
    name: "request layer: write, discard, write on 3 blocks",
    sequences: WRITE_DISCARD_WRITE,
    blocks: 3,
  }),
  qcow2Orders({
    name: "qcow2: pairs at any moment",
    sequences: clusterPairs(REQUESTS),
    atAnyMoment: true,
    readsAtOnce: false,
  }),
  qcow2Orders({
    name: "qcow2: triples at any moment",
    sequences: clusterTriples(),
    atAnyMoment: true,
  }),
  qcow2Orders({
    name: "qcow2: a cluster is used again beside a late write",
    sequences: REUSED_CLUSTERS,
    atAnyMoment: true,
  }),
  savedBeforeOverwrite({
    name: "copy-before-write: pairs, the rest together",
    sequences: tuples(SAVED, 2),
    background: ["together"],
  }),
  savedBeforeOverwrite({
    name: "copy-before-write: pairs at any moment",
    sequences: tuples(SAVED, 2),
    background: ["after"],
    atAnyMoment: true,
  }),
  savedBeforeOverwrite({
    name: "copy-before-write: write, discard, write",
    sequences: WRITE_DISCARD_WRITE,
  }),
  savedBeforeOverwrite({
    name: "copy-before-write: write, discard, write on 3 clusters",
    sequences: WRITE_DISCARD_WRITE,
    clusters: 3,
    background: ["after"],
  }),
  savedBeforeOverwrite({
    name: "copy-before-write: looks at the point in time, reads in any order",
    sequences: orders<SavedRequestKind>(["look", "write"]),
    background: ["after"],
    later: { source: TRANSFERS, target: TRANSFERS },
    atAnyMoment: true,
  }),
  jobVerbs({ name: "one job: 6 verbs", jobs: 1, length: 6, isRushed: false }),
  jobVerbs({ name: "two jobs: 4 verbs", jobs: 2, length: 4, isRushed: false }),
  jobVerbs({
    name: "two started jobs: 3 verbs",
    jobs: 2,
    length: 3,
    isRushed: false,
    areStarted: true,
  }),
  jobVerbs({ name: "one job: 4 verbs at any moment", jobs: 1, length: 4, isRushed: true }),
  jobVerbs({ name: "two jobs: 2 verbs at any moment", jobs: 2, length: 2, isRushed: true }),
];

/** Returns the space of a name, small or not. */
export function findSpace(name: string): World | undefined {
  return [...smallSpaces, ...spaces].find((one) => one.name === name);
}
