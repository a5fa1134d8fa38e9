//! Partitions that move: copied by whoever joins, forgotten by whoever leaves, with crashes and cancels in between.
//!
//! The tests say themselves when a move begins and when it is finished; nobody leads a log.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use atoll_antientropy::{Actor, Context, Event, Register};
use atoll_node::{
    Faults,
    storage::{Space, Store as _, Write, faulty::Step, record::Record, summary::Summary},
};
use atoll_ring::{Command, Entry, Epoch, NodeId, Owners, Partition, View, Wish};
use atoll_wire::{
    BucketId, Copy, Envelope, ErrorCode, Lane, MoveReport, MovesQuery, MovesReport, Reply, Request,
    Role,
};
use bytes::Bytes;

use crate::{
    cluster::{Cluster, DEFAULT, blind, r, values, w},
    exchange::assert_trees,
};

/// A key, and others of its partition.
const KEY: &str = "k";
const KEYS: usize = 120;

/// Rows in one leaf of a tree at most, and a few: what may be sent again although it is equal.
const LEAF: u64 = 40;

/// Five nodes of which three own the partition of [`KEY`], and a ring that the test changes.
struct Ring {
    cluster: Cluster,
    keys: Vec<String>,
    partition: Partition,
    /// The owners at first, then the two others.
    at: Vec<NodeId>,
}

impl Ring {
    /// A cluster with some keys in the partition.
    async fn start() -> Ring {
        let cluster = Cluster::start(5).await;
        let keys = cluster.neighbours(KEY, KEYS);
        let partition = Partition(u16::from_be_bytes([cluster.row(KEY)[0], cluster.row(KEY)[1]]));
        let mut at = cluster.owners(KEY);
        at.extend((1..=5).map(NodeId).filter(|node| !cluster.owners(KEY).contains(node)));
        for key in &keys {
            cluster.put(at[0], key, "v", &blind(), &w(3)).await.expect("all are up");
        }
        Ring { cluster, keys, partition, at }
    }

    /// The next view, known to one node; the others hear of it.
    async fn change(&mut self, command: Command) {
        let via = *self.cluster.up().first().expect("somebody runs");
        self.change_at(via, command).await;
        self.cluster.settle().await;
    }

    async fn change_at(&mut self, via: NodeId, command: Command) {
        let view = &self.cluster.view;
        let entry = Entry { epoch: Epoch(view.epoch().0 + 1), at_ms: 0, command };
        let next = view.apply(&entry).expect("it fits");
        self.cluster.view = Arc::new(next.clone());
        self.cluster.node(via).adopt(next, &[], Vec::new()).await.expect("memory");
    }

    /// The partition shall go to these, given as places in `at`.
    async fn want(&mut self, target: &[usize]) {
        self.want_with(Wish::Rebalance, target).await;
    }

    async fn want_with(&mut self, wish: Wish, target: &[usize]) {
        let target = target.iter().map(|place| self.at[*place]).collect();
        let moves = BTreeMap::from([(self.partition, target)]);
        self.change(Command::Change { base: self.cluster.view.epoch(), wish, moves }).await;
    }

    async fn begin(&mut self) {
        self.change(Command::Begin { partitions: vec![self.partition] }).await;
    }

    async fn finish(&mut self) {
        let session = self.cluster.view.last_changed(self.partition);
        self.change(Command::Finish { partitions: vec![(self.partition, session)] }).await;
    }

    /// The node at this place waits at these steps, and at no others.
    fn hold(&self, place: usize, steps: &[Step]) {
        self.cluster.faults(self.at[place]).hold(steps.iter().copied());
    }

    /// Starts a node that waits at these steps.
    async fn boot_held(&mut self, place: usize, steps: &[Step]) {
        let faults = Faults::new();
        faults.hold(steps.iter().copied());
        self.cluster.boot_with(self.at[place], faults).await.expect("memory");
        self.cluster.settle().await;
    }

    async fn report(&self, place: usize) -> MovesReport {
        let asked = Request::Moves(MovesQuery {});
        match self.cluster.client().call(self.at[place], asked, 1000).await {
            Ok(Reply::Moves(report)) => report,
            other => panic!("a query for moves was answered with {other:?}"),
        }
    }

    /// What a node says of the partition's move.
    async fn says(&self, place: usize) -> Option<MoveReport> {
        let moves = self.report(place).await.read().expect("a report");
        moves.into_iter().find(|one| one.partition == self.partition.0)
    }

    async fn is_done(&self, place: usize) -> bool {
        let session = self.cluster.view.last_changed(self.partition).0;
        self.says(place).await.is_some_and(|one| one.done && one.joins && one.session == session)
    }

