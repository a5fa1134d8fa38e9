//! `atoll mget` and `atoll mput`: several keys at once, sent grouped by owner. Each key has an outcome of its own.

use std::io::BufRead as _;

use atoll_client::{KeyChange, Operation, ReadReply, Receipt, RequestError, WriteReply};
use bytes::Bytes;
use clap::Args as ClapArgs;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::{
    exit::{Exit, Failed},
    output::{self, Format},
    reading,
    receipt::{self, Asked, Telling},
    request::{Choices, connect, context_text},
};

/// Read several keys at once.
///
/// Nothing ties them together: they are not read at one moment. Exits 0 if each could be read, whether it has a value or not.
#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  atoll mget cart:7 cart:8 cart:9
  atoll mget - < keys.txt                     one key a line
  atoll mget cart:7 cart:8 -o json")]
pub struct MgetArgs {
    /// The keys; - reads them from the standard input, one a line
    #[arg(required = true)]
    keys: Vec<String>,

    #[command(flatten)]
    choices: Choices,
}

/// Store several values at once.
///
/// Reads the keys first and replaces exactly what it saw, with --blind nothing. Nothing ties them together: some may be stored
/// and others not; each says what became of it.
#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  atoll mput cart:7=apples cart:8=pears
  atoll mput - < pairs.tsv                    a key, a tab and a value a line
  atoll mput a=1 b=2 --blind")]
pub struct MputArgs {
    /// KEY=VALUE; - reads lines of key, tab and value from the standard input
    #[arg(required = true, value_name = "KEY=VALUE")]
    pairs: Vec<String>,

    /// Replace nothing: do not read first, make siblings
    #[arg(long)]
    blind: bool,

    #[command(flatten)]
    choices: Choices,
}

#[derive(Serialize)]
struct Document {
    schema: &'static str,
    keys: Vec<Outcome>,
}

#[derive(Serialize)]
struct Outcome {
    key: String,
    #[serde(flatten)]
    found: Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dot: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt: Option<receipt::Document>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Outcome {
    fn of(key: &str) -> Self {
        let (found, key) = (Map::new(), key.to_owned());
        Outcome { key, found, dot: None, context: None, receipt: None, error: None }
    }
}

/// Runs `atoll mget`.
pub async fn mget(args: MgetArgs, cluster: Option<&str>, format: Format) -> Result<(), Failed> {
    let options = args.choices.options()?;
    args.choices.without_session()?;
    let keys = words(args.keys)?;
    let client = connect(cluster).await?;
    let names: Vec<Bytes> = keys.iter().map(|key| Bytes::from(key.clone())).collect();
    let outcomes = client.read_many(&names, &options).await;
    let telling = args.choices.telling(format, &client);
    client.close().await;
    match format {
        Format::Json => output::json(&Document {
            schema: "atoll.mget/v1",
            keys: keys
                .iter()
                .zip(&outcomes)
                .map(|(key, outcome)| read_document(key, outcome))
                .collect(),
        }),
        Format::Table | Format::Plain => {
            let rows: Vec<Vec<String>> =
                keys.iter().zip(&outcomes).map(|(key, outcome)| read_row(key, outcome)).collect();
            output::rows(format, &["KEY", "VALUE"], &rows);
        }
    }
    let receipts = outcomes.iter().map(|outcome| outcome.as_ref().ok().map(|read| &read.receipt));
    tell(Asked::Read, keys.iter().zip(receipts), &telling);
    worst(Asked::Read, outcomes.iter().map(|outcome| outcome.as_ref().err()))
}

/// Runs `atoll mput`.
pub async fn mput(args: MputArgs, cluster: Option<&str>, format: Format) -> Result<(), Failed> {
    let options = args.choices.options()?;
    args.choices.without_session()?;
    let pairs = pairs(args.pairs)?;
    let client = connect(cluster).await?;
    let names: Vec<Bytes> = pairs.iter().map(|(key, _)| Bytes::from(key.clone())).collect();
    let mut contexts = Vec::new();
    if !args.blind {
        for read in client.read_many(&names, &options).await {
            match read {
                Ok(read) => contexts.push(read.context),
                Err(error) => {
                    client.close().await;
                    let failed = receipt::failure(Asked::Read, &error);
                    let what =
                        format!("nothing was stored: the read before failed: {}", failed.what);
                    return Err(Failed { what, ..failed }.mend("--blind stores without reading"));
                }
            }
        }
    }
    contexts.resize(names.len(), None);
    let change = |((key, (_, value)), context): ((&Bytes, &(String, String)), _)| KeyChange {
        key: key.clone(),
        operation: Operation::Put { value: value.clone().into(), expires_ms: None },
        context,
    };
    let changes: Vec<KeyChange> = names.iter().zip(&pairs).zip(contexts).map(change).collect();
    let outcomes = client.change_many(&changes, &options).await;
    let telling = args.choices.telling(format, &client);
    client.close().await;
    let keyed = || pairs.iter().map(|(key, _)| key).zip(&outcomes);
    match format {
        Format::Json => output::json(&Document {
            schema: "atoll.mput/v1",
            keys: keyed().map(|(key, outcome)| write_document(key, outcome)).collect(),
        }),
        Format::Table | Format::Plain => {
            let rows: Vec<Vec<String>> =
                keyed().map(|(key, outcome)| write_row(key, outcome)).collect();
            output::rows(format, &["KEY", "STORED AS"], &rows);
        }
    }
    let receipts = outcomes.iter().map(|outcome| outcome.as_ref().ok().map(|done| &done.receipt));
    tell(Asked::Write, pairs.iter().map(|(key, _)| key).zip(receipts), &telling);
    worst(Asked::Write, outcomes.iter().map(|outcome| outcome.as_ref().err()))
}

/// The receipt of each key, if more is to be said of it than whether it worked.
fn tell<'a>(
    asked: Asked,
    receipts: impl Iterator<Item = (&'a String, Option<&'a Receipt>)>,
    telling: &Telling,
) {
    for (key, receipt) in receipts {
        let Some(receipt) = receipt else { continue };
        if telling.format != Format::Json && (telling.verbose || receipt.trace.is_some()) {
            anstream::eprintln!("\x1b[2m{key}:\x1b[0m");
            receipt::print(asked, receipt, telling);
        }
    }
}

