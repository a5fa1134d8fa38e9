//! One worker: an operation, its answer, what is learned from it.
//!
//! A read takes its snapshot of what must be visible, is sent, and is judged by the context that comes back. A write
//! passes what its session has seen of the key, and becomes part of the history when it is acknowledged.
//!
//! In a **closed loop** a worker belongs to one session and goes on for ever. In an open loop workers are lent out, one
//! operation each: they are the room that an operation needs.
//!
//! Little is allocated per operation beyond what the client does: keys are spelt into a buffer, values are slices of a
//! pool of noise, snapshots use their room again.

use std::{cell::Cell, cell::RefCell, rc::Rc, sync::Arc, time::Duration};

use atoll_check::{Levels, Op, What, Written};
use atoll_client::{
    Client, Context, ContextToken, Effect, GetReply, NodeId, Options, QuorumRequest, RequestError,
    WriteReply,
};
use atoll_ring::Quorum;
use bytes::Bytes;
use rand::{RngCore as _, rngs::SmallRng};
use tokio::time::{Instant, sleep};

use crate::{
    History, KeyName, Keys, Run, Snapshot,
    known::{Known, Token, Turn},
    measure::{Judged, Measure},
    operation::{Chance, Deed, Operation},
    record::{self, Record},
    session::{self, Expected, Session},
};

/// What all workers of a run share. They live in one thread; no borrow is held across an await.
pub(crate) struct Load {
    pub run: Run,
    pub keys: Keys,
    pub history: RefCell<History>,
    pub measure: RefCell<Measure>,
    /// Who can be asked to coordinate.
    pub members: Vec<NodeId>,
    /// Sessions share them evenly.
    clients: Vec<Arc<Client>>,
    /// By number.
    sessions: RefCell<Vec<Session>>,
    /// Where the time of acknowledgements and reads begins.
    zero: Instant,
    /// By key. Only the key's writer looks at it; unused when keys are shared.
    known: RefCell<Vec<Known>>,
    first_read: QuorumRequest,
    noise: Bytes,
    record: Option<Recording>,
}

/// The record of a run, and what all its operations have in common.
struct Recording {
    to: Rc<Record>,
    /// In the names of the keys.
    number: u32,
    read: Levels,
    first_read: Levels,
    write: Levels,
    /// What the receipts of writes must show.
    quorum: Quorum,
}

/// Between which moments an operation must begin to be counted. The end moves when the user interrupts.
pub(crate) struct Window {
    pub begin: Instant,
    pub end: Cell<Instant>,
}

/// When an operation should have been sent.
#[derive(Clone, Copy)]
pub(crate) enum Due {
    /// Whenever a worker was free. So its latency is how long it took.
    Whenever,
    /// At that moment. Its latency counts from there.
    At(Instant),
}

impl Load {
    /// Nothing is written, nothing is known.
    pub fn new(
        run: Run,
        clients: &[Arc<Client>],
        first_read: QuorumRequest,
        record: Option<Rc<Record>>,
        dice: &mut SmallRng,
    ) -> Load {
        let mut noise = vec![0; run.value_bytes + NOISE_BYTES];
        dice.fill_bytes(&mut noise);
        let keys_remembered = session::keys_max(run.sessions());
        let quorum = |request: &QuorumRequest| {
            let quorum = Quorum::new(request, clients[0].view().bucket_n());
            quorum.expect("the run was checked")
        };
        let record = record.map(|to| {
            let (first_read, quorum) = (quorum(&first_read), quorum(&run.quorum));
            let ((read, write), (first_read, _)) =
                (record::levels(&quorum), record::levels(&first_read));
            Recording { to, number: rand::random(), read, first_read, write, quorum }
        });
        let sessions = (0..run.sessions()).map(|_| Session::new(keys_remembered));
        Load {
            keys: Keys::new(run.keys, run.sessions(), run.distribution),
            history: RefCell::new(History::new(run.keys)),
            measure: RefCell::new(Measure::new()),
            members: clients[0].view().members().iter().map(|member| member.id).collect(),
            clients: clients.to_vec(),
            sessions: RefCell::new(sessions.collect()),
            zero: Instant::now(),
            known: RefCell::new(vec![Known::default(); run.keys as usize]),
            first_read,
            noise: noise.into(),
            record,
            run,
        }
    }

