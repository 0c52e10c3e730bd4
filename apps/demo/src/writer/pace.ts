/** Bytes of one write. */
export const WRITE_SIZE = 4096;
/** Writes that are under way at once. */
export const LANES = 8;
/** Rest after each write, so that the rate is bounded and a stall is not made up for. Milliseconds. */
export const REST_MS = 4;
