import { mergeConfig } from "vitest/config";
import { shared } from "../../vitest.shared.ts";

/** Whole runs of the demo mostly wait; three at a time keep two cores busy. */
export default mergeConfig(shared, { test: { maxConcurrency: 3 } });
