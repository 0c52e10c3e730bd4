import { describe, expect, it } from "vitest";
import { type PendingFree, PendingFrees } from "../src/image/pending-frees.ts";

const free = (offset: number, length = 512): PendingFree => ({ offset, length, discard: "never" });

describe("clusters that wait to be freed", () => {
  it("count until they are taken, whichever way they came", () => {
    const frees = new PendingFrees();
    frees.add(free(0));
    frees.addDurable([free(4096, 1024)]);
    expect(frees.bytes).toBe(1536);
    frees.becameDurable(frees.takeWaiting());
    expect(frees.bytes).toBe(1536);
    const taken = frees.takeDurable(({ offset }) => offset === 0);
    expect([taken, frees.bytes, frees.isEmpty]).toEqual([[free(4096, 1024)], 512, false]);
    frees.addDurable(taken);
    expect(frees.bytes).toBe(1536);
    expect(frees.takeDurable(() => false)).toHaveLength(2);
    expect([frees.bytes, frees.isEmpty]).toEqual([0, true]);
  });

  it("wait again when the write that unlinks them did not come about", () => {
    const frees = new PendingFrees();
    frees.add(free(0));
    const taken = frees.takeWaiting();
    frees.add(free(512));
    frees.giveBack(taken);
    expect(frees.takeWaiting()).toEqual([free(0), free(512)]);
  });

  it("are one where they lie together and are freed alike", () => {
    const frees = new PendingFrees();
    frees.add(free(0));
    frees.add(free(512));
    frees.add({ ...free(1024), discard: "request" });
    expect(frees.takeWaiting()).toEqual([free(0, 1024), { ...free(1024), discard: "request" }]);
  });
});
