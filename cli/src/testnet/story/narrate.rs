//! How a story sounds: for people line by line as it happens, for programs one document at its end.

use std::{
    collections::BTreeMap,
    io::IsTerminal as _,
    time::{Duration, Instant},
};

use atoll_testnet::story::{Ending, Heard, Length, Line, Step, Story, Values};
use serde::Serialize;

use super::stage::{Leave, Stage};
use crate::{output::Format, testnet::say::ms};

/// Tells what happens and remembers it.
pub struct Narrator {
    format: Format,
    began: Instant,
    chapter: usize,
    document: Document,
    width: usize,
}

/// A story as a document.
#[derive(Debug, Serialize)]
pub struct Document {
    schema: &'static str,
    story: String,
    title: String,
    short: bool,
    testnet: String,
    /// `as told`, `otherwise`, `a promise was broken` or `interrupted`.
    ended: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    took_ms: u64,
    steps: Vec<Moment>,
}

/// A step of it.
#[derive(Debug, Default, Serialize)]
struct Moment {
    #[serde(skip_serializing_if = "Option::is_none")]
    say: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    load: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    times: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit: Option<i32>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    taken: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shows: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    held: Option<bool>,
    /// Only of a step from which something else came.
    #[serde(skip_serializing_if = "Option::is_none")]
    printed: Option<String>,
}

impl Narrator {
    /// Says what comes.
    pub fn begin(story: &Story, length: Length, format: Format) -> Narrator {
        let document = Document {
            schema: "atoll.story/v1",
            story: story.name.clone(),
            title: story.title.clone(),
            short: length == Length::Short,
            testnet: String::new(),
            ended: Ending::Interrupted.word(),
            why: None,
            took_ms: 0,
            steps: Vec::new(),
        };
        let narrator =
            Narrator { format, began: Instant::now(), chapter: 0, document, width: width() };
        if narrator.speaks() {
            anstream::println!("\x1b[1m{}\x1b[0m: {}\n", story.name, story.title);
            narrator.paragraph("", "", &story.about);
        }
        narrator
    }

    /// The stage is set.
    pub fn stage(&mut self, stage: &Stage) {
        self.document.testnet = stage.name().to_owned();
        if !self.speaks() {
            return;
        }
        let (name, nodes) = (stage.name(), stage.nodes());
        let made = match stage.is_own() {
            true => format!("{nodes} nodes, ready after {}", ms(self.began.elapsed())),
            false => format!("{nodes} nodes, lent"),
        };
        anstream::println!(
            "\n\x1b[2mtestnet {name}: {made}; all that follows can be typed in another terminal, too\x1b[0m"
        );
    }

    /// A step begins with words.
    pub fn say(&mut self, text: &str) {
        self.chapter += 1;
        self.document.steps.push(Moment { say: Some(text.trim().to_owned()), ..Moment::default() });
        if self.speaks() {
            anstream::println!();
            self.paragraph(&format!("\x1b[1m{:<2}\x1b[0m ", self.chapter), INDENT, text);
        }
    }

    /// A command is about to be run, or to be started as a load.
    pub fn command(&mut self, words: &[String], load: Option<&str>) {
        let typed = Line::typed(words);
        if self.speaks() {
            let after = load.map(|name| format!("   \x1b[2m# goes on as: {name}\x1b[0m"));
            let sign = if load.is_some() { " &" } else { "" };
            anstream::println!(
                "{INDENT}\x1b[1;36m$\x1b[0m {typed}{sign}{}",
                after.unwrap_or_default()
            );
        }
        let load = load.map(str::to_owned);
        self.moment(|moment| Moment { command: Some(typed), load, ..moment });
    }

    /// A load is about to end.
    pub fn ends(&mut self, name: &str, pressed: bool) {
        if self.speaks() {
            let how = if pressed { "Ctrl-C for" } else { "waiting for" };
            anstream::println!("{INDENT}\x1b[2m{how} {name}\x1b[0m");
        }
        self.moment(|moment| Moment { load: Some(name.to_owned()), ..moment });
    }

