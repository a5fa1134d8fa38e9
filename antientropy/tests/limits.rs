//! Every limit and every refusal: at the limit it goes, beyond it says why, and nothing is changed.

use atoll_antientropy::{
    Actor, DEPTH_MAX, DecodeError, ELEMENTS_MAX, Event, FIELDS_MAX, Field, FieldChange, Hybrid,
    Increment, Kind, NAME_BYTES_MAX, Operation, Reading, Refused, SESSIONS_MAX, Stamp, State,
};
use bytes::Bytes;

/// Does one operation after another, as one node, blindly.
fn apply(state: &mut State, node: u32, operation: &Operation) -> Result<(), Refused> {
    let before = state.context().iter().filter(|own| own.actor.node == node).last();
    let after = before.map_or(0, |own| own.hi);
    let event = Event { actor: Actor::new(node, 0), after, counter: after + 1 };
    let stamp = Stamp { event, at: Hybrid::of(1, 0), wall_ms: 1, operation: 0 };
    let delta = state.change(operation, None, &stamp)?;
    state.join(delta);
    Ok(())
}

fn names(range: std::ops::Range<usize>) -> Vec<Bytes> {
    range.map(|number| Bytes::from(format!("{number:05}"))).collect()
}

fn fields(range: std::ops::Range<usize>, kind: Kind, operation: &Operation) -> Operation {
    let field = |name| (Field { name, kind }, FieldChange::Change(operation.clone()));
    Operation::Update(names(range).into_iter().map(field).collect())
}

#[test]
fn a_set_has_a_thousand_elements_at_most() {
    let mut set = State::unknown(Kind::Set);
    let add = |range| Operation::Add(names(range));
    let refused = |elements| Err(Refused::TooManyElements { elements, elements_max: ELEMENTS_MAX });
    assert_eq!(apply(&mut set, 1, &add(0..ELEMENTS_MAX + 1)), refused(1001));
    assert_eq!(apply(&mut set, 1, &add(0..ELEMENTS_MAX)), Ok(()));
    assert_eq!(apply(&mut set, 1, &add(ELEMENTS_MAX..ELEMENTS_MAX + 1)), refused(1001));
    assert_eq!(apply(&mut set, 1, &add(0..ELEMENTS_MAX)), Ok(()), "all of them again");
    // Merged from two sides it is larger. It may become smaller, and stay as it is.
    let mut other = State::unknown(Kind::Set);
    apply(&mut other, 2, &add(5000..5010)).unwrap();
    set.join(other);
    assert_eq!(apply(&mut set, 1, &add(5000..5001)), Ok(()));
    assert_eq!(apply(&mut set, 1, &Operation::Remove(names(0..1))), Ok(()));
    assert_eq!(apply(&mut set, 1, &add(0..1)), refused(1010));
    let Reading::Set(elements) = set.read(0) else { unreachable!() };
    assert_eq!(elements.len(), 1009);
    assert_eq!(State::decode(&set.encode().into()), Ok(set));
}

#[test]
fn a_map_has_a_thousand_fields_per_level_at_most() {
    let mut map = State::unknown(Kind::Map);
    let refused = |fields| Err(Refused::TooManyFields { fields, fields_max: FIELDS_MAX });
    let on = |range| fields(range, Kind::Flag, &Operation::Enable);
    assert_eq!(apply(&mut map, 1, &on(0..FIELDS_MAX + 1)), refused(1001));
    assert_eq!(apply(&mut map, 1, &on(0..FIELDS_MAX)), Ok(()));
    assert_eq!(apply(&mut map, 1, &on(FIELDS_MAX..FIELDS_MAX + 1)), refused(1001));
    // One goes and one comes, in one update.
    let gone = (Field { name: names(3..4).remove(0), kind: Kind::Flag }, FieldChange::Remove);
    let Operation::Update(mut swap) = on(FIELDS_MAX..FIELDS_MAX + 1) else { unreachable!() };
    swap.push(gone);
    assert_eq!(apply(&mut map, 1, &Operation::Update(swap)), Ok(()));
    // A level of its own.
    let inner = fields(0..1, Kind::Map, &on(0..FIELDS_MAX + 1));
    let mut other = State::unknown(Kind::Map);
    assert_eq!(apply(&mut other, 1, &inner), refused(1001));
    // Counters that were removed are remembered, and count.
    let counter = fields(0..FIELDS_MAX, Kind::Counter, &Operation::Increment(Increment::Once(1)));
    apply(&mut other, 1, &counter).unwrap();
    apply(&mut other, 1, &Operation::Clear).unwrap();
    assert!(other.read(0).is_nothing() && other.is_tombstone());
    assert_eq!(apply(&mut other, 1, &on(0..1)), refused(1001));
}

