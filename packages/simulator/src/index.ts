export {
  type CampaignOptions,
  type CampaignReport,
  type FailedSeed,
  runCampaign,
} from "./campaign.ts";
export { type DecisionSource, Decisions, trimmed } from "./decisions.ts";
export {
  type DiscardEffect,
  type DiskBehaviour,
  type DiskOperation,
  FATES,
  type Fate,
  PROMPT,
} from "./disk/disk-behaviour.ts";
export { Medium, type MediumOptions } from "./disk/medium.ts";
export {
  SimulatedDisk,
  type SimulatedDiskOptions,
  simulatedDisk,
} from "./disk/simulated-disk.ts";
export {
  type CachedChange,
  type SectorChoice,
  VolatileCache,
} from "./disk/volatile-cache.ts";
export { channelDrain, type Drain, defaultDrain, immediateDrain, nativeDrain } from "./drain.ts";
export {
  type OracleKind,
  type OracleOperation,
  RegisterOracle,
  type RegisterOracleOptions,
} from "./register-oracle.ts";
export { type Outcome, type RunOptions, runSeed } from "./run-seed.ts";
export { type ShrinkOptions, type Shrunk, shrink } from "./shrink.ts";
export { type SimulatedMediumOptions, Simulation, type World } from "./simulation.ts";
export { SimulationFailure } from "./simulation-failure.ts";
export { type CellContent, describeCell, readStamp, writeStamp } from "./stamp.ts";
export { Trace } from "./trace.ts";
export { WorldScheduler, type WorldSchedulerOptions } from "./world-scheduler.ts";
export { findWorld, worlds } from "./worlds/all-worlds.ts";
export { backupWorld } from "./worlds/backup.ts";
export { requestLayerWorld } from "./worlds/request-layer.ts";
