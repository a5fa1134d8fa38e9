//! Troubles of the membership log, and of those who take part in a move.
//!
//! The log of a run ([`atoll_node::membership::seeded`]) agrees with itself; who leads it, and whether a majority of its
//! voters is there, is decided here, from who runs and who hears whom. Whoever was removed from the ring is switched off
//! here, too: not before it knows, and not before everything that it held is held elsewhere.

use std::{collections::BTreeSet, time::Duration};

use atoll_node::storage::memory::MemoryStore;
use atoll_ring::{Command, Epoch, NodeId, Owners, Partition};
use atoll_transport::memory::Weather;
use tokio::time::Instant;

use super::{Link, Mischief, What, shapes::pairs};
use crate::{atlas, world::World};

/// How long it takes until somebody else leads, at most.
const ELECTION_MS_MAX: u64 = 2500;

/// The search for somebody who leads.
pub(super) struct Election {
    /// When there will be somebody.
    ends: Option<Instant>,
    /// The last entry of the log that stands in the trace.
    told: Epoch,
}

impl Default for Election {
    fn default() -> Self {
        Election { ends: None, told: Epoch(1) }
    }
}

/// A command for the trace: what moves without the details.
fn line(command: &Command) -> String {
    match command {
        Command::Change { base, wish, moves } => {
            format!("{wish:?} with {} moves, planned at {base}", moves.len())
        }
        Command::Begin { partitions } => format!("begin {partitions:?}"),
        Command::Finish { partitions } => format!("finish {partitions:?}"),
        other => format!("{other:?}"),
    }
    .replace("NodeId", "n")
    .replace("Partition", "")
    .replace("Epoch", "at")
}

impl Mischief {
    /// Sees to it that the log has a majority if its voters do, and then somebody who leads.
    pub(super) fn look_after_the_log(&mut self, world: &mut World) {
        for entry in world.cluster.log.entries_since(self.election.told) {
            self.election.told = entry.epoch;
            world.recorder.say(format_args!("LOG {}: {}", entry.epoch, line(&entry.command)));
        }
        let there = self.voters_within_reach(world);
        let voters = world.cluster.head().voters().len();
        let lost = self.lasting.iter().any(|lasting| matches!(lasting.what, What::NoMajority));
        let has_majority = !lost && 2 * there.len() > voters;
        world.cluster.log.set_majority(has_majority);
        let leads = world.cluster.log.leader().is_some_and(|leader| there.contains(&leader));
        if leads || !has_majority {
            self.election.ends = None;
            return;
        }
        let now = Instant::now();
        let ends = *self.election.ends.get_or_insert_with(|| {
            now + Duration::from_millis(self.chance.between(300, ELECTION_MS_MAX))
        });
        if ends <= now {
            self.election.ends = None;
            let leader = self.chance.of(&there);
            self.lead(world, leader);
        }
    }

    fn lead(&mut self, world: &mut World, leader: NodeId) {
        world.recorder.say(format_args!("{leader} leads the membership log"));
        world.cluster.lead(leader);
    }

    /// Voters of which each runs and hears, and is heard by, a majority of those that run.
    fn voters_within_reach(&self, world: &World) -> Vec<NodeId> {
        let head = world.cluster.head();
        let runs = |node: &NodeId| {
            let stands_still = |what: &What| matches!(what, What::Paused(other) if other == node);
            !world.cluster.is_gone(*node)
                && world.cluster.is_up(*node)
                && !self.lasting.iter().any(|lasting| stands_still(&lasting.what))
        };
        let up: Vec<NodeId> = head.voters().iter().copied().filter(runs).collect();
        let mut cut: BTreeSet<Link> = BTreeSet::new();
        for lasting in &self.lasting {
            if let What::Cut(links) | What::Flapping(links, true, _) = &lasting.what {
                cut.extend(links);
            }
        }
        let hears = |a: &NodeId, b: &NodeId| !cut.contains(&(*a, *b)) && !cut.contains(&(*b, *a));
        let reach = |node: &NodeId| up.iter().filter(|other| hears(node, other)).count();
        up.iter().copied().filter(|node| 2 * reach(node) > head.voters().len()).collect()
    }

    /// One of the things that make a change of the ring hard.
    pub(super) fn trouble_the_ring(&mut self, world: &mut World) -> Option<String> {
        match self.chance.below(12) {
            0 => {
                let there = self.voters_within_reach(world);
                let leader = there.get(self.chance.below(there.len().max(1) as u64) as usize)?;
                self.lead(world, *leader);
                Some(format!("{leader} leads from now on"))
            }
            1 => {
                self.lasts_a_while(What::NoMajority);
                self.look_after_the_log(world);
                Some("the majority of the voters is gone".into())
            }
            2 => {
                let share = self.chance.of(&[100, 500, 1000]);
                world.cluster.log.lose_answers(share);
                self.lasts_a_while(What::LostAnswers);
                Some(format!("of 1000 agreements {share} are not heard of"))
            }
            _ => {
                let (old, new) = self.somebody_who_moves(world)?;
                self.trouble(world, old, new)
            }
        }
    }

