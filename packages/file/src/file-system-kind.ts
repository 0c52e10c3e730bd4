/** Where a file lives: it decides how it is read and written. */
export type FileSystemKind = "memory" | "local" | "remote";

/** Numbers by which Linux knows file systems. */
const KINDS: ReadonlyMap<number, FileSystemKind> = new Map([
  [0x01021994, "memory"], // tmpfs
  [0x858458f6, "memory"], // ramfs
  [0x6969, "remote"], // NFS
  [0xff534d42, "remote"], // CIFS
  [0xfe534d42, "remote"], // SMB 2 and 3
  [0x517b, "remote"], // SMB
  [0x65735546, "remote"], // FUSE
  [0x01021997, "remote"], // 9p
  [0x00c36400, "remote"], // Ceph
  [0x5346414f, "remote"], // AFS
  [0x7461636f, "remote"], // OCFS2
  [0x01161970, "remote"], // GFS2
  [0x19830326, "remote"], // BeeGFS
  [0x0bd00bd0, "remote"], // Lustre
  [0x47504653, "remote"], // GPFS
]);

/**
 * Returns what kind of file system a number stands for; one that is not known is local.
 *
 * @param type - as `statfs` reports it, 0 for unknown
 */
export function fileSystemKind(type: number): FileSystemKind {
  return KINDS.get(type) ?? "local";
}
