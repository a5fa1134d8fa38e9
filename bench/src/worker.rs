//! One worker: an operation, its answer, the next operation.
//!
//! A read takes its snapshot of what must be visible, is sent, and is judged by the context that comes back. A write
//! passes what its worker has seen of the key, and becomes part of the history when it is acknowledged.
//!
//! **What a writer passes.** Normally the context of its own last put of that key. If that is not known (the first put),
//! or if the last put ended without a clear effect, it reads first. Such a put may be stored or may still be, and only
//! reading gives a context that covers it; without one the next put would stand beside it as a sibling. If the read does
//! not cover our own last acknowledged put (it was stale), our old context is passed: siblings then, but truthful ones,
//! and nothing that was acknowledged is forgotten.
//!
//! Nothing is allocated per operation beyond what the client does: keys are spelt into a buffer, values are slices of a
//! pool of noise, snapshots use their room again.

use std::{cell::Cell, cell::RefCell, rc::Rc, sync::Arc, time::Duration};

use atoll_client::{
    Client, Context, ContextToken, Effect, GetReply, NodeId, Options, QuorumRequest, RequestError,
    View, WriteReply,
};
use bytes::Bytes;
use rand::{Rng as _, RngCore as _, SeedableRng as _, rngs::SmallRng};
use tokio::time::{Instant, sleep};

use crate::{
    History, KeyName, Keys, Run, Snapshot, Through,
    measure::{Judged, Measure},
    session::{self, Expected, Session},
};

/// What all workers of a run share. They live in one thread; no borrow is held across an await.
pub(crate) struct Load {
    pub run: Run,
    pub keys: Keys,
    pub history: RefCell<History>,
    pub measure: RefCell<Measure>,
    /// By number. Here one per worker.
    sessions: RefCell<Vec<Session>>,
    /// Where the time of acknowledgements and reads begins.
    zero: Instant,
    /// By key. Only the key's writer looks at it; unused when keys are shared.
    known: RefCell<Vec<Known>>,
    pub members: Vec<NodeId>,
    first_read: QuorumRequest,
    noise: Bytes,
}

/// Between which moments an operation must begin to be counted. The end moves when the user interrupts.
pub(crate) struct Window {
    pub begin: Instant,
    pub end: Cell<Instant>,
}

/// What a writer knows of a key.
#[derive(Clone, Debug, Default)]
struct Known {
    /// Covers our last acknowledged put.
    token: Option<ContextToken>,
    /// Whether that was also our last put of all.
    certain: bool,
}

impl Load {
    /// Nothing is written, nothing is known.
    pub fn new(run: Run, view: &View, first_read: QuorumRequest, dice: &mut SmallRng) -> Load {
        let mut noise = vec![0; run.value_bytes + NOISE_BYTES];
        dice.fill_bytes(&mut noise);
        let keys_remembered = session::keys_max(run.workers());
        let sessions = (0..run.workers()).map(|_| Session::new(keys_remembered));
        Load {
            keys: Keys::new(run.keys, run.workers(), run.distribution),
            history: RefCell::new(History::new(run.keys)),
            measure: RefCell::new(Measure::new()),
            sessions: RefCell::new(sessions.collect()),
            zero: Instant::now(),
            known: RefCell::new(vec![Known::default(); run.keys as usize]),
            members: view.members().iter().map(|member| member.id).collect(),
            first_read,
            noise: noise.into(),
            run,
        }
    }
}

/// One of those who keep the cluster busy.
pub(crate) struct Worker {
    load: Rc<Load>,
    client: Arc<Client>,
    number: u32,
    dice: SmallRng,
    name: KeyName,
    must_show: Snapshot,
    expected: Expected,
    options: Options,
    options_of_first_read: Options,
}

impl Worker {
    /// The worker with this number, from 0. Each one's chance branches off from `dice`.
    pub fn new(load: Rc<Load>, client: Arc<Client>, number: u32, dice: &mut SmallRng) -> Worker {
        let run = &load.run;
        let options = options(&run.quorum, run.timeout);
        let options_of_first_read = self::options(&load.first_read, run.timeout);
        Worker {
            client,
            number,
            dice: SmallRng::from_rng(dice),
            name: KeyName::new(),
            must_show: Snapshot::default(),
            expected: Expected::default(),
            options,
            options_of_first_read,
            load,
        }
    }

