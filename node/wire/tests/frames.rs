//! Frames that are well formed come back as they were; frames that are not are refused, whoever wrote them.

use atoll_antientropy::Kind as ValueKind;
use atoll_ring::{Epoch, Level, NodeId, Quorum, QuorumRequest};
use atoll_wire::{
    Ack, BucketChange, BucketChanged, BucketId, Buckets, BucketsQuery, Change, Commit, Compare,
    CompareRoots, Copy, Covered, Covering, Deed, Differing, Dump, Dumped, DumpedRow, Effect,
    Entries, Envelope, ErrorCode, Explain, Explained, Failure, FaultList, FaultsReport,
    FaultsRequest, Fetch, Fetched, Found, Frame, FrameError, Get, Health, Hello, Kind, Lane, List,
    Listed, Many, ManyReply, Measured, MovesQuery, MovesReport, NodeStatus, Outcome,
    PartitionRepair, PeerStatus, Ping, Pong, Propose, Proposed, Raft, RaftReply, Recall, Recalled,
    Receipt, Repair, RepairQuery, RepairReport, RepairRun, RepairStarted, Replica, ReplicaReport,
    Replicate, Replicated, Reply, Request, Role, Roots, Scan, Scanned, StatusQuery, Step, Stored,
    Times, Trace, Unmatched, ViewQuery, ViewReply, Welcome, Write,
    bucket::{Alteration, Creation, Properties, Property},
    faults::{Chance, ClockFault, DiskFault, LinkFault, When},
    frame::{FIXED_BYTES, encode_reply, encode_request, peek_length},
    limits::{
        COMPARE_TAIL_BYTES_MAX, DUMP_TAIL_BYTES_MAX, HEADER_BYTES_MAX, KEYS_TAIL_BYTES_MAX,
        MANY_TAIL_BYTES_MAX, OPERATION_TAIL_BYTES_MAX, REGISTRY_TAIL_BYTES_MAX,
        STATE_TAIL_BYTES_MAX, VIEW_TAIL_BYTES_MAX,
    },
};
use bytes::Bytes;
use proptest::{collection::vec, option, prelude::*, sample::select};

const VERSION_AT: usize = 4;
const KIND_AT: usize = 5;
const FLAGS_AT: usize = 6;
const HEADER_LENGTH_AT: usize = 16;
const FLAG_REPLY: u16 = 1;
const FLAG_FAILED: u16 = 2;

