import type { ParseResult, Problem } from "./problem.ts";
import { MAX_DEPTH } from "./reading.ts";

/** Characters of one part of a dotted key. */
const MAX_FRAGMENT = 127;

/** A name, which may start with a reversed domain of a vendor as in `__com.example_name`, or an index. */
const FRAGMENT = /(?:__[A-Za-z0-9.-]+_)?[A-Za-z][A-Za-z0-9_-]*|[0-9]+/y;
const INDEX = /^[0-9]+$/;

/** How key=value text is read. */
export interface KeyValueOptions {
  /**
   * The key of a first element without `=`: with `driver`, `raw,size=5` reads as `driver=raw,size=5`.
   *
   * Such a value ends at its first comma; doubling it does not help.
   */
  readonly impliedKey?: string;
}

/** What dotted keys mean: text, lists and objects of them. */
export type Nested = string | readonly Nested[] | { readonly [name: string]: Nested };

interface Tree extends Map<string, string | Tree> {}

/**
 * Splits `driver=raw,file.filename=a,,b` into its pairs; keys stay dotted.
 *
 * Pairs are separated by commas and a comma in a value is doubled. The last of equal keys wins. A trailing
 * comma is allowed, empty text is no pair. The result has no prototype.
 *
 * @see spec/qmp.md section C.1, key=value syntax; texts observed, 7.2
 */
export function parseKeyValue(
  text: string,
  options: KeyValueOptions = {},
): ParseResult<Readonly<Record<string, string>>> {
  const pairs: Record<string, string> = Object.create(null);
  let position = 0;
  while (position < text.length) {
    const keyEnd = endOfKey(text, position);
    const isImplied =
      position === 0 && options.impliedKey !== undefined && text[keyEnd] !== "=" && keyEnd > 0;
    const key = isImplied ? (options.impliedKey ?? "") : text.slice(position, keyEnd);
    const problem = isImplied ? undefined : problemOfKey(key);
    if (problem !== undefined) {
      return { ok: false, problems: [problem] };
    }
    if (!isImplied && text[keyEnd] !== "=") {
      return failed(key, `Expected '=' after parameter '${key}'`);
    }
    const value = isImplied
      ? { text: text.slice(0, keyEnd), next: keyEnd + 1 }
      : readValue(text, keyEnd + 1);
    pairs[key] = value.text;
    position = value.next;
  }
  return { ok: true, value: pairs };
}

/**
 * Builds the objects and lists that dotted keys stand for; every scalar stays text.
 *
 * A key part that is a number counts the elements of a list, from 0 and without gaps.
 *
 * @param options - dotted keys and their values
 */
export function nestKeyValue(
  options: Readonly<Record<string, string>>,
): ParseResult<{ readonly [name: string]: Nested }> {
  const pairs = pairsOf(options);
  if (pairs === undefined) {
    return failed("", "Invalid parameter type for 'value', expected: object");
  }
  const root: Tree = new Map();
  for (const [key, text] of pairs) {
    const problem = problemOfKey(key) ?? plant(root, key, text);
    if (problem !== undefined) {
      return { ok: false, problems: [problem] };
    }
  }
  const problems: Problem[] = [];
  const value = shape(root, "", problems);
  return problems.length === 0
    ? { ok: true, value: value as { readonly [name: string]: Nested } }
    : { ok: false, problems };
}

/** The pairs of an object; nothing for another value, which JavaScript callers may pass. */
function pairsOf(options: unknown): readonly [string, unknown][] | undefined {
  return typeof options === "object" && options !== null ? Object.entries(options) : undefined;
}

function endOfKey(text: string, start: number): number {
  let end = start;
  while (end < text.length && text[end] !== "=" && text[end] !== ",") {
    end++;
  }
  return end;
}

/** Reads up to a single comma; `next` is behind it. */
function readValue(text: string, start: number): { text: string; next: number } {
  let value = "";
  let position = start;
  while (position < text.length) {
    const comma = text.indexOf(",", position);
    if (comma === -1) {
      return { text: value + text.slice(position), next: text.length };
    }
    if (text[comma + 1] !== ",") {
      return { text: value + text.slice(position, comma), next: comma + 1 };
    }
    value += text.slice(position, comma + 1);
    position = comma + 2;
  }
  return { text: value, next: position };
}

