//! What each kind of value does, as its users would tell it. One sentence per test.

use atoll_antientropy::{
    Actor, Context, Event, Field, FieldChange, Hybrid, Increment, Kind, Operation, Reading,
    Refused, Stamp, State,
};
use bytes::Bytes;

/// A node that keeps one key.
struct Node {
    actor: Actor,
    counter: u64,
    state: State,
}

impl Node {
    fn new(number: u32, kind: Kind) -> Node {
        Node { actor: Actor::new(number, 0), counter: 0, state: State::unknown(kind) }
    }

    fn stamp(&mut self, wall_ms: u64, operation: u128) -> Stamp {
        let after = self.counter;
        self.counter += 1;
        let event = Event { actor: self.actor, after, counter: self.counter };
        Stamp { event, at: Hybrid::of(wall_ms, 0), wall_ms, operation }
    }

    /// Does it here and returns what is sent to the others.
    fn does(&mut self, operation: &Operation, seen: Option<&Context>) -> State {
        let stamp = self.stamp(5000 + self.counter, 0);
        let delta = self.state.change(operation, seen, &stamp).unwrap();
        self.state.join(delta.clone());
        delta
    }

    /// As a client does who has just read here.
    fn does_seeing(&mut self, operation: &Operation) -> State {
        let seen = self.state.context().clone();
        self.does(operation, Some(&seen))
    }

    fn refuses(&mut self, operation: &Operation) -> Refused {
        let stamp = self.stamp(5000, 0);
        self.state.change(operation, None, &stamp).unwrap_err()
    }

    fn hears(&mut self, state: &State) {
        self.state.join(state.clone());
    }

    fn reads(&self) -> Reading {
        self.state.read(6000)
    }
}

fn two(kind: Kind) -> (Node, Node) {
    (Node::new(1, kind), Node::new(2, kind))
}

