//! What a read has found, as people and programs see it: one way for each kind of value.

use std::time::{Duration, UNIX_EPOCH};

use atoll_client::{Kind, ReadReply, Reading, Sibling};
use data_encoding::BASE64;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::{
    exit::{Exit, Failed},
    output::{self, Format},
    receipt::{self, Asked, Telling},
    request::context_text,
};

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    key: &'a str,
    kind: &'static str,
    #[serde(flatten)]
    found: Map<String, Value>,
    context: Option<String>,
    receipt: receipt::Document,
}

/// Prints what was found; exits 3 if there is nothing.
pub fn show(
    schema: &'static str,
    key: &str,
    read: &ReadReply,
    telling: &Telling,
) -> Result<(), Failed> {
    let format = telling.format;
    // an empty counter is 0 and an empty flag is off: that is a value
    let may_be_nothing = !matches!(read.reading, Reading::Counter(_) | Reading::Flag(_));
    let nothing = may_be_nothing && read.reading.is_nothing();
    match format {
        Format::Json => output::json(&Document {
            schema,
            key,
            kind: read.reading.kind().word(),
            found: document(&read.reading),
            context: read.context.as_ref().map(context_text),
            receipt: receipt::of_read(&read.receipt),
        }),
        Format::Plain => lines(&read.reading).iter().for_each(|line| anstream::println!("{line}")),
        Format::Table => table(&read.reading),
    }
    receipt::print(Asked::Read, &read.receipt, telling);
    if !nothing {
        return Ok(());
    }
    let why = if read.context.is_some() { "deleted, or expired" } else { "never written" };
    Err(match format {
        Format::Json => Failed::silent(Exit::NotFound),
        Format::Table | Format::Plain => {
            Failed::new(Exit::NotFound, format!("`{key}` has no value ({why})"))
        }
    })
}

/// Refuses a value of another kind than the command is for.
pub fn expect(kind: Kind, read: &ReadReply) -> Result<(), Failed> {
    let found = read.reading.kind();
    if found == kind {
        return Ok(());
    }
    let what = format!("the bucket holds values of the kind `{found}`, not `{kind}`");
    Err(Failed::new(Exit::Refused, what)
        .mend("atoll get KEY reads every kind; --bucket names another bucket"))
}

/// The fields of a document that a kind has.
pub fn document(reading: &Reading) -> Map<String, Value> {
    let (name, value) = match reading {
        Reading::Register(siblings) => ("values", siblings.iter().map(sibling).collect()),
        Reading::Lww(value) => ("values", value.iter().map(sibling).collect()),
        Reading::Counter(value) => ("value", number(*value)),
        Reading::Set(elements) => ("elements", elements.iter().map(|one| bytes(one)).collect()),
        Reading::Flag(on) => ("on", json!(on)),
        Reading::Max(value) => ("value", json!(value)),
        Reading::Map(fields) => ("fields", {
            fields
                .iter()
                .map(|(field, reading)| {
                    let mut fields = document(reading);
                    fields.insert("name".into(), bytes(&field.name));
                    fields.insert("kind".into(), field.kind.word().into());
                    Value::Object(fields)
                })
                .collect()
        }),
    };
    Map::from_iter([(name.to_owned(), value)])
}

/// A number that JSON readers may take for a float becomes a text.
fn number(value: i128) -> Value {
    match i64::try_from(value) {
        Ok(value) => json!(value),
        Err(_) => json!(value.to_string()),
    }
}

fn sibling(sibling: &Sibling) -> Value {
    let Value::Object(mut fields) = bytes(&sibling.value) else {
        unreachable!("bytes are an object")
    };
    fields.insert("dot".into(), sibling.dot.to_string().into());
    fields.insert("written".into(), moment(sibling.written_ms).into());
    if let Some(expires) = sibling.expires_ms {
        fields.insert("expires".into(), moment(expires).into());
    }
    Value::Object(fields)
}

fn bytes(bytes: &[u8]) -> Value {
    let mut fields = Map::new();
    if let Ok(text) = std::str::from_utf8(bytes) {
        fields.insert("text".into(), text.into());
    }
    fields.insert("base64".into(), BASE64.encode(bytes).into());
    Value::Object(fields)
}

