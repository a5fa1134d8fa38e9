//! What an operator reads before a change, and in which order its moves begin.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use atoll_ring::{
    Balance, ClusterId, Command, Entry, Epoch, Member, MemberState, MoveLimits, NodeId, NodeShare,
    Owners, Partition, Partitions, PlacementWarning, Plan, Rejected, View, Wish, leaving,
    next_moves, seats,
};

fn member(id: u32, zone: &str) -> Member {
    Member {
        id: NodeId(id),
        incarnation: 1,
        address: ([10, 0, (id >> 8) as u8, id as u8], 4000).into(),
        zone: zone.to_owned(),
        weight: 1,
        state: MemberState::Active,
    }
}

fn cluster(partitions: u32, replicas: u8, zones: &[&str]) -> View {
    let members = zones.iter().zip(1..).map(|(zone, id)| member(id, zone)).collect();
    let partitions = Partitions::new(partitions).unwrap();
    View::create(ClusterId([7; 16]), partitions, replicas, members).unwrap().0
}

fn apply(view: &View, command: Command) -> Result<View, Rejected> {
    view.apply(&Entry { epoch: Epoch(view.epoch().0 + 1), at_ms: 1000, command })
}

/// With a node that has registered: weight 1, in this zone.
fn registered(view: &View, id: u32, zone: &str, weight: u32) -> View {
    let (invitation, node) = ([id as u8; 16], NodeId(id));
    let invite = Command::Invite { invitation, node, expires_ms: 2000 };
    let address = member(id, zone).address;
    let zone = zone.to_owned();
    let register = Command::Register { invitation, node, address, zone, weight };
    apply(&apply(view, invite).unwrap(), register).unwrap()
}

/// Commits the plan, begins everything that waits, finishes it, and so on to the end.
fn settle(mut view: View) -> View {
    loop {
        let begin: Vec<Partition> = view.wanted().keys().copied().collect();
        let free: Vec<Partition> =
            begin.into_iter().filter(|p| !view.moves().contains_key(p)).collect();
        if !free.is_empty() {
            view = apply(&view, Command::Begin { partitions: free }).unwrap();
        }
        let going: Vec<_> = view.moves().keys().map(|p| (*p, view.last_changed(*p))).collect();
        if going.is_empty() {
            return view;
        }
        view = apply(&view, Command::Finish { partitions: going }).unwrap();
    }
}

fn owners(view: &View, partition: Partition) -> &[NodeId] {
    match view.owners(partition) {
        Owners::One(owners) => owners,
        Owners::Joint { .. } => panic!("{partition} moves"),
    }
}

fn table(view: &View) -> Vec<Vec<NodeId>> {
    view.partitions().all().map(|partition| owners(view, partition).to_vec()).collect()
}

fn share(plan: &Plan, node: u32) -> NodeShare {
    *plan.nodes.iter().find(|share| share.node == NodeId(node)).unwrap()
}

const ALL_UP: fn(NodeId) -> bool = |_| true;