    /// Reads and writes until the window closes.
    pub async fn work(mut self, window: Rc<Window>) {
        loop {
            let began = Instant::now();
            if began >= window.end.get() {
                return;
            }
            let counts = began >= window.begin;
            let done = if self.dice.random_bool(self.load.run.read_ratio) {
                self.read(counts).await
            } else {
                self.write(counts).await
            };
            if let Err(error) = done {
                sleep(pause(&error)).await;
            }
        }
    }

    /// Writes each of its keys once, whatever was there.
    ///
    /// # Errors
    /// The first key that could not be written, and why.
    pub async fn preload(mut self, written: impl Fn()) -> Result<(), (String, RequestError)> {
        self.options.timeout = self.options.timeout.max(PRELOAD_TIMEOUT);
        self.options_of_first_read.timeout = self.options.timeout;
        for key in self.load.keys.all_of(self.number) {
            let mut tries = 1;
            while let Err(error) = self.put(key).await {
                if tries == PRELOAD_TRIES {
                    let name = String::from_utf8_lossy(self.name.of(key)).into_owned();
                    return Err((name, error.into()));
                }
                tries += 1;
                sleep(PRELOAD_PAUSE).await;
            }
            written();
        }
        Ok(())
    }

    async fn read(&mut self, counts: bool) -> Result<(), RequestError> {
        let key = self.load.keys.any(&mut self.dice);
        self.load.history.borrow().snapshot(key, &mut self.must_show);
        self.load.sessions.borrow()[self.number as usize].expect(key, &mut self.expected);
        let began = Instant::now();
        let answer = self.get(key).await;
        let took = began.elapsed();
        let judged = answer.as_ref().ok().and_then(|reply| self.judge(key, began, reply));
        if counts {
            let mut measure = self.load.measure.borrow_mut();
            match &answer {
                Ok(reply) => measure.read(took, reply, judged),
                Err(error) => measure.reads.failed(error),
            }
        }
        answer.map(drop)
    }

    /// What an answer is worth, to everybody and to its session, which remembers it. `None` if it had no context.
    fn judge(&self, key: u32, began: Instant, reply: &GetReply) -> Option<Judged> {
        let seen = match &reply.context {
            Some(token) => token.peek().ok()?,
            None if reply.values.is_empty() => Context::new(), // never heard of the key
            None => return None,                               // cut short by a limit
        };
        let values = reply.values.iter().map(|value| value.dot.clone());
        self.load.sessions.borrow_mut()[self.number as usize].read(key, &seen, values);
        Some(Judged {
            verdict: self.must_show.judge(&seen),
            since_newest_ack: self.must_show.since_newest_ack(began - self.load.zero),
            kept: self.expected.judge(&seen),
        })
    }

    async fn write(&mut self, counts: bool) -> Result<(), RequestError> {
        let key = match self.load.run.shared_keys {
            true => self.load.keys.any(&mut self.dice),
            false => self.load.keys.own(self.number, &mut self.dice),
        };
        let answer = self.put(key).await;
        if counts {
            let mut measure = self.load.measure.borrow_mut();
            match &answer {
                Ok(put) => {
                    measure.writes.succeeded(put.took);
                    measure.context_reads += u64::from(put.read_first);
                }
                Err(NotWritten::Unread(error)) => {
                    measure.context_reads += 1;
                    measure.write_failed(error, &Effect::NotApplied);
                }
                Err(NotWritten::Unacknowledged(error)) => {
                    measure.write_failed(error, &error.effect());
                }
            }
        }
        answer.map(drop).map_err(RequestError::from)
    }

    /// A read as the run wants it: through an owner, or through whichever member the dice show.
    async fn get(&mut self, key: u32) -> Result<GetReply, RequestError> {
        self.options.via = match self.load.run.through {
            Through::Owners => None,
            Through::Any => {
                Some(self.load.members[self.dice.random_range(0..self.load.members.len())])
            }
        };
        let name = self.name.of(key);
        let answer = self.client.get(name, &self.options).await;
        match (answer, self.options.via.take()) {
            (Err(RequestError::Unreachable { .. }), Some(_)) => {
                self.client.get(name, &self.options).await
            }
            (answer, _) => answer,
        }
    }

