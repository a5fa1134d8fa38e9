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
    io::{self, BufWriter, Write as _},
    path::Path,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread::{self, JoinHandle},
};

use atoll_check::{Effect, Event, Levels, Op, Reply, What, Written, write_event};
use atoll_client::{Dot, Effect as Left, GetReply, RequestError, WriteReply};
use atoll_ring::Quorum;
use tokio::{sync::oneshot, time::Instant};

/// Where the workers write down what they ask and hear.
pub(crate) struct Record {
    lines: RefCell<Option<SyncSender<Event>>>,
    thread: Cell<Option<JoinHandle<io::Result<()>>>>,
    /// What the writes ask for, and their receipts must show.
    quorum: Quorum,
    zero: Instant,
    last: Cell<Op>,
}

impl Record {
    /// A new file. The receiver is told if it cannot be written on.
    ///
    /// # Errors
    /// The file exists already or cannot be made.
    pub fn create(
        path: &Path,
        quorum: Quorum,
    ) -> io::Result<(Record, oneshot::Receiver<io::Error>)> {
        let file = BufWriter::with_capacity(BUFFER_BYTES, File::create_new(path)?);
        let (lines, heard) = sync_channel(LINES_MAX);
        let (broken, is_broken) = oneshot::channel();
        let thread = thread::Builder::new()
            .name("history".into())
            .spawn(move || write_all(file, &heard, broken))?;
        let record = Record {
            lines: RefCell::new(Some(lines)),
            thread: Cell::new(Some(thread)),
            quorum,
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
        let op = self.last.get() + 1;
        self.last.set(op);
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
                    .map(|value| (Written::value(&value.bytes), dot(&value.dot)))
                    .collect(),
                context: found.context.is_some(),
            },
            Err(error) => failed(error),
        };
        self.write(Event::End { op, at_us: self.now(), reply });
    }

    pub fn wrote(&self, op: Op, answer: &Result<WriteReply, RequestError>) {
        let reply = match answer {
            Ok(stored) => Reply::Stored {
                dot: dot(&stored.dot),
                context: true,
                untrue: stored.receipt.untrue_of_write(&self.quorum).map(str::to_owned),
            },
            Err(error) => failed(error),
        };
        self.write(Event::End { op, at_us: self.now(), reply });
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

fn dot(dot: &Dot) -> atoll_check::Dot {
    (dot.actor.node, dot.actor.incarnation, dot.counter)
}

fn failed(error: &RequestError) -> Reply {
    let effect = match error.effect() {
        Left::NotApplied => Effect::NotApplied,
        Left::Applied(acks) => Effect::Applied(acks),
        Left::Unknown => Effect::Unknown,
    };
    let code = match error {
        RequestError::TimedOut { .. } | RequestError::Lost { .. } => return Reply::Silence,
        RequestError::Failed(failure) => failure.code.word(),
        RequestError::Quorum(_) => "bad quorum",
        RequestError::Limit(_) => "over a limit",
        RequestError::Bucket(_) => "unknown bucket",
        RequestError::NoSuchNode { .. } => "no such node",
        RequestError::Unreachable { .. } => "unreachable",
        RequestError::Nonsense { .. } => "nonsense answered",
    };
    Reply::Failed { effect, code: code.into() }
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
        let quorum = Quorum::new(&QuorumRequest::default(), 3).unwrap();
        assert!(Record::create(&path, quorum).is_err());
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
