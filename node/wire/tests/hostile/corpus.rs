//! What is in the corpus and how it is made: no chance, no clock, the same bytes each time.

use std::{fs, path::PathBuf};

use atoll_antientropy::{
    Actor, Context, ContextToken, Event, Field, FieldChange, Hybrid, Increment, Kind as ValueKind,
    Note, Operation, Secret, Stamp, State,
};
use atoll_ring::{
    ClusterId, Epoch, Member, MemberState, NodeId, Partitions, Quorum, QuorumRequest, View,
};
use atoll_wire::{
    Covered, Dumped, DumpedRow, Explained, Kind, MoveReport, MovesReport, NodeStatus,
    PartitionRepair, RepairReport,
    limits::{
        COMPARE_TAIL_BYTES_MAX, DUMP_ROWS_MAX, DUMP_TAIL_BYTES_MAX, FAULT_LINKS_MAX,
        HEADER_BYTES_MAX, VIEW_TAIL_BYTES_MAX,
    },
};
use bytes::Bytes;
use serde_json::{Value, json};

/// Numbers that claim more than anybody has, as LEB128.
pub const HUGE: [&[u8]; 4] = [
    &[0xff, 0xff, 0x01],
    &[0xff, 0xff, 0xff, 0xff, 0x0f],
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
];

/// What a decoder takes: the golden frames, and one of each state and document.
pub fn good() -> Vec<(String, Bytes)> {
    let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut good: Vec<(String, Bytes)> = fs::read_dir(golden)
        .expect("the folder is there")
        .map(|file| {
            let file = file.expect("readable");
            let name = file.file_name().into_string().expect("plain names");
            (name, fs::read(file.path()).expect("readable").into())
        })
        .collect();
    good.sort();
    let small = |name: &str, bytes: Vec<u8>| (name.to_owned(), Bytes::from(bytes));
    good.extend([
        small("context", context(3).encode()),
        small("register", register(2).encode()),
        small("set", set().encode()),
        small("map", map().encode()),
        small("update", update().encode()),
        small("reading", map().read(9_500).encode()),
        small("token", token(&context(3)).as_bytes().to_vec()),
        small("note", note().encode().to_vec()),
        small("page", Dumped::of(&[row(b"a state"), row(b"")], true).rows.to_vec()),
        small("report", RepairReport::of(&[partition(3), partition(1023)]).partitions.to_vec()),
        small("moves", moves(&[moving(3), moving(1023)])),
        small("covered", covered()),
        small("view", postcard::to_stdvec(&view(4)).expect("in memory")),
        small("view.json", serde_json::to_vec(&view(4)).expect("in memory")),
    ]);
    good
}

/// All files that are written by us.
pub fn entries() -> Vec<(String, Bytes)> {
    let mut all = frames();
    all.extend(states());
    all.extend(views());
    all.extend(lists());
    all.into_iter().map(|(name, bytes)| (name, Bytes::from(bytes))).collect()
}

type Entries = Vec<(String, Vec<u8>)>;

