//! Which partitions each node holds, so that all quotas are met exactly.
//!
//! From the previous owners, in this order:
//!
//! 1. **Keep** who is still a member and whom the zones allow.
//! 2. **Fill** vacant places with nodes below their quota.
//! 3. **Relieve** nodes above their quota: a node below its own takes the place of one above.
//! 4. **Repair** what is left. Sometimes the only node below its quota cannot take the place in
//!    question, because it owns the partition already or its zone is full. Then another node takes
//!    the place and gives one of its own to a third, and so on, until the chain ends at a node
//!    below its quota:
//!
//! ```text
//!    n1 (one too many) ──partition 7──▶ n4 ──partition 2──▶ n6 (one too few)
//! ```
//!
//! This is the cheapest augmenting path of minimum-cost flow, over the network partition → zone →
//! node, where taking a kept owner's place costs one move and undoing such a move gives it back.
//! While no cycle of moves would be cheaper than none, and there is none at the start, the cheapest
//! of the chains keeps it so: what comes out moves **the least possible** for these quotas (Ahuja,
//! Magnanti and Orlin, "Network Flows", section 9.7). The shortest of the cheapest chains never
//! disturbs itself: if two of its links met in one partition and zone, going from the first one's
//! giver straight to the second one's taker would be as cheap and shorter. And as an exact
//! assignment exists, so does a chain. The direct ways of steps 2 and 3 are such chains of one
//! link, only found faster.
//!
//! The one place where more may move than must is step 1, when the zones themselves have changed so
//! much that owners must be dropped: whom we drop is chosen by eye, not by search (measured: up to
//! 15 % more).

use std::collections::{BTreeSet, VecDeque};

use super::Task;

/// Owners under way to their quotas. No partition ever holds more than its zones allow.
pub(super) struct Assignment<'a> {
    task: &'a Task,
    quotas: &'a [usize],
    /// Per partition, in no order.
    owners: Vec<Vec<usize>>,
    /// Per partition, the owners from before whom we kept. To have them costs nothing, all others
    /// must be moved there.
    kept: Vec<Vec<usize>>,
    /// In a fresh placement nothing is kept, and chains differ by their length alone.
    all_moves_are_equal: bool,
    /// Per node, its partitions.
    held: Vec<BTreeSet<usize>>,
    /// Per node, how often it stands first, as far as that is known before the places are given.
    firsts: Vec<usize>,
}