/// A fourth node joins three: it gets its share from everybody, one seat per partition moves, who
/// stays keeps the seat, and the command that the plan makes leads there.
#[test]
fn a_join() {
    let view = registered(&cluster(64, 3, &["a"; 3]), 4, "a", 1);
    let plan = Plan::of(&view, &Wish::Join { node: NodeId(4) }).unwrap();
    assert_eq!((plan.base, plan.seats_moved, plan.moves.len()), (Epoch(3), 48, 48));
    assert_eq!(
        share(&plan, 4),
        NodeShare { node: NodeId(4), before: 0, after: 48, incoming: 48, outgoing: 0 }
    );
    for node in 1..=3 {
        assert_eq!(
            share(&plan, node),
            NodeShare { node: NodeId(node), before: 64, after: 48, incoming: 0, outgoing: 16 }
        );
    }
    let before = Balance { fullest: NodeId(1), holds: 64, percent: 100 };
    assert_eq!(plan.balance_before, Some(before));
    assert_eq!(plan.balance_after, Some(Balance { holds: 48, ..before }));
    for (partition, target) in &plan.moves {
        assert_eq!(seats(owners(&view, *partition), target).len(), 1);
    }
    assert_eq!(plan.bytes(&view, |partition| u64::from(partition.0 + 1)), {
        plan.moves.keys().map(|partition| u64::from(partition.0 + 1)).sum::<u64>()
    });
    assert!(matches!(plan.warnings[..], [PlacementWarning::FewPartitions { .. }]));
    let after = settle(apply(&view, plan.command()).unwrap());
    for partition in after.partitions().all() {
        let target = plan.moves.get(&partition).map(Vec::as_slice);
        assert_eq!(owners(&after, partition), target.unwrap_or(owners(&view, partition)));
    }
    let rest = Plan::of(&after, &Wish::Rebalance).unwrap();
    assert!(rest.moves.is_empty(), "what a plan leaves is as the planner would have it");
}

/// A plan goes through a file unchanged, and a file that says too much is refused.
#[test]
fn a_plan_file() {
    let view = registered(&cluster(8, 3, &["a", "a", "b"]), 4, "b", 2);
    let plan = Plan::of(&view, &Wish::Join { node: NodeId(4) }).unwrap();
    assert_eq!(plan.warnings.len(), 3, "{:?}", plan.warnings);
    let text = serde_json::to_string_pretty(&plan).unwrap();
    assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
    let mut file = serde_json::to_value(&plan).unwrap();
    file["moves"]["0"] = serde_json::json!(vec![1; 17]);
    assert!(serde_json::from_value::<Plan>(file).is_err());
}

/// A plan is for one view: any change of the ring in between refuses it.
#[test]
fn a_stale_plan_is_refused() {
    let view = registered(&cluster(8, 3, &["a"; 3]), 4, "a", 1);
    let plan = Plan::of(&view, &Wish::Join { node: NodeId(4) }).unwrap();
    let later = registered(&view, 5, "a", 1);
    assert_eq!(
        apply(&later, plan.command()),
        Err(Rejected::OtherEpoch { made_for: Epoch(3), now: Epoch(5) })
    );
}

/// A leaving node gives everything away, and is still there to answer while it does.
#[test]
fn a_leave() {
    let view = cluster(64, 3, &["a"; 5]);
    let plan = Plan::of(&view, &Wish::Leave { node: NodeId(2) }).unwrap();
    let given = share(&plan, 2);
    assert_eq!((given.after, given.incoming, given.outgoing), (0, 0, given.before));
    assert_eq!(plan.seats_moved, given.before as usize, "nothing else moves");
    let leaving = apply(&view, plan.command()).unwrap();
    assert_eq!(leaving.member(NodeId(2)).unwrap().state, MemberState::Leaving);
    let after = settle(leaving);
    assert!(!table(&after).iter().flatten().any(|owner| *owner == NodeId(2)));
    let gone = apply(&after, Command::Voters { voters: vec![NodeId(1)] }).unwrap();
    let gone = apply(&gone, Command::Retire { node: NodeId(2) }).unwrap();
    assert_eq!(gone.member(NodeId(2)), None);
    assert_eq!(gone.removed()[0].id, NodeId(2));
}