fn read_document(key: &str, outcome: &Result<ReadReply, RequestError>) -> Outcome {
    match outcome {
        Ok(read) => Outcome {
            found: reading::document(&read.reading),
            context: read.context.as_ref().map(context_text),
            receipt: Some(receipt::of_read(&read.receipt)),
            ..Outcome::of(key)
        },
        Err(error) => Outcome { error: Some(error.to_string()), ..Outcome::of(key) },
    }
}

fn write_document(key: &str, outcome: &Result<WriteReply, RequestError>) -> Outcome {
    match outcome {
        Ok(written) => Outcome {
            dot: Some(written.dot.to_string()),
            context: Some(context_text(&written.context)),
            receipt: Some(receipt::of_write(&written.receipt)),
            ..Outcome::of(key)
        },
        Err(error) => Outcome { error: Some(error.to_string()), ..Outcome::of(key) },
    }
}

fn read_row(key: &str, outcome: &Result<ReadReply, RequestError>) -> Vec<String> {
    let value = match outcome {
        Ok(read) => reading::in_a_line(&read.reading),
        Err(error) => format!("error: {error}"),
    };
    vec![key.to_owned(), value]
}

fn write_row(key: &str, outcome: &Result<WriteReply, RequestError>) -> Vec<String> {
    let stored = match outcome {
        Ok(written) => written.dot.to_string(),
        Err(error) => format!("error: {error} ({})", error.effect()),
    };
    vec![key.to_owned(), stored]
}

/// Ends with the number of the first failure; all of them have been printed.
fn worst<'a>(
    asked: Asked,
    errors: impl Iterator<Item = Option<&'a RequestError>>,
) -> Result<(), Failed> {
    let errors: Vec<Option<&RequestError>> = errors.collect();
    let failed: Vec<&RequestError> = errors.iter().copied().flatten().collect();
    let Some(first) = failed.first() else { return Ok(()) };
    let exit = receipt::failure(asked, first).exit;
    let what = format!("{} of {} keys failed; each says why", failed.len(), errors.len());
    Err(Failed::new(exit, what).mend("repeat the command with those"))
}

/// The words of the command line, or the lines of the standard input.
fn words(words: Vec<String>) -> Result<Vec<String>, Failed> {
    match words.as_slice() {
        [one] if one == "-" => lines(),
        _ => Ok(words),
    }
}

fn lines() -> Result<Vec<String>, Failed> {
    let lines = std::io::stdin().lock().lines().take(KEYS_MAX + 1);
    let lines: Vec<String> = lines
        .collect::<Result<_, _>>()
        .map_err(|error| Failed::new(Exit::Refused, format!("standard input: {error}")))?;
    match lines.len() {
        0 => Err(Failed::new(Exit::Refused, "the standard input has no lines")),
        count if count > KEYS_MAX => {
            Err(Failed::new(Exit::Refused, format!("at most {KEYS_MAX} keys at once")))
        }
        _ => Ok(lines),
    }
}

fn pairs(words: Vec<String>) -> Result<Vec<(String, String)>, Failed> {
    let (lines, separator) = match words.as_slice() {
        [one] if one == "-" => (lines()?, '\t'),
        _ => (words, '='),
    };
    let pair = |line: &String| {
        let (key, value) = line.split_once(separator)?;
        Some((key.to_owned(), value.to_owned()))
    };
    lines
        .iter()
        .map(|line| {
            let between = if separator == '=' { "=" } else { "a tab" };
            let what = || format!("`{line}` is no key and value with {between} between them");
            pair(line).ok_or_else(|| Failed::new(Exit::Refused, what()))
        })
        .collect()
}

/// Keys in one command: all are in memory until it ends.
const KEYS_MAX: usize = 100_000;
