//! `atoll testnet story` and `atoll testnet tour`: what Atoll does when something breaks, told on real nodes.
//!
//! The story itself (its file, its mistakes, its expectations) is `atoll_testnet::story`. Here it is told: [`stage`] is the
//! testnet it plays on, [`children`] the commands it runs, [`mod@tell`] its steps in order, [`narrate`] how it sounds, [`mod@line`] whether its
//! commands exist at all.

use std::{
    io::IsTerminal as _,
    path::{Path, PathBuf},
};

use atoll_testnet::{
    Home,
    story::{Ending, Length, Mistake, SHIPPED, Story, shipped},
};
use atoll_transport::small_file;
use clap::{Args, Subcommand};
use serde::Serialize;

use super::up::Interrupt;
use crate::{
    exit::{Exit, Failed},
    output::{self, Format},
};

mod children;
mod line;
mod narrate;
mod stage;
mod tell;
pub mod tour;

use narrate::{Document, Narrator};
use stage::{Leave, Stage};
use tell::Telling;

/// Which story, and where.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(after_help = "\
Examples:
  atoll testnet story ls                       what there is
  atoll testnet story sloppy-quorum            tells it, on a testnet of its own that is gone afterwards
  atoll testnet story sloppy-quorum --step     and waits for Enter before each step
  atoll testnet story sloppy-quorum --keep     and leaves its testnet running, to look around
  atoll testnet story show sloppy-quorum       its file; copy it and tell your own
  atoll testnet story mine.toml --on dev       on a testnet that runs; all its nodes run afterwards

A story is a list of commands, of which each could be typed, and of what must come of them. It ends with
a verdict. Ctrl-C ends what it started and mends what it broke.

Exit codes: 0 it ended as it says, 1 it did not, 2 refused (also a file that is no story), 11 a promise
was broken, 130 interrupted.")]
pub struct StoryArgs {
    #[command(subcommand)]
    command: Option<StoryCommand>,

    /// One of those that `story ls` shows, or a file
    #[arg(value_name = "NAME|FILE.toml", required = true)]
    name: Option<String>,

    #[command(flatten)]
    how: How,

    /// On this testnet, instead of one of its own. Data stays there
    #[arg(long, value_name = "NAME", conflicts_with = "base_port")]
    on: Option<String>,

    /// Leave its testnet running
    #[arg(long, conflicts_with = "on")]
    keep: bool,
}

/// How it is told.
#[derive(Args, Clone, Copy, Debug)]
struct How {
    /// Only what a machine needs in order to check it
    #[arg(long)]
    short: bool,

    /// Wait for Enter before each step
    #[arg(long)]
    step: bool,

    /// Where the first free block of UDP ports is searched from [default: 7401]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    base_port: Option<u16>,
}

#[derive(Debug, Subcommand)]
enum StoryCommand {
    /// The stories that come with the program
    Ls,
    /// Print the file of a story
    Show {
        /// Its name
        name: String,
    },
}

#[derive(Serialize)]
struct List {
    schema: &'static str,
    stories: Vec<Entry>,
}

#[derive(Serialize)]
struct Entry {
    name: String,
    title: String,
    nodes: u32,
    zones: u32,
    allows_faults: bool,
}

#[derive(Serialize)]
struct Shown<'a> {
    schema: &'static str,
    name: &'a str,
    file: &'a str,
}

/// Runs the command.
pub async fn run(home: &Home, args: StoryArgs, format: Format) -> Result<(), Failed> {
    let StoryArgs { command, name, how, on, keep } = args;
    match (command, name) {
        (Some(StoryCommand::Ls), _) => ls(format),
        (Some(StoryCommand::Show { name }), _) => return show(&name, format),
        (None, None) => return Err(unknown("")),
        (None, Some(name)) => {
            let story = find(&name)?;
            how.check()?;
            let (ending, document) = tell(home, &story, how, on.as_deref(), keep, format).await?;
            if format == Format::Json {
                output::json(&document);
            }
            return verdict(&ending);
        }
    }
    Ok(())
}

