//! All decoders, what they may do with any bytes, and how much memory they may take for that.

use atoll_antientropy::{Context, ContextToken, Note, Operation, Reading, Secret, State};
use atoll_ring::{MEMBERS_MAX, View};
use atoll_wire::{
    Covered, Dumped, Frame, MovesReport, RepairReport,
    frame::{Head, encode_reply, encode_request, peek_length},
    limits::{DUMP_ROWS_MAX, HEADER_MEMORY_BYTES_MAX},
};
use bytes::Bytes;
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Shows the bytes to every decoder and says who took them, by name; `-` if nobody did.
pub fn feed(what: &str, bytes: &Bytes) -> String {
    let mut takers = Vec::new();
    for decoder in DECODERS {
        // what it costs to read, and not what the test does with it afterwards
        let before = MEMORY.current_usage();
        MEMORY.reset_peak_usage();
        (decoder.read)(bytes);
        let peak = MEMORY.peak_usage().saturating_sub(before);
        let most = (decoder.memory_max)(bytes.len()) + HARNESS_BYTES;
        assert!(peak <= most, "{what}: {} took {peak} bytes, {most} are its most", decoder.name);
        if (decoder.again)(bytes) {
            takers.push(decoder.name);
        }
    }
    if takers.is_empty() { "-".into() } else { takers.join(" ") }
}

/// What the thread that runs the tests may take at the same time.
const HARNESS_BYTES: usize = 32 << 10;

struct Decoder {
    name: &'static str,
    /// Reads, and drops what it read.
    read: fn(&Bytes),
    /// Most bytes of memory for an input of this length.
    memory_max: fn(usize) -> usize,
    /// Reads, writes, and reads again; false if the bytes were refused.
    again: fn(&Bytes) -> bool,
}

const DECODERS: &[Decoder] = &[
    Decoder {
        name: "request",
        read: |bytes| drop(Frame::parse(bytes).map(|frame| frame.request())),
        memory_max: |_| HEADER_MEMORY_BYTES_MAX,
        again: |bytes| {
            let (peeked, head) = (peek_length(bytes), Head::peek(bytes));
            let Ok(frame) = Frame::parse(bytes) else { return false };
            let head = head.expect("a frame has a head").expect("all of it");
            assert_eq!(peeked, Ok(Some(bytes.len())));
            assert_eq!((head.kind, head.reply, head.id), (frame.kind, frame.reply, frame.id));
            assert_eq!((head.length, frame.length()), (bytes.len(), bytes.len()));
            let Ok((envelope, request)) = frame.request() else { return false };
            let written = encode_request(frame.id, &envelope, &request).expect("was sent").concat();
            let second = Frame::parse(&written.into()).expect("our own");
            assert_eq!(second.request(), Ok((envelope, request)));
            true
        },
    },
    Decoder {
        name: "reply",
        read: |bytes| drop(Frame::parse(bytes).map(|frame| frame.reply())),
        memory_max: |_| HEADER_MEMORY_BYTES_MAX,
        again: |bytes| {
            let Ok(frame) = Frame::parse(bytes) else { return false };
            let Ok((epoch, reply)) = frame.reply() else { return false };
            let written = encode_reply(frame.kind, frame.id, epoch, &reply).expect("was sent");
            let second = Frame::parse(&written.concat().into()).expect("our own");
            assert_eq!(second.reply(), Ok((epoch, reply)));
            true
        },
    },
    Decoder {
        name: "page",
        read: |bytes| drop(Dumped { more: false, rows: bytes.clone() }.read()),
        memory_max: page_memory_max,
        again: |bytes| match (Dumped { more: false, rows: bytes.clone() }).read() {
            Some(rows) => {
                assert_eq!(Dumped::of(&rows, false).read(), Some(rows));
                true
            }
            None => false,
        },
    },
    Decoder {
        name: "report",
        read: |bytes| drop(RepairReport { partitions: bytes.clone() }.read()),
        memory_max: report_memory_max,
        again: |bytes| match (RepairReport { partitions: bytes.clone() }).read() {
            Some(partitions) => {
                assert_eq!(RepairReport::of(&partitions).read(), Some(partitions));
                true
            }
            None => false,
        },
    },
    Decoder {
        name: "moves",
        read: |bytes| drop(moves(bytes).read()),
        memory_max: moves_memory_max,
        again: |bytes| match moves(bytes).read() {
            Some(read) => {
                assert_eq!(MovesReport::default().with(&read).read(), Some(read));
                true
            }
            None => false,
        },
    },
    Decoder {
        name: "covered",
        read: |bytes| drop(Covered { partition: 0, rows: bytes.clone() }.read()),
        memory_max: covered_memory_max,
        again: |bytes| match (Covered { partition: 0, rows: bytes.clone() }).read() {
            Some(rows) => {
                let pairs = rows.iter().map(|(row, digest)| (&row[..], *digest));
                assert_eq!(Covered::of(0, pairs).rows, *bytes);
                true
            }
            None => false,
        },
    },
    Decoder {
        name: "state",
        read: |bytes| drop(State::decode(bytes)),
        memory_max: nested_memory_max,
        again: |bytes| match State::decode(bytes) {
            Ok(state) => {
                assert_eq!(state.encode()[..], bytes[..], "{state:?}");
                true
            }
            Err(_) => false,
        },
    },
    Decoder {
        name: "operation",
        read: |bytes| drop(Operation::decode(bytes)),
        memory_max: operation_memory_max,
        again: |bytes| match Operation::decode(bytes) {
            Ok(operation) => {
                assert_eq!(operation.encode()[..], bytes[..], "{operation:?}");
                true
            }
            Err(_) => false,
        },
    },
    Decoder {
        name: "reading",
        read: |bytes| drop(Reading::decode(bytes)),
        memory_max: nested_memory_max,
        again: |bytes| match Reading::decode(bytes) {
            Ok(reading) => {
                assert_eq!(reading.encode()[..], bytes[..], "{reading:?}");
                true
            }
            Err(_) => false,
        },
    },
    Decoder {
        name: "context",
        read: |bytes| drop(Context::decode(bytes)),
        memory_max: state_memory_max,
        again: |bytes| match Context::decode(bytes) {
            Ok(context) => {
                assert_eq!(context.encode()[..], bytes[..], "{context}");
                true
            }
            Err(_) => false,
        },
    },
    Decoder {
        name: "token",
        read: |bytes| {
            let token = ContextToken::from(bytes.clone());
            drop((token.peek(), token.open(&Secret([0; 32]), &[0; 16], &[0; 16], b"key")));
        },
        // a token is looked at only up to the length that 1024 intervals could have
        memory_max: |length| state_memory_max(length.min(64 << 10)),
        again: |bytes| {
            let token = ContextToken::from(bytes.clone());
            assert!(token.open(&Secret([1; 32]), &[0; 16], &[0; 16], b"key").is_err());
            match token.peek() {
                Ok(context) => {
                    assert_eq!(context.encode()[..], bytes[13..bytes.len() - 16]);
                    true
                }
                Err(_) => false,
            }
        },
    },
    Decoder {
        name: "note",
        read: |bytes| drop(Note::decode(bytes)),
        memory_max: |_| 0,
        again: |bytes| match Note::decode(bytes) {
            Ok(note) => {
                assert_eq!(note.encode()[..], bytes[..]);
                true
            }
            Err(_) => false,
        },
    },
    Decoder {
        name: "view",
        read: |bytes| drop(postcard::from_bytes::<View>(bytes)),
        memory_max: view_memory_max,
        again: |bytes| match postcard::from_bytes::<View>(bytes) {
            Ok(view) => {
                let written = postcard::to_stdvec(&view).expect("in memory");
                assert_eq!(postcard::from_bytes::<View>(&written), Ok(view));
                true
            }
            Err(_) => false,
        },
    },
    Decoder {
        name: "view.json",
        read: |bytes| drop(serde_json::from_slice::<View>(bytes)),
        memory_max: view_memory_max,
        again: |bytes| match serde_json::from_slice::<View>(bytes) {
            Ok(view) => {
                let written = serde_json::to_string(&view).expect("in memory");
                assert_eq!(serde_json::from_str::<View>(&written).expect("our own"), view);
                true
            }
            Err(_) => false,
        },
    },
];

