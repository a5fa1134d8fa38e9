//! Tolerances and promises, as a table and against a second implementation that tries every case.

use atoll_ring::{
    Because, Consistency, Level, Loss, Needs, NodeId, Outcome, Owners, Quorum, QuorumRequest,
    Tally, Tolerance, Vote, when_enough,
};

#[derive(Clone, Copy)]
struct With {
    n: u8,
    r: u8,
    w: u8,
    pr: u8,
    pw: u8,
    dw: u8,
    sloppy: bool,
}

const STRICT: With = With { n: 3, r: 2, w: 2, pr: 0, pw: 0, dw: 2, sloppy: false };
const SLOPPY: With = With { sloppy: true, ..STRICT };

impl With {
    fn quorum(self) -> Option<Quorum> {
        let count = |count| Some(Level::Count(count));
        let With { n, r, w, pr, pw, dw, sloppy } = self;
        let request = QuorumRequest {
            n: Some(n),
            r: count(r),
            w: count(w),
            pr: count(pr),
            pw: count(pw),
            dw: count(dw),
            sloppy: Some(sloppy),
        };
        Quorum::new(&request, n).ok()
    }
}

fn nodes(ids: &[u32]) -> Vec<NodeId> {
    ids.iter().copied().map(NodeId).collect()
}

/// What `atoll explain` says of the settings that people use, with N = 3 and five nodes.
#[test]
fn tolerances_of_the_usual_settings() {
    let check = |with: With, down: &[u32], read, write, running, without_power| {
        let (owners, down) = (nodes(&[1, 2, 3]), nodes(down));
        let fallbacks = nodes(&[4, 5]).iter().filter(|node| !down.contains(node)).count();
        let quorum = with.quorum().expect("a quorum");
        let is_down = |node: NodeId| down.contains(&node);
        let found = Tolerance::of(Owners::One(&owners), &quorum, fallbacks, is_down);
        let loss = Loss { running, without_power };
        assert_eq!(found, Tolerance { read, write, loss }, "{quorum:?} without {down:?}");
    };
    check(STRICT, &[], Some(1), Some(1), 1, Some(1));
    check(STRICT, &[2], Some(0), Some(0), 1, Some(1));
    check(STRICT, &[2, 3], None, None, 1, Some(1));
    check(STRICT, &[4, 5], Some(1), Some(1), 1, Some(1));
    check(SLOPPY, &[], Some(1), Some(3), 1, Some(1));
    check(SLOPPY, &[1, 2, 3], None, Some(0), 1, Some(1));
    check(SLOPPY, &[1, 2, 4], None, Some(0), 1, Some(1));
    check(SLOPPY, &[1, 2, 4, 5], None, None, 1, Some(1));
    check(With { pw: 1, ..SLOPPY }, &[], Some(1), Some(2), 1, Some(1));
    check(With { r: 1, w: 3, dw: 3, ..STRICT }, &[], Some(2), Some(0), 2, Some(2));
    check(With { r: 3, w: 1, dw: 1, ..STRICT }, &[], Some(0), Some(2), 0, Some(0));
    check(With { dw: 0, ..STRICT }, &[], Some(1), Some(1), 1, None);
    check(With { dw: 1, ..SLOPPY }, &[], Some(1), Some(3), 1, Some(0));
    check(With { w: 3, dw: 3, ..SLOPPY }, &[], Some(1), Some(2), 2, Some(2));
}

/// While a partition moves both owner sets must have enough, and more nodes hold what was acknowledged if few owners stay.
#[test]
fn tolerances_while_a_partition_moves() {
    let check = |new: &[u32], down: &[u32], read, write, running| {
        let (old, new, down) = (nodes(&[1, 2, 3]), nodes(new), nodes(down));
        let quorum = STRICT.quorum().expect("a quorum");
        let owners = Owners::Joint { old: &old, new: &new };
        let found = Tolerance::of(owners, &quorum, 0, |node| down.contains(&node));
        assert_eq!((found.read, found.write), (read, write), "{new:?} without {down:?}");
        assert_eq!(found.loss, Loss { running, without_power: Some(running) }, "{new:?}");
    };
    check(&[1, 2, 4], &[], Some(1), Some(1), 1);
    check(&[1, 2, 4], &[4], Some(0), Some(0), 1);
    check(&[1, 2, 4], &[3], Some(0), Some(0), 1);
    check(&[1, 2, 4], &[3, 4], Some(0), Some(0), 1);
    check(&[1, 2, 4], &[1, 4], None, None, 1);
    check(&[1, 4, 5], &[], Some(1), Some(1), 2);
    check(&[4, 5, 6], &[], Some(1), Some(1), 3);
}