proptest! {
    /// Whatever can be said arrives as it was said, and is no message of the other direction.
    #[test]
    fn a_request_survives_the_way(id in any::<u64>(), envelope in envelope(), request in request()) {
        let bytes = whole(encode_request(id, &envelope, &request));
        prop_assert_eq!(peek_length(&bytes), Ok(Some(bytes.len())));
        let frame = Frame::parse(&bytes).expect("our own frame");
        prop_assert_eq!((frame.id, frame.kind, frame.reply), (id, request.kind(), false));
        prop_assert_eq!(frame.request(), Ok((envelope, request)));
        prop_assert_eq!(frame.reply(), Err(FrameError::Direction));
    }

    /// The same for replies.
    #[test]
    fn a_reply_survives_the_way(id in any::<u64>(), epoch in any::<u64>(), (kind, reply) in reply()) {
        let bytes = whole(encode_reply(kind, id, Epoch(epoch), &reply));
        prop_assert_eq!(peek_length(&bytes), Ok(Some(bytes.len())));
        let frame = Frame::parse(&bytes).expect("our own frame");
        prop_assert_eq!((frame.id, frame.kind, frame.reply), (id, kind, true));
        prop_assert_eq!(frame.reply(), Ok((Epoch(epoch), reply)));
        prop_assert_eq!(frame.request(), Err(FrameError::Direction));
    }

    /// A reply that does not belong to the kind cannot be written, except a failure, which belongs to all. Roots and places
    /// of a tree are compared with the same answer.
    #[test]
    fn a_reply_belongs_to_its_kind((kind, reply) in reply(), other in select(&Kind::ALL[..])) {
        let alike = |kind| if kind == Kind::CompareRoots { Kind::Compare } else { kind };
        let fits = alike(kind) == alike(other) || matches!(reply, Reply::Failed(_));
        let expected = if fits { None } else { Some(FrameError::Direction) };
        prop_assert_eq!(encode_reply(other, 1, Epoch(1), &reply).err(), expected);
    }

    /// Noise is no frame, and asking never panics.
    #[test]
    fn noise_is_harmless(bytes in vec(any::<u8>(), 0..4096)) {
        swallow(bytes);
    }

    /// Noise with a plausible beginning gets further, into the headers.
    #[test]
    fn noise_behind_a_good_head_is_harmless(
        kind in select(&Kind::ALL[..]),
        flags in select(&[0, FLAG_REPLY, FLAG_REPLY | FLAG_FAILED][..]),
        header in vec(any::<u8>(), 0..600),
        tail in vec(any::<u8>(), 0..64),
    ) {
        swallow(raw(kind, flags, &header, &tail));
    }

    /// A good frame with a few bytes changed is a frame or none, and never a panic.
    #[test]
    fn a_damaged_frame_is_harmless(
        bytes in any_frame(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut bytes = bytes.to_vec();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        swallow(bytes);
    }

    /// However a frame is cut, it is no frame any more, and the reader asks for the rest.
    #[test]
    fn a_frame_cut_anywhere_is_no_frame(bytes in any_frame()) {
        for length in 0..bytes.len() {
            let cut = bytes.slice(..length);
            prop_assert_eq!(Frame::parse(&cut), Err(FrameError::Short));
            let known = (length >= 8).then_some(bytes.len());
            prop_assert_eq!(peek_length(&cut), Ok(known));
        }
    }

    /// No length above the cap of its kind passes, whatever else the head says.
    #[test]
    fn a_length_over_the_cap_never_passes(
        length in any::<u32>(),
        kind in select(&Kind::ALL[..]),
        flags in 0u16..4,
    ) {
        let mut head = raw(kind, flags, &[], &[]);
        head[..4].copy_from_slice(&length.to_le_bytes());
        let cap = FIXED_BYTES - 4 + HEADER_BYTES_MAX + tail_cap(kind, flags);
        let length = length as usize;
        let expected = match length {
            0..14 => Err(FrameError::Short),
            _ if length > cap => Err(FrameError::TooLong { length, cap }),
            _ => Ok(Some(length + 4)),
        };
        prop_assert_eq!(peek_length(&head), expected);
    }

    /// A byte too many in a header is not overlooked: it would be a second way to write the same message.
    #[test]
    fn a_header_ends_where_its_message_ends(bytes in any_frame(), extra in vec(any::<u8>(), 1..20)) {
        let frame = Frame::parse(&bytes).expect("our own frame");
        let header_length = u16::from_le_bytes([bytes[HEADER_LENGTH_AT], bytes[HEADER_LENGTH_AT + 1]]);
        let (header, tail) = bytes[FIXED_BYTES..].split_at(header_length.into());
        let flags = u16::from_le_bytes([bytes[FLAGS_AT], bytes[FLAGS_AT + 1]]);
        let longer = raw(frame.kind, flags, &[header, &extra].concat(), tail);
        let frame = Frame::parse(&longer.into()).expect("still a frame");
        if frame.reply {
            prop_assert_eq!(frame.reply(), Err(FrameError::Header));
        } else {
            prop_assert_eq!(frame.request(), Err(FrameError::Header));
        }
    }

    /// A page of rows comes back as it was, and so does a report; cut anywhere but between two rows they are none.
    #[test]
    fn long_lists_survive_the_way(
        rows in vec(dumped_row(), 0..6),
        partitions in vec(partition_repair(), 0..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let page = Dumped::of(&rows, true);
        prop_assert_eq!(page.read(), Some(rows.clone()));
        let mut ends: Vec<usize> = (0..=rows.len()).map(|n| Dumped::of(&rows[..n], true).rows.len()).collect();
        ends.dedup();
        let at = cut.index(page.rows.len() + 1);
        let shorter = Dumped { more: true, rows: page.rows.slice(..at) };
        prop_assert_eq!(shorter.read().is_some(), ends.contains(&at));

        let mut partitions = partitions;
        partitions.sort_by_key(|partition| partition.partition);
        partitions.dedup_by_key(|partition| partition.partition);
        let report = RepairReport::of(&partitions);
        prop_assert_eq!(report.read(), Some(partitions.clone()));
        let twice = [&report.partitions[..], &report.partitions[..]].concat();
        let twice = RepairReport { partitions: twice.into() };
        prop_assert_eq!(twice.read().is_some(), partitions.is_empty());
    }
}

/// One version, the kinds we have, two flags. Everything else is refused, before a length is believed.
#[test]
fn what_is_not_known_is_refused() {
    let good = raw(Kind::Ping, 0, &[], &[]);
    for version in (0..=u8::MAX).filter(|version| *version != good[VERSION_AT]) {
        let mut frame = good.clone();
        frame[VERSION_AT] = version;
        assert_eq!(peek_length(&frame), Err(FrameError::Version(version)));
        assert_eq!(Frame::parse(&frame.into()), Err(FrameError::Version(version)));
    }
    let known = Kind::ALL.map(Kind::number);
    for kind in (0..=u8::MAX).filter(|kind| !known.contains(kind)) {
        let mut frame = good.clone();
        frame[KIND_AT] = kind;
        assert_eq!(peek_length(&frame), Err(FrameError::Kind(kind)));
        assert_eq!(Frame::parse(&frame.into()), Err(FrameError::Kind(kind)));
    }
    for flags in (2..16).map(|bit| 1u16 << bit) {
        let frame = raw(Kind::Ping, flags | FLAG_REPLY, &[], &[]);
        assert_eq!(peek_length(&frame), Err(FrameError::Flags(flags | FLAG_REPLY)));
    }
}

/// "Failed" without "reply" is neither a request nor a reply.
#[test]
fn a_request_cannot_have_failed() {
    for kind in Kind::ALL {
        let frame = Frame::parse(&raw(kind, FLAG_FAILED, &[], &[]).into()).expect("a frame");
        assert_eq!(frame.request(), Err(FrameError::Direction));
        assert_eq!(frame.reply(), Err(FrameError::Direction));
    }
}

/// The caps, said a second time by hand: a tail of exactly the cap passes both doors, one byte more neither. A failure
/// has no tail, whatever it answers.
#[test]
fn a_tail_over_its_cap_is_refused_at_both_doors() {
    let kinds = Kind::ALL.into_iter();
    for (kind, flags) in kinds.flat_map(|kind| [0, 1, 3].map(|flags| (kind, flags))) {
        let cap = tail_cap(kind, flags);
        let tail = Bytes::from(vec![0; cap + 1]);
        let over = FrameError::TooLong { length: cap + 1, cap };
        assert!(Frame::parse(&raw(kind, flags, &[], &tail[1..]).into()).is_ok(), "{kind:?}");
        // with a full header the length word alone would not tell
        assert_eq!(Frame::parse(&raw(kind, flags, &[], &tail).into()), Err(over), "{kind:?}");
        for (tail, expected) in [(tail.slice(1..), None), (tail, Some(over))] {
            if let Some(written) = write_with_tail(kind, flags, tail) {
                assert_eq!(written.err(), expected, "{kind:?}");
            }
        }
    }
}

/// The cap of a header, at both doors.
#[test]
fn a_header_over_its_cap_is_refused_at_both_doors() {
    let write = |length: usize| {
        let body = Write { context: vec![0; length].into(), ..plain_write() };
        encode_request(1, &plain_envelope(), &Request::Write(body))
    };
    let spent = write(HEADER_BYTES_MAX - 100).expect("fits")[0].len() - FIXED_BYTES;
    let room = HEADER_BYTES_MAX - spent + HEADER_BYTES_MAX - 100;
    assert!(write(room).is_ok());
    let over = FrameError::TooLong { length: HEADER_BYTES_MAX + 1, cap: HEADER_BYTES_MAX };
    assert_eq!(write(room + 1), Err(over));

    // only a kind with a tail leaves room for a header that claims too much
    let frame = raw(Kind::Write, 0, &vec![0; HEADER_BYTES_MAX + 1], &[]);
    assert_eq!(Frame::parse(&frame.into()), Err(over));
    let frame = raw(Kind::Write, 0, &vec![0; HEADER_BYTES_MAX], &[]);
    assert!(Frame::parse(&frame.into()).is_ok());
}

/// A header may claim to end behind its frame. It is not followed there.
#[test]
fn a_header_ends_inside_its_frame() {
    let mut frame = raw(Kind::Write, 0, &[0; 10], &[]);
    frame[HEADER_LENGTH_AT] = 11;
    assert_eq!(Frame::parse(&frame.into()), Err(FrameError::Short));
}

/// The most that a header of hostile bytes can make of itself: as many list elements as fit, each as small on the wire
/// as it can be. Memory stays within a few dozen times the cap of a header, so within a megabyte or two. (A list that
/// claims more elements than bytes are left is given no room in advance; one that claims fewer gets room for what it
/// claims, at most a megabyte, by serde's rule.)
#[test]
fn a_hostile_header_cannot_take_much_memory() {
    let budget = 32 * HEADER_BYTES_MAX;

    // a status full of peers of five bytes each
    let empty = NodeStatus::default();
    let head = postcard::to_stdvec(&(Epoch(0), &empty)).expect("in memory");
    let head = &head[..head.len() - 1]; // without the count of peers
    let peers = (HEADER_BYTES_MAX - head.len() - 3) / 5;
    let header = [head, &varint(peers as u64), &vec![0; peers * 5]].concat();
    let frame = Frame::parse(&raw(Kind::Status, FLAG_REPLY, &header, &[]).into()).expect("a frame");
    let Ok((_, Reply::Status(status))) = frame.reply() else { panic!("peers of zeros are peers") };
    assert_eq!(status.peers.len(), peers);
    assert!(status.peers.capacity() * size_of::<PeerStatus>() <= budget);
}

/// A full header in which every length is a lie, for every kind and both directions.
#[test]
fn lengths_that_lie_are_refused() {
    for claim in [HEADER_BYTES_MAX as u64 / 2, u64::from(u32::MAX), u64::MAX] {
        let header = varint(claim).repeat(HEADER_BYTES_MAX / varint(claim).len());
        for (kind, flags) in Kind::ALL.into_iter().flat_map(|kind| [0, 1, 3].map(|f| (kind, f))) {
            let frame = Frame::parse(&raw(kind, flags, &header, &[]).into()).expect("a frame");
            assert!(frame.request().is_err(), "{kind:?}");
            assert!(frame.reply().is_err(), "{kind:?}");
        }
    }
}

/// Everything that is ever done with bytes from outside.
fn swallow(bytes: Vec<u8>) {
    let _ = peek_length(&bytes);
    if let Ok(frame) = Frame::parse(&bytes.into()) {
        if let Ok((_, Request::Covered(asked))) = frame.request() {
            drop(asked.read());
        }
        if let Ok((_, Request::Many(many))) = frame.request() {
            drop(many.read());
        }
        match frame.reply() {
            Ok((_, Reply::Dumped(dumped))) => drop(dumped.read()),
            Ok((_, Reply::RepairStatus(report))) => drop(report.read()),
            Ok((_, Reply::Moves(report))) => drop(report.read()),
            Ok((_, Reply::Copied(page))) => drop(page.read()),
            Ok((_, Reply::Many(many))) => drop(many.read()),
            Ok((_, Reply::Listed(page))) => drop(page.read()),
            Ok((_, Reply::Scanned(page))) => drop(page.read()),
            _ => (),
        }
    }
}

/// A frame put together by hand, without any of the checks.
fn raw(kind: Kind, flags: u16, header: &[u8], tail: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(FIXED_BYTES + header.len() + tail.len());
    let length = FIXED_BYTES - 4 + header.len() + tail.len();
    frame.extend((length as u32).to_le_bytes());
    frame.extend([1, kind.number()]);
    frame.extend(flags.to_le_bytes());
    frame.extend(77u64.to_le_bytes());
    frame.extend((header.len() as u16).to_le_bytes());
    frame.extend(header);
    frame.extend(tail);
    frame
}

fn plain_write() -> Write {
    Write {
        key: Bytes::new(),
        context: Bytes::new(),
        session: None,
        quorum: QuorumRequest::default(),
        ttl_ms: None,
        hops: 0,
        operation: Bytes::new(),
    }
}

fn varint(number: u64) -> Vec<u8> {
    postcard::to_stdvec(&number).expect("in memory")
}

fn tail_cap(kind: Kind, flags: u16) -> usize {
    match (kind, flags) {
        (Kind::Write, 0) => OPERATION_TAIL_BYTES_MAX,
        (Kind::Many, 0 | FLAG_REPLY) => MANY_TAIL_BYTES_MAX,
        (Kind::List | Kind::Scan, FLAG_REPLY) => KEYS_TAIL_BYTES_MAX,
        (Kind::Replicate, 0) | (Kind::Get | Kind::Fetch, FLAG_REPLY) => STATE_TAIL_BYTES_MAX,
        (Kind::View | Kind::RepairStatus | Kind::Moves, FLAG_REPLY) => VIEW_TAIL_BYTES_MAX,
        (Kind::Propose, 0) | (Kind::Raft, 0 | FLAG_REPLY) => VIEW_TAIL_BYTES_MAX,
        (Kind::Dump | Kind::Copy, FLAG_REPLY) => DUMP_TAIL_BYTES_MAX,
        (Kind::BucketChange, 0) | (Kind::Buckets, FLAG_REPLY) => REGISTRY_TAIL_BYTES_MAX,
        (Kind::CompareRoots | Kind::Compare | Kind::Entries | Kind::Covered, 0 | FLAG_REPLY) => {
            COMPARE_TAIL_BYTES_MAX
        }
        (_, _) => 0,
    }
}

/// Writes a message of this kind with this tail; `None` where messages have no tail at all.
fn write_with_tail(
    kind: Kind,
    flags: u16,
    tail: Bytes,
) -> Option<Result<atoll_wire::frame::Encoded, FrameError>> {
    let request = |request| Some(encode_request(1, &plain_envelope(), &request));
    let reply = |reply| Some(encode_reply(kind, 1, Epoch(1), &reply));
    let key = Bytes::new();
    match (kind, flags) {
        (Kind::Write, 0) => request(Request::Write(Write { operation: tail, ..plain_write() })),
        (Kind::List, FLAG_REPLY) => {
            let page = Bytes::new();
            reply(Reply::Listed(Listed { page, scanned: 0, partitions: (0, 0), keys: tail }))
        }
        (Kind::Scan, FLAG_REPLY) => {
            let last = Bytes::new();
            reply(Reply::Scanned(Scanned { last, looked_at: 0, in_doubt: false, rows: tail }))
        }
        (Kind::Many, 0) => request(Request::Many(Many { requests: tail })),
        (Kind::Many, FLAG_REPLY) => reply(Reply::Many(ManyReply { replies: tail })),
        (Kind::Replicate, 0) => {
            let (ack, hint_for, state) = (Ack::Written, None, tail);
            request(Request::Replicate(Replicate { key, ack, hint_for, state }))
        }
        (Kind::View, FLAG_REPLY) => reply(Reply::View(ViewReply { view: tail })),
        (Kind::Get, FLAG_REPLY) => reply(Reply::Found(Found {
            context: Bytes::new(),
            receipt: empty_receipt(),
            reading: tail,
        })),
        (Kind::Fetch, FLAG_REPLY) => reply(Reply::Fetched(Fetched {
            known: true,
            in_doubt: false,
            trace: None,
            state: tail,
        })),
        (Kind::RepairStatus, FLAG_REPLY) => {
            reply(Reply::RepairStatus(RepairReport { partitions: tail }))
        }
        (Kind::Dump, FLAG_REPLY) => reply(Reply::Dumped(Dumped { more: false, rows: tail })),
        (Kind::CompareRoots, 0) => request(Request::CompareRoots(CompareRoots { roots: tail })),
        (Kind::Compare, 0) => {
            let (partition, n, level) = (1, 3, 0);
            request(Request::Compare(Compare { partition, n, level, hashes: tail }))
        }
        (Kind::Entries, 0) => {
            let (partition, n, level) = (1, 3, 0);
            request(Request::Entries(Entries { partition, n, level, fingerprints: tail }))
        }
        (Kind::CompareRoots | Kind::Compare, FLAG_REPLY) => {
            reply(Reply::Differing(Differing { which: tail }))
        }
        (Kind::Entries, FLAG_REPLY) => reply(Reply::Unmatched(Unmatched { entries: tail })),
        (Kind::Propose, 0) => request(Request::Propose(Propose { hops: 0, command: tail })),
        (Kind::Moves, FLAG_REPLY) => {
            reply(Reply::Moves(MovesReport { moves: tail, ..MovesReport::default() }))
        }
        (Kind::Raft, 0) => request(Request::Raft(Raft { message: tail })),
        (Kind::Raft, FLAG_REPLY) => reply(Reply::Raft(RaftReply { message: tail })),
        (Kind::Copy, FLAG_REPLY) => reply(Reply::Copied(Dumped { more: false, rows: tail })),
        (Kind::Covered, 0) => request(Request::Covered(Covered { partition: 1, rows: tail })),
        (Kind::BucketChange, 0) => {
            request(Request::BucketChange(BucketChange { change: Change::Join, registry: tail }))
        }
        (Kind::Buckets, FLAG_REPLY) => reply(Reply::Buckets(Buckets { digest: 1, registry: tail })),
        (Kind::Covered, FLAG_REPLY) => reply(Reply::Covering(Covering { which: tail })),
        (_, _) => None,
    }
}

fn whole(parts: Result<atoll_wire::frame::Encoded, FrameError>) -> Bytes {
    parts.expect("within the caps").concat().into()
}

fn plain_envelope() -> Envelope {
    let bucket = BucketId([0; 16]);
    let (epoch, trace, role) = (Epoch(1), false, Role::Node);
    Envelope { epoch, left_ms: 0, operation: 0, bucket, trace, role }
}

fn empty_receipt() -> Receipt {
    Receipt {
        epoch: Epoch(0),
        coordinator: 0,
        n: 0,
        needed: 0,
        owners_needed: 0,
        durable_needed: 0,
        replicas: Vec::new(),
        hinted: Vec::new(),
        unhinted: Vec::new(),
        repaired: Vec::new(),
        trace: None,
    }
}

// Arbitrary messages. The large ones are boxed: unboxed, debug builds overflow the stack of a test thread.

fn any_frame() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        (envelope(), request()).prop_map(|(e, request)| whole(encode_request(1, &e, &request))),
        reply().prop_map(|(kind, reply)| whole(encode_reply(kind, 1, Epoch(1), &reply))),
    ]
}