/// A node like the one it replaces takes exactly its seats, in a cluster that is not even besides.
#[test]
fn a_replacement_takes_the_same_seats() {
    let zones = ["a", "a", "b", "b", "c"];
    let view = registered(&cluster(64, 3, &zones), 6, "a", 1);
    // A cancelled join leaves the table uneven.
    let join = Plan::of(&view, &Wish::Join { node: NodeId(6) }).unwrap();
    let mut uneven = apply(&view, join.command()).unwrap();
    let some: Vec<Partition> = join.order[..5].to_vec();
    uneven = apply(&uneven, Command::Begin { partitions: some.clone() }).unwrap();
    let done = some.iter().map(|p| (*p, uneven.last_changed(*p))).collect();
    uneven = apply(&uneven, Command::Finish { partitions: done }).unwrap();
    uneven = registered(&apply(&uneven, Command::Cancel).unwrap(), 7, "b", 1);
    assert!(!Plan::of(&uneven, &Wish::Rebalance).unwrap().moves.is_empty());
    for dead in [false, true] {
        let wish = Wish::Replace { old: NodeId(3), new: NodeId(7), dead };
        let plan = Plan::of(&uneven, &wish).unwrap();
        let after = settle(apply(&uneven, plan.command()).unwrap());
        for (old, new) in table(&uneven).iter().zip(table(&after)) {
            let renamed = old.iter().map(|node| if node.0 == 3 { NodeId(7) } else { *node });
            assert_eq!(renamed.collect::<Vec<_>>(), new);
        }
    }
}

/// A replacement of another weight takes what it can carry, in the seats of the old one first.
#[test]
fn a_lighter_replacement_takes_what_it_can() {
    let mut members: Vec<Member> = (1..=4).map(|id| member(id, "a")).collect();
    members[3].weight = 2;
    let partitions = Partitions::new(64).unwrap();
    let view = View::create(ClusterId([7; 16]), partitions, 3, members).unwrap().0;
    let view = registered(&view, 5, "a", 1);
    let wish = Wish::Replace { old: NodeId(4), new: NodeId(5), dead: false };
    let plan = Plan::of(&view, &wish).unwrap();
    let after = settle(apply(&view, plan.command()).unwrap());
    assert_eq!(share(&plan, 5).after, 48);
    for (old, new) in table(&view).iter().zip(table(&after)) {
        if let Some(seat) = new.iter().position(|node| *node == NodeId(5)) {
            assert_eq!(old[seat], NodeId(4), "{old:?} became {new:?}");
        }
    }
}

/// More replicas and fewer: rows of another length. Who stays keeps the seat where there is one.
#[test]
fn a_change_of_replicas() {
    let view = cluster(64, 3, &["a"; 5]);
    let plan = Plan::of(&view, &Wish::Replicas { replicas: 4 }).unwrap();
    assert_eq!((plan.moves.len(), plan.seats_moved), (64, 64));
    assert_eq!(plan.bytes(&view, |_| 1), 0, "no bucket has keys there");
    for (partition, target) in &plan.moves {
        assert_eq!(target[..3], *owners(&view, *partition), "new owners sit behind the old ones");
        assert_eq!(leaving(owners(&view, *partition), target), []);
    }
    let more = settle(apply(&view, plan.command()).unwrap());
    assert_eq!((more.replicas(), more.bucket_n()), (4, 3));
    let back = Plan::of(&more, &Wish::Replicas { replicas: 3 }).unwrap();
    let fewer = settle(apply(&more, back.command()).unwrap());
    assert!(table(&fewer).iter().all(|owners| owners.len() == 3));
    let even = Balance { fullest: NodeId(1), holds: 39, percent: 102 };
    assert_eq!(Plan::of(&fewer, &Wish::Rebalance).unwrap().balance_before, Some(even));
    for replicas in [0, 2, 6, 17] {
        let refused = Plan::of(&view, &Wish::Replicas { replicas });
        assert_eq!(refused, Err(Rejected::Replicas { replicas, least: 3, most: 5 }));
    }
}

