//! The laws of the join, for every store: it commutes, regroups and repeats, and equal states have
//! equal bytes.
//!
//! Twice: over *all* states of a small world, against a model too simple to be wrong; and over
//! random states that histories of real changes can reach. The changes of flags, sets and maps
//! stand here until users get those kinds.

use std::fmt::Debug;

use atoll_antientropy::{
    Actor, Causal, Context, Dot, DotFun, DotMap, DotSet, DotStore, Event, Register,
};
use bytes::Bytes;
use proptest::prelude::*;

type Flag = Causal<DotSet>;
type Set = Causal<DotMap<Bytes, DotSet>>;
type Map = Causal<DotMap<Bytes, DotFun<Bytes>>>;
type Nested = Causal<DotMap<Bytes, DotMap<Bytes, DotFun<Bytes>>>>;

// --- All states of a small world -----------------------------------------------------------------

/// A world of three dots: two of one actor, one of another.
const DOTS: [(u32, u64); 3] = [(1, 1), (1, 2), (2, 1)];

/// What a state says about one dot of the small world. A join takes, place by place, whatever has
/// happened further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Unknown,
    /// Alive at those places whose bits are set; known and dead if none is.
    Alive(u8),
}

fn further(a: Fate, b: Fate) -> Fate {
    match (a, b) {
        (Fate::Unknown, known) | (known, Fate::Unknown) => known,
        (Fate::Alive(a), Fate::Alive(b)) => Fate::Alive(a & b),
    }
}

/// Builds every state of the small world, where `at(place, dot)` is a store with the dot alive at
/// that place, and compares every join of two of them with the model; regroups all threes of those
/// about two of the dots.
fn check_small_world<S: DotStore>(places: u8, at: impl Fn(u8, Dot) -> S) {
    let fates: Vec<Fate> =
        std::iter::once(Fate::Unknown).chain((0..1 << places).map(Fate::Alive)).collect();
    let base = fates.len();
    let world: Vec<[Fate; 3]> = (0..base.pow(3))
        .map(|n| [fates[n / base / base], fates[n / base % base], fates[n % base]])
        .collect();
    let index_of = |fates: [Fate; 3]| world.iter().position(|other| *other == fates).unwrap();
    let states: Vec<Causal<S>> = world
        .iter()
        .map(|fates| {
            let mut state = Causal::default();
            for ((node, counter), fate) in DOTS.into_iter().zip(fates) {
                if let Fate::Alive(alive) = *fate {
                    let event = Event::alone(Actor::new(node, 0), counter);
                    let mut store = S::default();
                    for place in (0..places).filter(|place| alive & (1 << place) != 0) {
                        store.join(&Context::new(), at(place, event.dot()), &Context::new());
                    }
                    state.join(Causal::delta(&Context::new(), event, store));
                }
            }
            state
        })
        .collect();

    for (i, a) in states.iter().enumerate() {
        let bytes = Bytes::from(a.encode());
        assert_eq!(Causal::decode(&bytes).as_ref(), Ok(a));
        for (j, b) in states.iter().enumerate() {
            let model = std::array::from_fn(|dot| further(world[i][dot], world[j][dot]));
            let expected = &states[index_of(model)];
            let both = joined(a, b);
            assert_eq!(both, *expected, "{a:?} with {b:?}");
            assert_eq!(a.covers(b), both == *a, "{a:?} covers {b:?}");
            // Equal states, equal bytes, equal digests; different ones differ in all three.
            assert_eq!(bytes == b.encode(), i == j);
            assert_eq!(a.digest() == b.digest(), i == j);
        }
    }
    // All threes would be millions; the states about the last two dots, which have two actors, are
    // a sample.
    let some: Vec<&Causal<S>> =
        states.iter().zip(&world).filter(|(_, w)| w[0] == Fate::Unknown).map(|(s, _)| s).collect();
    for a in &some {
        for b in &some {
            for c in &some {
                assert_eq!(joined(&joined(a, b), c), joined(a, &joined(b, c)));
            }
        }
    }
}

fn joined<S: DotStore>(a: &Causal<S>, b: &Causal<S>) -> Causal<S> {
    let mut both = a.clone();
    both.join(b.clone());
    both
}

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

#[test]
fn all_small_flags_obey() {
    check_small_world(1, |_, dot| DotSet::one(dot, ()));
}

#[test]
fn all_small_registers_obey() {
    check_small_world(1, |_, dot| DotFun::one(dot, bytes("value")));
}

/// Two elements, and a dot may stand under both: one change may add several elements.
#[test]
fn all_small_sets_obey() {
    check_small_world(2, |place, dot| {
        DotMap::one(bytes(["tea", "milk"][place as usize]), DotSet::one(dot, ()))
    });
}

/// Two fields, each in an inner map of its own.
#[test]
fn all_small_nested_maps_obey() {
    check_small_world(2, |place, dot| {
        let (outer, inner) = [("drinks", "tea"), ("food", "rice")][place as usize];
        DotMap::one(bytes(outer), DotMap::one(bytes(inner), DotFun::one(dot, bytes("value"))))
    });
}