    /// A command was run so often, until it was as expected or time was over.
    pub fn repeated(&mut self, times: u32, took: Duration) {
        if self.speaks() && times > 1 {
            anstream::println!("{INDENT}\x1b[2m{times} times, for {}\x1b[0m", ms(took));
        }
        self.last(|moment| moment.times = Some(times));
    }

    /// What a command has printed: all of it, or the lines with one of these words in them.
    pub fn output(&mut self, heard: &Heard, show: Option<&[String]>) {
        self.last(|moment| moment.exit = heard.code);
        if !self.speaks() {
            return;
        }
        let shown = |line: &&str| match show {
            None => !line.trim().is_empty(),
            Some(words) => words.iter().any(|word| line.contains(word.as_str())),
        };
        let stdout = heard.stdout.lines().filter(shown).map(|line| (line, false));
        let stderr = heard.stderr.lines().filter(shown).map(|line| (line, true));
        let lines: Vec<(&str, bool)> = stdout.chain(stderr).collect();
        for (line, beside) in lines.iter().take(LINES_MAX) {
            let line = line.trim_end();
            match beside {
                true => anstream::println!("{INDENT}  \x1b[2m{line}\x1b[0m"),
                false => anstream::println!("{INDENT}  {line}"),
            }
        }
        if let Some(more) = lines.len().checked_sub(LINES_MAX).filter(|more| *more > 0) {
            anstream::println!("{INDENT}  \x1b[2m… and {more} lines more\x1b[0m");
        }
    }

    /// Values have names now.
    pub fn taken(&mut self, taken: &[(&str, String)]) {
        if taken.is_empty() {
            return;
        }
        if self.speaks() {
            let each = taken.iter().map(|(name, value)| format!("{name} \x1b[1m{value}\x1b[0m"));
            anstream::println!("{INDENT}  {}", each.collect::<Vec<_>>().join(", "));
        }
        self.last(|moment| {
            moment.taken =
                taken.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        });
    }

    /// What came is what was expected.
    pub fn held(&mut self, step: &Step, values: &Values) {
        let Some(shows) = filled(step.shows.as_deref(), values) else { return };
        match self.format {
            Format::Table => {
                self.paragraph(
                    &format!("{INDENT}\x1b[1;32m✓\x1b[0m "),
                    &format!("{INDENT}  "),
                    &shows,
                );
            }
            Format::Plain => anstream::println!("held\t{shows}"),
            Format::Json => {}
        }
        self.last(|moment| (moment.shows, moment.held) = (Some(shows), Some(true)));
    }

    /// Something else came.
    pub fn missed(&mut self, step: &Step, why: &str, heard: &Heard, values: &Values) {
        let shows = filled(step.shows.as_deref(), values);
        let what = shows.clone().unwrap_or_else(|| format!("the step at {}", step.place));
        match self.format {
            Format::Table => {
                let text = format!("not so: {what}");
                self.paragraph(
                    &format!("{INDENT}\x1b[1;31m✗\x1b[0m "),
                    &format!("{INDENT}  "),
                    &text,
                );
                self.paragraph(&format!("{INDENT}  "), &format!("{INDENT}  "), why);
            }
            Format::Plain => anstream::println!("missed\t{what}\t{why}"),
            Format::Json => {}
        }
        self.last(|moment| {
            (moment.shows, moment.held) = (shows, Some(false));
            moment.printed = Some(format!("{}{}", heard.stdout, heard.stderr));
        });
    }

    /// What to look at in what was printed.
    pub fn look(&mut self, step: &Step, values: &Values) {
        if let Some(look) = filled(step.look.as_deref(), values)
            && self.speaks()
        {
            self.paragraph(
                &format!("{INDENT}\x1b[33mlook:\x1b[0m "),
                &format!("{INDENT}      "),
                &look,
            );
        }
    }

    /// The next step waits for the listener.
    pub fn offer_enter(&self) {
        if self.speaks() {
            anstream::println!("\n\x1b[2m   Enter goes on\x1b[0m");
        }
    }

    /// Whether the story has begun.
    pub fn has_said_something(&self) -> bool {
        self.chapter > 0
    }

