//! The story of one run, from a seed to a verdict.
//!
//! **Safety**: clients ask and faults happen, together, for a minute or two of virtual time. **Liveness**: all faults end,
//! clients stop, the ring comes to rest within [`AT_REST_WITHIN`], and within [`SETTLED_WITHIN`] everything must be equal by
//! itself: owners hold the same states, nobody keeps a hint, nothing is in doubt. Then every key is read once more, the disks
//! are dumped, and the judges read the history.

use std::{cell::RefCell, collections::BTreeMap, sync::OnceLock, time::Duration};

use atoll_node::{
    HintLimits,
    canary::Canary,
    storage::{Space, rows},
};
use atoll_ring::{Command, MemberState, NodeId, View};
use atoll_transport::chance::Chance;
use bytes::Bytes;
use futures_util::future::{Either, join_all, join4, select};
use tokio::time::Instant;

use crate::{
    atlas, buckets,
    cluster::{Cluster, Lies, SECOND_KEYS, key_of, read},
    faults::Kind,
    figures::Figures,
    kinds,
    mischief::Mischief,
    operator::Operator,
    recorder::{Record, Recorder},
    session::{CLIENTS_FROM, Session},
    world::World,
};

/// How long repair may take when faults are over. The longest single wait in a node is that of a hint that its owner has
/// refused again and again: a minute. A round of comparisons takes 12 s; what the first one leaves in doubt the second one
/// ends, or the third.
pub const SETTLED_WITHIN: Duration = Duration::from_secs(120);

/// How long the ring may take to come to rest when faults are over, before that.
pub const AT_REST_WITHIN: Duration = Duration::from_secs(180);

/// Keys that are written seldom: what is lost of them is not soon written anew.
pub const SELDOM: [&str; 3] = ["x", "y", "z"];

/// Who reads every key of the other kinds once more.
const LAST_READER: u32 = 900;

/// How often to look whether everything is equal.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What a run shall be.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Faults that may happen.
    pub kinds: Vec<Kind>,
    /// Whether clients use values of all kinds, and some work in sessions. Else only registers, and nobody does.
    pub all_kinds: bool,
    /// A deliberate bug.
    pub canary: Option<Canary>,
    /// Print what happens while it does.
    pub aloud: bool,
}

/// What came of a run.
pub struct Verdict {
    /// Which one.
    pub seed: u64,
    /// Broken promises; none, if all is well.
    pub broken: Vec<String>,
    /// How much happened.
    pub figures: Figures,
    /// What happened.
    pub record: Record,
}

/// Lives through a seed.
pub fn run(seed: u64, settings: &Settings) -> Verdict {
    if let Some(begin) = ON_BEGIN.get() {
        begin(seed);
    }
    atoll_node::canary::set(settings.canary);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    let verdict = runtime.block_on(story(seed, settings));
    atoll_node::canary::set(None);
    verdict
}

/// Called with the seed on the thread of each run that begins from now on. Only the first one who asks is told.
pub fn on_begin(tell: fn(u64)) {
    let _ = ON_BEGIN.set(tell);
}

static ON_BEGIN: OnceLock<fn(u64)> = OnceLock::new();

