//! Each kind of value on its way through a cluster: written anywhere, by hint, read repair and exchange to whoever missed
//! it, through damage and through a change of the ring. And what each kind promises when sides meet again.

use std::time::Duration;

use atoll_antientropy::{ELEMENTS_MAX, Field, FieldChange, Kind, Operation};
use atoll_node::{
    HintLimits,
    storage::{Space, Store as _},
};
use atoll_transport::{chance::Chance, memory::Weather};
use atoll_wire::{Effect, ErrorCode};
use bytes::Bytes;

use crate::{
    bucket::{Bucket, Said, Shown, add, counted, once, put, remove, shown, update},
    cluster::{CLIENT, Cluster, DEFAULT, With, r, w},
    moves::Ring,
};

const KEY: &str = "k";

/// Nobody keeps anything for anybody.
const NO_HINTS: HintLimits =
    HintLimits { bytes_per_owner_max: 0, away_max: Duration::from_secs(100_000) };

/// Longer than the pause between two comparisons, and the comparison itself.
const SOON: Duration = Duration::from_secs(13);

/// Three changes that say nothing of what was seen, and what is shown after them.
fn story(kind: Kind) -> ([Operation; 3], Shown) {
    match kind {
        Kind::Register => ([put("a"), put("b"), put("c")], Shown::values(&["a", "b", "c"])),
        Kind::Lww => ([put("a"), put("b"), put("c")], Shown::values(&["c"])),
        Kind::Counter => ([once(5), once(-2), counted(7, 1, 10)], Shown::Number(13)),
        Kind::Set => {
            ([add(&["a", "b"]), add(&["c"]), remove(&["b"])], Shown::elements(&["a", "c"]))
        }
        Kind::Flag => {
            ([Operation::Enable, Operation::Disable, Operation::Enable], Shown::IsOn(true))
        }
        Kind::Max => {
            let raise = Operation::Raise;
            ([raise(-3), raise(9), raise(4)], Shown::Greatest(Some(9)))
        }
        Kind::Map => {
            let first = update(&[
                ("count", Kind::Counter, once(5)),
                ("tags", Kind::Set, add(&["x"])),
                ("name", Kind::Register, put("Ann")),
            ]);
            let inner = update(&[("on", Kind::Flag, Operation::Enable)]);
            let second = update(&[("count", Kind::Counter, once(-2)), ("in", Kind::Map, inner)]);
            let third = update(&[("name", Kind::Register, put("Bob"))]);
            ([first, second, third], fields("Bob", 3, &["x"]))
        }
    }
}

/// One more change, which takes away what it can, and what is shown then.
fn sequel(kind: Kind) -> (Operation, Shown) {
    match kind {
        Kind::Register => (put("d"), Shown::values(&["a", "b", "c", "d"])),
        Kind::Lww => (put("d"), Shown::values(&["d"])),
        Kind::Counter => (counted(7, 2, 110), Shown::Number(113)),
        Kind::Set => (remove(&["a"]), Shown::elements(&["c"])),
        Kind::Flag => (Operation::Disable, Shown::IsOn(false)),
        Kind::Max => (Operation::Raise(20), Shown::Greatest(Some(20))),
        Kind::Map => {
            let tags = remove(&["x"]);
            let change = update(&[
                ("tags", Kind::Set, tags),
                ("count", Kind::Counter, once(4)),
                ("name", Kind::Register, put("Eve")),
            ]);
            (change, fields("Eve", 7, &[]))
        }
    }
}

fn fields(name: &str, count: i128, tags: &[&str]) -> Shown {
    let inner = Shown::Fields(vec![("on".into(), Shown::IsOn(true))]);
    let mut fields = vec![
        ("count".into(), Shown::Number(count)),
        ("in".into(), inner),
        ("name".into(), Shown::values(&[name])),
    ];
    if !tags.is_empty() {
        fields.push(("tags".into(), Shown::elements(tags)));
    }
    Shown::Fields(fields)
}

/// A bucket in which the story has happened.
async fn told(cluster: &Cluster, kind: Kind) -> Bucket {
    let bucket = Bucket::create(cluster, kind).await;
    let (changes, after) = story(kind);
    for (owner, change) in bucket.owners(KEY).into_iter().zip(&changes) {
        bucket.apply(owner, KEY, change).await;
        cluster.settle().await; // what one owner was told the others know now
    }
    bucket.assert_whole(cluster, KEY, &after).await;
    bucket
}

