//! What no row of commands can do to a ring, sensible or not.
//!
//! Some 1,400 random rows of up to 60 commands are applied; most commands are refused. After each that was
//! taken the new view is compared with the one before: what may never happen did not happen. At the
//! end everything arrives, and the ring is as even as a planner can make it.

use std::collections::BTreeSet;

use atoll_ring::{
    ClusterId, Command, Entry, Epoch, Member, MemberState, MoveLimits, Needs, NodeId, Outcome,
    Owners, Partition, Partitions, Plan, Rejected, Tally, View, Vote, Wish, next_moves,
};
use proptest::prelude::*;

#[path = "placement/ideal.rs"]
#[expect(dead_code, reason = "shared with the tests of placement, which need more of it")]
mod ideal;

use ideal::{Ideal, check_valid, held};

const PARTITIONS: u32 = 16;
const NOW_MS: u64 = 1_000_000;

fn cluster(nodes: u32, replicas: u8) -> View {
    let members = (1..=nodes).map(|id| Member { address: address(id), ..member(id) }).collect();
    let partitions = Partitions::new(PARTITIONS).unwrap();
    View::create(ClusterId([7; 16]), partitions, replicas, members).unwrap().0
}

fn member(id: u32) -> Member {
    ideal::member(id, id as usize % 2, 1)
}

fn address(id: u32) -> std::net::SocketAddr {
    ([10, 0, (id >> 8) as u8, id as u8], 7400).into()
}

fn next(view: &View, command: Command) -> Entry {
    Entry { epoch: Epoch(view.epoch().0 + 1), at_ms: NOW_MS, command }
}

fn apply(view: &View, command: Command) -> Result<View, Rejected> {
    view.apply(&next(view, command))
}

/// One step of a random row: what kind, and three numbers to choose with.
type Step = (u8, u8, u8, u8);

/// A ring with all that was ever seen in it.
struct Ring {
    view: View,
    ids: BTreeSet<NodeId>,
    actors: BTreeSet<(NodeId, u32)>,
    /// Pairs of stages whose quorums were found to meet.
    meeting: BTreeSet<Vec<Vec<usize>>>,
    taken: usize,
    refused: usize,
}

impl Ring {
    fn new(view: View) -> Ring {
        let ids = view.members().iter().map(|member| member.id).collect();
        let actors = view.members().iter().map(|m| (m.id, m.incarnation)).collect();
        Ring { view, ids, actors, meeting: BTreeSet::new(), taken: 0, refused: 0 }
    }

    fn node(&self, choice: u8) -> NodeId {
        let highest = self.ids.last().expect("a cluster has members").0;
        NodeId(1 + u32::from(choice) % (highest + 2))
    }

    fn wish(&self, kind: u8, a: u8, b: u8) -> Wish {
        let node = self.node(a);
        match kind % 9 {
            0 | 1 => Wish::Join { node },
            2 => Wish::Leave { node },
            3 => Wish::RemoveDead { node },
            4 => Wish::Replace { old: node, new: self.node(b), dead: false },
            5 => Wish::Replace { old: node, new: self.node(b), dead: true },
            6 => Wish::Reweight { node, weight: u32::from(b % 5) },
            7 => Wish::Rezone { node, zone: "z".repeat(usize::from(b % 3)) },
            _ if a.is_multiple_of(2) => Wish::Replicas { replicas: b % 6 },
            _ => Wish::Rebalance,
        }
    }

