//! One history of one key: three or four replicas, three clients, twelve to twenty-five steps,
//! everything that can go wrong. The choices depend on the seed alone, so every scheme lives
//! through the same history.

use std::cell::Cell;
use std::collections::BTreeMap;

use atoll_antientropy::{Actor, Dot, Lease, Note, Standing};

use crate::schemes::{Coordinator, Knows, Scheme, Written};
use crate::truth::{Act, Deed, Held, Truth, Writes};

/// How a history ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    AllWell,
    Lost,
    Returned,
    Misclaimed,
}

/// Lives through the history of a seed, up to the first thing that goes wrong with values. A claim
/// that is wrong but has not yet hurt a value is told only if nothing worse follows.
pub fn run<S: Scheme>(scheme: &S, seed: u64) -> Found {
    let mut chance = Chance(seed.wrapping_mul(0xa076_1d64_78bd_642f));
    let mut world = World::new(scheme, 3 + chance.below(2));
    for _ in 0..12 + chance.below(14) {
        if let Err(found) = world.step(&mut chance) {
            return found;
        }
    }
    match world.at_the_end() {
        Err(found) => found,
        Ok(()) if world.misclaimed.get() => Found::Misclaimed,
        Ok(()) => Found::AllWell,
    }
}

/// Something that holds a state: a record, a message. With it, which writes truly went into it.
struct Piece<S: Scheme> {
    state: S::State,
    held: Held,
}

/// What a client holds, and which writes it truly stands for.
struct Seen<S: Scheme> {
    context: S::Context,
    truth: Writes,
}

struct Replica<S: Scheme> {
    actor: Actor,
    unclean_starts: u64,
    role_changes: u64,
    role: Role,
    lease: Lease,
    /// On stable storage, as it is before any counter below it is given.
    lease_end: u64,
    lease_end_at_last_sync: u64,
    /// One place per role: an owner's record and a fallback's hint record lie apart.
    now: [Slot<S>; 2],
    /// What a crash leaves.
    synced: [Slot<S>; 2],
}

#[derive(Clone, Copy)]
enum Role {
    Owner = 0,
    Fallback = 1,
}

struct Slot<S: Scheme> {
    record: Piece<S>,
    note: Option<Note>,
}

struct World<'a, S: Scheme> {
    scheme: &'a S,
    truth: Truth,
    replicas: Vec<Replica<S>>,
    /// All that each client has ever got; the first is empty.
    clients: Vec<Vec<Seen<S>>>,
    /// What each client has counted so far, by client and place; its session holds it all.
    sessions: BTreeMap<(usize, usize), Writes>,
    /// Messages on their way, for ever unless they are lost.
    flying: Vec<Piece<S>>,
    /// The replica of the last step.
    at: usize,
    /// Whether a piece claimed to know a write that had not gone into it, or denied one that had.
    misclaimed: Cell<bool>,
}

impl<'a, S: Scheme> World<'a, S> {
    fn new(scheme: &'a S, replicas: u64) -> Self {
        World {
            scheme,
            truth: Truth::new(scheme.places()),
            replicas: (0..replicas as u32).map(|node| Replica::new(Actor::new(node, 0))).collect(),
            clients: (0..3).map(|_| vec![Seen::default()]).collect(),
            sessions: BTreeMap::new(),
            flying: Vec::new(),
            at: 0,
            misclaimed: Cell::new(false),
        }
    }

    fn step(&mut self, chance: &mut Chance) -> Result<(), Found> {
        // Half of the steps stay where the last one was: most losses need several mishaps at one
        // replica.
        if chance.below(2) == 0 {
            self.at = chance.index(self.replicas.len());
        }
        let at = self.at;
        let replica = &mut self.replicas[at];
        match chance.below(100) {
            0..32 => self.write(at, chance)?,
            32..52 => self.deliver(at, chance)?,
            52..62 => self.read(chance),
            62..69 => self.exchange(at, chance)?,
            69..73 => self.lose_message(chance),
            73..79 => replica.sync(),
            79..87 => replica.crash(self.scheme),
            87..88 => replica.restart(),
            88..91 => replica.forget(chance),
            91..92 => replica.lose_disk(),
            92.. => {
                let handed_off = replica.change_role(chance);
                self.flying.extend(handed_off);
            }
        }
        Ok(())
    }