/// Tells a story from its first word to the last trace of it.
async fn tell(
    home: &Home,
    story: &Story,
    how: How,
    on: Option<&str>,
    keep: bool,
    format: Format,
) -> Result<(Ending, Document), Failed> {
    // all from the beginning: between them no Ctrl-C gets lost
    let (during_start, during_story) = (Interrupt::expect()?, Interrupt::expect()?);
    let length = if how.short { Length::Short } else { Length::Long };
    let mut narrator = Narrator::begin(story, length, format);
    let stage = Stage::set(home, story, on, how.base_port, during_start).await?;
    narrator.stage(&stage);
    let mut telling = Telling::new(story, length, &stage, how.step, &mut narrator);
    let ending = tokio::select! { biased;
        () = during_story.comes() => Ok(Ending::Interrupted),
        ending = telling.tell() => ending,
    };
    telling.children.end_all().await;
    let leave = match &ending {
        Ok(Ending::Interrupted) => Leave::Nothing,
        _ if keep => Leave::Everything,
        Ok(Ending::AsTold) => Leave::Nothing,
        Ok(Ending::Otherwise { .. }) | Err(_) => Leave::Files,
    };
    match ending {
        Ok(ending) => {
            let document = narrator.end(&ending, &stage, leave);
            stage.strike(leave).await?;
            Ok((ending, document))
        }
        Err(failed) => {
            stage.strike(leave).await?;
            Err(failed)
        }
    }
}

/// How the program ends after a story.
fn verdict(ending: &Ending) -> Result<(), Failed> {
    match ending {
        Ending::AsTold => Ok(()),
        Ending::Otherwise { promise_broken: true, .. } => Err(Failed::silent(Exit::Violated)),
        Ending::Otherwise { promise_broken: false, .. } => Err(Failed::silent(Exit::Other)),
        Ending::Interrupted => Err(Failed::silent(Exit::Interrupted)),
    }
}

fn find(name: &str) -> Result<Story, Failed> {
    let path = Path::new(name);
    let (name, place, file) = if name.contains('/') || name.ends_with(".toml") {
        let read = small_file::read_text(path, small_file::SETTINGS_BYTES_MAX);
        let file = read
            .map_err(|error| Failed::new(Exit::Refused, format!("cannot read {name}: {error}")))?;
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        (as_name(&stem.unwrap_or_default()), path.to_owned(), file)
    } else {
        let file = shipped(name).ok_or_else(|| unknown(name))?;
        (name.to_owned(), PathBuf::from(format!("{name}.toml")), file.to_owned())
    };
    let refused = |mistake: Mistake| {
        Failed::new(Exit::Refused, format!("{}, {mistake}", place.display()))
            .mend("a story to copy from: atoll testnet story show sloppy-quorum")
    };
    let story = Story::parse(&name, &file).map_err(refused)?;
    line::check(&story).map_err(refused)?;
    Ok(story)
}

/// What a file is called, as a part of a testnet's name.
fn as_name(stem: &str) -> String {
    let good = |letter: char| letter.is_ascii_alphanumeric() || letter == '-' || letter == '_';
    stem.chars().take(40).map(|letter| if good(letter) { letter } else { '-' }).collect()
}

fn unknown(name: &str) -> Failed {
    let names: Vec<&str> = SHIPPED.iter().map(|(name, _)| *name).collect();
    let what = format!("no story is called {name:?}; there are: {}", names.join(", "));
    Failed::new(Exit::Refused, what).mend("atoll testnet story ls; or a file: FILE.toml")
}

fn ls(format: Format) {
    let stories: Vec<Entry> = SHIPPED
        .iter()
        .map(|(name, file)| {
            let story = Story::parse(name, file).expect("a test parses all that is shipped");
            Entry {
                name: story.name,
                title: story.title,
                nodes: story.stage.nodes,
                zones: story.stage.zones,
                allows_faults: story.stage.faults,
            }
        })
        .collect();
    if format == Format::Json {
        output::json(&List { schema: "atoll.story-list/v1", stories });
        return;
    }
    let row =
        |story: &Entry| vec![story.name.clone(), story.nodes.to_string(), story.title.clone()];
    let rows: Vec<Vec<String>> = stories.iter().map(row).collect();
    output::rows(format, &["STORY", "NODES", "WHAT IT SHOWS"], &rows);
}

fn show(name: &str, format: Format) -> Result<(), Failed> {
    let file = shipped(name).ok_or_else(|| unknown(name))?;
    match format {
        Format::Json => output::json(&Shown { schema: "atoll.story-file/v1", name, file }),
        Format::Table | Format::Plain => anstream::print!("{file}"),
    }
    Ok(())
}

impl How {
    fn check(self) -> Result<(), Failed> {
        if self.step && !std::io::stdin().is_terminal() {
            let what = "--step waits for Enter, and nobody can press it: the standard input is no terminal";
            return Err(Failed::new(Exit::Refused, what).mend("leave out --step"));
        }
        Ok(())
    }
}