    /// What the step asks for. A planner that refuses is a refusal, too.
    fn command(&self, (kind, a, b, c): Step) -> Result<Command, Rejected> {
        let invitation = [a; 16];
        let partition = Partition(u16::from(b) % (PARTITIONS as u16 + 1));
        Ok(match kind % 20 {
            0 => Command::Invite {
                invitation,
                node: self.node(b),
                expires_ms: NOW_MS + u64::from(c) - 20,
            },
            1 | 2 => {
                // Mostly one that is open.
                let open = self.view.invitations().get(usize::from(c) % 3);
                let (invitation, node) =
                    open.map_or((invitation, self.node(b)), |open| (open.id, open.node));
                let (address, zone) = (address(node.0), format!("z{}", b % 3));
                Command::Register { invitation, node, address, zone, weight: u32::from(a % 4) }
            }
            3..=8 => self.plan(&self.wish(a, b, c))?.command(),
            9 => {
                // A plan that somebody has edited.
                let mut plan = self.plan(&self.wish(a, b, c))?;
                if c.is_multiple_of(2) {
                    plan.moves.pop_first();
                } else {
                    plan.moves.insert(partition, vec![self.node(a), self.node(c)]);
                }
                plan.base.0 -= u64::from(c.is_multiple_of(5));
                plan.command()
            }
            10..=12 => {
                let limits = MoveLimits { per_node: usize::from(a % 4) };
                let partitions = next_moves(&self.view, limits, |_| true).0;
                if partitions.is_empty() {
                    return Ok(self.plan(&self.wish(a, b, c))?.command());
                }
                Command::Begin { partitions }
            }
            13 => Command::Begin { partitions: vec![partition] },
            14 | 15 => {
                let some = self.view.moves().keys().skip(usize::from(a % 3)).take(usize::from(b));
                let sessions = some.map(|at| (*at, self.view.last_changed(*at)));
                Command::Finish { partitions: sessions.collect() }
            }
            16 => {
                // A copy of this move or of an older one.
                let session = Epoch(self.view.last_changed(Partition(0)).0 - u64::from(a % 2));
                let partition = Partition(0);
                Command::Finish { partitions: vec![(partition, session)] }
            }
            17 if a.is_multiple_of(4) => Command::Cancel,
            17 => Command::Recovered { by: self.node(b) },
            18 if a.is_multiple_of(2) => {
                Command::Incarnation { node: self.node(b), incarnation: u32::from(c % 4) }
            }
            18 => Command::Voters { voters: vec![self.node(b), self.node(c)] },
            _ => {
                let going = |member: &&Member| member.state != MemberState::Active;
                let going = self.view.members().iter().filter(going).nth(usize::from(b % 2));
                Command::Retire { node: going.map_or(self.node(a), |member| member.id) }
            }
        })
    }

    /// Plans, and compares with the best there is: valid, as even as can be, and no table moves
    /// less.
    fn plan(&self, wish: &Wish) -> Result<Plan, Rejected> {
        let plan = Plan::of(&self.view, wish)?;
        let granted = apply(&self.view, plan.command()).expect("a fresh plan is taken");
        let before: Vec<Vec<NodeId>> =
            granted.partitions().all().map(|at| granted.settled(at).to_vec()).collect();
        let mut after = before.clone();
        for (partition, target) in &plan.moves {
            after[partition.index()].clone_from(target);
        }
        let members: Vec<Member> = granted.eligible().cloned().collect();
        let ideal = check_valid(&members, PARTITIONS as usize, granted.replicas().into(), &after);
        let takes_all_seats = matches!(wish, Wish::Replace { .. });
        if !takes_all_seats {
            ideal.check_shares(&after);
            assert!(!ideal.less_could_move(&before, &after));
        }
        Ok(plan)
    }

    fn step(&mut self, step: Step) {
        let Ok(command) = self.command(step) else {
            self.refused += 1;
            return;
        };
        let entry = next(&self.view, command);
        match self.view.apply(&entry) {
            Ok(after) => {
                self.taken += 1;
                self.compare(&entry.command, &after);
                self.view = after;
            }
            Err(_) => self.refused += 1,
        }
    }

