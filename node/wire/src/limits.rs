//! How large anything may be. Each limit has a name, a value and a reason; going past one is an error with a number.

/// Longest key, in bytes. Keys are kept in memory while they wait and in every index row.
pub const KEY_BYTES_MAX: usize = 1 << 10;

/// Longest value, in bytes, unless the bucket says otherwise.
pub const VALUE_BYTES_MAX: usize = 1 << 20;

/// Most siblings of a key. Past that a put without a context is refused: it could only add one more.
pub const SIBLINGS_MAX: usize = 64;

/// Longest header of a frame. Values travel in the tail, so only a context of a thousand intervals comes near.
///
/// It bounds what hostile bytes can make us allocate, see [`HEADER_MEMORY_BYTES_MAX`].
pub const HEADER_BYTES_MAX: usize = 32 << 10;

/// Most memory that decoding any header takes, whatever its bytes are.
///
/// The smallest entry of a list on the wire becomes the largest in memory where a status lists peers: five bytes become
/// 56, a thousand siblings of nothing four bytes each and 24. A list that grows holds its old self for a moment.
/// `tests/hostile` measures this: 589 KB at most so far.
pub const HEADER_MEMORY_BYTES_MAX: usize = 1 << 20;

/// Largest tail of a frame that carries an operation: one value of the largest size, or a thousand elements of a set, or
/// fields of a map with as many bytes of values; and what stands around them.
pub const OPERATION_TAIL_BYTES_MAX: usize = VALUE_BYTES_MAX + (64 << 10);

/// Most requests about keys in one frame. Each is work of its own, so a frame must not be a way around what a connection may
/// have in work; whoever has more sends several.
pub const MANY_MAX: usize = 256;

/// Largest tail of a frame with several requests, and of the answers. Answers that do not fit any more are refused, and asked
/// for again alone.
pub const MANY_TAIL_BYTES_MAX: usize = 8 << 20;

/// Most keys in a page of a listing.
pub const LIST_KEYS_MAX: usize = 1000;

/// Most rows that an owner tells of a partition at once.
pub const SCAN_ROWS_MAX: usize = 1000;

/// Largest tail of a frame with a page of keys, or of rows: the longest there may be, and their digests.
pub const KEYS_TAIL_BYTES_MAX: usize = 2 << 20;

/// Largest tail of a frame that carries the state of a key: all siblings, their dots and the context.
pub const STATE_TAIL_BYTES_MAX: usize = (SIBLINGS_MAX + 2) * VALUE_BYTES_MAX;

/// Largest tail of a frame that carries a view. 65,536 partitions with 5 owners of three bytes each fit.
pub const VIEW_TAIL_BYTES_MAX: usize = 4 << 20;

/// Largest tail of a frame in which trees are compared. The roots of 65,536 partitions fit, and so do the entries of
/// leaves with 32,768 keys; whoever has more asks several times.
pub const COMPARE_TAIL_BYTES_MAX: usize = 512 << 10;

/// Largest tail of a page of raw states: one state of the largest size, and the names of a page of small ones.
pub const DUMP_TAIL_BYTES_MAX: usize = STATE_TAIL_BYTES_MAX + (1 << 20);

/// Most rows of a page of raw states. A row of five bytes becomes about a hundred in memory, so that reading the longest
/// page takes half a megabyte beside the frame itself.
pub const DUMP_ROWS_MAX: usize = 4 << 10;

/// Frames longer than this travel on a stream of their own, so that they do not hold up the lane.
pub const LANE_FRAME_BYTES_MAX: usize = 64 << 10;

/// Longest time a request may ask for, in milliseconds.
pub const TIMEOUT_MS_MAX: u32 = 60_000;

/// Longest name of a bucket, in bytes.
pub const NAME_BYTES_MAX: usize = 128;

/// Most copies a bucket may keep: as many owners as a partition may have.
pub const BUCKET_N_MAX: u8 = 16;

/// Most elements of a set, or fields of a map.
pub const ELEMENTS_MAX: u16 = 1000;

/// Longest time to live, in milliseconds: 100 years of 365.25 days.
pub const TTL_MS_MAX: u64 = 100 * 36_525 * 864_000;

/// Most buckets, dropped ones included: a dropped definition is remembered for ever, or a node that comes back would
/// bring its data back. Every node holds them all in memory and sends them whole, about 60 bytes each and the name.
pub const BUCKETS_MAX: usize = 1024;

/// Most definitions that are taken over from another node. More than may be created, because sides of a cluster that
/// cannot see each other may each create as many; a join is never refused below this.
pub const REGISTRY_ENTRIES_MAX: usize = 8 * BUCKETS_MAX;

/// Most faults of links that one node may be told to bear: a few for each of 64 nodes. With the longest numbers and names they
/// still fit in a header.
pub const FAULT_LINKS_MAX: usize = 256;

/// Longest name of a fault, in bytes.
pub const FAULT_NAME_BYTES_MAX: usize = 16;

/// Longest delay that a fault may bring, in milliseconds. A connection counts as dead after five seconds of silence.
pub const FAULT_DELAY_MS_MAX: u32 = 10_000;

/// Latest time a fault may name, in milliseconds since 1970: some 9,000 years from now.
pub const FAULT_TIME_MS_MAX: u64 = 1 << 48;

/// How far a fault may set a clock off, in milliseconds: ten years.
pub const FAULT_CLOCK_MS_MAX: u64 = 3652 * 86_400_000;

/// Largest tail of a frame that carries a registry: as many definitions with names of the longest.
pub const REGISTRY_TAIL_BYTES_MAX: usize = 2 << 20;
