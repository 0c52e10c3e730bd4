/**
 * Errno names of Linux with their numbers and texts. The numbers travel over NBD and the texts over
 * QMP, whatever the platform, so they are written here and not asked of the operating system.
 */
const TABLE: readonly (readonly [name: string, errno: number, text: string])[] = [
  ["EPERM", 1, "Operation not permitted"],
  ["ENOENT", 2, "No such file or directory"],
  ["EINTR", 4, "Interrupted system call"],
  ["EIO", 5, "Input/output error"],
  ["ENXIO", 6, "No such device or address"],
  ["EBADF", 9, "Bad file descriptor"],
  ["EAGAIN", 11, "Resource temporarily unavailable"],
  ["ENOMEM", 12, "Cannot allocate memory"],
  ["EACCES", 13, "Permission denied"],
  ["EFAULT", 14, "Bad address"],
  ["EBUSY", 16, "Device or resource busy"],
  ["EEXIST", 17, "File exists"],
  ["EXDEV", 18, "Invalid cross-device link"],
  ["ENODEV", 19, "No such device"],
  ["ENOTDIR", 20, "Not a directory"],
  ["EISDIR", 21, "Is a directory"],
  ["EINVAL", 22, "Invalid argument"],
  ["ENFILE", 23, "Too many open files in system"],
  ["EMFILE", 24, "Too many open files"],
  ["ENOTTY", 25, "Inappropriate ioctl for device"],
  ["EFBIG", 27, "File too large"],
  ["ENOSPC", 28, "No space left on device"],
  ["ESPIPE", 29, "Illegal seek"],
  ["EROFS", 30, "Read-only file system"],
  ["EPIPE", 32, "Broken pipe"],
  ["ERANGE", 34, "Numerical result out of range"],
  ["ENAMETOOLONG", 36, "File name too long"],
  ["ENOSYS", 38, "Function not implemented"],
  ["ELOOP", 40, "Too many levels of symbolic links"],
  ["EPROTO", 71, "Protocol error"],
  ["EOVERFLOW", 75, "Value too large for defined data type"],
  ["ENOTSUP", 95, "Operation not supported"],
  ["EOPNOTSUPP", 95, "Operation not supported"],
  ["EADDRINUSE", 98, "Address already in use"],
  ["ECONNABORTED", 103, "Software caused connection abort"],
  ["ECONNRESET", 104, "Connection reset by peer"],
  ["ENOTCONN", 107, "Transport endpoint is not connected"],
  ["ESHUTDOWN", 108, "Cannot send after transport endpoint shutdown"],
  ["ETIMEDOUT", 110, "Connection timed out"],
  ["ECONNREFUSED", 111, "Connection refused"],
  ["ENOMEDIUM", 123, "No medium found"],
  ["ECANCELED", 125, "Operation canceled"],
  ["EDQUOT", 122, "Disk quota exceeded"],
];

const numbers = new Map(TABLE.map(([name, errno]) => [name, errno]));
const names = new Map(TABLE.toReversed().map(([name, errno]) => [errno, name]));
const texts = new Map(TABLE.map(([, errno, text]) => [errno, text]));

/**
 * Returns the negative error number of an errno name, as the operating system and QMP count it.
 *
 * @param code - an errno name such as `"ENOSPC"`
 * @returns the negative number, `-5` (`EIO`) for a name that is not in the table
 */
export function errnoOf(code: string): number {
  return -(numbers.get(code) ?? 5);
}

/**
 * Returns the errno name of an error number of either sign.
 *
 * @param errno - the number, positive or negative
 * @returns the name, `undefined` for a number that is not in the table
 */
export function nameOfErrno(errno: number): string | undefined {
  return names.get(Math.abs(errno));
}

/**
 * Returns the operating system's sentence for an errno name, `"No space left on device"` for `"ENOSPC"`.
 *
 * @param code - an errno name; one that is not in the table is answered with the name itself
 */
export function textOfErrno(code: string): string {
  const errno = numbers.get(code);
  return errno === undefined ? code : (texts.get(errno) ?? code);
}
