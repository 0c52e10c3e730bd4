/**
 * Every limit of the codec, checked before memory is taken. Readers take others as options where that makes
 * sense; these are the defaults.
 *
 * @see spec/nbd.md sections 1, 3, 4; docs/reliability.md section 3.6.3
 */
export const NBD_LIMITS = {
  /** Options of one handshake. */
  options: 32,
  /** Bytes of data of one option, and of one option reply. */
  optionPayload: 65_536,
  /** Bytes of option data that are read and dropped so that the client can be told; more closes. */
  optionSkip: 33_554_432,
  /** Replies to one option (a list of exports, say). */
  optionReplies: 65_536,
  /** UTF-8 bytes of a name, a description, a query or an error message. */
  string: 4096,
  /** Meta context queries of one option, and context identifiers of one status request. */
  queries: 64,
  /** Bytes of payload of one request, and the longest READ a server answers. */
  payload: 33_554_432,
  /** Extents of one block status chunk that a client takes. */
  statusExtents: 1_048_576,
  /** Extents of one block status chunk that a server sends. */
  statusExtentsSent: 131_072,
  /** Separate pieces of one READ at any moment, when its chunks arrive out of order. */
  readPieces: 8192,
} as const;
