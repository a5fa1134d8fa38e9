//! The tally against a second, naive one, and the claims that rest on it.

use std::collections::BTreeSet;

use atoll_ring::{Needs, NodeId, Outcome, Owners, Tally, Vote};

fn nodes(ids: &[u32]) -> Vec<NodeId> {
    ids.iter().copied().map(NodeId).collect()
}

/// All sets of owners that are tried: one set, and two that share all, some or no nodes.
fn owner_sets() -> Vec<Vec<Vec<NodeId>>> {
    [
        vec![vec![1]],
        vec![vec![1, 2]],
        vec![vec![1, 2, 3]],
        vec![vec![1, 2, 3], vec![3, 1, 2]],
        vec![vec![1, 2, 3], vec![1, 4, 3]],
        vec![vec![1, 2], vec![3, 4]],
        vec![vec![1, 2], vec![2, 3, 4]],
    ]
    .into_iter()
    .map(|sets| sets.iter().map(|set| nodes(set)).collect())
    .collect()
}

fn owners(sets: &[Vec<NodeId>]) -> Owners<'_> {
    match sets {
        [set] => Owners::One(set),
        [old, new] => Owners::Joint { old, new },
        _ => panic!("one set or two"),
    }
}

/// Won is counted from the votes as they came; lost means that no further votes would win. No
/// thought is spent on anything else: every way in which the votes could go on is tried.
struct Naive<'a> {
    sets: &'a [Vec<NodeId>],
    needed: usize,
    durable: usize,
}

impl Naive<'_> {
    /// Nodes that have written, and nodes that have fsynced, after these votes.
    fn acks(votes: &[(NodeId, Vote)]) -> (BTreeSet<NodeId>, BTreeSet<NodeId>) {
        let (mut written, mut durable, mut closed) =
            (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for (node, vote) in votes {
            if closed.contains(node) {
                continue; // a node that has refused has spoken its last word
            }
            match vote {
                Vote::Written => {
                    written.insert(*node);
                }
                Vote::Durable => {
                    written.insert(*node);
                    durable.insert(*node);
                }
                Vote::Refused => {
                    closed.insert(*node);
                }
            }
        }
        (written, durable)
    }

    fn won(&self, votes: &[(NodeId, Vote)]) -> bool {
        let (written, durable) = Naive::acks(votes);
        let among = |acks: &BTreeSet<NodeId>, set: &[NodeId]| {
            set.iter().filter(|id| acks.contains(id)).count()
        };
        self.sets
            .iter()
            .all(|set| among(&written, set) >= self.needed && among(&durable, set) >= self.durable)
    }

    fn outcome(&self, votes: &[(NodeId, Vote)]) -> Outcome {
        // More acks never hurt, so the best that can follow is that everybody acks durably.
        let everybody = self.sets.iter().flatten().map(|node| (*node, Vote::Durable));
        let best: Vec<_> = votes.iter().copied().chain(everybody).collect();
        match (self.won(votes), self.won(&best)) {
            (true, _) => Outcome::Won,
            (false, true) => Outcome::Pending,
            (false, false) => Outcome::Lost,
        }
    }
}

/// A strict tally.
fn strict(owners: Owners<'_>, needed: u8, durable: u8) -> Tally {
    Tally::new(owners, Needs { acks: needed, owners: needed, durable }, false)
}