/// Every kind through three coordinators; each node of the cluster shows the same, and all owners hold the same.
#[tokio::test(start_paused = true)]
async fn every_kind_is_one_value_on_three_owners() {
    let cluster = Cluster::start(5).await;
    for kind in Kind::ALL {
        let bucket = told(&cluster, kind).await;
        let (_, after) = story(kind);
        for via in cluster.up() {
            assert_eq!(bucket.shown(via, KEY).await, after, "{kind} through {via}");
        }
        let (change, after) = sequel(kind);
        let elsewhere = cluster.up().into_iter().find(|node| !bucket.owners(KEY).contains(node));
        bucket.apply(elsewhere.expect("five nodes, three owners"), KEY, &change).await;
        cluster.settle().await;
        bucket.assert_whole(&cluster, KEY, &after).await;
    }
}

/// What an owner has missed, a removal too, arrives by a hint alone.
#[tokio::test(start_paused = true)]
async fn a_hint_brings_a_missed_change_of_every_kind() {
    for kind in Kind::ALL {
        let mut cluster = Cluster::start(5).await;
        let bucket = told(&cluster, kind).await;
        let owners = bucket.owners(KEY);
        cluster.crash(owners[2]);
        cluster.settle().await;
        let (change, after) = sequel(kind);
        let stored = bucket.apply(owners[0], KEY, &change).await;
        assert_eq!(stored.receipt.hinted, [owners[2].0], "{kind}");
        cluster.boot(owners[2]).await;
        cluster.settle().await;
        bucket.assert_whole(&cluster, KEY, &after).await;
    }
}

/// Nobody keeps hints: a read sees who is behind, and brings it what it missed.
#[tokio::test(start_paused = true)]
async fn a_read_mends_who_missed_a_change_of_every_kind() {
    for kind in Kind::ALL {
        let (cluster, bucket, after) = one_is_behind(kind).await;
        let via = bucket.owners(KEY)[1];
        let found = bucket.find(via, KEY, None, &r(3)).await.expect("all are up");
        assert_eq!(shown(&found), after, "{kind}");
        assert_eq!(found.receipt.repaired, [bucket.owners(KEY)[2].0], "{kind}");
        cluster.settle().await;
        bucket.assert_whole(&cluster, KEY, &after).await;
    }
}

/// Nobody keeps hints and nobody reads: comparing brings it.
#[tokio::test(start_paused = true)]
async fn comparing_mends_who_missed_a_change_of_every_kind() {
    for kind in Kind::ALL {
        let (mut cluster, bucket, after) = one_is_behind(kind).await;
        cluster.release_exchange();
        tokio::time::sleep(SOON).await;
        bucket.assert_whole(&cluster, KEY, &after).await;
    }
}

/// The third owner has missed the last change.
async fn one_is_behind(kind: Kind) -> (Cluster, Bucket, Shown) {
    let mut cluster = Cluster::start_with(5, NO_HINTS).await;
    let bucket = told(&cluster, kind).await;
    let owners = bucket.owners(KEY);
    cluster.crash(owners[2]);
    cluster.settle().await;
    let (change, after) = sequel(kind);
    bucket.apply(owners[0], KEY, &change).await;
    cluster.boot(owners[2]).await;
    cluster.settle().await;
    let (_, before) = story(kind);
    let state = bucket.state(&cluster, owners[2], KEY).expect("a record");
    assert_eq!(Shown::of(&state.read(0)), before, "{kind}");
    (cluster, bucket, after)
}

/// A damaged record is no answer, a removal that must know what it removes asks others, and all is whole again.
#[tokio::test(start_paused = true)]
async fn a_damaged_record_of_every_kind_is_mended() {
    for kind in Kind::ALL {
        let mut cluster = Cluster::start(5).await;
        cluster.release_exchange();
        let bucket = told(&cluster, kind).await;
        let owners = bucket.owners(KEY);
        assert!(cluster.store(owners[0]).damage(Space::Data, &bucket.row(KEY)));
        let (change, after) = sequel(kind);
        bucket.apply(owners[0], KEY, &change).await;
        tokio::time::sleep(Duration::from_secs(75)).await;
        bucket.assert_whole(&cluster, KEY, &after).await;
        let found = bucket.find(owners[0], KEY, None, &r(1)).await.expect("its own copy");
        assert_eq!(shown(&found), after, "{kind}");
    }
}

