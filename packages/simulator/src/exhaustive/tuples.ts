/** All lists of `length` values, each value any of those given. */
export function tuples<Value>(values: readonly Value[], length: number): Value[][] {
  if (length === 0) return [[]];
  return values.flatMap((value) => tuples(values, length - 1).map((rest) => [value, ...rest]));
}

/** All different orders of the values. */
export function orders<Value>(values: readonly Value[]): Value[][] {
  if (values.length === 0) return [[]];
  return [...new Set(values)].flatMap((value) =>
    orders(values.toSpliced(values.indexOf(value), 1)).map((rest) => [value, ...rest]),
  );
}
