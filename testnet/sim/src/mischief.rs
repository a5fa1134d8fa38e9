//! Whoever makes faults happen, and takes them back.
//!
//! Every so often one of the kinds that the run allows is drawn and begun. What lasts is kept in a list with the moment of
//! its end; several may last at the same time, and links are always what all of them together make of them. A fault that
//! would destroy the last copy of anything is not begun ([`crate::atlas`]).

use std::{cell::RefCell, collections::BTreeMap, time::Duration};

use atoll_node::storage::{Room, Space, faulty::Deed, memory::MemoryStore};
use atoll_ring::NodeId;
use atoll_transport::{chance::Chance, memory::Weather};
use tokio::time::Instant;

use crate::{
    atlas,
    cluster::SYNC,
    faults::Kind,
    session::CLIENTS_FROM,
    world::{World, boot},
};

mod destruction;
mod membership;
mod shapes;

use destruction::is_unread;
use membership::Election;
use shapes::pairs;

/// How often to look whether a disk has broken or a fault is over.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How often to ask nodes that have lost something how they are.
const LOOK_CLOSER_EVERY: Duration = Duration::from_millis(100);

/// The disk of a node: what is on it when it is full, and when it is not.
const DISK_BYTES: u64 = 1 << 30;

/// From, to.
type Link = (NodeId, NodeId);

/// Makes faults happen.
pub struct Mischief {
    chance: Chance,
    kinds: Vec<Kind>,
    /// The longest pause between two faults.
    pause_ms: u64,
    clients: u32,
    /// The weather without faults.
    fair: Weather,
    lasting: Vec<Lasting>,
    /// Disks as they once were.
    copies: BTreeMap<NodeId, MemoryStore>,
    election: Election,
    look_closer: Instant,
    faults: u64,
}

struct Lasting {
    ends: Instant,
    what: What,
}

#[derive(Clone)]
enum What {
    Weather(Vec<Link>, Weather),
    Cut(Vec<Link>),
    /// A cut that is on or off, and changes its state until the moment given.
    Flapping(Vec<Link>, bool, Instant),
    Paused(NodeId),
    Down(NodeId),
    SlowDisk(NodeId),
    FullDisk(NodeId),
    /// A node that gets no newer views.
    Behind(NodeId),
    /// A node that loses power at the end of this.
    Doomed(NodeId),
    /// The voters of the membership log have no majority.
    NoMajority,
    /// Whoever proposes a change may never hear what came of it.
    LostAnswers,
}

impl Mischief {
    /// Of these kinds, at most so far apart.
    pub fn new(mut chance: Chance, kinds: Vec<Kind>, pause_ms: u64, clients: u32) -> Self {
        let longest = chance.of(&[0, 1, 2, 5]);
        let fair = Weather {
            delay: (Duration::ZERO, Duration::from_millis(longest)),
            ..Weather::default()
        };
        Mischief {
            chance,
            kinds,
            pause_ms,
            clients,
            fair,
            lasting: Vec::new(),
            copies: BTreeMap::new(),
            election: Election::default(),
            look_closer: Instant::now(),
            faults: 0,
        }
    }

    /// All nodes start, on fair links.
    pub async fn begin(&mut self, world: &RefCell<World>) {
        self.set_links(&mut world.borrow_mut());
        let nodes = world.borrow().cluster.nodes();
        for node in nodes {
            boot(world, node).await;
        }
    }

    /// Makes faults happen until that moment.
    pub async fn run(&mut self, world: &RefCell<World>, until: Instant) {
        let mut next = self.next_fault();
        while Instant::now() < until {
            let soon = (Instant::now() + LOOK_EVERY).min(next).min(until);
            let risen = world.borrow().cluster.risen.clone();
            tokio::select! { biased;
                () = risen.notified() => self.look_closer = Instant::now(),
                () = tokio::time::sleep_until(soon) => {}
            }
            self.tend(world).await;
            if Instant::now() >= next {
                self.inject(world).await;
                next = self.next_fault();
            }
        }
    }

    /// All faults end: links carry, disks have room, every node runs.
    pub async fn end(&mut self, world: &RefCell<World>) {
        world.borrow_mut().recorder.say("all faults end");
        self.kinds.clear();
        for lasting in &mut self.lasting {
            lasting.ends = Instant::now();
            if let What::Flapping(_, _, until) = &mut lasting.what {
                *until = Instant::now();
            }
        }
        self.tend(world).await;
        self.mend_the_log(&mut world.borrow_mut());
        self.fair = Weather::default();
        self.set_links(&mut world.borrow_mut());
        let nodes = world.borrow().cluster.nodes();
        for node in nodes {
            boot(world, node).await;
        }
    }

