//! No owner can be reached: fallbacks coordinate, and claim no more than they know.

use std::time::Duration;

use atoll_node::storage::Space;
use atoll_ring::NodeId;
use atoll_wire::{Effect, ErrorCode, Outcome};

use crate::cluster::{
    Cluster, DEFAULT, SLOPPY, With, blind, lines, r, sloppy_r, sloppy_w, texts, values, w,
};

/// All owners are down. Fallbacks coordinate, whichever node is asked, and it is as if an owner had: what a context has
/// seen is replaced, what it has not stays beside it, and a delete takes what it saw. The owners then get exactly that.
#[tokio::test(start_paused = true)]
async fn fallbacks_coordinate_when_all_owners_are_down() {
    let mut cluster = Cluster::start(5).await;
    let (owners, fallbacks) = (cluster.owners("k"), cluster.fallbacks("k"));
    let (first, second) = (fallbacks[0], fallbacks[1]);
    let old = cluster.put(owners[0], "k", "old", &blind(), &w(3)).await.expect("up");
    cluster.crash_all(&owners);
    cluster.settle().await;

    let stored = cluster.put(second, "k", "a", &old.context, &SLOPPY).await.expect("fallbacks");
    assert_eq!(stored.receipt.coordinator, first.0, "writes meet at the first fallback");
    let stands_in = |node, owner| (node, Some(owner), Outcome::Durable);
    let expected = [
        (owners[0], None, Outcome::Down),
        (owners[1], None, Outcome::Down),
        (owners[2], None, Outcome::Down),
        stands_in(first, owners[0]),
        stands_in(second, owners[1]),
    ];
    assert_eq!(lines(&stored.receipt), expected);
    let strict = cluster.put(second, "k", "no", &blind(), &DEFAULT).await.expect_err("no owner");
    assert_eq!((strict.code, strict.effect), (ErrorCode::NoOwnerReachable, Effect::NotApplied));
    for too_many in [sloppy_w(3), With { pw: Some(1), ..sloppy_w(2) }] {
        let failure = cluster.put(second, "k", "no", &blind(), &too_many).await.expect_err("two");
        assert_eq!(failure.effect, Effect::NotApplied);
    }

    let b = cluster.put(first, "k", "b", &stored.context, &SLOPPY).await.expect("replaces a");
    cluster.put(second, "k", "c", &blind(), &SLOPPY).await.expect("beside b");
    cluster.crash(first); // and its next event stands alone
    cluster.boot(first).await;
    cluster.settle().await;
    cluster.put(second, "k", "d", &blind(), &SLOPPY).await.expect("beside b and c");
    cluster.stop(first).await; // and its next event extends from the last one
    cluster.crash(first);
    cluster.boot(first).await;
    cluster.settle().await;
    cluster.put(first, "k", "e", &blind(), &SLOPPY).await.expect("beside b, c and d");
    let found = cluster.get(second, "k", &sloppy_r(2)).await.expect("two hints");
    assert_eq!(values(&found), ["b", "c", "d", "e"]);
    let gone = cluster.delete(second, "k", &b.context, &SLOPPY).await.expect("b only");
    assert_eq!(gone.receipt.coordinator, first.0);

    cluster.boot(owners[1]).await;
    cluster.settle().await;
    assert_eq!(texts(&cluster.state(owners[1], "k").expect("hinted")), ["c", "d", "e"]);
    cluster.boot_all(&[owners[0], owners[2]]).await;
    cluster.settle().await;
    let found = cluster.get(owners[2], "k", &r(3)).await.expect("up");
    assert_eq!(values(&found), ["c", "d", "e"], "nothing comes back");
    cluster.settle().await;
    cluster.assert_whole("k", &["c", "d", "e"]).await;
}

/// As long as one owner can be reached it coordinates, whichever node is asked, and fallbacks only stand in.
#[tokio::test(start_paused = true)]
async fn a_fallback_leaves_the_coordination_to_an_owner() {
    let mut cluster = Cluster::start(5).await;
    let (owners, fallbacks) = (cluster.owners("k"), cluster.fallbacks("k"));
    for up in (1..=3).rev() {
        for via in owners[..up].iter().chain(&fallbacks) {
            let stored = cluster.put(*via, "k", "v", &blind(), &SLOPPY).await.expect("up");
            assert!(owners.contains(&NodeId(stored.receipt.coordinator)), "{up} up, via {via}");
        }
        assert_eq!(cluster.hints().await == 0, up == 3);
        cluster.crash(owners[up - 1]);
        cluster.settle().await;
    }
}

