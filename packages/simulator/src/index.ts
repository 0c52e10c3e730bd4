export {
  type CampaignOptions,
  type CampaignReport,
  type FailedSeed,
  mergeReports,
  quantile,
  runCampaign,
} from "./campaign.ts";
export { Cancellation } from "./cancellation.ts";
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
export { smallSpaces, spaces } from "./exhaustive/all-spaces.ts";
export {
  type ExplorationReport,
  type ExploreOptions,
  explore,
  type FailedRun,
  following,
} from "./exhaustive.ts";
export { NoveltySearch } from "./novelty.ts";
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
export { allScenarios } from "./sweeps/all-scenarios.ts";
export { type SweepFinding, type SweepReport, type SweepScenario, sweep } from "./sweeps/sweep.ts";
export { Trace, type TraceOptions } from "./trace.ts";
export { WorldScheduler, type WorldSchedulerOptions } from "./world-scheduler.ts";
export { findWorld, worlds } from "./worlds/all-worlds.ts";
export { backupWorld } from "./worlds/backup.ts";
export { backupGroupWorld } from "./worlds/backup-group.ts";
export { bitmapsWorld } from "./worlds/bitmaps.ts";
export { blockCopyWorld } from "./worlds/block-copy.ts";
export { graphWorld } from "./worlds/graph.ts";
export { hbitmapWorld } from "./worlds/hbitmap.ts";
export { jobsWorld } from "./worlds/jobs.ts";
export { nbdWorld } from "./worlds/nbd.ts";
export { nbdRepliesWorld } from "./worlds/nbd-replies.ts";
export { qcow2World } from "./worlds/qcow2.ts";
export { qcow2CrashWorld } from "./worlds/qcow2-crash.ts";
export { rangeLockWorld } from "./worlds/range-lock.ts";
export { requestLayerWorld } from "./worlds/request-layer.ts";
export { snapshotAccessWorld } from "./worlds/snapshot-access.ts";
export { storedBitmapsWorld } from "./worlds/stored-bitmaps.ts";
