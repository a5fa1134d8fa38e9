//! Which partitions each node holds, so that all quotas are met exactly.
//!
//! From the previous owners, in this order:
//!
//! 1. **Keep** who is still a member and whom the zones allow. If the zones have changed, owners
//!    must be dropped; whom, is a first guess.
//! 2. **Take back** dropped owners where that leads to a node below its quota. This mends the guess.
//! 3. **Fill** vacant places with nodes below their quota.
//! 4. **Relieve** nodes above their quota: a node below its own takes the place of one above.
//! 5. **Repair** what is left. Sometimes the only node below its quota cannot take the place in
//!    question, because it owns the partition already or its zone is full. Then another node takes
//!    the place and gives one of its own to a third, and so on, until the chain ends at a node
//!    below its quota:
//!
//! ```text
//!    n1 (one too many) ──partition 7──▶ n4 ──partition 2──▶ n6 (one too few)
//! ```
//!
//! This is minimum-cost flow by successive cheapest paths, over the network partition → zone →
//! node. A place costs one move, or nothing where the node held it before, so giving up a place that
//! was moved already wins one back. At the start no move is made, and as no step can win one back
//! then, no other way to the same holdings is cheaper. Each cheapest chain keeps it so, and what
//! comes out moves **the least possible** for these quotas and zones (Ahuja, Magnanti and Orlin,
//! "Network Flows", section 9.7). The direct ways of steps 3 and 4 are such chains of one link, only
//! found faster: after step 2 no chain costs less than one move. The shortest of the cheapest chains
//! never disturbs itself: if two of its links met in one partition and zone, going from the first
//! one's giver straight to the second one's taker would be as cheap and shorter. And as an exact
//! assignment exists, so does a chain.
//!
//! The least possible is not always what the quotas alone would need, `sum(max(0, quota - held))`.
//! Where zones are tight, one or two more of them than replicas or fewer, a place that falls vacant
//! must often be taken in a certain zone although the nodes of another one are to gain, and then
//! places are passed on between zones. `tests/placement/scale.rs` shows how many.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use super::Task;

