import { acceptsVerb, isCompletedStatus, isReadyStatus, type JobStatus } from "@blocklayer/jobs";
import { describe, expect, it } from "vitest";
import { checkTransition } from "../src/job-status.ts";

const STATUSES: readonly JobStatus[] = [
  "undefined",
  "created",
  "running",
  "paused",
  "ready",
  "standby",
  "waiting",
  "pending",
  "aborting",
  "concluded",
  "null",
];

describe("a job goes", () => {
  it.each([
    // U C R P Y S W D X E N
    ["undefined", "01000000000"],
    ["created", "00100000101"],
    ["running", "00011010100"],
    ["paused", "00100000000"],
    ["ready", "00000110100"],
    ["standby", "00001000000"],
    ["waiting", "00000001100"],
    ["pending", "00000000110"],
    ["aborting", "00000000110"],
    ["concluded", "00000000001"],
    ["null", "00000000000"],
  ] as const)("from %s along the documented edges only", (source, edges) => {
    const allowed = STATUSES.map((target) => {
      try {
        checkTransition(source, target);
        return "1";
      } catch (error) {
        expect(error).toMatchObject({
          name: "AssertionError",
          message: `a job can not go from "${source}" to "${target}"`,
        });
        return "0";
      }
    });
    expect(allowed.join("")).toBe(edges);
  });
});

describe("a verb is accepted", () => {
  it.each([
    ["cancel", "01111111000"],
    ["pause", "01111100000"],
    ["resume", "01111100000"],
    ["set-speed", "01111100000"],
    ["complete", "00001100000"],
    ["finalize", "00000001000"],
    ["dismiss", "00000000010"],
  ] as const)("%s", (verb, table) => {
    expect(STATUSES.map((status) => (acceptsVerb(status, verb) ? "1" : "0")).join("")).toBe(table);
  });
});

it("names what is completed and what is ready", () => {
  expect(STATUSES.filter(isCompletedStatus)).toEqual([
    "waiting",
    "pending",
    "aborting",
    "concluded",
    "null",
  ]);
  expect(STATUSES.filter(isReadyStatus)).toEqual(["ready", "standby"]);
});
