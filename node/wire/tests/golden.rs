//! The bytes of every message, as they are promised to other versions and other languages.
//!
//! `tests/golden` holds one file per request and per reply of each kind, and failures. A file that no longer matches
//! means that nodes of two builds no longer understand each other: that is a new version of the protocol, not a new
//! file. For a **new** message, write its file once and commit it:
//!
//! ```text
//! ATOLL_BLESS=1 cargo test -p atoll-wire --test golden
//! ```
//!
//! Every field has a value of its own, so that two fields that change places show.

use std::{collections::BTreeSet, fs, path::PathBuf, sync::Once};

use atoll_antientropy::Digest;
use atoll_ring::{Epoch, Level, NodeId, Quorum, QuorumRequest};
use atoll_wire::{
    Ack, Ask, BucketChange, BucketChanged, BucketId, Buckets, BucketsQuery, Change, Commit,
    Compare, CompareRoots, Copy, Covered, Covering, Deed, Differing, Dump, Dumped, DumpedRow,
    Effect, Entries, Envelope, ErrorCode, Explain, Explained, Failure, FaultList, FaultsReport,
    FaultsRequest, Fetch, Fetched, Found, Frame, Get, Health, Hello, Kind, Lane, List, Listed,
    Many, ManyReply, Measured, MoveReport, MovesQuery, MovesReport, NodeStatus, One, Outcome,
    PartitionRepair, PeerStatus, Ping, Pong, Propose, Proposed, Raft, RaftReply, Recall, Recalled,
    Receipt, Repair, RepairQuery, RepairReport, RepairRun, RepairStarted, Replica, ReplicaReport,
    Replicate, Replicated, Reply, Request, Role, Roots, Scan, Scanned, ScannedRow, StatusQuery,
    Step, Stored, Times, Trace, Unmatched, ViewQuery, ViewReply, Welcome, Write,
    bucket::{Creation, Properties},
    faults::{Chance, ClockFault, DiskFault, LinkFault, When},
    frame::{encode_reply, encode_request},
    times::TIMES_BUCKETS,
};
use bytes::Bytes;

/// A message and the id it travels under.
#[derive(Debug, PartialEq)]
enum Message {
    Request(u64, Envelope, Request),
    Reply(u64, Kind, Epoch, Reply),
}

/// Each file says what it says, and what it says is written as it is.
#[test]
fn every_message_has_the_bytes_it_has_always_had() {
    bless_if_asked();
    for (name, message) in messages() {
        let path = folder().join(&name);
        let bytes = encode(&message);
        let golden = Bytes::from(fs::read(&path).unwrap_or_else(|error| {
            panic!("{}: {error}; a new message is written with ATOLL_BLESS=1", path.display())
        }));
        assert_eq!(bytes, golden, "{name}: peers of an older build would not understand this");
        assert_eq!(decode(&golden), message, "{name}");
    }
}

/// Neither a kind without its files nor a file without its message.
#[test]
fn every_kind_has_its_files() {
    bless_if_asked();
    let named: BTreeSet<String> = messages().into_iter().map(|(name, _)| name).collect();
    for kind in Kind::ALL {
        let word = format!("{kind:?}").to_lowercase();
        for way in ["request", "reply"] {
            let name = format!("{word}.{way}.bin");
            assert!(named.contains(&name), "{name} is missing: add its message to this test");
        }
    }
    let there: BTreeSet<String> = fs::read_dir(folder())
        .expect("the folder is there")
        .map(|file| file.expect("readable").file_name().into_string().expect("plain names"))
        .collect();
    assert_eq!(there, named);
}

/// The numbers that stand for words inside a header. Putting a word between two others would move them.
#[test]
fn words_keep_their_numbers() {
    fn check<T: serde::Serialize>(words: &[T]) {
        for (number, word) in (0u8..).zip(words) {
            assert_eq!(postcard::to_stdvec(word).expect("in memory")[0], number);
        }
    }
    check(&Role::ALL);
    check(&Lane::ALL);
    check(&[Ack::Written, Ack::Durable]);
    check(&[Effect::NotApplied, Effect::Applied(2), Effect::Unknown]);
    check(&[Level::Count(2), Level::Quorum, Level::All]);
    check(&OUTCOMES);
    check(&Repair::ALL);
    check(&atoll_wire::faults::Step::ALL);
}