    /// The verdict, and what is left.
    pub fn end(mut self, ending: &Ending, stage: &Stage, leave: Leave) -> Document {
        let (name, took) = (&self.document.story, self.began.elapsed());
        let held = self.document.steps.iter().filter(|moment| moment.held == Some(true)).count();
        match (self.format, ending) {
            (Format::Table, Ending::AsTold) => anstream::println!(
                "\n\x1b[1;32m{name} ended as it says\x1b[0m: {held} of {held} shown, {:.1} s",
                took.as_secs_f64()
            ),
            (Format::Table, Ending::Otherwise { step, promise_broken, .. }) => {
                let worst = if *promise_broken { ": a promise was broken" } else { "" };
                anstream::println!(
                    "\n\x1b[1;31m{name} did not end as it says\x1b[0m{worst} (step {step})"
                );
            }
            (Format::Table, Ending::Interrupted) => {
                anstream::println!(
                    "\n\x1b[1m{name} was interrupted\x1b[0m; ending what it started"
                );
            }
            (Format::Plain, ending) => anstream::println!("ended\t{}", ending.word()),
            (Format::Json, _) => {}
        }
        if self.speaks() {
            match leave {
                Leave::Nothing => {}
                Leave::Files => {
                    anstream::println!(
                        "what its commands wrote and printed: {}",
                        stage.folder().display()
                    );
                    if stage.is_own() {
                        anstream::println!(
                            "its nodes are stopped, their logs are kept: atoll testnet logs --name {0}\nto be rid of it: atoll testnet down {0}",
                            stage.name()
                        );
                    }
                }
                Leave::Everything if stage.is_own() => {
                    anstream::println!(
                        "its testnet runs on; to be rid of it: atoll testnet down {}",
                        stage.name()
                    );
                }
                Leave::Everything => {}
            }
        }
        self.document.ended = ending.word();
        self.document.why = match ending {
            Ending::Otherwise { why, .. } => Some(why.clone()),
            Ending::AsTold | Ending::Interrupted => None,
        };
        self.document.took_ms = took.as_millis() as u64;
        self.document
    }

    fn speaks(&self) -> bool {
        self.format == Format::Table
    }

    /// Words in lines that fit, the first after `first`, the others after `others`.
    fn paragraph(&self, first: &str, others: &str, text: &str) {
        for (index, line) in wrapped(text, self.width).iter().enumerate() {
            let before = if index == 0 { first } else { others };
            anstream::println!("{before}{line}");
        }
    }

    /// The step that a deed belongs to: the one whose words were just said, else one of its own.
    fn moment(&mut self, change: impl FnOnce(Moment) -> Moment) {
        let fresh = |moment: &Moment| moment.command.is_none() && moment.load.is_none();
        let moment = match self.document.steps.last() {
            Some(last) if fresh(last) => self.document.steps.pop().unwrap_or_default(),
            Some(_) | None => Moment::default(),
        };
        self.document.steps.push(change(moment));
    }

    fn last(&mut self, change: impl FnOnce(&mut Moment)) {
        if let Some(moment) = self.document.steps.last_mut() {
            change(moment);
        }
    }
}

fn filled(text: Option<&str>, values: &Values) -> Option<String> {
    text.map(|text| values.fill(text).unwrap_or_else(|_| text.to_owned()))
}

/// A text as lines of at most so many characters; an empty line in it stays one.
pub fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for paragraph in text.trim().split("\n\n") {
        if !lines.is_empty() {
            lines.push(String::new());
        }
        let mut line = String::new();
        for word in paragraph.split_whitespace() {
            if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
                lines.push(std::mem::take(&mut line));
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        lines.push(line);
    }
    lines
}

/// As wide as people read with ease; a narrower terminal says so itself.
fn width() -> usize {
    let columns = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    match columns {
        Some(columns) if std::io::stdout().is_terminal() => WIDTH.min(columns).max(40),
        Some(_) | None => WIDTH,
    }
}

const WIDTH: usize = 92;

/// Below the number of a step.
const INDENT: &str = "   ";

/// Of what one command has printed.
const LINES_MAX: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_fit() {
        let text = "one two\nthree  four\n\nfive sixsixsixsix";
        assert_eq!(wrapped(text, 9), ["one two", "three", "four", "", "five", "sixsixsixsix"]);
        assert_eq!(wrapped("", 9), [""]);
    }
}
