//! The history of a run, written to a file while it happens, for the judges of `atoll-check`.
//!
//! Workers say what they ask before they send it, and what they heard when they hear it. The lines go through a bounded
//! queue to a thread that writes the file. If the disk cannot follow, the workers wait for it: a history with holes in it is
//! worth nothing, and a load that is held up shows in the latencies. If the file cannot be written on, the run ends.
//!
//! **A value says who wrote it** ([`Written`]). And the keys are new in each recorded run (`bench-3f9a01cc:0000000042`), because a history must begin where its keys begin.

use std::{
    cell::{Cell, RefCell},
    fs::File,
    future::pending,
    io::{self, BufWriter, Write as _},
    path::Path,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread::{self, JoinHandle},
};

use atoll_check::{
    Effect, Event, Levels, Op, Reply, What, Written,
    history::kinds::{Answered, Asked, Told},
    told, write_event,
};
use atoll_client::{Effect as Left, GetReply, ReadReply, RequestError, WriteReply};
use atoll_ring::Quorum;
use tokio::{sync::oneshot, time::Instant};

/// Where the workers write down what they ask and hear.
pub(crate) struct Record {
    lines: RefCell<Option<SyncSender<Event>>>,
    thread: Cell<Option<JoinHandle<io::Result<()>>>>,
    zero: Instant,
    last: Cell<Op>,
}

impl Record {
    /// A new file. The receiver is told if it cannot be written on.
    ///
    /// # Errors
    /// The file exists already or cannot be made.
    pub fn create(path: &Path) -> io::Result<(Record, oneshot::Receiver<io::Error>)> {
        let file = BufWriter::with_capacity(BUFFER_BYTES, File::create_new(path)?);
        let (lines, heard) = sync_channel(LINES_MAX);
        let (broken, is_broken) = oneshot::channel();
        let thread = thread::Builder::new()
            .name("history".into())
            .spawn(move || write_all(file, &heard, broken))?;
        let record = Record {
            lines: RefCell::new(Some(lines)),
            thread: Cell::new(Some(thread)),
            zero: Instant::now(),
            last: Cell::new(0),
        };
        Ok((record, is_broken))
    }

    /// An operation is about to be sent. Gives it its number.
    pub fn begin(
        &self,
        session: u32,
        key: &[u8],
        what: What,
        seen: Option<Op>,
        with: Levels,
    ) -> Op {
        let op = self.next_op();
        let key = String::from_utf8_lossy(key).into_owned();
        self.write(Event::Begin { op, at_us: self.now(), session, key, what, seen, with });
        op
    }

    pub fn read(&self, op: Op, answer: &Result<GetReply, RequestError>) {
        let reply = match answer {
            Ok(found) => Reply::Found {
                values: found
                    .values
                    .iter()
                    .map(|value| (Written::value(&value.bytes), told::dot(&value.dot)))
                    .collect(),
                context: found.context.is_some(),
            },
            Err(error) => failed(error),
        };
        self.write(Event::End { op, at_us: self.now(), reply });
    }

    /// The receipt must show what the quorum asks for.
    pub fn wrote(&self, op: Op, answer: &Result<WriteReply, RequestError>, quorum: &Quorum) {
        let reply = match answer {
            Ok(stored) => Reply::Stored {
                dot: told::dot(&stored.dot),
                context: true,
                untrue: stored.receipt.untrue_of_write(quorum).map(str::to_owned),
            },
            Err(error) => failed(error),
        };
        self.write(Event::End { op, at_us: self.now(), reply });
    }

    /// The number of an operation that is about to be sent: its value holds it.
    pub fn next_op(&self) -> Op {
        let op = self.last.get() + 1;
        self.last.set(op);
        op
    }

    /// How many operations have begun.
    pub fn begun(&self) -> Op {
        self.last.get()
    }

    /// The history goes on with lines of this format.
    pub fn format(&self, format: u32) {
        self.write(Event::Format(format));
    }

    /// Whoever this is works in a session.
    pub fn in_session(&self, session: u32) {
        self.write(Event::InSession { session });
    }

    /// Something was broken on purpose, or healed.
    pub fn fault(&self, kind: Option<String>, says: String) {
        self.write(Event::Fault { at_us: self.now(), kind, says });
    }

    /// An operation on a value that is no register is about to be sent; it has its number already.
    pub fn asks(&self, asked: Asked) {
        self.write(Event::Asked(Asked { at_us: self.now(), ..asked }));
    }

    /// What a change of such a value came to.
    pub fn changed(&self, op: Op, answer: &Result<WriteReply, RequestError>) {
        let reply = match answer {
            Ok(stored) => Told::Stored { dot: told::dot(&stored.dot) },
            Err(error) => told_failed(error),
        };
        self.write(Event::Answered(Answered { op, at_us: self.now(), reply }));
    }