    /// Ends what is over, and starts nodes again whose disk has broken: one may break late.
    pub async fn tend(&mut self, world: &RefCell<World>) {
        self.look_after_disks(&mut world.borrow_mut());
        self.end_what_is_over(world).await;
        self.look_after_the_log(&mut world.borrow_mut());
    }

    /// Whether a disk has broken since the last look: then its node ends by itself.
    fn look_after_disks(&mut self, world: &mut World) {
        for node in world.cluster.up() {
            let running = world.cluster.node(node).expect("it is up");
            let Err(error) = running.disk().takes_writes() else { continue };
            if !world.cluster.is_member(node) {
                world.recorder.say(format_args!("{node} ends: {error}"));
                world.cluster.end(node); // it was told that it is a member no longer
                continue;
            }
            if world.cluster.machine(node).faults.broken().is_none() {
                world.breaks(format!("{node} gave up its storage without a fault: {error}"));
            }
            world.recorder.say(format_args!("{node} ends: {error}"));
            self.power_loss(world, node);
            self.comes_back(node, 5000);
        }
        if self.look_closer > Instant::now() {
            return; // asking nodes for their status is dear
        }
        self.look_closer = Instant::now() + LOOK_CLOSER_EVERY;
        let World { cluster, forgetful, damaged, .. } = world;
        let mut risen = Vec::new();
        forgetful.retain(|node, _| !cluster.is_gone(*node));
        damaged.retain(|(node, _)| !cluster.is_gone(*node));
        forgetful.retain(|node, has_risen| {
            let Some(status) = cluster.status(*node) else { return true };
            if status.rising.is_empty() && !*has_risen {
                *has_risen = true;
                risen.push(*node);
            }
            !status.rising.is_empty() || status.partitions_in_doubt > 0
        });
        damaged.retain(|(node, row)| {
            let store = &cluster.machine(*node).store;
            let set_aside = atlas::all_rows(store, Space::Quarantine);
            is_unread(store, row) || set_aside.iter().any(|(at, _)| at == row)
        });
        self.switch_off_who_has_gone(world);
        for node in risen {
            self.risen(world, node);
        }
    }

    /// A node that has lost its memory serves again, and knows next to nothing. That is the moment to cut it off from those
    /// who know, and to let clients ask it.
    fn risen(&mut self, world: &mut World, node: NodeId) {
        if self.kinds.is_empty() || !self.chance.happens(800) {
            return;
        }
        world.newcomer = Some(node);
        let others: Vec<NodeId> =
            world.cluster.nodes().into_iter().filter(|other| *other != node).collect();
        self.lasts_a_while(What::Cut(pairs(&[node], &others)));
        self.happened(world, Kind::Isolated, &format!("{node} has just risen and is alone"));
    }

    fn next_fault(&mut self) -> Instant {
        Instant::now() + Duration::from_millis(self.chance.between(100, self.pause_ms))
    }

    async fn inject(&mut self, world: &RefCell<World>) {
        if self.kinds.is_empty() {
            return;
        }
        let kind = self.chance.of(&self.kinds);
        let nodes = world.borrow().cluster.nodes();
        let node = self.chance.of(&nodes);
        if world.borrow().cluster.is_starting(node) || world.borrow().spoken_for.contains(&node) {
            return;
        }
        self.faults += 1;
        if self.faults.is_multiple_of(8) {
            let copy = world.borrow().cluster.machine(node).store.copy();
            self.copies.insert(node, copy);
        }
        if kind == Kind::Stop {
            return self.stop(world, node).await;
        }
        let world = &mut world.borrow_mut();
        let said = match kind {
            Kind::Delay | Kind::Reordering | Kind::Loss | Kind::Duplication => {
                Some(self.storm(world, kind))
            }
            Kind::Halves | Kind::Isolated | Kind::OneWay | Kind::Bridge | Kind::Majorities => {
                Some(self.cut(world, kind))
            }
            Kind::Flapping => Some(self.flap(world)),
            Kind::Pause => {
                let seconds = self.chance.of(&[1, 1, 2, 3, 6, 12, 30, 120]);
                world.cluster.network.pause(node);
                self.lasts(seconds * 1000, What::Paused(node));
                Some(format!("{node} stands still for {seconds} s"))
            }
            Kind::Crash => world.cluster.is_up(node).then(|| {
                self.power_loss(world, node);
                self.comes_back(node, 8000);
                format!("{node} loses power")
            }),
            Kind::Blackout => {
                for node in world.cluster.up() {
                    self.power_loss(world, node);
                    self.comes_back(node, 3000);
                }
                Some("all lose power".to_owned())
            }
            Kind::Wipe | Kind::LostTail | Kind::OldCopy | Kind::Damage => {
                self.destroy(world, kind, node)
            }
            Kind::Clock => Some(self.clock(world, node)),
            Kind::SlowDisk => {
                let millis = self.chance.of(&[20, 60, 150, 500, 2000]);
                world.cluster.machine(node).pace.set(Duration::from_millis(millis));
                self.lasts_a_while(What::SlowDisk(node));
                Some(format!("a sync of {node} takes {millis} ms"))
            }
            Kind::FullDisk => {
                world.cluster.machine(node).store.set_room(room(self.chance.below(2000)));
                self.lasts_a_while(What::FullDisk(node));
                Some(format!("the disk of {node} is full"))
            }
            Kind::BrokenDisk => {
                let deed = self.chance.of(&[Deed::Write, Deed::Sync]);
                world.cluster.machine(node).faults.fail_next(deed);
                Some(format!("the next {deed} of {node} fails"))
            }
            Kind::Ring => self.trouble_the_ring(world),
            Kind::Stop => unreachable!("done above"),
        };
        if let Some(said) = said {
            self.happened(world, kind, &said);
        }
    }

