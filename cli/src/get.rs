//! `atoll get`: all current values of a key.

use std::io::Write as _;

use atoll_client::{ReadReply, Reading, Repair};
use clap::{
    Args as ClapArgs,
    builder::{PossibleValuesParser, TypedValueParser},
};

use crate::{
    caller::Caller,
    exit::{Exit, Failed},
    output::Format,
    reading,
    receipt::{self, Asked},
    request::Choices,
};

/// Read all current values of a key.
///
/// More than one value means that they were written without knowledge of each other (siblings). A put replaces all that
/// were read.
#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  atoll get cart:7
  atoll get cart:7 -r 1 --via n3        one answer, from n3: fast, and perhaps stale
  atoll get cart:7 --strict             two owners, and no fallback: sees every write that two owners have
  atoll get photo --raw > photo.jpg     exactly the bytes; exits 8 if there are siblings")]
pub struct Args {
    /// The key
    key: String,

    /// Write the value's bytes and nothing else; exits 8 if there is more than one value
    #[arg(long)]
    raw: bool,

    /// Exit 8 if there is more than one value
    #[arg(long)]
    no_siblings: bool,

    /// What happens to owners that are behind: async repairs them after the answer, blocking before it, so that no later
    /// quorum read sees less, none leaves them [default: the bucket's, else async]
    #[arg(long, value_name = "MODE", value_parser = repairs())]
    repair: Option<Repair>,

    #[command(flatten)]
    choices: Choices,
}

/// The repair modes, by their words.
pub fn repairs() -> impl TypedValueParser<Value = Repair> {
    PossibleValuesParser::new(Repair::ALL.map(Repair::word)).map(|word| {
        let mode = Repair::ALL.into_iter().find(|mode| mode.word() == word);
        mode.expect("the parser lets no other word through")
    })
}

/// Runs the command.
pub async fn run(args: Args, cluster: Option<&str>, format: Format) -> Result<(), Failed> {
    let mut caller = Caller::connect(&args.choices, cluster).await?;
    caller.options.repair = args.repair;
    let read = caller.read(&args.key).await;
    caller.close().await;
    let read = read?;
    let telling = caller.telling(format);
    if !args.raw && !args.no_siblings {
        return reading::show("atoll.get/v1", &args.key, &read, &telling);
    }
    let several = match &read.reading {
        Reading::Register(siblings) => siblings.len(),
        _ => 1,
    };
    if several > 1 {
        let what = format!("`{}` has {several} values, and one was asked for", args.key);
        return Err(Failed::new(Exit::Conflict, what).mend(format!("atoll siblings {}", args.key)));
    }
    match args.raw {
        true => raw(&args.key, read),
        false => reading::show("atoll.get/v1", &args.key, &read, &telling),
    }
}

fn raw(key: &str, read: ReadReply) -> Result<(), Failed> {
    let read = read.into_values().map_err(|error| receipt::failure(Asked::Read, &error))?;
    let Some(value) = read.values.first() else {
        return Err(Failed::new(Exit::NotFound, format!("`{key}` has no value")));
    };
    std::io::stdout()
        .write_all(&value.bytes)
        .map_err(|error| Failed::new(Exit::Other, format!("cannot write: {error}")))
}
