import { describe, expect, it } from "vitest";
import { RangeLedger } from "../src/worlds/range-ledger.ts";

type Mode = "shared" | "exclusive";

function entry(text: string) {
  const [letter = "", offset = "0", length = "0"] = text.split(" ");
  const mode: Mode = letter.toLowerCase() === "s" ? "shared" : "exclusive";
  const takes = letter === letter.toUpperCase();
  return { client: text, offset: Number(offset), length: Number(length), mode, takes };
}

describe("a ledger of ranges", () => {
  it.each([
    { what: "strangers", requests: ["X 0 4", "X 4 4"], states: ["held", "held"] },
    { what: "exclusive over exclusive", requests: ["X 0 4", "X 3 4"], states: ["held", "waiting"] },
    { what: "shared over shared", requests: ["S 0 4", "S 3 4"], states: ["held", "held"] },
    { what: "shared over exclusive", requests: ["X 0 4", "S 3 4"], states: ["held", "waiting"] },
    { what: "nothing", requests: ["X 0 4", "X 2 0"], states: ["held", "held"] },
    {
      what: "shared behind exclusive that waits",
      requests: ["S 0 4", "X 0 4", "S 0 4"],
      states: ["held", "waiting", "waiting"],
    },
    {
      what: "behind who takes nothing",
      requests: ["X 0 4", "x 0 8", "X 4 4"],
      states: ["held", "waiting", "held"],
    },
    { what: "who takes nothing, alone", requests: ["x 0 8"], states: ["gone"] },
  ])("knows who waits: $what", ({ requests, states }) => {
    const ledger = new RangeLedger();
    const made = requests.map((text) => {
      const wouldWait = ledger.wouldWait(entry(text));
      const request = ledger.request(entry(text));
      expect(request.state === "waiting").toBe(wouldWait);
      return request;
    });
    expect(made.map(({ state }) => state)).toEqual(states);
    expect([ledger.held, ledger.waiting]).toEqual([
      states.filter((state) => state === "held").length,
      states.filter((state) => state === "waiting").length,
    ]);
  });

  it("grants what a removal and a shrink leave free, and no more", () => {
    const ledger = new RangeLedger();
    const first = ledger.request(entry("X 0 8"));
    const low = ledger.request(entry("X 0 4"));
    const high = ledger.request(entry("X 4 4"));
    ledger.shrink(first, 4);
    expect([low.state, high.state]).toEqual(["waiting", "held"]);
    expect(ledger.rivals(low)).toEqual([first]);
    ledger.remove(first);
    expect([first.state, low.state]).toEqual(["gone", "held"]);
    expect(ledger.describe()).toEqual(["X 0 4: exclusive 0+4 held", "X 4 4: exclusive 4+4 held"]);
  });
});