/// On each side of a split another fallback coordinates the same key, while all owners are away. Both histories are kept.
#[tokio::test(start_paused = true)]
async fn two_fallbacks_coordinate_in_a_split() {
    let mut cluster = Cluster::start(5).await;
    let (owners, fallbacks) = (cluster.owners("k"), cluster.fallbacks("k"));
    let old = cluster.put(owners[0], "k", "old", &blind(), &w(3)).await.expect("up");
    cluster.crash_all(&owners);
    cluster.split(&fallbacks[..1]);
    cluster.settle().await;
    for (fallback, side) in fallbacks.iter().zip(["left", "right"]) {
        let one = &sloppy_w(1);
        let first = cluster.put(*fallback, "k", side, &old.context, one).await.expect("itself");
        assert_eq!(first.receipt.coordinator, fallback.0);
        let next = format!("{side} again");
        cluster.put(*fallback, "k", &next, &first.context, one).await.expect("itself");
        cluster.put(*fallback, "k", side, &blind(), one).await.expect("itself");
    }
    cluster.heal();
    cluster.boot_all(&owners).await;
    cluster.settle().await;
    cluster.get(owners[0], "k", &r(3)).await.expect("hints are for the first owner; this mends");
    cluster.settle().await;
    cluster.assert_whole("k", &["left", "left again", "right", "right again"]).await;
}

/// The same fallback coordinates, stands in for an owner that is back and coordinates again. Its events extend from its
/// own last one only, and what came from others in between stays.
#[tokio::test(start_paused = true)]
async fn a_fallback_that_coordinated_and_stood_in_claims_only_its_own() {
    let mut cluster = Cluster::start(5).await;
    let (owners, fallbacks) = (cluster.owners("k"), cluster.fallbacks("k"));
    cluster.crash_all(&owners);
    cluster.settle().await;
    cluster.put(fallbacks[0], "k", "a", &blind(), &SLOPPY).await.expect("fallbacks");
    cluster.boot(owners[1]).await;
    cluster.settle().await;
    let stored = cluster.put(owners[1], "k", "b", &blind(), &sloppy_w(3)).await.expect("both");
    assert!(lines(&stored.receipt).contains(&(fallbacks[0], Some(owners[0]), Outcome::Durable)));
    cluster.crash(owners[1]);
    cluster.settle().await;
    let stored = cluster.put(fallbacks[0], "k", "c", &blind(), &SLOPPY).await.expect("fallbacks");
    assert_eq!(stored.receipt.coordinator, fallbacks[0].0);
    let hint = cluster.hint(fallbacks[0], owners[0], "k").expect("kept");
    assert_eq!(texts(&hint), ["a", "b", "c"]);
    cluster.boot(owners[0]).await;
    cluster.settle().await;
    assert!(
        cluster.hint(fallbacks[0], owners[0], "k").is_none(),
        "delivered, and its note with it"
    );
    cluster.crash(owners[0]);
    cluster.settle().await;
    cluster.put(fallbacks[0], "k", "d", &blind(), &SLOPPY).await.expect("fallbacks");
    cluster.boot_all(&owners).await;
    cluster.settle().await;
    cluster.get(owners[0], "k", &r(3)).await.expect("up");
    cluster.settle().await;
    cluster.assert_whole("k", &["a", "b", "c", "d"]).await;
}