/// Maps in maps: eight are fine, the ninth is refused, by changes and by every decoder.
#[test]
fn maps_nest_eight_deep() {
    let nested = |depth: usize| {
        (1..depth).fold(fields(0..1, Kind::Flag, &Operation::Enable), |inner, _| {
            fields(0..1, Kind::Map, &inner)
        })
    };
    let mut map = State::unknown(Kind::Map);
    assert_eq!(apply(&mut map, 1, &nested(DEPTH_MAX)), Ok(()));
    let refused = Err(Refused::TooDeep { depth_max: DEPTH_MAX });
    assert_eq!(apply(&mut map, 1, &nested(DEPTH_MAX + 1)), refused);
    assert_eq!(State::decode(&map.encode().into()).as_ref(), Ok(&map));
    let reading = map.read(0);
    assert_eq!(Reading::decode(&reading.encode().into()), Ok(reading));
    for (depth, expected) in [(DEPTH_MAX, None), (DEPTH_MAX + 1, Some(DecodeError::TooDeep))] {
        let decoded = Operation::decode(&nested(depth).encode().into());
        assert_eq!(decoded.err(), expected, "{depth}");
    }
    // A map in a map in a map ..., 100,000 deep: no stack is that large.
    let deep = |start: &[u8], level: &[u8]| [start, &level.repeat(100_000)].concat();
    let level = [1, 1, b'f', 7]; // one field, f, a map
    assert_eq!(State::decode(&deep(&[0x27, 0, 0], &level).into()), Err(DecodeError::TooDeep));
    assert_eq!(Reading::decode(&deep(&[7], &level).into()), Err(DecodeError::TooDeep));
    let level = [9, 1, 1, b'f', 7, 1];
    assert_eq!(Operation::decode(&deep(&[], &level).into()), Err(DecodeError::TooDeep));
}

#[test]
fn a_counter_has_ten_thousand_sessions_at_most() {
    let mut counter = State::unknown(Kind::Counter);
    let by = |session: usize, sequence| {
        let total = sequence as i64;
        Operation::Increment(Increment::Session { session: session as u128, sequence, total })
    };
    for session in 0..SESSIONS_MAX {
        apply(&mut counter, 1, &by(session, 1)).unwrap();
    }
    let refused = Err(Refused::TooManySessions { sessions_max: SESSIONS_MAX });
    assert_eq!(apply(&mut counter, 1, &by(SESSIONS_MAX, 1)), refused);
    assert_eq!(apply(&mut counter, 1, &Operation::Increment(Increment::Once(1))), refused);
    assert_eq!(apply(&mut counter, 1, &by(7, 2)), Ok(()), "an old one goes on");
    assert_eq!(counter.read(0), Reading::Counter(10_001));
    assert_eq!(apply(&mut counter, 1, &Operation::Clear), Ok(()));
    assert_eq!(counter.read(0), Reading::Counter(0));
    assert_eq!(apply(&mut counter, 1, &by(SESSIONS_MAX, 1)), refused, "remembered");
}

#[test]
fn names_have_a_kibibyte_at_most() {
    let name = |len| Bytes::from(vec![b'x'; len]);
    let refused = Err(Refused::NameTooLong { bytes: 1025, bytes_max: NAME_BYTES_MAX });
    let field = |len| {
        let field = Field { name: name(len), kind: Kind::Flag };
        Operation::Update(vec![(field, FieldChange::Change(Operation::Enable))])
    };
    let (mut set, mut map) = (State::unknown(Kind::Set), State::unknown(Kind::Map));
    assert_eq!(apply(&mut set, 1, &Operation::Add(vec![name(NAME_BYTES_MAX)])), Ok(()));
    assert_eq!(apply(&mut set, 1, &Operation::Add(vec![name(1), name(1025)])), refused);
    assert_eq!(apply(&mut set, 1, &Operation::Remove(vec![name(1025)])), refused);
    assert_eq!(apply(&mut map, 1, &field(NAME_BYTES_MAX)), Ok(()));
    assert_eq!(apply(&mut map, 1, &field(1025)), refused);
}