    fn happened(&mut self, world: &mut World, kind: Kind, said: &str) {
        *world.figures.faults.entry(kind).or_default() += 1;
        world.recorder.say(format_args!("FAULT {kind}: {said}"));
        self.set_links(world);
    }

    fn lasts(&mut self, millis: u64, what: What) {
        self.lasting.push(Lasting { ends: Instant::now() + Duration::from_millis(millis), what });
    }

    fn lasts_a_while(&mut self, what: What) {
        let millis = self.chance.of(&[300, 1000, 2500, 5000, 12_000]);
        let millis = self.chance.between(millis / 2, millis);
        self.lasts(millis, what);
    }

    fn comes_back(&mut self, node: NodeId, longest_ms: u64) {
        let longest_ms = self.chance.of(&[50, 600, longest_ms]);
        let millis = self.chance.between(1, longest_ms);
        self.lasts(millis, What::Down(node));
    }

    /// In one case of three nothing of what was not synced is spared, in the others some of it.
    fn power_loss(&mut self, world: &mut World, node: NodeId) {
        let spared = self.chance.of(&[0, 1, 3]);
        world.cluster.crash(node, spared);
        world.excuse_what_is_gone();
    }

    async fn stop(&mut self, world: &RefCell<World>, node: NodeId) {
        let running = world.borrow().cluster.node(node);
        let Some(running) = running else { return };
        let stopped = tokio::time::timeout(Duration::from_secs(5), running.stop()).await;
        let world = &mut world.borrow_mut();
        self.happened(world, Kind::Stop, &format!("{node} is stopped"));
        match stopped {
            Ok(Ok(())) => world.cluster.end(node),
            Ok(Err(_)) | Err(_) => self.power_loss(world, node), // whoever stops it waits no longer
        }
        self.comes_back(node, 6000);
    }

    fn storm(&mut self, world: &World, kind: Kind) -> String {
        let millis = |from, to| (Duration::from_millis(from), Duration::from_millis(to));
        let weather = match kind {
            Kind::Delay => {
                let delay = self.chance.of(&[5, 20, 120, 400, 1500]);
                Weather { delay: millis(delay, delay), ..Weather::default() }
            }
            Kind::Reordering => {
                let longest = self.chance.of(&[10, 50, 300, 2000]);
                Weather { delay: millis(0, longest), ..Weather::default() }
            }
            Kind::Loss => {
                Weather { lost: self.chance.of(&[20, 100, 300, 600]), ..Weather::default() }
            }
            _ => Weather { doubled: self.chance.of(&[100, 500, 1000]), ..Weather::default() },
        };
        let all = self.all_links(world);
        let share = self.chance.of(&[100, 400, 1000]);
        let links: Vec<Link> = all.into_iter().filter(|_| self.chance.happens(share)).collect();
        let said = format!("{} links: {weather:?}", links.len());
        self.lasts_a_while(What::Weather(links, weather));
        said
    }

    fn cut(&mut self, world: &World, kind: Kind) -> String {
        let (links, said) = self.shape(world, kind);
        self.lasts_a_while(What::Cut(links));
        said
    }

    fn flap(&mut self, world: &World) -> String {
        let kind = self.chance.of(&[Kind::Halves, Kind::Isolated, Kind::OneWay]);
        let (links, said) = self.shape(world, kind);
        let until = Instant::now() + Duration::from_millis(self.chance.between(1000, 9000));
        let ends = Instant::now() + Duration::from_millis(self.chance.between(20, 700));
        self.lasting.push(Lasting { ends, what: What::Flapping(links, true, until) });
        format!("{said}, on and off")
    }