impl<'a> Assignment<'a> {
    /// Step 1: begins with whom we can keep.
    pub fn new(task: &'a Task, quotas: &'a [usize]) -> Assignment<'a> {
        let nodes = task.nodes().len();
        let owners = task.before.iter().map(|places| places.iter().flatten().copied().collect());
        let mut assignment = Assignment {
            task,
            quotas,
            owners: owners.collect(),
            kept: Vec::new(),
            all_moves_are_equal: task.before.iter().flatten().all(Option::is_none),
            held: vec![BTreeSet::new(); nodes],
            firsts: vec![0; nodes],
        };
        for (partition, owners) in assignment.owners.iter().enumerate() {
            for owner in owners {
                assignment.held[*owner].insert(partition);
            }
        }
        for partition in 0..task.count() {
            if let Some(first) = assignment.staying_first(partition) {
                assignment.firsts[first] += 1;
            }
        }
        for partition in 0..task.count() {
            assignment.thin_out(partition);
        }
        assignment.kept.clone_from(&assignment.owners);
        assignment
    }

    /// Steps 2 to 4.
    pub fn complete(mut self) -> Vec<Vec<usize>> {
        self.fill();
        for node in self.task.nodes() {
            self.relieve_others_by(node);
        }
        self.repair();
        for node in self.task.nodes() {
            assert_eq!(self.held[node].len(), self.quotas[node], "the chains met every quota");
        }
        for owners in &self.owners {
            assert_eq!(owners.len(), self.task.replicas, "the chains filled every place");
            let crowded = self.task.spread.crowded(owners.iter().copied());
            assert!(!crowded.contains(&true), "no chain broke the rule of zones");
        }
        self.owners
    }

    /// Drops owners while a zone holds too many: the one farthest above its quota, of equals the
    /// last one. A first owner that is not first too often is dropped only if it is much farther
    /// above.
    fn thin_out(&mut self, partition: usize) {
        let first = self.staying_first(partition);
        let patience = (self.task.count() / self.task.nodes().len() / FIRST_IS_WORTH).cast_signed();
        loop {
            let owners = &self.owners[partition];
            let crowded = self.task.spread.crowded(owners.iter().copied());
            let spare = |owner: usize| first == Some(owner) && !self.is_first_above_share(owner);
            let dropped = owners
                .iter()
                .copied()
                .filter(|owner| crowded[self.task.spread.zone(*owner)])
                .max_by_key(|owner| self.excess(*owner) - if spare(*owner) { patience } else { 0 });
            match dropped {
                Some(owner) => self.remove(partition, owner),
                None => break,
            }
        }
        if let Some(first) = first.filter(|_| self.staying_first(partition).is_none()) {
            self.firsts[first] -= 1;
        }
    }

    /// Gives every vacant place to a node below its quota, where one fits: the nearest on the ring,
    /// or for the first place the one that is first too seldom.
    fn fill(&mut self) {
        for partition in 0..self.task.count() {
            if self.vacant(partition) == 0 {
                continue;
            }
            let nearest: Vec<usize> = self.task.ring_order(partition).collect();
            if self.loses_first(partition) {
                let takers = nearest.iter().copied().filter(|node| self.may_take(partition, *node));
                if let Some(node) = takers.min_by(|&a, &b| self.cmp_firsts(a, b)) {
                    self.add(partition, node);
                    self.firsts[node] += 1;
                }
            }
            for node in nearest {
                if self.vacant(partition) > 0 && self.may_take(partition, node) {
                    self.add(partition, node);
                }
            }
        }
    }

    /// Lets a node below its quota take places from nodes above theirs, near partitions first:
    /// first places as long as that evens out who is first, then other places, then any.
    fn relieve_others_by(&mut self, taker: usize) {
        if self.excess(taker) >= 0 {
            return;
        }
        let distance = |partition| self.task.ring_order(partition).position(|node| node == taker);
        let mut near: Vec<usize> = (0..self.task.count()).collect();
        near.sort_by_cached_key(|partition| distance(*partition));
        for wish in [Wish::First, Wish::NotFirst, Wish::Any] {
            for &partition in &near {
                if self.excess(taker) >= 0 {
                    return;
                }
                if let Some(giver) = self.giver(partition, taker, wish) {
                    if self.staying_first(partition) == Some(giver) {
                        self.firsts[giver] -= 1;
                        self.firsts[taker] += 1;
                    }
                    self.remove(partition, giver);
                    self.add(partition, taker);
                }
            }
        }
    }

    /// Whose place in this partition the taker may have.
    fn giver(&self, partition: usize, taker: usize, wish: Wish) -> Option<usize> {
        let owners = &self.owners[partition];
        if owners.contains(&taker) {
            return None;
        }
        let first = self.staying_first(partition);
        let suits = |giver: usize| match wish {
            Wish::First => first == Some(giver) && self.is_first_too_often(giver, taker),
            Wish::NotFirst => first != Some(giver),
            Wish::Any => true,
        };
        let fits = |giver: usize| {
            let others = owners.iter().copied().filter(|owner| *owner != giver);
            self.task.spread.room(others)[self.task.spread.zone(taker)]
        };
        owners
            .iter()
            .copied()
            .filter(|giver| self.excess(*giver) > 0 && suits(*giver) && fits(*giver))
            .max_by_key(|giver| self.excess(*giver))
    }

    /// Ends what the direct ways could not: chains from every vacant place and from every node
    /// above its quota.
    fn repair(&mut self) {
        for partition in 0..self.task.count() {
            while self.vacant(partition) > 0 {
                self.pass_on(Origin::Vacancy { partition });
            }
        }
        for node in self.task.nodes() {
            while self.excess(node) > 0 {
                self.pass_on(Origin::Surplus { node });
            }
        }
    }

    /// Finds the cheapest chain from the origin to a node below its quota, of equals the shortest,
    /// and makes its moves.
    fn pass_on(&mut self, origin: Origin) {
        let mut search =
            Search { best: vec![None; self.task.nodes().len()], queue: VecDeque::new() };
        match origin {
            Origin::Vacancy { partition } => {
                let start = Chain { moves: 0, links: 0, last: None };
                self.offer(&mut search, start, Link { partition, giver: None });
            }
            Origin::Surplus { node } => {
                search.best[node] = Some(Chain { moves: 0, links: 0, last: None });
                search.queue.push_back(node);
            }
        }
        // Bellman and Ford's search, because undoing an earlier move has a negative price.
        while let Some(giver) = search.queue.pop_front() {
            let chain = search.best[giver].expect("only reached nodes are in the queue");
            for &partition in &self.held[giver] {
                self.offer(&mut search, chain, Link { partition, giver: Some(giver) });
            }
            if self.all_moves_are_equal && self.nearest_end(&search).is_some() {
                break; // found breadth first, so no chain is shorter
            }
        }
        let mut taker = self.nearest_end(&search);
        assert!(taker.is_some(), "an exact assignment exists, so a chain to it does");
        while let Some(node) = taker {
            let Some(Link { partition, giver }) = search.best[node].and_then(|chain| chain.last)
            else {
                break;
            };
            if let Some(giver) = giver {
                self.remove(partition, giver);
            }
            self.add(partition, node);
            taker = giver;
        }
    }

    /// The node below its quota with the best chain.
    fn nearest_end(&self, search: &Search) -> Option<usize> {
        let ends = self.task.nodes().filter(|node| self.excess(*node) < 0);
        ends.filter_map(|node| search.best[node].map(|chain| (chain.moves, chain.links, node)))
            .min()
            .map(|(_, _, node)| node)
    }

    /// Makes the chain one link longer, to every node that may take the place and has no better
    /// chain yet.
    fn offer(&self, search: &mut Search, chain: Chain, link: Link) {
        let owners = &self.owners[link.partition];
        let kept = &self.kept[link.partition];
        let others = owners.iter().copied().filter(|owner| Some(*owner) != link.giver);
        let room = self.task.spread.room(others);
        let undone = link.giver.is_some_and(|giver| !kept.contains(&giver));
        for node in self.task.nodes() {
            if owners.contains(&node) || !room[self.task.spread.zone(node)] {
                continue;
            }
            let moves = chain.moves + i32::from(!kept.contains(&node)) - i32::from(undone);
            let links = chain.links + 1;
            assert!(
                links <= self.task.nodes().len(),
                "without a cycle of negative cost no chain is longer"
            );
            if search.best[node].is_none_or(|best| (moves, links) < (best.moves, best.links)) {
                search.best[node] = Some(Chain { moves, links, last: Some(link) });
                search.queue.push_back(node);
            }
        }
    }

    fn add(&mut self, partition: usize, node: usize) {
        self.owners[partition].push(node);
        self.held[node].insert(partition);
    }

    fn remove(&mut self, partition: usize, node: usize) {
        self.owners[partition].retain(|owner| *owner != node);
        self.held[node].remove(&partition);
    }

    /// How many replicas a node holds above its quota; negative below.
    fn excess(&self, node: usize) -> isize {
        self.held[node].len().cast_signed() - self.quotas[node].cast_signed()
    }

    fn vacant(&self, partition: usize) -> usize {
        self.task.replicas - self.owners[partition].len()
    }

    /// Whether a node below its quota may take a vacant place.
    fn may_take(&self, partition: usize, node: usize) -> bool {
        let owners = &self.owners[partition];
        self.excess(node) < 0
            && !owners.contains(&node)
            && self.task.spread.room(owners.iter().copied())[self.task.spread.zone(node)]
    }

    /// Who was first in this partition and still is.
    fn staying_first(&self, partition: usize) -> Option<usize> {
        let first = self.task.before[partition].first().copied().flatten();
        first.filter(|node| self.owners[partition].contains(node))
    }

    /// Whether others stay in this partition and its first owner does not.
    fn loses_first(&self, partition: usize) -> bool {
        self.staying_first(partition).is_none() && !self.owners[partition].is_empty()
    }

    /// Whether a node is first more often than its weight makes fair.
    fn is_first_above_share(&self, node: usize) -> bool {
        let weights: u64 = self.task.nodes().map(|node| self.task.weight(node)).sum();
        self.firsts[node] as u64 * weights > self.task.count() as u64 * self.task.weight(node)
    }

    fn cmp_firsts(&self, a: usize, b: usize) -> std::cmp::Ordering {
        let key = |node: usize, other: usize| {
            (2 * self.firsts[node] as u64 + 1) * self.task.weight(other)
        };
        key(a, b).cmp(&key(b, a))
    }

    /// Whether it evens out who is first if the giver is first once less and the taker once more.
    fn is_first_too_often(&self, giver: usize, taker: usize) -> bool {
        let before = (2 * self.firsts[giver] as u64).saturating_sub(1) * self.task.weight(taker);
        let after = (2 * self.firsts[taker] as u64 + 1) * self.task.weight(giver);
        after < before
    }
}

/// How much farther above its quota a first owner must be than another to be dropped before it, as
/// a part of the times a node is first on average. When a second zone joins a cluster of one, 0
/// lets the new node be first 4 times as often as its share.
const FIRST_IS_WORTH: usize = 4;

/// Which places a node would like to take over.
#[derive(Clone, Copy)]
enum Wish {
    First,
    NotFirst,
    Any,
}

/// Where a chain begins.
#[derive(Clone, Copy)]
enum Origin {
    /// A place without an owner.
    Vacancy { partition: usize },
    /// A node above its quota.
    Surplus { node: usize },
}

/// One step of a chain: a place in this partition, and who gives it up. A vacant place has no
/// giver.
#[derive(Clone, Copy)]
struct Link {
    partition: usize,
    giver: Option<usize>,
}

/// The best chain so far from the origin to some node.
#[derive(Clone, Copy)]
struct Chain {
    /// Replicas it moves, less those whose move it undoes.
    moves: i32,
    links: usize,
    /// Its last link. None at the origin.
    last: Option<Link>,
}

/// What a search for a chain has reached.
struct Search {
    /// Per node.
    best: Vec<Option<Chain>>,
    /// Nodes whose best chain has changed since it was last made longer.
    queue: VecDeque<usize>,
}