/// Owners under way to their quotas. No partition ever holds more than its zones allow.
pub(super) struct Assignment<'a> {
    task: &'a Task,
    quotas: &'a [usize],
    /// Per partition, in no order.
    owners: Vec<Vec<usize>>,
    /// Per partition, the owners from before who are members still, also those we dropped. To have
    /// them costs nothing, all others must be moved there.
    kept: Vec<Vec<usize>>,
    /// Per node, the least any chain pays to come to it, as far as the searches know. It makes all
    /// steps of later searches free or costly, never negative (Johnson's potentials).
    price: Vec<i32>,
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
            price: vec![0; nodes],
            held: vec![BTreeSet::new(); nodes],
            firsts: vec![0; nodes],
        };
        for (partition, owners) in assignment.owners.iter().enumerate() {
            for owner in owners {
                assignment.held[*owner].insert(partition);
            }
        }
        assignment.count_firsts();
        assignment.kept.clone_from(&assignment.owners);
        for partition in 0..task.count() {
            assignment.thin_out(partition);
        }
        assignment
    }

    /// Steps 2 to 5.
    pub fn complete(mut self) -> Vec<Vec<usize>> {
        self.take_back();
        self.count_firsts();
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
            let mut zones = owners.iter().map(|owner| self.task.spread.zone(*owner));
            assert!(!zones.any(crowded), "no chain broke the rule of zones");
        }
        self.owners
    }

    /// Drops owners while a zone holds too many.
    fn thin_out(&mut self, partition: usize) {
        let first = self.staying_first(partition);
        while let Some(owner) = self.most_dispensable(partition, first) {
            self.remove(partition, owner);
        }
        if let Some(first) = first.filter(|_| self.staying_first(partition).is_none()) {
            self.firsts[first] -= 1;
        }
    }

    /// Whom to drop from the crowded zones: the one farthest above its quota, of equals the last
    /// one. A first owner that is not first too often is dropped only if it is much farther above.
    fn most_dispensable(&self, partition: usize, first: Option<usize>) -> Option<usize> {
        let patience = (self.task.count() / self.task.nodes().len() / FIRST_IS_WORTH).cast_signed();
        let owners = &self.owners[partition];
        let crowded = self.task.spread.crowded(owners.iter().copied());
        let spare = |owner: usize| first == Some(owner) && !self.is_first_above_share(owner);
        owners
            .iter()
            .copied()
            .filter(|owner| crowded(self.task.spread.zone(*owner)))
            .max_by_key(|owner| self.excess(*owner) - if spare(*owner) { patience } else { 0 })
    }

    /// Gives every vacant place to a node below its quota, where one fits: the nearest on the ring,
    /// or for the first place the one that is first too seldom.
    fn fill(&mut self) {
        let task = self.task;
        let mut below: Vec<usize> = task.nodes().filter(|node| self.excess(*node) < 0).collect();
        for partition in 0..task.count() {
            if self.vacant(partition) == 0 {
                continue;
            }
            if self.loses_first(partition) {
                let takers = below.iter().copied().filter(|node| self.may_take(partition, *node));
                let distance = |node: usize| task.distance(partition, node);
                let nearest = |a: usize, b: usize| distance(a).cmp(&distance(b));
                let seldom = |a: &usize, b: &usize| self.cmp_firsts(*a, *b).then(nearest(*a, *b));
                if let Some(node) = takers.min_by(seldom) {
                    self.add(partition, node);
                    self.firsts[node] += 1;
                }
            }
            // The same order either way. A walk soon meets one of many, and seldom one of few.
            let nearest: Box<dyn Iterator<Item = usize>> = if below.len() > task.nodes().len() / 16
            {
                Box::new(task.ring_order(partition))
            } else {
                let mut near = below.clone();
                near.sort_by_cached_key(|node| task.distance(partition, *node));
                Box::new(near.into_iter())
            };
            for node in nearest {
                if self.vacant(partition) == 0 {
                    break;
                }
                if self.may_take(partition, node) {
                    self.add(partition, node);
                }
            }
            below.retain(|node| self.excess(*node) < 0);
        }
    }

    /// Lets a node below its quota take places from nodes above theirs, near partitions first:
    /// first places as long as that evens out who is first, then other places, then any.
    fn relieve_others_by(&mut self, taker: usize) {
        if self.excess(taker) >= 0 {
            return;
        }
        let task = self.task;
        for wish in [Wish::First, Wish::NotFirst, Wish::Any] {
            if wish == Wish::First && !self.somebody_is_first_too_often(taker) {
                continue;
            }
            for partition in task.nearest(taker) {
                if let Some(giver) = self.giver(partition, taker, wish) {
                    if self.staying_first(partition) == Some(giver) {
                        self.firsts[giver] -= 1;
                        self.firsts[taker] += 1;
                    }
                    self.remove(partition, giver);
                    self.add(partition, taker);
                    if self.excess(taker) >= 0 {
                        return;
                    }
                    if wish == Wish::First && !self.somebody_is_first_too_often(taker) {
                        break;
                    }
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
            self.task.spread.room(others)(self.task.spread.zone(taker))
        };
        owners
            .iter()
            .copied()
            .filter(|giver| self.excess(*giver) > 0 && suits(*giver) && fits(*giver))
            .max_by_key(|giver| self.excess(*giver))
    }

    /// Takes dropped owners back, as long as chains of such ones lead to a node below its quota.
    /// Afterwards every way from a vacancy or a surplus to such a node costs one move at least.
    fn take_back(&mut self) {
        let mut exhausted = vec![false; self.task.nodes().len()];
        for origin in self.origins() {
            while self.is_open(origin) {
                let search = Search::new(self, 0, exhausted);
                let (search, end) = self.search(search, origin);
                exhausted = search.exhausted;
                match end {
                    Some(end) => self.make_moves(&search.best, end),
                    None => {
                        for (node, chain) in search.best.iter().enumerate() {
                            exhausted[node] |= chain.is_some();
                        }
                        break;
                    }
                }
            }
        }
        self.price = exhausted.iter().map(|exhausted| i32::from(!exhausted)).collect();
    }

    /// Ends what the direct ways could not: chains from every vacant place and from every node
    /// above its quota.
    fn repair(&mut self) {
        for origin in self.origins() {
            while self.is_open(origin) {
                let nobody = vec![false; self.task.nodes().len()];
                let search = Search::new(self, i32::MAX, nobody);
                let (search, end) = self.search(search, origin);
                let end = end.expect("an exact assignment exists, so a chain to it does");
                self.make_moves(&search.best, end);
                let farthest = search.reduced(end).expect("the chain reached its end");
                for (node, price) in self.price.iter_mut().enumerate() {
                    *price += search.reduced(node).map_or(farthest, |cost| cost.min(farthest));
                }
            }
        }
    }

    fn origins(&self) -> Vec<Origin> {
        let vacancies = (0..self.task.count()).map(|partition| Origin::Vacancy { partition });
        let surpluses = self.task.nodes().map(|node| Origin::Surplus { node });
        vacancies.chain(surpluses).filter(|origin| self.is_open(*origin)).collect()
    }

    fn is_open(&self, origin: Origin) -> bool {
        match origin {
            Origin::Vacancy { partition } => self.vacant(partition) > 0,
            Origin::Surplus { node } => self.excess(node) > 0,
        }
    }

    /// Finds the cheapest chain from the origin to a node below its quota, of equals the shortest.
    fn search(&self, mut search: Search, origin: Origin) -> (Search, Option<usize>) {
        match origin {
            Origin::Vacancy { partition } => {
                let start = Chain { moves: 0, links: 0, last: None };
                self.offer(&mut search, start, Link { partition, giver: None });
            }
            Origin::Surplus { node } => {
                search.reach(node, Chain { moves: 0, links: 0, last: None });
            }
        }
        while let Some((node, chain)) = search.nearest() {
            if self.excess(node) < 0 {
                return (search, Some(node));
            }
            for &partition in &self.held[node] {
                self.offer(&mut search, chain, Link { partition, giver: Some(node) });
            }
        }
        (search, None)
    }

    /// Makes the chain one link longer, to every node that may take the place.
    fn offer(&self, search: &mut Search, chain: Chain, link: Link) {
        let spread = &self.task.spread;
        let owners = &self.owners[link.partition];
        let kept = &self.kept[link.partition];
        let room = spread.room(owners.iter().copied().filter(|owner| Some(*owner) != link.giver));
        let undone = link.giver.is_some_and(|giver| !kept.contains(&giver));
        let links = chain.links + 1;
        assert!(links <= self.task.nodes().len(), "a shortest chain passes each node once");
        let longer = |moves: i32| Chain { moves, links, last: Some(link) };
        let taken_back = longer(chain.moves - i32::from(undone));
        for &node in kept {
            if !owners.contains(&node) && room(spread.zone(node)) {
                search.reach(node, taken_back);
            }
        }
        let moved = longer(taken_back.moves + 1);
        if moved.moves > search.moves_max {
            return;
        }
        for zone in 0..spread.zones() {
            if !search.is_news(zone, moved) || !room(zone) {
                continue;
            }
            let cover = &mut search.covers[zone];
            let is_covered = cover.best.is_some_and(|best| best <= moved.cost());
            let candidates =
                if is_covered { cover.left_out.as_slice() } else { spread.nodes(zone) };
            let (left_out, takers): (Vec<usize>, Vec<usize>) =
                candidates.iter().partition(|node| owners.contains(node));
            if !is_covered {
                *cover = Cover { best: Some(moved.cost()), left_out };
            }
            for node in takers {
                search.reach(node, moved);
            }
        }
    }

    /// Makes the moves of the chain that ends at this node.
    fn make_moves(&mut self, best: &[Option<Chain>], end: usize) {
        let mut taker = Some(end);
        while let Some(node) = taker {
            let Some(Link { partition, giver }) = best[node].and_then(|chain| chain.last) else {
                break;
            };
            if let Some(giver) = giver {
                self.remove(partition, giver);
            }
            self.add(partition, node);
            taker = giver;
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
            && self.task.spread.room(owners.iter().copied())(self.task.spread.zone(node))
    }

    /// Who was first in this partition and still is.
    fn staying_first(&self, partition: usize) -> Option<usize> {
        let first = self.task.before[partition].first().copied().flatten();
        first.filter(|node| self.owners[partition].contains(node))
    }

    fn count_firsts(&mut self) {
        self.firsts.fill(0);
        for partition in 0..self.task.count() {
            if let Some(first) = self.staying_first(partition) {
                self.firsts[first] += 1;
            }
        }
    }

    /// Whether others stay in this partition and its first owner does not.
    fn loses_first(&self, partition: usize) -> bool {
        self.staying_first(partition).is_none() && !self.owners[partition].is_empty()
    }

    /// Whether a node is first more often than its weight makes fair.
    fn is_first_above_share(&self, node: usize) -> bool {
        self.firsts[node] as u64 * self.task.weights
            > self.task.count() as u64 * self.task.weight(node)
    }

    fn cmp_firsts(&self, a: usize, b: usize) -> std::cmp::Ordering {
        let key = |node: usize, other: usize| {
            (2 * self.firsts[node] as u64 + 1) * self.task.weight(other)
        };
        key(a, b).cmp(&key(b, a))
    }

    /// Whether any node above its quota could give the taker a first place.
    fn somebody_is_first_too_often(&self, taker: usize) -> bool {
        let mut givers = self.task.nodes().filter(|giver| self.excess(*giver) > 0);
        givers.any(|giver| self.is_first_too_often(giver, taker))
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
#[derive(Clone, Copy, PartialEq, Eq)]
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

impl Chain {
    fn cost(self) -> (i32, usize) {
        (self.moves, self.links)
    }
}

/// A search for a chain: Dijkstra's, with prices that keep the steps from being negative.
struct Search {
    /// The best chain to each node.
    best: Vec<Option<Chain>>,
    price: Vec<i32>,
    /// Reached nodes by reduced cost, links, and when they were reached.
    queue: BinaryHeap<Reverse<(i32, usize, usize, usize)>>,
    reached: usize,
    /// Per zone.
    covers: Vec<Cover>,
    /// Chains that move more are not looked for.
    moves_max: i32,
    /// Nodes known to lead nowhere.
    exhausted: Vec<bool>,
}

/// What all nodes of a zone have been offered.
#[derive(Clone, Default)]
struct Cover {
    best: Option<(i32, usize)>,
    /// Except to these.
    left_out: Vec<usize>,
}

impl Search {
    fn new(assignment: &Assignment, moves_max: i32, exhausted: Vec<bool>) -> Search {
        Search {
            best: vec![None; assignment.price.len()],
            price: assignment.price.clone(),
            queue: BinaryHeap::new(),
            reached: 0,
            covers: vec![Cover::default(); assignment.task.spread.zones()],
            moves_max,
            exhausted,
        }
    }

    fn reach(&mut self, node: usize, chain: Chain) {
        let is_better = self.best[node].is_none_or(|best| chain.cost() < best.cost());
        if is_better && chain.moves <= self.moves_max && !self.exhausted[node] {
            self.best[node] = Some(chain);
            let reduced = chain.moves - self.price[node];
            self.queue.push(Reverse((reduced, chain.links, self.reached, node)));
            self.reached += 1;
        }
    }

    /// Whether such a chain to every node of the zone would be better than what some of them have.
    /// Once they have had an offer as good, it is news only to those who could not take that one
    /// because they own its partition already.
    fn is_news(&self, zone: usize, chain: Chain) -> bool {
        let is_better = |best: Option<Chain>| best.is_none_or(|best| chain.cost() < best.cost());
        let Cover { best, left_out } = &self.covers[zone];
        let is_covered = best.is_some_and(|best| best <= chain.cost());
        !is_covered || left_out.iter().any(|node| is_better(self.best[*node]))
    }

    /// The nearest node that was not looked at yet, with its chain.
    fn nearest(&mut self) -> Option<(usize, Chain)> {
        loop {
            let Reverse((reduced, links, _, node)) = self.queue.pop()?;
            let chain = self.best[node].expect("it was reached");
            if (reduced, links) == (chain.moves - self.price[node], chain.links) {
                return Some((node, chain));
            }
        }
    }

    /// What it costs to reach a node, less its price.
    fn reduced(&self, node: usize) -> Option<i32> {
        self.best[node].map(|chain| chain.moves - self.price[node])
    }
}
