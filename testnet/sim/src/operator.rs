//! The operator of a run: whoever changes the ring while everything else goes on.
//!
//! It invites nodes and starts them, lets members leave, replaces them, declares dead whom it has switched off, gives other
//! weights and zones, wants more owners of each partition and fewer again, and changes its mind at any step. It asks any
//! node over the network, as a tool would, and asks again when it hears nothing. One change after the other: the next one is planned when the last one is over, or was cancelled; only a
//! death comes in between. In the end it sees to it that nothing is left half-done ([`Operator::tidy`]).

use std::{cell::RefCell, sync::Arc, time::Duration};

use atoll_node::storage::memory::MemoryStore;
use atoll_ring::{Command, Epoch, Member, MemberState, NodeId, Plan, View, Wish};
use atoll_transport::chance::Chance;
use atoll_wire::{BucketId, Envelope, ErrorCode, Lane, Propose, Reply, Request, Role};
use tokio::time::Instant;

use crate::{
    atlas,
    cluster::{COPIES, address_of},
    world::{World, boot},
};

/// Most machines at a time.
const MACHINES_MAX: usize = 8;

/// Owners that a partition has beyond the copies of its keys, at most.
const SPARE_OWNERS_MAX: u8 = 2;

/// Where machines may stand. In the beginning all stand in the first one.
const ZONES: [&str; 3] = ["z1", "z2", "z3"];

/// How long an answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// How often a proposal is made before the operator gives up.
const TRIES: usize = 12;

/// How long the operator waits for moves before it cancels them.
const PATIENCE: Duration = Duration::from_secs(25);

/// How often to look how far moves are.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Whoever changes the ring.
pub struct Operator {
    chance: Chance,
    /// Its number on the network.
    number: NodeId,
    /// The longest pause between two changes.
    pause_ms: u64,
    /// The id of the next machine.
    next: u32,
}

/// What came of a proposal.
enum Heard {
    Done,
    /// It does not fit the ring as it is.
    Refused(String),
}

impl Operator {
    /// For a cluster with machines up to this number.
    pub fn new(chance: Chance, number: NodeId, pause_ms: u64, machines: u32) -> Self {
        Operator { chance, number, pause_ms, next: machines + 1 }
    }

    /// Changes the ring until the run is over.
    pub async fn run(&mut self, world: &RefCell<World>) {
        while !world.borrow().is_over {
            let pause = match self.chance.below(3) {
                0 => 0, // back to back
                _ => self.chance.below(self.pause_ms),
            };
            self.sleep(world, Duration::from_millis(pause + 1)).await;
            if !world.borrow().is_over {
                self.change(world).await;
            }
        }
    }