fn envelope() -> impl Strategy<Value = Envelope> {
    let role = select(&Role::ALL[..]);
    (any::<(u64, u32, u128)>(), any::<[u8; 16]>(), any::<bool>(), role).prop_map(
        |((epoch, left_ms, operation), bucket, trace, role)| Envelope {
            epoch: Epoch(epoch),
            left_ms,
            operation,
            bucket: BucketId(bucket),
            trace,
            role,
        },
    )
}

fn bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

fn quorum() -> BoxedStrategy<QuorumRequest> {
    let level = || {
        let count = any::<u8>().prop_map(Level::Count);
        option::of(prop_oneof![count, Just(Level::Quorum), Just(Level::All)])
    };
    let levels = (level(), level(), level(), level(), level());
    (option::of(any::<u8>()), levels, option::of(any::<bool>()))
        .prop_map(|(n, levels, sloppy)| {
            let (r, w, pr, pw, dw) = levels;
            QuorumRequest { n, r, w, pr, pw, dw, sloppy }
        })
        .boxed()
}

fn request() -> impl Strategy<Value = Request> {
    let (lane, ack) = (select(&Lane::ALL[..]), select(&[Ack::Written, Ack::Durable][..]));
    prop_oneof![
        (lane, option::of(any::<u32>()), option::of(any::<[u8; 16]>()))
            .prop_map(|(lane, node, cluster)| Request::Hello(Hello { lane, node, cluster })),
        (any::<(u32, u32, u64)>(), commit(), roots()).prop_map(
            |((node, incarnation, buckets), commit, roots)| Request::Ping(Ping {
                node,
                incarnation,
                commit,
                roots,
                buckets,
            })
        ),
        (bytes(), bytes(), any::<u16>(), quorum()).prop_map(|(prefix, page, limit, quorum)| {
            Request::List(List { prefix, page, limit, quorum })
        }),
        (bytes(), quorum()).prop_map(|(key, quorum)| Request::Explain(Explain { key, quorum })),
        (any::<u16>(), bytes(), any::<u16>()).prop_map(|(partition, after, limit)| {
            Request::Scan(Scan { partition, after, limit })
        }),
        bytes().prop_map(|requests| Request::Many(Many { requests })),
        any::<u64>().prop_map(|have| Request::View(ViewQuery { have })),
        Just(Request::Status(StatusQuery {})),
        (
            (bytes(), bytes(), option::of(bytes())),
            quorum(),
            option::of(any::<u64>()),
            any::<u8>(),
            bytes()
        )
            .prop_map(|((key, context, session), quorum, ttl_ms, hops, operation)| {
                Request::Write(Write { key, context, session, quorum, ttl_ms, hops, operation })
            }),
        (bytes(), option::of(bytes()), quorum(), select(&Repair::ALL[..])).prop_map(
            |(key, session, quorum, repair)| Request::Get(Get { key, session, quorum, repair })
        ),
        (bytes(), ack, option::of(any::<u32>()), bytes()).prop_map(
            |(key, ack, hint_for, state)| {
                Request::Replicate(Replicate { key, ack, hint_for, state })
            }
        ),
        (bytes(), any::<(bool, bool)>())
            .prop_map(|(key, (durable, hints))| Request::Fetch(Fetch { key, durable, hints })),
        of_repair(),
        of_membership(),
        of_buckets(),
    ]
}

