//! `atoll get`: all current values of a key.

use std::io::Write as _;

use atoll_client::{GetReply, Options, Repair, Value};
use clap::{
    Args as ClapArgs,
    builder::{PossibleValuesParser, TypedValueParser},
};
use data_encoding::BASE64;
use serde::Serialize;

use crate::{
    exit::{Exit, Failed},
    output::{self, Format},
    receipt::{self, Asked},
    request::{Choices, connect, context_text},
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

    /// What happens to owners that are behind: async repairs them after the answer, blocking before it, so that no later
    /// quorum read sees less, none leaves them [default: the bucket's, else async]
    #[arg(long, value_name = "MODE", value_parser = repairs())]
    repair: Option<Repair>,

    #[command(flatten)]
    choices: Choices,
}

#[derive(Serialize)]
struct Document {
    schema: &'static str,
    key: String,
    values: Vec<ValueDocument>,
    context: Option<String>,
    receipt: receipt::Document,
}

#[derive(Serialize)]
struct ValueDocument {
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    base64: String,
    dot: String,
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
    let options = Options { repair: args.repair, ..args.choices.options()? };
    let client = connect(cluster).await?;
    let read = client.get(args.key.as_bytes(), &options).await;
    client.close().await;
    let read = read.map_err(|error| receipt::failure(Asked::Read, &error))?;
    if args.raw {
        return raw(&args.key, &read);
    }
    match format {
        Format::Json => output::json(&Document {
            schema: "atoll.get/v1",
            key: args.key.clone(),
            values: read.values.iter().map(value_document).collect(),
            context: read.context.as_ref().map(context_text),
            receipt: receipt::of_read(&read.receipt),
        }),
        Format::Plain => {
            for value in &read.values {
                anstream::println!("{}\t{}", value.dot, shown(value));
            }
        }
        Format::Table => table(&read),
    }
    if read.values.is_empty() {
        let why = if read.context.is_some() { "deleted" } else { "never written" };
        return Err(match format {
            Format::Json => Failed::silent(Exit::NotFound),
            Format::Table | Format::Plain => {
                Failed::new(Exit::NotFound, format!("`{}` has no value ({why})", args.key))
            }
        });
    }
    Ok(())
}

fn raw(key: &str, read: &GetReply) -> Result<(), Failed> {
    match read.values.as_slice() {
        [] => Err(Failed::new(Exit::NotFound, format!("`{key}` has no value"))),
        [value] => std::io::stdout()
            .write_all(&value.bytes)
            .map_err(|error| Failed::new(Exit::Other, format!("cannot write: {error}"))),
        several => {
            let what = format!("`{key}` has {} values; --raw writes one", several.len());
            Err(Failed::new(Exit::Conflict, what).mend(format!("atoll get {key}")))
        }
    }
}

fn table(read: &GetReply) {
    match read.values.as_slice() {
        [] => {}
        [value] => anstream::println!("{}", shown(value)),
        several => {
            let rows: Vec<Vec<String>> =
                several.iter().map(|value| vec![value.dot.to_string(), shown(value)]).collect();
            output::rows(Format::Table, &["WRITTEN BY", "VALUE"], &rows);
            anstream::println!("{} siblings: a put replaces them all", several.len());
        }
    }
    anstream::eprintln!("\x1b[2m{}\x1b[0m", receipt::line(&read.receipt));
    anstream::eprintln!("\x1b[2m{}\x1b[0m", receipt::promise(Asked::Read, &read.receipt));
}

fn value_document(value: &Value) -> ValueDocument {
    ValueDocument {
        text: std::str::from_utf8(&value.bytes).ok().map(str::to_owned),
        base64: BASE64.encode(&value.bytes),
        dot: value.dot.to_string(),
    }
}

/// Text as it is, anything else in base64.
fn shown(value: &Value) -> String {
    match std::str::from_utf8(&value.bytes) {
        Ok(text) if !text.chars().any(|c| c.is_control() && c != '\n' && c != '\t') => text.into(),
        _ => format!("base64:{}", BASE64.encode(&value.bytes)),
    }
}
