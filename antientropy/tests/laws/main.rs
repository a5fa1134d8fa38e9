//! The laws of the join, for every kind: it commutes, regroups and repeats, equal states have equal
//! bytes, and a state covers another exactly if joining it would change nothing.
//!
//! On states that histories of real changes reach, for only those can meet: over *all* short
//! histories of two replicas (`world` says of what), and over random long ones of three.

mod world;

use atoll_antientropy::{Actor, Event, Hybrid, Kind, Operation, Stamp, State};
use proptest::prelude::*;

use world::{Step, World, check_pair, check_three, joined, operations};

// --- All short histories -------------------------------------------------------------------------

/// Goes through all histories of so many steps, and checks every state that turns up on the way
/// with all others of its history.
fn explore(world: &World, steps: &[Step], left: usize) -> u64 {
    if left == 0 {
        // Without loss, all deltas together are what all replicas together hold.
        let kind = world.records[0].kind();
        let all = |states: &[State]| states.iter().fold(State::unknown(kind), |a, b| joined(&a, b));
        assert_eq!(all(&world.deltas), all(&world.records), "{:?}", world.deltas);
        return 1;
    }
    let mut histories = 0;
    for step in steps {
        let mut next = world.clone();
        let new = next.take(step);
        for a in &new {
            for b in next.states() {
                check_pair(a, b);
                for c in next.states() {
                    check_three(a, b, c);
                }
            }
        }
        histories += explore(&next, steps, left - 1);
    }
    histories
}

fn check_all_short_histories(kind: Kind, steps_left: usize) {
    let mut steps = vec![Step::Repair { from: 0, to: 1 }, Step::Deliver { delta: 0, to: 0 }];
    for operation in operations(kind) {
        for at in 0..2 {
            // Where contexts matter: as someone who had read there, and blindly.
            let seen: &[Option<usize>] = match kind {
                Kind::Counter | Kind::Lww | Kind::Max => &[None],
                Kind::Register | Kind::Set | Kind::Flag | Kind::Map => &[None, Some(at)],
            };
            for &seen in seen {
                let operation = operation.clone();
                steps.push(Step::Change { at, seen, extends: at == 0, operation });
            }
        }
    }
    let histories = explore(&World::new(kind, 2), &steps, steps_left);
    assert_eq!(histories, (steps.len() as u64).pow(steps_left as u32));
}

#[test]
fn all_short_histories_of_registers() {
    check_all_short_histories(Kind::Register, 4);
}

#[test]
fn all_short_histories_of_lww() {
    check_all_short_histories(Kind::Lww, 4);
}

#[test]
fn all_short_histories_of_counters() {
    check_all_short_histories(Kind::Counter, 4);
}

#[test]
fn all_short_histories_of_sets() {
    check_all_short_histories(Kind::Set, 3);
}

#[test]
fn all_short_histories_of_flags() {
    check_all_short_histories(Kind::Flag, 4);
}

#[test]
fn all_short_histories_of_maxima() {
    check_all_short_histories(Kind::Max, 4);
}

#[test]
fn all_short_histories_of_maps() {
    check_all_short_histories(Kind::Map, 3);
}

// --- Random long histories -----------------------------------------------------------------------

fn steps(kind: Kind) -> impl Strategy<Value = Vec<Step>> {
    let operation = prop::sample::select(operations(kind));
    let change = (0..3usize, prop::option::of(0..3usize), any::<bool>(), operation)
        .prop_map(|(at, seen, extends, operation)| Step::Change { at, seen, extends, operation });
    let repair = (0..3usize, 0..3usize).prop_map(|(from, to)| Step::Repair { from, to });
    let deliver = (0..99usize, 0..3usize).prop_map(|(delta, to)| Step::Deliver { delta, to });
    let forget = (0..3usize).prop_map(|at| Step::Forget { at });
    prop::collection::vec(prop_oneof![5 => change, 2 => repair, 4 => deliver, 1 => forget], 1..30)
}

fn any_kind() -> impl Strategy<Value = (Kind, Vec<Step>)> {
    prop::sample::select(Kind::ALL.to_vec())
        .prop_flat_map(|kind| steps(kind).prop_map(move |steps| (kind, steps)))
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 6000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn random_histories(
        (kind, steps) in any_kind(),
        three in prop::collection::vec(any::<[prop::sample::Index; 3]>(), 20),
    ) {
        let mut world = World::new(kind, 3);
        let mut states: Vec<State> = steps.iter().flat_map(|step| world.take(step)).collect();
        states.push(State::unknown(kind));
        for [a, b, c] in three {
            let [a, b, c] = [a, b, c].map(|index| index.get(&states));
            check_pair(a, b);
            check_three(a, b, c);
        }
    }
}

// --- Single sentences ----------------------------------------------------------------------------

/// A state through the eyes of the `crdts` crate: merge is join.
#[test]
fn a_state_is_a_cvrdt() {
    use crdts::CvRDT;
    for kind in Kind::ALL {
        let mut world = World::new(kind, 2);
        for at in 0..2 {
            let operation = operations(kind).remove(0);
            world.take(&Step::Change { at, seen: None, extends: false, operation });
        }
        let [a, b] = &world.records[..] else { unreachable!() };
        assert!(a.validate_merge(b).is_ok());
        let mut merged = a.clone();
        merged.merge(b.clone());
        assert_eq!(merged, joined(a, b));
    }
}

/// States of two kinds never meet: whoever decodes them checks.
#[test]
#[should_panic(expected = "a flag was joined into a set")]
fn kinds_do_not_mix() {
    joined(&State::unknown(Kind::Set), &State::unknown(Kind::Flag));
}

/// A counter that is given twice must not turn into a value that vanishes without a word.
#[test]
#[should_panic(expected = "n1.0.3 was given twice")]
fn a_counter_given_twice_is_noticed() {
    let event = Event::alone(Actor::new(1, 0), 3);
    let stamp = Stamp { event, at: Hybrid::of(1, 0), wall_ms: 1, operation: 0 };
    let put = Operation::Put { value: "tea".into(), expires_ms: None };
    let _ = State::unknown(Kind::Register).change(&put, Some(&event.context()), &stamp);
}