    /// Who gives something away, and who takes it: in a move if there is one, else any two.
    fn somebody_who_moves(&mut self, world: &World) -> Option<(NodeId, NodeId)> {
        let cluster = &world.cluster;
        let head = cluster.head();
        let of_keys: Vec<Partition> = world.all_keys().map(|key| cluster.partition(key)).collect();
        let moving = |all: bool| -> Vec<(NodeId, NodeId)> {
            let partitions = head.moves().keys().filter(|at| all || of_keys.contains(at));
            let seats = partitions.filter_map(|at| match head.owners(*at) {
                Owners::One(_) => None,
                Owners::Joint { old, new } => {
                    let seats = old.iter().zip(new).filter(|(old, new)| old != new);
                    seats.map(|(old, new)| (*old, *new)).next()
                }
            });
            seats.filter(|(old, new)| !cluster.is_gone(*old) && !cluster.is_gone(*new)).collect()
        };
        let nodes = cluster.nodes();
        let (first, second) = (self.chance.of(&nodes), self.chance.of(&nodes));
        let choices = match (moving(false), moving(true)) {
            (of_keys, _) if !of_keys.is_empty() => of_keys,
            (_, any) if !any.is_empty() => any,
            _ if first != second && self.chance.happens(300) => vec![(first, second)],
            _ => return None,
        };
        let (old, new) = self.chance.of(&choices);
        let is_free = |node| !cluster.is_starting(node) && !world.spoken_for.contains(&node);
        (is_free(old) && is_free(new)).then_some((old, new))
    }

    fn trouble(&mut self, world: &mut World, old: NodeId, new: NodeId) -> Option<String> {
        let one = self.chance.of(&[old, old, new]);
        let millis = self.chance.of(&[30, 200, 1000, 3000, 8000]);
        world.troubled = Some(one);
        match self.chance.below(12) {
            // long enough for two epochs, or just for one
            0 | 1 => {
                world.cluster.network.pause(one);
                self.lasts(millis, What::Paused(one));
                Some(format!("{one}, which moves something, stands still for {millis} ms"))
            }
            2 => {
                if !world.cluster.is_up(one) {
                    return None;
                }
                self.power_loss(world, one);
                self.comes_back(one, 5000);
                Some(format!("{one}, which moves something, loses power"))
            }
            3 => {
                // what it is sent takes longer than the move that it belongs to
                let delay = Duration::from_millis(self.chance.of(&[50, 300, 1000, 1900]));
                let weather = Weather { delay: (delay / 4, delay), ..Weather::default() };
                let links = vec![(old, new), (new, old)];
                self.lasts_a_while(What::Weather(links, weather));
                Some(format!("from {old} to {new} takes up to {delay:?}"))
            }
            4 => {
                let links = self.chance.of(&[vec![(old, new)], pairs(&[old], &[new])]);
                self.lasts_a_while(What::Cut(links));
                Some(format!("{new} does not hear {old}"))
            }
            // it sees no new views, and clients still ask it
            5 => {
                let others: Vec<NodeId> =
                    world.cluster.nodes().into_iter().filter(|other| *other != one).collect();
                self.lasts(millis, What::Cut(pairs(&[one], &others)));
                Some(format!("{one}, which moves something, is alone"))
            }
            // everybody hears it, and it hears of no new view
            6 | 7 => {
                self.lasts(millis, What::Behind(one));
                Some(format!("{one}, which moves something, is kept behind for {millis} ms"))
            }
            8 => {
                let sync_ms = self.chance.of(&[20, 60, 150]);
                world.cluster.machine(one).pace.set(Duration::from_millis(sync_ms));
                self.lasts(millis, What::SlowDisk(one));
                Some(format!("a sync of {one}, which moves something, takes {sync_ms} ms"))
            }
            // it loses power with its newest view on the way to the disk, and is slow to hear of it again
            9 | 10 => {
                world.cluster.machine(old).pace.set(Duration::from_millis(600));
                self.lasts(500, What::SlowDisk(old));
                let soon = self.chance.between(20, 450);
                self.lasts(soon, What::Doomed(old));
                Some(format!(
                    "{old}, which moves something, syncs slowly and loses power in {soon} ms"
                ))
            }
            // one that stays apart with one that goes: a quorum of the old owners
            _ => {
                let head = world.cluster.head();
                let (near, far): (Vec<NodeId>, Vec<NodeId>) = world
                    .cluster
                    .nodes()
                    .into_iter()
                    .partition(|node| *node == old || self.chance.happens(350));
                let leader = world.cluster.log.leader();
                let apart = pairs(&near, &far);
                self.lasts(millis, What::Cut(apart));
                Some(format!("{near:?} are apart at epoch {}, led by {leader:?}", head.epoch()))
            }
        }
    }

    /// Whoever was removed, knows it, and holds nothing that nobody else has is switched off for ever.
    pub(super) fn switch_off_who_has_gone(&mut self, world: &mut World) {
        let head = world.cluster.head();
        for node in world.cluster.nodes() {
            if head.member(node).is_some() || world.cluster.is_starting(node) {
                continue;
            }
            let knows = match world.cluster.node(node) {
                Some(running) => running.view().member(node).is_none(),
                None => crate::cluster::stored_view(&world.cluster.machine(node).store)
                    .is_some_and(|view| view.member(node).is_none()),
            };
            if !knows || self.chance.happens(700) {
                continue;
            }
            if !atlas::allows(&world.cluster, &[(node, MemoryStore::new())]) {
                world.figures.forbidden += 1;
                continue;
            }
            world.recorder.say(format_args!("{node} was removed, and is switched off for ever"));
            world.cluster.remove_machine(node);
            world.excuse_what_is_gone();
        }
    }

    /// The log works again: what made it fail is over.
    pub(super) fn mend_the_log(&mut self, world: &mut World) {
        self.lasting.retain(|lasting| !matches!(lasting.what, What::NoMajority));
        world.cluster.log.lose_answers(0);
        self.look_after_the_log(world);
    }
}