/// Writes the files anew, once for all tests.
fn bless_if_asked() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if std::env::var_os("ATOLL_BLESS").is_some_and(|bless| bless == "1") {
            for (name, message) in messages() {
                fs::write(folder().join(name), encode(&message)).expect("the folder is writable");
            }
        }
    });
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn encode(message: &Message) -> Bytes {
    let parts = match message {
        Message::Request(id, envelope, request) => encode_request(*id, envelope, request),
        Message::Reply(id, kind, epoch, reply) => encode_reply(*kind, *id, *epoch, reply),
    };
    Bytes::from(parts.expect("small").concat())
}

fn decode(bytes: &Bytes) -> Message {
    let frame = Frame::parse(bytes).expect("a frame");
    if frame.reply {
        let (epoch, reply) = frame.reply().expect("a reply");
        Message::Reply(frame.id, frame.kind, epoch, reply)
    } else {
        let (envelope, request) = frame.request().expect("a request");
        Message::Request(frame.id, envelope, request)
    }
}

fn messages() -> Vec<(String, Message)> {
    let mut all = Vec::new();
    for (id, request) in (1..).zip(requests()) {
        let name = format!("{:?}.request.bin", request.kind()).to_lowercase();
        all.push((name, Message::Request(id, envelope(), request)));
    }
    for (id, (kind, reply)) in (0x0102_0304_0506_0708..).zip(replies()) {
        let name = format!("{kind:?}.reply.bin").to_lowercase();
        all.push((name, Message::Reply(id, kind, Epoch(300), reply)));
    }
    for (name, failure) in failures() {
        let reply = Reply::Failed(Box::new(failure));
        all.push((
            format!("failure.{name}.bin"),
            Message::Reply(9, Kind::Write, Epoch(301), reply),
        ));
    }
    all
}

fn envelope() -> Envelope {
    Envelope {
        epoch: Epoch(299),
        left_ms: 1500,
        operation: 0x0011_2233_4455_6677_8899_aabb_ccdd_eeff,
        bucket: BucketId(*b"sixteen of these"),
        trace: true,
        role: Role::Operator,
    }
}

fn faults() -> FaultList {
    let chance = |millionths| Chance::of_million(millionths);
    let when = |from_ms| Some(When { from_ms, until_ms: Some(from_ms + 7), every_ms: Some(9) });
    FaultList {
        seed: 77,
        free_bytes: Some(1_000_001),
        free_bytes_when: when(1_790_000_000_000),
        hold: atoll_wire::faults::Step::ALL.to_vec(),
        links: vec![
            LinkFault { cut: true, ..LinkFault::to(NodeId(4), "partition") },
            LinkFault {
                drop: chance(50_000),
                delay_ms: Some(40),
                jitter_ms: Some(10),
                duplicate: chance(20_000),
                reorder: chance(1_000_000),
                bandwidth_bits: Some(1_000_000),
                when: when(1_790_000_000_100),
                ..LinkFault::to(NodeId(5), "slow")
            },
        ],
        disk: Some(DiskFault { slow_ms: 20, when: when(1_790_000_000_200) }),
        clock: Some(ClockFault { ahead_ms: -3_600_000, when: when(1_790_000_000_300) }),
    }
}