/// What is asked about buckets.
fn of_buckets() -> BoxedStrategy<Request> {
    let bucket = || any::<[u8; 16]>().prop_map(BucketId);
    let alteration = (properties(), vec(select(&Property::ALL[..]), 0..4))
        .prop_map(|(set, unset)| Alteration { set, unset });
    let kind = select(&ValueKind::ALL[..]);
    let change = prop_oneof![
        (any::<String>(), kind, option::of(any::<u8>()), properties()).prop_map(
            |(name, kind, n, properties)| Change::Create(Creation { name, kind, n, properties })
        ),
        (bucket(), alteration).prop_map(|(bucket, change)| Change::Alter(bucket, change)),
        bucket().prop_map(Change::Drop),
        Just(Change::Join),
    ];
    prop_oneof![
        (change, bytes()).prop_map(|(change, registry)| Request::BucketChange(BucketChange {
            change,
            registry
        })),
        any::<u64>().prop_map(|have| Request::Buckets(BucketsQuery { have })),
    ]
    .boxed()
}

fn properties() -> BoxedStrategy<Properties> {
    let limits = any::<(Option<u32>, Option<u64>, Option<u32>, Option<u16>)>();
    (quorum(), option::of(select(&Repair::ALL[..])), limits)
        .prop_map(|(quorum, repair, (timeout_ms, ttl_ms, value_bytes_max, elements_max))| {
            let QuorumRequest { n: _, r, w, pr, pw, dw, sloppy } = quorum;
            Properties {
                r,
                w,
                pr,
                pw,
                dw,
                sloppy,
                repair,
                timeout_ms,
                ttl_ms,
                value_bytes_max,
                elements_max,
            }
        })
        .boxed()
}

