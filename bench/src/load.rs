//! A run from the first connection to the report.
//!
//! ```text
//!   check, connect -> write all keys once -> warm up -> measure -> let the last operations end -> report
//! ```
//!
//! An operation counts if it *began* within the measured time (in an open loop: should have begun), however long it takes; rates are such operations per
//! second of that time. So neither a stall at the end nor one at the beginning is lost.

use std::{cell::Cell, io, path::PathBuf, pin::Pin, rc::Rc, sync::Arc, time::Duration};

use atoll_client::{Client, ConnectError, Profile, QuorumRequest, RequestError};
use atoll_ring::QuorumError;
use rand::{SeedableRng as _, rngs::SmallRng};
use tokio::{
    task::{JoinSet, LocalSet},
    time::{Instant, interval, sleep_until, timeout},
};

use crate::{
    Cluster, Machine, Pace, Report, Run, SettingsError, machine, nodes,
    open::Open,
    operation::Chance,
    progress::{self, Progress},
    record::{self, Record},
    report::Measured,
    worker::{Load, Window, Worker},
};

/// Runs a benchmark. When `stop` is done the run ends early, and the report tells what was measured until then.
///
/// All workers share the calling thread, so a `current_thread` runtime suits best. A line on stderr shows the progress
/// if that is a terminal.
///
/// # Errors
/// See [`RunError`]. Operations that fail are no error but part of the report.
pub async fn run(
    run: &Run,
    profile: &Profile,
    stop: impl Future<Output = ()>,
) -> Result<Report, RunError> {
    run.check()?;
    tokio::pin!(stop);
    let clients = tokio::select! { biased;
        () = &mut stop => return Err(RunError::Interrupted),
        clients = connect(run, profile) => clients?,
    };
    let view = clients[0].view();
    let ended = match run.first_read(view.bucket_n()) {
        Ok(first_read) => record_and_drive(run, first_read, &clients, stop.as_mut()).await,
        Err(impossible) => Err(RunError::Quorum(impossible)),
    };
    for client in &clients {
        client.close().await;
    }
    Ok(Report::new(run, Cluster::of(&view), Machine::this(), ended?))
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The run contradicts itself. Nothing was sent.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// This cluster cannot meet the quorum settings. Nothing was written.
    #[error(transparent)]
    Quorum(QuorumError),
    /// The cluster cannot be reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// A key could not be written before the run. Some keys are written, nothing was measured.
    #[error("cannot write {key} before the run: {error}")]
    Preload {
        /// Which key.
        key: String,
        /// Why, the last time it was tried.
        error: RequestError,
    },
    /// A bucket of the benchmark's own cannot be created. Nothing was measured.
    #[error("cannot create the bucket {name}: {error}")]
    Bucket {
        /// Which bucket.
        name: &'static str,
        /// Why.
        error: RequestError,
    },
    /// The history cannot be written, or not to its end.
    #[error("cannot write the history {}: {error}", file.display())]
    History {
        /// Where.
        file: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The system has no thread left to keep the time of an open loop. Nothing was measured.
    #[error("no thread to keep the time: {0}")]
    NoThread(io::Error),
    /// Stopped before anything was measured.
    #[error("interrupted before anything was measured")]
    Interrupted,
}

/// The clients that the workers share: each has its own connection to each node.
async fn connect(run: &Run, profile: &Profile) -> Result<Vec<Arc<Client>>, ConnectError> {
    let mut clients = Vec::new();
    for _ in 0..run.connections {
        clients.push(Arc::new(Client::connect(profile).await?));
    }
    Ok(clients)
}

/// Drives the load, and writes its history if that is wanted. A history that cannot be written ends the run.
async fn record_and_drive(
    run: &Run,
    first_read: QuorumRequest,
    clients: &[Arc<Client>],
    stop: Pin<&mut impl Future<Output = ()>>,
) -> Result<Measured, RunError> {
    let Some(file) = &run.history else {
        return LocalSet::new().run_until(drive(run, first_read, clients, None, stop)).await;
    };
    let failed = |error| RunError::History { file: file.clone(), error };
    let (record, broken) = Record::create(file).map_err(failed)?;
    let record = Rc::new(record);
    let broken = record::until_broken(broken);
    let driven = drive(run, first_read, clients, Some(record.clone()), stop);
    let local = LocalSet::new();
    let measured = tokio::select! { biased;
        error = broken => return Err(failed(error)),
        measured = local.run_until(driven) => measured,
    };
    record.finish().map_err(failed)?;
    measured
}

/// Everything between the connections and the report. Needs a [`LocalSet`] around it.
async fn drive(
    run: &Run,
    first_read: QuorumRequest,
    clients: &[Arc<Client>],
    record: Option<Rc<Record>>,
    mut stop: Pin<&mut impl Future<Output = ()>>,
) -> Result<Measured, RunError> {
    let mut dice = SmallRng::seed_from_u64(run.seed);
    let load = Rc::new(Load::new(run.clone(), clients, first_read, record, &mut dice));

    let began = Instant::now();
    if run.preload {
        tokio::select! { biased;
            () = &mut stop => return Err(RunError::Interrupted),
            written = preload(&load, &mut dice) => written?,
        }
    }
    let preload = run.preload.then(|| began.elapsed());

    let zero = Instant::now();
    let begin = zero + run.warmup;
    let window = Rc::new(Window { begin, end: Cell::new(begin + run.length) });
    let working = start(&load, zero, &window, &mut dice)?;
    let mut progress = Progress::load(run);
    progress.warming_up();
    tokio::select! { biased;
        () = &mut stop => return Err(RunError::Interrupted),
        () = sleep_until(begin) => {}
    }

    let ask = |patience| nodes::ask(clients[0].clone(), load.members.clone(), patience);
    let mut asking = JoinSet::from_iter([ask(nodes::PATIENCE)]);
    let cpu_before = machine::cpu_time();
    let mut redraw = interval(progress::REDRAW);
    let interrupted = loop {
        tokio::select! { biased;
            () = &mut stop => break true,
            () = sleep_until(window.end.get()) => break false,
            _ = redraw.tick() => progress.show(begin.elapsed(), &load.measure.borrow()),
        }
    };
    let elapsed = begin.elapsed();
    let cpu = machine::cpu_time().zip(cpu_before).map(|(after, before)| after - before);
    window.end.set(Instant::now().min(window.end.get()));
    let patience = if interrupted { INTERRUPTED_PATIENCE } else { nodes::PATIENCE };
    let (nodes_after, ()) = tokio::join!(ask(patience), finish(working, interrupted));
    let nodes_before =
        asking.join_next().await.expect("it was asked").expect("asking does not panic");
    drop(progress);

    let measure = load.measure.replace(crate::measure::Measure::new());
    let history = load.history.borrow();
    Ok(Measured {
        interrupted,
        preload,
        elapsed: if interrupted { elapsed } else { run.length },
        cpu: cpu.map(|cpu| cpu.as_secs_f64() / elapsed.as_secs_f64()),
        nodes: [nodes_before, nodes_after],
        window: history.window(),
        overflowed: history.overflowed(),
        measure,
    })
}

/// Writes every key once. The first failure ends it, and the other workers with it.
async fn preload(load: &Rc<Load>, dice: &mut SmallRng) -> Result<(), RunError> {
    let progress = Rc::new(Progress::preload(load.run.keys));
    let mut writing = JoinSet::new();
    for chance in chances(&load.run, dice) {
        let progress = progress.clone();
        let worker = Worker::new(load.clone());
        writing.spawn_local(worker.preload(chance, move || progress.key_written()));
    }
    while let Some(ended) = writing.join_next().await {
        let written = ended.expect("workers do not panic");
        written.map_err(|(key, error)| RunError::Preload { key, error })?;
    }
    Ok(())
}

/// Lets the load loose. It ends with the window, and with what is returned.
fn start(
    load: &Rc<Load>,
    zero: Instant,
    window: &Rc<Window>,
    dice: &mut SmallRng,
) -> Result<JoinSet<()>, RunError> {
    let mut working = JoinSet::new();
    let chances = chances(&load.run, dice);
    match load.run.pace {
        Pace::Closed(_) => {
            for chance in chances {
                working.spawn_local(Worker::new(load.clone()).work(chance, window.clone()));
            }
        }
        Pace::Open(settings) => {
            let open = Open::new(load, settings, chances, dice).map_err(RunError::NoThread)?;
            working.spawn_local(open.run(zero, window.clone()));
        }
    }
    Ok(working)
}

fn chances(run: &Run, dice: &mut SmallRng) -> Vec<Chance> {
    (0..run.sessions()).map(|session| Chance::new(session, dice)).collect()
}

/// Lets the operations under way end; each has its timeout. Somebody who interrupts does not want to wait for that, so
/// then those that are slow are dropped and not counted.
async fn finish(mut working: JoinSet<()>, interrupted: bool) {
    let all = async {
        while let Some(ended) = working.join_next().await {
            ended.expect("workers do not panic");
        }
    };
    if interrupted {
        let _ = timeout(INTERRUPTED_PATIENCE, all).await;
    } else {
        all.await;
    }
}

const INTERRUPTED_PATIENCE: Duration = Duration::from_millis(500);
