//! Everything that can happen to one write and one later read while a partition moves.
//!
//! The steps are those of the protocol; in which order they happen, who hears what and who stays
//! silent is all tried. Nodes learn of views as late as the protocol lets them: a node that knows
//! less accepts more, so whatever a better informed node could do wrong, this one can too. For the
//! same reason an owner acknowledges a view in the very moment before it is copied from.

use std::collections::BTreeSet;

use super::path::{Cause, Count, Nodes, Path};

/// The rules of the protocol; each may be broken to see what it is for.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// A node refuses requests planned before the last change of the partition that it knows of.
    pub fence: bool,
    /// Who has acknowledged `joint` before anything is copied.
    pub barrier: Barrier,
    /// How answers to reads are counted in `joint`.
    pub reads: Count,
    /// How acks are counted in `joint`.
    pub writes: Count,
    /// A copy counts only in the move that it was made for.
    pub sessions: bool,
    /// Whose copies take the place of a dead owner's.
    pub after_death: AfterDeath,
    /// Those who are declared dead are.
    pub dead_are_dead: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Barrier {
    /// The owner that leaves.
    Leaver,
    /// Wrong: any majority of the old owners.
    Majority,
    /// Wrong: nobody.
    Nobody,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterDeath {
    /// Those of every other old owner.
    AllOthers,
    /// Wrong: that of any other old owner.
    AnyOther,
}

pub const RIGHT: Rules = Rules {
    fence: true,
    barrier: Barrier::Leaver,
    reads: Count::Both,
    writes: Count::Both,
    sessions: true,
    after_death: AfterDeath::AllOthers,
    dead_are_dead: true,
};

/// What a request asks for: n, r and w of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quorums {
    pub n: u8,
    pub r: u8,
    pub w: u8,
}

impl Quorums {
    /// All with r + w > n, for partitions with so many owners.
    pub fn all(replicas: u8) -> impl Iterator<Item = Quorums> {
        (1..=replicas).flat_map(|n| {
            (1..=n).flat_map(move |w| (n - w + 1..=n).map(move |r| Quorums { n, r, w }))
        })
    }

    /// Those with the smallest r for their w. A read that misses a write with more answers has
    /// missed it with fewer, so these find whatever the others find.
    pub fn tight(replicas: u8) -> impl Iterator<Item = Quorums> {
        Quorums::all(replicas).filter(|quorums| quorums.r + quorums.w == quorums.n + 1)
    }
}

/// One thing that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The next view is committed.
    Next(Cause),
    /// A node acknowledges the present view.
    Ack(usize),
    /// What the first node holds has reached the second one, for the seat that changes hands.
    Copy(usize, usize),
    /// A coordinator that knows this view begins the write.
    Write(usize),
    /// A node stores it.
    Store(usize),
    /// A coordinator that knows this view begins a read, after the write was acked.
    Read(usize),
    /// A node answers that it has nothing.
    Nothing(usize),
}

/// Where the write and the read are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Before,
    /// Planned with this view; acked by these.
    Writing(u8, Nodes),
    Acked,
    /// Planned with this view; these had nothing.
    Reading(u8, Nodes),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct State {
    view: u8,
    phase: Phase,
    /// Who holds the write on disk.
    holds: Nodes,
    dead: Nodes,
    /// Per node, the view it knows at least.
    knows: [u8; 8],
    /// Per seat that changes hands, whose copies have arrived.
    copied: [Nodes; 4],
}

/// A read that missed a write acked before it, and how it came to that.
pub type Violation = Vec<Step>;

pub struct World<'a> {
    path: &'a Path,
    rules: Rules,
    /// Per view: whom a write asks, and which acks win.
    writes: Vec<(Nodes, Vec<bool>)>,
    reads: Vec<(Nodes, Vec<bool>)>,
    last_changed: Vec<u8>,
    seats: Vec<Vec<(usize, usize)>>,
    old: Vec<Vec<usize>>,
    seen: BTreeSet<State>,
    steps: Vec<Step>,
}

