export type { ImageCheckOptions } from "./check/check-image.ts";
export type { CheckFinding, OnFinding } from "./check/findings.ts";
export type { ClusterCodec, Codecs } from "./codecs.ts";
export type { Qcow2AmendOptions } from "./operations/amend-options.ts";
export type { Qcow2CreateOptions } from "./operations/create-options.ts";
export type { OverlapFlags, OverlapTemplate, Qcow2Options } from "./options.ts";
export { type Qcow2DefinitionOptions, qcow2Definition } from "./qcow2.ts";
export { Qcow2Driver } from "./qcow2-driver.ts";
