//! Ways to keep causality: ours, ours with one rule taken out, and two that are in wide use.

use atoll_antientropy::{Actor, Context, Dot, Event, Interval, Note, Register, Standing};
use bytes::Bytes;
use crdts::{CmRDT, CvRDT, MVReg, VClock};

use crate::truth::Writes;

/// A way to keep the state of a key and the contexts of clients.
pub trait Scheme {
    type State: Clone + Default;
    type Context: Clone + Default;

    /// The change of a client who had seen `seen`, coordinated by `by`. `value` is the number of
    /// the write for a put, nothing for a delete. `None`: the scheme noticed that it cannot go on.
    fn write(
        &self,
        by: Coordinator<Self::State>,
        seen: &Self::Context,
        value: Option<usize>,
    ) -> Option<Written<Self::State, Self::Context>>;

    fn join(&self, state: &mut Self::State, other: Self::State);
    fn context(state: &Self::State) -> Self::Context;
    fn learn(context: &mut Self::Context, other: &Self::Context);
    /// The writes whose values are alive.
    fn values(state: &Self::State) -> Writes;
    /// Whether the state claims to know this write.
    fn knows(state: &Self::State, dot: &Dot) -> bool;

    /// Where a lease goes on after a crash, given its end and what of it the last sync had written.
    fn lease_after_crash(&self, end: u64, _end_at_last_sync: u64) -> u64 {
        end
    }
}

/// What a coordinator has at hand.
pub struct Coordinator<'a, T> {
    pub standing: Standing,
    pub note: Option<&'a Note>,
    pub record: &'a T,
    pub counter: u64,
}

/// What comes of a write.
pub struct Written<T, C> {
    /// Joined into the coordinator's record and sent to the others.
    pub delta: T,
    /// Whether the delta is the coordinator's whole record.
    pub delta_is_record: bool,
    pub note: Option<Note>,
    /// The context for the client.
    pub reply: C,
    /// Whether the reply shows the client all values of the record.
    pub reply_shows_record: bool,
}

/// Exact contexts, as this crate keeps them.
pub struct Exact {
    without: Option<Rule>,
}

/// The rules that can be taken out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// An event extends from the note, not from what the record contains.
    NoteNotRecord,
    /// A note from before an unclean start is not trusted.
    UncleanStarts,
    /// A note from another role is not trusted.
    RoleChanges,
    /// The reply to a put covers the request's context and the put, and no more.
    ReplyCoversOwn,
    /// The end of a lease is synced before its counters are given.
    LeaseFirst,
    /// A tombstone is kept, however long ago its delete was.
    TombstonesStay,
    /// A delete is an event, and enters the context.
    DeletesAreEvents,
}

impl Exact {
    pub fn with_all_rules() -> Exact {
        Exact { without: None }
    }

    pub fn without(rule: Rule) -> Exact {
        Exact { without: Some(rule) }
    }

    fn has(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }
}

impl Scheme for Exact {
    type State = Register;
    type Context = Context;

    fn write(
        &self,
        by: Coordinator<Register>,
        seen: &Context,
        value: Option<usize>,
    ) -> Option<Written<Register, Context>> {
        let mut standing = by.standing;
        if !self.has(Rule::UncleanStarts) {
            standing.unclean_starts = 0;
        }
        if !self.has(Rule::RoleChanges) {
            standing.role_changes = 0;
        }
        let (mut event, note) = standing.event(by.note, by.counter);
        if !self.has(Rule::NoteNotRecord) {
            let own = |interval: &Interval| interval.actor == event.actor;
            let last = by.record.context().iter().filter(own).last();
            event = Event { after: last.map_or(0, |interval| interval.hi), ..event };
        }
        if seen.contains(&event.dot()) {
            return None; // a counter given twice, and for once it shows
        }
        let delta = match value {
            Some(number) => Register::put(seen, event, value_of(number)),
            None => Register::delete(seen, event),
        };
        let delta = match value {
            None if !self.has(Rule::DeletesAreEvents) => without_event(seen),
            _ => delta,
        };
        let mut reply = delta.context().clone();
        if !self.has(Rule::ReplyCoversOwn) {
            reply.join(by.record.context());
        }
        Some(Written {
            delta,
            delta_is_record: false,
            note: Some(note),
            reply,
            reply_shows_record: false,
        })
    }

    fn join(&self, state: &mut Register, other: Register) {
        state.join(other);
        if !self.has(Rule::TombstonesStay) && state.is_tombstone() {
            *state = Register::default();
        }
    }

    fn context(state: &Register) -> Context {
        state.context().clone()
    }

    fn learn(context: &mut Context, other: &Context) {
        context.join(other);
    }

    fn values(state: &Register) -> Writes {
        state.values().fold(0, |all, (_, value)| all | 1 << value[0])
    }

