//! Histories of what clients asked and heard, and the judges that read them.
//!
//! A history ([`history`]) is recorded by whoever drives a cluster: the simulator, or the load generator against real
//! processes. The judges see nothing else. They take no clock's word: what a client had seen is known from which answer it
//! took its context from.
//!
//! ```
//! use atoll_check::{Judge, read_history};
//!
//! let lines = r#"{"begin":{"op":1,"at_us":0,"session":1,"key":"a","what":"put","with":{"n":3,"need":2,"owners":2,"durable":2}}}
//! {"end":{"op":1,"at_us":9,"reply":{"stored":{"dot":[1,1,1],"context":true}}}}
//! {"settled":{"at_us":20}}
//! {"held":{"node":1,"key":"a","owner":true,"readable":true,"values":[],"context":[[1,1,0,1]]}}"#;
//!
//! let mut judge = Judge::new();
//! for event in read_history(lines.as_bytes()) {
//!     judge.hear(&event?)?;
//! }
//! let verdict = judge.verdict();
//! assert_eq!(verdict.violations[0].to_string(), "no acknowledged write is lost: key a, operation 1: the value is nowhere, and nothing that had seen it took effect");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Reading order: [`history`] is the format, `file` its lines, `written` the bytes of its values and [`told`] the words for
//! values of other kinds; `books` and `kinds` keep what was heard; `provenance` says which
//! writes had been shown which values; `judges` holds one file per promise; `verdict` is what they find, and `window`
//! what happened around it.
//!
//! **Everything is linear** in the size of a history, but for the logarithms of searches: every value of every answer is
//! looked at a bounded number of times per judge (`judges::reads` says what bounds it there). [`Figures::steps`] counts.

#![deny(missing_docs)]

mod books;
mod file;
pub mod history;
mod judge;
mod judges;
mod kinds;
mod provenance;
mod spans;
pub mod told;
mod verdict;
mod window;
mod written;

pub use books::Nonsense;
pub use file::{BadLine, read_history, write_event};
pub use history::{Dot, Effect, Event, Held, Levels, Op, Reply, Value, What};
pub use judge::Judge;
pub use verdict::{Figures, Promise, Verdict, Violation};
pub use window::Window;
pub use written::Written;