/// A partition moves with keys of every kind in it, which are written before, during and after.
#[tokio::test(start_paused = true)]
async fn every_kind_moves_with_its_partition() {
    let mut ring = Ring::start().await;
    let row = ring.cluster.row("k");
    let mut written = Vec::new();
    for kind in Kind::ALL {
        let bucket = Bucket::create(&ring.cluster, kind).await;
        let key = bucket.keys_beside(&row, 1).remove(0);
        let (changes, _) = story(kind);
        bucket.apply(ring.at[0], &key, &changes[0]).await;
        written.push((bucket, key));
    }
    ring.want(&[3, 1, 2]).await;
    ring.begin().await;
    for (bucket, key) in &written {
        let (changes, _) = story(bucket.kind);
        bucket.apply(ring.at[4], key, &changes[1]).await;
    }
    ring.until_done(3).await;
    ring.finish().await;
    for (bucket, key) in &written {
        let (changes, after) = story(bucket.kind);
        bucket.apply(ring.at[3], key, &changes[2]).await;
        assert_eq!(bucket.shown(ring.at[0], key).await, after, "{}", bucket.kind);
    }
    ring.cluster.release_exchange();
    tokio::time::sleep(SOON).await;
    for (bucket, key) in &written {
        let (_, after) = story(bucket.kind);
        for place in [3, 1, 2] {
            let state = bucket.state(&ring.cluster, ring.at[place], key).expect("a new owner");
            assert_eq!(Shown::of(&state.read(0)), after, "{} at place {place}", bucket.kind);
        }
        let left = ring.cluster.store(ring.at[0]).get(Space::Data, &bucket.row(key));
        assert_eq!(left.expect("memory"), None, "the former owner has handed it over");
    }
}

/// Who takes away without saying what reads first, strictly and enough owners to see every acknowledged write. If it cannot,
/// nothing has happened; who says what was seen needs no such read.
#[tokio::test(start_paused = true)]
async fn a_removal_that_cannot_see_enough_is_not_applied() {
    let removals = [
        (Kind::Register, Operation::Clear),
        (Kind::Counter, Operation::Clear),
        (Kind::Set, remove(&["a"])),
        (Kind::Flag, Operation::Disable),
        (Kind::Map, update(&[("tags", Kind::Set, remove(&["x"]))])),
    ];
    for (kind, removal) in removals {
        let mut cluster = Cluster::start(5).await;
        let bucket = told(&cluster, kind).await;
        let owners = bucket.owners(KEY);
        let seen = bucket.find(owners[0], KEY, None, &r(3)).await.expect("all are up").context;
        cluster.crash(owners[2]);
        cluster.settle().await;
        let before = bucket.state(&cluster, owners[0], KEY);
        // what one owner has acknowledged may be known to the third alone
        for with in [w(1), With { sloppy: true, ..w(1) }] {
            let refused = bucket.change(owners[0], KEY, &removal, &Said::nothing(), &with).await;
            let failure = refused.expect_err("the third owner cannot be asked");
            assert_eq!(failure.code, ErrorCode::ReadQuorumNotMet, "{kind}: {failure}");
            assert_eq!(failure.effect, Effect::NotApplied, "{kind}");
            assert!(failure.detail.contains("nothing was changed"), "{}", failure.detail);
        }
        cluster.settle().await;
        for owner in &owners[..2] {
            assert_eq!(bucket.state(&cluster, *owner, KEY), before, "{kind} at {owner}");
        }
        let said = Said::context(&seen);
        bucket.change(owners[0], KEY, &removal, &said, &w(1)).await.expect("it says what");
    }
}

