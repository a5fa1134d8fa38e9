//! Each rule of the ring that one can break, with what is said then. Whatever is refused changes
//! nothing; `changes.rs` shows that over many rows of commands.

use std::collections::BTreeMap;

use atoll_ring::{
    ClusterId, Command, Entry, Epoch, INVITATIONS_MAX, MEMBERS_MAX, Member, MemberState, NodeId,
    Partition, Partitions, Plan, Rejected, View, Wish,
};

const NOW_MS: u64 = 1_000_000;

fn cluster(nodes: u32) -> View {
    let member = |id: u32| Member {
        id: NodeId(id),
        incarnation: 4,
        address: ([10, 0, (id >> 8) as u8, id as u8], 7400).into(),
        zone: "a".to_owned(),
        weight: 1,
        state: MemberState::Active,
    };
    let partitions = Partitions::new(8).unwrap();
    let members = (1..=nodes).map(member).collect();
    View::create(ClusterId([7; 16]), partitions, 3, members).unwrap().0
}

fn at(view: &View, at_ms: u64, command: Command) -> Result<View, Rejected> {
    view.apply(&Entry { epoch: Epoch(view.epoch().0 + 1), at_ms, command })
}

fn apply(view: &View, command: Command) -> Result<View, Rejected> {
    at(view, NOW_MS, command)
}

fn invite(node: u32) -> Command {
    let invitation = [node as u8; 16];
    Command::Invite { invitation, node: NodeId(node), expires_ms: NOW_MS + 900_000 }
}

fn register(node: u32, last: u8) -> Command {
    Command::Register {
        invitation: [node as u8; 16],
        node: NodeId(node),
        address: ([10, 0, 9, last], 7400).into(),
        zone: "a".to_owned(),
        weight: 1,
    }
}

/// Three nodes, and a fourth that has registered.
fn registered() -> View {
    apply(&apply(&cluster(3), invite(4)).unwrap(), register(4, 4)).unwrap()
}

fn wish(view: &View, wish: Wish) -> Result<View, Rejected> {
    apply(view, Plan::of(view, &wish)?.command())
}

/// Everything that is wanted has moved.
fn settled(mut view: View) -> View {
    while !view.wanted().is_empty() {
        let partitions = view.wanted().keys().copied().collect();
        view = apply(&view, Command::Begin { partitions }).unwrap();
        view = apply(&view, finish(&view)).unwrap();
    }
    view
}

fn finish(view: &View) -> Command {
    let moves = view.moves().keys();
    Command::Finish { partitions: moves.map(|at| (*at, view.last_changed(*at))).collect() }
}

#[track_caller]
fn check(result: Result<View, Rejected>, message: &str) {
    let error = result.expect_err("it is refused").to_string();
    assert!(error.contains(message), "{error:?} instead of {message:?}");
}

/// Issue: "join with a used, expired or foreign token; a node id seen before; an address already
/// taken; a weight of 0".
#[test]
fn who_may_register() {
    let view = apply(&cluster(3), invite(4)).unwrap();
    check(apply(&view, register(5, 4)), "this join file was used, or expired long ago");
    let late = at(&view, NOW_MS + 900_000 + 61_000, register(4, 4));
    check(late, "this join file expired 61 s ago: make another one with `atoll cluster token`");
    assert!(at(&view, NOW_MS + 900_000, register(4, 4)).is_ok(), "in its last millisecond");
    let member = apply(&view, register(4, 4)).unwrap();
    check(apply(&member, register(4, 5)), "this join file was used");
    check(apply(&member, invite(4)), "n4 was given to a node before");
    check(apply(&view, invite(4)), "n4 was given to a node before");
    let five = apply(&member, invite(5)).unwrap();
    check(apply(&five, register(5, 4)), "10.0.9.4:7400 is the address of n4");
    let changed = |change: &dyn Fn(&mut String, &mut u32)| {
        let mut command = register(5, 5);
        let Command::Register { zone, weight, .. } = &mut command else { unreachable!() };
        change(zone, weight);
        apply(&five, command)
    };
    check(changed(&|_, weight| *weight = 0), "n5 with weight 0: give it at least 1");
    check(changed(&|zone, _| zone.clear()), "a zone has a name of 1 to 64 bytes");
    check(changed(&|zone, _| *zone = "z".repeat(65)), "this one has 65");
    let now = apply(&five, register(5, 5)).unwrap();
    let new = now.member(NodeId(5)).unwrap();
    assert_eq!(
        (new.state, new.incarnation, now.settled(Partition(0)).len()),
        (MemberState::Joining, 0, 3)
    );
}

