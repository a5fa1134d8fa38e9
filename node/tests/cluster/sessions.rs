//! What one reader and writer has seen it sees again, at R = 1 and W = 1 and whoever answers; or it is told what is missing.

use std::time::Duration;

use atoll_antientropy::{Kind, Operation};
use atoll_ring::NodeId;
use atoll_transport::{chance::Chance, memory::Weather};
use atoll_wire::{Effect, ErrorCode, Outcome};

use crate::{
    bucket::{Bucket, Said, Session, Shown, add, counted, put, remove, shown},
    cluster::{Cluster, With, lines, r, w},
};

const KEY: &str = "k";

/// One answer is enough, and nobody mends anything by the way.
const ONE: With = With {
    r: Some(1),
    w: Some(1),
    timeout_ms: 400,
    repair: atoll_wire::Repair::None,
    ..crate::cluster::DEFAULT
};

fn number(shown: &Shown) -> i64 {
    match shown {
        Shown::Values(values) => {
            let numbers = values.iter().map(|value| value.parse::<i64>().expect("a number"));
            numbers.max().unwrap_or(0)
        }
        Shown::Number(number) => i64::try_from(*number).expect("small"),
        Shown::Greatest(greatest) => greatest.unwrap_or(0),
        other => panic!("no number: {other:?}"),
    }
}

/// Owners are paused in turn while a writer and a reader hop from node to node, each in a session, everything with one
/// answer. What they read never goes back; whoever reads the same without a session sees it go back again and again.
#[tokio::test(start_paused = true)]
async fn a_session_never_reads_backwards_while_owners_are_paused_in_turn() {
    for kind in [Kind::Register, Kind::Counter, Kind::Max] {
        let cluster = Cluster::start(5).await;
        let bucket = Bucket::create(&cluster, kind).await.among_losses();
        let (owners, nodes) = (bucket.owners(KEY), cluster.up());
        let delay = (Duration::from_millis(1), Duration::from_millis(40));
        let slow = Weather { delay, ..Weather::default() };
        for (from, to) in nodes.iter().flat_map(|from| nodes.iter().map(move |to| (*from, *to))) {
            cluster.network.set_weather(from, to, slow);
        }
        let mut chance = Chance::of_seed(6);
        let mut sessions = [Session::default(), Session::default()];
        let (mut seen, mut seen_plainly) = ([0, 0], 0);
        let (mut satisfied, mut not_satisfied, mut backwards) = (0, 0, 0);
        for turn in 1..=300_i64 {
            if turn % 5 == 1 {
                owners.iter().for_each(|owner| cluster.network.wake(*owner));
                cluster.network.pause(owners[(turn / 5 % 3) as usize]);
            }
            let via = chance.of(&nodes);
            let change = match kind {
                Kind::Register => put(&turn.to_string()),
                Kind::Counter => counted(5, turn as u64, turn),
                _ => Operation::Raise(turn),
            };
            if sessions[0].replace(&bucket, via, KEY, &change, &ONE).await.is_ok() {
                seen[0] = turn;
            }
            if let Ok(found) = bucket.find(chance.of(&nodes), KEY, None, &ONE).await {
                let now = number(&shown(&found));
                backwards += usize::from(now < seen_plainly);
                seen_plainly = now;
            }
            for (session, seen) in sessions.iter_mut().zip(&mut seen) {
                let via = chance.of(&nodes);
                match session.read(&bucket, via, KEY, &ONE).await {
                    Ok(shown) => {
                        let now = number(&shown);
                        assert!(now >= *seen, "{kind}: {now} after {seen}, through {via}");
                        *seen = now;
                        satisfied += 1;
                    }
                    Err(_) => not_satisfied += 1,
                }
            }
        }
        assert!(satisfied > 300, "{kind}: {satisfied} were answered, {not_satisfied} were not");
        assert!(backwards > 0, "{kind}: without a session nothing ever went back");
    }
}

/// The only owner that has it is asked although nobody would have needed it, and the receipt shows that.
#[tokio::test(start_paused = true)]
async fn further_owners_are_asked_until_the_answer_knows_enough() {
    let cluster = Cluster::start(5).await;
    let bucket = Bucket::create(&cluster, Kind::Set).await;
    let owners = bucket.owners(KEY);
    let mut session = Session::default();
    cluster.isolate(owners[0]); // unnoticed
    session.change(&bucket, owners[0], KEY, &add(&["x"]), &ONE).await.expect("its own copy");
    for owner in &owners[1..] {
        let behind = bucket.find(*owner, KEY, None, &ONE).await.expect("its own copy");
        assert_eq!(shown(&behind), Shown::elements(&[]), "the delta went nowhere");
    }
    cluster.rejoin(owners[0]);
    let with = With { r: Some(1), timeout_ms: 1000, ..ONE };
    let elements = session.read(&bucket, owners[1], KEY, &with).await.expect("it is asked");
    assert_eq!(elements, Shown::elements(&["x"]));
}

