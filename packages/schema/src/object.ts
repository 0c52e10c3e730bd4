import { Members, type MembersSchema, readObject } from "./members.ts";
import type { Position } from "./reading.ts";
import {
  applyCheck,
  type Check,
  type Infer,
  type Read,
  type Schema,
  SchemaBase,
} from "./schema.ts";
import type { MemberInfo, TypeCollector, TypeInfo } from "./type-collector.ts";

/** A member that may be absent; `D` is true when a default takes its place. */
export interface OptionalMember<out T, D extends boolean> {
  readonly schema: Schema<T>;
  readonly hasDefault: D;
  readonly defaultValue?: T;
}

/** The members of an object by name. */
export type Fields = Readonly<Record<string, Schema<unknown> | OptionalMember<unknown, boolean>>>;

type AbsentNames<F> = {
  [K in keyof F]: F[K] extends OptionalMember<unknown, false> ? K : never;
}[keyof F];

type MemberValue<M> = M extends OptionalMember<infer T, boolean> ? T : Infer<M>;

/** One object type instead of an intersection, so that editors show it. */
export type Flatten<T> = { [K in keyof T]: T[K] };

/** The TypeScript type of an object with these members. */
export type InferFields<F> = Flatten<
  { readonly [K in Exclude<keyof F, AbsentNames<F>>]: MemberValue<F[K]> } & {
    readonly [K in AbsentNames<F>]?: MemberValue<F[K]>;
  }
>;

/** The TypeScript type of an object that got more members. */
export type Extended<T, G> = Flatten<Omit<T, keyof G> & InferFields<G>>;

/** Rules over several members at once. */
export interface ObjectOptions<in T> {
  /** Called when every member fits. */
  readonly check?: Check<T>;
}

/** A schema of objects that can grow members and be the variant of a union. */
export interface ObjectSchema<T> extends MembersSchema<T> {
  readonly fields: Fields;
  /** The same object with more members; those of the same name are replaced, a check is kept. */
  extend<const G extends Fields>(fields: G): ObjectSchema<Extended<T, G>>;
}

/**
 * Marks a member that may be absent.
 *
 * Without a default the member stays absent after parsing; with one it is always present.
 */
export function optional<T>(schema: Schema<T>): OptionalMember<T, false>;
export function optional<T>(schema: Schema<T>, defaultValue: NoInfer<T>): OptionalMember<T, true>;
export function optional<T>(schema: Schema<T>, ...rest: [] | [T]): OptionalMember<T, boolean> {
  return rest.length === 0
    ? { schema, hasDefault: false }
    : { schema, hasDefault: true, defaultValue: rest[0] };
}

/** An object with these members and no others. */
export function object<const F extends Fields>(
  fields: F,
  options: ObjectOptions<InferFields<F>> = {},
): ObjectSchema<InferFields<F>> {
  return new FieldsSchema(fields, options.check);
}

class FieldsSchema<T> extends SchemaBase<T> implements ObjectSchema<T> {
  readonly typeName = "object";
  readonly fields: Fields;
  readonly #check: Check<T> | undefined;

  constructor(fields: Fields, check: Check<T> | undefined) {
    super();
    this.fields = fields;
    this.#check = check;
  }

  extend<const G extends Fields>(fields: G): ObjectSchema<Extended<T, G>> {
    // The check reads members of T; one that G replaces by another type is its author's to reconcile.
    const check = this.#check as Check<unknown> | undefined;
    return new FieldsSchema<Extended<T, G>>({ ...this.fields, ...fields }, check);
  }

  accepts(value: unknown): boolean {
    return Members.of(value) !== undefined;
  }

  read(value: unknown, at: Position): Read<T> {
    const result = readObject(this, value, at);
    return result === undefined ? undefined : { value: result as T };
  }

  readMembers(members: Members, at: Position, result: Map<string, unknown>): boolean {
    const own = new Map<string, unknown>();
    let isComplete = true;
    for (const [name, field] of Object.entries(this.fields)) {
      const read = readMember(field, members.take(name), at.member(name));
      isComplete &&= read !== undefined;
      if (read?.value !== undefined) {
        own.set(name, read.value);
        result.set(name, read.value);
      }
    }
    return isComplete && applyCheck(this.#check, Object.fromEntries(own) as T, at) !== undefined;
  }

  describeMembers(types: TypeCollector): Extract<TypeInfo, { "meta-type": "object" }> {
    return { "meta-type": "object", members: describeFields(this.fields, types) };
  }

  describe(types: TypeCollector): string {
    return types.define(this, () => this.describeMembers(types));
  }
}

/** Members as an introspection lists them. */
export function describeFields(fields: Fields, types: TypeCollector): readonly MemberInfo[] {
  return Object.entries(fields).map(([name, field]) =>
    "hasDefault" in field
      ? { name, type: field.schema.describe(types), default: null }
      : { name, type: field.describe(types) },
  );
}

/** A value of `undefined` in the box is an absent optional member. */
function readMember(
  field: Schema<unknown> | OptionalMember<unknown, boolean>,
  value: unknown,
  at: Position,
): Read<unknown> {
  if (value !== undefined) {
    return ("hasDefault" in field ? field.schema : field).read(value, at);
  }
  if ("hasDefault" in field) {
    return { value: field.defaultValue };
  }
  return at.report(`Parameter '${at.fullName}' is missing`, { expected: field.typeName });
}
