//! The logs of nodes, as one story.
//!
//! Every line of a node begins with its time, so lines of several nodes can be put in order. A line without a time (a
//! panic, a refused configuration) stays behind the line before it.

use std::{
    fs,
    io::{self, Read as _, Seek as _, SeekFrom},
    path::PathBuf,
};

use atoll_ring::NodeId;

use crate::{files::FileError, node::Node, poll};

/// A line of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Whose.
    pub node: NodeId,
    /// Without its end.
    pub text: String,
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
        let tail =
            |node: &Node| Tail { node: node.id, path: node.log(), read: 0, rest: Vec::new() };
        Logs { tails: nodes.iter().map(tail).collect() }
    }

    /// All complete lines that have come since the last time, in the order of their times.
    ///
    /// # Errors
    /// A log cannot be read. One that does not exist yet has no lines.
    pub fn read(&mut self) -> Result<Vec<Line>, FileError> {
        let mut lines = Vec::new();
        for tail in &mut self.tails {
            let mut time = String::new();
            for text in tail.read().map_err(FileError::of("read", &tail.path))? {
                if let Some(own) = time_of(&text) {
                    own.clone_into(&mut time);
                }
                lines.push((time.clone(), Line { node: tail.node, text }));
            }
        }
        lines.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(lines.into_iter().map(|(_, line)| line).collect())
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
}

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
}