function failed(path: string, message: string, hint?: string): { ok: false; problems: Problem[] } {
  return { ok: false, problems: [problemAt(path, message, hint)] };
}

function problemAt(path: string, message: string, hint?: string): Problem {
  return { path, message, ...(hint === undefined ? {} : { hint }) };
}

/** The parts of a dotted key; `undefined` when it is not one. */
function fragmentsOf(key: string): readonly string[] | undefined {
  const fragments: string[] = [];
  let position = 0;
  for (;;) {
    FRAGMENT.lastIndex = position;
    const fragment = FRAGMENT.exec(key)?.[0];
    if (fragment === undefined || (position === 0 && INDEX.test(fragment))) {
      return undefined;
    }
    fragments.push(fragment);
    position += fragment.length;
    if (position === key.length) {
      return fragments;
    }
    if (key[position] !== ".") {
      return undefined;
    }
    position++;
  }
}

function problemOfKey(key: string): Problem | undefined {
  const fragments = fragmentsOf(key);
  if (fragments === undefined) {
    return problemAt(
      key,
      `Invalid parameter '${key}'`,
      "names start with a letter and consist of letters, digits, '-' and '_'; parts are separated by '.'",
    );
  }
  const long = fragments.find((fragment) => fragment.length > MAX_FRAGMENT);
  if (long !== undefined) {
    const what = long === key ? "Parameter" : "Parameter fragment";
    return problemAt(key, `${what} '${long}' is too long`, `at most ${MAX_FRAGMENT} characters`);
  }
  return fragments.length > MAX_DEPTH
    ? problemAt(
        key,
        `Parameter '${key}' is nested too deeply`,
        `at most ${MAX_DEPTH} levels are allowed`,
      )
    : undefined;
}

/** Puts one value into the tree. */
function plant(root: Tree, key: string, text: unknown): Problem | undefined {
  if (typeof text !== "string") {
    return {
      ...problemAt(key, `Invalid parameter type for '${key}', expected: string`),
      expected: "string",
      received: text,
    };
  }
  const fragments = fragmentsOf(key) ?? [];
  let tree = root;
  for (const [index, fragment] of fragments.slice(0, -1).entries()) {
    const found = tree.get(fragment) ?? new Map();
    if (typeof found === "string") {
      return inconsistent(fragments.slice(0, index + 1).join("."));
    }
    tree.set(fragment, found);
    tree = found;
  }
  const last = fragments.at(-1) ?? "";
  if (tree.get(last) instanceof Map) {
    return inconsistent(key);
  }
  tree.set(last, text);
  return undefined;
}

function inconsistent(path: string): Problem {
  return problemAt(
    path,
    `Parameters '${path}.*' used inconsistently`,
    `'${path}' is one of: a single value, an object, a list`,
  );
}

/** Turns a tree into objects and lists. */
function shape(tree: Tree, path: string, problems: Problem[]): Nested {
  const entries = [...tree].map(([name, value]): [string, Nested] => {
    const childPath = path === "" ? name : `${path}.${name}`;
    return [name, typeof value === "string" ? value : shape(value, childPath, problems)];
  });
  const indexCount = entries.filter(([name]) => INDEX.test(name)).length;
  if (indexCount === 0) {
    return Object.fromEntries(entries);
  }
  if (indexCount < entries.length) {
    problems.push(inconsistent(path));
    return [];
  }
  return listOf(entries, path, problems);
}

function listOf(entries: readonly [string, Nested][], path: string, problems: Problem[]): Nested {
  const items = new Map(entries.map(([name, value]) => [Number(name), value]));
  const list: Nested[] = [];
  for (let index = 0; index < items.size; index++) {
    const item = items.get(index);
    if (item === undefined) {
      const hint = "list elements are numbered from 0 without gaps";
      problems.push(problemAt(`${path}.${index}`, `Parameter '${path}.${index}' missing`, hint));
      return [];
    }
    list.push(item);
  }
  return list;
}
