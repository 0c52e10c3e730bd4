import type { Position } from "./reading.ts";
import { type Read, type Schema, SchemaBase } from "./schema.ts";
import type { TypeCollector } from "./type-collector.ts";

/** How many elements an array may have. */
export interface ArrayOptions {
  readonly maxItems?: number;
}

/** A list of values of one schema; in dotted keys `children.0=a,children.1=b`. */
export function array<T>(element: Schema<T>, options: ArrayOptions = {}): Schema<readonly T[]> {
  return new ArraySchema(element, options);
}

class ArraySchema<T> extends SchemaBase<readonly T[]> {
  readonly typeName = "array";
  readonly #element: Schema<T>;
  readonly #options: ArrayOptions;

  constructor(element: Schema<T>, options: ArrayOptions) {
    super();
    this.#element = element;
    this.#options = options;
  }

  accepts(value: unknown): boolean {
    return itemsOf(value) !== undefined;
  }

  read(value: unknown, at: Position): Read<readonly T[]> {
    const items = itemsOf(value);
    if (items === undefined) {
      return at.reportType("array", value);
    }
    const { maxItems = Number.POSITIVE_INFINITY } = this.#options;
    if (items.length > maxItems) {
      return at.report(
        `Parameter '${at.fullName}' expects at most ${maxItems} element${maxItems === 1 ? "" : "s"}`,
        {
          hint: `it has ${items.length}`,
        },
      );
    }
    if (!at.mayDescend()) {
      return undefined;
    }
    const reads = items.map((item, index) => this.#element.read(item, at.item(index)));
    const good = reads.filter((read) => read !== undefined);
    return good.length === reads.length ? { value: good.map((read) => read.value) } : undefined;
  }

  describe(types: TypeCollector): string {
    return types.arrayOf(this.#element.describe(types));
  }
}

/** The elements of an array, holes as `undefined`; nothing for another value or one whose reading throws. */
function itemsOf(value: unknown): readonly unknown[] | undefined {
  try {
    return Array.isArray(value) ? Array.from(value) : undefined;
  } catch {
    return undefined;
  }
}