fn frames() -> Entries {
    let write = Kind::Write.number();
    let lengthy = |length: u32| {
        let mut frame = frame(write, 0, &[0; 20], &[]);
        frame[..4].copy_from_slice(&length.to_le_bytes());
        frame
    };
    let changed = |at: usize, byte: u8| {
        let mut frame = frame(write, 0, &[0; 20], &[]);
        frame[at] = byte;
        frame
    };
    let golden = |name: &str| {
        let all = good();
        all.into_iter().find(|(own, _)| own == name).expect("is golden").1.to_vec()
    };
    let header_with = |name: &str, change: fn(&mut Vec<u8>)| {
        let bytes = golden(name);
        let mut header = header_of(&bytes);
        change(&mut header);
        frame(bytes[5], u16::from_le_bytes([bytes[6], bytes[7]]), &header, &[])
    };
    let mut nested = golden("write.request.bin");
    for _ in 0..12 {
        nested = frame(write, 0, &header_of(&golden("write.request.bin")), &nested);
    }
    let mut all = vec![
        named("frame-empty", vec![]),
        named("frame-all-zeros", vec![0; 64]),
        named("frame-all-ones", vec![0xff; 64]),
        named("frame-length-0", lengthy(0)),
        named("frame-length-below-the-least", lengthy(13)),
        named("frame-length-4-gib", lengthy(u32::MAX)),
        named("frame-length-of-a-frame-behind", {
            let mut two = frame(write, 0, &[0; 20], &[]);
            let behind = frame(Kind::Ping.number(), 0, &[], &[]);
            two.extend(behind);
            two
        }),
        named("frame-version-0", changed(4, 0)),
        named("frame-version-255", changed(4, 255)),
        named("frame-kind-0", changed(5, 0)),
        named("frame-kind-255", changed(5, 255)),
        named("frame-flags-unknown", changed(7, 0x80)),
        named("frame-failed-and-no-reply", changed(6, 2)),
        named("frame-header-past-the-end", changed(16, 21)),
        named("frame-header-length-65535", {
            let mut frame = changed(16, 0xff);
            frame[17] = 0xff;
            frame
        }),
        named("frame-header-of-ff", frame(write, 0, &[0xff; 2000], &[])),
        named("frame-in-a-frame-in-a-frame", nested),
        named("frame-in-a-header", frame(write, 0, &golden("write.request.bin"), &[])),
        named("frame-tail-where-none-belongs", frame(Kind::Ping.number(), 0, &[0; 4], b"tail")),
        named("frame-header-with-a-byte-too-many", header_with("get.request.bin", |h| h.push(0))),
        named("frame-header-cut", header_with("get.request.bin", |h| h.truncate(h.len() / 2))),
        named(
            "frame-role-3",
            header_with("status.request.bin", |h| *h.last_mut().expect("the role is last") = 3),
        ),
        named(
            "frame-number-overlong",
            header_with("recall.request.bin", |h| {
                let last = h.pop().expect("a node");
                h.extend([last | 0x80, 0x80, 0x00]);
            }),
        ),
        named("frame-status-of-peers-of-zeros", peers_of_zeros()),
        named("frame-explain-of-places-of-zeros", places_of_zeros()),
        named("frame-faults-of-links-of-zeros", links_of_zeros()),
        named("frame-faults-with-a-chance-that-is-no-number", {
            let no_number = f64::NAN.to_le_bytes();
            link_with_drop(&no_number)
        }),
        named("frame-faults-with-a-chance-above-1", link_with_drop(&1.5f64.to_le_bytes())),
        named("frame-text-that-is-no-text", {
            let header = [&[0u8, 0, 0, 0, 200][..], &[0xc0; 200]].concat();
            frame(Kind::Status.number(), 1, &header, &[])
        }),
    ];
    for (index, huge) in HUGE.iter().enumerate() {
        for (word, kind, flags) in [
            ("get", Kind::Get, 1),
            ("status", Kind::Status, 1),
            ("explain", Kind::Explain, 1),
            ("faults", Kind::Faults, 1),
            ("failed", Kind::Write, 3),
        ] {
            let header = [&[1u8][..], &huge.repeat(40)].concat();
            all.push(named(
                &format!("frame-{word}-of-huge-numbers-{index}"),
                frame(kind.number(), flags, &header, &[]),
            ));
        }
    }
    all
}