    /// A client writes through a replica; the delta goes out to the others.
    fn write(&mut self, at: usize, chance: &mut Chance) -> Result<(), Found> {
        let client = chance.index(self.clients.len());
        let newest = self.clients[client].len() - 1;
        let which = match chance.below(4) {
            0 => 0,                        // nothing
            1 => chance.index(newest + 1), // something old
            _ => newest,                   // the newest
        };
        let deed = self.scheme.deed(chance.below(S::DEEDS));
        let number = self.truth.next();
        let deed = self.with_totals(deed, client, number, chance);

        let counter = self.replicas[at].take_counter(chance);
        let replica = &self.replicas[at];
        let slot = replica.slot();
        let seen = &self.clients[client][which];
        let says_nothing = self.scheme.may_say_nothing() && which == 0;
        let by = Coordinator {
            standing: replica.standing(),
            note: slot.note.as_ref(),
            record: &slot.record.state,
            counter,
        };
        let dot = Dot { actor: replica.actor, counter };
        let context = (!says_nothing).then_some(&seen.context);
        let Some(Written { delta, delta_knows, note, reply, reply_shows_record }) =
            self.scheme.write(by, context, &deed, number, client)
        else {
            return Err(Found::Lost);
        };

        let seen = seen.truth;
        let truly_seen = (!says_nothing).then_some(seen);
        let own = self.truth.add(dot, &deed, truly_seen, slot.record.held);
        let mut record = slot.record.held;
        record.join(own);
        let own_truth = seen | 1 << number;
        let held = match delta_knows {
            Knows::Event => own,
            Knows::Seen => Held { truth: own_truth, ..own },
            Knows::Record => Held { truth: record.truth | own_truth, ..record },
        };
        let delta = Piece { state: delta, held };
        self.compare(&delta)?;
        let slot = self.replicas[at].slot_mut();
        slot.record.join(self.scheme, delta.clone());
        slot.note = note;
        let record_truth = slot.record.held.truth;
        self.flying.push(delta);
        if chance.below(4) > 0 {
            let truth = if reply_shows_record { record_truth | own_truth } else { own_truth };
            self.clients[client].push(Seen { context: reply, truth });
        }
        self.compare(&self.replicas[at].slot().record)
    }

    /// A client adds to the totals of its sessions, or repeats the last one, which it got no answer
    /// for.
    fn with_totals(
        &mut self,
        deed: Deed,
        client: usize,
        number: usize,
        chance: &mut Chance,
    ) -> Deed {
        let mut with_total = |(place, act)| {
            let Act::Session(_) = act else {
                return (place, act);
            };
            let total = self.sessions.entry((client, place)).or_default();
            if *total == 0 || chance.below(3) > 0 {
                *total |= 1 << number;
            }
            (place, Act::Session(*total))
        };
        deed.into_iter().map(&mut with_total).collect()
    }

    /// A message arrives, and may arrive again.
    fn deliver(&mut self, to: usize, chance: &mut Chance) -> Result<(), Found> {
        if self.flying.is_empty() {
            return Ok(());
        }
        let which = chance.index(self.flying.len());
        let again = chance.below(2) == 0;
        let piece = if again { self.flying[which].clone() } else { self.flying.swap_remove(which) };
        self.replicas[to].slot_mut().record.join(self.scheme, piece);
        self.compare(&self.replicas[to].slot().record)
    }

    /// A replica sends its whole record; someone gets it, or whatever else is on its way.
    fn exchange(&mut self, from: usize, chance: &mut Chance) -> Result<(), Found> {
        let whole_record = self.replicas[from].slot().record.clone();
        self.flying.push(whole_record);
        self.deliver(chance.index(self.replicas.len()), chance)
    }

    fn lose_message(&mut self, chance: &mut Chance) {
        if !self.flying.is_empty() {
            self.flying.swap_remove(chance.index(self.flying.len()));
        }
    }

    /// A client reads some replicas, and knows the join of what they hold; in a session, with what
    /// it knew before.
    fn read(&mut self, chance: &mut Chance) {
        let mut read = Piece::<S>::default();
        for _ in 0..1 + chance.below(3) {
            let replica = &self.replicas[chance.index(self.replicas.len())];
            read.join(self.scheme, replica.slot().record.clone());
        }
        let mut seen = Seen::<S> { context: S::context(&read.state), truth: read.held.truth };
        let client = chance.index(self.clients.len());
        let in_session = chance.below(3) == 0;
        if let Some(before) = self.clients[client].last().filter(|_| in_session) {
            S::learn(&mut seen.context, &before.context);
            seen.truth |= before.truth;
        }
        self.clients[client].push(seen);
    }

    /// Every surviving piece, joined: nothing that survived anywhere may be missing.
    fn at_the_end(&mut self) -> Result<(), Found> {
        let mut all = Piece::<S>::default();
        for replica in &self.replicas {
            for slot in &replica.now {
                all.join(self.scheme, slot.record.clone());
            }
        }
        for piece in &self.flying {
            all.join(self.scheme, piece.clone());
        }
        self.compare(&all)?;
        match self.truth.has_vanished(all.held.truth, &self.scheme.shown(&all.state)) {
            true => Err(Found::Lost),
            false => Ok(()),
        }
    }