fn text(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn put(value: &str) -> Operation {
    Operation::Put { value: text(value), expires_ms: None }
}

fn add(elements: &[&str]) -> Operation {
    Operation::Add(elements.iter().map(|element| text(element)).collect())
}

fn remove(elements: &[&str]) -> Operation {
    Operation::Remove(elements.iter().map(|element| text(element)).collect())
}

fn once(number: i64) -> Operation {
    Operation::Increment(Increment::Once(number))
}

fn session(session: u128, sequence: u64, total: i64) -> Operation {
    Operation::Increment(Increment::Session { session, sequence, total })
}

fn change(name: &str, kind: Kind, operation: Operation) -> (Field, FieldChange) {
    (Field { name: text(name), kind }, FieldChange::Change(operation))
}

fn without(name: &str, kind: Kind) -> Operation {
    Operation::Update(vec![(Field { name: text(name), kind }, FieldChange::Remove)])
}

fn update(name: &str, kind: Kind, operation: Operation) -> Operation {
    Operation::Update(vec![change(name, kind, operation)])
}

fn values(reading: &Reading) -> Vec<&[u8]> {
    let Reading::Register(siblings) = reading else { panic!("{reading:?} is no register") };
    siblings.iter().map(|sibling| &sibling.value[..]).collect()
}

fn elements(node: &Node) -> Vec<Bytes> {
    let Reading::Set(elements) = node.reads() else { unreachable!() };
    elements
}

/// What a map shows under a field.
fn shown(node: &Node, name: &str, kind: Kind) -> Option<Reading> {
    let Reading::Map(fields) = node.reads() else { unreachable!() };
    let wanted = Field { name: text(name), kind };
    fields.into_iter().find(|(field, _)| *field == wanted).map(|(_, reading)| reading)
}

// --- Registers and lww ---------------------------------------------------------------------------

#[test]
fn concurrent_puts_stand_side_by_side_until_someone_has_seen_them() {
    let (mut a, mut b) = two(Kind::Register);
    let tea = a.does(&put("tea"), None);
    b.does(&put("milk"), None);
    b.hears(&tea);
    assert_eq!(b.state.siblings(), 2);
    assert_eq!(values(&b.reads()), [b"tea", &b"milk"[..]]);
    b.does_seeing(&put("milk tea"));
    assert_eq!(values(&b.reads()), [b"milk tea"]);
}

#[test]
fn a_delete_is_an_event_and_takes_what_was_seen() {
    let mut a = Node::new(1, Kind::Register);
    let first = a.does(&put("tea"), None);
    a.does(&put("milk"), None);
    let delete = a.does(&Operation::Clear, Some(first.context()));
    assert!(delete.is_tombstone() && !delete.is_unknown());
    assert_eq!(values(&a.reads()), [b"milk"]);
    a.does(&Operation::Clear, None);
    assert!(a.state.is_tombstone() && a.reads().is_nothing());
}

/// A client that got no answer puts again, and both arrive.
#[test]
fn values_of_one_operation_are_shown_once() {
    let (mut a, mut b) = two(Kind::Register);
    for node in [&mut a, &mut b] {
        let stamp = node.stamp(5000, 77);
        let delta = node.state.change(&put("tea"), None, &stamp).unwrap();
        node.state.join(delta);
    }
    b.hears(&a.state);
    assert_eq!((b.state.siblings(), values(&b.reads())), (2, vec![&b"tea"[..]]));
    // Operations without an id are never taken for one.
    b.does(&put("tea"), None);
    b.does(&put("tea"), None);
    assert_eq!(values(&b.reads()).len(), 3);
}

/// An expired value is not shown, does not return, and takes part in causality as ever.
#[test]
fn expiry_filters_reads_only() {
    let (mut a, mut b) = two(Kind::Register);
    let short = Operation::Put { value: text("tea"), expires_ms: Some(6001) };
    let tea = a.does(&short, None);
    assert_eq!(values(&a.state.read(6000)), [b"tea"]);
    assert!(a.state.read(6001).is_nothing() && a.state.read(u64::MAX).is_nothing());
    assert!(a.state.siblings() == 1 && !a.state.is_tombstone());
    b.hears(&tea);
    b.does_seeing(&put("milk"));
    b.hears(&tea);
    assert_eq!(values(&b.state.read(6000)), [b"milk"]);
    // The moment of expiry is part of what replicas compare, the value is not.
    let digest = |expires_ms, value: &str| {
        let operation = Operation::Put { value: text(value), expires_ms };
        let stamp = Node::new(1, Kind::Register).stamp(5000, 0);
        State::unknown(Kind::Register).change(&operation, None, &stamp).unwrap().digest()
    };
    assert_eq!(digest(None, "tea"), digest(None, "milk"));
    assert_ne!(digest(None, "tea"), digest(Some(1), "tea"));
}

#[test]
fn the_latest_lww_value_wins_and_a_delete_is_one() {
    let (mut a, mut b) = two(Kind::Lww);
    let tea = a.does(&put("tea"), None); // at 5000
    b.does(&put("rice"), None);
    b.does(&put("milk"), None); // at 5001
    b.hears(&tea);
    let Reading::Lww(Some(latest)) = b.reads() else { unreachable!() };
    assert_eq!((&latest.value[..], latest.written_ms), (&b"milk"[..], 5001));
    let clear = b.does(&Operation::Clear, None);
    a.hears(&b.state);
    assert!(a.reads().is_nothing() && a.state.is_tombstone() && a.state.siblings() == 0);
    assert!(clear.is_tombstone());
}

// --- Counters and maxima -------------------------------------------------------------------------

#[test]
fn a_repeated_session_increment_counts_once_anywhere_and_late() {
    let (mut a, mut b) = two(Kind::Counter);
    a.does(&session(1, 1, 5), None);
    b.does(&session(1, 1, 5), None); // repeated elsewhere
    let late = b.does(&session(1, 2, 12), None);
    b.does(&session(2, 1, -20), None);
    b.does(&session(2, 2, -25), None);
    a.hears(&b.state);
    a.does(&session(1, 1, 5), None); // and again, after the next one
    a.hears(&late);
    assert_eq!(a.reads(), Reading::Counter(-13));
}

/// Whoever hears of the reset first does not come out negative, and what the resetter had not seen
/// stays.
#[test]
fn a_reset_takes_what_the_resetter_saw() {
    let (mut a, mut b) = two(Kind::Counter);
    let first = a.does(&session(1, 1, 5), None);
    b.does(&session(1, 2, 7), None);
    let reset = a.does(&Operation::Clear, None);
    assert!(a.state.is_tombstone());
    let mut c = Node::new(3, Kind::Counter);
    c.hears(&reset);
    assert_eq!(c.reads(), Reading::Counter(0));
    c.hears(&first);
    assert_eq!(c.reads(), Reading::Counter(0));
    c.hears(&b.state);
    assert_eq!(c.reads(), Reading::Counter(2));
    assert!(!c.reads().is_nothing() && !c.state.is_tombstone());
}

/// The second reset finds nothing to reset at its coordinator, but elsewhere the first one was never
/// heard of.
#[test]
fn a_reset_resets_what_was_reset_before() {
    let (mut a, mut b) = two(Kind::Counter);
    b.hears(&a.does(&session(1, 1, 5), None));
    a.does(&Operation::Clear, None);
    b.hears(&a.does(&Operation::Clear, None));
    assert_eq!(b.reads(), Reading::Counter(0));
    let (mut a, mut b) = two(Kind::Map);
    b.hears(&a.does(&update("mood", Kind::Lww, put("good")), None));
    a.does(&without("mood", Kind::Lww), None);
    b.hears(&a.does(&without("mood", Kind::Lww), None));
    assert!(b.reads().is_nothing());
}

/// One coordinator makes one session of all that it is asked without one, also if it does other
/// things between.
#[test]
fn increments_without_a_session_form_one_chain_per_coordinator() {
    let mut a = Node::new(1, Kind::Counter);
    a.does(&once(1), None);
    let length = a.state.encode().len();
    for _ in 0..20 {
        a.does(&once(1), None);
        a.does(&session(1, 1, 5), None);
    }
    assert_eq!(a.reads(), Reading::Counter(26));
    assert!(a.state.encode().len() < length + 25, "two sessions");
}

/// A node that has lost its memory, but not its lease, begins a new chain; when the old one comes
/// back from elsewhere both count.
#[test]
fn a_chain_is_not_continued_by_someone_who_may_have_forgotten() {
    let (mut a, mut b) = two(Kind::Counter);
    b.hears(&a.does(&once(1), None));
    b.hears(&a.does(&once(2), None));
    a.state = State::unknown(Kind::Counter);
    let stamp = a.stamp(5000, 0);
    let alone = Stamp { event: Event::alone(a.actor, a.counter), ..stamp };
    let delta = a.state.change(&once(4), None, &alone).unwrap();
    b.hears(&delta);
    assert_eq!(b.reads(), Reading::Counter(7));
    // It hears of the first link again but not of the second, and must not continue from it.
    let mut c = Node::new(3, Kind::Counter);
    c.hears(&b.state);
    let mut again = Node { counter: 9, ..Node::new(1, Kind::Counter) };
    let first = Node::new(1, Kind::Counter).does(&once(1), None);
    again.hears(&first);
    let alone = Stamp { event: Event::alone(again.actor, 10), ..alone };
    let delta = again.state.change(&once(8), None, &alone).unwrap();
    c.hears(&delta);
    assert_eq!(c.reads(), Reading::Counter(15));
}

#[test]
fn a_counter_never_wraps() {
    let mut a = Node::new(1, Kind::Counter);
    a.does(&once(i64::MAX), None);
    assert_eq!(a.refuses(&once(1)), Refused::CounterOverflow);
    assert_eq!(a.refuses(&session(1, 1, 1)), Refused::CounterOverflow);
    a.does(&session(1, 1, -1), None);
    a.does(&session(1, 2, 0), None);
    assert_eq!(a.refuses(&session(1, 3, 1)), Refused::CounterOverflow);
    // Two sides may pass the limit together; from there only the way back is open.
    let mut b = Node::new(2, Kind::Counter);
    b.does(&once(2), None);
    b.hears(&a.state);
    assert_eq!(b.reads(), Reading::Counter(i128::from(i64::MAX) + 2));
    assert_eq!(b.refuses(&once(1)), Refused::CounterOverflow);
    b.does(&once(-1), None);
    b.does(&Operation::Clear, None);
    assert_eq!(b.reads(), Reading::Counter(0));
}

#[test]
fn a_max_keeps_its_greatest_value() {
    let (mut a, mut b) = two(Kind::Max);
    assert!(a.reads().is_nothing());
    a.does(&Operation::Raise(-7), None);
    b.does(&Operation::Raise(-9), None);
    b.hears(&a.state);
    assert_eq!(b.reads(), Reading::Max(Some(-7)));
    assert_eq!(a.refuses(&Operation::Clear), Refused::MaxKeepsItsValue);
}

// --- Flags and sets ------------------------------------------------------------------------------

#[test]
fn enabling_wins_over_a_concurrent_disabling() {
    let (mut a, mut b) = two(Kind::Flag);
    let on = a.does(&Operation::Enable, None);
    b.hears(&on);
    let off = b.does_seeing(&Operation::Disable);
    assert_eq!(b.reads(), Reading::Flag(false));
    assert!(b.state.is_tombstone());
    a.does(&Operation::Enable, None);
    a.hears(&off);
    b.hears(&a.state);
    assert_eq!((a.reads(), b.reads()), (Reading::Flag(true), Reading::Flag(true)));
    assert_eq!(a.state, b.state);
}

/// And it spares other elements altogether, also those that came in the same change.
#[test]
fn removing_an_element_spares_a_concurrent_addition_of_it() {
    let (mut a, mut b) = two(Kind::Set);
    b.hears(&a.does(&add(&["tea", "milk", "tea"]), None));
    let gone = b.does_seeing(&remove(&["tea", "rice"]));
    assert_eq!(elements(&b), ["milk"]);
    let again = a.does(&add(&["tea"]), None);
    b.hears(&again);
    a.hears(&gone);
    assert_eq!((elements(&a), elements(&b)), (vec![text("milk"), text("tea")], elements(&a)));
    assert_eq!(a.state, b.state);
}

/// Tea is added everywhere, and again at one node, which then removes it; the message about the
/// second addition is lost with that node. A removal that only listed the dots alive at its
/// coordinator (the second addition's) would leave the first one standing everywhere else, although
/// the client had seen it, and the others had acknowledged the removal.
#[test]
fn a_removal_takes_what_was_replaced_too() {
    let (mut a, mut b) = two(Kind::Set);
    b.hears(&a.does(&add(&["tea", "milk"]), None));
    let lost = a.does(&add(&["tea"]), None);
    b.hears(&a.does_seeing(&remove(&["tea"])));
    assert_eq!(elements(&b), ["milk"]);
    assert!(!b.state.context().covers(lost.context()), "it was never heard of");
    // Should it turn up after all, it does no harm, and nothing is left of the episode.
    b.hears(&lost);
    assert_eq!(b.state, a.state);
    assert_eq!(elements(&b), ["milk"]);
}

/// A removal heard of before the addition that it removes: the addition's other element arrives all
/// the same.
#[test]
fn a_removal_may_come_before_what_it_removes() {
    let (mut a, mut b) = two(Kind::Set);
    let added = a.does(&add(&["tea", "milk"]), None);
    let removed = a.does(&remove(&["tea"]), None);
    b.hears(&removed);
    assert!(elements(&b).is_empty() && b.state.is_tombstone());
    b.hears(&added);
    assert_eq!(elements(&b), ["milk"]);
    assert_eq!(b.state.encode(), a.state.encode());
}

#[test]
fn clearing_a_set_takes_what_was_seen() {
    let (mut a, mut b) = two(Kind::Set);
    a.does(&add(&["tea"]), None);
    let seen = a.state.context().clone();
    a.does(&add(&["milk"]), None);
    let clear = a.does(&Operation::Clear, Some(&seen));
    assert_eq!(elements(&a), ["milk"]);
    b.does(&add(&["rice"]), None);
    b.hears(&clear);
    assert_eq!(elements(&b), ["rice"]);
    b.hears(&a.state);
    assert_eq!(elements(&b), ["milk", "rice"]);
}

/// An element that is added over and over has one dot, and the bytes on the wire are few.
#[test]
fn a_change_of_a_large_set_is_small() {
    let mut a = Node::new(1, Kind::Set);
    let names: Vec<String> = (0..999).map(|number| format!("{number:0100}")).collect();
    a.does(&add(&names.iter().map(String::as_str).collect::<Vec<_>>()), None);
    let delta = a.does(&add(&["new"]), None);
    assert!(delta.encode().len() < 30, "{}", delta.encode().len());
    for _ in 0..20 {
        let delta = a.does(&add(&[&names[5]]), None);
        assert!(delta.encode().len() < 240, "{}", delta.encode().len());
    }
    let delta = a.does_seeing(&remove(&[&names[7]]));
    assert!(delta.encode().len() < 140, "{}", delta.encode().len());
    assert!(a.state.encode().len() < 999 * 107);
    assert_eq!(elements(&a).len(), 999);
}

// --- Maps ----------------------------------------------------------------------------------------

/// Reset-remove: what was seen of a field is gone, what was done to it meanwhile survives.
#[test]
fn removing_a_field_spares_concurrent_updates_of_it() {
    let (mut a, mut b) = two(Kind::Map);
    let everything = Operation::Update(vec![
        change("name", Kind::Register, put("Ann")),
        change("mood", Kind::Lww, put("good")),
        change("hits", Kind::Counter, session(1, 1, 5)),
        change("tags", Kind::Set, add(&["x", "y"])),
        change("on", Kind::Flag, Operation::Enable),
        change("deep", Kind::Map, update("tags", Kind::Set, add(&["x"]))),
    ]);
    b.hears(&a.does(&everything, None));
    let names = [
        ("name", Kind::Register),
        ("mood", Kind::Lww),
        ("hits", Kind::Counter),
        ("tags", Kind::Set),
        ("on", Kind::Flag),
        ("deep", Kind::Map),
    ];
    let removals: Vec<State> =
        names.iter().map(|(name, kind)| a.does_seeing(&without(name, *kind))).collect();
    assert!(a.reads().is_nothing() && a.state.is_tombstone());

    // Meanwhile, elsewhere.
    b.does(&update("tags", Kind::Set, add(&["z"])), None);
    b.does(&update("hits", Kind::Counter, session(1, 2, 7)), None);
    b.does(&update("deep", Kind::Map, update("on", Kind::Flag, Operation::Enable)), None);
    for removal in removals.iter().rev() {
        b.hears(removal);
    }
    for node in [&b, &{
        a.hears(&b.state);
        a
    }] {
        assert_eq!(shown(node, "tags", Kind::Set), Some(Reading::Set(vec![text("z")])));
        assert_eq!(shown(node, "hits", Kind::Counter), Some(Reading::Counter(2)));
        let on = Field { name: text("on"), kind: Kind::Flag };
        let deep = Reading::Map(vec![(on, Reading::Flag(true))]);
        assert_eq!(shown(node, "deep", Kind::Map), Some(deep));
        for (name, kind) in [names[0], names[1], names[4]] {
            assert_eq!(shown(node, name, kind), None);
        }
    }
}

/// An update touches two fields in one event. Removing one of them first, then hearing of the
/// update: the other half arrives, and until then nobody claims to know the update.
#[test]
fn half_of_an_update_may_be_gone_before_it_arrives() {
    let (mut a, mut b) = two(Kind::Map);
    let both = a.does(
        &Operation::Update(vec![
            change("tags", Kind::Set, add(&["x"])),
            change("hits", Kind::Counter, once(1)),
        ]),
        None,
    );
    let removal = a.does_seeing(&without("tags", Kind::Set));
    b.hears(&removal);
    assert!(!b.state.context().covers(both.context()));
    b.hears(&both);
    assert_eq!(shown(&b, "tags", Kind::Set), None);
    assert_eq!(shown(&b, "hits", Kind::Counter), Some(Reading::Counter(1)));
    assert_eq!(a.state, b.state);
}

#[test]
fn a_register_in_a_map_is_replaced_as_far_as_it_was_seen() {
    let (mut a, mut b) = two(Kind::Map);
    let name = |value| update("name", Kind::Register, put(value));
    b.hears(&a.does(&name("Ann"), None));
    a.does_seeing(&name("Bob"));
    b.does(&name("Cid"), None); // said nothing: replaces what the coordinator knows
    b.hears(&a.state);
    assert_eq!(values(&shown(&b, "name", Kind::Register).unwrap()), [b"Bob", b"Cid"]);
    let (seen, nothing) = (b.state.context().clone(), Context::new());
    b.does(&name("Dan"), Some(&nothing));
    assert_eq!(values(&shown(&b, "name", Kind::Register).unwrap()).len(), 3);
    b.does(&name("Eve"), Some(&seen));
    assert_eq!(values(&shown(&b, "name", Kind::Register).unwrap()), [b"Dan", b"Eve"]);
}

/// The latest value of an lww field that the remover had not seen stays.
#[test]
fn removing_an_lww_field_spares_what_was_not_seen() {
    let mut a = Node::new(1, Kind::Map);
    a.does(&update("mood", Kind::Lww, put("good")), None);
    let seen = a.state.context().clone();
    a.does(&update("mood", Kind::Lww, put("better")), None);
    a.does(&without("mood", Kind::Lww), Some(&seen));
    assert!(shown(&a, "mood", Kind::Lww).is_some());
    a.does_seeing(&without("mood", Kind::Lww));
    assert_eq!(shown(&a, "mood", Kind::Lww), None);
}

#[test]
fn same_name_two_kinds_two_fields() {
    let mut a = Node::new(1, Kind::Map);
    a.does(&update("x", Kind::Flag, Operation::Enable), None);
    a.does(&update("x", Kind::Max, Operation::Raise(3)), None);
    assert_eq!(shown(&a, "x", Kind::Flag), Some(Reading::Flag(true)));
    assert_eq!(shown(&a, "x", Kind::Max), Some(Reading::Max(Some(3))));
}

#[test]
fn clearing_a_map_takes_what_was_seen_everywhere_in_it() {
    let (mut a, mut b) = two(Kind::Map);
    let deep = |operation| update("deep", Kind::Map, operation);
    b.hears(&a.does(&deep(update("tags", Kind::Set, add(&["x"]))), None));
    b.hears(&a.does(&update("hits", Kind::Counter, once(5)), None));
    let gone = b.does_seeing(&without("deep", Kind::Map)); // a does not hear of it
    let clear = b.does_seeing(&Operation::Clear);
    a.does(&deep(update("tags", Kind::Set, add(&["y"]))), None);
    a.hears(&clear);
    assert_eq!(shown(&a, "hits", Kind::Counter), None);
    let tags = Field { name: text("tags"), kind: Kind::Set };
    let left = Reading::Map(vec![(tags, Reading::Set(vec![text("y")]))]);
    assert_eq!(shown(&a, "deep", Kind::Map), Some(left));
    a.hears(&gone);
    b.hears(&a.state);
    assert_eq!(a.state, b.state);
}

/// Not alone, and not with the map that it lies in.
#[test]
fn a_max_in_a_map_cannot_be_removed() {
    let mut a = Node::new(1, Kind::Map);
    a.does(&update("deep", Kind::Map, update("best", Kind::Max, Operation::Raise(3))), None);
    for operation in [
        Operation::Clear,
        without("deep", Kind::Map),
        update("deep", Kind::Map, without("best", Kind::Max)),
        update("deep", Kind::Map, update("best", Kind::Max, Operation::Clear)),
    ] {
        assert_eq!(a.refuses(&operation), Refused::MaxKeepsItsValue);
    }
}