fn states() -> Entries {
    let context_of = |actors: &[u8]| actors.to_vec();
    let wide = {
        let mut context = Context::new();
        for counter in 0..7000u64 {
            context.add_interval(Actor::new(1, 0), 2 * counter, 2 * counter + 1);
        }
        context
    };
    let many_actors = {
        let mut context = Context::new();
        for node in 0..1000 {
            context.add_interval(Actor::new(node, 0), 0, 1);
        }
        context
    };
    let mut all = vec![
        named("context-nothing", vec![0]),
        named("context-intervals-7000", wide.encode()),
        named("context-actors-1000", many_actors.encode()),
        named("context-touching", context_of(&[1, 1, 0, 2, 0, 4, 0, 1])),
        named("context-empty-interval", context_of(&[1, 1, 0, 1, 4, 0])),
        named("context-out-of-order", context_of(&[2, 1, 0, 1, 0, 4, 0, 9, 1, 0, 4])),
        named("context-past-the-last-counter", [&[1, 1, 0, 1][..], HUGE[2], &[1]].concat()),
        named(
            "context-node-of-33-bits",
            [&[1][..], &[0xff, 0xff, 0xff, 0xff, 0x1f], &[0, 1, 0, 4]].concat(),
        ),
        named("context-number-overlong", vec![1, 0x81, 0x00, 0, 1, 0, 4]),
        named("register-nothing", vec![1, 0, 0]),
        named("register-siblings-of-4-bytes", {
            let mut context = Context::new();
            context.add_interval(Actor::new(1, 0), 0, 100);
            let mut bytes = vec![1];
            bytes.extend(context.encode());
            bytes.push(100);
            (1..=100u8).for_each(|counter| bytes.extend([1, 0, counter, 0]));
            bytes
        }),
        named("register-uncovered", vec![1, 1, 1, 0, 1, 0, 2, 1, 1, 0, 3, 0]),
        named("register-out-of-order", vec![1, 1, 1, 0, 1, 0, 2, 2, 1, 0, 2, 0, 1, 0, 1, 0]),
        named("register-one-dot-twice", vec![1, 1, 1, 0, 1, 0, 2, 2, 1, 0, 2, 0, 1, 0, 2, 0]),
        named("register-with-bytes-behind", [register(2).encode(), vec![0]].concat()),
        named("kind-unknown", vec![0x7f, 0, 0]),
        named("kind-of-15-maps", vec![0xf1, 0, 1, 1, 0, 1, 0]),
        named("map-of-empty-maps", vec![0x21, 0, 2, 0, 0, 1, 1, 0]),
        named("set-with-an-empty-element", vec![0x12, 0, 1, 1, b'a', 0]),
        named("token-too-short", vec![1; 28]),
        named("token-of-another-format", [&[2][..], &token(&context(2)).as_bytes()[1..]].concat()),
        named("token-forged", {
            let mut bytes = token(&context(2)).as_bytes().to_vec();
            *bytes.last_mut().expect("a tag") ^= 1;
            bytes
        }),
        named("token-of-7000-intervals", token(&wide).as_bytes().to_vec()),
        named("token-around-no-context", [&[1][..], &[0; 12], &[0xff; 40], &[0; 16]].concat()),
        named("note-cut", note().encode()[..31].to_vec()),
        named("note-with-a-byte-behind", [&note().encode()[..], &[0]].concat()),
    ];
    for (index, huge) in HUGE.iter().enumerate() {
        all.push(named(&format!("context-of-huge-{index}"), [huge, &[1u8; 40][..]].concat()));
        all.push(named(
            &format!("context-intervals-of-huge-{index}"),
            [&[1, 1, 0][..], huge, &[1; 40]].concat(),
        ));
        all.push(named(
            &format!("register-of-huge-{index}"),
            [&[1, 0][..], huge, &[1; 40]].concat(),
        ));
        all.push(named(
            &format!("register-value-of-huge-{index}"),
            [&[1, 1, 1, 0, 1, 0, 1, 1, 1, 0, 1][..], huge].concat(),
        ));
        all.push(named(
            &format!("map-key-of-huge-{index}"),
            [&[0x21, 0, 1][..], huge, &[1; 40]].concat(),
        ));
    }
    all
}