    fn compare(&mut self, command: &Command, after: &View) {
        let before = &self.view;
        assert_eq!(after.epoch().0, before.epoch().0 + 1);
        if let Command::Register { node, .. } = command {
            assert!(self.ids.insert(*node), "{node} was somebody before");
        }
        for member in after.members() {
            let known = before.member(member.id);
            if known.is_none_or(|known| known.incarnation != member.incarnation) {
                let actor = (member.id, member.incarnation);
                assert!(self.actors.insert(actor), "{actor:?} lived before");
            }
            assert!(!after.removed().iter().any(|gone| gone.id == member.id));
        }
        assert!(before.removed().iter().all(|gone| after.removed().contains(gone)), "for ever");
        for voter in after.voters() {
            assert!(after.member(*voter).is_some());
        }
        let mut changed = Vec::new();
        for partition in after.partitions().all() {
            let (old, new) = (before.owners(partition), after.owners(partition));
            let is_changed = old != new;
            let last = if is_changed { after.epoch() } else { before.last_changed(partition) };
            assert_eq!(after.last_changed(partition), last, "the fence is where the change is");
            for set in sets(new) {
                let distinct: BTreeSet<&NodeId> = set.iter().collect();
                assert_eq!(distinct.len(), set.len());
                assert!(set.len() >= usize::from(after.bucket_n()));
            }
            if is_changed {
                changed.push((sets(old), sets(new)));
                match (old, new) {
                    (Owners::One(old), Owners::Joint { old: stays, .. }) => assert_eq!(old, stays),
                    (Owners::Joint { old, new: target }, Owners::One(alone)) => {
                        // Nobody stands alone who was not in joint before.
                        assert!(alone == target || alone == old);
                    }
                    (Owners::One(_), Owners::One(_))
                    | (Owners::Joint { .. }, Owners::Joint { .. }) => {
                        panic!("{command:?} skipped a stage of {partition}: {old:?} to {new:?}")
                    }
                }
            }
            let wanted = after.wanted().get(&partition).map(Vec::as_slice);
            assert_ne!(wanted, Some(after.settled(partition)), "it is there");
            let last = wanted.unwrap_or(after.settled(partition));
            if !after.wanted().is_empty() || !after.moves().is_empty() {
                for owner in last {
                    let state = after.member(*owner).unwrap().state;
                    assert_eq!(state, MemberState::Active, "{owner} is to keep {partition}");
                }
            }
        }
        let most = after.bucket_n();
        for (old, new) in changed {
            self.check_meeting(&old, &new, most);
        }
    }

    /// Every write that wins in one stage meets every read that wins in the next, and the other way
    /// round, for every n of every bucket and every R+W>N.
    fn check_meeting(&mut self, old: &[Vec<NodeId>], new: &[Vec<NodeId>], most: u8) {
        let mut names: Vec<NodeId> = old.iter().chain(new).flatten().copied().collect();
        names.sort_unstable();
        names.dedup();
        let named =
            |set: &Vec<NodeId>| set.iter().map(|n| names.binary_search(n).unwrap()).collect();
        let pattern: Vec<Vec<usize>> =
            old.iter().map(named).chain([vec![99]]).chain(new.iter().map(named)).collect();
        if !self.meeting.insert(pattern) {
            return;
        }
        for n in 1..=most {
            for w in 1..=n {
                let r = n - w + 1; // the smallest of those with R+W>N
                for (one, other) in [(old, new), (new, old)] {
                    let (writes, reads) =
                        (winning(&names, one, n, w), winning(&names, other, n, r));
                    assert!(writes.iter().all(|write| reads.iter().all(|read| write & read != 0)));
                }
            }
        }
    }

    /// Everything arrives, and is then as even as can be.
    fn settle(&mut self) {
        loop {
            while !self.view.wanted().is_empty() || !self.view.moves().is_empty() {
                let limits = MoveLimits { per_node: 2 };
                let partitions = next_moves(&self.view, limits, |_| true).0;
                let command = if partitions.is_empty() {
                    let moves = self.view.moves().keys();
                    let sessions = moves.map(|at| (*at, self.view.last_changed(*at)));
                    Command::Finish { partitions: sessions.collect() }
                } else {
                    Command::Begin { partitions }
                };
                let after = apply(&self.view, command.clone()).expect("what is wanted can be");
                self.compare(&command, &after);
                self.view = after;
            }
            let rest = self.plan(&Wish::Rebalance).expect("nothing moves");
            if rest.moves.is_empty() {
                break;
            }
            self.view = apply(&self.view, rest.command()).unwrap();
        }
        let table = table(&self.view);
        let members: Vec<Member> = self.view.eligible().cloned().collect();
        let replicas = self.view.replicas().into();
        check_valid(&members, PARTITIONS as usize, replicas, &table).check_shares(&table);
    }
}

fn table(view: &View) -> Vec<Vec<NodeId>> {
    view.partitions().all().map(|at| sets(view.owners(at)).remove(0)).collect()
}

fn sets(owners: Owners<'_>) -> Vec<Vec<NodeId>> {
    match owners {
        Owners::One(set) => vec![set.to_vec()],
        Owners::Joint { old, new } => vec![old.to_vec(), new.to_vec()],
    }
}

