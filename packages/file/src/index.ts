export {
  type FileDefinitionOptions,
  file,
  fileDefinition,
  hostDevice,
  hostDeviceDefinition,
} from "./definition.ts";
export { type OpenDirectoryOptions, openDirectory } from "./directory.ts";
export type { FileCreateOptions, FileOptions } from "./file-options.ts";
export type { NativeCalls } from "./native-calls.ts";
export { type OperatingSystemOptions, operatingSystem } from "./node-system.ts";
export type { FileStat, FileSystemStat, OperatingSystem } from "./operating-system.ts";
