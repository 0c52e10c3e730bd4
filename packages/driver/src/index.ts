export type { BlockChild } from "./child.ts";
export {
  type ChildSpec,
  type CreateContext,
  type DriverDefinition,
  defineDriver,
  type MeasureResult,
  type NodeReference,
  type OptionsOf,
} from "./definition.ts";
export type { Directory, DirectoryEntry, DirectoryLock } from "./directory.ts";
export type {
  BlockDriver,
  DriverFlags,
  PermissionChange,
  PreparedReopen,
  ReopenChange,
} from "./driver.ts";
export { FilterDriver } from "./filter-driver.ts";
export {
  type ChildOptionState,
  type FreezeHold,
  type GenericNodeOptions,
  ImageReferencePolicy,
  type NodeHost,
} from "./host.ts";
export type {
  AmendProgress,
  CheckOptions,
  CheckResult,
  ImageInfo,
  RepairMode,
  SnapshotInfo,
  SnapshotStore,
} from "./image.ts";
export { type BlockLimits, DEFAULT_LIMITS, MAX_REQUEST, mergeLimits } from "./limits.ts";
export type {
  ResizeRequest,
  WriteKind,
  WriteObserver,
  WriteRequest,
} from "./observer.ts";
export {
  ALL_PERMISSIONS,
  type ChildPermissionsInput,
  defaultChildPermissions,
  filterPermissions,
  formatPermissions,
  type Permission,
  type PermissionName,
  type PermissionSet,
  Permissions,
  permissionMask,
  permissionNames,
} from "./permissions.ts";
export type {
  BitmapContent,
  LogStore,
  OwnerState,
  PersistentBitmaps,
  StoredBitmap,
} from "./persistent-bitmaps.ts";
export {
  completed,
  type Preallocation,
  RequestFlag,
  type RequestOptions,
  rejected,
  type TruncateOptions,
} from "./request.ts";
export { checkRole, Role, type RoleMask } from "./role.ts";
export {
  type BlockStatus,
  type ChainStatusOptions,
  StatusFlag,
  type StatusOptions,
} from "./status.ts";
