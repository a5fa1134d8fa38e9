//! Stories: timelines of commands, loads, faults and expectations that say beforehand how they end.
//!
//! A story is a TOML file. Whoever wants to write one reads `testnet/stories/sloppy-quorum.toml` and then the table in
//! `docs/design.md`. A step is a command line that a user could type; what it must print or end with is an expectation, and a
//! step with `within` is repeated until its expectations hold, so nothing waits for luck.
//!
//! Everything here is pure: [`parse`](Story::parse) finds each mistake with its line and column, [`Values`] puts captured
//! values into command lines and texts, [`Expect`] judges what was heard, [`Ending`] is the verdict. Who runs the commands and
//! tells the story is the program (`cli/src/testnet/story`).

use std::{fmt, time::Duration};

use serde::Deserialize;

mod expect;
mod line;
mod parse;
mod path;
mod shipped;
mod values;

pub use expect::{Expect, Heard, Test};
pub use line::{Line, Word};
pub use path::Path;
pub use shipped::{SHIPPED, TOUR, shipped};
pub use values::Values;

/// A story that makes sense as far as one can tell without telling it.
#[derive(Clone, Debug)]
pub struct Story {
    /// Its name: of its file, without folder and ending.
    pub name: String,
    /// What it shows, in a few words.
    pub title: String,
    /// What one should know before it begins.
    pub about: String,
    /// Where it plays.
    pub stage: Stage,
    /// What its steps know from the beginning, in each length.
    values: Vec<(String, [String; 2])>,
    steps: Vec<Step>,
}

/// The testnet of a story.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Stage {
    /// Nodes.
    pub nodes: u32,
    /// Zones.
    pub zones: u32,
    /// Copies of each key.
    pub replicas: u8,
    /// Partitions of the ring. Few move and are compared sooner than many.
    pub partitions: u32,
    /// Whether its nodes must be started with `--allow-faults`.
    pub faults: bool,
    /// Whether it leaves more than data behind, so that nobody's testnet can be its stage.
    pub alone: bool,
}

impl Default for Stage {
    fn default() -> Self {
        Stage { nodes: 5, zones: 1, replicas: 3, partitions: 256, faults: false, alone: false }
    }
}

/// One moment of a story: words, a deed, or both.
#[derive(Clone, Debug)]
pub struct Step {
    /// Where it begins in the file.
    pub place: Place,
    /// What is said before.
    pub say: Option<String>,
    /// What is done.
    pub deed: Option<Deed>,
    /// Which lines of what was printed are shown: those with one of these words in them. `None`: all.
    pub show: Option<Vec<String>>,
    /// What must come of it.
    pub expect: Expect,
    /// What is proved if it does, in a sentence.
    pub shows: Option<String>,
    /// It is done again until what is expected comes of it, for at most so long.
    pub within: Option<Duration>,
    /// Names for values in the JSON that it prints.
    pub take: Vec<(String, Path)>,
    /// What is said after, about what was printed.
    pub look: Option<String>,
    only: Option<Length>,
}

/// What a step does.
#[derive(Clone, Debug)]
pub enum Deed {
    /// Runs a command and waits for its end.
    Run(Line),
    /// Starts a command that goes on in the background under this name.
    Load {
        /// Its name.
        name: String,
        /// The command.
        line: Line,
    },
    /// Presses Ctrl-C in a background command and waits for its end.
    End(String),
    /// Waits for the end of a background command.
    Await(String),
}

/// How much of a story is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Length {
    /// All of it.
    Long,
    /// What a machine needs in order to check it.
    Short,
}

/// Where something stands in a file. Both count from 1; a column is a character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

/// A mistake in a story.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {what}")]
pub struct Mistake {
    /// Where.
    pub place: Place,
    /// What is wrong, and what would be right.
    pub what: String,
}

/// How a story ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// As it says.
    AsTold,
    /// Something else came of a step.
    Otherwise {
        /// The number of the step, from 1.
        step: usize,
        /// What, and what was expected.
        why: String,
        /// Whether what came is that the store broke a promise.
        promise_broken: bool,
    },
    /// Somebody pressed Ctrl-C.
    Interrupted,
}

impl Story {
    /// The values that its steps know from the beginning.
    #[must_use]
    pub fn values(&self, length: Length) -> Values {
        let mut values = Values::default();
        for (name, each) in &self.values {
            values.set(name, each[length as usize].clone());
        }
        values
    }

    /// Its steps, in order.
    pub fn steps(&self, length: Length) -> impl Iterator<Item = &Step> {
        self.steps.iter().filter(move |step| step.only.is_none_or(|only| only == length))
    }

    /// All command lines, in the order of the file.
    pub fn lines(&self) -> impl Iterator<Item = &Line> {
        self.steps.iter().filter_map(|step| match &step.deed {
            Some(Deed::Run(line) | Deed::Load { line, .. }) => Some(line),
            Some(Deed::End(_) | Deed::Await(_)) | None => None,
        })
    }
}

impl Ending {
    /// The exit code of `testnet judge`, and of every command that says that a promise was broken.
    pub const PROMISE_BROKEN: i32 = 11;

    /// Of a step from which something else came.
    #[must_use]
    pub fn otherwise(step: usize, heard: &Heard, why: String) -> Ending {
        Ending::Otherwise { step, why, promise_broken: heard.code == Some(Self::PROMISE_BROKEN) }
    }

    /// In a few words, for programs.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Ending::AsTold => "as told",
            Ending::Otherwise { promise_broken: false, .. } => "otherwise",
            Ending::Otherwise { promise_broken: true, .. } => "a promise was broken",
            Ending::Interrupted => "interrupted",
        }
    }
}

impl Place {
    /// Of a byte in a text.
    #[must_use]
    pub fn of(text: &str, byte: usize) -> Place {
        let before = text.get(..byte).unwrap_or(text);
        let begin = before.rfind('\n').map_or(0, |end| end + 1);
        Place {
            line: before.matches('\n').count() + 1,
            column: before[begin..].chars().count() + 1,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}