fn requests() -> Vec<Request> {
    let quorum = QuorumRequest {
        n: Some(5),
        r: Some(Level::Quorum),
        w: Some(Level::Count(4)),
        pr: Some(Level::Count(1)),
        pw: Some(Level::Count(3)),
        dw: Some(Level::All),
        sloppy: Some(true),
    };
    let key = Bytes::from_static(b"the key");
    let context = Bytes::from_static(b"what was seen");
    let session = Some(Bytes::from_static(b"what the session has seen"));
    let get = Get {
        key: key.clone(),
        session,
        quorum: QuorumRequest { r: None, ..quorum },
        repair: Repair::Blocking,
    };
    vec![
        Request::Hello(Hello { lane: Lane::Bulk, node: Some(7), cluster: Some([0xc1; 16]) }),
        Request::Ping(Ping {
            node: 7,
            incarnation: 200,
            commit: Commit { sequence: 300, chain: 0x0102_0304_0506_0708 },
            roots: Roots { sum: 0x1112_1314_1516_1718, vouched: true },
            buckets: 0x4142_4344_4546_4748,
        }),
        Request::View(ViewQuery { have: 302 }),
        Request::Status(StatusQuery {}),
        Request::Write(Write {
            key: key.clone(),
            context,
            session: Some(Bytes::from_static(b"what the session has seen")),
            quorum,
            ttl_ms: Some(3_600_000),
            hops: 1,
            operation: Bytes::from_static(b"an operation, as it is"),
        }),
        Request::List(List {
            prefix: Bytes::from_static(b"cart:"),
            page: Bytes::from_static(b"a page"),
            limit: 999,
            quorum,
        }),
        Request::Scan(Scan { partition: 1017, after: Bytes::from_static(b"a row"), limit: 998 }),
        Request::Many(Many::of(&[
            One { operation: 1, ask: Ask::Write(Write::put(key.clone(), quorum, "value".into())) },
            One { operation: 2, ask: Ask::Get(get.clone()) },
        ])),
        Request::Get(get),
        Request::Replicate(Replicate {
            key: key.clone(),
            ack: Ack::Durable,
            hint_for: Some(8),
            state: Bytes::from_static(b"a state, as it is"),
        }),
        Request::Fetch(Fetch { key: key.clone(), durable: true, hints: true }),
        Request::RepairStatus(RepairQuery {}),
        Request::RepairRun(RepairRun { partition: Some(1023), accept_loss: true }),
        Request::Dump(Dump {
            partition: 1022,
            hints: true,
            after: Bytes::from_static(b"the last row"),
        }),
        Request::Recall(Recall { node: 9 }),
        Request::Moves(MovesQuery {}),
        Request::CompareRoots(CompareRoots { roots: Bytes::from_static(b"roots, as they are") }),
        Request::Compare(Compare {
            partition: 1021,
            n: 3,
            level: 2,
            hashes: Bytes::from_static(b"hashes, as they are"),
        }),
        Request::Entries(Entries {
            partition: 1020,
            n: 4,
            level: 5,
            fingerprints: Bytes::from_static(b"fingerprints, as they are"),
        }),
        Request::Propose(Propose { hops: 2, command: Bytes::from_static(b"a command, as it is") }),
        Request::Raft(Raft { message: Bytes::from_static(b"a message, as it is") }),
        Request::Copy(Copy {
            partition: 1019,
            session: 305,
            tokens: (306, 0x5152_5354_5556_5758),
            after: Bytes::from_static(b"the last row copied"),
        }),
        Request::Covered(Covered::of(
            1018,
            [(&b"a row"[..], [0x61; 16]), (b"another", [0x62; 16])],
        )),
        Request::BucketChange(BucketChange {
            change: Change::Create(creation()),
            registry: Bytes::from_static(b"a registry, as it is"),
        }),
        Request::Buckets(BucketsQuery { have: 0x6162_6364_6566_6768 }),
        Request::Explain(Explain { key, quorum }),
        Request::Faults(FaultsRequest { list: Some(Box::new(faults())) }),
    ]
}

