export type { FailureRule, MemoryOperation } from "./failure-rules.ts";
export { type MemoryOptions, memory } from "./memory.ts";
export { MemoryDriver, type MemoryDriverOptions } from "./memory-driver.ts";
