//! A load that spares nothing: all kinds of values, all levels, contexts old and foreign, sessions; recorded for the judges.
//!
//! It is no benchmark. Clients ask at a modest rate, so that a history of minutes can be read and judged; what they ask is
//! drawn from a seed. Half of them work in sessions. Each client lives for some hundred operations, and another one takes its
//! place: as users come and go, and a session remembers only so many keys.
//!
//! Keys come in **generations**. Most operations are about keys of the newest, which are fought over; older ones are left as
//! they are and read now and then, so that what repair does to them is seen as well. No key gets so many siblings or elements
//! that answers grow without bound.
//!
//! Reading order: [`TortureLoad`] is the run, `keys` names what there is, `draw` what is asked, `client` asks it.

mod client;
mod draw;
mod keys;

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, VecDeque},
    path::PathBuf,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use atoll_check::Op;
use atoll_client::{Client, ContextToken, NodeId, Options, Profile, bucket::Creation};
use rand::{RngCore as _, SeedableRng as _, rngs::SmallRng};
use tokio::{
    sync::{mpsc::UnboundedReceiver, oneshot},
    task::{JoinSet, LocalSet},
    time::{Instant, timeout},
};

use self::keys::{BUCKETS, Key, REGISTERS};
use crate::{
    History, RunError, Verdict,
    record::{self, Record},
};

/// What is wanted.
#[derive(Clone, Debug)]
pub struct Torture {
    /// A new file for the history.
    pub history: PathBuf,
    /// How many ask at the same time.
    pub clients: u32,
    /// About so many operations per second, all together.
    pub rate: u32,
    /// Draws what is asked.
    pub seed: u64,
    /// So many replicas have fsynced a write before it is acknowledged, at least: 1, or 2 where a disk may be taken away.
    pub durable_min: u8,
}

/// Something that happened to the cluster, to stand in the history.
#[derive(Clone, Debug)]
pub struct Note {
    /// The kind of fault; none: something was healed, or put off.
    pub kind: Option<String>,
    /// In a few words.
    pub says: String,
}

/// What came of a load, beside its history.
#[derive(Clone, Debug, Default)]
pub struct TortureReport {
    /// Reads of registers that showed all that had been acknowledged.
    pub fresh: u64,
    /// Reads of registers that did not. That is no mistake unless the levels promised more.
    pub stale: u64,
    /// Failed operations, by the error's word.
    pub errors: BTreeMap<&'static str, u64>,
}

/// A load that is ready to begin: connected, its buckets there, its history begun.
pub struct TortureLoad {
    shared: Rc<Shared>,
    broken: oneshot::Receiver<std::io::Error>,
}

/// What all clients share. No borrow is held across an await.
struct Shared {
    run: Torture,
    clients: Vec<Arc<Client>>,
    members: Vec<NodeId>,
    record: Record,
    /// In the names of the keys.
    number: u32,
    noise: Vec<u8>,
    sessions: Cell<u32>,
    is_over: Cell<bool>,
    /// By key: tokens that somebody was given, for others to use.
    told: RefCell<BTreeMap<String, VecDeque<(Op, ContextToken)>>>,
    /// By generation: what was acknowledged of registers.
    acked: RefCell<BTreeMap<u64, History>>,
    report: RefCell<TortureReport>,
    zero: Instant,
}

impl TortureLoad {
    /// Connects, makes the buckets, begins the history.
    ///
    /// # Errors
    /// See [`RunError`].
    pub async fn prepare(run: &Torture, profile: &Profile) -> Result<TortureLoad, RunError> {
        let mut clients = Vec::new();
        for _ in 0..CONNECTIONS {
            clients.push(Arc::new(Client::connect(profile).await?));
        }
        for (name, kind, n) in BUCKETS {
            let creation = Creation { name: name.into(), kind, n, properties: Default::default() };
            let created = clients[0].create_bucket(creation, &Options::default()).await;
            created.map_err(|error| RunError::Bucket { name, error })?;
        }
        let failed = |error| RunError::History { file: run.history.clone(), error };
        let (record, broken) = Record::create(&run.history).map_err(failed)?;
        record.format(3);
        let mut dice = SmallRng::seed_from_u64(run.seed);
        let mut noise = vec![0; NOISE_BYTES];
        dice.fill_bytes(&mut noise);
        let view = clients[0].view();
        let shared = Shared {
            run: run.clone(),
            members: view.members().iter().map(|member| member.id).collect(),
            clients,
            record,
            number: rand::random(),
            noise,
            sessions: Cell::new(0),
            is_over: Cell::new(false),
            told: RefCell::default(),
            acked: RefCell::default(),
            report: RefCell::default(),
            zero: Instant::now(),
        };
        Ok(TortureLoad { shared: Rc::new(shared), broken })
    }

