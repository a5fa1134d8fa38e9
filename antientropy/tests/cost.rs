//! What a change costs its coordinator and the wire, for the largest values that there may be:
//!
//! ```text
//! cargo test --release -p atoll-antientropy --test cost -- --ignored --nocapture
//! ```

use std::hint::black_box;
use std::time::{Duration, Instant};

use atoll_antientropy::{
    Actor, Event, Field, FieldChange, Hybrid, Increment, Kind, Operation, Stamp, State,
};
use bytes::Bytes;

/// A value, and the changes that are made to it over and over.
struct Case {
    name: &'static str,
    state: State,
    change: fn(usize) -> Operation,
}

fn name(number: usize) -> Bytes {
    Bytes::from(format!("{number:0100}"))
}

fn add(names: impl IntoIterator<Item = usize>) -> Operation {
    Operation::Add(names.into_iter().map(name).collect())
}

fn session(session: usize, sequence: u64) -> Operation {
    let total = sequence as i64;
    Operation::Increment(Increment::Session { session: session as u128, sequence, total })
}

fn field(name: Bytes, kind: Kind, operation: Operation) -> (Field, FieldChange) {
    (Field { name, kind }, FieldChange::Change(operation))
}

/// A state that three coordinators have changed in turn, and that is read back from its bytes.
fn state(kind: Kind, operations: impl IntoIterator<Item = Operation>) -> State {
    let mut state = State::unknown(kind);
    for (number, operation) in operations.into_iter().enumerate() {
        let delta = state.change(&operation, None, &stamp(&state, number as u32 % 3)).unwrap();
        state.join(delta);
    }
    State::decode(&state.encode().into()).unwrap()
}

fn stamp(state: &State, node: u32) -> Stamp {
    let actor = Actor::new(node, 0);
    let last = state.context().iter().filter(|own| own.actor == actor).last();
    let after = last.map_or(0, |own| own.hi);
    let event = Event { actor, after, counter: after + 1 };
    Stamp { event, at: Hybrid::of(1, 0), wall_ms: 1, operation: 1 }
}

fn cases() -> Vec<Case> {
    let tags = |number| {
        let operation = Operation::Put { value: name(number), expires_ms: None };
        Operation::Update(vec![field(name(number), Kind::Register, operation)])
    };
    vec![
        Case {
            name: "set of 999 elements of 100 B: add one",
            state: state(Kind::Set, (0..999).map(|number| add([number]))),
            change: |_| add([5000]),
        },
        Case {
            name: "set of 999 elements of 100 B: add one again",
            state: state(Kind::Set, (0..999).map(|number| add([number]))),
            change: |round| add([round % 999]),
        },
        Case {
            name: "set of 1000 elements of 100 B: remove one",
            state: state(Kind::Set, [add(0..1000)]),
            change: |round| Operation::Remove(vec![name(round % 1000)]),
        },
        Case {
            name: "counter of 10,000 sessions: increment",
            state: state(Kind::Counter, (0..10_000).map(|number| session(number, 1))),
            change: |round| session(round % 10_000, 2),
        },
        Case {
            name: "counter of 10 sessions: increment",
            state: state(Kind::Counter, (0..10).map(|number| session(number, 1))),
            change: |round| session(round % 10, 2),
        },
        Case {
            name: "map of 999 registers of 100 B: put one",
            state: state(Kind::Map, (0..999).map(tags)),
            change: |round| {
                let operation = Operation::Put { value: name(7), expires_ms: None };
                Operation::Update(vec![field(name(round % 999), Kind::Register, operation)])
            },
        },
    ]
}

#[expect(clippy::disallowed_methods, reason = "how long it takes is what is asked")]
fn timed<T>(total: &mut Duration, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = black_box(work());
    *total += start.elapsed();
    result
}

/// Makes each change so many times to the same state, and prints what each step took on average.
fn measure(rounds: usize) {
    let heads = ["change", "join", "encode", "digest", "decode", "sum us"];
    println!("{:<46}{}", "", heads.map(|head| format!("{head:>9}")).concat());
    for Case { name, state, change } in cases() {
        let mut times = [Duration::ZERO; 5];
        let mut delta_bytes = 0;
        let record = Bytes::from(state.encode());
        for round in 0..rounds {
            let own = timed(&mut times[4], || State::decode(&record)).unwrap();
            let (operation, stamp) = (change(round), stamp(&own, 1));
            let seen = operation.takes_away(own.kind()).then(|| own.context().clone());
            let delta =
                timed(&mut times[0], || own.change(&operation, seen.as_ref(), &stamp)).unwrap();
            let on_wire = delta.encode();
            delta_bytes = delta_bytes.max(on_wire.len());
            let mut record = own;
            timed(&mut times[1], || record.join(delta));
            timed(&mut times[2], || record.encode());
            timed(&mut times[3], || record.digest());
            assert!(record.covers(&State::decode(&on_wire.into()).unwrap()));
        }
        let micros = times.map(|time| time.as_secs_f64() * 1e6 / rounds as f64);
        let sum: f64 = micros.iter().sum();
        let columns: String =
            micros.into_iter().chain([sum]).map(|us| format!("{us:>9.1}")).collect();
        println!("{name:<46}{columns}   record {} B, delta at most {delta_bytes} B", record.len(),);
        assert!(delta_bytes < 400, "{name}: {delta_bytes} bytes on the wire");
    }
}

/// What changed goes over the wire, and not what did not: some hundred bytes of 100,000.
#[test]
fn a_delta_is_small() {
    measure(3);
}

#[test]
#[ignore = "a measurement, to be read by people"]
fn costs() {
    measure(2000);
}