/// A change of replicas, or a burial, that is cancelled leaves rows of another length, or with a dead owner. The view counts
/// them when nothing is under way that mends them, and a rebalance does.
#[test]
fn what_a_cancelled_change_leaves() {
    let view = cluster(64, 3, &["a"; 5]);
    assert_eq!(view.left_over(), 0);
    for (wish, left_at_once) in [
        (Wish::Replicas { replicas: 5 }, 64),
        (
            Wish::RemoveDead { node: NodeId(2) },
            share(&Plan::of(&view, &Wish::Rebalance).unwrap(), 2).before as usize,
        ),
    ] {
        let plan = Plan::of(&view, &wish).unwrap();
        let wanting = apply(&view, plan.command()).unwrap();
        assert_eq!(wanting.left_over(), 0, "all of it is under way");
        let some = plan.order[..10].to_vec();
        let begun = apply(&wanting, Command::Begin { partitions: some.clone() }).unwrap();
        let done = some[..4].iter().map(|at| (*at, begun.last_changed(*at))).collect();
        let moved = apply(&begun, Command::Finish { partitions: done }).unwrap();
        let cancelled = apply(&moved, Command::Cancel).unwrap();
        assert_eq!(cancelled.left_over(), left_at_once - 4);
        let rest = Plan::of(&cancelled, &Wish::Rebalance).unwrap();
        assert_eq!(settle(apply(&cancelled, rest.command()).unwrap()).left_over(), 0);
    }
}

/// A node dies while another joins. Partitions on their way arrive first where the dead one is not
/// the one that joins, and what it owned there moves on afterwards; partitions on their way to the
/// dead one stay where they were.
#[test]
fn a_death_during_a_join() {
    let view = registered(&cluster(64, 3, &["a"; 4]), 5, "a", 1);
    let join = Plan::of(&view, &Wish::Join { node: NodeId(5) }).unwrap();
    let mut joining = apply(&view, join.command()).unwrap();
    joining = apply(&joining, Command::Begin { partitions: join.order[..20].to_vec() }).unwrap();
    for dead in [2, 5] {
        let dead = NodeId(dead);
        let plan = Plan::of(&joining, &Wish::RemoveDead { node: dead }).unwrap();
        let buried = apply(&joining, plan.command()).unwrap();
        for (partition, going) in joining.moves() {
            let goes_on = buried.moves().contains_key(partition);
            assert_eq!(goes_on, dead != NodeId(5), "who joins is dead: nothing arrives");
            if goes_on && going.target.contains(&dead) {
                assert!(buried.wanted().contains_key(partition), "it waits behind");
                let (begin, _) = next_moves(&buried, MoveLimits { per_node: 64 }, ALL_UP);
                assert!(!begin.contains(partition));
                let begun = apply(&buried, Command::Begin { partitions: vec![*partition] });
                assert!(matches!(begun, Err(Rejected::BadMove { .. })));
            }
        }
        let after = settle(buried);
        assert!(!table(&after).iter().flatten().any(|owner| *owner == dead));
        assert!(Plan::of(&after, &Wish::Rebalance).unwrap().moves.is_empty());
    }
}

/// What cannot be wished.
#[test]
fn refused_wishes() {
    let view = registered(&cluster(8, 3, &["a"; 3]), 4, "a", 1);
    let check = |wish: Wish, error: Rejected| assert_eq!(Plan::of(&view, &wish), Err(error));
    let few = Rejected::TooFewLeft { left: 2, replicas: 3 };
    check(Wish::Leave { node: NodeId(1) }, few.clone());
    check(Wish::RemoveDead { node: NodeId(1) }, few);
    check(Wish::Leave { node: NodeId(9) }, Rejected::NoMember { node: NodeId(9) });
    check(Wish::Reweight { node: NodeId(1), weight: 0 }, Rejected::WeightZero { node: NodeId(1) });
    let joined = apply(&view, Plan::of(&view, &Wish::Join { node: NodeId(4) }).unwrap().command());
    let busy = Plan::of(&joined.unwrap(), &Wish::Rebalance);
    assert_eq!(busy, Err(Rejected::Busy { moves: 6 }));
}

