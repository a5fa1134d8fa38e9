//! Riak's model of one key, for our rules: three owners and three fallbacks; put, forget, replicate, hand off.
//!
//! Riak lost acknowledged writes for years in one family of ways (issue kv679): a node forgets a key, begins its clock for
//! it anew, and whoever remembers the old events takes the new ones for old. Its model (riak_kv, `eqc/kv679_eqc.erl`) puts
//! through any of six nodes, lets nodes forget, replicates and hands off, and asks that no value is lost which no later
//! write replaced. This is that model over the code that decides here: [`Standing`], [`Note`], [`Lease`] and [`State`].
//! Nodes also crash, lose their disks, and change roles, as they will when partitions move.
//!
//! Beside every copy the model keeps the plain set of writes that went into it. What is alive in all copies together must be
//! exactly what those sets say, after every step.
//!
//! As with the atlas, nothing is forgotten that no other copy holds.

use std::collections::BTreeSet;

use atoll_antientropy::{Actor, Context, Dot, Event, Kind, Lease, Note, Standing, State};
use atoll_node::canary::{self, Canary};
use atoll_transport::chance::Chance;
use bytes::Bytes;

/// How many sequences are run.
pub const SEQUENCES: u64 = 20_000;

const OWNERS: usize = 3;
const NODES: usize = 6;
const CLIENTS: usize = 3;

/// Counters taken at once: few, so that leases end.
const BLOCK: u64 = 4;

/// Writes by their numbers, one bit each; a sequence has at most so many.
type Writes = u64;
const WRITES_MAX: usize = 63;

/// What came of all sequences.
#[derive(Debug, Default)]
pub struct Found {
    /// How many.
    pub sequences: u64,
    /// Their steps.
    pub steps: u64,
    /// Sequences in which something was wrong, and what.
    pub broken: Vec<(u64, String)>,
}

/// Runs sequences 1 to `count`.
pub fn run_all(count: u64, canary: Option<Canary>) -> Found {
    canary::set(canary);
    let mut found = Found { sequences: count, ..Found::default() };
    for seed in 1..=count {
        if let Err(why) = sequence(seed, &mut found.steps) {
            found.broken.push((seed, why));
        }
    }
    canary::set(None);
    found
}

fn sequence(seed: u64, steps: &mut u64) -> Result<(), String> {
    let mut chance = Chance::of_seed(Chance::of_seed(seed).draw());
    let mut model = Model::new();
    for _ in 0..chance.between(10, 45) {
        *steps += 1;
        model.step(&mut chance)?;
        model.check()?;
    }
    Ok(())
}

/// A state, and the writes that truly went into it.
#[derive(Clone)]
struct Piece {
    state: State,
    truth: Writes,
}

impl Default for Piece {
    fn default() -> Self {
        Piece { state: State::unknown(Kind::Register), truth: Writes::default() }
    }
}

/// A row on a disk: a copy of the key, and the note of the coordinator beside it.
#[derive(Clone, Default)]
struct Row {
    piece: Piece,
    note: Option<Note>,
}

/// What a client may hand back.
#[derive(Clone, Default)]
struct Seen {
    context: Context,
    truth: Writes,
}

/// One write, as it was.
struct Entry {
    dot: Dot,
    seen: Writes,
    is_put: bool,
}

/// A node keeps its record as an owner and its hint as a fallback apart.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Owner = 0,
    Fallback = 1,
}

struct Node {
    actor: Actor,
    unclean_starts: u64,
    role_changes: u64,
    role: Role,
    lease: Lease,
    /// On stable storage before any counter below it is given.
    lease_end: u64,
    rows: [Row; 2],
    /// What a crash leaves.
    synced: [Row; 2],
}

struct Model {
    nodes: Vec<Node>,
    clients: Vec<Vec<Seen>>,
    /// Deltas on their way, as often as they like to arrive.
    flying: Vec<Piece>,
    writes: Vec<Entry>,
    given: BTreeSet<(u32, u32, u64)>,
}

impl Model {
    fn new() -> Self {
        let role = |node| if node < OWNERS { Role::Owner } else { Role::Fallback };
        Model {
            nodes: (0..NODES).map(|node| Node::new(node as u32 + 1, role(node))).collect(),
            clients: vec![vec![Seen::default()]; CLIENTS],
            flying: Vec::new(),
            writes: Vec::new(),
            given: BTreeSet::new(),
        }
    }