async fn story(seed: u64, settings: &Settings) -> Verdict {
    // neighbouring seeds shall have nothing in common
    let mut chance = Chance::of_seed(Chance::of_seed(seed ^ 0xa701).draw());
    let nodes = chance.of(&[5, 5, 5, 4, 6, 3]);
    let limits = HintLimits {
        // room for all, or for a state or two of one key
        bytes_per_owner_max: chance.of(&[u64::MAX, u64::MAX, 5000, 150, 150]),
        away_max: Duration::from_secs(chance.of(&[100_000, 100_000, 6])),
    };
    let cluster = Cluster::new(nodes, limits, &mut chance);
    let keys = ["a", "b", "c", "d"][..chance.between(2, 4) as usize].iter();
    let keys: Vec<String> =
        keys.chain(&SELDOM).chain(&SECOND_KEYS).map(|key| (*key).to_owned()).collect();
    let sessions = chance.between(3, 6) as u32;
    let drawn = drawn_kinds(&mut chance, &settings.kinds);
    let fault_pause_ms = chance.of(&[800, 2500, 6000]);
    let session_pause_ms = chance.of(&[100, 400, 1200]);
    let phase = Duration::from_secs(chance.of(&[20, 30, 40, 90]));

    let mut recorder = Recorder::new(cluster.network.clone(), settings.aloud);
    recorder.say(format_args!(
        "seed {seed}: {nodes} nodes, {sessions} sessions, {} keys, {limits:?}, faults {drawn:?}",
        keys.len()
    ));
    let world = RefCell::new(World::new(cluster, recorder, keys));
    let changes = drawn.contains(&Kind::Ring);
    let clients = sessions + 2 + if settings.all_kinds { kinds::CLIENTS + 1 } else { 0 };
    let mut mischief = Mischief::new(chance.split(), drawn, fault_pause_ms, clients);
    let number = NodeId(CLIENTS_FROM + sessions + 1);
    let ring_pause_ms = chance.of(&[300, 1500, 5000]);
    let mut operator = Operator::new(chance.split(), number, ring_pause_ms, nodes);
    let mut asking: Vec<Session> = (0..sessions)
        .map(|number| Session::new(number, chance.split(), session_pause_ms))
        .collect();
    let last = Session::new(sessions, chance.split(), 1);
    let of_kinds = match settings.all_kinds {
        true => {
            // a source of its own: what registers go through does not depend on it
            let mut chance = Chance::of_seed(Chance::of_seed(seed ^ 0x51de).draw());
            asking.iter_mut().skip(1).step_by(2).for_each(|one| one.work_in_session(&world));
            kinds::clients(&mut world.borrow_mut(), &mut chance, sessions + 2)
        }
        false => Vec::new(),
    };

    mischief.begin(&world).await;
    buckets::make_second(&world, NodeId(CLIENTS_FROM)).await;
    if settings.all_kinds {
        buckets::make_kinds(&world, NodeId(CLIENTS_FROM + sessions + 2)).await;
    }
    let until = Instant::now() + phase;
    let faults = async {
        mischief.run(&world, until).await;
        mischief.end(&world).await;
        world.borrow_mut().is_over = true;
    };
    let changing = async {
        if changes {
            operator.run(&world).await;
        }
    };
    let asked = join_all(asking.into_iter().map(|session| session.run(&world)));
    let counting = join_all(of_kinds.into_iter().map(|client| client.run(&world)));
    join4(faults, changing, asked, counting).await;
    if changes {
        come_to_rest(&world, &mut mischief, &mut operator).await;
    }
    settle(&world, &mut mischief, last).await;

    let mut world = world.into_inner();
    world.dump();
    let traffic = world.cluster.network.traffic();
    let World { recorder, mut figures, mut broken, mut cluster, .. } = world;
    figures.seeds = 1;
    figures.messages = traffic.sent;
    figures.lost = traffic.lost + traffic.cut;
    figures.doubled = traffic.doubled;
    figures.seconds = recorder.now_us() / 1_000_000;
    let entries = cluster.log.entries();
    figures.epochs = entries.len() as u64;
    for entry in &entries {
        if let Command::Finish { partitions } = &entry.command {
            figures.moved += partitions.len() as u64;
        }
    }
    cluster.nodes().into_iter().for_each(|node| cluster.end(node)); // nodes and network hold each other
    let record = recorder.finish();
    let judged = crate::judge::judge(&record.events);
    figures.promised_reads = judged.figures.promised_reads;
    broken.extend(judged.violations.iter().map(ToString::to_string));
    Verdict { seed, broken, figures, record }
}

/// Some runs know one kind of fault or two, most of them many.
fn drawn_kinds(chance: &mut Chance, allowed: &[Kind]) -> Vec<Kind> {
    if allowed.is_empty() {
        return Vec::new();
    }
    match chance.below(8) {
        0 if chance.happens(300) && allowed.contains(&Kind::Ring) => vec![Kind::Ring],
        0 => vec![chance.of(allowed)],
        1 => vec![chance.of(allowed), chance.of(allowed)],
        2 => allowed.to_vec(),
        _ => {
            // the ring changes in every second run
            let share = |kind| if kind == Kind::Ring { 450 } else { 350 };
            let some: Vec<Kind> =
                allowed.iter().copied().filter(|kind| chance.happens(share(*kind))).collect();
            if some.is_empty() { allowed.to_vec() } else { some }
        }
    }
}

/// All wishes end: moves are finished or cancelled, and whoever goes is gone.
async fn come_to_rest(world: &RefCell<World>, mischief: &mut Mischief, operator: &mut Operator) {
    let until = Instant::now() + AT_REST_WITHIN;
    let tending = async {
        loop {
            tokio::time::sleep(LOOK_EVERY / 5).await;
            mischief.tend(world).await;
        }
    };
    let (tidying, tending) = (Box::pin(operator.tidy(world, until)), Box::pin(tending));
    match select(tidying, tending).await {
        Either::Left(_) | Either::Right(_) => {}
    }
    let world = &mut world.borrow_mut();
    let head = world.cluster.head();
    let left = (head.moves().len(), head.wanted().len());
    world.recorder.say(format_args!("the ring rests at epoch {}, {left:?} are left", head.epoch()));
}