    /// Ends what is half-done: waits until nothing moves, or cancels; and moves away what dead members still own. Comes
    /// back when that is so, or when time is over.
    pub async fn tidy(&mut self, world: &RefCell<World>, until: Instant) {
        if self.chance.happens(300) {
            self.propose(world, Command::Cancel).await;
        }
        while Instant::now() < until {
            self.bury(world).await;
            let head = world.borrow().cluster.head();
            let has = |state| head.members().iter().any(|member| member.state == state);
            let dead_own = || {
                let dead =
                    |id: NodeId| head.member(id).is_some_and(|m| m.state == MemberState::Dead);
                head.partitions().all().any(|at| head.owners(at).all().into_iter().any(dead))
            };
            let is_unburied = head.members().iter().any(|member| {
                world.borrow().cluster.is_gone(member.id) && member.state != MemberState::Dead
            });
            match is_busy(&head) || is_unburied {
                true => {}
                false if dead_own() => {
                    self.wish(world, Wish::Rebalance).await;
                }
                false if !has(MemberState::Dead) && !has(MemberState::Leaving) => return,
                false => {}
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    /// Whoever was switched off for ever is declared dead, if that has not been done.
    async fn bury(&mut self, world: &RefCell<World>) {
        let (dead, left, joining) = {
            let world = world.borrow();
            let head = world.cluster.head();
            let is_dead = |member: &&Member| {
                world.cluster.is_gone(member.id) && member.state != MemberState::Dead
            };
            let dead: Vec<NodeId> = head.members().iter().filter(is_dead).map(|m| m.id).collect();
            let left = head.eligible().filter(|member| !is_dead(member)).count();
            let waits = |member: &&Member| member.state == MemberState::Joining;
            let joining: Vec<NodeId> = head.members().iter().filter(waits).map(|m| m.id).collect();
            (dead, left, joining)
        };
        let replicas = world.borrow().cluster.head().replicas();
        for node in dead {
            if left >= usize::from(replicas) {
                self.wish(world, Wish::RemoveDead { node }).await;
            } else if let Some(new) = self.newcomer(world, &joining).await {
                self.wish(world, Wish::Replace { old: node, new, dead: true }).await;
            }
        }
    }

    async fn change(&mut self, world: &RefCell<World>) {
        self.bury(world).await;
        let (active, joining, machines, replicas) = {
            let world = world.borrow();
            let head = world.cluster.head();
            if is_busy(&head) && !self.chance.happens(100) {
                return; // of the last change something is left; now and then it asks all the same, and is refused
            }
            let of = |state| {
                let members = head.members().iter().filter(move |member| member.state == state);
                members.map(|member| member.id).collect::<Vec<NodeId>>()
            };
            let machines = world.cluster.nodes().len();
            (of(MemberState::Active), of(MemberState::Joining), machines, head.replicas())
        };
        let one = self.chance.of(&active);
        let room = machines < MACHINES_MAX;
        let can_spare = active.len() > usize::from(replicas);
        let others = self.other_replicas(active.len(), replicas);
        let wish = match self.chance.below(14) {
            0..=2 if room || !joining.is_empty() => {
                let Some(node) = self.newcomer(world, &joining).await else { return };
                Wish::Join { node }
            }
            3 | 4 if can_spare => Wish::Leave { node: one },
            5 | 6 if room || !joining.is_empty() => {
                let Some(new) = self.newcomer(world, &joining).await else { return };
                let dead = self.chance.happens(400) && self.switch_off(world, one);
                Wish::Replace { old: one, new, dead }
            }
            7 if can_spare && self.switch_off(world, one) => Wish::RemoveDead { node: one },
            8 if room && self.chance.happens(500) => {
                // two at once: the second waits until the first one's moves are over
                let Some(first) = self.newcomer(world, &joining).await else { return };
                self.newcomer(world, &[]).await;
                Wish::Join { node: first }
            }
            9 if self.chance.happens(200) => Wish::Rebalance,
            10 | 11 => Wish::Rezone { node: one, zone: self.chance.of(&ZONES).to_owned() },
            12 | 13 if !others.is_empty() => Wish::Replicas { replicas: self.chance.of(&others) },
            _ => Wish::Reweight { node: one, weight: self.chance.between(1, 3) as u32 },
        };
        if self.wish(world, wish).await {
            self.see_it_through(world).await;
        }
    }

    /// How many owners partitions could have instead of so many.
    fn other_replicas(&self, active: usize, now: u8) -> Vec<u8> {
        let possible = |replicas: &u8| *replicas != now && usize::from(*replicas) <= active;
        (COPIES..=COPIES + SPARE_OWNERS_MAX).filter(possible).collect()
    }

    /// What becomes of a change that was accepted: it is finished, or cancelled, or somebody dies on the way.
    async fn see_it_through(&mut self, world: &RefCell<World>) {
        let fate = self.chance.below(10);
        let step_ms = self.chance.of(&[0, 20, 60, 150, 400, 1200, 4000]);
        let began = Instant::now();
        match fate {
            0..=2 => {
                self.wait(world, Duration::from_millis(step_ms)).await;
                if self.busy(world) && !world.borrow().is_over {
                    self.propose(world, Command::Cancel).await;
                    if self.chance.happens(600) && !self.busy(world) {
                        // the same moves again: what came of the first ones must not count
                        self.sleep(world, Duration::from_millis(step_ms)).await;
                        self.wish(world, Wish::Rebalance).await;
                        self.wait(world, PATIENCE).await;
                    }
                }
                return;
            }
            3 => {
                self.wait(world, Duration::from_millis(step_ms)).await;
                self.somebody_dies(world).await;
            }
            _ => {}
        }
        self.wait(world, PATIENCE).await;
        while self.busy(world) && !world.borrow().is_over && began.elapsed() < 4 * PATIENCE {
            if self.chance.happens(300) {
                self.propose(world, Command::Cancel).await;
                return;
            }
            self.wait(world, PATIENCE / 4).await;
        }
    }

    /// In the middle of moves a member dies, and is removed or replaced at once.
    async fn somebody_dies(&mut self, world: &RefCell<World>) {
        let candidates: Vec<NodeId> = {
            let head = world.borrow().cluster.head();
            let alive = |state| !matches!(state, MemberState::Dead | MemberState::Joining);
            let members = head.members().iter().filter(|member| alive(member.state));
            members.map(|member| member.id).collect()
        };
        let one = self.chance.of(&candidates);
        let (left, replicas) = {
            let head = world.borrow().cluster.head();
            (head.eligible().filter(|member| member.id != one).count(), head.replicas())
        };
        if left < usize::from(replicas) || world.borrow().is_over || !self.switch_off(world, one) {
            return;
        }
        self.bury(world).await;
    }

    /// A machine is switched off for ever, if the cluster can bear it.
    fn switch_off(&mut self, world: &RefCell<World>, node: NodeId) -> bool {
        let world = &mut world.borrow_mut();
        let head = world.cluster.head();
        let gone = |voter: &&NodeId| **voter == node || world.cluster.is_gone(**voter);
        let majority_stays = 2 * head.voters().iter().filter(gone).count() < head.voters().len();
        let alone = head.members().iter().filter(|member| world.cluster.is_gone(member.id)).count();
        if !majority_stays
            || alone > 0
            || world.cluster.is_gone(node)
            || world.cluster.is_starting(node)
            || !world.may_forget(node)
        {
            return false;
        }
        if !atlas::allows(&world.cluster, &[(node, MemoryStore::new())])
            || !atlas::others_hold(&world.cluster, node)
        {
            world.figures.forbidden += 1;
            return false;
        }
        world.recorder.say(format_args!("{node} is switched off for ever"));
        world.cluster.remove_machine(node);
        world.excuse_what_is_gone();
        true
    }

    /// A machine that has registered and owns nothing: one that is there, or a new one.
    async fn newcomer(&mut self, world: &RefCell<World>, joining: &[NodeId]) -> Option<NodeId> {
        if !joining.is_empty() {
            let one = self.chance.of(joining);
            return (!world.borrow().cluster.is_gone(one)).then_some(one);
        }
        let node = NodeId(self.next);
        self.next += 1;
        let mut invitation = [0; 16];
        invitation[..8].copy_from_slice(&self.chance.draw().to_be_bytes());
        let invite = Command::Invite { invitation, node, expires_ms: u64::MAX };
        let Some(Heard::Done) = self.propose(world, invite).await else { return None };
        let zone = self.chance.of(&[ZONES[0], ZONES[0], ZONES[1], ZONES[2]]).to_owned();
        let address = address_of(node);
        let register = Command::Register { invitation, node, address, zone, weight: 1 };
        let Some(Heard::Done) = self.propose(world, register).await else { return None };
        world.borrow_mut().cluster.add_machine(node);
        boot(world, node).await;
        Some(node)
    }

    /// Plans a wish, with the ring as some node knows it, and proposes it.
    async fn wish(&mut self, world: &RefCell<World>, wish: Wish) -> bool {
        for _ in 0..3 {
            let view = self.known(&world.borrow());
            let plan = match Plan::of(&view, &wish) {
                Ok(plan) => plan,
                Err(why) => {
                    world.borrow_mut().recorder.say(format_args!("no plan for {wish:?}: {why}"));
                    return false;
                }
            };
            match self.propose(world, plan.command()).await {
                Some(Heard::Done) => return true,
                Some(Heard::Refused(_)) => {} // by a newer ring, perhaps: it plans anew
                None => return false,
            }
        }
        false
    }

    /// The ring as the operator was told: mostly the newest, sometimes what any node takes for it.
    fn known(&mut self, world: &World) -> Arc<View> {
        let nodes = world.cluster.up();
        let of_a_node = match nodes.is_empty() || self.chance.happens(850) {
            true => None,
            false => world.cluster.node(self.chance.of(&nodes)).map(|node| node.view()),
        };
        of_a_node.unwrap_or_else(|| world.cluster.head())
    }

    /// Proposes until somebody knows what came of it.
    async fn propose(&mut self, world: &RefCell<World>, command: Command) -> Option<Heard> {
        let word = word(&command);
        let known = world.borrow().cluster.head().epoch();
        for _ in 0..TRIES {
            let Some(answer) = self.ask(world, &command).await else {
                self.sleep(world, Duration::from_millis(200)).await;
                continue;
            };
            let heard = match answer {
                Reply::Proposed(_) => Some(Heard::Done),
                Reply::Failed(failure) if failure.code == ErrorCode::RingRejected => {
                    // its first try may have been agreed on without a word
                    let done = happened(&world.borrow(), known, &command);
                    Some(if done { Heard::Done } else { Heard::Refused(failure.detail) })
                }
                _ => None,
            };
            let heard =
                heard.or_else(|| happened(&world.borrow(), known, &command).then_some(Heard::Done));
            if let Some(heard) = heard {
                enter(&mut world.borrow_mut(), &word, &heard);
                return Some(heard);
            }
            let can_wait = matches!(command, Command::Cancel | Command::Change { .. });
            if world.borrow().is_over && !can_wait {
                break;
            }
            let pause = Duration::from_millis(self.chance.between(20, 600));
            tokio::time::sleep(pause).await;
        }
        world.borrow_mut().recorder.say(format_args!("RING nothing came of {word}"));
        None
    }

    async fn ask(&mut self, world: &RefCell<World>, command: &Command) -> Option<Reply> {
        let call = {
            let world = world.borrow();
            let nodes = world.cluster.nodes();
            let via = self.chance.of(&nodes);
            let envelope = Envelope {
                epoch: Epoch(0),
                left_ms: 5000,
                operation: 0,
                bucket: BucketId::default_bucket(COPIES),
                trace: false,
                role: Role::Operator,
            };
            let command = postcard::to_stdvec(command).expect("a command is plain data").into();
            let port = world.cluster.network.port(self.number);
            port.call(via, Lane::Control, envelope, Request::Propose(Propose { hops: 0, command }))
        };
        let answer = tokio::time::timeout(ANSWER_LIMIT, call).await;
        answer.ok().and_then(Result::ok).map(|(_, reply)| reply)
    }

    /// Until nothing moves, or so long.
    async fn wait(&self, world: &RefCell<World>, longest: Duration) {
        let began = Instant::now();
        while self.busy(world) && began.elapsed() < longest && !world.borrow().is_over {
            tokio::time::sleep(LOOK_EVERY.min(longest)).await;
        }
    }

    fn busy(&self, world: &RefCell<World>) -> bool {
        is_busy(&world.borrow().cluster.head())
    }

    /// Sleeps, and wakes early when the run is over.
    async fn sleep(&self, world: &RefCell<World>, how_long: Duration) {
        let began = Instant::now();
        while began.elapsed() < how_long && !world.borrow().is_over {
            let left = how_long.saturating_sub(began.elapsed());
            tokio::time::sleep(left.min(Duration::from_millis(100))).await;
        }
    }
}

/// Whether something moves or shall.
fn is_busy(head: &View) -> bool {
    !head.moves().is_empty() || !head.wanted().is_empty()
}

/// Whether the log has it, after this epoch.
fn happened(world: &World, known: Epoch, command: &Command) -> bool {
    let entries = world.cluster.log.entries_since(known);
    entries.iter().any(|entry| entry.command == *command)
}

/// Enters what came of a proposal.
fn enter(world: &mut World, word: &str, heard: &Heard) {
    match heard {
        Heard::Done => {
            world.figures.ring_changes += 1;
            let epoch = world.cluster.head().epoch();
            world.recorder.say(format_args!("RING {epoch}: {word}"));
        }
        Heard::Refused(why) => {
            world.figures.ring_refused += 1;
            world.recorder.say(format_args!("RING refused {word}: {why}"));
        }
    }
}

/// For the trace.
fn word(command: &Command) -> String {
    match command {
        Command::Change { base, wish, moves } => {
            format!("{wish:?} with {} moves, planned at {base}", moves.len())
        }
        Command::Register { node, .. } => format!("{node} registers"),
        Command::Invite { node, .. } => format!("{node} is invited"),
        other => format!("{other:?}"),
    }
}
