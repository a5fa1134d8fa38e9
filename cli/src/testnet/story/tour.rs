//! `atoll testnet tour`: four stories for somebody who has just come, one after the other.

use atoll_testnet::{
    Home,
    story::{Ending, TOUR},
};
use clap::Args;
use serde::Serialize;

use super::{
    How, find,
    narrate::{Document, wrapped},
    tell, verdict,
};
use crate::{
    exit::Failed,
    output::{self, Format},
};

/// How it is told.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  atoll testnet tour                 under three minutes; nothing stays behind
  atoll testnet tour --step          at your own pace: waits for Enter before each step

Exit codes are those of `atoll testnet story`.")]
pub struct TourArgs {
    #[command(flatten)]
    how: How,
}

#[derive(Serialize)]
struct Tour {
    schema: &'static str,
    ended: &'static str,
    stories: Vec<Document>,
}

/// Runs the command.
pub async fn run(home: &Home, args: TourArgs, format: Format) -> Result<(), Failed> {
    let how = args.how;
    how.check()?;
    if format == Format::Table {
        for line in wrapped(WELCOME, 92) {
            anstream::println!("{line}");
        }
    }
    let mut stories = Vec::new();
    let mut last = Ending::AsTold;
    for (index, name) in TOUR.iter().enumerate() {
        if format == Format::Table {
            anstream::println!("\n\x1b[1m{} of {}\x1b[0m  ", index + 1, TOUR.len());
        }
        let story = find(name)?;
        let (ending, document) = tell(home, &story, how, None, false, format).await?;
        stories.push(document);
        last = ending;
        if last != Ending::AsTold {
            break;
        }
    }
    match format {
        Format::Json => {
            output::json(&Tour { schema: "atoll.tour/v1", ended: last.word(), stories });
        }
        Format::Table if last == Ending::AsTold => anstream::println!("\n{FAREWELL}"),
        Format::Table | Format::Plain => {}
    }
    verdict(&last)
}

const WELCOME: &str = "\
Welcome to Atoll. A key is kept by three nodes, its owners; each request says how many of them must answer. You will see what \
that costs and what it buys, on real nodes on this machine, while we break them. Every line that begins with $ is a command \
that you could type yourself. Ctrl-C ends the tour and leaves nothing behind.";

const FAREWELL: &str = "\
That was the tour. From here:
  atoll testnet story ls       more stories: partitions, lost zones, wiped disks, clocks that jump
  atoll testnet up             a testnet of your own to break
  atoll explain cart -r 1      what a request would do, and what it would stand for";
