import { type DriverFlags, RequestFlag } from "@blocklayer/driver";

const READ_FLAGS = RequestFlag.prefetch;
const WRITE_FLAGS = RequestFlag.fua;
const ZEROES_FLAGS = RequestFlag.fua | RequestFlag.mayUnmap | RequestFlag.noFallback;

/**
 * The request flags of a filter over a source with these: write-unchanged always, the others where the source has
 * them.
 *
 * @param known - returned itself as long as nothing has changed
 * @see spec/copy-before-write-and-backup.md section 4.1
 */
export function filterFlags(source: DriverFlags, known: DriverFlags): DriverFlags {
  const read = source.read & READ_FLAGS;
  const write = (source.write & WRITE_FLAGS) | RequestFlag.writeUnchanged;
  const zeroes = (source.zeroes & ZEROES_FLAGS) | RequestFlag.writeUnchanged;
  const isSame = known.read === read && known.write === write && known.zeroes === zeroes;
  return isSame ? known : { read, write, zeroes, truncateZero: false };
}
