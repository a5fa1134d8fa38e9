//! One seed decides everything: the same run twice, in two processes, to the last message.

use std::process::Command;

use atoll_sim::{
    faults::Kind,
    figures::Figures,
    many::{Wish, run_many, seeds_of_commit},
    run::Settings,
};

fn settings() -> Settings {
    Settings { kinds: Kind::ALL.to_vec(), all_kinds: true, canary: None, aloud: false }
}

/// The hash of the trace, as the program prints it.
fn hash_in_a_process_of_its_own(seed: u64, faults: &str) -> String {
    let file = std::env::temp_dir().join(format!("atoll-sim-{}-{seed}.trace", std::process::id()));
    let run = Command::new(env!("CARGO_BIN_EXE_atoll-sim"))
        .args(["--seeds", &seed.to_string(), "--faults", faults, "--trace"])
        .arg(&file)
        .output()
        .expect("the program");
    assert!(run.status.success(), "seed {seed}: {}", String::from_utf8_lossy(&run.stdout));
    let trace = std::fs::read_to_string(&file).expect("a trace");
    std::fs::remove_file(&file).expect("ours");
    std::fs::remove_file(file.with_extension("history")).expect("ours");
    trace.lines().last().expect("the hash stands last").to_owned()
}

/// Two processes have different addresses, different seeds of hash maps and different clocks. The trace, which counts every
/// message, is the same.
#[test]
fn the_same_seed_is_the_same_run_in_two_processes() {
    for (seed, faults) in [(2, "all"), (5, "all"), (9, "all"), (2, "ring"), (5, "ring")] {
        let hash = || hash_in_a_process_of_its_own(seed, faults);
        assert_eq!(hash(), hash(), "seed {seed}, {faults}");
    }
}

/// Ten runs break nothing, and are not tame: most kinds of faults happen, fallbacks help and coordinate, and reads are held
/// to what they promise.
#[test]
fn a_few_seeds_break_nothing_and_are_not_tame() {
    let seeds: Vec<u64> = (1..=10).collect();
    let mut all = Figures::default();
    run_many(&seeds, &settings(), 2, |verdict| {
        assert!(verdict.broken.is_empty(), "seed {}: {:?}", verdict.seed, verdict.broken);
        all.add(&verdict.figures);
        Wish::More
    });
    assert!(all.acknowledged > 100 * all.seeds, "{all}");
    assert!(all.by_fallbacks > 10 * all.seeds, "{all}");
    assert!(all.coordinated_by_fallbacks > 0, "{all}");
    assert!(all.promised_reads > 20 * all.seeds, "{all}");
    assert!(2 * all.faults.len() > Kind::ALL.len(), "{all}");
}

/// Runs in which the ring changes: partitions move, machines come and go, and clients are served meanwhile.
#[test]
fn the_ring_changes_and_nothing_breaks() {
    let settings = Settings { kinds: vec![Kind::Ring], ..settings() };
    let mut all = Figures::default();
    run_many(&[1, 2, 3, 4, 5], &settings, 2, |verdict| {
        assert!(verdict.broken.is_empty(), "seed {}: {:?}", verdict.seed, verdict.broken);
        all.add(&verdict.figures);
        Wish::More
    });
    assert!(all.ring_changes > 10 * all.seeds && all.moved > 100 * all.seeds, "{all}");
    assert!(all.promised_reads > 100 * all.seeds, "{all}");
}

/// A fault that is not named does not happen.
#[test]
fn only_the_faults_that_are_named_happen() {
    let settings = Settings { kinds: vec![Kind::Crash, Kind::Pause], ..settings() };
    run_many(&[1, 2, 3], &settings, 2, |verdict| {
        let happened: Vec<Kind> = verdict.figures.faults.keys().copied().collect();
        assert!(happened.iter().all(|kind| settings.kinds.contains(kind)), "{happened:?}");
        assert!(!happened.is_empty());
        Wish::More
    });
}

/// A commit's seeds are always the same, and another's are others.
#[test]
fn a_commit_draws_its_seeds() {
    assert_eq!(seeds_of_commit("a", 3), seeds_of_commit("a", 5)[..3]);
    assert_ne!(seeds_of_commit("a", 1), seeds_of_commit("b", 1));
}
