import type { Schema } from "./schema.ts";
import { type SchemaInfo, type TypeCollector, TypeList } from "./type-collector.ts";

/** What a command takes and gives. */
export interface CommandOptions {
  /** An object schema; without it the command takes no arguments. */
  readonly arguments?: Schema<unknown>;
  /** Without it the command returns an empty object. */
  readonly returns?: Schema<unknown>;
  /** Whether the command may be sent out of band. */
  readonly allowOob?: boolean;
}

/** What an event carries. */
export interface EventOptions {
  /** An object schema; without it the event has no data. */
  readonly data?: Schema<unknown>;
}

/** A command, as {@link introspect} takes it. */
export interface CommandInfo extends CommandOptions {
  readonly kind: "command";
}

/** An event, as {@link introspect} takes it. */
export interface EventInfo extends EventOptions {
  readonly kind: "event";
}

/** Describes a command for {@link introspect}. */
export function command(options: CommandOptions = {}): CommandInfo {
  return { ...options, kind: "command" };
}

/** Describes an event for {@link introspect}. */
export function event(options: EventOptions = {}): EventInfo {
  return { ...options, kind: "event" };
}

/** A type, a command or an event. */
export type IntrospectionEntry = Schema<unknown> | CommandInfo | EventInfo;

/**
 * Returns the description of schemas, commands and events that `query-qmp-schema` gives.
 *
 * Commands, events, and the objects, enumerations and alternates named here keep their names; other types
 * get opaque numbers. Scalars are builtins and have no entry of their own; an array is named for its element.
 *
 * @see spec/qmp.md section B.11
 */
export function introspect(
  entries: Readonly<Record<string, IntrospectionEntry>>,
): readonly SchemaInfo[] {
  const named = Object.entries(entries);
  const chosen = new Map<object | string, string>();
  for (const [name, entry] of named) {
    if (!("kind" in entry)) {
      chosen.set(entry, name);
    }
  }
  const types = new TypeList(chosen);
  for (const [name, entry] of named) {
    if (!("kind" in entry)) {
      entry.describe(types);
    } else if (entry.kind === "command") {
      types.add(name, {
        "meta-type": "command",
        "arg-type": typeOf(entry.arguments, types),
        "ret-type": typeOf(entry.returns, types),
        ...(entry.allowOob === true ? { "allow-oob": true } : {}),
      });
    } else {
      types.add(name, { "meta-type": "event", "arg-type": typeOf(entry.data, types) });
    }
  }
  return types.list();
}

function typeOf(schema: Schema<unknown> | undefined, types: TypeCollector): string {
  return schema === undefined
    ? types.define("empty object", () => ({ "meta-type": "object", members: [] }))
    : schema.describe(types);
}