/// One dot with two values is a broken promise of someone else. The replicas must become equal all
/// the same.
#[test]
fn a_dot_with_two_values_still_converges() {
    let event = Event::alone(Actor::new(1, 0), 1);
    let [none, tea, milk] =
        ["", "tea", "milk"].map(|value| Register::put(&Context::new(), event, bytes(value)));
    for (loser, winner) in [(&milk, &tea), (&none, &milk)] {
        assert_eq!(joined(loser, winner), *winner);
        assert_eq!(joined(winner, loser), *winner);
        assert!(winner.covers(loser) && !loser.covers(winner));
        assert_eq!(loser.digest(), winner.digest(), "digests are over dots and contexts only");
    }
}

// --- States that histories reach -----------------------------------------------------------------

/// A kind of value, as its users would change it.
trait Kind: DotStore {
    /// The delta of a change to `record`. `choice` says which; `seen` is what the client had seen.
    fn change(record: &Causal<Self>, seen: &Context, event: Event, choice: u8) -> Causal<Self>;
}

/// On and off.
impl Kind for DotSet {
    fn change(_: &Flag, seen: &Context, event: Event, choice: u8) -> Flag {
        let on = DotSet::one(event.dot(), ());
        Causal::delta(seen, event, if choice.is_multiple_of(2) { on } else { DotSet::default() })
    }
}

/// Put and delete.
impl Kind for DotFun<Bytes> {
    fn change(_: &Register, seen: &Context, event: Event, choice: u8) -> Register {
        match choice % 2 {
            0 => Register::put(seen, event, Bytes::from(event.dot().to_string())),
            _ => Register::delete(seen, event),
        }
    }
}

/// A change of one key replaces what it had seen *under that key*; the rest of the map is none of
/// its business.
impl<S: Kind> Kind for DotMap<Bytes, S> {
    fn change(record: &Causal<Self>, seen: &Context, event: Event, choice: u8) -> Causal<Self> {
        let key = Bytes::from(format!("key {}", choice / 2 % 2));
        let mut replaced = Context::new();
        if let Some(store) = record.store().get(&key) {
            store.dots(&mut |dot| {
                if seen.contains(dot) {
                    replaced.add(&Event::alone(dot.actor, dot.counter));
                }
            });
        }
        let inner = S::change(&Causal::default(), &replaced, event, choice / 4 * 2 + choice % 2);
        Causal::delta(&replaced, event, DotMap::one(key, inner.store().clone()))
    }
}

/// One step of a history over three replicas.
#[derive(Clone, Debug)]
enum Step {
    /// A client who had seen what `seen` holds (3: nothing) changes `at`; the event claims what
    /// came before, or not.
    Change { at: usize, seen: usize, extends: bool, choice: u8 },
    /// `to` joins all that `from` holds.
    Repair { from: usize, to: usize },
    /// `to` joins an earlier delta.
    Deliver { delta: usize, to: usize },
    /// A replica loses everything. Its counters go on.
    Forget { at: usize },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let change = (0..3usize, 0..4usize, any::<bool>(), any::<u8>())
        .prop_map(|(at, seen, extends, choice)| Step::Change { at, seen, extends, choice });
    let repair = (0..3usize, 0..3usize).prop_map(|(from, to)| Step::Repair { from, to });
    let deliver = (0..99usize, 0..3usize).prop_map(|(delta, to)| Step::Deliver { delta, to });
    let forget = (0..3usize).prop_map(|at| Step::Forget { at });
    prop::collection::vec(prop_oneof![5 => change, 2 => repair, 4 => deliver, 1 => forget], 1..24)
}

/// Every state that turns up in the history: three records at the end, and all deltas.
fn reached<S: Kind>(steps: &[Step]) -> Vec<Causal<S>> {
    let mut records: [Causal<S>; 3] = Default::default();
    let mut deltas: Vec<Causal<S>> = Vec::new();
    let (mut given, mut last) = ([0u64; 3], [0u64; 3]);
    for step in steps {
        match *step {
            Step::Change { at, seen, extends, choice } => {
                let actor = Actor::new(at as u32, 0);
                given[at] += 1 + u64::from(choice % 3); // other keys take counters too
                let mut event = Event::alone(actor, given[at]);
                if extends {
                    event.after = last[at];
                }
                last[at] = given[at];
                let nothing = Causal::default();
                let seen = records.get(seen).unwrap_or(&nothing).context();
                let delta = S::change(&records[at], seen, event, choice);
                records[at].join(delta.clone());
                deltas.push(delta);
            }
            Step::Repair { from, to } => {
                let state = records[from].clone();
                records[to].join(state);
            }
            Step::Deliver { delta, to } if !deltas.is_empty() => {
                records[to].join(deltas[delta % deltas.len()].clone());
            }
            Step::Deliver { .. } => {}
            Step::Forget { at } => records[at] = Causal::default(),
        }
    }
    records.into_iter().chain(deltas).collect()
}