/// Waits until everything is equal, and reads it once more.
async fn settle(world: &RefCell<World>, mischief: &mut Mischief, mut last: Session) {
    let begun = Instant::now();
    let keys = world.borrow().keys.clone();
    let mut uneven = Some("not looked yet".to_owned());
    while uneven.is_some() && begun.elapsed() < SETTLED_WITHIN {
        tokio::time::sleep(LOOK_EVERY).await;
        mischief.tend(world).await;
        let hidden = Mischief::keys_with_hidden_damage(&world.borrow());
        for key in hidden {
            if key.contains('/') {
                kinds::read(world, &key, LAST_READER).await;
                continue;
            }
            last.read_all(world, &key).await; // who never reads a record learns of its damage from the scrub, some day
        }
        uneven = unevenness(&world.borrow());
    }
    {
        let world = &mut world.borrow_mut();
        let took = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        world.figures.settled_ms_max = took;
        if let Some(why) = uneven {
            world.breaks(format!("not settled after {SETTLED_WITHIN:?}: {why}"));
        }
        world.recorder.say(format_args!("settled after {took} ms"));
    }
    for key in &keys {
        last.read_all(world, key).await;
    }
    kinds::read_all(world, LAST_READER).await;
    let at_us = world.borrow().recorder.now_us();
    world.borrow_mut().recorder.event(atoll_check::Event::Settled { at_us });
}

/// What is not as it should be when repair is done.
fn unevenness(world: &World) -> Option<String> {
    let cluster = &world.cluster;
    let head = cluster.head();
    let (moves, wanted) = (head.moves().len(), head.wanted().len());
    if moves + wanted > 0 {
        let one = head.moves().keys().chain(head.wanted().keys()).next().expect("there is one");
        let (owners, target) = (head.owners(*one), head.wanted().get(one));
        let members: Vec<String> = head
            .members()
            .iter()
            .map(|member| format!("{} {} up={}", member.id, member.state, cluster.is_up(member.id)))
            .collect();
        return Some(format!(
            "{moves} partitions move and {wanted} shall, such as {one} of {owners:?} to {target:?}; {:?} leads, voters {:?}, {members:?}",
            cluster.log.leader(),
            head.voters(),
        ));
    }
    let settled = [MemberState::Active, MemberState::Joining];
    if let Some(member) = head.members().iter().find(|member| !settled.contains(&member.state)) {
        return Some(format!("{} is {} and has not gone", member.id, member.state));
    }
    if let Some(node) = cluster.nodes().into_iter().find(|node| head.member(*node).is_none()) {
        return Some(format!("{node} was removed, and does not know it or holds the last copy"));
    }
    if let Some(gone) = head.members().iter().find(|member| cluster.is_gone(member.id)) {
        return Some(format!("{} is gone for ever, and still a member", gone.id));
    }
    for node in cluster.nodes() {
        if let Some(stray) = stray(cluster, &head, node) {
            return Some(stray);
        }
        let Some(status) = cluster.status(node) else { return Some(format!("{node} is not up")) };
        if status.epoch != head.epoch().0 {
            return Some(format!("{node} is at epoch {} of {}", status.epoch, head.epoch()));
        }
        if !status.rising.is_empty() {
            return Some(format!("{node} is rising: {}", status.rising));
        }
        if status.hints > 0 {
            return Some(format!("{node} keeps {} hints", status.hints));
        }
        if status.partitions_in_doubt > 0 || status.keys_in_doubt > 0 {
            let (partitions, keys) = (status.partitions_in_doubt, status.keys_in_doubt);
            return Some(format!("{node} doubts {partitions} partitions and {keys} keys"));
        }
    }
    for key in world.all_keys() {
        let mut held: BTreeMap<NodeId, Option<Bytes>> = BTreeMap::new();
        for owner in cluster.owners(key) {
            let rows = atlas::all_rows(&cluster.machine(owner).store, Space::Data);
            let own = rows.iter().find(|(row, _)| *row == cluster.row(key));
            let state = match own.map(|(row, value)| read(Space::Data, row, value)) {
                None => None,
                Some((_, Lies::State(state))) => Some(Bytes::from(state.encode())),
                Some((_, Lies::Damaged)) => return Some(format!("{key} is damaged at {owner}")),
            };
            held.insert(owner, state);
        }
        let mut states = held.values();
        let first = states.next();
        if states.any(|state| Some(state) != first) {
            return Some(format!("the owners of {key} differ"));
        }
    }
    None
}

/// A record that lies where it does not belong: with a node that is none of the first owners of its partition, so many as
/// its bucket has copies.
fn stray(cluster: &Cluster, head: &View, node: NodeId) -> Option<String> {
    let rows = atlas::all_rows(&cluster.machine(node).store, Space::Data);
    let (row, _) = rows.iter().find(|(row, _)| {
        let at = rows::partition_of_data(row).expect("a row of data names its partition");
        !head.owners(at).first(cluster.copies(&cluster.name_of(row))).contains(node)
    })?;
    Some(format!("{node} still holds {} and is none of its keepers", key_of(row)))
}