fn replies() -> Vec<(Kind, Reply)> {
    let stored = |context: &'static [u8]| Stored {
        context: Bytes::from_static(context),
        session: Bytes::from_static(b"all that the session has seen"),
        dot: (3, 1, 70_000),
        receipt: receipt(),
    };
    vec![
        (Kind::Hello, Reply::Welcome(Welcome { node: 3, cluster: [0xc1; 16], role: Role::Client })),
        (
            Kind::Ping,
            Reply::Pong(Pong {
                node: 3,
                incarnation: 201,
                commit: Commit { sequence: 302, chain: 0x2122_2324_2526_2728 },
                roots: Roots { sum: 0x3132_3334_3536_3738, vouched: true },
                wall_ms: 1_700_000_000_001,
                buckets: 0x5152_5354_5556_5758,
            }),
        ),
        (Kind::View, Reply::View(ViewReply { view: Bytes::from_static(b"a view, as it is") })),
        (Kind::Status, Reply::Status(Box::new(status()))),
        (Kind::Write, Reply::Written(stored(b"context after a write"))),
        (
            Kind::Get,
            Reply::Found(Found {
                context: Bytes::from_static(b"context of a read"),
                receipt: receipt(),
                reading: Bytes::from_static(b"a reading, as it is"),
            }),
        ),
        (
            Kind::List,
            Reply::Listed(Listed {
                page: Bytes::from_static(b"the next page"),
                scanned: 70_000,
                partitions: (300, 1024),
                keys: Listed::tail(&["cart:7".into(), "cart:8".into()]),
            }),
        ),
        (
            Kind::Scan,
            Reply::Scanned(Scanned {
                last: Bytes::from_static(b"the last row"),
                looked_at: 70_001,
                in_doubt: true,
                rows: Scanned::tail(&[ScannedRow {
                    row: Bytes::from_static(b"a row"),
                    alive: true,
                    digest: Digest([0x71; 16]),
                }]),
            }),
        ),
        (
            Kind::Many,
            Reply::Many(ManyReply::of(&[
                Reply::Written(stored(b"context after one of many")),
                Reply::Found(Found {
                    context: Bytes::from_static(b"context of one of many"),
                    receipt: receipt(),
                    reading: Bytes::from_static(b"a reading among many"),
                }),
                Reply::Failed(Box::new(Failure::refused(ErrorCode::KeyLength, "one of many"))),
            ])),
        ),
        (
            Kind::Replicate,
            Reply::Replicated(Replicated { durable: true, trace: Some(Box::new(trace())) }),
        ),
        (
            Kind::Fetch,
            Reply::Fetched(Fetched {
                known: true,
                in_doubt: true,
                trace: None,
                state: Bytes::from_static(b"own state"),
            }),
        ),
        (Kind::RepairStatus, Reply::RepairStatus(RepairReport::of(&partitions()))),
        (Kind::RepairRun, Reply::RepairRun(RepairStarted { partitions: 384 })),
        (Kind::Dump, Reply::Dumped(Dumped::of(&rows(), true))),
        (
            Kind::Recall,
            Reply::Recalled(Recalled {
                vouches: true,
                incarnation: 4,
                commit: Commit { sequence: 303, chain: 0x4142_4344_4546_4748 },
            }),
        ),
        (Kind::Moves, Reply::Moves(moves())),
        (
            Kind::CompareRoots,
            Reply::Differing(Differing { which: Bytes::from_static(&[0b101, 0b10]) }),
        ),
        (Kind::Compare, Reply::Differing(Differing { which: Bytes::from_static(&[0b1100]) })),
        (
            Kind::Entries,
            Reply::Unmatched(Unmatched { entries: Bytes::from_static(b"entries, as they are") }),
        ),
        (Kind::Propose, Reply::Proposed(Proposed { epoch: 307 })),
        (
            Kind::Raft,
            Reply::Raft(RaftReply { message: Bytes::from_static(b"an answer, as it is") }),
        ),
        (Kind::Copy, Reply::Copied(Dumped::of(&rows(), true))),
        (Kind::Covered, Reply::Covering(Covering { which: Bytes::from_static(&[1, 0]) })),
        (
            Kind::BucketChange,
            Reply::BucketChanged(BucketChanged {
                bucket: BucketId([9; 16]),
                changed: true,
                known: vec![1, 300],
                missing: vec![301],
            }),
        ),
        (
            Kind::Buckets,
            Reply::Buckets(Buckets {
                digest: 0x7172_7374_7576_7778,
                registry: Bytes::from_static(b"a registry, as it is"),
            }),
        ),
        (Kind::Explain, Reply::Explained(Box::new(explained()))),
        (
            Kind::Faults,
            Reply::Faults(Box::new(FaultsReport { list: faults(), wall_ms: 1_790_000_000_123 })),
        ),
    ]
}

