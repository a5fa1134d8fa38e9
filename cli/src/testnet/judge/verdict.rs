//! A verdict, printed.

use std::path::Path;

use atoll_check::{Verdict, Window};
use atoll_testnet::Settled;
use serde::Serialize;

use crate::output::{self, Format};

/// A history that was judged.
pub struct Judged<'a> {
    /// Where it lies.
    pub history: &'a Path,
    /// How it ended, if that was looked at now.
    pub settled: Option<&'a Settled>,
    /// What the judges say.
    pub verdict: &'a Verdict,
    /// What happened around the first violation.
    pub window: Option<&'a Window>,
}

/// What happened around a violation.
#[derive(Serialize)]
pub struct WindowDocument<'a> {
    about: &'a str,
    operations: &'a [String],
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    history: &'a Path,
    clean: bool,
    /// How long the cluster took; absent offline.
    #[serde(skip_serializing_if = "Option::is_none")]
    settled_after_ms: Option<u64>,
    /// What was still to be waited for when time was over.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_settled: Option<&'a str>,
    #[serde(flatten)]
    verdict: &'a Verdict,
    violations_not_shown: u64,
    /// The operations around the first violation.
    #[serde(skip_serializing_if = "Option::is_none")]
    window: Option<WindowDocument<'a>>,
}

impl<'a> WindowDocument<'a> {
    /// The same, to be written.
    pub fn of(window: &'a Window) -> Self {
        WindowDocument { about: &window.about, operations: &window.lines }
    }
}

impl Judged<'_> {
    /// On stdout.
    pub fn print(&self, format: Format) {
        let Judged { history, settled, verdict, window } = self;
        match format {
            Format::Json => output::json(&Document {
                schema: "atoll.verdict/v1",
                history,
                clean: verdict.is_clean(),
                settled_after_ms: settled.map(|settled| settled.after.as_millis() as u64),
                not_settled: settled.and_then(|settled| settled.not_yet.as_deref()),
                verdict,
                violations_not_shown: verdict.not_shown(),
                window: window.map(WindowDocument::of),
            }),
            Format::Plain => {
                for violation in &verdict.violations {
                    anstream::println!("{violation}");
                }
            }
            Format::Table => self.table(),
        }
    }

    /// For people.
    pub fn table(&self) {
        let Judged { settled, verdict, window, .. } = self;
        counts(verdict, *settled);
        if verdict.is_clean() {
            row("verdict", "every promise was kept".into());
            return;
        }
        let total: u64 = verdict.broken.values().sum();
        row("verdict", format!("\x1b[1;31m{total} violations\x1b[0m"));
        violations(verdict);
        if let Some(window) = window {
            anstream::println!("\nthe first of them: {window}");
        }
    }
}

fn counts(verdict: &Verdict, settled: Option<&Settled>) {
    let figures = &verdict.figures;
    let mut counts = format!(
        "{} operations on {} keys: {} writes acknowledged, {} reads answered",
        figures.operations, figures.keys, figures.acknowledged, figures.reads
    );
    for (count, words) in [
        (figures.not_applied, "not applied"),
        (figures.applied, "applied on some"),
        (figures.unknown, "unknown"),
        (figures.silent, "never answered"),
        (figures.exempt, "excused"),
    ] {
        if count > 0 {
            counts += &format!(", {count} {words}");
        }
    }
    row("history", counts);
    if !verdict.faults.is_empty() {
        let faults = verdict.faults.iter().map(|(kind, count)| format!("{count} {kind}"));
        row("faults", faults.collect::<Vec<_>>().join(", "));
    }
    row("promised", format!("{} reads had to see something", figures.promised_reads));
    match settled {
        Some(Settled { not_yet: Some(reason), .. }) => row("end", format!("not settled: {reason}")),
        Some(settled) => {
            let after = settled.after.as_secs_f64();
            row("end", format!("settled after {after:.1} s, {} records compared", figures.held));
        }
        None if verdict.is_settled => row("end", format!("{} records compared", figures.held)),
        None => row("end", "none: what was lost, and whether all agree, cannot be said".into()),
    }
}

fn violations(verdict: &Verdict) {
    for (promise, times) in &verdict.broken {
        anstream::println!("\n{promise}: broken {times} times");
        let of_it = verdict.violations.iter().filter(|violation| violation.promise == *promise);
        for violation in of_it.take(SHOWN_MAX) {
            let text = violation.to_string();
            let text = text.strip_prefix(&format!("{promise}: ")).unwrap_or(&text);
            anstream::println!("  {text}");
        }
        if *times > SHOWN_MAX as u64 {
            anstream::println!(
                "  and {} more; -o json shows up to {}",
                times - SHOWN_MAX as u64,
                Verdict::SHOWN_MAX
            );
        }
    }
}

/// One line of a table of facts.
pub fn row(name: &str, text: String) {
    anstream::println!("{name:<11}{text}");
}

/// Of each promise, in a table.
const SHOWN_MAX: usize = 10;
