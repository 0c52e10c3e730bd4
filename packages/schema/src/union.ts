import { Members, type MembersSchema, readObject } from "./members.ts";
import {
  type Fields,
  type Flatten,
  type InferFields,
  type ObjectSchema,
  object,
} from "./object.ts";
import type { Position } from "./reading.ts";
import { describeEnumeration, reportNotOneOf } from "./scalars.ts";
import { applyCheck, type Check, type Infer, type Read, SchemaBase } from "./schema.ts";
import type { TypeCollector, TypeInfo } from "./type-collector.ts";

/** What a union may choose between: objects, and unions by another member. */
export type Variants = Readonly<Record<string, MembersSchema<unknown>>>;

type Variant<Tag extends string, K extends string, B, T> = T extends unknown
  ? Flatten<{ readonly [P in Tag]: K } & B & T>
  : never;

/** The TypeScript type of a union: one object type for each variant. */
export type UnionValue<Tag extends string, V extends Variants, B extends Fields> = {
  [K in keyof V & string]: Variant<Tag, K, InferFields<B>, Infer<V[K]>>;
}[keyof V & string];

/** What all variants of a union share. */
export interface UnionOptions<B extends Fields, in T> {
  /** Members that every variant has. */
  readonly base?: B;
  /** Called when every member fits. */
  readonly check?: Check<T>;
}

/**
 * An object whose member `tag` decides which other members it has.
 *
 * @param tag - the deciding member, which the variants do not declare
 * @param variants - what further members there are for each value of the tag
 */
// biome-ignore lint/complexity/noBannedTypes: `{}` is the object without members, the neutral element here.
export function union<Tag extends string, const V extends Variants, const B extends Fields = {}>(
  tag: Tag,
  variants: V,
  options: UnionOptions<B, UnionValue<Tag, V, B>> = {},
): MembersSchema<UnionValue<Tag, V, B>> {
  return new TaggedUnion(tag, variants, options);
}

class TaggedUnion<T> extends SchemaBase<T> implements MembersSchema<T> {
  readonly typeName = "object";
  readonly #tag: string;
  readonly #variants: ReadonlyMap<string, MembersSchema<unknown>>;
  readonly #base: ObjectSchema<unknown>;
  readonly #check: Check<T> | undefined;

  constructor(tag: string, variants: Variants, options: UnionOptions<Fields, T>) {
    super();
    this.#tag = tag;
    this.#variants = new Map(Object.entries(variants));
    this.#base = object<Fields>(options.base ?? {});
    this.#check = options.check;
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
    const variant = this.#readTag(members, at.member(this.#tag), own);
    const isBaseComplete = this.#base.readMembers(members, at, own);
    if (variant === undefined) {
      members.declareAll();
      return false;
    }
    const isVariantComplete = variant.readMembers(members, at, own);
    for (const [name, value] of own) {
      result.set(name, value);
    }
    return (
      isBaseComplete &&
      isVariantComplete &&
      applyCheck(this.#check, Object.fromEntries(own) as T, at) !== undefined
    );
  }

  #readTag(
    members: Members,
    at: Position,
    result: Map<string, unknown>,
  ): MembersSchema<unknown> | undefined {
    const value = members.take(this.#tag);
    if (value === undefined) {
      return at.report(`Parameter '${at.fullName}' is missing`, {
        expected: "string",
        hint: `allowed: ${[...this.#variants.keys()].join(", ")}`,
      });
    }
    if (typeof value !== "string") {
      return at.reportType("string", value, { scalar: true });
    }
    result.set(this.#tag, value);
    return this.#variants.get(value) ?? reportNotOneOf(value, [...this.#variants.keys()], at);
  }

  describeMembers(types: TypeCollector): Extract<TypeInfo, { "meta-type": "object" }> {
    const tagType = describeEnumeration([...this.#variants.keys()], types);
    return {
      "meta-type": "object",
      members: [{ name: this.#tag, type: tagType }, ...this.#base.describeMembers(types).members],
      tag: this.#tag,
      variants: [...this.#variants].map(([name, variant]) => ({
        case: name,
        type: variant.describe(types),
      })),
    };
  }

  describe(types: TypeCollector): string {
    return types.define(this, () => this.describeMembers(types));
  }
}