/// The join file of an invitation that is over has a certificate for its id. Nobody else gets the
/// id, and the invitation cannot be used either.
#[test]
fn an_id_whose_invitation_expired_is_never_given() {
    let view = apply(&cluster(3), invite(4)).unwrap();
    let later = NOW_MS + 900_001;
    check(at(&view, later, register(4, 4)), "expired");
    check(at(&view, later, invite(4)), "n4 was given to a node before");
    let view = at(&view, later, invite(5)).unwrap();
    assert_eq!(view.removed()[0].id, NodeId(4));
    check(at(&view, later, register(4, 4)), "expired long ago");
    check(at(&view, later, invite(4)), "n4 was given to a node before");
}

/// Invitations and members are bounded, and what is at the bound says so.
#[test]
fn bounds() {
    let mut view = cluster(3);
    for node in 0..INVITATIONS_MAX as u32 {
        view = apply(&view, invite(10 + node)).unwrap();
    }
    check(apply(&view, invite(200)), "64 join files are open");
    let large = cluster(MEMBERS_MAX as u32);
    check(apply(&large, invite(5000)), "a cluster has at most 4096");
}

/// Issue: "a removed node can never vote or acknowledge again under its old id".
#[test]
fn removed_for_ever() {
    let view = settled(wish(&registered(), Wish::Join { node: NodeId(4) }).unwrap());
    let voters = [1, 2, 4].map(NodeId).to_vec();
    let view = apply(&view, Command::Voters { voters }).unwrap();
    check(apply(&view, Command::Retire { node: NodeId(3) }), "n3 is active; let it leave first");
    let view = wish(&view, Wish::RemoveDead { node: NodeId(3) }).unwrap();
    check(apply(&view, Command::Retire { node: NodeId(3) }), "n3 still owns");
    let view = apply(&settled(view), Command::Retire { node: NodeId(3) }).unwrap();
    let gone = "n3 was removed in epoch";
    check(wish(&view, Wish::Join { node: NodeId(3) }), gone);
    check(wish(&view, Wish::Reweight { node: NodeId(3), weight: 2 }), gone);
    check(apply(&view, Command::Incarnation { node: NodeId(3), incarnation: 5 }), gone);
    check(apply(&view, Command::Retire { node: NodeId(3) }), gone);
    check(apply(&view, invite(3)), "n3 was given to a node before");
    check(apply(&view, Command::Voters { voters: vec![NodeId(3)] }), "n3 cannot vote");
    check(apply(&view, Command::Recovered { by: NodeId(3) }), "n3 cannot vote");
}

/// Who leaves, dies or is replaced, and when not.
#[test]
fn who_may_go() {
    let three = registered();
    check(wish(&three, Wish::Leave { node: NodeId(1) }), "2 nodes would be left for 3 replicas");
    check(wish(&three, Wish::RemoveDead { node: NodeId(1) }), "2 nodes would be left");
    // One that has not joined may go, and be replaced by nobody.
    let gone = wish(&three, Wish::Leave { node: NodeId(4) }).unwrap();
    assert!(apply(&gone, Command::Retire { node: NodeId(4) }).is_ok());
    let alone = Wish::Replace { old: NodeId(1), new: NodeId(2), dead: false };
    check(wish(&three, alone), "n2 is active; only a node that has just registered joins");
    let itself = Wish::Replace { old: NodeId(4), new: NodeId(4), dead: true };
    check(wish(&three, itself), "n4 is joining; it cannot take its own place");
    let nobody = Wish::Replace { old: NodeId(9), new: NodeId(4), dead: true };
    check(wish(&three, nobody), "n9 is no member");
    let replaced = wish(&three, Wish::Replace { old: NodeId(1), new: NodeId(4), dead: true });
    assert_eq!(replaced.unwrap().member(NodeId(1)).unwrap().state, MemberState::Dead);

    let four = settled(wish(&three, Wish::Join { node: NodeId(4) }).unwrap());
    let leaving = wish(&four, Wish::Leave { node: NodeId(2) }).unwrap();
    check(wish(&leaving, Wish::Leave { node: NodeId(2) }), "partitions are on their way");
    check(wish(&leaving, Wish::RemoveDead { node: NodeId(3) }), "2 nodes would be left");
    let dead = wish(&leaving, Wish::RemoveDead { node: NodeId(2) }).unwrap();
    assert_eq!(dead.member(NodeId(2)).unwrap().state, MemberState::Dead, "it died on its way");
    check(wish(&dead, Wish::RemoveDead { node: NodeId(2) }), "wait until its partitions");
    check(
        apply(&dead, Command::Incarnation { node: NodeId(2), incarnation: 5 }),
        "a new node only",
    );
    // A cancel leaves the dead dead; they do not leave, and are removed once more.
    let cancelled = apply(&dead, Command::Cancel).unwrap();
    assert_eq!(cancelled.member(NodeId(2)).unwrap().state, MemberState::Dead);
    check(wish(&cancelled, Wish::Leave { node: NodeId(2) }), "a dead node is removed");
    check(wish(&cancelled, Wish::Reweight { node: NodeId(2), weight: 3 }), "changes nothing");
    check(wish(&cancelled, Wish::Rezone { node: NodeId(2), zone: "b".into() }), "changes nothing");
    let again = settled(wish(&cancelled, Wish::RemoveDead { node: NodeId(2) }).unwrap());
    assert!(again.partitions().all().all(|at| !again.owners(at).contains(NodeId(2))));
}