/// Every operation with every kind, alone and inside a map.
#[test]
fn an_operation_for_another_kind_is_refused() {
    let put = Operation::Put { value: Bytes::from("v"), expires_ms: None };
    let increment = Operation::Increment(Increment::Once(1));
    let element = || vec![Bytes::from("x")];
    let update = fields(0..1, Kind::Flag, &Operation::Enable);
    use Kind::{Counter, Flag, Lww, Map, Max, Register, Set};
    let table: [(Operation, &str, &[Kind]); 9] = [
        (put, "put", &[Register, Lww]),
        (increment, "increment", &[Counter]),
        (Operation::Add(element()), "add", &[Set]),
        (Operation::Remove(element()), "remove", &[Set]),
        (Operation::Enable, "enable", &[Flag]),
        (Operation::Disable, "disable", &[Flag]),
        (Operation::Raise(3), "raise", &[Max]),
        (update, "update", &[Map]),
        (Operation::Clear, "clear", &[Register, Lww, Counter, Set, Flag, Map]),
    ];
    for (operation, word, kinds) in table {
        for kind in Kind::ALL {
            let suits = kinds.contains(&kind);
            let expected = match (suits, &operation) {
                (true, _) => Ok(()),
                (false, Operation::Clear) => Err(Refused::MaxKeepsItsValue),
                (false, _) => Err(Refused::WrongKind { operation: word, kind }),
            };
            assert_eq!(operation.suits(kind), suits, "{word} {kind}");
            assert_eq!(apply(&mut State::unknown(kind), 1, &operation), expected);
            let inside = fields(0..1, kind, &operation);
            assert_eq!(inside.suits(Kind::Map), suits, "{word} {kind}");
            assert_eq!(apply(&mut State::unknown(Kind::Map), 1, &inside), expected);
            assert_eq!(Operation::decode(&inside.encode().into()), Ok(inside));
        }
    }
}

#[test]
fn empty_and_doubled_lists_are_refused() {
    let (mut set, mut map) = (State::unknown(Kind::Set), State::unknown(Kind::Map));
    assert_eq!(apply(&mut set, 1, &Operation::Add(vec![])), Err(Refused::Nothing));
    assert_eq!(apply(&mut set, 1, &Operation::Remove(vec![])), Err(Refused::Nothing));
    assert_eq!(apply(&mut map, 1, &Operation::Update(vec![])), Err(Refused::Nothing));
    let Operation::Update(field) = fields(0..1, Kind::Flag, &Operation::Enable) else {
        unreachable!()
    };
    let twice = Operation::Update([field.clone(), field].concat());
    assert_eq!(apply(&mut map, 1, &twice), Err(Refused::FieldTwice));
    assert!(set.is_unknown() && map.is_unknown());
}

/// A list that announces more than anybody may ask for is refused before it is read.
#[test]
fn an_operation_lists_ten_thousand_things_at_most() {
    let decoded = |count| Operation::decode(&Operation::Add(names(0..count)).encode().into());
    assert!(decoded(10_000).is_ok());
    assert_eq!(decoded(10_001), Err(DecodeError::TooMany));
    // Also spread over many lists.
    let inner = |count| fields(0..count, Kind::Flag, &Operation::Enable);
    let outer = |count| fields(0..count, Kind::Map, &inner(1000)).encode();
    assert!(Operation::decode(&outer(9).into()).is_ok());
    assert_eq!(Operation::decode(&outer(10).into()), Err(DecodeError::TooMany));
}

/// Which operations make their coordinator read first.
#[test]
fn what_takes_away_is_known() {
    let put = Operation::Put { value: Bytes::from("v"), expires_ms: None };
    let inside = |kind, operation: &Operation| fields(0..1, kind, operation);
    let element = || vec![Bytes::from("x")];
    for (operation, kind, takes_away) in [
        (put.clone(), Kind::Register, false),
        (Operation::Clear, Kind::Register, true),
        (Operation::Clear, Kind::Counter, true),
        (Operation::Clear, Kind::Map, true),
        (Operation::Clear, Kind::Lww, false),
        (Operation::Add(element()), Kind::Set, false),
        (Operation::Remove(element()), Kind::Set, true),
        (Operation::Enable, Kind::Flag, false),
        (Operation::Disable, Kind::Flag, true),
        (Operation::Raise(1), Kind::Max, false),
        (inside(Kind::Register, &put), Kind::Map, true),
        (inside(Kind::Lww, &put), Kind::Map, false),
        (inside(Kind::Map, &inside(Kind::Register, &put)), Kind::Map, true),
        (inside(Kind::Set, &Operation::Add(element())), Kind::Map, false),
        (inside(Kind::Set, &Operation::Remove(element())), Kind::Map, true),
        (inside(Kind::Counter, &Operation::Clear), Kind::Map, true),
    ] {
        assert_eq!(operation.takes_away(kind), takes_away, "{operation:?}");
    }
}

/// Read them aloud.
#[test]
fn refusals_say_the_rule_and_the_mend() {
    let text = |refused: Refused| refused.to_string();
    assert_eq!(
        text(Refused::WrongKind { operation: "add", kind: Kind::Counter }),
        "add is no operation for a counter; use one that is, or a key or field of another kind"
    );
    assert_eq!(
        text(Refused::TooManyElements { elements: 1001, elements_max: 1000 }),
        "the set would have 1001 elements and may have 1000; remove some, or spread them over several keys"
    );
    assert_eq!(
        text(Refused::CounterOverflow),
        "the counter would leave the range of 64 bits with sign; reset it or add less"
    );
}