/// Two sides that cannot see each other add and remove the same elements. When they meet, what was added where the removal
/// could not see it is there, what only the removal knew is gone, and all owners say so.
#[tokio::test(start_paused = true)]
async fn additions_win_over_removals_on_the_other_side() {
    let mut cluster = Cluster::start(5).await;
    let set = Bucket::create(&cluster, Kind::Set).await;
    let flag = Bucket::create(&cluster, Kind::Flag).await;
    let owners = set.owners(KEY);
    set.apply(owners[0], KEY, &add(&["both", "removed", "stays"])).await;
    cluster.settle().await;
    let flag_key = flag.keys_beside(&set.row(KEY), 1).remove(0);
    flag.apply(owners[0], &flag_key, &Operation::Enable).await;
    cluster.settle().await;
    let seen = set.find(owners[0], KEY, None, &r(3)).await.expect("up").context;
    let on = flag.find(owners[0], &flag_key, None, &r(3)).await.expect("up").context;

    let lonely = owners[2];
    cluster.isolate(lonely);
    cluster.settle().await;
    set.apply(owners[0], KEY, &add(&["here"])).await;
    let said = Said::context(&seen);
    let removal = remove(&["both", "removed"]);
    set.change(owners[0], KEY, &removal, &said, &w(2)).await.expect("two owners");
    let said = Said::context(&on);
    flag.change(owners[0], &flag_key, &Operation::Disable, &said, &w(2)).await.expect("two");
    set.change(lonely, KEY, &add(&["both", "there"]), &Said::nothing(), &w(1)).await.expect("one");
    let enable = Operation::Enable;
    flag.change(lonely, &flag_key, &enable, &Said::nothing(), &w(1)).await.expect("one");

    cluster.rejoin(lonely);
    cluster.release_exchange();
    tokio::time::sleep(SOON).await;
    let expected = Shown::elements(&["both", "here", "stays", "there"]);
    set.assert_whole(&cluster, KEY, &expected).await;
    flag.assert_whole(&cluster, &flag_key, &Shown::IsOn(true)).await;
}

/// A thousand increments by eight sessions over links that lose messages, at coordinators that are paused in turn. Whatever
/// ended without an answer is repeated elsewhere, with the same number. The counter reads a thousand.
#[tokio::test(start_paused = true)]
async fn a_thousand_increments_count_a_thousand() {
    const SESSIONS: u64 = 8;
    const EACH: i64 = 125;
    let mut cluster = Cluster::start(5).await;
    cluster.release_exchange();
    let bucket = Bucket::create(&cluster, Kind::Counter).await.among_losses();
    let delay = (Duration::from_millis(1), Duration::from_millis(20));
    let weather = Weather { delay, lost: 60, doubled: 30 };
    let nodes = cluster.up();
    let ends = || nodes.iter().copied().chain([CLIENT]);
    for (from, to) in ends().flat_map(|from| ends().map(move |to| (from, to))) {
        cluster.network.set_weather(from, to, weather);
    }
    let with = With { timeout_ms: 100, ..w(2) };
    let mut all = Vec::new();
    for session in 1..=SESSIONS {
        let (bucket, nodes, with) = (bucket.clone(), nodes.clone(), with.clone());
        all.push(tokio::spawn(async move {
            let mut chance = Chance::of_seed(session);
            let (mut total, mut repeated) = (0, 0);
            for sequence in 1..=EACH as u64 {
                total += 1;
                let increment = counted(session.into(), sequence, total);
                loop {
                    let via = chance.of(&nodes);
                    let said = Said::nothing();
                    match bucket.change(via, KEY, &increment, &said, &with).await {
                        Ok(_) => break,
                        Err(_) => repeated += 1,
                    }
                }
            }
            repeated
        }));
    }
    let mut repeated = 0;
    for session in all {
        repeated += session.await.expect("no panic");
    }
    assert!(repeated >= 100, "{repeated} of a thousand were repeated, and a tenth should be");
    for (from, to) in ends().flat_map(|from| ends().map(move |to| (from, to))) {
        cluster.network.set_weather(from, to, Weather::default());
    }
    assert_eq!(bucket.shown(nodes[0], KEY).await, Shown::Number(1000));
    tokio::time::sleep(SOON).await;
    bucket.assert_whole(&cluster, KEY, &Shown::Number(1000)).await;
}