    fn client(&self, session: u32) -> &Client {
        &self.clients[session as usize % self.clients.len()]
    }

    /// Writes down what is about to be asked; gives 0 if nobody records.
    fn begin(
        &self,
        session: u32,
        name: &[u8],
        what: What,
        seen: Option<Op>,
        levels: impl FnOnce(&Recording) -> Levels,
    ) -> Op {
        let begin = |record: &Recording| record.to.begin(session, name, what, seen, levels(record));
        self.record.as_ref().map_or(0, begin)
    }

    /// Writes down what was heard.
    fn recorded(&self, write: impl FnOnce(&Record, &Quorum)) {
        if let Some(record) = &self.record {
            write(&record.to, &record.quorum);
        }
    }
}

impl Window {
    /// Whether an operation that begins at this moment is counted.
    pub fn counts(&self, moment: Instant) -> bool {
        self.begin <= moment && moment < self.end.get()
    }
}

/// One of those who keep the cluster busy.
pub(crate) struct Worker {
    load: Rc<Load>,
    name: KeyName,
    must_show: Snapshot,
    expected: Expected,
    options: Options,
    options_of_first_read: Options,
}

impl Worker {
    /// A worker with room for one operation.
    pub fn new(load: Rc<Load>) -> Worker {
        let timeout = load.run.timeout;
        Worker {
            name: match &load.record {
                Some(record) => KeyName::of_run(record.number),
                None => KeyName::new(),
            },
            must_show: Snapshot::default(),
            expected: Expected::default(),
            options: options(&load.run.quorum, timeout),
            options_of_first_read: options(&load.first_read, timeout),
            load,
        }
    }

    /// The closed loop: reads and writes, one after the other, until the window closes.
    pub async fn work(mut self, mut chance: Chance, window: Rc<Window>) {
        loop {
            let now = Instant::now();
            if now >= window.end.get() {
                return;
            }
            let operation = chance.draw(&self.load);
            let done = self.perform(operation, Due::Whenever, window.counts(now)).await;
            if let Err(error) = done {
                sleep(pause(&error)).await;
            }
        }
    }

    /// Writes each of a session's keys once, whatever was there.
    ///
    /// # Errors
    /// The first key that could not be written, and why.
    pub async fn preload(
        mut self,
        mut chance: Chance,
        written: impl Fn(),
    ) -> Result<(), (String, RequestError)> {
        self.options.timeout = self.options.timeout.max(Some(PRELOAD_TIMEOUT));
        self.options_of_first_read.timeout = self.options.timeout;
        for key in chance.own_keys(&self.load) {
            let mut tries = 1;
            while let Err(error) = self.perform(chance.write(key), Due::Whenever, false).await {
                if tries == PRELOAD_TRIES {
                    let name = String::from_utf8_lossy(self.name.of(key)).into_owned();
                    return Err((name, error));
                }
                tries += 1;
                sleep(PRELOAD_PAUSE).await;
            }
            written();
        }
        Ok(())
    }

    /// One operation, and what is learned from it. It enters the figures if it `counts`.
    ///
    /// # Errors
    /// Why it failed; that is measured already.
    pub async fn perform(
        &mut self,
        operation: Operation,
        due: Due,
        counts: bool,
    ) -> Result<(), RequestError> {
        if counts && let Due::At(intended) = due {
            self.load.measure.borrow_mut().sent(intended.elapsed());
        }
        let Operation { session, key, deed } = operation;
        match deed {
            Deed::Read(via) => self.read(session, key, via, due, counts).await,
            Deed::Write(noise_from) => self.write(session, key, noise_from, due, counts).await,
        }
    }

