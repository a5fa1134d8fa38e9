//! Bytes from outside: whatever they are, no decoder panics, and what it accepts is the one
//! encoding of what it returns.
//!
//! And the golden bytes: records and tokens written today are read by every later version.

use atoll_antientropy::{
    Actor, Causal, Context, ContextToken, DecodeError, DotFun, DotMap, DotSet, DotStore, Event,
    Note, Register, Secret,
};
use bytes::Bytes;
use proptest::prelude::*;

type Set = Causal<DotMap<Bytes, DotSet>>;
type Nested = Causal<DotMap<Bytes, DotMap<Bytes, DotFun<Bytes>>>>;

/// Shows the bytes to every decoder.
fn check(input: &Bytes) {
    fn state<S: DotStore>(input: &Bytes) {
        if let Ok(state) = Causal::<S>::decode(input) {
            assert_eq!(state.encode(), *input, "{state:?}");
        }
    }
    state::<DotFun<Bytes>>(input);
    state::<DotSet>(input);
    state::<DotMap<Bytes, DotSet>>(input);
    state::<DotMap<Bytes, DotFun<Bytes>>>(input);
    state::<DotMap<Bytes, DotMap<Bytes, DotFun<Bytes>>>>(input);
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

fn golden_register() -> Register {
    let mut register = Register::put(
        &golden_context(),
        Event { actor: Actor::new(1, 0), after: 300, counter: 305 },
        Bytes::from_static(b"tea"),
    );
    let milk = Event::alone(Actor::new(2, 3), 12);
    register.join(Register::put(&Context::new(), milk, Bytes::from_static(b"milk")));
    register
}

fn golden_token() -> ContextToken {
    ContextToken::seal(&Secret([0; 32]), &[0; 16], &[0; 16], b"key", &golden_context())
}

fn golden_set() -> Set {
    let event = Event::alone(Actor::new(1, 0), 7);
    let element = |name: &'static str| {
        DotMap::one(Bytes::from_static(name.as_bytes()), DotSet::one(event.dot(), ()))
    };
    let mut store = element("tea");
    store.join(&Context::new(), element("milk"), &Context::new());
    Causal::delta(&other_context(), event, store)
}

fn golden_nested() -> Nested {
    let event = Event::alone(Actor::new(1, 0), 7);
    let field = DotMap::one(Bytes::from("field"), DotFun::one(event.dot(), Bytes::from("value")));
    Causal::delta(&other_context(), event, DotMap::one(Bytes::from("map"), field))
}

fn other_context() -> Context {
    Event { actor: Actor::new(9, 0), after: 0, counter: 2 }.context()
}

fn valid() -> Vec<Bytes> {
    let note = Note { actor: Actor::new(1, 2), last: 3, unclean_starts: 4, role_changes: 5 };
    vec![
        golden_context().encode().into(),
        golden_register().encode().into(),
        golden_set().encode().into(),
        golden_nested().encode().into(),
        golden_token().as_bytes().clone(),
        Bytes::copy_from_slice(&note.encode()),
    ]
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
        kind in prop::sample::select(vec![0x01u8, 0x02, 0x11, 0x12, 0x21, 0x00]),
        rest in prop::collection::vec(prop_oneof![0..4u8, any::<u8>()], 0..40),
    ) {
        check(&[&[kind][..], &rest].concat().into());
    }

    #[test]
    fn changed_bytes_do_no_harm(
        which in 0..6usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
        insert in any::<bool>(),
    ) {
        let mut bytes = valid()[which].to_vec();
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
        let decoded = Register::decode(&Bytes::from_static(bytes));
        assert_eq!(decoded.map(|register| register.siblings()), expected);
    };
    check(&[1, 0, 0], Ok(0));
    check(&[1, 1, 1, 0, 1, 0, 2, 2, 1, 0, 1, 1, b'a', 1, 0, 2, 0], Ok(2));
    check(&[1, 1, 1, 0, 1, 0, 2, 2, 1, 0, 2, 0, 1, 0, 1, 1, b'a'], Err(DecodeError::Order));
    check(&[1, 1, 1, 0, 1, 0, 2, 2, 1, 0, 2, 0, 1, 0, 2, 0], Err(DecodeError::Order));
    check(&[1, 1, 1, 0, 1, 0, 2, 1, 1, 0, 3, 0], Err(DecodeError::Uncovered));
    check(&[1, 1, 1, 0, 1, 0, 2, 1, 1, 0, 0, 0], Err(DecodeError::Uncovered)); // no counter 0
    check(&[1, 0, 1, 1, 0, 1, 0], Err(DecodeError::Uncovered));
    check(&[1, 0, 0, 0], Err(DecodeError::Trailing(1)));
    check(&[2, 0, 0], Err(DecodeError::Kind { expected: 1, found: 2 }));
    check(&[1, 0, 0xff, 0xff, 0xff, 0x7f], Err(DecodeError::Truncated)); // 268 million siblings
    check(&[1, 0, 0x80, 0x00], Err(DecodeError::Number));
    check(&[], Err(DecodeError::Truncated));

    let empty_element =
        Set::decode(&Bytes::from_static(&[0x12, 0, 1, 5, b'b', b'l', b'a', b'c', b'k', 0]));
    assert_eq!(empty_element, Err(DecodeError::Empty));
}

/// Values come out as slices of what came in: a large value is not copied.
#[test]
fn values_share_memory_with_the_input() {
    let value = Bytes::from(vec![5; 100_000]);
    let event = Event::alone(Actor::new(1, 0), 1);
    let input = Bytes::from(Register::put(&Context::new(), event, value).encode());
    let register = Register::decode(&input).unwrap();
    let (_, value) = register.values().next().unwrap();
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
    assert_eq!(
        hex(&golden_register().encode()),
        "0102010002000402ab0202030209010101020100b1020374656102030c046d696c6b"
    );
    assert_eq!(hex(&golden_register().digest().0), "6dd9bf2a09b1b1e7b6ef29cc5bc06d7e");
    assert_eq!(
        hex(&golden_set().encode()),
        "12020100010601090001000202046d696c6b010100070374656101010007"
    );
    assert_eq!(
        hex(golden_token().as_bytes()),
        "01c4da13572dbae82a79310e7f02010002000402a602020301090149ebd802d0be3eab052d27e1b2e0b488"
    );
}