    fn step(&mut self, chance: &mut Chance) -> Result<(), String> {
        let at = chance.below(NODES as u64) as usize;
        match chance.below(100) {
            0..34 => self.write(at, chance)?,
            34..46 => self.get(chance),
            46..60 => self.replicate(at, chance),
            60..72 => self.hand_off(at, chance),
            72..80 => self.forget(at, chance),
            80..86 => self.nodes[at].synced = self.nodes[at].rows.clone(),
            86..92 => self.nodes[at].crash(),
            92..94 => self.wipe(at),
            _ => self.swap_roles(chance),
        }
        Ok(())
    }

    fn write(&mut self, at: usize, chance: &mut Chance) -> Result<(), String> {
        if self.writes.len() == WRITES_MAX {
            return Ok(());
        }
        let client = chance.below(CLIENTS as u64) as usize;
        let told = &self.clients[client];
        let seen = match chance.below(4) {
            0 => Seen::default(),
            1 => chance.of(told),
            _ => told[told.len() - 1].clone(),
        };
        let number = self.writes.len();
        let is_put = chance.below(5) > 0;
        let node = &mut self.nodes[at];
        let counter = node.counter();
        let (event, note) = node.event(counter);
        let dot = event.dot();
        if !self.given.insert((dot.actor.node, dot.actor.incarnation, dot.counter)) {
            return Err(format!("{dot} was given twice"));
        }
        let state = if is_put {
            State::put(&seen.context, event, Bytes::copy_from_slice(&[number as u8]))
        } else {
            State::delete(&seen.context, event)
        };
        let truth = seen.truth | 1 << number;
        let context = state.context().clone();
        let delta = Piece { state, truth };
        let row = &mut node.rows[node.role as usize];
        row.piece.join(&delta);
        row.note = Some(note);
        if chance.below(4) > 0 {
            node.synced[node.role as usize] = row.clone();
        }
        self.flying.push(delta);
        self.writes.push(Entry { dot, seen: seen.truth, is_put });
        self.clients[client].push(Seen { context, truth });
        Ok(())
    }

    /// A client reads the copies of one or two nodes.
    fn get(&mut self, chance: &mut Chance) {
        let mut found = Piece::default();
        for _ in 0..chance.between(1, 2) {
            let node = &self.nodes[chance.below(NODES as u64) as usize];
            found.join(&node.rows[node.role as usize].piece);
        }
        let client = chance.below(CLIENTS as u64) as usize;
        let seen = Seen { context: found.state.context().clone(), truth: found.truth };
        self.clients[client].push(seen);
    }

    /// A delta arrives, perhaps again, or a whole copy does.
    fn replicate(&mut self, at: usize, chance: &mut Chance) {
        let piece = match chance.below(3) {
            0 => {
                let node = &self.nodes[chance.below(NODES as u64) as usize];
                node.rows[node.role as usize].piece.clone()
            }
            _ if self.flying.is_empty() => return,
            _ => chance.of(&self.flying),
        };
        self.nodes[at].keep(&piece);
    }

    /// A fallback gives its hint to an owner, and removes it when the owner has it fsynced.
    fn hand_off(&mut self, at: usize, chance: &mut Chance) {
        let hint = self.nodes[at].rows[Role::Fallback as usize].piece.clone();
        let owners: Vec<usize> =
            (0..NODES).filter(|node| self.nodes[*node].role == Role::Owner).collect();
        let owner = &mut self.nodes[chance.of(&owners)];
        owner.keep(&hint);
        owner.synced = owner.rows.clone();
        let node = &mut self.nodes[at];
        node.rows[Role::Fallback as usize] = Row::default();
        if chance.below(2) == 0 {
            node.synced[Role::Fallback as usize] = Row::default();
        }
    }

    /// A record and the note beside it are gone, and the node does not know what it was.
    fn forget(&mut self, at: usize, chance: &mut Chance) {
        let role = chance.of(&[Role::Owner, Role::Fallback]) as usize;
        if self.others_hold(self.nodes[at].synced[role].piece.truth, |node, row| {
            node == at && row == role
        }) {
            self.nodes[at].rows[role] = Row::default();
            self.nodes[at].synced[role] = Row::default();
        }
    }

    /// The whole disk is gone: the node goes on under a new incarnation.
    fn wipe(&mut self, at: usize) {
        let held = self.nodes[at].synced.iter().fold(0, |all, row| all | row.piece.truth);
        if self.others_hold(held, |node, _| node == at) {
            let Node { actor, role, .. } = self.nodes[at];
            let mut wiped = Node::new(actor.node, role);
            wiped.actor.incarnation = actor.incarnation + 1;
            self.nodes[at] = wiped;
        }
    }