/// No node gives or takes in more partitions at a time than it may, everything is begun in the end,
/// and the same view gives the same answer.
#[test]
fn limits_per_node() {
    for per_node in [1, 2, 8] {
        let limits = MoveLimits { per_node };
        let mut view = registered(&cluster(64, 3, &["a", "a", "b", "b", "c", "c"]), 7, "a", 1);
        let plan = Plan::of(&view, &Wish::Join { node: NodeId(7) }).unwrap();
        view = apply(&view, plan.command()).unwrap();
        let mut rounds = 0;
        while !view.wanted().is_empty() {
            let (begin, skipped) = next_moves(&view, limits, ALL_UP);
            assert_eq!(next_moves(&view, limits, ALL_UP), (begin.clone(), skipped.clone()));
            assert_eq!(skipped, []);
            view = apply(&view, Command::Begin { partitions: begin }).unwrap();
            let mut busy: BTreeMap<NodeId, usize> = BTreeMap::new();
            for partition in view.moves().keys() {
                let Owners::Joint { old, new } = view.owners(*partition) else { panic!() };
                let joining = seats(old, new).into_iter().map(|(_, joins)| joins);
                let nodes: BTreeSet<NodeId> =
                    leaving(old, new).into_iter().chain(joining).collect();
                for node in nodes {
                    *busy.entry(node).or_default() += 1;
                }
            }
            assert!(busy.values().all(|busy| *busy <= per_node), "{busy:?}");
            assert_eq!(next_moves(&view, limits, ALL_UP).0, [], "as many as may be");
            // One arrives, so one more may begin.
            let (first, _) = view.moves().first_key_value().unwrap();
            let done = vec![(*first, view.last_changed(*first))];
            view = apply(&view, Command::Finish { partitions: done }).unwrap();
            rounds += 1;
        }
        assert!(rounds <= plan.moves.len());
        assert_eq!(next_moves(&view, MoveLimits { per_node: 0 }, ALL_UP), (vec![], vec![]));
    }
}

/// Design, section 6: "a node that is down never freezes a move it does not leave". Those it leaves
/// or joins are named, and wait until it is back or declared dead; then every other old owner is
/// asked instead.
#[test]
fn nodes_that_are_down() {
    let view = registered(&cluster(64, 3, &["a"; 5]), 6, "a", 1);
    let plan = Plan::of(&view, &Wish::Join { node: NodeId(6) }).unwrap();
    let view = apply(&view, plan.command()).unwrap();
    let limits = MoveLimits { per_node: 64 };
    let all = next_moves(&view, limits, ALL_UP).0;
    for down in 1..=6 {
        let down = NodeId(down);
        let (begin, skipped) = next_moves(&view, limits, |node| node != down);
        let named: BTreeSet<Partition> = skipped.iter().map(|(partition, _)| *partition).collect();
        for partition in &all {
            let (old, new) = (owners(&view, *partition), &view.wanted()[partition]);
            let waits = leaving(old, new).contains(&down) || !old.contains(&down) && down.0 == 6;
            assert_eq!((named.contains(partition), begin.contains(partition)), (waits, !waits));
        }
        assert!(skipped.iter().all(|(_, node)| *node == down));
    }
    // n2 is declared dead: all it owns is urgent, and needs every other old owner. A cancelled join
    // gives the plan more to do than that.
    let view = registered(&apply(&view, Command::Cancel).unwrap(), 7, "a", 1);
    let join = Plan::of(&view, &Wish::Join { node: NodeId(7) }).unwrap();
    let view = apply(&view, join.command()).unwrap();
    let burial = Plan::of(&view, &Wish::RemoveDead { node: NodeId(2) }).unwrap();
    let view = apply(&view, burial.command()).unwrap();
    let is_urgent = |partition: &Partition| owners(&view, *partition).contains(&NodeId(2));
    let (begin, skipped) = next_moves(&view, limits, |node| node != NodeId(2));
    assert_eq!(skipped, []);
    assert!(is_urgent(&begin[0]) && !is_urgent(begin.last().unwrap()));
    assert!(begin.is_sorted_by_key(|partition| !is_urgent(partition)));
    // The dead one does nothing, so its limit is not what the others wait for.
    let (few, _) = next_moves(&view, MoveLimits { per_node: 4 }, |node| node != NodeId(2));
    assert!(few.iter().filter(|partition| is_urgent(partition)).count() > 4, "{few:?}");
    let (begin, skipped) = next_moves(&view, limits, |node| ![2, 3].contains(&node.0));
    let named: BTreeSet<Partition> = skipped.iter().map(|(partition, _)| *partition).collect();
    assert!(skipped.iter().all(|(_, node)| *node == NodeId(3)));
    for partition in view.wanted().keys() {
        let (old, new) = (owners(&view, *partition), &view.wanted()[partition]);
        let n3 = NodeId(3);
        let takes_part = leaving(old, new).contains(&n3) || new.contains(&n3) && !old.contains(&n3);
        let waits = takes_part || is_urgent(partition) && old.contains(&n3);
        assert_eq!((named.contains(partition), begin.contains(partition)), (waits, !waits));
    }
    let stands_by = |at: &&Partition| view.wanted()[at].contains(&NodeId(3)) && is_urgent(at);
    assert!(named.iter().any(|at| stands_by(&at) && owners(&view, *at).contains(&NodeId(3))));
}

