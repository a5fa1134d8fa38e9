//! Bytes from outside: whatever they are, no decoder panics, and what it accepts is the one
//! encoding of what it returns.
//!
//! And the golden bytes: records and tokens written today are read by every later version.

use atoll_antientropy::{
    Actor, Context, ContextToken, DecodeError, Event, Field, FieldChange, Hybrid, Increment, Kind,
    Note, Operation, Reading, Secret, Stamp, State,
};
use bytes::Bytes;
use proptest::prelude::*;

/// Shows the bytes to every decoder.
fn check(input: &Bytes) {
    if let Ok(state) = State::decode(input) {
        assert_eq!(state.encode(), *input, "{state:?}");
    }
    if let Ok(operation) = Operation::decode(input) {
        assert_eq!(operation.encode(), *input, "{operation:?}");
    }
    if let Ok(reading) = Reading::decode(input) {
        assert_eq!(reading.encode(), *input, "{reading:?}");
    }
    if let Ok(context) = Context::decode(input) {
        assert_eq!(context.encode(), *input, "{context}");
    }
    if let Ok(note) = Note::decode(input) {
        assert_eq!(note.encode()[..], *input);
    }
    let token = ContextToken::from(input.clone());
    if let Ok(context) = token.peek() {
        assert_eq!(context.encode(), input[13..input.len() - 16]);
    }
    let opened = token.open(&Secret([0; 32]), &[0; 16], &[0; 16], b"key");
    assert!(opened.is_err() || token == golden_token(), "nobody else knows the secret");
}

fn golden_context() -> Context {
    let mut context = Context::new();
    context.add_interval(Actor::new(1, 0), 0, 4);
    context.add_interval(Actor::new(1, 0), 6, 300);
    context.add_interval(Actor::new(2, 3), 9, 10);
    context
}

fn golden_token() -> ContextToken {
    ContextToken::seal(&Secret([0; 32]), &[0; 16], &[0; 16], b"key", &golden_context())
}

fn stamp(event: Event) -> Stamp {
    Stamp { event, at: Hybrid::of(9_000, 1), wall_ms: 9_000, operation: 77 }
}

/// A state of each kind, and the last operation that led to it.
fn golden(kind: Kind) -> (State, Operation) {
    let mut state = State::unknown(kind);
    let mut last = None;
    for (counter, operation) in (1..).zip(golden_operations(kind)) {
        let event = Event { actor: Actor::new(1, 0), after: 3 * counter - 2, counter: 3 * counter };
        let delta = state.change(&operation, Some(&other_context()), &stamp(event)).unwrap();
        state.join(delta);
        last = Some(operation);
    }
    (state, last.unwrap())
}

fn golden_operations(kind: Kind) -> Vec<Operation> {
    let put = |value: &'static str, expires_ms| Operation::Put { value: value.into(), expires_ms };
    let session = Increment::Session { session: 0xab, sequence: 2, total: -300 };
    match kind {
        Kind::Register => vec![put("tea", None), put("milk", Some(10_000))],
        Kind::Lww => vec![put("tea", Some(10_000))],
        Kind::Counter => vec![
            Operation::Increment(Increment::Once(1)),
            Operation::Clear,
            Operation::Increment(session),
            Operation::Increment(Increment::Once(70)),
        ],
        Kind::Set => vec![
            Operation::Add(vec!["tea".into(), "milk".into()]),
            Operation::Remove(vec!["tea".into()]),
            Operation::Add(vec!["rice".into()]),
        ],
        Kind::Flag => vec![Operation::Disable, Operation::Enable],
        Kind::Max => vec![Operation::Raise(-5)],
        Kind::Map => {
            let field = |kind: Kind| Field { name: Bytes::from(format!("a {kind}")), kind };
            let inner = Operation::Update(vec![(
                field(Kind::Flag),
                FieldChange::Change(Operation::Enable),
            )]);
            let change = |kind| match kind {
                Kind::Map => (field(kind), FieldChange::Change(inner.clone())),
                _ => (field(kind), FieldChange::Change(golden_operations(kind).remove(0))),
            };
            let removal = (field(Kind::Lww), FieldChange::Remove);
            vec![
                Operation::Update(Kind::ALL.into_iter().map(change).collect()),
                Operation::Update(vec![removal]),
            ]
        }
    }
}