    /// A partition moves from an owner to a fallback, and the fallback's part the other way. Records may stay for a while.
    fn swap_roles(&mut self, chance: &mut Chance) {
        let owners: Vec<usize> =
            (0..NODES).filter(|node| self.nodes[*node].role == Role::Owner).collect();
        let others: Vec<usize> =
            (0..NODES).filter(|node| self.nodes[*node].role == Role::Fallback).collect();
        let (leaving, joining) = (chance.of(&owners), chance.of(&others));
        let record = self.nodes[leaving].rows[Role::Owner as usize].piece.clone();
        self.nodes[joining].keep_as(Role::Owner, &record);
        self.nodes[joining].synced = self.nodes[joining].rows.clone();
        self.nodes[leaving].change_role(Role::Fallback);
        self.nodes[joining].change_role(Role::Owner);
    }

    /// Whether copies that a crash leaves hold all these writes, but for those that are said.
    fn others_hold(&self, writes: Writes, but_for: impl Fn(usize, usize) -> bool) -> bool {
        let mut held: Writes = 0;
        for (at, node) in self.nodes.iter().enumerate() {
            for (role, row) in node.synced.iter().enumerate() {
                if !but_for(at, role) {
                    held |= row.piece.truth;
                }
            }
        }
        writes & !held == 0
    }

    /// All copies together say what their writes say.
    fn check(&self) -> Result<(), String> {
        let mut all = Piece::default();
        for row in self.nodes.iter().flat_map(|node| &node.rows) {
            all.join(&row.piece);
        }
        let alive: Writes =
            all.state.values().fold(0, |alive, (_, value)| alive | 1 << u32::from(value[0]));
        let known = |number: usize| all.truth & 1 << number != 0;
        let gone: Writes = self
            .writes
            .iter()
            .enumerate()
            .filter(|(number, _)| known(*number))
            .fold(0, |gone, (_, write)| gone | write.seen);
        for (number, write) in self.writes.iter().enumerate().filter(|(number, _)| known(*number)) {
            let is_alive = alive & 1 << number != 0;
            let is_gone = gone & 1 << number != 0;
            if !all.state.context().contains(&write.dot) {
                return Err(format!("write {number} is held, and nobody knows its event"));
            }
            if write.is_put && !is_gone && !is_alive {
                return Err(format!("write {number} is lost"));
            }
            if is_gone && is_alive {
                return Err(format!("write {number} has come back"));
            }
        }
        Ok(())
    }
}

impl Piece {
    fn join(&mut self, other: &Piece) {
        self.state.join(other.state.clone());
        self.truth |= other.truth;
    }
}

impl Node {
    fn new(node: u32, role: Role) -> Self {
        Node {
            actor: Actor::new(node, 0),
            unclean_starts: 0,
            role_changes: 0,
            role,
            lease: Lease::resume(0),
            lease_end: 0,
            rows: Default::default(),
            synced: Default::default(),
        }
    }

    fn counter(&mut self) -> u64 {
        if self.lease.remaining() == 0 {
            self.lease_end = self.lease.next_end(BLOCK);
            self.lease.extend_to(self.lease_end);
        }
        self.lease.take().expect("the lease was extended")
    }

    fn event(&self, counter: u64) -> (Event, Note) {
        let role_changes = match canary::is_on(Canary::TrustOtherRole) {
            true => 0,
            false => self.role_changes,
        };
        let standing =
            Standing { actor: self.actor, unclean_starts: self.unclean_starts, role_changes };
        standing.event(self.rows[self.role as usize].note.as_ref(), counter)
    }

    fn keep(&mut self, piece: &Piece) {
        self.keep_as(self.role, piece);
    }

    fn keep_as(&mut self, role: Role, piece: &Piece) {
        self.rows[role as usize].piece.join(piece);
    }

    fn crash(&mut self) {
        self.rows = self.synced.clone();
        self.unclean_starts += 1;
        self.lease = Lease::resume(self.lease_end);
    }

    fn change_role(&mut self, role: Role) {
        self.role = role;
        self.role_changes += 1;
        if canary::is_on(Canary::ForgetLease) {
            (self.lease, self.lease_end) = (Lease::resume(0), 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No sequence loses a value, brings one back, or gives an event twice.
    #[test]
    fn nothing_is_lost() {
        let found = run_all(3000, None);
        assert!(found.broken.is_empty(), "{:?}", found.broken.first());
        assert!(found.steps > 20 * found.sequences);
    }

    /// Each rule that only a change of roles puts to the test is needed.
    #[test]
    fn bugs_of_moving_partitions_are_caught() {
        for canary in [Canary::TrustOtherRole, Canary::ForgetLease] {
            assert!(!run_all(3000, Some(canary)).broken.is_empty(), "{canary:?}");
        }
    }
}