/// A cancel takes back what has not happened: who was leaving stays.
#[test]
fn a_cancel() {
    let view = settled(wish(&registered(), Wish::Join { node: NodeId(4) }).unwrap());
    check(apply(&view, Command::Cancel), "nothing moves");
    let leaving = wish(&view, Wish::Leave { node: NodeId(1) }).unwrap();
    let begun = Command::Begin { partitions: leaving.wanted().keys().take(2).copied().collect() };
    let begun = apply(&leaving, begun).unwrap();
    let stays = apply(&begun, Command::Cancel).unwrap();
    assert_eq!(stays.member(NodeId(1)).unwrap().state, MemberState::Active);
    for partition in view.partitions().all() {
        assert_eq!(stays.owners(partition), view.owners(partition));
        let was_joint = begun.moves().contains_key(&partition);
        let last = if was_joint { stays.epoch() } else { view.last_changed(partition) };
        assert_eq!(stays.last_changed(partition), last);
    }
    check(apply(&stays, finish(&begun)), "this move is over");
}

/// Begin and finish name what can begin and finish.
#[test]
fn steps_of_moves() {
    let view = wish(&registered(), Wish::Join { node: NodeId(4) }).unwrap();
    let first = *view.wanted().first_key_value().unwrap().0;
    let begin = |partitions: &[Partition]| Command::Begin { partitions: partitions.to_vec() };
    check(apply(&view, begin(&[first, first])), "on its way already");
    check(apply(&view, begin(&[Partition(9)])), "nobody wants it moved");
    let joint = apply(&view, begin(&[first])).unwrap();
    check(apply(&joint, begin(&[first])), "on its way already");
    let session = joint.last_changed(first);
    let done =
        |at: Partition, session: u64| Command::Finish { partitions: vec![(at, Epoch(session))] };
    check(apply(&joint, done(first, session.0 - 1)), "this move is over");
    check(apply(&joint, done(Partition(9), session.0)), "this move is over");
    let twice = vec![(first, session), (first, session)];
    check(apply(&joint, Command::Finish { partitions: twice }), "this move is over");
    assert!(apply(&joint, done(first, session.0)).is_ok());
}

/// A plan that somebody has edited, or that lost some of its lines.
#[test]
fn edited_plans() {
    let view = settled(wish(&registered(), Wish::Join { node: NodeId(4) }).unwrap());
    let leave = Wish::Leave { node: NodeId(2) };
    let plan = Plan::of(&view, &leave).unwrap();
    let (&first, row) = plan.moves.first_key_value().unwrap();
    type Moves = BTreeMap<Partition, Vec<NodeId>>;
    let with = |edit: &dyn Fn(&mut Moves)| {
        let mut edited = plan.clone();
        edit(&mut edited.moves);
        apply(&view, edited.command())
    };
    let put = |row: &[NodeId]| with(&|moves| drop(moves.insert(first, row.to_vec())));
    check(with(&|moves| drop(moves.remove(&first))), "to n2, which does not stay");
    check(put(&[row[0], row[1], NodeId(2)]), "n2 cannot own it");
    check(put(&[row[0], row[1], NodeId(9)]), "n9 cannot own it");
    check(put(&[row[0], row[1], row[1]]), "twice");
    check(put(&row[..2]), "2 owners for 3");
    check(put(view.settled(first)), "n2 cannot own it");
    let foreign = with(&|moves| drop(moves.insert(Partition(8), row.clone())));
    check(foreign, "partition 8: there is no such partition");
    let moves = BTreeMap::from([(first, view.settled(first).to_vec())]);
    let nowhere = Command::Change { base: view.epoch(), wish: Wish::Rebalance, moves };
    check(apply(&view, nowhere), "it is there");
    let more = Command::Change {
        base: view.epoch(),
        wish: Wish::Replicas { replicas: 4 },
        moves: BTreeMap::new(),
    };
    check(apply(&view, more), "the plan leaves it 3 owners for 4");
}