    async fn read(
        &mut self,
        session: u32,
        key: u32,
        via: Option<NodeId>,
        due: Due,
        counts: bool,
    ) -> Result<(), RequestError> {
        self.load.history.borrow().snapshot(key, &mut self.must_show);
        self.load.sessions.borrow()[session as usize].expect(key, &mut self.expected);
        let began = Instant::now();
        let answer = self.get(session, key, via).await;
        let took = began.elapsed();
        let judged = answer.as_ref().ok().and_then(|reply| self.judge(session, key, began, reply));
        if counts {
            let mut measure = self.load.measure.borrow_mut();
            match &answer {
                Ok(reply) => {
                    measure.reads.succeeded(due.latency(took), took);
                    measure.read(reply, judged);
                }
                Err(error) => measure.reads.failed(error),
            }
        }
        answer.map(drop)
    }

    /// What an answer is worth, to everybody and to its session, which remembers it. `None` if it had no context.
    fn judge(&self, session: u32, key: u32, began: Instant, reply: &GetReply) -> Option<Judged> {
        let seen = match &reply.context {
            Some(token) => token.peek().ok()?,
            None if reply.values.is_empty() => Context::new(), // never heard of the key
            None => return None,                               // cut short by a limit
        };
        let values = reply.values.iter().map(|value| value.dot.clone());
        self.load.sessions.borrow_mut()[session as usize].read(key, &seen, values);
        Some(Judged {
            verdict: self.must_show.judge(&seen),
            since_newest_ack: self.must_show.since_newest_ack(began - self.load.zero),
            kept: self.expected.judge(&seen),
        })
    }

    async fn write(
        &mut self,
        session: u32,
        key: u32,
        noise_from: usize,
        due: Due,
        counts: bool,
    ) -> Result<(), RequestError> {
        let turn = self.load.known.borrow_mut()[key as usize].begin();
        let answer = self.put(session, key, noise_from).await;
        match &answer {
            Ok(put) => self.acknowledged(session, key, turn, put),
            Err(failed) => self.load.known.borrow_mut()[key as usize].failed(&failed.effect()),
        }
        if counts {
            let mut measure = self.load.measure.borrow_mut();
            match &answer {
                Ok(put) => {
                    measure.writes.succeeded(due.latency(put.took), put.took);
                    measure.context_reads += u64::from(put.read_first);
                }
                Err(failed) => {
                    measure.context_reads += u64::from(matches!(failed, NotWritten::Unread(_)));
                    measure.write_failed(failed.error(), &failed.effect());
                }
            }
        }
        answer.map(drop).map_err(NotWritten::into_error)
    }

    /// A read as the run wants it: through an owner, or through whichever member the dice show.
    async fn get(
        &mut self,
        session: u32,
        key: u32,
        via: Option<NodeId>,
    ) -> Result<GetReply, RequestError> {
        let (client, name) = (self.load.client(session), self.name.of(key));
        let op = self.load.begin(session, name, What::Get, None, |levels| levels.read);
        self.options.via = via;
        let answer = client.get(name, &self.options).await;
        self.options.via = None;
        let answer = match (answer, via) {
            (Err(RequestError::Unreachable { .. }), Some(_)) => {
                client.get(name, &self.options).await
            }
            (answer, _) => answer,
        };
        self.load.recorded(|to, _| to.read(op, &answer));
        answer
    }

