//! Many seeds on a few threads: each run has a thread for itself, and none knows of another.

use std::{
    sync::{
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
};

use crate::run::{Settings, Verdict, run};

/// Runs the seeds in their order, several at a time, and shows each verdict as it comes. Ends early when whoever is shown
/// one has seen enough.
pub fn run_many(
    seeds: &[u64],
    settings: &Settings,
    jobs: usize,
    mut shown: impl FnMut(Verdict) -> Wish,
) {
    let (next, enough) = (AtomicUsize::new(0), AtomicBool::new(false));
    let (sender, verdicts) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            let (sender, next, enough) = (sender.clone(), &next, &enough);
            scope.spawn(move || {
                while !enough.load(Ordering::Relaxed)
                    && let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed))
                    && sender.send(run(*seed, settings)).is_ok()
                {}
            });
        }
        drop(sender);
        for verdict in verdicts {
            if shown(verdict) == Wish::Enough {
                enough.store(true, Ordering::Relaxed);
            }
        }
    });
}

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Go on.
    More,
    /// Begin no other run.
    Enough,
}

/// Seeds that a commit decides: the same for everybody, and others for the next one.
pub fn seeds_of_commit(commit: &str, count: u64) -> Vec<u64> {
    let seed = |number: u64| {
        let mut hash = blake3::Hasher::new();
        hash.update(commit.as_bytes());
        hash.update(&number.to_le_bytes());
        let bytes = hash.finalize();
        u64::from_le_bytes(std::array::from_fn(|at| bytes.as_bytes()[at]))
    };
    (0..count).map(seed).collect()
}