/// An increment whose answer was lost is certain as soon as the next one of its session is acknowledged, be its coordinator
/// gone for ever.
#[tokio::test(start_paused = true)]
async fn an_unknown_increment_becomes_certain_with_the_next() {
    let mut cluster = Cluster::start(5).await;
    let bucket = Bucket::create(&cluster, Kind::Counter).await;
    let owners = bucket.owners(KEY);
    cluster.isolate(owners[0]);
    let first = counted(9, 1, 40);
    let with = With { timeout_ms: 200, ..w(2) };
    let lost = bucket.change(owners[0], KEY, &first, &Said::nothing(), &with).await;
    assert_ne!(lost.expect_err("alone").effect, Effect::NotApplied);
    cluster.wipe(owners[0]);
    bucket.apply(owners[1], KEY, &counted(9, 2, 42)).await;
    let found = bucket.find(owners[1], KEY, None, &r(2)).await.expect("two owners");
    assert_eq!(shown(&found), Shown::Number(42));
    // and the first one, which somebody repeats hours later, changes nothing
    tokio::time::sleep(Duration::from_secs(10_000)).await;
    bucket.apply(owners[2], KEY, &first).await;
    let found = bucket.find(owners[1], KEY, None, &r(2)).await.expect("two owners");
    assert_eq!(shown(&found), Shown::Number(42));
}

/// The same put, sent again through another coordinator because no answer came, is shown once; two puts of one value are
/// two.
#[tokio::test(start_paused = true)]
async fn a_put_that_is_repeated_is_shown_once() {
    let cluster = Cluster::start(5).await;
    for kind in [Kind::Register, Kind::Map] {
        let bucket = Bucket::create(&cluster, kind).await;
        let owners = bucket.owners(KEY);
        let write = match kind {
            Kind::Register => put("v"),
            _ => update(&[("name", Kind::Register, put("v"))]),
        };
        let texts = |texts: &[&str]| match kind {
            Kind::Register => Shown::values(texts),
            _ => Shown::Fields(vec![("name".into(), Shown::values(texts))]),
        };
        // both at the same time, so that neither has seen the other
        let said = Said { operation: Some(777), ..Said::nothing() };
        let all = w(3);
        let (one, two) = tokio::join!(
            bucket.change(owners[0], KEY, &write, &said, &all),
            bucket.change(owners[1], KEY, &write, &said, &all),
        );
        assert_ne!(one.expect("up").dot, two.expect("up").dot, "it was carried out twice");
        for owner in &owners {
            assert_eq!(bucket.shown(*owner, KEY).await, texts(&["v"]), "{kind} at {owner}");
        }
        if kind == Kind::Register {
            bucket.apply(owners[2], KEY, &write).await;
            assert_eq!(bucket.shown(owners[0], KEY).await, texts(&["v", "v"]));
        }
        let seen = bucket.find(owners[0], KEY, None, &r(3)).await.expect("up").context;
        let next = match kind {
            Kind::Register => put("next"),
            _ => update(&[("name", Kind::Register, put("next"))]),
        };
        bucket.change(owners[0], KEY, &next, &Said::context(&seen), &w(3)).await.expect("up");
        assert_eq!(bucket.shown(owners[1], KEY).await, texts(&["next"]), "both are replaced");
    }
}

