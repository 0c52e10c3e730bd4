export type { Clock, Env, Random } from "./env.ts";
export { type ManualClock, type ManualEnv, manualEnv } from "./manual-env.ts";
export { OffloadQueue } from "./offload-queue.ts";
export { type RealEnvOptions, realEnv } from "./real-env.ts";
export { SeededRandom } from "./seeded-random.ts";
export { SeededScheduler, type SeededSchedulerOptions } from "./seeded-scheduler.ts";
export { settleTurn } from "./turn.ts";
