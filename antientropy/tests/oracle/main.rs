//! The first promise, against an oracle: an acknowledged write is never lost, and none comes back.
//!
//! Random histories of one key (`history`): writes with fresh, old and empty contexts, late,
//! doubled, reordered and lost messages, crashes that take back what was not synced, lost records,
//! wiped disks, replicas that leave and return. Next to everything a replica or client holds, the
//! oracle (`truth`) keeps the plain set of writes that truly went into it, and knows from that
//! which values must be alive. After every step the two are compared.
//!
//! Each kind of value goes through them: to the oracle a key is a row of places that hold values,
//! presence, or a count.
//!
//! The same histories run through other ways of keeping causality (`schemes`): `crdts::MVReg`, a
//! plain version vector, and our own way with one of its rules taken out. Each of these must lose
//! writes here; otherwise the histories would be too tame to prove anything, or the rule would not
//! be needed. See the figures with `cargo test -p atoll-antientropy --test oracle -- --nocapture`.

mod history;
mod kinds;
mod schemes;
mod truth;

use atoll_antientropy::Kind;

use history::{Found, run};
use kinds::OfKind;
use schemes::{Exact, MultiValue, PlainVector, Rule, Scheme};

/// How many histories each scheme goes through, unless the environment variable `ATOLL_HISTORIES`
/// says otherwise.
const HISTORIES: u64 = 20_000;

/// In how many histories a scheme went wrong, by what was seen first.
#[derive(Debug, Default)]
struct Figures {
    /// A value that must be alive was missing, or a counter was given twice.
    lost: u64,
    /// A value was alive that a known write had replaced.
    returned: u64,
    /// Values were right, but something claimed to know a write that had not gone into it, or the
    /// other way round.
    misclaimed: u64,
    /// The seed of the first history that went wrong.
    first_seed: Option<u64>,
}

fn figures<S: Scheme>(scheme: &S, name: &str) -> Figures {
    let mut figures = Figures::default();
    let histories = from_environment("ATOLL_HISTORIES").unwrap_or(HISTORIES);
    for seed in 0..histories {
        let found = run(scheme, seed);
        match found {
            Found::AllWell => {}
            Found::Lost => figures.lost += 1,
            Found::Returned => figures.returned += 1,
            Found::Misclaimed => figures.misclaimed += 1,
        }
        figures.first_seed = figures.first_seed.or((found != Found::AllWell).then_some(seed));
    }
    println!("{name:<58} of {histories} histories: {figures:?}");
    figures
}

/// None lost, none returned, and every context exact.
#[test]
fn exact_contexts_lose_nothing() {
    assert_eq!(figures(&Exact::with_all_rules(), "ours").first_seed, None);
}

/// A single history, for looking at a seed that went wrong above: `ATOLL_SEED=7`.
#[test]
fn one_history() {
    let seed = from_environment("ATOLL_SEED").unwrap_or(0);
    assert_eq!(run(&Exact::with_all_rules(), seed), Found::AllWell);
}

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}

/// Registers as nodes will keep them.
#[test]
fn registers_lose_nothing() {
    assert_eq!(of_kind(Kind::Register).first_seed, None);
}

/// No acknowledged addition is lost, and no removed element comes back.
#[test]
fn sets_lose_nothing() {
    assert_eq!(of_kind(Kind::Set).first_seed, None);
}

#[test]
fn flags_lose_nothing() {
    assert_eq!(of_kind(Kind::Flag).first_seed, None);
}

/// No increment is lost, and none counts twice: with sessions, without, and over resets.
#[test]
fn counters_lose_nothing_and_count_nothing_twice() {
    assert_eq!(of_kind(Kind::Counter).first_seed, None);
}

/// Fields of several kinds in one map and in a map inside it, changed and removed together.
#[test]
fn maps_lose_nothing() {
    assert_eq!(of_kind(Kind::Map).first_seed, None);
}

/// What guards contexts guards the chains of counters too. (A chain that another role has hidden is
/// rarely miscounted in so short a history, but a context that claims it is a lie already.)
#[test]
fn counters_need_the_same_rules() {
    for (rule, name) in [
        (Rule::NoteNotRecord, "counters, extending from what the record contains"),
        (Rule::UncleanStarts, "counters, trusting notes from before an unclean start"),
        (Rule::RoleChanges, "counters, trusting notes from another role"),
        (Rule::LeaseFirst, "counters, counters given before their lease is synced"),
    ] {
        let found = figures(&OfKind::without(Kind::Counter, rule), name);
        let miscounted = found.lost + found.returned;
        assert!(miscounted > 0 || rule == Rule::RoleChanges, "{name}");
        assert!(miscounted + found.misclaimed > 0, "{name}");
    }
}

/// Of any kind: `ATOLL_SEED=7 ATOLL_KIND=set`.
#[test]
fn one_history_of_a_kind() {
    let seed = from_environment("ATOLL_SEED").unwrap_or(0);
    let kind = std::env::var("ATOLL_KIND").map_or(Kind::Set, |word| word.parse().expect("a kind"));
    assert_eq!(run(&OfKind::with_all_rules(kind), seed), Found::AllWell);
}

fn of_kind(kind: Kind) -> Figures {
    figures(&OfKind::with_all_rules(kind), kind.word())
}

/// `crdts::MVReg` tags each value with a whole version vector: the second of two concurrent writes
/// through one server claims to have seen the first.
#[test]
fn mvreg_loses_writes() {
    assert!(
        figures(&MultiValue, "crdts::MVReg, clock = client's clock + server's counter").lost > 0
    );
}

/// A dotted version vector set is right as long as nobody forgets anything; then "all up to 7"
/// becomes a lie.
#[test]
fn a_plain_version_vector_loses_writes() {
    assert!(figures(&PlainVector, "plain version vector (DVVSet)").lost > 0);
}

/// Without the note: the record may have lost an event of ours that others still hold.
#[test]
fn extending_from_the_record_loses_writes() {
    assert!(without(Rule::NoteNotRecord, "extending from what the record contains").lost > 0);
}

/// A crash takes the note back in time, but not the events that others have got.
#[test]
fn trusting_notes_from_before_a_crash_loses_writes() {
    assert!(without(Rule::UncleanStarts, "trusting notes from before an unclean start").lost > 0);
}

/// In another role the node made events that this note has not heard of.
#[test]
fn trusting_notes_from_another_role_loses_writes() {
    assert!(without(Rule::RoleChanges, "trusting notes from another role").lost > 0);
}

/// A reply to a put that covers the whole record makes the client's next write erase values it
/// never saw.
#[test]
fn replies_that_cover_the_record_lose_writes() {
    assert!(without(Rule::ReplyCoversOwn, "replies to puts that cover the whole record").lost > 0);
}

/// A lease whose end was not synced before use gives counters twice after a crash.
#[test]
fn leases_that_are_not_synced_first_lose_writes() {
    assert!(without(Rule::LeaseFirst, "counters given before their lease is synced").lost > 0);
}

/// A tombstone that is forgotten while a message is on its way lets the deleted value return.
#[test]
fn forgotten_tombstones_bring_values_back() {
    assert!(without(Rule::TombstonesStay, "tombstones forgotten").returned > 0);
}

/// A delete without an event of its own loses no value, but no session can tell whether it has
/// happened.
#[test]
fn deletes_without_an_event_cannot_be_seen() {
    assert!(without(Rule::DeletesAreEvents, "deletes that are no events").misclaimed > 0);
}

fn without(rule: Rule, name: &str) -> Figures {
    figures(&Exact::without(rule), name)
}
