//! What came of a torture, as a table and as a document.

use std::{collections::BTreeMap, path::Path};

use atoll_check::{Promise, Verdict, Window};
use atoll_client::NodeId;
use atoll_testnet::Settled;
use serde::Serialize;

use super::{
    super::judge::verdict::{Judged, WindowDocument, row},
    Ground, Ran,
};
use crate::{
    exit::Exit,
    output::{self, Format},
};

/// Everything there is to say.
pub struct Report<'a> {
    pub ground: &'a Ground,
    pub ran: &'a Ran,
    pub settled: &'a Settled,
    pub verdict: &'a Verdict,
    pub window: Option<&'a Window>,
    /// Who has taken a new incarnation without a reason.
    pub unfounded: &'a [NodeId],
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    seed: u64,
    clean: bool,
    interrupted: bool,
    length_ms: u64,
    testnet: &'a str,
    history: &'a Path,
    /// By kind.
    faults: BTreeMap<&'static str, u64>,
    /// Acknowledged writes that are gone.
    lost: u64,
    /// Reads of registers that showed all that had been acknowledged, and those that did not.
    fresh: u64,
    stale: u64,
    /// Failed operations, by the error's word.
    errors: &'a BTreeMap<&'static str, u64>,
    ended_by_themselves: Vec<EndedDocument<'a>>,
    new_incarnations: Vec<String>,
    settled_after_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_settled: Option<&'a str>,
    verdict: &'a Verdict,
    #[serde(skip_serializing_if = "Option::is_none")]
    window: Option<WindowDocument<'a>>,
}

#[derive(Serialize)]
struct EndedDocument<'a> {
    node: String,
    last_lines: &'a [String],
}

impl Report<'_> {
    /// How the program ends; nothing: well.
    pub fn exit(&self) -> Option<Exit> {
        if !self.verdict.is_clean() {
            Some(Exit::Violated)
        } else if !self.ran.ended.is_empty() || !self.unfounded.is_empty() {
            Some(Exit::Other)
        } else {
            None
        }
    }

    /// On stdout.
    pub fn print(&self, format: Format) {
        match format {
            Format::Json => output::json(&self.document()),
            Format::Plain => {
                for violation in &self.verdict.violations {
                    anstream::println!("{violation}");
                }
            }
            Format::Table => self.table(),
        }
    }

    fn document(&self) -> Document<'_> {
        let Report { ground, ran, settled, verdict, window, unfounded } = self;
        let ended = ran.ended.iter().map(|ended| EndedDocument {
            node: ended.node.to_string(),
            last_lines: &ended.last_lines,
        });
        Document {
            schema: "atoll.torture/v1",
            seed: ground.seed,
            clean: self.exit().is_none(),
            interrupted: ran.interrupted,
            length_ms: u64::try_from(ran.length.as_millis()).unwrap_or(u64::MAX),
            testnet: ground.testnet.name(),
            history: &ground.history,
            faults: ran.faults.iter().map(|(kind, count)| (kind.word(), *count)).collect(),
            lost: self.lost(),
            fresh: ran.load.fresh,
            stale: ran.load.stale,
            errors: &ran.load.errors,
            ended_by_themselves: ended.collect(),
            new_incarnations: unfounded.iter().map(NodeId::to_string).collect(),
            settled_after_ms: u64::try_from(settled.after.as_millis()).unwrap_or(u64::MAX),
            not_settled: settled.not_yet.as_deref(),
            verdict,
            window: window.map(WindowDocument::of),
        }
    }

    fn table(&self) {
        let Report { ground, ran, settled, verdict, window, unfounded } = self;
        anstream::println!();
        row("seed", format!("{}, for {:.1} s", ground.seed, ran.length.as_secs_f64()));
        let errors = ran.load.errors.iter().map(|(word, count)| format!("{count} {word}"));
        row("errors", or_none(errors));
        let (fresh, stale) = (ran.load.fresh, ran.load.stale);
        row("staleness", format!("{stale} of {} reads of registers were stale", fresh + stale));
        row("lost", self.lost().to_string());
        for ended in &ran.ended {
            row(
                "ended",
                format!("\x1b[1;31m{} ended by itself\x1b[0m; its last words:", ended.node),
            );
            ended.last_lines.iter().for_each(|line| anstream::println!("  | {line}"));
        }
        for node in *unfounded {
            let what = "has taken a new incarnation though nobody took its disk";
            row("forgot", format!("\x1b[1;31m{node} {what}\x1b[0m"));
        }
        let (history, settled) = (&ground.history, Some(*settled));
        Judged { history, settled, verdict, window: *window }.table();
        anstream::println!("\nthe history is in {}", history.display());
        if self.exit().is_some() {
            anstream::println!("the seed was {}", ground.seed);
        }
    }

    fn lost(&self) -> u64 {
        self.verdict.broken.get(&Promise::NothingLost).copied().unwrap_or(0)
    }
}

fn or_none(parts: impl Iterator<Item = String>) -> String {
    let parts: Vec<String> = parts.collect();
    if parts.is_empty() { "none".into() } else { parts.join(", ") }
}