fn failures() -> Vec<(&'static str, Failure)> {
    vec![
        ("refused", Failure::refused(ErrorCode::NotPermitted, "a client may not send Fetch")),
        (
            "quorum",
            Failure {
                code: ErrorCode::WriteQuorumNotMet,
                effect: Effect::Applied(1),
                got: 1,
                needed: 2,
                retry_after_ms: 250,
                detail: "1 of 2".into(),
                receipt: Some(Box::new(receipt())),
            },
        ),
    ]
}

/// One that agrees and one that does not.
fn partitions() -> [PartitionRepair; 2] {
    let agreed = PartitionRepair {
        partition: 3,
        agreed_ms_ago: 12_000,
        in_doubt: false,
        keys_repaired: 400,
        bytes: 50_000,
        backlog: 0,
    };
    let never = PartitionRepair {
        partition: 1023,
        agreed_ms_ago: u64::MAX,
        in_doubt: true,
        keys_repaired: 401,
        bytes: 50_001,
        backlog: 7,
    };
    [agreed, never]
}

/// A bucket in which every property has a value of its own.
fn creation() -> Creation {
    Creation {
        name: "carts".into(),
        kind: atoll_antientropy::Kind::Lww,
        n: Some(3),
        properties: Properties {
            r: Some(Level::Count(2)),
            w: Some(Level::Quorum),
            pr: Some(Level::Count(1)),
            pw: Some(Level::Count(0)),
            dw: Some(Level::All),
            sloppy: Some(true),
            repair: Some(Repair::Blocking),
            timeout_ms: Some(320),
            ttl_ms: Some(321),
            value_bytes_max: Some(322),
            elements_max: Some(323),
        },
    }
}

/// A node that copies one partition and gives away another.
fn moves() -> MovesReport {
    let joins = MoveReport {
        partition: 1017,
        session: 308,
        joins: true,
        keys: (309, 310),
        bytes: 311,
        done: false,
        waits_for: Some(312),
    };
    let leaves = MoveReport {
        partition: 1016,
        session: 313,
        joins: false,
        keys: (314, 314),
        bytes: 0,
        done: true,
        waits_for: None,
    };
    let report = MovesReport {
        leader: Some(315),
        voters_reachable: 2,
        frozen: "1 of 3 voters reachable".into(),
        voters_wait: "n318 does not follow the log yet".into(),
        strays: 316,
        hints: 317,
        moves: Bytes::new(),
    };
    report.with(&[joins, leaves])
}

/// An own record, and a damaged hint.
fn rows() -> [DumpedRow; 2] {
    let own = DumpedRow {
        row: Bytes::from_static(b"one row"),
        key: Bytes::from_static(b"one key"),
        hint_for: None,
        in_doubt: false,
        state: Some(Bytes::from_static(b"one state, as it is")),
    };
    let hint = DumpedRow {
        row: Bytes::from_static(b"another row"),
        key: Bytes::from_static(b"another key"),
        hint_for: Some(300),
        in_doubt: true,
        state: None,
    };
    [own, hint]
}

const OUTCOMES: [Outcome; 13] = [
    Outcome::Durable,
    Outcome::Written,
    Outcome::Current,
    Outcome::Behind,
    Outcome::NotAsked,
    Outcome::Pending,
    Outcome::Down,
    Outcome::Silent,
    Outcome::Corrupt,
    Outcome::Refused,
    Outcome::KnowsNothing,
    Outcome::HintsFull,
    Outcome::InDoubt,
];