/// Seats by example.
#[test]
fn seats_and_who_leaves_them() {
    let nodes = |ids: &[u32]| ids.iter().map(|id| NodeId(*id)).collect::<Vec<_>>();
    let check = |old: &[u32], new: &[u32], taken: &[(u32, u32)], left: &[u32]| {
        let taken: Vec<_> = taken
            .iter()
            .map(|(held, joins)| ((*held > 0).then_some(NodeId(*held)), NodeId(*joins)))
            .collect();
        assert_eq!(seats(&nodes(old), &nodes(new)), taken);
        assert_eq!(leaving(&nodes(old), &nodes(new)), nodes(left));
    };
    check(&[1, 2, 3], &[1, 4, 3], &[(2, 4)], &[2]);
    check(&[1, 2, 3], &[1, 2, 3, 4], &[(0, 4)], &[]); // nobody sat there
    check(&[1, 2, 3], &[1, 2], &[], &[3]); // the seat is gone
    check(&[1, 2, 3], &[3, 2], &[(1, 3)], &[1, 3]);
    check(&[1, 2], &[2, 1], &[(1, 2), (2, 1)], &[1, 2]); // a bucket of one copy moves, too
}

/// A large cluster: what a plan costs. Run it in release mode with `--nocapture`; nothing is
/// promised about time here.
#[test]
#[ignore = "a measurement: cargo test --release -p atoll-ring --test plan -- --ignored --nocapture"]
#[expect(clippy::disallowed_methods, reason = "it measures")]
fn measure_a_thousand_nodes() {
    let zones: Vec<String> = (0..1000).map(|node| format!("z{}", node % 5)).collect();
    let zones: Vec<&str> = zones.iter().map(String::as_str).collect();
    let view = registered(&cluster(32_768, 3, &zones), 1001, "z0", 1);
    for wish in [
        Wish::Join { node: NodeId(1001) },
        Wish::Leave { node: NodeId(7) },
        Wish::RemoveDead { node: NodeId(7) },
        Wish::Replace { old: NodeId(8), new: NodeId(1001), dead: true },
        Wish::Replicas { replicas: 4 },
    ] {
        let began = Instant::now();
        let plan = Plan::of(&view, &wish).unwrap();
        let planned = began.elapsed();
        let wanting = apply(&view, plan.command()).unwrap();
        let applied = began.elapsed() - planned;
        let (begin, _) = next_moves(&wanting, MoveLimits { per_node: 4 }, ALL_UP);
        let chosen = began.elapsed() - planned - applied;
        println!(
            "{wish:?}: {} seats, planned in {planned:?}, applied in {applied:?}, {} of them \
             chosen in {chosen:?}",
            plan.seats_moved,
            begin.len(),
        );
        assert!(!begin.is_empty());
    }
}