    /// Waits until a node has copied everything.
    async fn until_done(&self, place: usize) -> MoveReport {
        for _ in 0..200 {
            if self.is_done(place).await {
                return self.says(place).await.expect("it takes part");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("not copied: {:?}", self.says(place).await);
    }

    /// Rows of the partition that a node's disk holds, damaged ones included.
    fn rows(&self, place: usize) -> usize {
        let prefix = self.partition.0.to_be_bytes();
        let store = self.cluster.store(self.at[place]);
        let rows = |space| store.scan(space, &prefix, None, usize::MAX).expect("memory").len();
        rows(Space::Data).max(rows(Space::Digests)).max(rows(Space::Quarantine))
    }

    /// Everything is where it belongs and nowhere else, and trees say what rows say.
    async fn assert_settled(&self) {
        tokio::time::sleep(Duration::from_secs(5)).await;
        let owners = self.cluster.view.owners(self.partition);
        assert!(matches!(owners, Owners::One(_)));
        for place in 0..5 {
            let expected = if owners.contains(self.at[place]) { self.keys.len() } else { 0 };
            assert_eq!(self.rows(place), expected, "rows at place {place}");
            assert_eq!(self.report(place).await.strays, 0, "strays at place {place}");
        }
        for key in &self.keys {
            let states: Vec<_> =
                owners.all().into_iter().map(|owner| self.cluster.state(owner, key)).collect();
            assert!(states[0].is_some() && states.iter().all(|one| *one == states[0]), "{key}");
        }
        assert_trees(&self.cluster);
    }

    /// Puts a state under a key directly onto the disk of a node that does not run.
    fn plant(&self, place: usize, key: &str, state: &Register) {
        let row = self.cluster.row(key);
        let value = Some(Record::encode(&row, None, &state.encode()));
        let said = Summary::of(state).write(&row);
        let store = self.cluster.store(self.at[place]);
        let writes = [Write { space: Space::Data, row, value }, said];
        store.apply(&writes).and_then(|()| store.sync()).expect("memory");
    }
}

/// A state that nobody else has.
fn alone(counter: u64) -> Register {
    let event = Event::alone(Actor::new(77, 0), counter);
    Register::put(&Context::new(), event, Bytes::from_static(b"alone"))
}

/// Clients write before, during and after: everything arrives, and nothing is left behind.
#[tokio::test(start_paused = true)]
async fn a_partition_moves_while_clients_write() {
    let mut ring = Ring::start().await;
    ring.want(&[3, 1, 2]).await;
    ring.hold(3, &[Step::Page]);
    ring.begin().await;
    assert!(!ring.is_done(3).await);
    for key in ring.keys.clone().iter().step_by(3) {
        ring.cluster.put(ring.at[1], key, "during", &blind(), &DEFAULT).await.expect("up");
    }
    ring.hold(3, &[]);
    let copied = ring.until_done(3).await;
    assert_eq!((copied.keys, copied.waits_for), ((KEYS as u64, KEYS as u64), None));
    let source = ring.says(0).await.expect("it takes part");
    assert!(!source.joins && !source.done && source.keys.0 == KEYS as u64, "{source:?}");
    ring.finish().await;
    for key in ring.keys.clone().iter().step_by(4) {
        ring.cluster.put(ring.at[2], key, "after", &blind(), &w(3)).await.expect("up");
    }
    for (number, key) in ring.keys.iter().enumerate() {
        let found = ring.cluster.get(ring.at[3], key, &r(3)).await.expect("up");
        let siblings = 1 + usize::from(number % 3 == 0) + usize::from(number % 4 == 0);
        assert_eq!(values(&found).len(), siblings, "{key}");
    }
    ring.cluster.release_exchange();
    ring.assert_settled().await;
}

/// Two owners that change places copy from each other.
#[tokio::test(start_paused = true)]
async fn owners_that_change_places_copy_too() {
    let mut ring = Ring::start().await;
    ring.cluster.crash(ring.at[0]);
    ring.plant(0, KEY, &alone(1));
    ring.cluster.boot(ring.at[0]).await;
    ring.want(&[1, 0, 2]).await;
    ring.begin().await;
    ring.until_done(0).await;
    let copied = ring.until_done(1).await;
    assert!((1..LEAF).contains(&copied.keys.0), "only where they differ: {copied:?}");
    assert_eq!(ring.cluster.state(ring.at[1], KEY), ring.cluster.state(ring.at[0], KEY));
    ring.finish().await;
    assert!(!ring.is_done(0).await, "it is over");
}