fn check_reached<S: Kind>(steps: &[Step], [i, j, k]: [usize; 3]) -> Result<(), TestCaseError> {
    let states = reached::<S>(steps);
    let [a, b, c] = [i, j, k].map(|index| &states[index % states.len()]);
    let ab = joined(a, b);
    prop_assert_eq!(&ab, &joined(b, a));
    prop_assert_eq!(ab.encode(), joined(b, a).encode());
    prop_assert_eq!(joined(&ab, c), joined(a, &joined(b, c)));
    prop_assert_eq!(&joined(&ab, b), &ab);
    prop_assert_eq!(&joined(a, a), a);
    prop_assert!(ab.covers(a) && ab.covers(b));
    prop_assert_eq!(a.covers(b), ab == *a);
    for state in [a, b, c, &ab] {
        prop_assert_eq!(&Causal::decode(&state.encode().into()).unwrap(), state);
        prop_assert_eq!(state.is_tombstone(), state.store().is_empty() && !state.is_unknown());
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn reached_flags_obey(steps in steps(), three in any::<[usize; 3]>()) {
        check_reached::<DotSet>(&steps, three)?;
    }

    #[test]
    fn reached_registers_obey(steps in steps(), three in any::<[usize; 3]>()) {
        check_reached::<DotFun<Bytes>>(&steps, three)?;
    }

    #[test]
    fn reached_sets_obey(steps in steps(), three in any::<[usize; 3]>()) {
        check_reached::<DotMap<Bytes, DotSet>>(&steps, three)?;
    }

    #[test]
    fn reached_maps_obey(steps in steps(), three in any::<[usize; 3]>()) {
        check_reached::<DotMap<Bytes, DotFun<Bytes>>>(&steps, three)?;
    }

    #[test]
    fn reached_nested_maps_obey(steps in steps(), three in any::<[usize; 3]>()) {
        check_reached::<DotMap<Bytes, DotMap<Bytes, DotFun<Bytes>>>>(&steps, three)?;
    }
}

// --- Single sentences ----------------------------------------------------------------------------

/// Removing an element of a set spares a concurrent addition of it, and another element altogether.
#[test]
fn a_set_removes_what_was_seen() {
    let (here, there) = (Actor::new(1, 0), Actor::new(2, 0));
    let tea = |dot| DotMap::one(bytes("tea"), DotSet::one(dot, ()));
    let milk = |dot| DotMap::one(bytes("milk"), DotSet::one(dot, ()));
    let nothing = Context::new();
    let [first, second, third] =
        [Event::alone(here, 1), Event::alone(here, 2), Event::alone(there, 1)];
    let mut set: Set = Causal::delta(&nothing, first, tea(first.dot()));
    set.join(Causal::delta(&nothing, second, milk(second.dot())));
    let again = Causal::delta(&nothing, third, tea(third.dot()));
    let removal = Causal::delta(&first.context(), Event::alone(here, 3), DotMap::default());

    let elements = |set: &Set| set.store().iter().map(|(key, _)| key.clone()).collect::<Vec<_>>();
    assert_eq!(elements(&joined(&set, &removal)), ["milk"]);
    assert_eq!(elements(&joined(&joined(&set, &removal), &again)), ["milk", "tea"]);
    assert_eq!(elements(&joined(&joined(&again, &removal), &set)), ["milk", "tea"]);
}

/// The kinds have different first bytes, and a reader of one refuses the others.
#[test]
fn kinds_are_told_apart() {
    let kinds = [
        Register::default().encode()[0],
        Flag::default().encode()[0],
        Map::default().encode()[0],
        Set::default().encode()[0],
        Nested::default().encode()[0],
    ];
    assert_eq!(kinds, [0x01, 0x02, 0x11, 0x12, 0x21]);
    fn refuses<T: Debug, E: Debug + ToString>(result: Result<T, E>) -> String {
        result.unwrap_err().to_string()
    }
    let message = refuses(Register::decode(&Set::default().encode().into()));
    assert_eq!(message, "kind 0x12 where 0x01 was expected");
}

/// A state through the eyes of the `crdts` crate: merge is join.
#[test]
fn a_state_is_a_cvrdt() {
    use crdts::CvRDT;
    let [a, b] = [1, 2].map(|node| {
        Register::put(&Context::new(), Event::alone(Actor::new(node, 0), 1), bytes("value"))
    });
    assert!(a.validate_merge(&b).is_ok());
    let mut merged = a.clone();
    merged.merge(b.clone());
    assert_eq!(merged, joined(&a, &b));
    assert_eq!(merged.siblings(), 2);
}

/// A delete that finds nothing still leaves its event: the session can see that it deleted.
#[test]
fn a_delete_is_an_event() {
    let event = Event::alone(Actor::new(1, 0), 1);
    let delete = Register::delete(&Context::new(), event);
    assert!(delete.is_tombstone() && !delete.is_unknown());
    assert!(delete.context().contains(&event.dot()));
    assert!(Register::default().is_unknown() && !Register::default().is_tombstone());
}

/// A counter that is given twice must not turn into a value that vanishes without a word.
#[test]
#[should_panic(expected = "n1.0.3 was given twice")]
fn a_counter_given_twice_is_noticed() {
    let event = Event::alone(Actor::new(1, 0), 3);
    Register::put(&event.context(), event, bytes("value"));
}