/// What is asked while the ring changes.
fn of_membership() -> BoxedStrategy<Request> {
    prop_oneof![
        (any::<u8>(), bytes())
            .prop_map(|(hops, command)| Request::Propose(Propose { hops, command })),
        Just(Request::Moves(MovesQuery {})),
        bytes().prop_map(|message| Request::Raft(Raft { message })),
        (any::<(u16, u64, (u64, u64))>(), bytes()).prop_map(
            |((partition, session, tokens), after)| {
                Request::Copy(Copy { partition, session, tokens, after })
            }
        ),
        (any::<u16>(), bytes())
            .prop_map(|(partition, rows)| Request::Covered(Covered { partition, rows })),
    ]
    .boxed()
}

/// What repair asks.
fn of_repair() -> BoxedStrategy<Request> {
    let place = || any::<(u16, u8, u8)>();
    prop_oneof![
        Just(Request::RepairStatus(RepairQuery {})),
        (option::of(any::<u16>()), any::<bool>()).prop_map(|(partition, accept_loss)| {
            Request::RepairRun(RepairRun { partition, accept_loss })
        }),
        (any::<(u16, bool)>(), bytes()).prop_map(|((partition, hints), after)| {
            Request::Dump(Dump { partition, hints, after })
        }),
        option::of(faults())
            .prop_map(|list| Request::Faults(FaultsRequest { list: list.map(Box::new) })),
        any::<u32>().prop_map(|node| Request::Recall(Recall { node })),
        bytes().prop_map(|roots| Request::CompareRoots(CompareRoots { roots })),
        (place(), bytes()).prop_map(|((partition, n, level), hashes)| {
            Request::Compare(Compare { partition, n, level, hashes })
        }),
        (place(), bytes()).prop_map(|((partition, n, level), fingerprints)| {
            Request::Entries(Entries { partition, n, level, fingerprints })
        }),
    ]
    .boxed()
}