/// All sets of nodes, as bits, whose answers win.
fn winning(names: &[NodeId], sets: &[Vec<NodeId>], n: u8, needed: u8) -> Vec<u32> {
    let owners = match sets {
        [one] => Owners::One(one),
        [old, new] => Owners::Joint { old, new },
        _ => panic!("one or two sets"),
    };
    let wins = |chosen: &u32| {
        let needs = Needs { acks: needed, owners: needed, durable: 0 };
        let mut tally = Tally::new(owners.first(n), needs, false);
        for (index, node) in names.iter().enumerate() {
            if chosen >> index & 1 == 1 {
                tally.add(*node, Vote::Durable);
            }
        }
        tally.outcome() == Outcome::Won
    };
    (0..1 << names.len()).filter(wins).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any row of commands.
    #[test]
    fn no_row_of_commands_breaks_a_ring(
        nodes in 3..6_u32,
        replicas in 1..4_u8,
        steps in prop::collection::vec(any::<Step>(), 0..60),
    ) {
        let mut ring = Ring::new(cluster(nodes, replicas));
        for step in steps {
            ring.step(step);
        }
        ring.settle();
    }
}

/// The rows above are worth something: a fixed lot of them takes every kind of command, and refuses
/// many.
#[test]
fn the_rows_reach_everywhere() {
    let mut number = 1_u32;
    let mut byte = || {
        number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (number >> 24) as u8
    };
    let mut kinds = [0_usize; 20];
    let (mut taken, mut refused, mut joint_twice) = (0, 0, 0);
    for row in 0..400 {
        let mut ring = Ring::new(cluster(3 + row % 3, 1 + (row % 3) as u8));
        for _ in 0..60 {
            let step = (byte(), byte(), byte(), byte());
            let before = ring.taken;
            ring.step(step);
            kinds[usize::from(step.0 % 20)] += ring.taken - before;
            let behind = |at: &Partition| ring.view.moves().contains_key(at);
            joint_twice += usize::from(ring.view.wanted().keys().any(behind));
        }
        ring.settle();
        taken += ring.taken;
        refused += ring.refused;
    }
    println!("taken {taken} {kinds:?}, refused {refused}, waiting behind a move {joint_twice}");
    assert!(kinds.iter().all(|taken| *taken > 10), "{kinds:?}");
    assert!(refused > taken / 4 && joint_twice > 50, "{joint_twice}");
}

/// Three nodes join four, in every order, and one leaves at some time: the nodes end with the same
/// numbers of partitions, whoever came first. Which partitions those are depends on the order, for
/// what is there stays there.
#[test]
fn the_order_of_joins_does_not_matter_for_balance() {
    let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    let mut counts = BTreeSet::new();
    for order in orders {
        for leave_after in 0..=3 {
            let mut ring = Ring::new(cluster(4, 3));
            for (index, extra) in order.into_iter().enumerate() {
                if index == leave_after {
                    let plan = ring.plan(&Wish::Leave { node: NodeId(1) }).unwrap();
                    ring.view = apply(&ring.view, plan.command()).unwrap();
                    ring.settle();
                }
                let node = NodeId(10 + extra);
                let invitation = [extra as u8; 16];
                let invite = Command::Invite { invitation, node, expires_ms: NOW_MS };
                let (address, zone) = (address(node.0), member(node.0).zone);
                let register = Command::Register { invitation, node, address, zone, weight: 1 };
                ring.view = apply(&apply(&ring.view, invite).unwrap(), register).unwrap();
                let plan = ring.plan(&Wish::Join { node }).unwrap();
                ring.view = apply(&ring.view, plan.command()).unwrap();
                ring.settle();
            }
            if leave_after == 3 {
                let plan = ring.plan(&Wish::Leave { node: NodeId(1) }).unwrap();
                ring.view = apply(&ring.view, plan.command()).unwrap();
                ring.settle();
            }
            let members: Vec<Member> = ring.view.eligible().cloned().collect();
            let table = table(&ring.view);
            let ideal = Ideal::new(&members, 3);
            let mut held = held(&table, &members);
            held.sort_unstable();
            let zones: Vec<usize> = members.iter().map(|member| ideal.zone(member.id)).collect();
            counts.insert((held, zones));
        }
    }
    assert_eq!(counts.len(), 1, "{counts:?}");
}