    fn clock(&mut self, world: &World, node: NodeId) -> String {
        let clock = &world.cluster.machine(node).clock;
        if self.chance.happens(500) {
            let ppm = self.chance.of(&[-100_000, -200, 200, 100_000]);
            clock.drift(ppm);
            return format!("the clock of {node} drifts by {ppm} ppm");
        }
        let hour_ms = 3_600_000;
        let by = self.chance.of(&[-hour_ms, hour_ms, 24 * hour_ms]);
        clock.jump(by);
        format!("the clock of {node} jumps by {by} ms")
    }

    async fn end_what_is_over(&mut self, world: &RefCell<World>) {
        let now = Instant::now();
        let (over, lasting) = std::mem::take(&mut self.lasting)
            .into_iter()
            .partition::<Vec<_>, _>(|lasting| lasting.ends <= now);
        self.lasting = lasting;
        for Lasting { what, .. } in over {
            self.end_one(world, what).await;
        }
    }

    async fn end_one(&mut self, world: &RefCell<World>, what: What) {
        match what {
            What::Weather(..) => {}
            What::Cut(_) => world.borrow_mut().newcomer = None,
            What::Flapping(links, on, until) if Instant::now() < until => {
                let ends = Instant::now() + Duration::from_millis(self.chance.between(20, 700));
                self.lasting.push(Lasting { ends, what: What::Flapping(links, !on, until) });
            }
            What::Flapping(..) => {}
            What::Paused(node) => {
                let world = world.borrow();
                let still = |lasting: &Lasting| matches!(lasting.what, What::Paused(other) if other == node);
                if !self.lasting.iter().any(still) {
                    world.cluster.network.wake(node);
                }
            }
            What::Down(node) => {
                let still =
                    |lasting: &Lasting| matches!(lasting.what, What::Down(other) if other == node);
                let up = world.borrow().cluster.is_up(node);
                if !up && !self.lasting.iter().any(still) {
                    boot(world, node).await;
                }
                return;
            }
            What::SlowDisk(node) => world.borrow().cluster.machine(node).pace.set(SYNC),
            What::FullDisk(node) => {
                world.borrow().cluster.machine(node).store.set_room(room(DISK_BYTES));
            }
            What::Behind(_) => {}
            What::Doomed(node) => {
                let world = &mut world.borrow_mut();
                if !world.cluster.is_gone(node) && world.cluster.is_up(node) {
                    world.recorder.say(format_args!("{node} loses power"));
                    self.power_loss(world, node);
                    self.lasts(50, What::Down(node));
                    self.lasts(2000, What::Behind(node));
                }
            }
            What::NoMajority => {} // see `look_after_the_log`
            What::LostAnswers => world.borrow().cluster.log.lose_answers(0),
        }
        self.set_links(&mut world.borrow_mut());
    }

    fn all_links(&self, world: &World) -> Vec<Link> {
        let nodes = world.cluster.nodes();
        let clients = (0..self.clients).map(|number| NodeId(CLIENTS_FROM + number));
        let all: Vec<NodeId> = nodes.iter().copied().chain(clients).collect();
        let is_node = |id: NodeId| nodes.contains(&id);
        let near =
            |from: NodeId| all.iter().map(move |to| (from, *to)).filter(|(from, to)| from != to);
        let links = all.iter().flat_map(|from| near(*from));
        links.filter(|(from, to)| is_node(*from) || is_node(*to)).collect()
    }

    /// Makes the links what all that lasts makes of them together.
    fn set_links(&self, world: &mut World) {
        let network = &world.cluster.network;
        let mut weather: BTreeMap<Link, Weather> =
            self.all_links(world).into_iter().map(|link| (link, self.fair)).collect();
        network.mend_all();
        let behind = self.lasting.iter().filter_map(|lasting| match lasting.what {
            What::Behind(node) => Some(node),
            _ => None,
        });
        network.keep_behind(behind.collect());
        for lasting in &self.lasting {
            match &lasting.what {
                What::Weather(links, storm) => {
                    for link in links {
                        let on = weather.entry(*link).or_default();
                        on.delay.0 = on.delay.0.max(storm.delay.0);
                        on.delay.1 = on.delay.1.max(storm.delay.1);
                        on.lost = on.lost.max(storm.lost);
                        on.doubled = on.doubled.max(storm.doubled);
                    }
                }
                What::Cut(links) | What::Flapping(links, true, _) => {
                    links.iter().for_each(|(from, to)| network.cut(*from, *to));
                }
                What::Flapping(_, false, _)
                | What::Paused(_)
                | What::Down(_)
                | What::SlowDisk(_)
                | What::FullDisk(_)
                | What::Behind(_)
                | What::Doomed(_)
                | What::NoMajority
                | What::LostAnswers => {}
            }
        }
        for ((from, to), weather) in weather {
            network.set_weather(from, to, weather);
        }
    }
}

fn room(free_bytes: u64) -> Option<Room> {
    Some(Room { free_bytes, total_bytes: DISK_BYTES })
}