impl<'a> World<'a> {
    /// Tries everything. How many states there are, or how a read misses the write.
    pub fn explore(path: &'a Path, rules: Rules, quorums: Quorums) -> Result<usize, Violation> {
        let Quorums { n, r, w } = quorums;
        let views = || 0..path.views.len();
        let mut world = World {
            path,
            rules,
            writes: views().map(|view| path.wins(view, n, w, rules.writes)).collect(),
            reads: views().map(|view| path.wins(view, n, r, rules.reads)).collect(),
            last_changed: views().map(|view| path.last_changed(view) as u8).collect(),
            seats: views().map(|view| path.seats(view)).collect(),
            old: views().map(|view| path.old(view)).collect(),
            seen: BTreeSet::new(),
            steps: Vec::new(),
        };
        let state = State {
            view: 0,
            phase: Phase::Before,
            holds: 0,
            dead: 0,
            knows: [0; 8],
            copied: [0; 4],
        };
        if world.visit(state) { Ok(world.seen.len()) } else { Err(world.steps) }
    }

    /// Whether all is well from here on. If not, the steps lead to what is wrong.
    fn visit(&mut self, state: State) -> bool {
        if !self.seen.insert(state) {
            return true;
        }
        let mut next = Vec::new();
        self.membership(state, &mut next);
        self.copies(state, &mut next);
        let is_well = self.requests(state, &mut next);
        if let Err(step) = is_well {
            self.steps.push(step);
            return false;
        }
        for (step, state) in next {
            self.steps.push(step);
            if !self.visit(state) {
                return false;
            }
            self.steps.pop();
        }
        true
    }

    /// The next view, if what it needs is there.
    fn membership(&self, state: State, next: &mut Vec<(Step, State)>) {
        let view = usize::from(state.view);
        let Some(cause) = self.path.causes.get(view).copied() else { return };
        let mut after = State { view: state.view + 1, ..state };
        match cause {
            Cause::Begin if self.rules.sessions => after.copied = [0; 4],
            Cause::Begin | Cause::Cancel => {}
            Cause::Finish => {
                if !(0..self.seats[view].len()).all(|seat| self.is_done(state, seat)) {
                    return;
                }
                after.copied = [0; 4];
            }
            Cause::Death(node) => {
                after.dead |= 1 << node;
                if self.rules.dead_are_dead {
                    after.holds &= !(1 << node);
                }
                let is_acked = matches!(state.phase, Phase::Acked | Phase::Reading(..));
                if is_acked && !self.is_within_reach(after) {
                    return;
                }
            }
        }
        next.push((Step::Next(cause), after));
    }

    /// Whether an owner that stays has the write, or will have it copied. If not, then the one disk
    /// that was promised to have it (of w = 1) is gone; the write is gone, too, or on the disk of an
    /// owner that left, which hands each key to a new owner before it deletes it. Until then reads
    /// may miss it.
    fn is_within_reach(&self, state: State) -> bool {
        let view = usize::from(state.view);
        let will_copy = |seat: usize| {
            let is_missing = |node: &usize| state.copied[seat] >> node & 1 == 0;
            let mut sources = self.sources(state, seat).into_iter().filter(is_missing);
            !self.is_done(state, seat) && sources.any(|node| state.holds >> node & 1 == 1)
        };
        let stay = self.path.settled(view).into_iter().any(|node| state.holds >> node & 1 == 1);
        stay || (0..self.seats[view].len()).any(will_copy)
    }

    /// Whose copies the seat needs.
    fn sources(&self, state: State, seat: usize) -> Vec<usize> {
        let view = usize::from(state.view);
        let (leaves, _) = self.seats[view][seat];
        let is_dead = |node: usize| state.dead >> node & 1 == 1;
        let others = || self.old[view].iter().copied().filter(|node| !is_dead(*node));
        if is_dead(leaves) { others().collect() } else { vec![leaves] }
    }

