export { SliceLimiter } from "./slice-limiter.ts";
