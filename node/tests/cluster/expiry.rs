//! Values that end: shown until then and not after, whoever is asked; hidden, never removed; by the clock of whoever answers.

use std::time::Duration;

use atoll_antientropy::{Kind, Operation};
use atoll_node::HintLimits;
use atoll_ring::NodeId;
use atoll_wire::{Effect, ErrorCode, Write, bucket::Properties, limits::TTL_MS_MAX};

use crate::{
    bucket::{Bucket, Said, Shown, put, shown},
    cluster::{Cluster, DEFAULT, r, w},
    exchange::assert_trees,
};

const KEY: &str = "k";
const MINUTE_MS: u64 = 60_000;

async fn pass(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

/// What every node shows, each asked for itself and for all.
async fn assert_shown(cluster: &Cluster, bucket: &Bucket, expected: &[&str]) {
    for via in cluster.up() {
        for with in [r(1), r(3)] {
            let found = bucket.find(via, KEY, None, &with).await.expect("up");
            assert_eq!(shown(&found), Shown::values(expected), "{} through {via}", bucket.kind);
        }
    }
}

/// Until its end a value is shown everywhere, and from then on nowhere. It is still there, with its context, and whoever
/// writes in its place replaces it.
#[tokio::test(start_paused = true)]
async fn a_value_is_shown_until_its_end() {
    for kind in [Kind::Register, Kind::Lww] {
        let mut cluster = Cluster::start(5).await;
        let bucket = Bucket::create(&cluster, kind).await;
        let owners = bucket.owners(KEY);
        let said = Said::ttl_ms(MINUTE_MS);
        bucket.change(owners[0], KEY, &put("v"), &said, &w(3)).await.expect("up");
        pass(MINUTE_MS - 100).await;
        assert_shown(&cluster, &bucket, &["v"]).await;
        pass(200).await;
        assert_shown(&cluster, &bucket, &[]).await;
        cluster.release_exchange();
        pass(10 * MINUTE_MS).await;
        let state = bucket.state(&cluster, owners[0], KEY).expect("it is not removed");
        assert!(!state.is_tombstone());
        let found = bucket.find(owners[1], KEY, None, &DEFAULT).await.expect("up");
        assert!(!found.context.is_empty(), "it is known");
        let said = Said::context(&found.context);
        bucket.change(owners[2], KEY, &put("next"), &said, &w(3)).await.expect("up");
        assert_shown(&cluster, &bucket, &["next"]).await;
        bucket.assert_whole(&cluster, KEY, &Shown::values(&["next"])).await;
    }
}

/// A value with an end replaces one without, and an owner misses that. When it comes back after the end, what was replaced
/// does not come back with it.
#[tokio::test(start_paused = true)]
async fn what_an_expired_value_had_replaced_stays_replaced() {
    for kind in [Kind::Register, Kind::Lww] {
        let limits = HintLimits { bytes_per_owner_max: 0, away_max: Duration::from_secs(100_000) };
        let mut cluster = Cluster::start_with(5, limits).await;
        let bucket = Bucket::create(&cluster, kind).await;
        let owners = bucket.owners(KEY);
        bucket.change(owners[0], KEY, &put("old"), &Said::nothing(), &w(3)).await.expect("up");
        cluster.crash(owners[2]);
        cluster.settle().await;
        let context = bucket.find(owners[0], KEY, None, &r(2)).await.expect("up").context;
        let said = Said { ttl_ms: Some(MINUTE_MS), ..Said::context(&context) };
        bucket.change(owners[0], KEY, &put("short"), &said, &w(2)).await.expect("two are up");
        pass(2 * MINUTE_MS).await;
        cluster.boot(owners[2]).await;
        cluster.settle().await;
        let found = bucket.find(owners[2], KEY, None, &r(2)).await.expect("up");
        assert_eq!(shown(&found), Shown::values(&[]), "{kind}: another owner knows better");
        cluster.release_exchange();
        pass(15_000).await;
        assert_shown(&cluster, &bucket, &[]).await;
        assert_trees(&cluster);
    }
}

/// A node whose clock is an hour ahead shows less than it should, and hides nothing from those who ask others: its copies
/// are what they were, and no repair takes anything away.
#[tokio::test(start_paused = true)]
async fn a_clock_that_is_ahead_hides_nothing_elsewhere() {
    let mut cluster = Cluster::start(3).await;
    let bucket = Bucket::create(&cluster, Kind::Register).await;
    let owners = bucket.owners(KEY);
    let said = Said::ttl_ms(10 * MINUTE_MS);
    bucket.change(owners[0], KEY, &put("v"), &said, &w(3)).await.expect("up");
    let before = bucket.state(&cluster, owners[2], KEY);
    cluster.clock(owners[2]).jump(3_600_000);
    cluster.release_exchange();
    let ahead = bucket.find(owners[2], KEY, None, &r(3)).await.expect("up");
    assert_eq!(shown(&ahead), Shown::values(&[]), "by its own clock");
    assert!(ahead.receipt.repaired.is_empty(), "the copies are equal: {:?}", ahead.receipt);
    pass(3 * 15_000).await;
    for via in &owners[..2] {
        for with in [r(1), r(3)] {
            let found = bucket.find(*via, KEY, None, &with).await.expect("up");
            assert_eq!(shown(&found), Shown::values(&["v"]), "through {via}");
            assert!(found.receipt.repaired.is_empty());
        }
    }
    for owner in &owners {
        assert_eq!(bucket.state(&cluster, *owner, KEY), before, "at {owner}");
        assert_eq!(cluster.status(*owner).await.exchanged, 0, "nothing differed");
    }
    assert_trees(&cluster);
    cluster.clock(owners[2]).jump(-3_600_000);
    assert_shown(&cluster, &bucket, &["v"]).await;
}

/// A bucket's time to live is for values whose writers say nothing; a writer may say another one, or for ever. Whoever
/// coordinates, a value's end is the same on all owners.
#[tokio::test(start_paused = true)]
async fn a_bucket_has_a_time_to_live_of_its_own() {
    let cluster = Cluster::start(5).await;
    let properties = Properties { ttl_ms: Some(MINUTE_MS), ..Properties::default() };
    let bucket = Bucket::create_with(&cluster, Kind::Register, properties).await;
    let via = NodeId(1);
    for (value, ttl_ms) in
        [("bucket's", None), ("longer", Some(5 * MINUTE_MS)), ("for ever", Some(Write::FOR_EVER))]
    {
        let said = Said { ttl_ms, ..Said::nothing() };
        bucket.change(via, KEY, &put(value), &said, &w(3)).await.expect("up");
    }
    assert_shown(&cluster, &bucket, &["bucket's", "for ever", "longer"]).await;
    pass(2 * MINUTE_MS).await;
    assert_shown(&cluster, &bucket, &["for ever", "longer"]).await;
    pass(4 * MINUTE_MS).await;
    assert_shown(&cluster, &bucket, &["for ever"]).await;
}

/// No time at all, or more than a hundred years: refused, and nothing is written.
#[tokio::test(start_paused = true)]
async fn a_time_to_live_has_bounds() {
    let cluster = Cluster::start(5).await;
    let bucket = Bucket::create(&cluster, Kind::Register).await;
    for (ttl_ms, is_good) in [(0, false), (1, true), (TTL_MS_MAX, true), (TTL_MS_MAX + 1, false)] {
        let key = format!("k{ttl_ms}");
        let said = Said::ttl_ms(ttl_ms);
        let answer = bucket.change(NodeId(1), &key, &put("v"), &said, &DEFAULT).await;
        match answer {
            Ok(_) => assert!(is_good, "{ttl_ms}"),
            Err(failure) => {
                assert!(!is_good, "{failure}");
                let outcome = (failure.code, failure.effect);
                assert_eq!(outcome, (ErrorCode::BadOperation, Effect::NotApplied));
                cluster.settle().await;
                for owner in bucket.owners(&key) {
                    assert_eq!(bucket.state(&cluster, owner, &key), None);
                }
            }
        }
    }
    // what has no value of its own has no end either
    let set = Bucket::create(&cluster, Kind::Flag).await;
    let said = Said::ttl_ms(MINUTE_MS);
    let answer = set.change(NodeId(1), KEY, &Operation::Enable, &said, &DEFAULT).await;
    if answer.is_ok() {
        pass(2 * MINUTE_MS).await;
        assert_eq!(set.shown(NodeId(1), KEY).await, Shown::IsOn(true));
    }
}
