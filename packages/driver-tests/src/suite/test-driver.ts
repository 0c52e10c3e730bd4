import { modelTest } from "../model-test.ts";
import { concurrencyTraits } from "./concurrency-traits.ts";
import { type ConformanceOptions, declared, type SuiteContext } from "./conformance-options.ts";
import { dataTraits } from "./data-traits.ts";
import { failureTraits } from "./failure-traits.ts";
import { flagTraits } from "./flag-traits.ts";
import { lifeTraits } from "./life-traits.ts";
import { statusTraits } from "./status-traits.ts";
import { withSubject } from "./subject.ts";

/**
 * Registers the conformance suite for one driver: what every driver promises by the contract of `driver`.
 *
 * The suite sends valid requests only, as a graph does: inside the disk, aligned, not longer than the limits,
 * never of zero length. It does not judge what is the driver's own.
 *
 * @see CONTRIBUTING.md
 */
export function testDriver(options: ConformanceOptions): void {
  const { describe, it } = options;
  const context: SuiteContext = {
    options,
    capabilities: declared(options.capabilities),
    describe,
    it,
  };
  describe(`${options.name} conforms`, () => {
    describe("requests", () => dataTraits(context));
    describe("flags", () => flagTraits(context));
    describe("status and length", () => statusTraits(context));
    describe("requests at once", () => concurrencyTraits(context));
    describe("failing children", () => failureTraits(context));
    describe("life", () => lifeTraits(context));
    if (context.capabilities.contents === "stored") {
      describe("model", () => modelRows(context));
    }
  });
}

function modelRows(context: SuiteContext): void {
  const { options, it } = context;
  const { seedCount = 4, stepCount = 60 } = options;
  for (let seed = 0; seed < seedCount; seed += 1) {
    it(`equals an array of bytes over ${stepCount} random operations, seed ${seed}`, () =>
      withSubject(context, "fresh", ({ driver }) => modelTest(driver, seed, stepCount)));
  }
}