/// Somebody was faster, or the log is not ours.
#[test]
fn other_epochs() {
    let view = cluster(3);
    for (epoch, made_for) in [(0, 0), (1, 0), (3, 2), (u64::MAX, u64::MAX - 1)] {
        let entry = Entry { epoch: Epoch(epoch), at_ms: 0, command: Command::Cancel };
        let error = Rejected::OtherEpoch { made_for: Epoch(made_for), now: Epoch(1) };
        assert_eq!(view.apply(&entry), Err(error));
    }
    let mut document = serde_json::to_value(&view).unwrap();
    document["epoch"] = u64::MAX.into();
    let last: View = serde_json::from_value(document).unwrap();
    let entry = Entry { epoch: Epoch(0), at_ms: 0, command: invite(9) };
    assert!(last.apply(&entry).is_err(), "epochs do not begin again");
}

/// Lives are counted one by one, and the last one there can be has no successor.
#[test]
fn incarnations() {
    let view = cluster(3);
    let life = |incarnation: u32| Command::Incarnation { node: NodeId(1), incarnation };
    for wrong in [0, 3, 4, 6, u32::MAX] {
        check(apply(&view, life(wrong)), "n1 is at incarnation 4");
    }
    let next = apply(&view, life(5)).unwrap();
    assert_eq!(next.member(NodeId(1)).unwrap().incarnation, 5);
    assert_eq!(next.last_changed(Partition(0)), Epoch(1), "requests go on");
    let mut document = serde_json::to_value(&view).unwrap();
    document["members"][0]["incarnation"] = u32::MAX.into();
    let last: View = serde_json::from_value(document).unwrap();
    check(apply(&last, life(0)), "n1 is at incarnation 4294967295");
}

/// Who votes.
#[test]
fn voters() {
    let view = cluster(7);
    let vote = |ids: &[u32]| {
        apply(&view, Command::Voters { voters: ids.iter().map(|id| NodeId(*id)).collect() })
    };
    check(vote(&[]), "0 of them; 1 to 5 vote");
    check(vote(&[1, 2, 3, 4, 5, 6]), "6 of them");
    check(vote(&[2, 1]), "not in order");
    check(vote(&[1, 1]), "not in order");
    check(vote(&[1, 9]), "n9 cannot vote");
    assert_eq!(vote(&[2, 4, 6]).unwrap().voters(), [2, 4, 6].map(NodeId));
    let dead = wish(&view, Wish::RemoveDead { node: NodeId(6) }).unwrap();
    check(apply(&dead, Command::Voters { voters: vec![NodeId(6)] }), "n6 cannot vote");
    let recovered = apply(&view, Command::Recovered { by: NodeId(5) }).unwrap();
    assert_eq!(recovered.voters(), [NodeId(5)], "the others are gone from the log");
}

/// A partition changes from four owners to three, and the last owner is to take the first seat. It
/// dies. It never will have what that seat needs, so the partition stays as it was, though the dead
/// node is among its old owners. (The first version let the move go on for ever.)
#[test]
fn a_dead_owner_that_was_to_change_seats() {
    let four = settled(wish(&cluster(6), Wish::Replicas { replicas: 4 }).unwrap());
    let partition = Partition(0);
    let row = four.settled(partition).to_vec();
    let target = vec![row[3], row[1], row[2]];
    let mut moves = Plan::of(&four, &Wish::Replicas { replicas: 3 }).unwrap().moves;
    moves.insert(partition, target);
    let base = four.epoch();
    let change = Command::Change { base, wish: Wish::Replicas { replicas: 3 }, moves };
    let wanted = apply(&four, change).unwrap();
    let joint = apply(&wanted, Command::Begin { partitions: vec![partition] }).unwrap();
    let buried = wish(&joint, Wish::RemoveDead { node: row[3] }).unwrap();
    assert!(!buried.moves().contains_key(&partition));
    assert_eq!(buried.settled(partition), row);
    assert_eq!(buried.last_changed(partition), buried.epoch());
    // Of the owner that is to leave, the move goes on.
    let buried = wish(&joint, Wish::RemoveDead { node: row[0] }).unwrap();
    assert!(buried.moves().contains_key(&partition));
    assert_eq!(buried.last_changed(partition), joint.last_changed(partition));
}