/// Every order of up to four votes of every kind by every node, also repeated and from a stranger,
/// for every w and dw.
#[test]
fn every_order_of_votes() {
    fn go_on(tally: &Tally, naive: &Naive<'_>, votes: &mut Vec<(NodeId, Vote)>, voters: &[NodeId]) {
        assert_eq!(tally.outcome(), naive.outcome(votes), "{:?} {votes:?}", naive.sets);
        assert_eq!(tally.is_pending(), tally.outcome() == Outcome::Pending);
        let (written, durable) = Naive::acks(votes);
        let known =
            |acks: BTreeSet<NodeId>| acks.into_iter().filter(|id| *id != STRANGER).count() as u8;
        assert_eq!((tally.acks(), tally.durable_acks()), (known(written), known(durable)));
        if votes.len() == 4 {
            return;
        }
        for &node in voters {
            for vote in [Vote::Written, Vote::Durable, Vote::Refused] {
                let mut next = tally.clone();
                let outcome = next.add(node, vote);
                assert_eq!(outcome, next.outcome());
                if !tally.is_pending() {
                    assert_eq!(outcome, tally.outcome(), "what is decided stays decided");
                }
                votes.push((node, vote));
                go_on(&next, naive, votes, voters);
                votes.pop();
            }
        }
    }
    const STRANGER: NodeId = NodeId(9);
    for sets in owner_sets() {
        let mut voters = owners(&sets).all();
        if voters.len() < 3 {
            voters.push(STRANGER);
        }
        for needed in 1..=sets[0].len() {
            for durable in 0..=needed {
                let tally = strict(owners(&sets), needed as u8, durable as u8);
                assert_eq!(tally.needs().acks, needed as u8);
                let naive = Naive { sets: &sets, needed, durable };
                go_on(&tally, &naive, &mut Vec::new(), &voters);
            }
        }
    }
}

/// Every order of up to four votes of owners and of their stand-ins, for every need, against the
/// plainest reading: a seat counts once, its own owner's vote alone counts for pw, and lost means
/// that no further votes would win.
#[test]
fn every_order_of_votes_with_stand_ins() {
    type Votes = Vec<(NodeId, bool, Vote)>;
    fn won(sets: &[Vec<NodeId>], votes: &Votes, needs: Needs) -> bool {
        let of = |wanted_stand_in: bool| {
            let votes = votes.iter().filter(|(_, stand_in, _)| *stand_in == wanted_stand_in);
            let votes: Vec<(NodeId, Vote)> = votes.map(|(node, _, vote)| (*node, *vote)).collect();
            Naive::acks(&votes)
        };
        let ((own, own_durable), (stood_in, stood_in_durable)) = (of(false), of(true));
        let acks = &own | &stood_in;
        let durable = &own_durable | &stood_in_durable;
        sets.iter().all(|set| {
            let among = |acked: &BTreeSet<NodeId>, needed: u8| {
                set.iter().filter(|owner| acked.contains(owner)).count() >= usize::from(needed)
            };
            among(&acks, needs.acks) && among(&own, needs.owners) && among(&durable, needs.durable)
        })
    }
    fn go_on(tally: &Tally, sets: &[Vec<NodeId>], votes: &mut Votes, needs: Needs) {
        let all = owners(sets).all();
        let everybody =
            all.iter().flat_map(|node| [false, true].map(|by| (*node, by, Vote::Durable)));
        let best: Votes = votes.iter().copied().chain(everybody).collect();
        let expected = match (won(sets, votes, needs), won(sets, &best, needs)) {
            (true, _) => Outcome::Won,
            (false, true) => Outcome::Pending,
            (false, false) => Outcome::Lost,
        };
        assert_eq!(tally.outcome(), expected, "{sets:?} {needs:?} {votes:?}");
        if votes.len() == 5 - all.len().min(2) {
            return; // four votes in one seat, three in more
        }
        for &node in &all {
            for stand_in in [false, true] {
                for vote in [Vote::Written, Vote::Durable, Vote::Refused] {
                    let mut next = tally.clone();
                    if stand_in {
                        next.add_stand_in(node, vote);
                    } else {
                        next.add(node, vote);
                    }
                    if !tally.is_pending() {
                        assert_eq!(
                            next.outcome(),
                            tally.outcome(),
                            "what is decided stays decided"
                        );
                    }
                    votes.push((node, stand_in, vote));
                    go_on(&next, sets, votes, needs);
                    votes.pop();
                }
            }
        }
    }
    let sets = [vec![vec![1]], vec![vec![1, 2]], vec![vec![1, 2], vec![1, 3]]];
    for sets in sets.map(|sets| sets.iter().map(|set| nodes(set)).collect::<Vec<_>>()) {
        for acks in 1..=sets[0].len() as u8 {
            for (owned, durable) in [(0, 0), (0, acks), (acks, 0), (1, 1)] {
                let needs = Needs { acks, owners: owned, durable };
                let tally = Tally::new(owners(&sets), needs, true);
                go_on(&tally, &sets, &mut Vec::new(), needs);
            }
        }
    }
}

