export { alternate, lazy, nullable } from "./alternate.ts";
export { type ArrayOptions, array } from "./array.ts";
export {
  type CommandInfo,
  type CommandOptions,
  command,
  type EventInfo,
  type EventOptions,
  event,
  type IntrospectionEntry,
  introspect,
} from "./introspection.ts";
export {
  type KeyValueOptions,
  type Nested,
  nestKeyValue,
  parseKeyValue,
} from "./key-value.ts";
export type { MembersSchema } from "./members.ts";
export { type IntegerOptions, integer, type NumberOptions, number, size } from "./numbers.ts";
export {
  type Extended,
  type Fields,
  type Flatten,
  type InferFields,
  type ObjectOptions,
  type ObjectSchema,
  type OptionalMember,
  object,
  optional,
} from "./object.ts";
export {
  describeProblems,
  type ParseResult,
  type Problem,
} from "./problem.ts";
export { MAX_DEPTH, type Notation, type Position } from "./reading.ts";
export {
  any,
  boolean,
  enumeration,
  literal,
  nullValue,
  type StringOptions,
  string,
} from "./scalars.ts";
export type { Check, Infer, Read, Schema } from "./schema.ts";
export type {
  BuiltinName,
  MemberInfo,
  SchemaInfo,
  TypeCollector,
  TypeInfo,
} from "./type-collector.ts";
export { type UnionOptions, type UnionValue, union, type Variants } from "./union.ts";