    /// Compares what a piece shows with what must be alive in it.
    fn compare(&self, piece: &Piece<S>) -> Result<(), Found> {
        let shown = self.scheme.shown(&piece.state);
        for (shown, (at_least, at_most)) in shown.into_iter().zip(self.truth.shown(piece.held)) {
            if at_least & !shown != 0 {
                return Err(Found::Lost);
            }
            if shown & !at_most != 0 {
                return Err(Found::Returned);
            }
        }
        if self.truth.claimed(|dot| S::knows(&piece.state, dot)) != piece.held.truth {
            self.misclaimed.set(true);
        }
        Ok(())
    }
}

impl<S: Scheme> Replica<S> {
    fn new(actor: Actor) -> Self {
        Replica {
            actor,
            unclean_starts: 0,
            role_changes: 0,
            role: Role::Owner,
            lease: Lease::resume(0),
            lease_end: 0,
            lease_end_at_last_sync: 0,
            now: Default::default(),
            synced: Default::default(),
        }
    }

    fn slot(&self) -> &Slot<S> {
        &self.now[self.role as usize]
    }

    fn slot_mut(&mut self) -> &mut Slot<S> {
        &mut self.now[self.role as usize]
    }

    fn standing(&self) -> Standing {
        Standing {
            actor: self.actor,
            unclean_starts: self.unclean_starts,
            role_changes: self.role_changes,
        }
    }

    /// The next counter; other keys of the partition may have taken some between.
    fn take_counter(&mut self, chance: &mut Chance) -> u64 {
        for _ in 0..chance.below(3) {
            self.take_next(chance);
        }
        self.take_next(chance)
    }

    fn take_next(&mut self, chance: &mut Chance) -> u64 {
        loop {
            match self.lease.take() {
                Some(counter) => return counter,
                None => {
                    self.lease_end = self.lease.next_end(1 + chance.below(4));
                    self.lease.extend_to(self.lease_end);
                }
            }
        }
    }

    fn sync(&mut self) {
        self.synced = self.now.clone();
        self.lease_end_at_last_sync = self.lease_end;
    }

    /// All that was not synced is gone, except the lease, which is always synced first.
    fn crash(&mut self, scheme: &S) {
        self.now = self.synced.clone();
        self.lease_end = scheme.lease_after_crash(self.lease_end, self.lease_end_at_last_sync);
        self.lease = Lease::resume(self.lease_end);
        self.unclean_starts += 1;
    }

    /// Stops and starts in good order.
    fn restart(&mut self) {
        self.sync();
        self.lease = Lease::resume(self.lease_end);
    }

    /// The record is gone for good, with its note or without; the lease is not.
    fn forget(&mut self, chance: &mut Chance) {
        let with_note = chance.below(4) > 0;
        for slot in [&mut self.now[self.role as usize], &mut self.synced[self.role as usize]] {
            slot.record = Piece::default();
            slot.note = slot.note.filter(|_| !with_note);
        }
    }

    /// Everything is gone. The node goes on as a new incarnation; its roles are known from the
    /// view.
    fn lose_disk(&mut self) {
        let Actor { node, incarnation } = self.actor;
        let (role, role_changes) = (self.role, self.role_changes);
        *self = Replica { role, role_changes, ..Replica::new(Actor::new(node, incarnation + 1)) };
    }

    /// Owner becomes fallback, or fallback becomes owner again. What it held so far stays where it
    /// is, is handed to the others and deleted, or is dropped.
    fn change_role(&mut self, chance: &mut Chance) -> Option<Piece<S>> {
        let handed_off = match chance.below(3) {
            0 => None,
            1 => Some(std::mem::take(self.slot_mut()).record),
            _ => {
                *self.slot_mut() = Slot::default();
                None
            }
        };
        self.role_changes += 1;
        self.role = match self.role {
            Role::Owner => Role::Fallback,
            Role::Fallback => Role::Owner,
        };
        handed_off
    }
}

impl<S: Scheme> Piece<S> {
    fn join(&mut self, scheme: &S, other: Self) {
        scheme.join(&mut self.state, other.state);
        self.held.join(other.held);
    }
}

// By hand, because a derive would ask it of the scheme too.
impl<S: Scheme> Clone for Piece<S> {
    fn clone(&self) -> Self {
        Piece { state: self.state.clone(), held: self.held }
    }
}

impl<S: Scheme> Clone for Slot<S> {
    fn clone(&self) -> Self {
        Slot { record: self.record.clone(), note: self.note }
    }
}

impl<S: Scheme> Default for Piece<S> {
    fn default() -> Self {
        Piece { state: S::State::default(), held: Held::default() }
    }
}

impl<S: Scheme> Default for Slot<S> {
    fn default() -> Self {
        Slot { record: Piece::default(), note: None }
    }
}

impl<S: Scheme> Default for Seen<S> {
    fn default() -> Self {
        Seen { context: S::Context::default(), truth: 0 }
    }
}

/// Seeded chance: splitmix64 (Steele, Lea and Flood, 2014).
struct Chance(u64);

impl Chance {
    /// A number from 0 to `end` - 1. The bias is far below what these tests could notice.
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }

    fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }
}