/// All that was found, in one line.
pub fn in_a_line(reading: &Reading) -> String {
    match reading {
        Reading::Register(siblings) => {
            siblings.iter().map(|one| shown(&one.value)).collect::<Vec<_>>().join(" | ")
        }
        Reading::Lww(value) => value.iter().map(|one| shown(&one.value)).collect(),
        Reading::Map(_) => {
            let paths = paths(reading).into_iter().map(|[path, value]| format!("{path}={value}"));
            paths.collect::<Vec<_>>().join(", ")
        }
        other => lines(other).join(", "),
    }
}

/// One line per value, tab-separated.
fn lines(reading: &Reading) -> Vec<String> {
    let of_sibling = |sibling: &Sibling| format!("{}\t{}", sibling.dot, shown(&sibling.value));
    match reading {
        Reading::Register(siblings) => siblings.iter().map(of_sibling).collect(),
        Reading::Lww(value) => value.iter().map(of_sibling).collect(),
        Reading::Counter(value) => vec![value.to_string()],
        Reading::Set(elements) => elements.iter().map(|element| shown(element)).collect(),
        Reading::Flag(on) => vec![on_off(*on).into()],
        Reading::Max(value) => value.iter().map(ToString::to_string).collect(),
        Reading::Map(_) => {
            paths(reading).into_iter().map(|[path, value]| format!("{path}\t{value}")).collect()
        }
    }
}

fn table(reading: &Reading) {
    match reading {
        Reading::Register(siblings) if siblings.len() > 1 => {
            siblings_table(siblings);
            anstream::println!("{} siblings: a put replaces them all", siblings.len());
        }
        Reading::Register(siblings) => {
            siblings.iter().for_each(|one| anstream::println!("{}", shown(&one.value)));
        }
        Reading::Lww(value) => {
            value.iter().for_each(|one| anstream::println!("{}", shown(&one.value)));
        }
        Reading::Map(fields) if !fields.is_empty() => {
            let rows: Vec<Vec<String>> = paths(reading).into_iter().map(Vec::from).collect();
            output::rows(Format::Table, &["FIELD", "VALUE"], &rows);
        }
        Reading::Counter(_)
        | Reading::Set(_)
        | Reading::Flag(_)
        | Reading::Max(_)
        | Reading::Map(_) => {
            lines(reading).iter().for_each(|line| anstream::println!("{line}"));
        }
    }
}

/// Siblings with who wrote them, and when.
pub fn siblings_table(siblings: &[Sibling]) {
    let row = |sibling: &Sibling| {
        let node = format!("n{}", sibling.dot.actor.node);
        let written = moment(sibling.written_ms);
        vec![sibling.dot.to_string(), node, written, shown(&sibling.value)]
    };
    let rows: Vec<Vec<String>> = siblings.iter().map(row).collect();
    output::rows(Format::Table, &["WRITTEN BY", "NODE", "AT", "VALUE"], &rows);
}

/// The leaves of a map, each under its path.
fn paths(reading: &Reading) -> Vec<[String; 2]> {
    let mut found = Vec::new();
    gather(reading, "", &mut found);
    found
}

fn gather(reading: &Reading, path: &str, found: &mut Vec<[String; 2]>) {
    let Reading::Map(fields) = reading else {
        let values = match reading {
            Reading::Register(siblings) => siblings.iter().map(|one| shown(&one.value)).collect(),
            Reading::Lww(value) => value.iter().map(|one| shown(&one.value)).collect(),
            other => lines(other),
        };
        found.push([path.to_owned(), values.join(", ")]);
        return;
    };
    for (field, reading) in fields {
        let separator = if path.is_empty() { "" } else { "/" };
        gather(reading, &format!("{path}{separator}{}:{}", shown(&field.name), field.kind), found);
    }
}

fn on_off(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

/// A moment by the wall clock of whoever wrote, as RFC 3339 has it.
fn moment(ms: u64) -> String {
    match UNIX_EPOCH.checked_add(Duration::from_millis(ms)) {
        Some(at) if ms < FAR_FUTURE_MS => humantime::format_rfc3339_millis(at).to_string(),
        _ => "far away".into(),
    }
}

/// The year 9999, the last that RFC 3339 has.
const FAR_FUTURE_MS: u64 = 253_402_300_799_000;

/// Text as it is, anything else in base64.
pub fn shown(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(|c| c.is_control() && c != '\n' && c != '\t') => text.into(),
        _ => format!("base64:{}", BASE64.encode(bytes)),
    }
}