/// In a strict request a stand-in changes nothing, whatever it says.
#[test]
fn nobody_stands_in_for_an_owner_in_a_strict_request() {
    let set = nodes(&[1, 2, 3]);
    let mut tally = strict(Owners::One(&set), 2, 2);
    for owner in &set {
        tally.add_stand_in(*owner, Vote::Durable);
    }
    assert_eq!((tally.outcome(), tally.acks()), (Outcome::Pending, 0));
    tally.add(NodeId(1), Vote::Refused);
    assert_eq!(tally.add(NodeId(2), Vote::Refused), Outcome::Lost);
}

/// More acks than owners can never be had: lost before the first vote.
#[test]
fn an_impossible_need_is_lost_at_once() {
    let set = nodes(&[1, 2]);
    assert_eq!(strict(Owners::One(&set), 3, 0).outcome(), Outcome::Lost);
    assert_eq!(strict(Owners::One(&set), 2, 3).outcome(), Outcome::Lost);
}

/// All sets of nodes whose answers win `needed` of the first `n` owners.
fn winning(sets: &[Vec<NodeId>], n: u8, needed: u8) -> Vec<BTreeSet<NodeId>> {
    let owners = owners(sets).first(n);
    let all = owners.all();
    let mut winning = Vec::new();
    for choice in 0..1_u32 << all.len() {
        let chosen = all.iter().enumerate().filter(|(index, _)| choice >> index & 1 == 1);
        let chosen: BTreeSet<NodeId> = chosen.map(|(_, node)| *node).collect();
        let mut tally = strict(owners, needed, needed);
        for node in &chosen {
            tally.add(*node, Vote::Durable);
        }
        if tally.outcome() == Outcome::Won {
            winning.push(chosen);
        }
    }
    winning
}

fn always_meet(writes: &[BTreeSet<NodeId>], reads: &[BTreeSet<NodeId>]) -> bool {
    writes.iter().all(|write| reads.iter().all(|read| !write.is_disjoint(read)))
}

/// Design, section 1: "if w acks came from the first nw owners and r answers from the first nr
/// owners, and w + r > max(nw, nr), the read sees every write acked before it began". All 371
/// settings up to N = 5; and where the condition does not hold, some read misses some write, so the
/// condition asks for nothing needless.
#[test]
fn a_read_meets_every_write_if_and_only_if_w_plus_r_is_more_than_both_n() {
    let mut settings = 0;
    for replicas in 1..=5_u8 {
        let sets = [(1..=replicas.into()).map(NodeId).collect::<Vec<_>>()];
        for (nw, w) in pairs(replicas) {
            let writes = winning(&sets, nw, w);
            for (nr, r) in pairs(replicas) {
                let meet = always_meet(&writes, &winning(&sets, nr, r));
                assert_eq!(meet, w + r > nw.max(nr), "N={replicas} nw={nw} w={w} nr={nr} r={r}");
                settings += 1;
            }
        }
    }
    assert_eq!(settings, 371);
}

