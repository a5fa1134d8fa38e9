//! The logs of nodes, as one story.
//!
//! Every line of a node begins with its time, so lines of several nodes can be put in order. A line without a time (a
//! panic, a refused configuration) stays behind the line before it.
//!
//! [`Logs::read`] orders what has come since the last look. Whoever follows for long may see a line of one node, and with the
//! next look an earlier one of another. A [`TimeLine`] holds lines back for a moment, so that this does not happen.

use std::{
    fs,
    io::{self, Read as _, Seek as _, SeekFrom},
    path::PathBuf,
    time::Duration,
};

use atoll_ring::NodeId;
use tokio::time::Instant;

use crate::{files::FileError, node::Node, poll};

/// A line of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Whose.
    pub node: NodeId,
    /// When: its own time, or that of the line before it; empty if there is none.
    pub time: String,
    /// Without its end.
    pub text: String,
}

impl Line {
    /// The text without the time it begins with.
    #[must_use]
    pub fn words(&self) -> &str {
        match time_of(&self.text) {
            Some(time) => self.text.split_once(time).map_or("", |(_, words)| words.trim_start()),
            None => &self.text,
        }
    }
}

/// Reads the logs of some nodes from where it has stopped.
#[derive(Debug)]
pub struct Logs {
    tails: Vec<Tail>,
}

impl Logs {
    /// From the beginning of each log.
    #[must_use]
    pub fn of(nodes: &[Node]) -> Logs {
        let tail = |node: &Node| Tail {
            node: node.id,
            path: node.log(),
            read: 0,
            rest: Vec::new(),
            time: String::new(),
        };
        Logs { tails: nodes.iter().map(tail).collect() }
    }

    /// All complete lines that have come since the last time, in the order of their times.
    ///
    /// # Errors
    /// A log cannot be read. One that does not exist yet has no lines.
    pub fn read(&mut self) -> Result<Vec<Line>, FileError> {
        let mut lines = Vec::new();
        for tail in &mut self.tails {
            let texts = tail.read().map_err(FileError::of("read", &tail.path))?;
            for text in texts {
                if let Some(own) = time_of(&text) {
                    own.clone_into(&mut tail.time);
                }
                lines.push(Line { node: tail.node, time: tail.time.clone(), text });
            }
        }
        lines.sort_by(|a, b| a.time.cmp(&b.time));
        Ok(lines)
    }

    /// Waits for more lines.
    ///
    /// # Errors
    /// As [`Logs::read`].
    pub async fn next(&mut self) -> Result<Vec<Line>, FileError> {
        loop {
            let lines = self.read()?;
            if !lines.is_empty() {
                return Ok(lines);
            }
            poll::pause().await;
        }
    }
}

#[derive(Debug)]
struct Tail {
    node: NodeId,
    path: PathBuf,
    read: u64,
    /// The beginning of a line whose end has not come yet.
    rest: Vec<u8>,
    /// Of the last line that had one.
    time: String,
}

/// Lines in the order of their times, also while more are coming.
#[derive(Debug)]
pub struct TimeLine {
    logs: Logs,
    /// By time, each with the moment at which it was seen.
    held: Vec<(Instant, Line)>,
}

impl TimeLine {
    /// Of these logs.
    #[must_use]
    pub fn of(logs: Logs) -> TimeLine {
        TimeLine { logs, held: Vec::new() }
    }

    /// Waits for more lines, and for those that might come before them.
    ///
    /// # Errors
    /// As [`Logs::read`].
    pub async fn next(&mut self) -> Result<Vec<Line>, FileError> {
        loop {
            let now = Instant::now();
            let read = self.logs.read()?;
            self.hold(read, now);
            let due = self.due(now);
            if !due.is_empty() {
                return Ok(due);
            }
            poll::pause().await;
        }
    }

    fn hold(&mut self, lines: Vec<Line>, now: Instant) {
        self.held.extend(lines.into_iter().map(|line| (now, line)));
        self.held.sort_by(|(_, a), (_, b)| a.time.cmp(&b.time));
    }

    /// The last line that was held for long enough, and all before it.
    fn due(&mut self, now: Instant) -> Vec<Line> {
        let is_due = |(seen, _): &(Instant, Line)| now >= *seen + HELD_FOR;
        let count = self.held.iter().rposition(is_due).map_or(0, |last| last + 1);
        self.held.drain(..count).map(|(_, line)| line).collect()
    }
}

/// How long a line is held back. A node writes a line at once when it has taken its time, and all logs are read within
/// milliseconds; a node that was paused between the two is the only one to come later, and then it comes as it comes.
const HELD_FOR: Duration = Duration::from_millis(300);

