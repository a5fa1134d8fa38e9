//! Partitions that move: copied by whoever joins, forgotten by whoever leaves, with crashes and cancels in between.
//!
//! The tests say themselves when a move begins and when it is finished; nobody leads a log.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use atoll_antientropy::{Actor, Context, Event, State};
use atoll_node::{
    Faults,
    storage::{Space, Store as _, Write, faulty::Step, record::Record, summary::Summary},
};
use atoll_ring::{Command, Entry, Epoch, NodeId, Owners, Partition, Plan, Wish};
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

/// Bytes of a value when a partition shall take several pages.
const LARGE: usize = 50_000;

/// Rows in one leaf of a tree at most, and a few: what may be sent again although it is equal.
const LEAF: u64 = 40;

/// Five nodes of which three own the partition of [`KEY`], and a ring that the test changes.
pub struct Ring {
    pub cluster: Cluster,
    keys: Vec<String>,
    pub partition: Partition,
    /// The owners at first, then the two others.
    pub at: Vec<NodeId>,
}

impl Ring {
    /// A cluster with some keys in the partition.
    pub async fn start() -> Ring {
        Ring::start_with("v").await
    }

    async fn start_with(value: &str) -> Ring {
        let cluster = Cluster::start(5).await;
        let keys = cluster.neighbours(KEY, KEYS);
        let partition = Partition(u16::from_be_bytes([cluster.row(KEY)[0], cluster.row(KEY)[1]]));
        let mut at = cluster.owners(KEY);
        at.extend((1..=5).map(NodeId).filter(|node| !cluster.owners(KEY).contains(node)));
        for key in &keys {
            cluster.put(at[0], key, value, &blind(), &w(3)).await.expect("all are up");
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
    pub async fn want(&mut self, target: &[usize]) {
        self.want_with(Wish::Rebalance, target).await;
    }

    async fn want_with(&mut self, wish: Wish, target: &[usize]) {
        let target = target.iter().map(|place| self.at[*place]).collect();
        // the dead have to give up all they own
        let mut moves = match wish {
            Wish::RemoveDead { .. } => Plan::of(&self.cluster.view, &wish).expect("it fits").moves,
            _ => BTreeMap::new(),
        };
        moves.insert(self.partition, target);
        self.change(Command::Change { base: self.cluster.view.epoch(), wish, moves }).await;
    }

    pub async fn begin(&mut self) {
        self.change(Command::Begin { partitions: vec![self.partition] }).await;
    }

    pub async fn finish(&mut self) {
        let session = self.cluster.view.last_changed(self.partition);
        self.change(Command::Finish { partitions: vec![(self.partition, session)] }).await;
    }

    /// The node at this place waits at these steps, and at no others.
    pub fn hold(&self, place: usize, steps: &[Step]) {
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
    pub async fn until_done(&self, place: usize) -> MoveReport {
        for _ in 0..200 {
            if self.is_done(place).await {
                return self.says(place).await.expect("it takes part");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("not copied: {:?}", self.says(place).await);
    }

    /// Waits until a node has copied about so many keys, and holds it there.
    async fn until_copied(&self, place: usize, keys: u64) {
        while self.says(place).await.is_none_or(|one| one.keys.0 < keys) {
            self.serve().await;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.hold(place, &[Step::Page]);
    }

    /// A client is served by source and target, so that a copy takes its time.
    async fn serve(&self) {
        for place in [0, 3] {
            self.cluster.get(self.at[place], KEY, &r(1)).await.expect("up");
        }
    }

    /// A page, asked for in the name of one node from another.
    async fn page(&self, from: usize, by: usize, session: u64) -> Result<usize, ErrorCode> {
        let envelope = Envelope {
            epoch: Epoch(1),
            left_ms: 1000,
            operation: 0,
            bucket: BucketId::default_bucket(3),
            trace: false,
            role: Role::Node,
        };
        let (partition, after) = (self.partition.0, Bytes::new());
        let asked = Request::Copy(Copy { partition, session, tokens: (0, u64::MAX), after });
        let port = self.cluster.network.port(self.at[by]);
        match port.call(self.at[from], Lane::Bulk, envelope, asked).await.expect("it is up").1 {
            Reply::Copied(page) => Ok(page.read().expect("a page").len()),
            Reply::Failed(failure) => Err(failure.code),
            other => panic!("a copy was answered with {other:?}"),
        }
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
    fn plant(&self, place: usize, key: &str, state: &State) {
        let row = self.cluster.row(key);
        let value = Some(Record::encode(&row, None, &state.encode()));
        let said = Summary::of(state).write(&row);
        let store = self.cluster.store(self.at[place]);
        let writes = [Write { space: Space::Data, row, value }, said];
        store.apply(&writes).and_then(|()| store.sync()).expect("memory");
    }
}

/// A state that nobody else has.
fn alone(counter: u64) -> State {
    let event = Event::alone(Actor::new(77, 0), counter);
    State::put(&Context::new(), event, Bytes::from_static(b"alone"))
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

/// Whoever watches a move does not slow it down: pages are small while clients are served, and only then.
#[tokio::test(start_paused = true)]
async fn to_watch_is_not_to_be_served() {
    let mut ring = Ring::start_with(&"x".repeat(LARGE)).await;
    ring.want(&[3, 1, 2]).await;
    ring.hold(3, &[Step::Copy]);
    ring.begin().await;
    tokio::time::sleep(Duration::from_secs(2)).await; // those who put the keys have gone
    let session = ring.cluster.view.last_changed(ring.partition).0;
    ring.report(0).await;
    let rows = ring.page(0, 3, session).await.expect("a page");
    assert!(rows > 1, "{rows}");
    ring.serve().await;
    assert_eq!(ring.page(0, 3, session).await, Ok(1));
}

/// The target crashes in the middle. When it is back it asks for what is missing, not for what is there.
#[tokio::test(start_paused = true)]
async fn a_target_that_crashes_goes_on_where_it_was() {
    let mut ring = Ring::start_with(&"x".repeat(LARGE)).await;
    ring.cluster.network.slow(ring.at[0], ring.at[3], Duration::from_millis(20));
    ring.want(&[3, 1, 2]).await;
    ring.serve().await;
    ring.change_at(ring.at[3], Command::Begin { partitions: vec![ring.partition] }).await;
    ring.until_copied(3, KEYS as u64 / 3).await;
    ring.cluster.settle().await;
    ring.cluster.crash(ring.at[3]);
    let there = ring.rows(3);
    assert!(there > 0 && there < KEYS, "{there} of {KEYS}: not in the middle");
    ring.cluster.boot(ring.at[3]).await;
    let copied = ring.until_done(3).await;
    let missing = (KEYS - there) as u64;
    assert!((missing..=missing + LEAF).contains(&copied.keys.0), "{there} there, {copied:?}");
    ring.finish().await;
    ring.assert_settled().await;
}

/// The target crashes at each step, and the move ends all the same. What was copied and fsynced is not sent again.
#[tokio::test(start_paused = true)]
async fn a_target_may_crash_at_every_step() {
    for step in [Step::Copy, Step::Page, Step::Done] {
        let mut ring = Ring::start().await;
        ring.want(&[3, 1, 2]).await;
        ring.hold(3, &[step]);
        ring.begin().await;
        assert!(!ring.is_done(3).await, "held at {step:?}");
        ring.cluster.crash(ring.at[3]);
        assert_eq!(ring.rows(3), if step == Step::Done { KEYS } else { 0 }, "{step:?}");
        ring.boot_held(3, &[step]).await;
        assert!(!ring.is_done(3).await, "held at {step:?} once more");
        ring.hold(3, &[]);
        let sent = if step == Step::Done { 0 } else { KEYS as u64 };
        assert_eq!(ring.until_done(3).await.keys.0, sent, "{step:?}");
        ring.cluster.crash(ring.at[3]);
        assert_eq!(ring.rows(3), KEYS, "done, and so fsynced");
        ring.cluster.boot(ring.at[3]).await;
        ring.until_done(3).await;
        ring.finish().await;
        ring.assert_settled().await;
    }
}

/// The source crashes in the middle. The target names it, waits, and goes on when it is back.
#[tokio::test(start_paused = true)]
async fn a_source_may_crash_in_the_middle() {
    let mut ring = Ring::start_with(&"x".repeat(LARGE)).await;
    ring.cluster.network.slow(ring.at[0], ring.at[3], Duration::from_millis(20));
    ring.want(&[3, 1, 2]).await;
    ring.serve().await;
    ring.change_at(ring.at[3], Command::Begin { partitions: vec![ring.partition] }).await;
    ring.until_copied(3, KEYS as u64 / 3).await;
    ring.cluster.crash(ring.at[0]);
    ring.hold(3, &[]);
    tokio::time::sleep(Duration::from_secs(20)).await;
    let waiting = ring.says(3).await.expect("it takes part");
    assert_eq!((waiting.done, waiting.waits_for), (false, Some(ring.at[0].0)));
    ring.cluster.boot(ring.at[0]).await;
    assert_eq!(ring.until_done(3).await.keys.0, KEYS as u64, "nothing is sent twice");
    ring.finish().await;
    ring.assert_settled().await;
}

/// A former owner crashes while it hands over, and goes on when it is back.
#[tokio::test(start_paused = true)]
async fn a_former_owner_may_crash_while_it_hands_over() {
    let mut ring = Ring::start().await;
    ring.want(&[3, 1, 2]).await;
    ring.begin().await;
    ring.until_done(3).await;
    ring.hold(0, &[Step::Clean]);
    ring.finish().await;
    assert_eq!((ring.rows(0), ring.report(0).await.strays), (KEYS, KEYS as u64), "held");
    ring.cluster.crash(ring.at[0]);
    ring.cluster.boot(ring.at[0]).await;
    ring.assert_settled().await;
}

/// A cancelled move leaves nothing at the target, and the copy of a dead session counts for nothing; but what still lies
/// there when the move begins again is not sent again.
#[tokio::test(start_paused = true)]
async fn a_cancelled_move_begins_again() {
    let mut ring = Ring::start().await;
    ring.hold(3, &[Step::Clean]);
    ring.want(&[3, 1, 2]).await;
    ring.begin().await;
    ring.until_done(3).await;
    ring.change(Command::Cancel).await;
    assert_eq!((ring.rows(3), ring.report(3).await.strays), (KEYS, KEYS as u64));
    ring.hold(3, &[Step::Clean, Step::Copy]);
    ring.want(&[3, 1, 2]).await;
    ring.begin().await;
    assert!(!ring.is_done(3).await, "that copy was made in another session");
    ring.hold(3, &[Step::Clean]);
    assert_eq!(ring.until_done(3).await.keys.0, 0, "all of it was there");
    ring.change(Command::Cancel).await;
    ring.hold(3, &[]);
    ring.assert_settled().await;
}

/// In the place of a dead leaver all other old owners are copied from: each has something that no other has.
#[tokio::test(start_paused = true)]
async fn all_others_stand_for_a_dead_leaver() {
    let mut ring = Ring::start().await;
    for (place, counter) in [(1, 1), (2, 2)] {
        ring.cluster.crash(ring.at[place]);
        ring.plant(place, KEY, &alone(counter));
        ring.cluster.boot(ring.at[place]).await;
    }
    ring.cluster.crash(ring.at[0]);
    ring.cluster.settle().await;
    let dead = ring.at[0];
    ring.want_with(Wish::RemoveDead { node: dead }, &[3, 1, 2]).await;
    ring.cluster.crash(ring.at[2]);
    ring.begin().await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    let waiting = ring.says(3).await.expect("it takes part");
    assert_eq!((waiting.done, waiting.waits_for), (false, Some(ring.at[2].0)), "it needs both");
    ring.cluster.boot(ring.at[2]).await;
    ring.until_done(3).await;
    let copied = ring.cluster.state(ring.at[3], KEY).expect("copied");
    for place in [1, 2] {
        let state = ring.cluster.state(ring.at[place], KEY).expect("planted");
        assert!(copied.covers(&state), "what {} had", ring.at[place]);
    }
}

/// A leaver that is declared dead in the middle is waited for no longer.
#[tokio::test(start_paused = true)]
async fn a_leaver_dies_in_the_middle() {
    let mut ring = Ring::start().await;
    ring.hold(3, &[Step::Page]);
    ring.want(&[3, 1, 2]).await;
    ring.begin().await;
    ring.cluster.crash(ring.at[0]);
    ring.hold(3, &[]);
    ring.cluster.settle().await;
    assert_eq!(ring.says(3).await.expect("it takes part").waits_for, Some(ring.at[0].0));
    let wish = Wish::RemoveDead { node: ring.at[0] };
    let Plan { moves, .. } = Plan::of(&ring.cluster.view, &wish).expect("it fits");
    let base = ring.cluster.view.epoch();
    ring.change(Command::Change { base, wish, moves }).await;
    let copied = ring.until_done(3).await;
    assert_eq!((copied.keys.0, copied.waits_for), (KEYS as u64, None), "one is enough");
}

/// A record that is damaged at the source holds the move up until it is mended there.
#[tokio::test(start_paused = true)]
async fn a_damaged_record_at_the_source_is_waited_for() {
    for noticed in [false, true] {
        let mut ring = Ring::start().await;
        assert!(ring.cluster.store(ring.at[0]).damage(Space::Data, &ring.cluster.row(KEY)));
        if noticed {
            let _ = ring.cluster.get(ring.at[0], KEY, &r(1)).await;
        }
        for place in [1, 2] {
            ring.cluster.network.cut(ring.at[0], ring.at[place]);
        }
        ring.want(&[3, 1, 2]).await;
        ring.change_at(ring.at[3], Command::Begin { partitions: vec![ring.partition] }).await;
        tokio::time::sleep(Duration::from_secs(20)).await;
        let waiting = ring.says(3).await.expect("it takes part");
        assert_eq!((waiting.done, waiting.waits_for), (false, Some(ring.at[0].0)), "{noticed}");
        ring.cluster.heal();
        tokio::time::sleep(Duration::from_secs(150)).await;
        ring.until_done(3).await;
        let states: Vec<_> =
            [0, 1, 3].map(|place| ring.cluster.state(ring.at[place], KEY)).to_vec();
        assert!(states[0].is_some() && states.iter().all(|state| *state == states[0]));
    }
}

/// A source answers only for a move that its own view has, and only who takes its seat.
#[tokio::test(start_paused = true)]
async fn a_source_answers_for_its_own_session_only() {
    let mut ring = Ring::start().await;
    ring.hold(3, &[Step::Copy]);
    ring.want(&[3, 1, 2]).await;
    let next = ring.cluster.view.epoch().0 + 1;
    assert_eq!(ring.page(0, 3, next).await, Err(ErrorCode::StaleView), "not yet");
    ring.begin().await;
    assert_eq!(ring.page(0, 3, next).await, Ok(KEYS));
    assert_eq!(ring.page(0, 3, next - 1).await, Err(ErrorCode::StaleView));
    assert_eq!(ring.page(0, 3, next + 1).await, Err(ErrorCode::StaleView));
    assert_eq!(ring.page(0, 4, next).await, Err(ErrorCode::Malformed), "it joins nothing");
    assert_eq!(ring.page(1, 3, next).await, Err(ErrorCode::Malformed), "not its seat");
    ring.change(Command::Cancel).await;
    assert_eq!(ring.page(0, 3, next).await, Err(ErrorCode::StaleView), "over");
}

/// A page that arrives when its session is over is not joined.
#[tokio::test(start_paused = true)]
async fn a_late_page_changes_nothing() {
    let mut ring = Ring::start().await;
    ring.hold(3, &[Step::Clean]);
    ring.want(&[3, 1, 2]).await;
    ring.cluster.network.slow(ring.at[0], ring.at[3], Duration::from_millis(400));
    ring.change_at(ring.at[3], Command::Begin { partitions: vec![ring.partition] }).await;
    tokio::time::sleep(Duration::from_millis(1000)).await; // pages are on their way
    assert_eq!(ring.rows(3), 0);
    ring.change_at(ring.at[3], Command::Cancel).await;
    ring.cluster.settle().await;
    assert_eq!(ring.rows(3), 0);
    ring.hold(3, &[]);
    ring.assert_settled().await;
}

/// What a former owner alone has is with an owner, fsynced, before it is forgotten.
#[tokio::test(start_paused = true)]
async fn what_no_owner_has_is_sent_before_it_is_forgotten() {
    let mut ring = Ring::start().await;
    ring.cluster.crash(ring.at[3]);
    ring.plant(3, KEY, &alone(1));
    for place in 0..3 {
        ring.cluster.isolate(ring.at[place]);
    }
    ring.cluster.boot(ring.at[3]).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!((ring.rows(3), ring.report(3).await.strays), (1, 1), "nobody has it");
    ring.cluster.heal();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!((ring.rows(3), ring.report(3).await.strays), (0, 0));
    let owners: Vec<NodeId> = ring.at[..3].to_vec();
    ring.cluster.crash_all(&owners);
    let has = |place: &usize| {
        let state = ring.cluster.state(ring.at[*place], KEY).expect("written before");
        state.covers(&alone(1))
    };
    assert!((0..3).any(|place| has(&place)), "fsynced at an owner");
}

/// Between the question and the answer a row changes, and another becomes ours again: both stay.
#[tokio::test(start_paused = true)]
async fn what_changes_meanwhile_is_not_forgotten() {
    for ours_again in [false, true] {
        let mut ring = Ring::start().await;
        ring.cluster.crash(ring.at[3]);
        let same = ring.cluster.state(ring.at[0], KEY).expect("written");
        ring.plant(3, KEY, &same);
        for place in 0..3 {
            ring.cluster.network.slow(ring.at[place], ring.at[3], Duration::from_secs(1));
        }
        ring.cluster.boot(ring.at[3]).await;
        ring.hold(3, &[Step::Copy]);
        tokio::time::sleep(Duration::from_millis(500)).await; // the answer is on its way
        if ours_again {
            ring.change_at(ring.at[3], joins(&ring, 3)).await;
            let begin = Command::Begin { partitions: vec![ring.partition] };
            ring.change_at(ring.at[3], begin).await;
        } else {
            let row = ring.cluster.row(KEY);
            let value = Some(Record::encode(&row, None, &alone(1).encode()));
            let said = Summary::of(&alone(1)).write(&row);
            let writes = vec![Write { space: Space::Data, row, value }, said];
            let node = ring.cluster.node(ring.at[3]);
            drop(node.disk().write(writes, atoll_wire::Ack::Durable));
            ring.hold(3, &[Step::Copy, Step::Clean]);
        }
        tokio::time::sleep(Duration::from_millis(1500)).await;
        assert_eq!(ring.rows(3), 1, "ours again: {ours_again}");
    }
}

/// The change by which a node takes the first owner's seat.
fn joins(ring: &Ring, place: usize) -> Command {
    let target = vec![ring.at[place], ring.at[1], ring.at[2]];
    let moves = BTreeMap::from([(ring.partition, target)]);
    Command::Change { base: ring.cluster.view.epoch(), wish: Wish::Rebalance, moves }
}

/// A target whose disk is slow says that it is done when the last row is fsynced, not when it is written.
#[tokio::test(start_paused = true)]
async fn done_means_fsynced() {
    let mut ring = Ring::start().await;
    ring.cluster.crash(ring.at[3]);
    ring.cluster.boot_slow(ring.at[3], Duration::from_millis(1500)).await;
    ring.cluster.settle().await;
    ring.want(&[3, 1, 2]).await;
    ring.begin().await;
    ring.until_done(3).await;
    ring.cluster.crash(ring.at[3]);
    assert_eq!(ring.rows(3), KEYS);
}

/// A record that is damaged at the source and missing at the target is in neither tree. It is waited for all the same.
#[tokio::test(start_paused = true)]
async fn a_damaged_record_that_no_tree_knows_is_waited_for() {
    let mut ring = Ring::start().await;
    ring.hold(3, &[Step::Clean]);
    ring.want(&[3, 1, 2]).await;
    ring.begin().await;
    ring.until_done(3).await;
    ring.change(Command::Cancel).await;
    ring.cluster.crash(ring.at[3]);
    let row = ring.cluster.row(KEY);
    let gone = |space| Write { space, row: row.clone(), value: None };
    let store = ring.cluster.store(ring.at[3]);
    store
        .apply(&[gone(Space::Data), gone(Space::Digests)])
        .and_then(|()| store.sync())
        .expect("memory");
    ring.boot_held(3, &[Step::Clean]).await;
    assert!(ring.cluster.store(ring.at[0]).damage(Space::Data, &row));
    for place in [1, 2] {
        ring.cluster.network.cut(ring.at[0], ring.at[place]); // so that nobody mends it
    }
    let _ = ring.cluster.get(ring.at[0], KEY, &r(1)).await;
    ring.want(&[3, 1, 2]).await;
    ring.change_at(ring.at[3], Command::Begin { partitions: vec![ring.partition] }).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    let waiting = ring.says(3).await.expect("it takes part");
    assert_eq!((waiting.done, waiting.waits_for), (false, Some(ring.at[0].0)));
    ring.cluster.heal();
    tokio::time::sleep(Duration::from_secs(150)).await;
    ring.until_done(3).await;
    assert!(ring.cluster.state(ring.at[3], KEY).is_some(), "copied when it was mended");
}
