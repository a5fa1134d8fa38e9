//! Values that merge: what users do with each kind beside put, get and del.
//!
//! | command | kind | concurrent changes |
//! |---|---|---|
//! | `counter` | counter | add up, each once |
//! | `set` | set | an add wins over a remove that had not seen it |
//! | `flag` | flag | on wins over an off that had not seen it |
//! | `max` | max | the greatest number stays |
//! | `map` | map | each field as its kind says |
//!
//! `atoll get` reads every kind; `atoll del` deletes every kind but `max`.

use atoll_client::{Kind, Operation, WriteReply};
use clap::{Args, Subcommand};

use crate::{caller::Caller, exit::Failed, output::Format, put, reading, request::Choices};

pub mod map;

/// What can be done with a counter.
#[derive(Subcommand)]
#[command(after_help = "\
Examples:
  atoll bucket create visits --kind counter
  atoll counter incr home --bucket visits
  atoll counter incr home 5 --bucket visits --session mine   counts in a session of your own
  atoll counter get home --bucket visits -r 1

An increment counts once, however often it is sent. One that ended `unknown` becomes certain with your next one: do not
repeat it.")]
pub enum CounterCommand {
    /// Add to a counter
    Incr(ByArgs),
    /// Subtract from a counter
    Decr(ByArgs),
    /// Read a counter
    Get(KeyArgs),
}

/// What can be done with a set.
#[derive(Subcommand)]
#[command(after_help = "\
Examples:
  atoll bucket create tags --kind set
  atoll set add photo:7 sea sunset --bucket tags
  atoll set rem photo:7 sunset --bucket tags     reads first, strictly, and removes what it saw
  atoll set has photo:7 sea --bucket tags        exits 3 if it has not
  atoll set members photo:7 --bucket tags")]
pub enum SetCommand {
    /// Add elements
    Add(ElementsArgs),
    /// Remove elements, as far as they are seen: one that is added meanwhile stays
    Rem(ElementsArgs),
    /// Whether an element is in the set; exits 3 if not
    Has(HasArgs),
    /// All elements
    Members(KeyArgs),
}

/// What can be done with a flag.
#[derive(Subcommand)]
#[command(after_help = "\
Examples:
  atoll bucket create switches --kind flag
  atoll flag on dark-mode --bucket switches
  atoll flag get dark-mode --bucket switches")]
pub enum FlagCommand {
    /// Switch it on
    On(KeyArgs),
    /// Switch it off, as far as it is seen: somebody who switches it on meanwhile wins
    Off(KeyArgs),
    /// Read it
    Get(KeyArgs),
}

/// What can be done with a maximum.
#[derive(Subcommand)]
#[command(after_help = "\
Examples:
  atoll bucket create highscores --kind max
  atoll max put ann 4200 --bucket highscores
  atoll max get ann --bucket highscores")]
pub enum MaxCommand {
    /// Offer a number: it stays if it is the greatest
    Put(NumberArgs),
    /// Read it
    Get(KeyArgs),
}

/// A key.
#[derive(Args)]
pub struct KeyArgs {
    /// The key
    key: String,
    #[command(flatten)]
    choices: Choices,
}

/// A key and how much.
#[derive(Args)]
pub struct ByArgs {
    /// The key
    key: String,
    /// How much
    #[arg(default_value_t = 1, value_parser = clap::value_parser!(i64).range(0..))]
    by: i64,
    #[command(flatten)]
    choices: Choices,
}

/// A key and a number.
#[derive(Args)]
pub struct NumberArgs {
    /// The key
    key: String,
    /// The number, of 64 bits
    #[arg(allow_negative_numbers = true)]
    number: i64,
    #[command(flatten)]
    choices: Choices,
}

/// A key and elements of its set.
#[derive(Args)]
pub struct ElementsArgs {
    /// The key
    key: String,
    /// The elements
    #[arg(required = true)]
    elements: Vec<String>,
    #[command(flatten)]
    choices: Choices,
}

/// A key and an element.
#[derive(Args)]
pub struct HasArgs {
    /// The key
    key: String,
    /// The element
    element: String,
    #[command(flatten)]
    choices: Choices,
}

