//! In which order a partition's owners stand.
//!
//! An owner that stays keeps its place; newcomers take the vacant places in ring order. Requests go
//! to the first owner first and buckets with a smaller N use the first ones only, so being first is
//! load, and we even it out: as long as a node is first too often, it hands the first place of a
//! partition to another newcomer there, who may hand on one of its own, until it reaches a node
//! that is first too seldom. (Harvey, Ladner, Lovász and Tamir, "Semi-matchings for bipartite
//! graphs and load balancing", 2006: without such a path the balance is the best there is.) In a
//! fresh placement all owners are newcomers, and all nodes of equal weight end within one of each
//! other unless their zones keep them apart.

use std::collections::{BTreeSet, VecDeque};

use super::Task;

/// Puts the owners of every partition in order.
pub(super) fn places(task: &Task, owners: Vec<Vec<usize>>) -> Vec<Vec<usize>> {
    let mut order = Order::new(task, owners);
    order.even_out();
    order.partitions.into_iter().map(Places::filled).collect()
}

struct Order<'a> {
    task: &'a Task,
    partitions: Vec<Places>,
    /// Per node, the partitions it is first in and might hand on.
    first_in: Vec<BTreeSet<usize>>,
    /// Per node, the partitions it is first in and stays first in.
    first_for_good: Vec<usize>,
}

/// The owners of one partition.
struct Places {
    /// Who stays where it was; `None` is vacant.
    staying: Vec<Option<usize>>,
    /// Who takes the vacant places, in this order.
    newcomers: Vec<usize>,
}

impl Places {
    fn new(task: &Task, partition: usize, owners: &[usize]) -> Places {
        let before = &task.before[partition];
        let place = |place: usize| before.get(place).copied().flatten();
        let staying: Vec<Option<usize>> = (0..task.replicas)
            .map(|index| place(index).filter(|node| owners.contains(node)))
            .collect();
        let is_new = |node: &usize| !staying.contains(&Some(*node));
        let mut newcomers: Vec<usize> = owners.iter().copied().filter(is_new).collect();
        newcomers.sort_by_key(|node| task.distance(partition, *node));
        Places { newcomers, staying }
    }

    /// Who may be first: one of the newcomers if the first place is vacant.
    fn candidates(&self) -> &[usize] {
        match self.staying.first() {
            Some(None) => &self.newcomers,
            Some(Some(_)) | None => &[],
        }
    }

    fn filled(self) -> Vec<usize> {
        let mut newcomers = self.newcomers.into_iter();
        let fill = |place: Option<usize>| place.or_else(|| newcomers.next());
        self.staying
            .into_iter()
            .map(fill)
            .map(|node| node.expect("as many owners as places"))
            .collect()
    }
}

impl<'a> Order<'a> {
    fn new(task: &'a Task, owners: Vec<Vec<usize>>) -> Order<'a> {
        let partitions: Vec<Places> = owners
            .iter()
            .enumerate()
            .map(|(partition, owners)| Places::new(task, partition, owners))
            .collect();
        let mut first_in = vec![BTreeSet::new(); task.nodes().len()];
        let mut first_for_good = vec![0; task.nodes().len()];
        for (partition, places) in partitions.iter().enumerate() {
            match (places.staying[0], places.newcomers.first()) {
                (Some(node), _) => first_for_good[node] += 1,
                (None, Some(node)) => {
                    first_in[*node].insert(partition);
                }
                (None, None) => {}
            }
        }
        Order { task, partitions, first_in, first_for_good }
    }

    fn even_out(&mut self) {
        // Each step makes the sum of squares smaller, so this ends.
        loop {
            let mut improved = false;
            for node in self.task.nodes() {
                while self.relieve(node) {
                    improved = true;
                }
            }
            if !improved {
                return;
            }
        }
    }

    /// Takes one first place from this node, if that makes the load more even.
    fn relieve(&mut self, node: usize) -> bool {
        // How each node would come to one more first place: partition, and who hands it on.
        let mut least = node;
        for other in self.task.nodes() {
            if self.prefers(other, least) {
                least = other;
            }
        }
        if !self.is_fairer(node, least) {
            return false; // as even as can be, whomever we reached
        }
        let mut through: Vec<Option<(usize, usize)>> = vec![None; self.task.nodes().len()];
        let mut queue = VecDeque::from([node]);
        let mut receiver = node;
        'search: while let Some(giver) = queue.pop_front() {
            for &partition in &self.first_in[giver] {
                for &next in self.partitions[partition].candidates() {
                    if next == node || through[next].is_some() {
                        continue;
                    }
                    through[next] = Some((partition, giver));
                    queue.push_back(next);
                    if receiver == node || self.prefers(next, receiver) {
                        receiver = next;
                        if !self.prefers(least, receiver) {
                            break 'search; // nobody is better
                        }
                    }
                }
            }
        }
        if receiver == node || !self.is_fairer(node, receiver) {
            return false;
        }
        let mut next = receiver;
        while let Some((partition, giver)) = through[next] {
            self.first_in[giver].remove(&partition);
            self.first_in[next].insert(partition);
            let newcomers = &mut self.partitions[partition].newcomers;
            newcomers.retain(|other| *other != next);
            newcomers.insert(0, next);
            next = giver;
        }
        true
    }

    fn load(&self, node: usize) -> u64 {
        (self.first_for_good[node] + self.first_in[node].len()) as u64
    }

    /// Whether `a` is the better one to be first once more, for its weight.
    fn prefers(&self, a: usize, b: usize) -> bool {
        (2 * self.load(a) + 1) * self.task.weight(b) < (2 * self.load(b) + 1) * self.task.weight(a)
    }

    /// Whether the load is more even once `giver` is first once less and `receiver` once more.
    fn is_fairer(&self, giver: usize, receiver: usize) -> bool {
        let before = (2 * self.load(giver)).saturating_sub(1) * self.task.weight(receiver);
        let after = (2 * self.load(receiver) + 1) * self.task.weight(giver);
        after < before
    }
}
