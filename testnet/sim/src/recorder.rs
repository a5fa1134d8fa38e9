//! What happened in a run: the history for the judges, and the trace for people and for comparison.
//!
//! The trace is one line per fault, request and reply, each with the virtual time and the number of messages sent until
//! then. Two runs of one seed are the same run if their traces have the same hash: a difference anywhere shows in the
//! number of messages at the latest.

use std::{fmt, sync::Arc};

use atoll_check::Event;
use atoll_transport::memory::Network;
use tokio::time::Instant;

/// The memory of a run.
pub struct Recorder {
    started: Instant,
    network: Arc<Network>,
    hash: blake3::Hasher,
    lines: Vec<String>,
    events: Vec<Event>,
    aloud: bool,
}

/// What is left of a run.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// For the judges.
    pub events: Vec<Event>,
    /// For people.
    pub lines: Vec<String>,
    /// Of the trace, in hexadecimal.
    pub hash: String,
}

impl Recorder {
    /// Begins now. With `aloud` each line is printed as it comes, so that a run that hangs or panics can be seen.
    pub fn new(network: Arc<Network>, aloud: bool) -> Self {
        Recorder {
            started: Instant::now(),
            network,
            hash: blake3::Hasher::new(),
            lines: Vec::new(),
            events: Vec::new(),
            aloud,
        }
    }

    /// Microseconds of virtual time since the beginning.
    pub fn now_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Something happened.
    pub fn say(&mut self, what: impl fmt::Display) {
        let (now, sent) = (self.now_us(), self.network.traffic().sent);
        let line = format!("{:>10}.{:03} {sent:>8}  {what}", now / 1000, now % 1000);
        if self.aloud {
            eprintln!("{line}");
        }
        self.hash.update(line.as_bytes());
        self.hash.update(b"\n");
        self.lines.push(line);
    }

    /// Something happened that the judges should know.
    pub fn event(&mut self, event: Event) {
        let json = serde_json::to_string(&event).expect("plain data");
        self.say(json);
        self.events.push(event);
    }

    /// All of it.
    pub fn finish(self) -> Record {
        let hash = self.hash.finalize().to_hex().to_string();
        Record { events: self.events, lines: self.lines, hash }
    }
}