/// A node whose clock is an hour off takes no value that goes by time. Another one is asked in its place; if there is none,
/// the reason is told.
#[tokio::test(start_paused = true)]
async fn a_clock_that_is_off_stamps_nothing() {
    for by_ms in [3_600_000, -3_600_000] {
        let mut cluster = Cluster::start(5).await;
        let lww = Bucket::create(&cluster, Kind::Lww).await;
        let map = Bucket::create(&cluster, Kind::Map).await;
        let counter = Bucket::create(&cluster, Kind::Counter).await;
        let owners = lww.owners(KEY);
        let off = owners[0];
        cluster.clock(off).jump(by_ms);
        assert!(!cluster.status(off).await.clock_problem.is_empty());

        let stored = lww.apply(off, KEY, &put("elsewhere")).await;
        assert_ne!(stored.receipt.coordinator, off.0, "another node has stamped it");
        let field = update(&[("latest", Kind::Lww, put("v"))]);
        let key = map.keys_beside(&lww.row(KEY), 1).remove(0);
        assert_ne!(map.apply(off, &key, &field).await.receipt.coordinator, off.0);
        let count = update(&[("count", Kind::Counter, once(1))]);
        assert_eq!(map.apply(off, &key, &count).await.receipt.coordinator, off.0, "no stamp");
        let key = counter.keys_beside(&lww.row(KEY), 1).remove(0);
        assert_eq!(counter.apply(off, &key, &once(1)).await.receipt.coordinator, off.0);

        // a later value of a node whose clock is right wins
        lww.apply(owners[1], KEY, &put("later")).await;
        assert_eq!(lww.shown(owners[2], KEY).await, Shown::values(&["later"]));

        cluster.isolate(off);
        cluster.settle().await;
        let alone = lww.change(off, KEY, &put("no"), &Said::nothing(), &w(1)).await;
        let failure = alone.expect_err("there is nobody else");
        assert_eq!((failure.code, failure.effect), (ErrorCode::ClockOff, Effect::NotApplied));
        cluster.rejoin(off);
        cluster.clock(off).jump(-by_ms);
        cluster.settle().await;
        assert_eq!(lww.apply(off, KEY, &put("right")).await.receipt.coordinator, off.0);
        cluster.release_exchange();
        tokio::time::sleep(SOON).await;
        lww.assert_whole(&cluster, KEY, &Shown::values(&["right"])).await;
    }
}

/// What a value does not allow is refused with the rule's name, and nothing has changed.
#[tokio::test(start_paused = true)]
async fn what_a_value_does_not_allow_is_refused() {
    let cluster = Cluster::start(5).await;
    let full: Vec<Bytes> = (0..ELEMENTS_MAX).map(|number| number.to_string().into()).collect();
    let mut nested = update(&[("on", Kind::Flag, Operation::Enable)]);
    for _ in 1..9 {
        nested = update(&[("in", Kind::Map, nested)]);
    }
    let of_max = Field { name: Bytes::from_static(b"max"), kind: Kind::Max };
    let cases: Vec<(Kind, Option<Operation>, Operation, ErrorCode)> = vec![
        (Kind::Counter, Some(once(1)), put("v"), ErrorCode::WrongKind),
        (Kind::Set, Some(add(&["a"])), once(1), ErrorCode::WrongKind),
        (Kind::Map, None, update(&[("c", Kind::Set, once(1))]), ErrorCode::WrongKind),
        (Kind::Counter, Some(once(i64::MAX)), once(1), ErrorCode::CounterOverflow),
        (Kind::Set, Some(Operation::Add(full)), add(&["one more"]), ErrorCode::TooManyElements),
        (Kind::Set, None, add(&[]), ErrorCode::BadOperation),
        (Kind::Max, Some(Operation::Raise(1)), Operation::Clear, ErrorCode::WrongKind),
        (
            Kind::Map,
            Some(update(&[("max", Kind::Max, Operation::Raise(1))])),
            Operation::Update(vec![(of_max, FieldChange::Remove)]),
            ErrorCode::WrongKind,
        ),
        (
            Kind::Map,
            Some(update(&[("max", Kind::Max, Operation::Raise(1))])),
            Operation::Clear,
            ErrorCode::KeepsItsValue,
        ),
        (Kind::Map, None, nested, ErrorCode::BadOperation),
    ];
    for (number, (kind, first, refused, code)) in cases.into_iter().enumerate() {
        let (bucket, key) = (Bucket::create(&cluster, kind).await, format!("k{number}"));
        let owners = bucket.owners(&key);
        if let Some(first) = first {
            bucket.change(owners[0], &key, &first, &Said::nothing(), &w(3)).await.expect("good");
        }
        let before = bucket.state(&cluster, owners[0], &key);
        let answer = bucket.change(owners[1], &key, &refused, &Said::nothing(), &DEFAULT).await;
        let failure = answer.expect_err("it is refused");
        assert_eq!((failure.code, failure.effect), (code, Effect::NotApplied), "{failure}");
        cluster.settle().await;
        for owner in owners {
            assert_eq!(bucket.state(&cluster, owner, &key), before, "{kind}: {code:?}");
        }
    }
}