    fn knows(state: &Register, dot: &Dot) -> bool {
        state.context().contains(dot)
    }

    fn lease_after_crash(&self, end: u64, end_at_last_sync: u64) -> u64 {
        if self.has(Rule::LeaseFirst) { end } else { end_at_last_sync }
    }
}

/// `crdts::MVReg` on servers, the usual way: a write's clock is the client's clock and the server's
/// own new counter. Counters come from the same leases as ours, replies show the client all values:
/// the best it can get.
pub struct MultiValue;

impl Scheme for MultiValue {
    /// A deleted value is `None`.
    type State = MVReg<Option<usize>, Actor>;
    type Context = VClock<Actor>;

    fn write(
        &self,
        by: Coordinator<Self::State>,
        seen: &VClock<Actor>,
        value: Option<usize>,
    ) -> Option<Written<Self::State, VClock<Actor>>> {
        let mut clock = seen.clone();
        clock.apply(crdts::Dot::new(by.standing.actor, by.counter));
        let put = crdts::mvreg::Op::Put { clock, val: value };
        let (mut delta, mut record) = (MVReg::new(), by.record.clone());
        delta.apply(put.clone());
        record.apply(put);
        Some(Written {
            delta,
            delta_is_record: false,
            note: None,
            reply: record.read_ctx().add_clock,
            reply_shows_record: true,
        })
    }

    fn join(&self, state: &mut Self::State, other: Self::State) {
        state.merge(other);
    }

    fn context(state: &Self::State) -> VClock<Actor> {
        state.read_ctx().add_clock
    }

    fn learn(context: &mut VClock<Actor>, other: &VClock<Actor>) {
        context.merge(other.clone());
    }

    fn values(state: &Self::State) -> Writes {
        state.read().val.into_iter().flatten().fold(0, |all, number| all | 1 << number)
    }

    fn knows(state: &Self::State, dot: &Dot) -> bool {
        dot.counter <= state.read_ctx().add_clock.get(&dot.actor)
    }
}

/// Values under dots, and a plain version vector as context: a dotted version vector set (Preguiça
/// and others, "Dotted version vectors", 2010), as Riak has it. Coordinators send their whole
/// record, replies show the client all values.
pub struct PlainVector;

#[derive(Clone, Default)]
pub struct DottedSet {
    values: Vec<(Dot, usize)>,
    clock: VClock<Actor>,
}

impl Scheme for PlainVector {
    type State = DottedSet;
    type Context = VClock<Actor>;

    fn write(
        &self,
        by: Coordinator<DottedSet>,
        seen: &VClock<Actor>,
        value: Option<usize>,
    ) -> Option<Written<DottedSet, VClock<Actor>>> {
        let dot = Dot { actor: by.standing.actor, counter: by.counter };
        let mut record = by.record.clone();
        record.values.retain(|(dot, _)| dot.counter > seen.get(&dot.actor));
        record.values.extend(value.map(|number| (dot.clone(), number)));
        record.clock.merge(seen.clone());
        record.clock.apply(dot.into());
        Some(Written {
            reply: record.clock.clone(),
            delta: record,
            delta_is_record: true,
            note: None,
            reply_shows_record: true,
        })
    }

    fn join(&self, state: &mut DottedSet, other: DottedSet) {
        let DottedSet { values, clock } = other;
        state.values.retain(|own| values.contains(own) || own.0.counter > clock.get(&own.0.actor));
        for (dot, number) in values {
            if dot.counter > state.clock.get(&dot.actor) {
                state.values.push((dot, number));
            }
        }
        state.clock.merge(clock);
    }

    fn context(state: &DottedSet) -> VClock<Actor> {
        state.clock.clone()
    }

    fn learn(context: &mut VClock<Actor>, other: &VClock<Actor>) {
        context.merge(other.clone());
    }

    fn values(state: &DottedSet) -> Writes {
        state.values.iter().fold(0, |all, (_, number)| all | 1 << number)
    }

    fn knows(state: &DottedSet, dot: &Dot) -> bool {
        dot.counter <= state.clock.get(&dot.actor)
    }
}

/// A delete that says only what is gone.
fn without_event(seen: &Context) -> Register {
    let mut bytes = vec![Register::default().encode()[0]];
    seen.encode_into(&mut bytes);
    bytes.push(0);
    Register::decode(&bytes.into()).expect("a context and no values are a register")
}

/// A value of one byte, the number of its write.
fn value_of(number: usize) -> Bytes {
    static NUMBERS: [u8; 64] = {
        let mut numbers = [0; 64];
        let mut number = 0;
        while number < 64 {
            numbers[number] = number as u8;
            number += 1;
        }
        numbers
    };
    Bytes::from_static(&NUMBERS[number..=number])
}
