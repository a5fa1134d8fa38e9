//! Ways to keep causality: ours, ours with one rule taken out, and two that are in wide use.

use atoll_antientropy::{Actor, Context, Dot, Event, Interval, Kind, Note, Standing, State};
use bytes::Bytes;
use crdts::{CmRDT, CvRDT, MVReg, VClock};

use crate::truth::{Act, Deed, Sort};

/// A way to keep the state of a key and the contexts of clients.
pub trait Scheme {
    type State: Clone + Default;
    type Context: Clone + Default;

    /// How many different deeds there are to choose from.
    const DEEDS: u64;

    /// Whether it matters if a client says nothing or says that it has seen nothing.
    fn may_say_nothing(&self) -> bool {
        false
    }

    /// What the key consists of.
    fn places(&self) -> Vec<Sort> {
        vec![Sort::Values]
    }

    /// Three puts to a delete.
    fn deed(&self, which: u64) -> Deed {
        vec![(0, if which > 0 { Act::Put } else { Act::Take })]
    }

    /// The deed of a client who had seen `seen`, coordinated by `by`. `number` is the number of the
    /// write, and what it puts. `None`: the scheme noticed that it cannot go on.
    fn write(
        &self,
        by: Coordinator<Self::State>,
        seen: Option<&Self::Context>,
        deed: &Deed,
        number: usize,
        client: usize,
    ) -> Option<Written<Self::State, Self::Context>>;

    fn join(&self, state: &mut Self::State, other: Self::State);
    fn context(state: &Self::State) -> Self::Context;
    fn learn(context: &mut Self::Context, other: &Self::Context);
    /// What each place shows.
    fn shown(&self, state: &Self::State) -> Vec<u64>;
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
    pub delta_knows: Knows,
    pub note: Option<Note>,
    /// The context for the client.
    pub reply: C,
    /// Whether the reply shows the client all values of the record.
    pub reply_shows_record: bool,
}

/// What the context of a delta may claim to know.
pub enum Knows {
    /// The write alone.
    Event,
    /// And what its client had seen.
    Seen,
    /// And the whole record of the coordinator.
    Record,
}

/// A deed on a single register: a put, or else a delete.
fn value_of_deed(deed: &Deed, number: usize) -> Option<usize> {
    (deed[0].1 == Act::Put).then_some(number)
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

    /// The write's event, as far as the rules go.
    pub fn event<T>(&self, by: &Coordinator<T>, known: &Context) -> (Event, Note) {
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
            let last = known.iter().filter(own).last();
            event = Event { after: last.map_or(0, |interval| interval.hi), ..event };
        }
        (event, note)
    }

    /// Where a lease goes on after a crash.
    pub fn lease(&self, end: u64, end_at_last_sync: u64) -> u64 {
        if self.has(Rule::LeaseFirst) { end } else { end_at_last_sync }
    }
}

/// A register as a replica holds it; at first it has heard of nothing.
#[derive(Clone)]
pub struct Held(pub State);

impl Default for Held {
    fn default() -> Held {
        Held(State::unknown(Kind::Register))
    }
}

impl Scheme for Exact {
    type State = Held;
    type Context = Context;
    const DEEDS: u64 = 4;

    fn write(
        &self,
        by: Coordinator<Held>,
        seen: Option<&Context>,
        deed: &Deed,
        number: usize,
        _: usize,
    ) -> Option<Written<Held, Context>> {
        let (seen, value) = (seen?, value_of_deed(deed, number));
        let (event, note) = self.event(&by, by.record.0.context());
        if seen.contains(&event.dot()) {
            return None; // a counter given twice, and for once it shows
        }
        let delta = match value {
            Some(number) => State::put(seen, event, value_of(number)),
            None => State::delete(seen, event),
        };
        let delta = match value {
            None if !self.has(Rule::DeletesAreEvents) => without_event(seen),
            _ => delta,
        };
        let mut reply = delta.context().clone();
        if !self.has(Rule::ReplyCoversOwn) {
            reply.join(by.record.0.context());
        }
        Some(Written {
            delta: Held(delta),
            delta_knows: Knows::Seen,
            note: Some(note),
            reply,
            reply_shows_record: false,
        })
    }

    fn join(&self, state: &mut Held, other: Held) {
        state.0.join(other.0);
        if !self.has(Rule::TombstonesStay) && state.0.is_tombstone() {
            *state = Held::default();
        }
    }

    fn context(state: &Held) -> Context {
        state.0.context().clone()
    }

    fn learn(context: &mut Context, other: &Context) {
        context.join(other);
    }

    fn shown(&self, state: &Held) -> Vec<u64> {
        vec![state.0.values().fold(0, |all, (_, value)| all | 1 << value[0])]
    }

    fn knows(state: &Held, dot: &Dot) -> bool {
        state.0.context().contains(dot)
    }

    fn lease_after_crash(&self, end: u64, end_at_last_sync: u64) -> u64 {
        self.lease(end, end_at_last_sync)
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
    const DEEDS: u64 = 4;

    fn write(
        &self,
        by: Coordinator<Self::State>,
        seen: Option<&VClock<Actor>>,
        deed: &Deed,
        number: usize,
        _: usize,
    ) -> Option<Written<Self::State, VClock<Actor>>> {
        let (seen, value) = (seen?, value_of_deed(deed, number));
        let mut clock = seen.clone();
        clock.apply(crdts::Dot::new(by.standing.actor, by.counter));
        let put = crdts::mvreg::Op::Put { clock, val: value };
        let (mut delta, mut record) = (MVReg::new(), by.record.clone());
        delta.apply(put.clone());
        record.apply(put);
        Some(Written {
            delta,
            delta_knows: Knows::Seen,
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

    fn shown(&self, state: &Self::State) -> Vec<u64> {
        vec![state.read().val.into_iter().flatten().fold(0, |all, number| all | 1 << number)]
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
    const DEEDS: u64 = 4;

    fn write(
        &self,
        by: Coordinator<DottedSet>,
        seen: Option<&VClock<Actor>>,
        deed: &Deed,
        number: usize,
        _: usize,
    ) -> Option<Written<DottedSet, VClock<Actor>>> {
        let (seen, value) = (seen?, value_of_deed(deed, number));
        let dot = Dot { actor: by.standing.actor, counter: by.counter };
        let mut record = by.record.clone();
        record.values.retain(|(dot, _)| dot.counter > seen.get(&dot.actor));
        record.values.extend(value.map(|number| (dot.clone(), number)));
        record.clock.merge(seen.clone());
        record.clock.apply(dot.into());
        Some(Written {
            reply: record.clock.clone(),
            delta: record,
            delta_knows: Knows::Record,
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

    fn shown(&self, state: &DottedSet) -> Vec<u64> {
        vec![state.values.iter().fold(0, |all, (_, number)| all | 1 << number)]
    }

    fn knows(state: &DottedSet, dot: &Dot) -> bool {
        dot.counter <= state.clock.get(&dot.actor)
    }
}

/// A delete that says only what is gone.
fn without_event(seen: &Context) -> State {
    let mut bytes = vec![State::unknown(Kind::Register).encode()[0]];
    seen.encode_into(&mut bytes);
    bytes.push(0);
    State::decode(&bytes.into()).expect("a context and no values are a register")
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