    fn is_done(&self, state: State, seat: usize) -> bool {
        let (leaves, _) = self.seats[usize::from(state.view)][seat];
        let copied = state.copied[seat];
        let sources = self.sources(state, seat);
        let has = |node: &usize| copied >> node & 1 == 1;
        has(&leaves)
            || match self.rules.after_death {
                AfterDeath::AnyOther if state.dead >> leaves & 1 == 1 => sources.iter().any(has),
                AfterDeath::AllOthers | AfterDeath::AnyOther => sources.iter().all(has),
            }
    }

    /// Copies that can arrive, each after its source has acknowledged the view.
    fn copies(&self, state: State, next: &mut Vec<(Step, State)>) {
        let view = usize::from(state.view);
        if !self.path.is_joint(view) {
            return;
        }
        let knows = |node: usize| state.knows[node] >= self.last_changed[view];
        if self.rules.barrier == Barrier::Majority {
            for &node in &self.old[view] {
                if !knows(node) {
                    let mut after = state;
                    after.knows[node] = state.view;
                    next.push((Step::Ack(node), after));
                }
            }
        }
        let majority = self.old[view].iter().filter(|node| knows(**node)).count() * 2;
        for (seat, &(_, joins)) in self.seats[view].iter().enumerate() {
            for source in self.sources(state, seat) {
                if state.copied[seat] >> source & 1 == 1 {
                    continue;
                }
                let mut after = state;
                match self.rules.barrier {
                    Barrier::Leaver => after.knows[source] = state.view,
                    Barrier::Majority if majority <= self.old[view].len() => continue,
                    Barrier::Majority | Barrier::Nobody => {}
                }
                after.copied[seat] |= 1 << source;
                after.holds |= (state.holds >> source & 1) << joins;
                next.push((Step::Copy(source, joins), after));
            }
        }
    }

    /// What coordinators and owners do. An error is the last step of a read that missed the write.
    fn requests(&self, state: State, next: &mut Vec<(Step, State)>) -> Result<(), Step> {
        match state.phase {
            Phase::Before => {
                for view in 0..=state.view {
                    let phase = Phase::Writing(view, 0);
                    next.push((Step::Write(view.into()), State { phase, ..state }));
                }
            }
            Phase::Writing(view, acks) => {
                let (asked, wins) = &self.writes[usize::from(view)];
                for node in self.accepting(state, view, asked & !acks) {
                    let acks = acks | 1 << node;
                    let is_won = wins[usize::from(acks)];
                    let phase = if is_won { Phase::Acked } else { Phase::Writing(view, acks) };
                    let after = State { phase, holds: state.holds | 1 << node, ..state };
                    if !is_won || state.dead == 0 || self.is_within_reach(after) {
                        next.push((Step::Store(node), after));
                    }
                }
            }
            Phase::Acked => {
                for view in 0..=state.view {
                    let phase = Phase::Reading(view, 0);
                    next.push((Step::Read(view.into()), State { phase, ..state }));
                }
            }
            Phase::Reading(view, answers) => {
                let (asked, wins) = &self.reads[usize::from(view)];
                for node in self.accepting(state, view, asked & !answers & !state.holds) {
                    let answers = answers | 1 << node;
                    if wins[usize::from(answers)] {
                        return Err(Step::Nothing(node));
                    }
                    let phase = Phase::Reading(view, answers);
                    next.push((Step::Nothing(node), State { phase, ..state }));
                }
            }
        }
        Ok(())
    }

    /// Those of the nodes that take a request planned with this view.
    fn accepting(&self, state: State, view: u8, nodes: Nodes) -> impl Iterator<Item = usize> + '_ {
        (0..self.path.nodes()).filter(move |node| {
            let fence = self.last_changed[usize::from(state.knows[*node])];
            let lives = !self.rules.dead_are_dead || state.dead >> node & 1 == 0;
            nodes >> node & 1 == 1 && lives && (!self.rules.fence || view >= fence)
        })
    }
}