/// Every setting up to four owners, one set or two, each node up or down, up to three fallbacks: the numbers are those that
/// come out if every set of nodes fails in turn and the votes are counted.
#[test]
fn agrees_with_trying_every_failure() {
    let sets: [(&[u32], Option<&[u32]>); 7] = [
        (&[1], None),
        (&[1, 2], None),
        (&[1, 2, 3], None),
        (&[1, 2, 3, 4], None),
        (&[1, 2, 3], Some(&[1, 2, 4])),
        (&[1, 2, 3], Some(&[1, 4, 5])),
        (&[1, 2], Some(&[3, 4])),
    ];
    let mut tried = 0;
    for (old, new) in sets {
        let (old, new) = (nodes(old), new.map(nodes));
        let owners = match &new {
            None => Owners::One(&old),
            Some(new) => Owners::Joint { old: &old, new },
        };
        let n = u8::try_from(old.len()).expect("few");
        for quorum in quorums(n) {
            for fallbacks in 0..=2_u32 {
                for away in subsets(&owners.all()) {
                    let spare: Vec<NodeId> = (0..fallbacks).map(|at| NodeId(10 + at)).collect();
                    let found =
                        Tolerance::of(owners, &quorum, spare.len(), |node| away.contains(&node));
                    let slow = by_trying(owners, &quorum, &spare, &away);
                    assert_eq!(
                        (found.read, found.write),
                        slow,
                        "{quorum:?} of {owners:?}, {fallbacks} fallbacks, without {away:?}"
                    );
                    tried += 1;
                }
            }
            let found = Tolerance::of(owners, &quorum, 0, |_| false).loss;
            assert_eq!(found.running, fewest_holders(owners, quorum.w()) - 1, "{quorum:?}");
            let without_power = (quorum.dw() > 0).then(|| fewest_holders(owners, quorum.dw()) - 1);
            assert_eq!(found.without_power, without_power, "{quorum:?} {owners:?}");
        }
    }
    assert!(tried > 20_000, "{tried} cases");
}

/// All settings with r, w, pw and dw from their ranges; pr changes nothing here.
fn quorums(n: u8) -> Vec<Quorum> {
    let mut all = Vec::new();
    for r in 1..=n {
        for w in 1..=n {
            for dw in [0, 1, w] {
                for pw in [0, 1, w] {
                    for sloppy in [false, true] {
                        all.extend(With { n, r, w, pr: 0, pw, dw, sloppy }.quorum());
                    }
                }
            }
        }
    }
    all.sort_unstable();
    all.dedup();
    all
}

fn subsets(of: &[NodeId]) -> Vec<Vec<NodeId>> {
    let pick =
        |mask: u32| (0..of.len()).filter(|at| mask >> at & 1 == 1).map(|at| of[at]).collect();
    (0..1_u32 << of.len()).map(pick).collect()
}

/// The most nodes of which any so many may fail in addition, for a read and for a write.
fn by_trying(
    owners: Owners<'_>,
    quorum: &Quorum,
    spare: &[NodeId],
    away: &[NodeId],
) -> (Option<u8>, Option<u8>) {
    let there: Vec<NodeId> = owners
        .all()
        .into_iter()
        .chain(spare.to_vec())
        .filter(|node| !away.contains(node))
        .collect();
    let most = |answered: &dyn Fn(&[NodeId]) -> bool| {
        let mut bound = None;
        for count in 0..=there.len() {
            let all =
                subsets(&there).into_iter().filter(|failed| failed.len() == count).all(|failed| {
                    let gone: Vec<NodeId> = away.iter().chain(&failed).copied().collect();
                    answered(&gone)
                });
            if !all {
                break;
            }
            bound = u8::try_from(count).ok();
        }
        bound
    };
    // of a fallback nothing is certain in a read
    let read = most(&|gone| is_won(owners, quorum.of_read(), false, &[], gone));
    let write = most(&|gone| is_won(owners, quorum.of_write(), quorum.sloppy(), spare, gone));
    (read, write)
}

/// Whether the vote is won by whoever is not gone, whichever seats of those who are gone the fallbacks take.
fn is_won(
    owners: Owners<'_>,
    needs: Needs,
    sloppy: bool,
    spare: &[NodeId],
    gone: &[NodeId],
) -> bool {
    let (empty, there): (Vec<NodeId>, Vec<NodeId>) =
        owners.all().into_iter().partition(|owner| gone.contains(owner));
    let spare = spare.iter().filter(|node| !gone.contains(node)).count();
    let taken = if sloppy { spare.min(empty.len()) } else { 0 };
    subsets(&empty).into_iter().filter(|seats| seats.len() == taken).all(|seats| {
        let mut tally = Tally::new(owners, needs, sloppy);
        for owner in &there {
            tally.add(*owner, Vote::Durable);
        }
        for owner in seats {
            tally.add_stand_in(owner, Vote::Durable);
        }
        tally.outcome() == Outcome::Won
    })
}

/// The fewest nodes with which a vote for so many seats is won.
fn fewest_holders(owners: Owners<'_>, needed: u8) -> u8 {
    let needs = Needs { acks: needed, owners: 0, durable: needed };
    let winning = subsets(&owners.all()).into_iter().filter(|voters| {
        let mut tally = Tally::new(owners, needs, false);
        for owner in voters {
            tally.add(*owner, Vote::Durable);
        }
        tally.outcome() == Outcome::Won
    });
    let fewest = winning.map(|voters| voters.len()).min().expect("all of them win");
    u8::try_from(fewest).expect("few")
}