/// Any list, whether it could be obeyed or not.
fn faults() -> BoxedStrategy<FaultList> {
    let when = || {
        let times = any::<(u64, Option<u64>, Option<u64>)>();
        option::of(times.prop_map(|(from_ms, until_ms, every_ms)| When {
            from_ms,
            until_ms,
            every_ms,
        }))
    };
    let chance = || (0..1_000_001u32).prop_map(Chance::of_million);
    let chances = (chance(), chance(), chance());
    let numbers = any::<(u32, bool, Option<u32>, Option<u32>, Option<u64>)>();
    let link = (numbers, "[a-z]{0,20}", chances, when()).prop_map(
        |((peer, cut, delay_ms, jitter_ms, bandwidth_bits), name, chances, when)| LinkFault {
            peer: NodeId(peer),
            name,
            cut,
            drop: chances.0,
            delay_ms,
            jitter_ms,
            duplicate: chances.1,
            reorder: chances.2,
            bandwidth_bits,
            when,
        },
    );
    let disk = (any::<u32>(), when()).prop_map(|(slow_ms, when)| DiskFault { slow_ms, when });
    let clock = (any::<i64>(), when()).prop_map(|(ahead_ms, when)| ClockFault { ahead_ms, when });
    let rest = (option::of(disk), option::of(clock));
    let hold = vec(select(atoll_wire::faults::Step::ALL.to_vec()), 0..5);
    (any::<(u32, Option<u64>)>(), when(), hold, vec(link, 0..4), rest)
        .prop_map(|((seed, free_bytes), free_bytes_when, hold, links, rest)| FaultList {
            seed,
            free_bytes,
            free_bytes_when,
            hold,
            links,
            disk: rest.0,
            clock: rest.1,
        })
        .boxed()
}

fn commit() -> impl Strategy<Value = Commit> {
    any::<(u64, u64)>().prop_map(|(sequence, chain)| Commit { sequence, chain })
}

fn roots() -> impl Strategy<Value = Roots> {
    any::<(u64, bool)>().prop_map(|(sum, vouched)| Roots { sum, vouched })
}

fn receipt() -> BoxedStrategy<Receipt> {
    let outcomes = [Outcome::Durable, Outcome::Behind, Outcome::Silent, Outcome::InDoubt];
    let line = (any::<(u32, Option<u32>, u32)>(), select(outcomes.to_vec())).prop_map(
        |((node, stands_in_for, micros), outcome)| ReplicaReport {
            node,
            stands_in_for,
            outcome,
            micros,
        },
    );
    let nodes = || vec(any::<u32>(), 0..4);
    let head = any::<(u64, u32, u8, u8, u8, u8)>();
    (head, vec(line, 0..6), (nodes(), nodes(), nodes()), option::of(trace()))
        .prop_map(
            |(
                (epoch, coordinator, n, needed, owners_needed, durable_needed),
                replicas,
                nodes,
                trace,
            )| {
                let (hinted, unhinted, repaired) = nodes;
                Receipt {
                    epoch: Epoch(epoch),
                    coordinator,
                    n,
                    needed,
                    owners_needed,
                    durable_needed,
                    replicas,
                    hinted,
                    unhinted,
                    repaired,
                    trace,
                }
            },
        )
        .boxed()
}

fn trace() -> impl Strategy<Value = Box<Trace>> {
    let step = any::<(u32, u32, u8, Option<u32>)>().prop_map(|(node, micros, deed, peer)| Step {
        node,
        micros,
        deed: Deed::from(deed),
        peer,
    });
    (vec(step, 0..6), vec(any::<u32>(), 0..3), any::<u16>())
        .prop_map(|(steps, untraced, left_out)| Box::new(Trace { steps, untraced, left_out }))
}