fn moves(bytes: &Bytes) -> MovesReport {
    MovesReport { moves: bytes.clone(), ..MovesReport::default() }
}

/// An interval takes two bytes or more and becomes 24, a dot with an empty value four and becomes 48; a list that grows
/// holds its old self once more for a moment, here counted in full.
fn state_memory_max(length: usize) -> usize {
    36 * length
}

/// A field of a map takes five bytes or more and becomes at most 136, in an operation three or more and at most 128; a
/// list that grows holds its old self once more for a moment, and each of eight nested lists may reserve 16 at once.
fn nested_memory_max(length: usize) -> usize {
    3 * 136 * (length / 5 + 4) + 8 * 16 * 136
}

fn operation_memory_max(length: usize) -> usize {
    3 * 128 * (length / 3 + 4) + 8 * 16 * 128
}

/// A row takes five bytes or more and becomes 112, and a list that grows holds its old self for a moment; it has never
/// more rows than a page may have. The bytes of the rows are slices.
fn page_memory_max(length: usize) -> usize {
    3 * 112 * DUMP_ROWS_MAX.min(length / 5 + 4)
}

/// A partition takes six bytes or more and becomes 32; there are at most 65,536.
fn report_memory_max(length: usize) -> usize {
    3 * 32 * (1usize << 16).min(length / 6 + 4)
}

/// A move takes eight bytes or more and becomes 64; there are at most as many as partitions.
fn moves_memory_max(length: usize) -> usize {
    3 * 64 * (1usize << 16).min(length / 8 + 4)
}

/// A row takes 18 bytes or more and becomes 48. The names are slices.
fn covered_memory_max(length: usize) -> usize {
    3 * 48 * (length / 18 + 4)
}

/// An empty list of owners takes one byte and becomes 24, and a list that grows holds its old self for a moment; but of
/// all tables together there is no more than the largest view has. A member takes 14 bytes and becomes 80, and once all
/// are read 64 points on the ring; there are at most 4096.
fn view_memory_max(length: usize) -> usize {
    let members = MEMBERS_MAX.min(length / 14);
    (72 * length).min(10 << 20) + members * (2 * 80 + 64 * 100)
}