/// The words and the reason.
#[test]
fn consistency_of_the_usual_settings() {
    let check = |read: With, write: With, expected: Consistency, why: &str| {
        let found =
            Consistency::of(&read.quorum().expect("a quorum"), &write.quorum().expect("a quorum"));
        assert_eq!(found, expected);
        assert!(found.to_string().contains(why), "{found}");
    };
    let strict = |r, w, without_power| Consistency::Strict { r, w, n: 3, without_power };
    let both = |with: With, expected, why: &str| check(with, with, expected, why);
    both(STRICT, strict(2, 2, true), "2 + 2 > 3");
    both(SLOPPY, Consistency::Eventual(Because::FallbacksCount { pr: 0, pw: 0, n: 3 }), "--strict");
    both(With { pr: 2, pw: 2, ..SLOPPY }, strict(2, 2, true), "2 + 2 > 3");
    both(
        With { r: 1, w: 1, dw: 1, ..STRICT },
        Consistency::Eventual(Because::TooFew { r: 1, w: 1, n: 3 }),
        "1 + 1 is not above n = 3",
    );
    both(With { dw: 1, ..STRICT }, strict(2, 2, false), "power failure");
    both(With { dw: 0, r: 3, ..STRICT }, strict(3, 2, false), "power failure");
    both(With { r: 3, w: 2, dw: 1, ..STRICT }, strict(3, 2, true), "3 + 2 > 3");
    let smaller = With { n: 2, ..STRICT };
    check(smaller, STRICT, strict(2, 2, true), "2 + 2 > 3");
    check(
        smaller,
        With { w: 1, dw: 1, ..STRICT },
        Consistency::Eventual(Because::TooFew { r: 2, w: 1, n: 3 }),
        "2 + 1 is not above n = 3",
    );
}

/// Every pair of settings of a reader and a writer: strict exactly if any owners that may have answered and any that may
/// have acknowledged meet, and the same for what is left after a power failure.
#[test]
fn consistency_agrees_with_trying_every_answer() {
    for (nr, nw) in [(1, 1), (2, 2), (3, 3), (4, 4), (2, 3), (3, 2), (2, 4)] {
        let reads: Vec<With> = settings(nr).into_iter().filter(|with| with.w == 1).collect();
        let writes: Vec<With> = settings(nw).into_iter().filter(|with| with.r == 1).collect();
        for read in &reads {
            for write in &writes {
                let (Some(read), Some(write)) = (read.quorum(), write.quorum()) else { continue };
                let found = Consistency::of(&read, &write);
                let owners = nodes(&[1, 2, 3, 4]);
                let answers = subsets(&owners[..usize::from(nr)]);
                let answers = answers.into_iter().filter(|set| set.len() >= usize::from(read.pr()));
                let answers: Vec<Vec<NodeId>> = answers.collect();
                let meets = |held: &[NodeId]| {
                    answers.iter().all(|read| read.iter().any(|node| held.contains(node)))
                };
                // w acknowledgements, as many of owners as must be; the other seats are filled by fallbacks
                let acked = subsets(&owners[..usize::from(nw)])
                    .into_iter()
                    .filter(|set| set.len() == usize::from(write.pw()));
                let acked: Vec<Vec<NodeId>> = acked.collect();
                let fallbacks = write.w() - write.pw();
                let left = usize::from(write.dw().saturating_sub(fallbacks));
                let strict = acked.iter().all(|held| meets(held));
                let after = acked
                    .iter()
                    .flat_map(|held| subsets(held))
                    .filter(|held| held.len() == left)
                    .all(|held| meets(&held));
                match found {
                    Consistency::Strict { without_power, .. } => {
                        assert!(strict, "{read:?} {write:?}");
                        assert_eq!(without_power, after, "{read:?} {write:?}");
                    }
                    Consistency::Eventual(_) => assert!(!strict, "{read:?} {write:?}"),
                }
            }
        }
    }
}

fn settings(n: u8) -> Vec<With> {
    let mut all = Vec::new();
    for r in 1..=n {
        for w in 1..=n {
            for pr in 0..=r {
                for pw in 0..=w {
                    for dw in 0..=w {
                        for sloppy in [false, true] {
                            all.push(With { n, r, w, pr, pw, dw, sloppy });
                        }
                    }
                }
            }
        }
    }
    all
}

/// The time of a quorum is that of its slowest needed member, in the slower one of two sets.
#[test]
fn a_quorum_is_there_when_its_last_member_is() {
    let time = |node: NodeId| match node.0 {
        9 => None,
        id => Some(id * 10),
    };
    let (old, new) = (nodes(&[3, 1, 2]), nodes(&[1, 4, 9]));
    assert_eq!(when_enough(Owners::One(&old), 1, time), Some(10));
    assert_eq!(when_enough(Owners::One(&old), 3, time), Some(30));
    assert_eq!(when_enough(Owners::One(&old), 4, time), None);
    assert_eq!(when_enough(Owners::Joint { old: &old, new: &new }, 2, time), Some(40));
    assert_eq!(when_enough(Owners::Joint { old: &old, new: &new }, 3, time), None);
}