/// What a node knows of a key's place. The settings are such as can be: others are refused.
fn explained() -> BoxedStrategy<Explained> {
    let measured = || {
        option::of(any::<(u32, u32, u32)>().prop_map(|(p50_micros, p99_micros, samples)| {
            Measured { p50_micros, p99_micros, samples }
        }))
    };
    let health = prop_oneof![
        select(vec![Health::Up, Health::Unknown, Health::Silent, Health::InDoubt]),
        any::<String>().prop_map(Health::Down),
    ];
    let replica = (any::<(u32, String, u32)>(), health, (measured(), measured(), measured()))
        .prop_map(|((node, zone, round_trip_micros), health, (fetch, written, durable))| Replica {
            node,
            zone,
            health,
            round_trip_micros,
            fetch,
            written,
            durable,
        });
    let nodes = || vec(any::<u32>(), 0..4);
    let head = any::<(u32, u64, u16, u64, u8)>();
    (head, 1..9_u8, (nodes(), option::of(nodes()), nodes()), vec(replica, 0..4))
        .prop_map(|(head, n, (owners, joining, fallbacks), places)| Explained {
            node: head.0,
            token: head.1,
            partition: head.2,
            changed_in: head.3,
            quorum: Quorum::new(&QuorumRequest::default(), n).expect("n is above 0"),
            bucket_n: head.4,
            owners,
            joining,
            fallbacks,
            places,
        })
        .boxed()
}

fn stored() -> impl Strategy<Value = Stored> {
    (bytes(), bytes(), any::<(u32, u32, u64)>(), receipt())
        .prop_map(|(context, session, dot, receipt)| Stored { context, session, dot, receipt })
}

fn found() -> impl Strategy<Value = Found> {
    (bytes(), receipt(), bytes()).prop_map(|(context, receipt, reading)| Found {
        context,
        receipt,
        reading,
    })
}

/// Times with counts in some of the buckets, drawn from one number.
fn times(drawn: u64) -> Times {
    Times::of(std::array::from_fn(|index| drawn.rotate_left(index as u32) & (drawn >> 32)))
}

fn status() -> BoxedStrategy<NodeStatus> {
    let peer = any::<(u32, bool, u32, u64, String)>().prop_map(|parts| {
        let (node, up, round_trip_micros, hints, reason) = parts;
        PeerStatus { node, up, round_trip_micros, hints, reason }
    });
    let ids = any::<(u32, u32, u64, String, String, String)>();
    let of_repair = any::<(String, String, u32, i64, String)>();
    (ids, of_repair, any::<[u64; 28]>(), vec(peer, 0..4))
        .prop_map(|(ids, of_repair, counts, peers)| NodeStatus {
            node: ids.0,
            incarnation: ids.1,
            epoch: ids.2,
            version: ids.3,
            uptime_ms: counts[0],
            wall_ms: counts[1],
            clock_ahead_ms: of_repair.3,
            clock_problem: of_repair.4,
            resident_bytes: counts[11],
            cpu_micros: counts[12],
            keys: counts[2],
            disk_bytes: counts[3],
            free_bytes: counts[13],
            read_only: ids.4,
            certificate_expires_ms: counts[14],
            certificate_problem: ids.5,
            durable_sequence: counts[4],
            rising: of_repair.0,
            doubt: of_repair.1,
            partitions_in_doubt: of_repair.2,
            keys_in_doubt: counts[17],
            tombstones: counts[18],
            scrubbed: (counts[19], counts[20]),
            scrubs: counts[21],
            hints: counts[5],
            hint_bytes: counts[15],
            hints_refused: counts[6],
            corrupt_records: counts[7],
            repaired: counts[8],
            exchanged: counts[22],
            compared_ms_ago: counts[23],
            writes: counts[9],
            reads: counts[10],
            hedges: counts[16],
            write_times: times(counts[24]),
            read_times: times(counts[25]),
            unmet: counts[26],
            reads_behind: counts[27],
            peers,
        })
        .boxed()
}

fn failure() -> impl Strategy<Value = Failure> {
    let applied = any::<u8>().prop_map(Effect::Applied);
    let effect = prop_oneof![Just(Effect::NotApplied), applied, Just(Effect::Unknown)];
    let numbers = any::<(u8, u8, u32, String)>();
    (select(ErrorCode::ALL), effect, numbers, option::of(receipt())).prop_map(
        |(code, effect, (got, needed, retry_after_ms, detail), receipt)| Failure {
            code,
            effect,
            got,
            needed,
            retry_after_ms,
            detail,
            receipt: receipt.map(Box::new),
        },
    )
}