    /// One write: learn what must be replaced, send, remember what was acknowledged.
    async fn put(&mut self, key: u32) -> Result<Put, NotWritten> {
        let (context, read_first) = self.context(key).await.map_err(NotWritten::Unread)?;
        let from = self.dice.random_range(0..=NOISE_BYTES);
        let value = self.load.noise.slice(from..from + self.load.run.value_bytes);
        let began = Instant::now();
        let name = self.name.of(key);
        match self.client.put(name, value, context.as_ref(), &self.options).await {
            Ok(reply) => {
                let took = began.elapsed();
                self.acknowledged(key, reply);
                Ok(Put { took, read_first })
            }
            Err(error) => {
                if error.effect() != Effect::NotApplied {
                    self.load.known.borrow_mut()[key as usize].certain = false;
                }
                Err(NotWritten::Unacknowledged(error))
            }
        }
    }

    fn acknowledged(&self, key: u32, reply: WriteReply) {
        let covered = reply.context.peek().unwrap_or_default(); // a token that we cannot read replaces nothing
        self.load.sessions.borrow_mut()[self.number as usize].acked(key, reply.dot.clone());
        let now = self.load.zero.elapsed();
        self.load.history.borrow_mut().ack(key, reply.dot, &covered, now);
        if !self.load.run.shared_keys {
            self.load.known.borrow_mut()[key as usize] =
                Known { token: Some(reply.context), certain: true };
        }
    }

    /// What the next put of the key shall replace, and whether it took a read to know it. See the head of this file.
    async fn context(&mut self, key: u32) -> Result<(Option<ContextToken>, bool), RequestError> {
        let Known { token, certain } = self.load.known.borrow()[key as usize].clone();
        if certain {
            return Ok((token, false));
        }
        let name = self.name.of(key);
        let context = match (self.client.get(name, &self.options_of_first_read).await, token) {
            (Ok(reply), None) => reply.context,
            (Ok(reply), Some(own)) if covers(reply.context.as_ref(), &own) => reply.context,
            (_, Some(own)) => Some(own),
            (Err(error), None) => return Err(error),
        };
        Ok((context, true))
    }
}

/// A put that was acknowledged.
struct Put {
    took: Duration,
    read_first: bool,
}

/// A put that was not.
enum NotWritten {
    /// Its context could not be read; nothing was sent.
    Unread(RequestError),
    /// It was sent, and the error says what is known of it.
    Unacknowledged(RequestError),
}

impl From<NotWritten> for RequestError {
    fn from(failed: NotWritten) -> RequestError {
        match failed {
            NotWritten::Unread(error) | NotWritten::Unacknowledged(error) => error,
        }
    }
}

fn options(quorum: &QuorumRequest, timeout: Duration) -> Options {
    Options { quorum: *quorum, timeout, ..Options::default() }
}

fn covers(read: Option<&ContextToken>, own: &ContextToken) -> bool {
    let peek = |token: &ContextToken| token.peek().ok();
    let read: Option<Context> = read.and_then(peek);
    read.zip(peek(own)).is_some_and(|(read, own)| read.covers(&own))
}

/// How long a worker rests after an error: as long as the cluster asked for, and long enough that errors which come at
/// once do not become the load.
fn pause(error: &RequestError) -> Duration {
    let asked = match error {
        RequestError::Failed(failure) => Duration::from_millis(failure.retry_after_ms.into()),
        RequestError::Quorum(_)
        | RequestError::Limit(_)
        | RequestError::Unreachable { .. }
        | RequestError::TimedOut { .. }
        | RequestError::Lost { .. }
        | RequestError::Nonsense { .. } => Duration::ZERO,
    };
    asked.clamp(PAUSE_MIN, PAUSE_MAX)
}

const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Values begin anywhere in so much noise, so that few share enough bytes for a compressor to find.
const NOISE_BYTES: usize = 4 << 20;

/// The preload is not measured and may take its time.
const PRELOAD_TIMEOUT: Duration = Duration::from_secs(5);
const PRELOAD_TRIES: u32 = 3;
const PRELOAD_PAUSE: Duration = Duration::from_millis(200);
