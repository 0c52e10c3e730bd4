/** Names of the builtin types, as `query-qmp-schema` lists them. */
export type BuiltinName = "str" | "int" | "number" | "bool" | "null" | "any";

/** A member of an object; it is optional exactly when `default` is present. */
export interface MemberInfo {
  readonly name: string;
  readonly type: string;
  readonly default?: null;
}

/** What an introspection says of a type, but for its name. */
export type TypeInfo =
  | {
      readonly "meta-type": "builtin";
      readonly "json-type": "string" | "int" | "number" | "boolean" | "null" | "value";
    }
  | {
      readonly "meta-type": "enum";
      readonly members: readonly { readonly name: string }[];
      readonly values: readonly string[];
    }
  | { readonly "meta-type": "array"; readonly "element-type": string }
  | {
      readonly "meta-type": "object";
      readonly members: readonly MemberInfo[];
      readonly tag?: string;
      readonly variants?: readonly { readonly case: string; readonly type: string }[];
    }
  | { readonly "meta-type": "alternate"; readonly members: readonly { readonly type: string }[] }
  | {
      readonly "meta-type": "command";
      readonly "arg-type": string;
      readonly "ret-type": string;
      readonly "allow-oob"?: true;
    }
  | { readonly "meta-type": "event"; readonly "arg-type": string };

/** One element of what `query-qmp-schema` returns. @see spec/qmp.md section B.11 */
export type SchemaInfo = { readonly name: string } & TypeInfo;

/** Where schemas put the description of their types; each type is described once. */
export interface TypeCollector {
  /** The name of a builtin type, which is listed from now on. */
  builtin(name: BuiltinName): string;
  /**
   * The name of a type, which is built at its first mention.
   *
   * The name is known before `build` runs, so that a type may mention itself.
   *
   * @param key - what makes two mentions the same type: the schema, or a text for types equal by value
   */
  define(key: object | string, build: () => TypeInfo): string;
  /** The name of the array of a type, `[7]` for the type `7`. */
  arrayOf(elementType: string): string;
}

const JSON_TYPES = {
  str: "string",
  int: "int",
  number: "number",
  bool: "boolean",
  null: "null",
  any: "value",
} as const;

/** Collects types under opaque numbers, but for those whose name was chosen before. */
export class TypeList implements TypeCollector {
  readonly #names = new Map<object | string, string>();
  readonly #infos = new Map<string, SchemaInfo>();
  readonly #chosen: ReadonlyMap<object | string, string>;
  #nextNumber = 0;

  constructor(chosen: ReadonlyMap<object | string, string> = new Map()) {
    this.#chosen = chosen;
  }

  builtin(name: BuiltinName): string {
    this.add(name, { "meta-type": "builtin", "json-type": JSON_TYPES[name] });
    return name;
  }

  define(key: object | string, build: () => TypeInfo): string {
    const known = this.#names.get(key);
    if (known !== undefined) {
      return known;
    }
    const name = this.#chosen.get(key) ?? String(this.#nextNumber++);
    this.#names.set(key, name);
    this.add(name, build());
    return name;
  }

  arrayOf(elementType: string): string {
    const name = `[${elementType}]`;
    this.add(name, { "meta-type": "array", "element-type": elementType });
    return name;
  }

  add(name: string, info: TypeInfo): void {
    if (!this.#infos.has(name)) {
      this.#infos.set(name, { name, ...info });
    }
  }

  list(): readonly SchemaInfo[] {
    return [...this.#infos.values()];
  }
}