/// Design, section 1: "the default is sloppy, so the default does not promise this: say strict, or
/// pr + pw > N". Fallbacks fill every seat they can; what owners are left in common is decided by pr
/// and pw alone, whatever r and w are.
#[test]
fn a_sloppy_read_meets_every_write_if_and_only_if_pw_plus_pr_is_more_than_n() {
    let sets = [nodes(&[1, 2, 3])];
    let winning = |needed: u8, owned: u8| -> Vec<BTreeSet<NodeId>> {
        let all = owners(&sets).all();
        let choices = (0..1_u32 << all.len()).map(|choice| {
            let chosen = all.iter().enumerate().filter(|(index, _)| choice >> index & 1 == 1);
            chosen.map(|(_, node)| *node).collect::<BTreeSet<NodeId>>()
        });
        let wins = |chosen: &BTreeSet<NodeId>| {
            let needs = Needs { acks: needed, owners: owned, durable: 0 };
            let mut tally = Tally::new(owners(&sets), needs, true);
            for owner in &all {
                tally.add_stand_in(*owner, Vote::Durable);
            }
            for owner in chosen {
                tally.add(*owner, Vote::Durable);
            }
            tally.outcome() == Outcome::Won
        };
        choices.filter(wins).collect()
    };
    for (w, r) in pairs(3).flat_map(|(_, w)| (1..=3).map(move |r| (w, r))) {
        for (pw, pr) in (0..=w).flat_map(|pw| (0..=r).map(move |pr| (pw, pr))) {
            let meet = always_meet(&winning(w, pw), &winning(r, pr));
            assert_eq!(meet, pw + pr > 3, "w={w} r={r} pw={pw} pr={pr}");
        }
    }
}

/// "... also while partitions move." A write before, during or after the joint stage and a read in
/// the same stage or the next one meet, for one owner replaced, all replaced, and two that changed
/// places.
#[test]
fn a_read_meets_every_write_while_a_partition_moves() {
    for (old, new) in [
        (vec![1], vec![2]),
        (vec![1, 2], vec![3, 2]),
        (vec![1, 2], vec![3, 4]),
        (vec![1, 2, 3], vec![1, 4, 3]),
        (vec![1, 2, 3], vec![4, 2, 3]),
        (vec![1, 2, 3], vec![3, 2, 1]),
        (vec![1, 2, 3], vec![4, 5, 6]),
        (vec![1, 2, 3, 4], vec![1, 2, 5, 4]),
        (vec![1, 2, 3, 4], vec![5, 2, 6, 4]),
    ] {
        let (old, new) = (nodes(&old), nodes(&new));
        let before = [old.clone()];
        let joint = [old.clone(), new.clone()];
        let after = [new.clone()];
        let replicas = old.len() as u8;
        for (nw, w) in pairs(replicas) {
            for (nr, r) in pairs(replicas).filter(|(nr, r)| w + r > nw.max(*nr)) {
                let [write_before, write_joint, write_after] =
                    [&before[..], &joint, &after].map(|sets| winning(sets, nw, w));
                let [read_before, read_joint, read_after] =
                    [&before[..], &joint, &after].map(|sets| winning(sets, nr, r));
                assert!(always_meet(&write_before, &read_joint));
                assert!(always_meet(&write_joint, &read_before));
                assert!(always_meet(&write_joint, &read_joint));
                assert!(always_meet(&write_joint, &read_after));
                assert!(always_meet(&write_after, &read_joint));
                // They meet in each of the two sets, not just somewhere.
                for set in [&old, &new] {
                    let within = |sets: &[BTreeSet<NodeId>], n: u8| -> Vec<BTreeSet<NodeId>> {
                        let first: BTreeSet<NodeId> = set.iter().take(n.into()).copied().collect();
                        sets.iter().map(|nodes| nodes & &first).collect()
                    };
                    assert!(always_meet(&within(&write_joint, nw), &within(&read_joint, nr)));
                }
            }
        }
    }
}

/// Every n up to `replicas` with every number of answers among n.
fn pairs(replicas: u8) -> impl Iterator<Item = (u8, u8)> {
    (1..=replicas).flat_map(|n| (1..=n).map(move |needed| (n, needed)))
}