    /// One write: learn what must be replaced, and send.
    async fn put(&mut self, session: u32, key: u32, noise_from: usize) -> Result<Put, NotWritten> {
        let (context, read_first) = self.context(session, key).await.map_err(NotWritten::Unread)?;
        let mut value = self.load.noise.slice(noise_from..noise_from + self.load.run.value_bytes);
        let (client, name) = (self.load.client(session), self.name.of(key));
        let seen = context.as_ref().map(|context| context.from);
        let op = self.load.begin(session, name, What::Put, seen, |levels| levels.write);
        if self.load.record.is_some() {
            value = Written::by(op, &value).into();
        }
        let context = context.map(|context| context.token);
        let began = Instant::now();
        let answer = client.put(name, value, context.as_ref(), &self.options).await;
        self.load.recorded(|to, quorum| to.wrote(op, &answer, quorum));
        match answer {
            Ok(reply) => Ok(Put { op, reply, took: began.elapsed(), read_first }),
            Err(error) => Err(NotWritten::Unacknowledged(error)),
        }
    }

    fn acknowledged(&self, session: u32, key: u32, turn: Turn, put: &Put) {
        let reply = &put.reply;
        let covered = reply.context.peek().unwrap_or_default(); // a token that we cannot read replaces nothing
        self.load.sessions.borrow_mut()[session as usize].acked(key, reply.dot.clone());
        let now = self.load.zero.elapsed();
        self.load.history.borrow_mut().ack(key, reply.dot.clone(), &covered, now);
        let mut known = self.load.known.borrow_mut();
        let token = Token { token: reply.context.clone(), from: put.op };
        known[key as usize].acknowledged(turn, token);
    }

    /// What the next put of the key shall replace, and whether it took a read to know it. See the head of this file.
    async fn context(
        &mut self,
        session: u32,
        key: u32,
    ) -> Result<(Option<Token>, bool), RequestError> {
        let token = match (&self.load.known.borrow()[key as usize], self.load.run.shared_keys) {
            (_, true) => None, // what others have written since is not in it
            (known, false) if known.certain => return Ok((known.token.clone(), false)),
            (known, false) => known.token.clone(),
        };
        let (client, name) = (self.load.client(session), self.name.of(key));
        let from = self.load.begin(session, name, What::Get, None, |levels| levels.first_read);
        let answer = client.get(name, &self.options_of_first_read).await;
        self.load.recorded(|to, _| to.read(from, &answer));
        let read = |reply: GetReply| reply.context.map(|token| Token { token, from });
        let context = match (answer, token) {
            (Ok(reply), None) => read(reply),
            (Ok(reply), Some(own)) if covers(reply.context.as_ref(), &own.token) => read(reply),
            (_, Some(own)) => Some(own),
            (Err(error), None) => return Err(error),
        };
        Ok((context, true))
    }
}

/// A put that was acknowledged.
struct Put {
    /// Its number in the history; 0 in runs that are not recorded.
    op: Op,
    reply: WriteReply,
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

impl NotWritten {
    fn error(&self) -> &RequestError {
        match self {
            NotWritten::Unread(error) | NotWritten::Unacknowledged(error) => error,
        }
    }

    fn into_error(self) -> RequestError {
        match self {
            NotWritten::Unread(error) | NotWritten::Unacknowledged(error) => error,
        }
    }

    /// What it has left behind.
    fn effect(&self) -> Effect {
        match self {
            NotWritten::Unread(_) => Effect::NotApplied,
            NotWritten::Unacknowledged(error) => error.effect(),
        }
    }
}

impl Due {
    /// How long its user has waited for an operation that took so long and has just ended.
    fn latency(self, took: Duration) -> Duration {
        match self {
            Due::Whenever => took,
            Due::At(intended) => intended.elapsed(),
        }
    }
}

fn options(quorum: &QuorumRequest, timeout: Duration) -> Options {
    Options { quorum: *quorum, timeout: Some(timeout), ..Options::default() }
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
        | RequestError::OtherKind(_)
        | RequestError::Session(_)
        | RequestError::Bucket(_)
        | RequestError::NoSuchNode { .. }
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
pub(crate) const NOISE_BYTES: usize = 4 << 20;

/// The preload is not measured and may take its time.
const PRELOAD_TIMEOUT: Duration = Duration::from_secs(5);
const PRELOAD_TRIES: u32 = 3;
const PRELOAD_PAUSE: Duration = Duration::from_millis(200);