    /// What a read of such a value showed.
    pub fn showed(&self, op: Op, answer: &Result<ReadReply, RequestError>) {
        let reply = match answer {
            Ok(found) => {
                // without a token nobody has ever heard of the key
                let context = found.context.as_ref().and_then(|token| token.peek().ok());
                let context = told::known(&context.unwrap_or_default());
                Told::Found { shown: told::shown(&found.reading, Written::value), context }
            }
            Err(error) => told_failed(error),
        };
        self.write(Event::Answered(Answered { op, at_us: self.now(), reply }));
    }

    /// Waits until all of it is in the file.
    ///
    /// # Errors
    /// Why it is not.
    pub fn finish(&self) -> io::Result<()> {
        self.lines.borrow_mut().take();
        match self.thread.take() {
            Some(thread) => thread.join().expect("writing does not panic"),
            None => Ok(()),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.zero.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn write(&self, event: Event) {
        if let Some(lines) = &*self.lines.borrow() {
            let _ = lines.send(event); // whoever waits for the end of the run is told why it fails
        }
    }
}

/// Done when the history cannot be written on, and why; never, if it can.
pub(crate) async fn until_broken(broken: oneshot::Receiver<io::Error>) -> io::Error {
    match broken.await {
        Ok(error) => error,
        Err(_) => pending().await, // it was written to its end
    }
}

/// What the levels of a run mean for its reads and its writes.
pub(crate) fn levels(quorum: &Quorum) -> (Levels, Levels) {
    let n = quorum.n();
    let (need, owners) = (quorum.r(), quorum.pr());
    let read = Levels { n, need, owners, durable: 0, blocking: false };
    let (need, owners) = (quorum.w(), quorum.pw());
    (read, Levels { n, need, owners, durable: quorum.dw(), blocking: false })
}

fn write_all(
    mut file: BufWriter<File>,
    lines: &Receiver<Event>,
    broken: oneshot::Sender<io::Error>,
) -> io::Result<()> {
    let written = lines.iter().try_for_each(|event| write_event(&mut file, &event));
    written.and_then(|()| file.flush()).map_err(|error| {
        let again = io::Error::new(error.kind(), error.to_string());
        let _ = broken.send(error); // nobody listens any more at the end of a run; then `finish` says it
        again
    })
}

fn failed(error: &RequestError) -> Reply {
    match error {
        RequestError::TimedOut { .. } | RequestError::Lost { .. } => Reply::Silence,
        _ => Reply::Failed { effect: effect(error), code: error.word().into() },
    }
}

fn told_failed(error: &RequestError) -> Told {
    match error {
        RequestError::TimedOut { .. } | RequestError::Lost { .. } => Told::Silence,
        _ => Told::Failed { effect: effect(error), code: error.word().into() },
    }
}

fn effect(error: &RequestError) -> Effect {
    match error.effect() {
        Left::NotApplied => Effect::NotApplied,
        Left::Applied(acks) => Effect::Applied(acks),
        Left::Unknown => Effect::Unknown,
    }
}

/// Lines that may wait for the disk: a few MiB. Beyond them the workers wait, too.
const LINES_MAX: usize = 16_384;

/// Written to the file at a time.
const BUFFER_BYTES: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use atoll_ring::QuorumRequest;

    use super::*;

    /// In a strict request all are owners; in a sloppy one those that were asked for.
    #[test]
    fn owners_are_counted_as_asked() {
        let check = |request: QuorumRequest, expected: (u8, u8)| {
            let (read, write) = levels(&Quorum::new(&request, 3).unwrap());
            assert_eq!((read.owners, write.owners), expected, "{request:?}");
        };
        let default = QuorumRequest::default();
        check(default, (0, 0));
        check(QuorumRequest { sloppy: Some(false), ..default }, (2, 2));
        let one = Some(atoll_ring::Level::Count(1));
        check(QuorumRequest { pr: one, ..default }, (1, 0));
        check(QuorumRequest { pw: one, ..default }, (0, 1));
    }

    /// What is there is not overwritten: a history is evidence.
    #[test]
    fn an_existing_file_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("h.jsonl");
        std::fs::write(&path, "evidence").unwrap();
        assert!(Record::create(&path).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "evidence");
    }

    /// A disk that is full is told to whoever waits for the run's end.
    #[test]
    fn a_full_disk_is_reported() {
        let (broken, mut is_broken) = oneshot::channel();
        let (lines, heard) = sync_channel(10);
        lines.send(Event::Settled { at_us: 1 }).unwrap();
        drop(lines);
        let full = File::options().write(true).open("/dev/full").unwrap();
        assert!(write_all(BufWriter::new(full), &heard, broken).is_err());
        assert_eq!(is_broken.try_recv().unwrap().kind(), io::ErrorKind::StorageFull);
    }
}
