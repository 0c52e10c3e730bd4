export { BackupJob } from "./backup-job.ts";
export {
  type BackupOptions,
  type BitmapMode,
  backupOptionsSchema,
  type SyncMode,
} from "./backup-options.ts";
export { Backups, type BackupsOptions, type StartAllOptions } from "./backups.ts";