fn reply() -> impl Strategy<Value = (Kind, Reply)> {
    let welcome = (any::<u32>(), any::<[u8; 16]>(), select(&Role::ALL[..]))
        .prop_map(|(node, cluster, role)| Reply::Welcome(Welcome { node, cluster, role }));
    let pong = (any::<(u32, u32, u64)>(), commit(), roots()).prop_map(
        |((node, incarnation, wall_ms), commit, roots)| {
            let buckets = wall_ms ^ 1;
            Reply::Pong(Pong { node, incarnation, commit, roots, wall_ms, buckets })
        },
    );
    let fetched = (any::<(bool, bool)>(), option::of(trace()), bytes()).prop_map(
        |((known, in_doubt), trace, state)| {
            Reply::Fetched(Fetched { known, in_doubt, trace, state })
        },
    );
    let replicated = (any::<bool>(), option::of(trace()))
        .prop_map(|(durable, trace)| Reply::Replicated(Replicated { durable, trace }));
    let of = |kind: Kind| move |reply: Reply| (kind, reply);
    prop_oneof![
        welcome.prop_map(of(Kind::Hello)),
        pong.prop_map(of(Kind::Ping)),
        bytes().prop_map(|view| (Kind::View, Reply::View(ViewReply { view }))),
        status().prop_map(|status| (Kind::Status, Reply::Status(Box::new(status)))),
        (bytes(), any::<u32>(), any::<(u32, u32)>(), bytes()).prop_map(
            |(page, scanned, partitions, keys)| {
                (Kind::List, Reply::Listed(Listed { page, scanned, partitions, keys }))
            }
        ),
        (bytes(), any::<u32>(), any::<bool>(), bytes()).prop_map(
            |(last, looked_at, in_doubt, rows)| {
                (Kind::Scan, Reply::Scanned(Scanned { last, looked_at, in_doubt, rows }))
            }
        ),
        bytes().prop_map(|replies| (Kind::Many, Reply::Many(ManyReply { replies }))),
        stored().prop_map(|stored| (Kind::Write, Reply::Written(stored))),
        found().prop_map(|found| (Kind::Get, Reply::Found(found))),
        explained().prop_map(|all| (Kind::Explain, Reply::Explained(Box::new(all)))),
        replicated.prop_map(of(Kind::Replicate)),
        fetched.prop_map(of(Kind::Fetch)),
        about_repair(),
        about_membership(),
        about_buckets(),
        (select(&Kind::ALL[..]), failure())
            .prop_map(|(kind, failure)| (kind, Reply::Failed(Box::new(failure)))),
    ]
}

/// What is answered about buckets.
fn about_buckets() -> BoxedStrategy<(Kind, Reply)> {
    let nodes = || vec(any::<u32>(), 0..4);
    let changed = (any::<([u8; 16], bool)>(), nodes(), nodes()).prop_map(
        |((bucket, changed), known, missing)| {
            let bucket = BucketId(bucket);
            Reply::BucketChanged(BucketChanged { bucket, changed, known, missing })
        },
    );
    let all = (any::<u64>(), bytes())
        .prop_map(|(digest, registry)| Reply::Buckets(Buckets { digest, registry }));
    prop_oneof![
        changed.prop_map(|reply| (Kind::BucketChange, reply)),
        all.prop_map(|reply| (Kind::Buckets, reply)),
    ]
    .boxed()
}

/// What repair answers. Tails are any bytes: what is in them is nothing to a frame.
fn about_repair() -> BoxedStrategy<(Kind, Reply)> {
    let of = |kind: Kind| move |reply: Reply| (kind, reply);
    let recalled = (any::<(bool, u32)>(), commit()).prop_map(|((vouches, incarnation), commit)| {
        Reply::Recalled(Recalled { vouches, incarnation, commit })
    });
    let differing = || bytes().prop_map(|which| Reply::Differing(Differing { which }));
    prop_oneof![
        bytes().prop_map(|partitions| (
            Kind::RepairStatus,
            Reply::RepairStatus(RepairReport { partitions })
        )),
        any::<u32>().prop_map(|partitions| (
            Kind::RepairRun,
            Reply::RepairRun(RepairStarted { partitions })
        )),
        (any::<bool>(), bytes())
            .prop_map(|(more, rows)| (Kind::Dump, Reply::Dumped(Dumped { more, rows }))),
        (faults(), any::<u64>()).prop_map(|(list, wall_ms)| (
            Kind::Faults,
            Reply::Faults(Box::new(FaultsReport { list, wall_ms }))
        )),
        recalled.prop_map(of(Kind::Recall)),
        differing().prop_map(of(Kind::CompareRoots)),
        differing().prop_map(of(Kind::Compare)),
        bytes().prop_map(|entries| (Kind::Entries, Reply::Unmatched(Unmatched { entries }))),
    ]
    .boxed()
}

/// What is answered while the ring changes.
fn about_membership() -> BoxedStrategy<(Kind, Reply)> {
    let words = ("[a-z ]{0,20}", "[a-z ]{0,20}");
    let moves = (option::of(any::<u32>()), any::<(u8, u64, u64)>(), words, bytes());
    let moves = moves.prop_map(|(leader, (voters_reachable, strays, hints), words, moves)| {
        let (frozen, voters_wait) = words;
        Reply::Moves(MovesReport {
            leader,
            voters_reachable,
            frozen,
            voters_wait,
            strays,
            hints,
            moves,
        })
    });
    prop_oneof![
        any::<u64>().prop_map(|epoch| (Kind::Propose, Reply::Proposed(Proposed { epoch }))),
        moves.prop_map(|report| (Kind::Moves, report)),
        bytes().prop_map(|message| (Kind::Raft, Reply::Raft(RaftReply { message }))),
        (any::<bool>(), bytes())
            .prop_map(|(more, rows)| (Kind::Copy, Reply::Copied(Dumped { more, rows }))),
        bytes().prop_map(|which| (Kind::Covered, Reply::Covering(Covering { which }))),
    ]
    .boxed()
}

fn dumped_row() -> impl Strategy<Value = DumpedRow> {
    (bytes(), bytes(), option::of(any::<u32>()), any::<bool>(), option::of(bytes())).prop_map(
        |(row, key, hint_for, in_doubt, state)| DumpedRow { row, key, hint_for, in_doubt, state },
    )
}

fn partition_repair() -> impl Strategy<Value = PartitionRepair> {
    any::<(u16, u64, bool, u64, u64, u32)>().prop_map(
        |(partition, agreed_ms_ago, in_doubt, keys_repaired, bytes, backlog)| PartitionRepair {
            partition,
            agreed_ms_ago,
            in_doubt,
            keys_repaired,
            bytes,
            backlog,
        },
    )
}