/// What a session has seen lies with an owner that is out of reach: it is told so, with what is missing, and served again
/// as soon as the owner is back. Who is in no session gets the older answer all the while.
#[tokio::test(start_paused = true)]
async fn what_is_out_of_reach_is_named() {
    let mut cluster = Cluster::start(5).await;
    let bucket = Bucket::create(&cluster, Kind::Register).await;
    let owners = bucket.owners(KEY);
    let mut session = Session::default();
    session.change(&bucket, owners[1], KEY, &put("old"), &w(3)).await.expect("all are up");
    cluster.isolate(owners[0]);
    let stored = session.replace(&bucket, owners[0], KEY, &put("new"), &ONE).await.expect("alone");
    cluster.crash(owners[0]);
    cluster.settle().await;

    let refused = session.read(&bucket, owners[1], KEY, &ONE).await;
    let failure = refused.expect_err("nobody who is up knows it");
    assert_eq!(failure.code, ErrorCode::SessionNotSatisfied, "{failure}");
    assert_eq!(failure.effect, Effect::NotApplied);
    let (node, _, counter) = stored.dot;
    let missing = format!("n{node}");
    assert!(failure.detail.contains(&missing), "{} names {missing}, {counter}", failure.detail);
    let receipt = failure.receipt.expect("a receipt");
    let asked = lines(&receipt).iter().filter(|line| line.2 == Outcome::Current).count();
    assert_eq!(asked, 2, "both others were asked: {receipt:?}");
    let write = session.change(&bucket, owners[1], KEY, &put("more"), &ONE).await;
    let failure = write.expect_err("it cannot come after what nobody knows");
    assert_eq!(
        (failure.code, failure.effect),
        (ErrorCode::SessionNotSatisfied, Effect::NotApplied)
    );
    let plain = bucket.find(owners[1], KEY, None, &ONE).await.expect("its own copy");
    assert_eq!(shown(&plain), Shown::values(&["old"]));

    cluster.rejoin(owners[0]);
    cluster.boot(owners[0]).await;
    cluster.settle().await;
    let again = session.read(&bucket, owners[1], KEY, &ONE).await.expect("it is back");
    assert_eq!(again, Shown::values(&["new"]));
}

/// A write that waited for no fsync is gone with the power. Its session is not lied to: it hears that what it has seen is
/// missing, for good. A new session begins with what there is.
#[tokio::test(start_paused = true)]
async fn what_is_gone_is_not_passed_over() {
    let mut cluster = Cluster::start(5).await;
    let bucket = Bucket::create(&cluster, Kind::Register).await;
    let owners = bucket.owners(KEY);
    let mut session = Session::default();
    session.change(&bucket, owners[1], KEY, &put("old"), &w(3)).await.expect("all are up");
    cluster.crash(owners[0]);
    cluster.boot_slow(owners[0], Duration::from_millis(300)).await;
    cluster.settle().await;
    cluster.isolate(owners[0]);
    let hasty = With { dw: Some(0), ..ONE };
    session.replace(&bucket, owners[0], KEY, &put("new"), &hasty).await.expect("in memory");
    cluster.crash(owners[0]);
    cluster.rejoin(owners[0]);
    cluster.boot(owners[0]).await;
    cluster.settle().await;
    for via in cluster.up() {
        let failure = session.read(&bucket, via, KEY, &ONE).await.expect_err("it is gone");
        assert_eq!(failure.code, ErrorCode::SessionNotSatisfied, "{failure}");
        assert!(failure.detail.contains("begin a new session"), "{}", failure.detail);
    }
    let mut new = Session::default();
    let there = new.read(&bucket, owners[2], KEY, &ONE).await.expect("it has seen nothing");
    assert_eq!(there, Shown::values(&["old"]));
}

/// A session is answered with what is on stable storage: all nodes lose power at the moment of the answer, and what it was
/// shown is there when they are back. A plain read may have shown what is gone.
#[tokio::test(start_paused = true)]
async fn what_a_session_was_shown_survives_the_loss_of_all_power() {
    for in_session in [true, false] {
        let mut cluster = Cluster::start(3).await;
        let bucket = Bucket::create(&cluster, Kind::Set).await;
        for node in cluster.up() {
            cluster.crash(node);
            cluster.boot_slow(node, Duration::from_millis(100)).await;
        }
        cluster.settle().await;
        let owners = bucket.owners(KEY);
        let hasty = With { w: Some(1), dw: Some(0), ..ONE };
        bucket.change(owners[0], KEY, &add(&["x"]), &Said::nothing(), &hasty).await.expect("up");
        let mut session = Session::default();
        let read = match in_session {
            true => session.read(&bucket, owners[0], KEY, &ONE).await.expect("up"),
            false => shown(&bucket.find(owners[0], KEY, None, &ONE).await.expect("up")),
        };
        assert_eq!(read, Shown::elements(&["x"]), "its writer heard that it is there");
        let nodes = cluster.up();
        cluster.crash_all(&nodes);
        cluster.boot_all(&nodes).await;
        cluster.settle().await;
        let after = match in_session {
            true => session.read(&bucket, owners[1], KEY, &ONE).await.expect("it is there"),
            false => bucket.shown(owners[1], KEY).await,
        };
        let expected: &[&str] = if in_session { &["x"] } else { &[] };
        assert_eq!(after, Shown::elements(expected), "in a session: {in_session}");
    }
}