impl Tail {
    fn read(&mut self) -> io::Result<Vec<String>> {
        let mut file = match fs::File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            opened => opened?,
        };
        if file.metadata()?.len() < self.read {
            self.read = 0; // begun anew
            self.rest.clear();
        }
        file.seek(SeekFrom::Start(self.read))?;
        self.read += file.read_to_end(&mut self.rest)? as u64;
        let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else {
            return Ok(Vec::new());
        };
        let later = self.rest.split_off(end + 1);
        let complete = std::mem::replace(&mut self.rest, later);
        Ok(String::from_utf8_lossy(&complete).lines().map(str::to_owned).collect())
    }
}

/// `2026-11-21T02:01:00.123456Z`, possibly coloured.
fn time_of(line: &str) -> Option<&str> {
    let plain = line.strip_prefix("\x1b[2m").unwrap_or(line);
    let word = plain.split([' ', '\x1b']).next()?;
    let dated = word.len() >= 20 && word.starts_with("20") && word.as_bytes()[10] == b'T';
    dated.then_some(word)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use atoll_ring::ClusterId;

    use super::*;
    use crate::{asked::Wish, testnet::Testnet};

    /// Lines come in the order of their times, those without one stay with their own, half a line waits for its end,
    /// and a log that begins anew is read anew.
    #[test]
    fn one_story() {
        let folder = tempfile::tempdir().unwrap();
        let wish = Wish { nodes: Some(2), replicas: Some(1), ..Wish::default() };
        let asked = wish.settle(ClusterId([7; 16])).unwrap().0;
        let nodes = Testnet::new(folder.path().to_owned(), asked).nodes();
        let mut logs = Logs::of(&nodes);
        let append = |node: usize, text: &str| {
            fs::create_dir_all(nodes[node].folder()).unwrap();
            let log = fs::OpenOptions::new().create(true).append(true).open(nodes[node].log());
            log.unwrap().write_all(text.as_bytes()).unwrap();
        };
        let check = |logs: &mut Logs, expected: &[&str]| {
            let lines = logs.read().unwrap();
            let lines: Vec<String> =
                lines.iter().map(|line| format!("{} {}", line.node, line.text)).collect();
            assert_eq!(lines, expected);
        };
        check(&mut logs, &[]);
        append(0, "2026-11-21T02:00:01.000000Z a\n2026-11-21T02:00:03.000000Z c\n  because\nha");
        append(1, "2026-11-21T02:00:02.000000Z b\n");
        check(
            &mut logs,
            &[
                "n1 2026-11-21T02:00:01.000000Z a",
                "n2 2026-11-21T02:00:02.000000Z b",
                "n1 2026-11-21T02:00:03.000000Z c",
                "n1   because",
            ],
        );
        append(0, "lf\n");
        check(&mut logs, &["n1 half"]);
        check(&mut logs, &[]);
        fs::write(nodes[0].log(), "again\n").unwrap();
        check(&mut logs, &["n1 again"]);
    }

    /// A line that is seen late is put before later ones that are still held, and nothing waits for longer than it must.
    #[test]
    fn a_time_line_holds_back() {
        let mut line = TimeLine::of(Logs::of(&[]));
        let begin = Instant::now();
        let at = |ms| begin + Duration::from_millis(ms);
        let said = |node, time: &str| Line {
            node: NodeId(node),
            time: time.to_owned(),
            text: format!("{time} of n{node}"),
        };
        let due = |line: &mut TimeLine, ms| -> Vec<String> {
            line.due(at(ms)).into_iter().map(|line| line.text).collect()
        };
        line.hold(vec![said(1, "02"), said(1, "04")], at(0));
        line.hold(vec![said(2, "01"), said(2, "03")], at(200));
        assert!(due(&mut line, 299).is_empty());
        line.hold(vec![said(3, "05")], at(299));
        assert_eq!(due(&mut line, 300), ["01 of n2", "02 of n1", "03 of n2", "04 of n1"]);
        assert!(due(&mut line, 598).is_empty());
        assert_eq!(due(&mut line, 599), ["05 of n3"]);
    }

    /// A line without its time, coloured or not; one without a time is all words.
    #[test]
    fn words_of_a_line() {
        let words = |text: &str| {
            let line = Line { node: NodeId(1), time: String::new(), text: text.to_owned() };
            line.words().to_owned()
        };
        assert_eq!(words("2026-11-21T02:00:01.000000Z  INFO ready"), "INFO ready");
        assert_eq!(words("thread panicked"), "thread panicked");
        assert_eq!(words("  because"), "  because");
    }
}