/// A fallback acknowledges through another one and loses its own copy: its disk was slower than the power loss. Its next
/// event must not claim what it has forgotten. (Trusting the note from before loses "lost here".)
#[tokio::test(start_paused = true)]
async fn a_fallback_claims_nothing_it_may_have_forgotten() {
    let mut cluster = Cluster::start(5).await;
    let (owners, fallbacks) = (cluster.owners("k"), cluster.fallbacks("k"));
    cluster.crash_all(&owners);
    cluster.crash(fallbacks[0]);
    cluster.boot_slow(fallbacks[0], Duration::from_millis(100)).await;
    cluster.settle().await;
    let one = &sloppy_w(1);
    cluster.put(fallbacks[0], "k", "base", &blind(), &sloppy_w(2)).await.expect("both");
    cluster.put(fallbacks[0], "k", "lost here", &blind(), one).await.expect("the other is faster");
    cluster.crash(fallbacks[0]);
    cluster.boot(fallbacks[0]).await;
    cluster.settle().await;
    let forgot = cluster.hint(fallbacks[0], owners[0], "k").expect("the first one");
    assert_eq!(texts(&forgot), ["base"]);
    cluster.put(fallbacks[0], "k", "after", &blind(), &sloppy_w(2)).await.expect("both");
    cluster.boot_all(&owners).await;
    cluster.settle().await;
    cluster.get(owners[0], "k", &r(3)).await.expect("up");
    cluster.settle().await;
    cluster.assert_whole("k", &["after", "base", "lost here"]).await;
}

/// A fallback coordinates again and again, other keys and the writes of others in between. Its events extend from its
/// last one, so the context of the key, and with it the token, does not grow. (It would if the note were lost when the
/// hint takes in somebody else's write.)
#[tokio::test(start_paused = true)]
async fn the_context_of_a_busy_fallback_stays_short() {
    let mut cluster = Cluster::start(5).await;
    let (owners, fallbacks) = (cluster.owners("k"), cluster.fallbacks("k"));
    let keys = cluster.neighbours("k", 2);
    cluster.crash_all(&owners);
    cluster.network.cut(fallbacks[0], owners[0]); // so that its hint stays
    cluster.settle().await;
    let mut context = blind();
    for number in 0..5 {
        for key in &keys {
            let with = if key == "k" { &context } else { &blind() };
            let put = cluster.put(fallbacks[0], key, &number.to_string(), with, &SLOPPY).await;
            let stored = put.expect("fallbacks");
            assert_eq!(stored.receipt.coordinator, fallbacks[0].0);
            if key == "k" {
                context = stored.context;
            }
        }
        cluster.boot(owners[1]).await;
        cluster.settle().await;
        let stored = cluster.put(owners[1], "k", "other", &context, &sloppy_w(3)).await;
        let stored = stored.expect("both fallbacks");
        assert!(lines(&stored.receipt).contains(&(
            fallbacks[0],
            Some(owners[0]),
            Outcome::Durable
        )));
        context = stored.context;
        cluster.stop(owners[1]).await;
        cluster.crash(owners[1]);
        cluster.settle().await;
    }
    let hint = cluster.hint(fallbacks[0], owners[0], "k").expect("kept");
    let actors = 2; // the fallback, and the owner that came and went in order
    assert_eq!(hint.context().intervals(), actors);
}

/// The only owner that is up has a damaged record of the key. It takes part in the write, whoever coordinates: what it
/// acknowledges it keeps. When the others are back it fetches what it has lost.
#[tokio::test(start_paused = true)]
async fn a_damaged_record_keeps_nobody_from_writing() {
    for asked in 0..2 {
        let mut cluster = Cluster::start(5).await;
        let (owners, fallbacks) = (cluster.owners("k"), cluster.fallbacks("k"));
        let old = cluster.put(owners[0], "k", "old", &blind(), &w(3)).await.expect("up");
        cluster.crash_all(&owners[1..]);
        cluster.settle().await;
        assert!(cluster.store(owners[0]).damage(Space::Data, &cluster.row("k")));
        let via = [owners[0], fallbacks[0]][asked];
        let put = cluster.put(via, "k", "v", &old.context, &SLOPPY).await;
        let stored = put.unwrap_or_else(|failure| panic!("via {via}: {failure}"));
        assert!(
            stored.receipt.replicas.iter().any(|replica| {
                (replica.node, replica.outcome) == (owners[0].0, Outcome::Durable)
            })
        );
        assert_eq!(cluster.status(owners[0]).await.keys_in_doubt, 1);
        cluster.boot_all(&owners[1..]).await;
        cluster.settle().await;
        let found = cluster.get(owners[1], "k", &r(2)).await.expect("two undamaged owners");
        assert_eq!(values(&found), ["v"]);
        tokio::time::sleep(Duration::from_secs(130)).await;
        assert_eq!(cluster.status(owners[0]).await.keys_in_doubt, 0);
        cluster.assert_whole("k", &["v"]).await;
    }
}
