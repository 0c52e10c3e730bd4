import {
  ALL_PERMISSIONS,
  type ChildPermissionsInput,
  defaultChildPermissions,
  filterPermissions,
  formatPermissions,
  type Permission,
  type PermissionName,
  permissionMask,
  permissionNames,
  Role,
} from "@blocklayer/driver";
import fc from "fast-check";
import { describe, expect, it } from "vitest";

/** `"r"` consistent-read, `"w"` write, `"u"` write-unchanged, `"s"` resize. */
function mask(text: string): Permission {
  return [..."rwus"].reduce((sum, letter, bit) => sum + (text.includes(letter) ? 2 ** bit : 0), 0);
}

function letters(permission: Permission): string {
  return [..."rwus"].filter((_letter, bit) => (permission & (2 ** bit)) !== 0).join("");
}

function input(
  perm: string,
  shared: string,
  options: Partial<ChildPermissionsInput> = {},
): ChildPermissionsInput {
  return {
    perm: mask(perm),
    shared: mask(shared),
    hasParents: true,
    writable: true,
    active: true,
    ...options,
  };
}

type Row = readonly [
  perm: string,
  shared: string,
  options: Partial<ChildPermissionsInput>,
  taken: string,
  given: string,
];

function table(role: number, rows: readonly Row[]): void {
  it.each(rows)(
    "from [%s] sharing [%s] %j takes [%s] and shares [%s]",
    (perm, shared, options, taken, given) => {
      const set = defaultChildPermissions(role, input(perm, shared, options));
      expect([letters(set.perm), letters(set.shared)]).toEqual([taken, given]);
    },
  );
}

describe("a filtered child", () => {
  const rows: readonly Row[] = [
    ["", "rwus", {}, "", "rwus"],
    ["rw", "ru", {}, "rw", "ru"],
    ["s", "", { writable: false }, "s", ""],
    ["rw", "r", { active: false }, "rw", "r"],
  ];
  table(Role.filtered, rows);
  table(Role.filtered | Role.primary, rows);
});

describe("a backing child", () => {
  table(Role.cow, [
    ["rwus", "rwus", {}, "r", "rwus"],
    ["wus", "rwus", {}, "", "rwus"],
    ["r", "ru", {}, "r", "ru"],
    ["r", "", {}, "r", "ru"],
    ["r", "ws", {}, "r", "rwus"],
    ["r", "s", {}, "r", "ru"],
    ["r", "", { active: false }, "r", "rwus"],
  ]);
});

describe("a metadata child", () => {
  table(Role.metadata, [
    ["", "rwus", { writable: true }, "rws", "ru"],
    ["", "rwus", { writable: false }, "r", "ru"],
    ["r", "rwus", { writable: false }, "r", "ru"],
    ["u", "ru", { writable: false }, "ru", "ru"],
    ["w", "", {}, "rws", ""],
    ["", "", { active: false }, "rws", "ws"],
    ["", "rwus", { active: false, writable: false }, "r", "rwus"],
  ]);
});

describe("a data child", () => {
  const rows: readonly Row[] = [
    ["", "rwus", {}, "", "rwu"],
    ["r", "rwus", {}, "r", "rwu"],
    ["w", "ru", {}, "ws", "ru"],
    ["u", "rwus", {}, "wus", "rwu"],
    ["s", "s", {}, "s", ""],
    ["r", "", { active: false }, "r", "ws"],
    ["", "rwus", { writable: false }, "", "rwu"],
  ];
  table(Role.data, rows);
  table(Role.data | Role.primary, rows);
});

describe("the file of an image", () => {
  table(Role.image, [
    ["", "rwus", {}, "rws", "ru"],
    ["", "rwus", { writable: false }, "r", "ru"],
    ["r", "rwus", { writable: false }, "r", "ru"],
    ["u", "rwus", { writable: false }, "rwus", "ru"],
    ["w", "r", {}, "rws", "r"],
    ["r", "r", { active: false, writable: false }, "r", "rws"],
  ]);
});

describe("names of permissions", () => {
  const rows: readonly (readonly [Permission, PermissionName[], string])[] = [
    [0, [], ""],
    [1, ["consistent-read"], "consistent read"],
    [10, ["write", "resize"], "write, resize"],
    [
      ALL_PERMISSIONS,
      ["consistent-read", "write", "write-unchanged", "resize"],
      "consistent read, write, write unchanged, resize",
    ],
  ];
  it.each(rows)("of %i are %j, in messages '%s'", (permission, names, text) => {
    expect(permissionNames(permission)).toEqual(names);
    expect(permissionMask(names)).toBe(permission);
    expect(permissionMask(names.toReversed())).toBe(permission);
    expect(formatPermissions(permission)).toBe(text);
  });

  it("refuses a name that is none", () => {
    expect(() => permissionMask(["read" as "write"])).toThrow(
      new RangeError(
        "'read' is no permission; there are consistent-read, write, write-unchanged, resize",
      ),
    );
  });
});

describe("for every input", () => {
  const anyInput = fc.record({
    perm: fc.nat(ALL_PERMISSIONS),
    shared: fc.nat(ALL_PERMISSIONS),
    hasParents: fc.boolean(),
    writable: fc.boolean(),
    active: fc.boolean(),
  });
  const role = fc.constantFrom(
    Role.filtered,
    Role.cow,
    Role.data,
    Role.metadata,
    Role.image,
    Role.data | Role.primary,
  );

  it("the answer is made of permissions, and the same twice", () => {
    fc.assert(
      fc.property(role, anyInput, (child, from) => {
        const set = defaultChildPermissions(child, Object.freeze(from));
        expect(set).toEqual(defaultChildPermissions(child, from));
        expect([set.perm & ~ALL_PERMISSIONS, set.shared & ~ALL_PERMISSIONS]).toEqual([0, 0]);
      }),
      { numRuns: 200 },
    );
  });

  it("more permissions of the parents never take fewer of the child", () => {
    fc.assert(
      fc.property(role, anyInput, fc.nat(ALL_PERMISSIONS), (child, from, more) => {
        const few = defaultChildPermissions(child, from).perm;
        const many = defaultChildPermissions(child, { ...from, perm: from.perm | more }).perm;
        expect(few & ~many).toBe(0);
      }),
      { numRuns: 200 },
    );
  });

  it("a filter takes and shares what its node does", () => {
    fc.assert(
      fc.property(anyInput, (from) => {
        expect(filterPermissions(from)).toEqual({ perm: from.perm, shared: from.shared });
      }),
      { numRuns: 50 },
    );
  });
});
