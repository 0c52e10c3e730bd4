export { type AcquireOptions, RangeLock, type WaitOptions } from "./range-lock.ts";
export type { RangeHold, RangeMode } from "./range-request.ts";