/// Runs `atoll counter`.
pub async fn counter(
    command: CounterCommand,
    cluster: Option<&str>,
    format: Format,
) -> Result<(), Failed> {
    let once = |by| Operation::Increment(atoll_client::Increment::Once(by));
    match command {
        CounterCommand::Incr(ByArgs { key, by, choices }) => {
            change(&key, once(by), "counted", &choices, cluster, format).await
        }
        CounterCommand::Decr(ByArgs { key, by, choices }) => {
            change(&key, once(-by), "counted", &choices, cluster, format).await
        }
        CounterCommand::Get(args) => read(args, Kind::Counter, cluster, format).await,
    }
}

/// Runs `atoll set`.
pub async fn set(command: SetCommand, cluster: Option<&str>, format: Format) -> Result<(), Failed> {
    let bytes = |elements: Vec<String>| elements.into_iter().map(Into::into).collect();
    match command {
        SetCommand::Add(ElementsArgs { key, elements, choices }) => {
            change(&key, Operation::Add(bytes(elements)), "added to", &choices, cluster, format)
                .await
        }
        SetCommand::Rem(ElementsArgs { key, elements, choices }) => {
            let remove = Operation::Remove(bytes(elements));
            change(&key, remove, "removed from", &choices, cluster, format).await
        }
        SetCommand::Has(args) => has(args, cluster).await,
        SetCommand::Members(args) => read(args, Kind::Set, cluster, format).await,
    }
}

/// Runs `atoll flag`.
pub async fn flag(
    command: FlagCommand,
    cluster: Option<&str>,
    format: Format,
) -> Result<(), Failed> {
    match command {
        FlagCommand::On(KeyArgs { key, choices }) => {
            change(&key, Operation::Enable, "switched on", &choices, cluster, format).await
        }
        FlagCommand::Off(KeyArgs { key, choices }) => {
            change(&key, Operation::Disable, "switched off", &choices, cluster, format).await
        }
        FlagCommand::Get(args) => read(args, Kind::Flag, cluster, format).await,
    }
}

/// Runs `atoll max`.
pub async fn max(command: MaxCommand, cluster: Option<&str>, format: Format) -> Result<(), Failed> {
    match command {
        MaxCommand::Put(NumberArgs { key, number, choices }) => {
            change(&key, Operation::Raise(number), "offered to", &choices, cluster, format).await
        }
        MaxCommand::Get(args) => read(args, Kind::Max, cluster, format).await,
    }
}

async fn change(
    key: &str,
    operation: Operation,
    deed: &str,
    choices: &Choices,
    cluster: Option<&str>,
    format: Format,
) -> Result<(), Failed> {
    let caller = Caller::connect(choices, cluster).await?;
    let changed: Result<WriteReply, Failed> = caller.change(key, &operation, None).await;
    caller.close().await;
    put::show("atoll.change/v1", deed, key, &changed?, &caller.telling(format));
    Ok(())
}

async fn read(
    args: KeyArgs,
    kind: Kind,
    cluster: Option<&str>,
    format: Format,
) -> Result<(), Failed> {
    let caller = Caller::connect(&args.choices, cluster).await?;
    let read = caller.read(&args.key).await;
    caller.close().await;
    let read = read?;
    reading::expect(kind, &read)?;
    reading::show("atoll.get/v1", &args.key, &read, &caller.telling(format))
}

/// Says yes or no, and ends with 0 or 3.
async fn has(args: HasArgs, cluster: Option<&str>) -> Result<(), Failed> {
    let caller = Caller::connect(&args.choices, cluster).await?;
    let read = caller.read(&args.key).await;
    caller.close().await;
    let read = read?;
    reading::expect(Kind::Set, &read)?;
    let atoll_client::Reading::Set(elements) = &read.reading else {
        unreachable!("a set was expected")
    };
    let has = elements.iter().any(|element| element == args.element.as_bytes());
    anstream::println!("{}", if has { "yes" } else { "no" });
    match has {
        true => Ok(()),
        false => Err(Failed::silent(crate::exit::Exit::NotFound)),
    }
}
