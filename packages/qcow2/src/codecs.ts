/** One way to compress clusters. Both directions are asynchronous: they run beside the event loop. */
export interface ClusterCodec {
  /**
   * Compresses a cluster.
   *
   * @returns `undefined` when the result would be longer than `limit` bytes
   */
  compress?(cluster: Uint8Array, limit: number): Promise<Uint8Array | undefined>;
  /**
   * Decompresses until exactly `length` bytes came out; what follows in `input` does not matter.
   *
   * @throws Error the input does not hold them
   */
  decompress(input: Uint8Array, length: number): Promise<Uint8Array>;
}

/** The codecs of an image format, by the name of its compression type. */
export interface Codecs {
  readonly zlib?: ClusterCodec;
  readonly zstd?: ClusterCodec;
}