    /// Asks until `stop` is done; notes stand in the history where they come. All clients share the calling thread.
    ///
    /// # Errors
    /// The history cannot be written on.
    pub async fn run(
        self,
        mut notes: UnboundedReceiver<Note>,
        stop: impl Future<Output = ()>,
    ) -> Result<TortureReport, RunError> {
        let TortureLoad { shared, broken } = self;
        let failed = |error| RunError::History { file: shared.run.history.clone(), error };
        let note = |Note { kind, says }| shared.record.fault(kind, says);
        let load = async {
            let mut dice = SmallRng::seed_from_u64(shared.run.seed.wrapping_add(1));
            let mut asking = JoinSet::new();
            for index in 0..shared.run.clients {
                let dice = SmallRng::from_rng(&mut dice);
                asking.spawn_local(client::live(shared.clone(), index, dice));
            }
            tokio::pin!(stop);
            loop {
                tokio::select! { biased;
                    () = &mut stop => break,
                    Some(said) = notes.recv() => note(said),
                }
            }
            shared.is_over.set(true);
            // each has its timeout; whoever is late is written down as never answered
            let _ = timeout(PATIENCE, asking.join_all()).await;
        };
        let local = LocalSet::new();
        tokio::select! { biased;
            error = record::until_broken(broken) => return Err(failed(error)),
            () = local.run_until(load) => {}
        }
        while let Ok(said) = notes.try_recv() {
            note(said);
        }
        shared.record.finish().map_err(failed)?;
        for client in &shared.clients {
            client.close().await;
        }
        Ok(shared.report.take())
    }
}

impl Shared {
    /// A client like no other of this run.
    fn next_session(&self) -> u32 {
        self.sessions.set(self.sessions.get() + 1);
        self.sessions.get()
    }

    fn generation(&self) -> u64 {
        self.record.begun() / OPERATIONS_PER_GENERATION
    }

    fn pause_max(&self) -> Duration {
        let mean = f64::from(self.run.clients) / f64::from(self.run.rate.max(1));
        Duration::from_secs_f64(2.0 * mean)
    }

    /// Somebody was given this token.
    fn tell(&self, key: &str, op: Op, token: &ContextToken) {
        let mut told = self.told.borrow_mut();
        if told.len() > TOLD_KEYS_MAX {
            told.clear(); // whoever wants a foreign token waits for the next one
        }
        let tokens = told.entry(key.to_owned()).or_default();
        tokens.push_back((op, token.clone()));
        if tokens.len() > TOLD_MAX {
            tokens.pop_front();
        }
    }

    /// What was acknowledged of the registers of a generation.
    fn acked<T>(&self, key: &Key, look: impl FnOnce(&mut History, u32) -> T) -> T {
        let mut acked = self.acked.borrow_mut();
        look(acked.entry(key.generation).or_insert_with(|| History::new(REGISTERS)), key.index)
    }

    fn judged(&self, verdict: Verdict) {
        let mut report = self.report.borrow_mut();
        match verdict {
            Verdict::Unwritten => {}
            Verdict::Fresh => report.fresh += 1,
            Verdict::Stale(_) => report.stale += 1,
        }
    }
}

/// QUIC connections to each node that the clients share.
const CONNECTIONS: u32 = 3;

const NOISE_BYTES: usize = 64 << 10;

/// How long clients may take to end: a little more than the longest request.
const PATIENCE: Duration = Duration::from_secs(4);

/// How long a key is fought over.
const OPERATIONS_PER_GENERATION: u64 = 3000;

/// Tokens of a key that are remembered for others, and keys of which there are some.
const TOLD_MAX: usize = 20;
const TOLD_KEYS_MAX: usize = 2000;
