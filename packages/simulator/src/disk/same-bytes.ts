/** Whether two ranges of the same length hold the same. */
export function sameBytes(one: Uint8Array, two: Uint8Array): boolean {
  if (one.length !== two.length) return false;
  const areAligned = one.byteOffset % 4 === 0 && two.byteOffset % 4 === 0;
  const wordCount = areAligned ? Math.floor(one.length / 4) : 0;
  const ones = new Uint32Array(one.buffer, areAligned ? one.byteOffset : 0, wordCount);
  const twos = new Uint32Array(two.buffer, areAligned ? two.byteOffset : 0, wordCount);
  for (let index = 0; index < wordCount; index += 1) {
    if (ones[index] !== twos[index]) return false;
  }
  for (let index = wordCount * 4; index < one.length; index += 1) {
    if (one[index] !== two[index]) return false;
  }
  return true;
}
