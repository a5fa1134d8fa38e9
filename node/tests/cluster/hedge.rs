//! Reads that meet a slow owner ask one more, seldom enough.

use std::time::Duration;

use atoll_ring::NodeId;
use atoll_wire::Outcome;
use tokio::time::Instant;

use crate::cluster::{Cluster, DEFAULT, SLOPPY, With, blind, lines, r, values, w};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A cluster whose links from the first owner take 4 ms, and which has seen enough reads to know that.
async fn warm(nodes: u32) -> (Cluster, Vec<NodeId>) {
    let cluster = Cluster::start(nodes).await;
    let owners = cluster.owners("k");
    for owner in &owners[1..] {
        cluster.network.slow(*owner, owners[0], ms(4));
    }
    cluster.put(owners[0], "k", "v", &blind(), &w(3)).await.expect("up");
    for _ in 0..400 {
        cluster.get(owners[0], "k", &r(2)).await.expect("up");
    }
    assert_eq!(cluster.status(owners[0]).await.hedges, 0, "nobody was slow");
    (cluster, owners)
}

/// The owner that a read asks has become slow. After the usual 4 ms and a little, long before anybody is called silent,
/// the next owner is asked and answers.
#[tokio::test(start_paused = true)]
async fn a_slow_owner_gets_company_at_the_observed_p95() {
    for with in [r(2), With { r: Some(2), ..SLOPPY }] {
        let (cluster, owners) = warm(5).await;
        let usual = cluster.get(owners[0], "k", &with).await.expect("up");
        let asked = |outcome| move |line: &&(NodeId, _, Outcome)| line.2 == outcome;
        let spare = *lines(&usual.receipt).iter().find(asked(Outcome::NotAsked)).expect("a third");
        let slow = *owners[1..].iter().find(|owner| **owner != spare.0).expect("a second");
        cluster.network.slow(slow, owners[0], ms(150));
        let start = Instant::now();
        let found = cluster.get(owners[0], "k", &with).await.expect("the third");
        let elapsed = start.elapsed();
        assert_eq!(values(&found), ["v"]);
        assert!((ms(8)..ms(12)).contains(&elapsed), "p95 of 4 ms, then 4 ms: {elapsed:?}");
        assert!(lines(&found.receipt).contains(&(spare.0, None, Outcome::Current)));
        assert!(lines(&found.receipt).contains(&(slow, None, Outcome::Pending)));
        assert!(lines(&found.receipt).iter().all(|line| line.1.is_none()), "no fallback is asked");
        assert_eq!(cluster.status(owners[0]).await.hedges, 1);
    }
}

/// One read in 25 meets a slow owner and is hedged. Over thousands of reads hedges stay below a twentieth, also when all
/// owners become slow at once: what a calm has saved up pays for ten, and no more.
#[tokio::test(start_paused = true)]
async fn hedges_are_at_most_a_twentieth_of_the_reads() {
    let (cluster, owners) = warm(3).await;
    let mut reads = 401;
    for number in 0..3000 {
        let slow = if number % 25 == 0 { 60 } else { 4 };
        cluster.network.slow(owners[1], owners[0], ms(slow));
        cluster.get(owners[0], "k", &r(2)).await.expect("up");
        reads += 1;
        let hedges = cluster.status(owners[0]).await.hedges;
        assert!(hedges * 20 <= reads, "{hedges} of {reads}");
    }
    let before = cluster.status(owners[0]).await.hedges;
    assert!(before > 60, "half of the slow ones at least: {before}");

    for _ in 0..400 {
        cluster.get(owners[0], "k", &r(2)).await.expect("up");
    }
    for owner in &owners[1..] {
        cluster.network.slow(*owner, owners[0], ms(60));
    }
    for _ in 0..60 {
        cluster.get(owners[0], "k", &r(2)).await.expect("up");
    }
    let burst = cluster.status(owners[0]).await.hedges - before;
    assert!((10..=13).contains(&burst), "{burst}");
}

/// Whoever has asked all owners has nobody to hedge with; a fallback is no hedge.
#[tokio::test(start_paused = true)]
async fn a_read_of_all_owners_does_not_hedge() {
    let (cluster, owners) = warm(5).await;
    cluster.network.slow(owners[1], owners[0], ms(100));
    for with in [r(3), With { r: Some(3), ..SLOPPY }, With { n: Some(2), r: Some(2), ..DEFAULT }] {
        for _ in 0..30 {
            let found = cluster.get(owners[0], "k", &with).await.expect("slow, and no more");
            assert_eq!(lines(&found.receipt).len(), usize::from(with.n.unwrap_or(3)));
        }
    }
    assert_eq!(cluster.status(owners[0]).await.hedges, 0);
}

/// A hedge is one question more, not one answer more: a read that wins by it returns what two different owners hold.
#[tokio::test(start_paused = true)]
async fn a_hedged_read_still_sees_what_was_written() {
    let (cluster, owners) = warm(3).await;
    let mut context = cluster.get(owners[0], "k", &r(2)).await.expect("up").context;
    for number in 0..200 {
        let via = owners[1 + number % 2];
        let (near, far) = if number % 4 < 2 { (1, 2) } else { (2, 1) };
        let value = number.to_string();
        context = cluster.put(via, "k", &value, &context, &w(2)).await.expect("up").context;
        cluster.network.slow(owners[near], owners[0], ms(40));
        cluster.network.slow(owners[far], owners[0], ms(4));
        let found = cluster.get(owners[0], "k", &r(2)).await.expect("up");
        assert_eq!(values(&found), [value]);
    }
    assert!(cluster.status(owners[0]).await.hedges > 0);
}
