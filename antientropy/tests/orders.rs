//! Three replicas, three writes, *all* orders: whatever order writes and deliveries come in, all
//! replicas end up equal, and equal to what the plain rule says must be alive.
//!
//! The plain rule (the oracle): a write is alive unless a write is known that had seen it. It is
//! kept as sets of write numbers, without dots, contexts or intervals.

use atoll_antientropy::{Actor, Context, Kind, Note, Standing, State};
use bytes::Bytes;

const REPLICAS: usize = 3;
const WRITES: usize = 3;
const VALUES: [&str; WRITES] = ["first", "second", "third"];

/// One world to run through: what the three clients do.
#[derive(Clone, Copy, Debug)]
struct Plan {
    /// Which replica coordinates each write.
    coordinator: [usize; WRITES],
    /// Whether the client has read there just before, or writes blindly.
    reads_first: [bool; WRITES],
    /// Put or delete.
    puts: [bool; WRITES],
}

/// A point on the way.
#[derive(Clone)]
struct World {
    records: [State; REPLICAS],
    notes: [Option<Note>; REPLICAS],
    /// Made so far, with what each had seen (a set of write numbers, as bits).
    deltas: Vec<(State, u8)>,
    /// Truly known at each replica: a set of write numbers, as bits.
    truth: [u8; REPLICAS],
    /// Delivered so far: (write, replica), as bits.
    delivered: u16,
}

impl Default for World {
    fn default() -> World {
        World {
            records: std::array::from_fn(|_| State::unknown(Kind::Register)),
            notes: Default::default(),
            deltas: Default::default(),
            truth: Default::default(),
            delivered: Default::default(),
        }
    }
}

impl World {
    fn write(&mut self, plan: &Plan) {
        let number = self.deltas.len();
        let at = plan.coordinator[number];
        let (seen, truly_seen) = match plan.reads_first[number] {
            true => (self.records[at].context().clone(), self.truth[at]),
            false => (Context::new(), 0),
        };
        let standing =
            Standing { actor: Actor::new(at as u32, 0), unclean_starts: 0, role_changes: 0 };
        let counter = 10 * (number as u64 + 1); // other keys took those between
        let (event, note) = standing.event(self.notes[at].as_ref(), counter);
        let delta = match plan.puts[number] {
            true => State::put(&seen, event, Bytes::from(VALUES[number])),
            false => State::delete(&seen, event),
        };
        self.notes[at] = Some(note);
        self.deltas.push((delta, truly_seen));
        self.deliver(number, at, plan);
    }

    fn deliver(&mut self, number: usize, to: usize, plan: &Plan) {
        let (delta, truly_seen) = self.deltas[number].clone();
        self.records[to].join(delta);
        self.truth[to] |= truly_seen | 1 << number;
        self.delivered |= 1 << (number * REPLICAS + to);
        self.compare(to, plan);
    }

    /// The values of a replica are exactly those that the plain rule says.
    fn compare(&self, at: usize, plan: &Plan) {
        let known = |number: &usize| self.truth[at] & (1 << number) != 0;
        let had_seen = |number: usize| self.deltas[number].1;
        let seen =
            (0..self.deltas.len()).filter(known).fold(0, |all, number| all | had_seen(number));
        let expected = (0..self.deltas.len())
            .filter(|number| known(number) && plan.puts[*number] && seen & (1 << number) == 0)
            .map(|number| VALUES[number].as_bytes());
        let mut values: Vec<&[u8]> =
            self.records[at].values().map(|(_, value)| &value[..]).collect();
        values.sort_unstable(); // first, second, third: the alphabet agrees
        assert!(values.iter().copied().eq(expected), "{plan:?}: replica {at} shows {values:?}");
    }

    /// Goes every way from here: the next write, or any delivery that is due. Returns how many ways
    /// there were.
    fn explore(&self, plan: &Plan) -> u64 {
        let mut ways = 0;
        if self.deltas.len() < WRITES {
            let mut next = self.clone();
            next.write(plan);
            ways += next.explore(plan);
        }
        for number in 0..self.deltas.len() {
            for to in 0..REPLICAS {
                if self.delivered & (1 << (number * REPLICAS + to)) == 0 {
                    let mut next = self.clone();
                    next.deliver(number, to, plan);
                    ways += next.explore(plan);
                }
            }
        }
        if ways == 0 {
            self.clone().at_the_end(plan);
            return 1;
        }
        ways
    }

    /// All replicas are equal, and stay so when every delta comes a second time, and the whole
    /// record of another.
    fn at_the_end(mut self, plan: &Plan) {
        let [a, b, c] = &self.records;
        assert!(a == b && b == c, "{plan:?}: {a:?} {b:?} {c:?}");
        let bytes = a.encode();
        let other = a.clone();
        for record in &mut self.records {
            for (delta, _) in self.deltas.iter().rev() {
                assert!(record.covers(delta));
                record.join(delta.clone());
            }
            record.join(other.clone());
            assert_eq!(record.encode(), bytes, "{plan:?}");
        }
    }
}

/// Every choice of coordinators (up to renaming of replicas), of reading or not, of putting or
/// deleting; for each of these the 2,240 orders in which three writes and their six deliveries can
/// happen.
#[test]
fn all_orders_of_three_writes_end_equal() {
    let coordinators = [[0, 0, 0], [0, 0, 1], [0, 1, 0], [0, 1, 1], [0, 1, 2]];
    let both = [true, false];
    for coordinator in coordinators {
        for (second_reads, third_reads) in both.map(|a| both.map(|b| (a, b))).concat() {
            for (second_puts, third_puts) in both.map(|a| both.map(|b| (a, b))).concat() {
                let plan = Plan {
                    coordinator,
                    reads_first: [false, second_reads, third_reads], // nothing to read yet
                    puts: [true, second_puts, third_puts],
                };
                assert_eq!(World::default().explore(&plan), 2240);
            }
        }
    }
}

/// The same three deltas at one replica, delivered up to two times more than needed, in every order
/// there is.
#[test]
fn all_orders_with_duplicates_end_equal() {
    let plan =
        Plan { coordinator: [0, 0, 1], reads_first: [false, true, false], puts: [true; WRITES] };
    let mut made = World::default();
    (0..WRITES).for_each(|_| made.write(&plan));
    for deliveries in WRITES as u32..=5 {
        for order in 0..WRITES.pow(deliveries) {
            let order = (0..deliveries).map(|step| order / WRITES.pow(step) % WRITES);
            let mut world = made.clone();
            order.for_each(|number| world.deliver(number, 2, &plan));
            if world.truth[2] == 0b111 {
                let values: Vec<&Bytes> =
                    world.records[2].values().map(|(_, value)| value).collect();
                assert_eq!(values, ["second", "third"]);
            }
        }
    }
}