/// One line of each outcome.
fn receipt() -> Receipt {
    let line = |(node, outcome)| {
        let stands_in_for = (node > 10).then_some(10);
        ReplicaReport { node, stands_in_for, outcome, micros: 1000 + node }
    };
    Receipt {
        epoch: Epoch(298),
        coordinator: 6,
        n: 5,
        needed: 3,
        owners_needed: 1,
        durable_needed: 2,
        replicas: (1..).zip(OUTCOMES).map(line).collect(),
        hinted: vec![4, 400],
        unhinted: vec![6],
        repaired: vec![5],
        trace: Some(Box::new(trace())),
    }
}

fn trace() -> Trace {
    let step = |(micros, deed): (u32, Deed)| {
        let peer = (deed == Deed::Sent).then_some(301);
        Step { node: 300, micros, deed, peer }
    };
    let steps = (1000..).zip([Deed::Arrived, Deed::Sent, Deed::Fsynced, Deed::Unknown(99)]);
    Trace { steps: steps.map(step).collect(), untraced: vec![302], left_out: 303 }
}

fn explained() -> Explained {
    let measured = |scale: u32| {
        Some(Measured { p50_micros: 10 * scale, p99_micros: 20 * scale, samples: 30 * scale })
    };
    let replica = |(node, health): (u32, Health)| Replica {
        node,
        zone: format!("zone of n{node}"),
        health,
        round_trip_micros: 400 + node,
        fetch: measured(node),
        written: None,
        durable: measured(1000 * node),
    };
    let healths = [
        Health::Up,
        Health::Unknown,
        Health::Silent,
        Health::InDoubt,
        Health::Down("killed".into()),
    ];
    let settings = QuorumRequest { sloppy: Some(false), ..QuorumRequest::default() };
    Explained {
        node: 1,
        token: 0x0102_0304_0506_0708,
        partition: 1016,
        changed_in: 297,
        quorum: Quorum::new(&settings, 3).expect("as usual"),
        bucket_n: 4,
        owners: vec![1, 2, 3],
        joining: Some(vec![1, 2, 4]),
        fallbacks: vec![5],
        places: (1..).zip(healths).map(replica).collect(),
    }
}

fn times(counts: &[(usize, u64)]) -> Times {
    let mut all = [0; TIMES_BUCKETS];
    counts.iter().for_each(|(bucket, count)| all[*bucket] = *count);
    Times::of(all)
}

fn status() -> NodeStatus {
    NodeStatus {
        node: 1,
        incarnation: 2,
        epoch: 300,
        version: "0.1.0".into(),
        uptime_ms: 4_000,
        wall_ms: 1_700_000_000_000,
        clock_ahead_ms: -70_000,
        clock_problem: "behind the others".into(),
        resident_bytes: 50_000_000,
        cpu_micros: 51_000_000,
        keys: 6,
        disk_bytes: 7_000,
        free_bytes: 52_000_000,
        read_only: "free space".into(),
        certificate_expires_ms: 1_800_000_000_000,
        certificate_problem: "expired".into(),
        durable_sequence: 8,
        rising: "too few answer".into(),
        doubt: "the directory is new".into(),
        partitions_in_doubt: 19,
        keys_in_doubt: 20,
        tombstones: 21,
        scrubbed: (22, 23),
        scrubs: 24,
        hints: 9,
        hint_bytes: 53_000_000,
        hints_refused: 10,
        corrupt_records: 11,
        repaired: 12,
        exchanged: 25,
        compared_ms_ago: 26_000,
        writes: 13,
        reads: 14,
        hedges: 54_000_000,
        write_times: times(&[(4, 300), (107, 1)]),
        read_times: times(&[(0, 70_000)]),
        unmet: 55,
        reads_behind: 56_000,
        peers: vec![
            PeerStatus {
                node: 15,
                up: true,
                round_trip_micros: 160,
                hints: 0,
                reason: String::new(),
            },
            PeerStatus {
                node: 17,
                up: false,
                round_trip_micros: 0,
                hints: 18,
                reason: "down".into(),
            },
        ],
    }
}