fn other_context() -> Context {
    Event { actor: Actor::new(9, 0), after: 0, counter: 2 }.context()
}

fn valid() -> Vec<Bytes> {
    let note = Note { actor: Actor::new(1, 2), last: 3, unclean_starts: 4, role_changes: 5 };
    let mut valid: Vec<Bytes> = vec![
        golden_context().encode().into(),
        golden_token().as_bytes().clone(),
        Bytes::copy_from_slice(&note.encode()),
    ];
    for kind in Kind::ALL {
        let (state, operation) = golden(kind);
        valid.push(state.encode().into());
        valid.push(operation.encode().into());
        valid.push(state.read(9_500).encode().into());
    }
    valid
}

/// Every byte of every valid encoding, changed into every other byte, and every encoding cut at
/// every length.
#[test]
fn single_changes_do_no_harm() {
    for valid in valid() {
        check(&valid);
        for at in 0..valid.len() {
            check(&valid.slice(..at));
            for byte in 0..=255 {
                let mut changed = valid.to_vec();
                changed[at] = byte;
                check(&changed.into());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 4000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn random_bytes_do_no_harm(input in prop::collection::vec(any::<u8>(), 0..80)) {
        check(&input.into());
    }

    /// Small numbers with the right first byte come far into the decoders.
    #[test]
    fn almost_valid_bytes_do_no_harm(
        kind in prop::sample::select((0x00..0x2au8).collect::<Vec<_>>()),
        rest in prop::collection::vec(prop_oneof![0..4u8, any::<u8>()], 0..40),
    ) {
        check(&[&[kind][..], &rest].concat().into());
    }

    #[test]
    fn changed_bytes_do_no_harm(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
        insert in any::<bool>(),
    ) {
        let mut bytes = which.get(&valid()).to_vec();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let at = cut.index(bytes.len());
        if insert { bytes.insert(at, 0) } else { bytes.truncate(at) }
        check(&bytes.into());
    }
}

/// What a decoder refuses, and why; the context's own reasons are tested beside it.
#[test]
fn refusals_have_reasons() {
    let check = |bytes: &'static [u8], expected: Result<usize, DecodeError>| {
        let decoded = State::decode(&Bytes::from_static(bytes));
        assert_eq!(decoded.map(|state| state.siblings()), expected);
    };
    let set = |dots: &[u8]| [&[0x24, 1, 1, 0, 1, 0, 2, 0, 1, 1, b't', 1][..], dots].concat();
    check(set(&[1, 0, 2, 0]).leak(), Ok(1));
    check(set(&[1, 0, 3, 0]).leak(), Err(DecodeError::Uncovered));
    check(&[0x24, 0, 0, 1, 3, b't', b'e', b'a', 0, 0], Err(DecodeError::Empty)); // no dot of tea
    // Beside what is known of whole events, n1.0.3 is known to be gone everywhere, or under tea.
    check(&[0x24, 1, 1, 0, 1, 0, 2, 1, 1, 0, 1, 2, 1, 0, 0], Ok(0));
    check(&[0x24, 1, 1, 0, 1, 0, 2, 1, 1, 0, 1, 1, 1, 0, 0], Err(DecodeError::Uncovered)); // again
    check(&[0x24, 1, 1, 0, 1, 0, 2, 0, 0, 1, 1, b't', 1, 1, 0, 1, 2, 1], Ok(0));
    let again = &[0x24, 1, 1, 0, 1, 0, 2, 0, 0, 1, 1, b't', 1, 1, 0, 1, 1, 1];
    check(again, Err(DecodeError::Uncovered));
    let nothing = &[0x24, 1, 1, 0, 1, 0, 2, 0, 0, 1, 1, b't', 0, 0, 0, 0, 0, 0];
    check(nothing, Err(DecodeError::Empty));
    check(&[0x26, 0, 1, 9], Ok(1));
    check(&[0x26, 0, 2, 9], Err(DecodeError::Tag(2)));
    check(&[0x28, 0, 0], Err(DecodeError::Tag(0x28))); // no such kind
    check(&[0x04, 0, 0], Err(DecodeError::Tag(0x04))); // no such format
    check(&[0x23, 0, 1, 0, 1, 0, 1, 5, 8, 1], Ok(0)); // a chain of n1.0.1, all reset
    check(&[0x23, 0, 1, 0, 1, 0, 1, 5, 8, 2, 4, 8], Ok(1));
    check(&[0x23, 0, 1, 0, 1, 0, 1, 5, 8, 2, 5, 8], Err(DecodeError::Reset)); // that is tag 1
    check(&[0x23, 0, 1, 0, 1, 0, 1, 5, 8, 2, 6, 0], Err(DecodeError::Reset));
    check(&[0x27, 0, 0, 1, 1, b'f', 6, 0, 0], Err(DecodeError::Empty));
    check(&[0x27, 0, 0, 1, 1, b'f', 6, 1, 9, 0], Ok(1));
    check(&[0x27, 0, 0, 2, 1, b'f', 6, 1, 9, 1, b'f', 6, 1, 9, 0], Err(DecodeError::Order));
    check(&[0x27, 0, 0, 1, 1, b'f', 8, 1, 9, 0], Err(DecodeError::Tag(8)));
}

/// Two states under one context that know different things: no honest history leads there, since
/// whoever knows an event has all of it. But bytes may, and then too "covers" means that a join
/// would change nothing.
#[test]
fn states_that_lie_about_events_are_not_covered() {
    let context: &[u8] = &[1, 1, 0, 1, 0, 2]; // n1.0:(0,2]
    let state = |kind: u8, rest: &[u8]| {
        State::decode(&[&[kind][..], context, rest].concat().into()).expect("well-formed")
    };
    for (less, more) in [
        (state(0x24, &[0, 0, 0]), state(0x24, &[0, 0, 1, 1, b't', 1, 1, 0, 1, 2, 1])),
        (state(0x24, &[0, 0, 0]), state(0x24, &[1, 1, 0, 1, 2, 1, 0, 0])),
        (state(0x27, &[0, 0, 0]), state(0x27, &[0, 1, 1, b'f', 6, 1, 9, 0])),
        (state(0x27, &[0, 0, 0]), state(0x27, &[0, 0, 1, 1, b'f', 4, 1, 1, 0, 1, 2, 1])),
        (state(0x26, &[1, 4]), state(0x26, &[1, 6])),
    ] {
        assert!(!less.covers(&more) && more.covers(&less), "{less:?} {more:?}");
        let mut joined = less.clone();
        joined.join(more.clone());
        assert_eq!(joined, more);
        assert_ne!(less.digest(), more.digest());
    }
}

/// Values come out as slices of what came in: a large value is not copied.
#[test]
fn values_share_memory_with_the_input() {
    let value = Bytes::from(vec![5; 100_000]);
    let event = Event::alone(Actor::new(1, 0), 1);
    let input = Bytes::from(State::put(&Context::new(), event, value).encode());
    let state = State::decode(&input).unwrap();
    let (_, value) = state.values().next().unwrap();
    assert!(input.as_ptr_range().contains(&value.as_ptr()));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Stored and sent bytes never change their meaning. If this test fails, the format did change:
/// give it a new number and keep reading the old one.
#[test]
fn golden_bytes() {
    assert_eq!(hex(&golden_context().encode()), "02010002000402a6020203010901");
    let mut all = String::new();
    for kind in Kind::ALL {
        let (state, operation) = golden(kind);
        for (what, bytes) in [
            ("state", state.encode()),
            ("digest", state.digest().0.to_vec()),
            ("operation", operation.encode()),
            ("reading", state.read(9_500).encode()),
        ] {
            all += &format!("{what} {kind}: {}\n", hex(&bytes));
        }
    }
    assert_eq!(all, include_str!("golden.txt"));
    assert_eq!(
        hex(golden_token().as_bytes()),
        "01c4da13572dbae82a79310e7f02010002000402a602020301090149ebd802d0be3eab052d27e1b2e0b488"
    );
}