fn views() -> Entries {
    let document = || serde_json::to_value(view(4)).expect("in memory");
    let with = |name: &str, change: &dyn Fn(&mut Value)| {
        let mut document = document();
        change(&mut document);
        named(&format!("view-json-{name}"), document.to_string().into_bytes())
    };
    let text = String::from_utf8(serde_json::to_vec(&view(4)).expect("in memory")).expect("text");
    let binary = view(4).encode();
    let (head, member) = (&binary[..MEMBERS_AT], &binary[MEMBERS_AT + 1..][..MEMBER_BYTES]);
    let mut all = vec![
        with("epoch-0", &|d| d["epoch"] = json!(0)),
        with("epoch-below-0", &|d| d["epoch"] = json!(-1)),
        with("epoch-a-text", &|d| d["epoch"] = json!("1")),
        with("epoch-1e300", &|d| d["epoch"] = json!(1e300)),
        with("partitions-3", &|d| d["partitions"] = json!(3)),
        with("partitions-2-to-32", &|d| d["partitions"] = json!(1u64 << 32)),
        with("replicas-0", &|d| d["replicas"] = json!(0)),
        with("replicas-256", &|d| d["replicas"] = json!(256)),
        with("no-members", &|d| d["members"] = json!([])),
        with("members-null", &|d| d["members"] = json!(null)),
        with("member-twice", &|d| d["members"][1] = d["members"][0].clone()),
        with("member-nowhere", &|d| d["members"][0]["address"] = json!("nowhere")),
        with("owners-missing", &|d| d["owners"] = json!([[1, 2, 3]])),
        with("owners-nested", &|d| d["owners"][0] = json!([[[1]]])),
        with("owner-unknown", &|d| d["owners"][0][0] = json!(99)),
        with("owners-17", &|d| d["owners"][0] = json!(vec![1; 17])),
        with("moves-to-itself", &|d| d["moves"] = json!({ "0": { "target": d["owners"][0] } })),
        with("moves-nowhere", &|d| d["moves"] = json!({ "9": { "target": d["owners"][0] } })),
        with("changed-later", &|d| d["last_changed"][0] = json!(2)),
        with("cluster-short", &|d| d["cluster"] = json!("07")),
        named("view-json-cut", text.as_bytes()[..text.len() / 2].to_vec()),
        named("view-json-with-more-behind", format!("{text}{text}").into_bytes()),
        named("view-json-with-a-byte-order-mark", format!("\u{feff}{text}").into_bytes()),
        named("view-json-epoch-twice", text.replacen('{', "{\"epoch\":1,", 1).into_bytes()),
        named("view-json-one-move-twice", {
            let moves = r#""moves":{"0":{"target":[1]},"0":{"target":[2]}}"#;
            text.replacen(r#""moves":{}"#, moves, 1).into_bytes()
        }),
        named("view-json-half-a-surrogate", text.replacen("z1", r"\ud800", 1).into_bytes()),
        named("view-json-not-utf8", {
            text.bytes().map(|byte| if byte == b'z' { 0xff } else { byte }).collect()
        }),
        named("view-json-lists-10000-deep", b"[".repeat(10_000)),
        named("view-json-maps-1000-deep", br#"{"a":"#.repeat(1000)),
        named("view-json-members-1000-deep", [&br#"{"members":"#[..], &b"[".repeat(1000)].concat()),
        named(
            "view-json-owners-of-empty-lists",
            format!("{{\"owners\":[{}[]]}}", "[],".repeat(8000)).into_bytes(),
        ),
        named("view-of-empty-owner-lists", {
            // 16,384 partitions, no members, removed, invitations and voters.
            let most = [&head[..18], &[0x80, 0x80, 0x01], &head[19..], &[0; 4]].concat();
            framed(&[most, vec![0; 20_000]].concat())
        }),
        named("view-of-4097-members", {
            let mut bytes = head.to_vec();
            bytes.extend([0x81, 0x20]);
            bytes.extend(member.repeat(400)); // and then it ends
            framed(&bytes)
        }),
        named("view-cut", framed(&binary[..binary.len() - 5])),
        named("view-of-partitions-3", {
            let mut bytes = binary.clone();
            bytes[18] = 3;
            framed(&bytes)
        }),
        named("view-of-a-later-format", framed(&[&[2], &binary[1..]].concat())),
    ];
    for (index, huge) in HUGE.iter().enumerate() {
        let members = framed(&[head, huge, &[0; 200]].concat());
        all.push(named(&format!("view-members-of-huge-{index}"), members));
        let owners = framed(&[head, &[0; 4], huge, &[0; 200]].concat());
        all.push(named(&format!("view-owners-of-huge-{index}"), owners));
    }
    all
}

fn moving(partition: u16) -> MoveReport {
    let keys = (1, 2);
    let (joins, done, waits_for) = (true, false, Some(7));
    MoveReport { partition, session: 5, joins, keys, bytes: 3, done, waits_for }
}

fn moves(list: &[MoveReport]) -> Vec<u8> {
    MovesReport::default().with(list).moves.to_vec()
}

fn covered() -> Vec<u8> {
    Covered::of(0, [(&b"a row"[..], [1; 16]), (b"", [2; 16])]).rows.to_vec()
}

/// Pages of dumps, reports of repair and of moves, and rows that somebody asks about.
fn lists() -> Entries {
    let page = |rows: &[DumpedRow]| Dumped::of(rows, true).rows.to_vec();
    let report = |partitions: &[PartitionRepair]| RepairReport::of(partitions).partitions.to_vec();
    let rows = [row(b"a state"), row(b"another")];
    let mut all = vec![
        named("page-of-rows-of-zeros", vec![0; 500]),
        named("page-cut", page(&rows)[..page(&rows).len() - 1].to_vec()),
        named("page-flag-2", vec![0, 0, 0, 0, 2]),
        named("report-not-in-order", [report(&[partition(2)]), report(&[partition(1)])].concat()),
        named("report-one-partition-twice", report(&[partition(2)]).repeat(2)),
        named("report-cut", report(&[partition(2), partition(3)])[..20].to_vec()),
        named("moves-not-in-order", moves(&[moving(2), moving(1)])),
        named("moves-one-partition-twice", moves(&[moving(2)]).repeat(2)),
        named("moves-cut", moves(&[moving(2), moving(3)])[..13].to_vec()),
        named("covered-cut", covered()[..22].to_vec()),
        named("covered-row-past-the-end", [&[0xff, 0xff][..], &[0; 40]].concat()),
        named("covered-of-zeros", vec![0; 180]),
    ];
    for (index, huge) in HUGE.iter().enumerate() {
        all.push(named(&format!("page-row-of-huge-{index}"), [huge, &[0; 40][..]].concat()));
        all.push(named(
            &format!("page-state-of-huge-{index}"),
            [&[0, 0, 1][..], huge, &[0; 40]].concat(),
        ));
        all.push(named(&format!("report-of-huge-{index}"), huge.repeat(6)));
        all.push(named(&format!("moves-of-huge-{index}"), huge.repeat(8)));
    }
    all
}

/// Lists as long as a frame may carry, of the smallest rows, and who takes them.
pub fn longest_lists() -> [(&'static str, Bytes, &'static str); 6] {
    let zeros = |rows: usize| Bytes::from(vec![0; 5 * rows]);
    let every = (0..=u16::MAX).map(partition).collect::<Vec<_>>();
    let again = [&RepairReport::of(&every).partitions[..], &[0; 6]].concat();
    [
        ("rows without end", zeros(DUMP_TAIL_BYTES_MAX / 5), "-"),
        ("a full page", zeros(DUMP_ROWS_MAX), "page"),
        ("every partition", RepairReport::of(&every).partitions, "report"),
        ("every partition and one more", again.into(), "-"),
        (
            "every partition moves",
            moves(&(0..=u16::MAX).map(moving).collect::<Vec<_>>()).into(),
            "moves",
        ),
        ("rows of nothing", vec![0; COMPARE_TAIL_BYTES_MAX / 18 * 18].into(), "covered"),
    ]
}

/// Documents as large as a frame may carry, of what costs most in memory. Too large for files.
pub fn largest() -> Vec<(&'static str, Bytes)> {
    let binary = view(4).encode();
    let head = &binary[..MEMBERS_AT];
    let count = |number: usize| postcard::to_stdvec(&number).expect("in memory");
    let room = VIEW_TAIL_BYTES_MAX - 100;
    let pairs = room / 4;
    let json = |list: &str, entry: &str| {
        let entries = vec![entry; room / (entry.len() + 1)].join(",");
        Bytes::from(format!("{{\"{list}\":[{entries}]}}"))
    };
    // All that comes before the moves, which are none: two lists of no entries end a view.
    let mut moving = binary[..binary.len() - 2].to_vec();
    moving.extend(count(pairs));
    moving.extend([1, 4, 0b1000, 0].repeat(pairs));
    let most = [&head[..18], &[0x80, 0x80, 0x04], &head[19..], &[0; 4]].concat();
    let empty = [most, vec![0; room]].concat();
    vec![
        ("members without end", view_of_members(room / (MEMBER_BYTES + 2)).into()),
        ("empty owner lists without end", framed(&empty).into()),
        ("moves without end", framed(&moving).into()),
        ("json of empty owner lists", json("owners", "[]")),
        ("json of epochs", json("last_changed", "1")),
        ("json of members", {
            let one = serde_json::to_value(view(4)).expect("in memory")["members"][0].to_string();
            json("members", &one)
        }),
        ("json a million deep", Bytes::from(b"[".repeat(1 << 20))),
    ]
}

/// A good view with as many partitions as there can be, each of which moves.
pub fn largest_view() -> Vec<u8> {
    let mut document = serde_json::to_value(view(4)).expect("in memory");
    document["partitions"] = json!(1 << 16);
    document["owners"] = json!(vec![[1, 2, 3]; 1 << 16]);
    document["last_changed"] = json!(vec![1; 1 << 16]);
    let moves =
        (0..1 << 16).map(|partition: u32| (partition.to_string(), json!({ "target": [1, 2, 4] })));
    document["moves"] = Value::Object(moves.collect());
    let view: View = serde_json::from_value(document).expect("a view");
    postcard::to_stdvec(&view).expect("in memory")
}

/// A view that is good but for the number of its members.
pub fn view_of_members(members: usize) -> Vec<u8> {
    let binary = view(4).encode();
    let rest_at = MEMBERS_AT + 1 + 4 * MEMBER_BYTES;
    let mut bytes = binary[..MEMBERS_AT].to_vec();
    bytes.extend(postcard::to_stdvec(&members).expect("in memory"));
    for id in 1..=members {
        bytes.extend(postcard::to_stdvec(&id).expect("in memory"));
        bytes.extend(&binary[MEMBERS_AT + 2..][..MEMBER_BYTES - 1]);
    }
    bytes.extend(&binary[rest_at..]);
    framed(&bytes)
}

/// The bytes of a view with their length in front, as messages have them.
fn framed(view: &[u8]) -> Vec<u8> {
    [&postcard::to_stdvec(&view.len()).expect("in memory")[..], view].concat()
}

/// Format, cluster, epoch, partitions, replicas and the buckets' N come before the members.
const MEMBERS_AT: usize = 1 + 16 + 4;
/// The first member of [`view`].
const MEMBER_BYTES: usize = 14;

fn named(name: &str, bytes: Vec<u8>) -> (String, Vec<u8>) {
    (name.to_owned(), bytes)
}

/// A frame put together by hand, without any of the checks.
fn frame(kind: u8, flags: u16, header: &[u8], tail: &[u8]) -> Vec<u8> {
    let length = u32::try_from(14 + header.len() + tail.len()).expect("short");
    let header_length = u16::try_from(header.len()).expect("short");
    let mut frame = length.to_le_bytes().to_vec();
    frame.extend([1, kind]);
    frame.extend(flags.to_le_bytes());
    frame.extend(77u64.to_le_bytes());
    frame.extend(header_length.to_le_bytes());
    frame.extend(header);
    frame.extend(tail);
    frame
}

fn header_of(frame: &[u8]) -> Vec<u8> {
    let length = usize::from(u16::from_le_bytes([frame[16], frame[17]]));
    frame[18..18 + length].to_vec()
}

/// The most that a header can make of itself: peers of five bytes each.
fn peers_of_zeros() -> Vec<u8> {
    let head = postcard::to_stdvec(&(Epoch(0), NodeStatus::default())).expect("in memory");
    let head = &head[..head.len() - 1]; // without the count of peers
    let peers = (HEADER_BYTES_MAX - head.len() - 3) / 5;
    let count = postcard::to_stdvec(&peers).expect("in memory");
    frame(Kind::Status.number(), 1, &[head, &count, &vec![0; peers * 5]].concat(), &[])
}

/// As many replicas as fit, of seven bytes each: more than are read.
fn places_of_zeros() -> Vec<u8> {
    let quorum = Quorum::new(&QuorumRequest::default(), 3).expect("as usual");
    let explained = Explained {
        node: 0,
        token: 0,
        partition: 0,
        changed_in: 0,
        quorum,
        bucket_n: 3,
        owners: Vec::new(),
        joining: None,
        fallbacks: Vec::new(),
        places: Vec::new(),
    };
    let head = postcard::to_stdvec(&(Epoch(0), explained)).expect("in memory");
    let head = &head[..head.len() - 1]; // without the count of places
    let places = (HEADER_BYTES_MAX - head.len() - 3) / 7;
    let count = postcard::to_stdvec(&places).expect("in memory");
    frame(Kind::Explain.number(), 1, &[head, &count, &vec![0; places * 7]].concat(), &[])
}

/// One link more than is read, of ten bytes each.
fn links_of_zeros() -> Vec<u8> {
    let links = FAULT_LINKS_MAX + 1;
    let count = postcard::to_stdvec(&links).expect("in memory");
    let rest = vec![0; links * LINK_BYTES + 4];
    frame(Kind::Faults.number(), 1, &[&NO_FAULTS_BEFORE_LINKS, &count[..], &rest].concat(), &[])
}

/// A list with one link, whose chance of loss has these bytes.
fn link_with_drop(chance: &[u8; 8]) -> Vec<u8> {
    // peer, name, cut, and that there is a chance; behind it the other six that are not there, and the rest of the list
    let link = [&[0, 0, 0, 1][..], chance, &[0; 6]].concat();
    let header = [&NO_FAULTS_BEFORE_LINKS[..], &[1], &link, &[0; 4]].concat();
    frame(Kind::Faults.number(), 1, &header, &[])
}

/// The epoch, then seed, free bytes, when, and hold.
const NO_FAULTS_BEFORE_LINKS: [u8; 5] = [0; 5];

/// A link that says nothing, as short as it is written.
const LINK_BYTES: usize = 10;

fn row(state: &'static [u8]) -> DumpedRow {
    DumpedRow {
        row: Bytes::from_static(b"row"),
        key: Bytes::from_static(b"key"),
        hint_for: Some(3),
        in_doubt: true,
        state: Some(Bytes::from_static(state)),
    }
}

fn partition(partition: u16) -> PartitionRepair {
    PartitionRepair {
        partition,
        agreed_ms_ago: u64::MAX,
        in_doubt: true,
        keys_repaired: 1,
        bytes: 2,
        backlog: 3,
    }
}

fn context(actors: u32) -> Context {
    let mut context = Context::new();
    for node in 1..=actors {
        context.add_interval(Actor::new(node, 0), 0, 4);
        context.add_interval(Actor::new(node, 0), 6, 300);
    }
    context
}

fn register(siblings: u32) -> State {
    let mut register = State::unknown(ValueKind::Register);
    for node in 1..=siblings {
        let event = Event { actor: Actor::new(node, 0), after: 300, counter: 305 };
        register.join(State::put(&context(1), event, Bytes::from_static(b"tea")));
    }
    register
}

fn state(operation: &Operation, kind: ValueKind) -> State {
    let event = Event { actor: Actor::new(1, 0), after: 4, counter: 7 };
    let stamp = Stamp { event, at: Hybrid::of(9_000, 1), wall_ms: 9_000, operation: 77 };
    State::unknown(kind).change(operation, None, &stamp).expect("it suits the kind")
}

fn set() -> State {
    state(&Operation::Add(vec!["tea".into(), "milk".into()]), ValueKind::Set)
}

fn map() -> State {
    state(&update(), ValueKind::Map)
}

/// A change of a field of every kind, one of them in a map of its own.
fn update() -> Operation {
    let field = |name: &'static str, kind, operation| {
        (Field { name: name.into(), kind }, FieldChange::Change(operation))
    };
    let put =
        |value: &'static str| Operation::Put { value: value.into(), expires_ms: Some(10_000) };
    let session = Increment::Session { session: 1 << 100, sequence: 2, total: -300 };
    Operation::Update(vec![
        field("name", ValueKind::Register, put("Ann")),
        field("mood", ValueKind::Lww, put("good")),
        field("visits", ValueKind::Counter, Operation::Increment(session)),
        field("hits", ValueKind::Counter, Operation::Increment(Increment::Once(1))),
        field("tags", ValueKind::Set, Operation::Add(vec!["x".into()])),
        field("on", ValueKind::Flag, Operation::Enable),
        field("best", ValueKind::Max, Operation::Raise(-5)),
        field(
            "deep",
            ValueKind::Map,
            Operation::Update(vec![field("f", ValueKind::Flag, Operation::Enable)]),
        ),
    ])
}

fn token(context: &Context) -> ContextToken {
    ContextToken::seal(&Secret([0; 32]), &[0; 16], &[0; 16], b"key", context)
}

fn note() -> Note {
    Note { actor: Actor::new(1, 2), last: 3, unclean_starts: 4, role_changes: 5 }
}

fn view(partitions: u32) -> View {
    let member = |id: u32| Member {
        id: NodeId(id),
        incarnation: 1,
        address: ([10, 0, 0, 1], 4000).into(),
        zone: format!("z{id}"),
        weight: 1,
        state: MemberState::Active,
    };
    let partitions = Partitions::new(partitions).expect("a power of two");
    View::create(ClusterId([7; 16]), partitions, 3, (1..=4).map(member).collect()).expect("four").0
}