/// A session sees its own removal, clearing and switching off: each has an event of its own.
#[tokio::test(start_paused = true)]
async fn a_session_sees_what_it_has_taken_away() {
    let cases = [
        (Kind::Register, put("v"), Operation::Clear, Shown::values(&[])),
        (Kind::Lww, put("v"), Operation::Clear, Shown::values(&[])),
        (Kind::Counter, counted(1, 1, 5), Operation::Clear, Shown::Number(0)),
        (Kind::Set, add(&["a", "b"]), remove(&["a"]), Shown::elements(&["b"])),
        (Kind::Flag, Operation::Enable, Operation::Disable, Shown::IsOn(false)),
    ];
    for (kind, first, removal, after) in cases {
        let cluster = Cluster::start(5).await;
        let bucket = Bucket::create(&cluster, kind).await;
        let owners = bucket.owners(KEY);
        let mut session = Session::default();
        session.change(&bucket, owners[0], KEY, &first, &w(3)).await.expect("all are up");
        session.read(&bucket, owners[0], KEY, &r(1)).await.expect("up");
        cluster.isolate(owners[0]);
        session.replace(&bucket, owners[0], KEY, &removal, &ONE).await.expect("alone");
        for owner in &owners[1..] {
            let plain = bucket.find(*owner, KEY, None, &ONE).await.expect("its own copy");
            assert_ne!(shown(&plain), after, "{kind}: the removal went nowhere");
        }
        cluster.rejoin(owners[0]);
        for owner in &owners {
            let read = session.read(&bucket, *owner, KEY, &ONE).await.expect("somebody knows it");
            assert_eq!(read, after, "{kind} through {owner}");
        }
    }
}

/// A write in a session comes after all that the session has seen, wherever it is coordinated: who reads its coordinator's
/// copy sees both.
#[tokio::test(start_paused = true)]
async fn writes_follow_what_was_read_and_written_before() {
    let cluster = Cluster::start(5).await;
    let bucket = Bucket::create(&cluster, Kind::Set).await;
    let owners = bucket.owners(KEY);
    cluster.isolate(owners[0]);
    let mut ann = Session::default();
    ann.change(&bucket, owners[0], KEY, &add(&["question"]), &ONE).await.expect("alone");
    let mut bob = Session::default();
    bob.read(&bucket, owners[0], KEY, &ONE).await.expect("its own copy");
    cluster.rejoin(owners[0]);
    bob.change(&bucket, owners[1], KEY, &add(&["answer"]), &ONE).await.expect("it asks first");
    let copy = bucket.find(owners[1], KEY, None, &ONE).await.expect("its own copy");
    assert_eq!(shown(&copy), Shown::elements(&["answer", "question"]));
}

/// Seen in the simulator: a session wrote twice, two owners had missed the first write, and whoever read one of these saw the
/// second without the first. The coordinator had looked for what its session had seen, and sent the others the second change
/// alone; a hint that a fallback kept was no better. Now they get all that it knows.
#[tokio::test(start_paused = true)]
async fn whoever_sees_a_write_sees_what_its_session_had_seen_before() {
    for owner_is_down in [false, true] {
        let mut cluster = Cluster::start(5).await;
        let bucket = Bucket::create(&cluster, Kind::Set).await;
        let owners = bucket.owners(KEY);
        let mut session = Session::default();
        cluster.isolate(owners[0]);
        session.change(&bucket, owners[0], KEY, &add(&["first"]), &ONE).await.expect("alone");
        cluster.rejoin(owners[0]);
        if owner_is_down {
            cluster.crash(owners[2]);
            cluster.settle().await;
        }
        // whoever was alone may have kept a hint for the third: it shall not help
        cluster.network.cut(owners[0], owners[2]);
        let through = With { timeout_ms: 1000, sloppy: true, ..ONE };
        session.change(&bucket, owners[1], KEY, &add(&["second"]), &through).await.expect("up");
        if owner_is_down {
            cluster.boot(owners[2]).await;
        }
        cluster.settle().await;
        let copy = bucket.state(&cluster, owners[2], KEY).expect("it has the second");
        let both = Shown::elements(&["first", "second"]);
        assert_eq!(Shown::of(&copy.read(0)), both, "by a hint: {owner_is_down}");
    }
}

/// A token belongs to its key, and to its bucket.
#[tokio::test(start_paused = true)]
async fn a_session_token_of_another_key_is_refused() {
    let cluster = Cluster::start(5).await;
    let (bucket, other) =
        (Bucket::create(&cluster, Kind::Register).await, Bucket::create(&cluster, Kind::Set).await);
    let via = NodeId(1);
    let token = bucket.apply(via, KEY, &put("v")).await.context;
    for (asked, key) in [(&bucket, "another"), (&other, KEY)] {
        let refused = asked.find(via, key, Some(token.clone()), &ONE).await;
        let failure = refused.expect_err("a token of another key");
        assert_eq!(failure.code, ErrorCode::ContextOtherKey);
    }
}
