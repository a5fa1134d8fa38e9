//! `atoll keys`: which keys of a bucket have a value, a page at a time.

use atoll_wire::bucket::DEFAULT_BUCKET;
use bytes::Bytes;
use clap::Args as ClapArgs;
use data_encoding::{BASE64, BASE64URL_NOPAD};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::{
    exit::Failed,
    output::{self, Format},
    reading::shown,
    receipt::{self, Asked},
    request::{Choices, connect},
};

/// List the keys of a bucket that have a value.
///
/// A full scan: keys have no order in a ring, so all partitions are gone through, whatever the prefix is. A page costs at most
/// some 20,000 rows and may hold few keys, or none. It is no snapshot: what is written behind the page is missing.
#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  atoll keys                                    the first page of the bucket `default`
  atoll keys --prefix cart: --all               all of them, page after page
  atoll keys --bucket tags --page TOKEN         goes on where a page ended
  atoll keys --all -o plain | wc -l")]
pub struct Args {
    /// Only keys that begin so
    #[arg(long, default_value = "", hide_default_value = true)]
    prefix: String,

    /// Where to go on: the token that the page before ended with
    #[arg(long, value_name = "TOKEN", value_parser = parse_page)]
    page: Option<Bytes>,

    /// Most keys in a page, 1 to 1000
    #[arg(long, value_name = "KEYS", default_value_t = 1000, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,

    /// Go on to the end
    #[arg(long)]
    all: bool,

    #[command(flatten)]
    choices: Choices,
}

#[derive(Serialize)]
struct Document {
    schema: &'static str,
    bucket: String,
    prefix: String,
    keys: Vec<KeyDocument>,
    /// Where the next page begins; none = this was the last.
    next: Option<String>,
    scanned: u64,
    partitions_done: u32,
    partitions: u32,
}

#[derive(Serialize)]
struct KeyDocument {
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    base64: String,
}

/// Runs the command.
pub async fn run(args: Args, cluster: Option<&str>, format: Format) -> Result<(), Failed> {
    let options = args.choices.options()?;
    args.choices.without_session()?;
    let client = connect(cluster).await?;
    let progress = if args.all { progress() } else { ProgressBar::hidden() };
    let (mut keys, mut scanned, mut page) = (Vec::new(), 0, args.page);
    let listed = loop {
        let prefix = args.prefix.as_bytes();
        let listed = client.keys(prefix, page.as_ref(), args.limit.into(), &options).await;
        let listed = match listed {
            Ok(listed) => listed,
            Err(error) => {
                progress.finish_and_clear();
                client.close().await;
                let failed = receipt::failure(Asked::Read, &error);
                return Err(match page.filter(|_| args.all) {
                    Some(page) => failed.mend(format!("go on with --page {}", text_of(&page))),
                    None => failed,
                });
            }
        };
        progress.set_length(listed.partitions.into());
        progress.set_position(listed.partitions_done.into());
        scanned += u64::from(listed.scanned);
        match format {
            Format::Json => keys.extend(listed.keys.iter().map(key_document)),
            Format::Table | Format::Plain => progress.suspend(|| {
                listed.keys.iter().for_each(|key| anstream::println!("{}", shown(key)));
            }),
        }
        page = listed.next.clone();
        if !args.all || page.is_none() {
            break listed;
        }
    };
    progress.finish_and_clear();
    client.close().await;
    let next = listed.next.as_ref().map(text_of);
    match format {
        Format::Json => output::json(&Document {
            schema: "atoll.keys/v1",
            bucket: options.bucket.unwrap_or_else(|| DEFAULT_BUCKET.to_owned()),
            prefix: args.prefix,
            keys,
            next,
            scanned,
            partitions_done: listed.partitions_done,
            partitions: listed.partitions,
        }),
        Format::Table | Format::Plain => {
            let (done, all) = (listed.partitions_done, listed.partitions);
            anstream::eprintln!(
                "\x1b[2m{done} of {all} partitions, {scanned} rows looked at\x1b[0m"
            );
            if let Some(next) = next {
                anstream::eprintln!("\x1b[2mmore: --page {next}\x1b[0m");
            }
        }
    }
    Ok(())
}

fn progress() -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {pos} of {len} partitions  {eta} left");
    ProgressBar::new(1).with_style(style.expect("a good template"))
}

fn key_document(key: &Bytes) -> KeyDocument {
    let text = std::str::from_utf8(key).ok().map(str::to_owned);
    KeyDocument { text, base64: BASE64.encode(key) }
}

fn parse_page(text: &str) -> Result<Bytes, String> {
    let bytes = BASE64URL_NOPAD.decode(text.as_bytes());
    bytes.map(Bytes::from).map_err(|_| "this is no page; leave --page out to begin anew".into())
}

fn text_of(page: &Bytes) -> String {
    BASE64URL_NOPAD.encode(page)
}
