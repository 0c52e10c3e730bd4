export {
  ConformanceError,
  expect,
  expectBlockError,
  expectBytes,
  expectRejection,
  expectSame,
  type Outcome,
  outcomeOf,
} from "./expect.ts";
export { modelTest, modelTests } from "./model-test.ts";
export { PassThroughFilter, passThrough } from "./pass-through-filter.ts";
export { joinBuffers, patternBytes } from "./pattern.ts";
export {
  ReferenceDisk,
  type ReferenceDiskOptions,
  type ReferenceOptions,
  reference,
} from "./reference-disk.ts";
export {
  type GatedRequest,
  type GateFailure,
  type ReleaseOrder,
  RequestGate,
  releaseOrders,
} from "./request-gate.ts";
export {
  type ScriptedDefinition,
  ScriptedDriver,
  type ScriptedDriverOptions,
  type ScriptedNodeOptions,
  type ScriptedOperation,
  type ScriptedRequest,
  scriptedDefinition,
} from "./scripted-driver.ts";
export { SeededDisk } from "./seeded-disk.ts";
export type { ConformanceOptions, DriverCapabilities } from "./suite/conformance-options.ts";
export { testDriver } from "./suite/test-driver.ts";
export { TestChild, type TestChildOptions, testChild } from "./test-child.ts";
export {
  type AnyDefinition,
  type ChildDefinition,
  type ChildSource,
  TestHost,
  type TestHostOptions,
} from "./test-host.ts";
export { type ContentReader, checkStatus, readAll, writeAll } from "./whole-disk.ts";
