//! `atoll put`: a value in place of what was there.

use std::io::Read as _;

use atoll_client::{
    ContextToken, ErrorCode, Level, Operation, Options, QuorumRequest, RequestError, Ttl,
    WriteReply,
};
use clap::Args as ClapArgs;
use serde::Serialize;

use crate::{
    caller::Caller,
    exit::{Exit, Failed},
    output::{self, Format},
    receipt::{self, Asked, Telling},
    request::{Choices, context_text, parse_context, parse_ttl},
};

/// Store a value.
///
/// Reads the key first and replaces exactly what it saw. With --context it replaces what that context stands for, with
/// --blind nothing: the value then becomes a sibling of whatever is there.
#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  atoll put cart:7 'two apples'
  atoll put photo - < photo.jpg
  atoll put cart:7 'three pears' -w all --timeout 200ms
  atoll put cart:7 'four figs' --strict            only owners count: fails rather than let fallbacks stand in
  atoll put otp:ann 4711 --ttl 5m                  is not shown any more after five minutes
  atoll put cart:7 x --context \"$(atoll get cart:7 -o json | jq -r .context)\"")]
pub struct Args {
    /// The key
    key: String,

    /// The value, or - to read it from the standard input
    value: String,

    /// What to replace: the context of an earlier get, put or del
    #[arg(long, value_name = "CONTEXT", value_parser = parse_context, conflicts_with = "blind")]
    context: Option<ContextToken>,

    /// Replace nothing: do not read first, make a sibling
    #[arg(long)]
    blind: bool,

    /// How long it shall be shown, such as 1h, or never-ending: forever [default: as the bucket says]
    #[arg(long, value_name = "DURATION|forever", value_parser = parse_ttl, default_value = "bucket", hide_default_value = true)]
    ttl: Ttl,

    #[command(flatten)]
    choices: Choices,
}

/// A write in JSON.
#[derive(Serialize)]
pub struct Document {
    schema: &'static str,
    key: String,
    dot: String,
    context: String,
    receipt: receipt::Document,
}

/// Runs the command.
pub async fn run(args: Args, cluster: Option<&str>, format: Format) -> Result<(), Failed> {
    let value = if args.value == "-" {
        let mut bytes = Vec::new();
        let most = atoll_wire::limits::VALUE_BYTES_MAX as u64 + 1; // one more, to be refused with its reason
        std::io::stdin()
            .take(most)
            .read_to_end(&mut bytes)
            .map_err(|error| Failed::new(Exit::Refused, format!("standard input: {error}")))?;
        if bytes.len() as u64 == most {
            let what = format!("the value is longer than {} bytes, the most allowed", most - 1);
            return Err(Failed::new(Exit::Refused, what));
        }
        bytes
    } else {
        args.value.into_bytes()
    };
    let mut caller = Caller::connect(&args.choices, cluster).await?;
    caller.options.ttl = args.ttl;
    let written = async {
        let context = match (args.context, args.blind) {
            (Some(context), _) => Some(context),
            (None, true) => None,
            (None, false) => seen(&caller, args.key.as_bytes()).await?,
        };
        let put = Operation::Put { value: value.into(), expires_ms: None };
        caller.change(&args.key, &put, context.as_ref()).await
    };
    let written = written.await;
    caller.close().await;
    show("atoll.put/v1", "stored", &args.key, &written?, &caller.telling(format));
    Ok(())
}

/// The context of what can be seen of a key before it is replaced.
///
/// A write goes on where a read fails: too few owners answer and no fallback has heard of the key. Then less is seen, and
/// less replaced; what nobody could show stays as a sibling.
async fn seen(caller: &Caller, key: &[u8]) -> Result<Option<ContextToken>, Failed> {
    let options = &caller.options;
    let few = |error: &RequestError| match error {
        RequestError::Failed(failure) => {
            matches!(failure.code, ErrorCode::ReadQuorumNotMet | ErrorCode::DeadlinePassed)
        }
        _ => false,
    };
    let one = QuorumRequest { n: options.quorum.n, r: Some(Level::Count(1)), ..Default::default() };
    let one = Options { quorum: one, ..options.clone() };
    let sloppy = options.quorum.sloppy.unwrap_or(true);
    match caller.try_read_with(key, options).await {
        Ok(read) => Ok(read.context),
        Err(error) if sloppy && few(&error) => match caller.try_read_with(key, &one).await {
            Ok(read) => {
                anstream::eprintln!(
                    "too few owners answered the read before the put; values that only the others hold will stay as siblings"
                );
                Ok(read.context)
            }
            Err(error) if few(&error) => {
                anstream::eprintln!(
                    "no owner answered the read before the put; nothing is replaced"
                );
                Ok(None)
            }
            Err(error) => Err(receipt::failure(Asked::Read, &error)),
        },
        Err(error) => Err(receipt::failure(Asked::Read, &error)),
    }
}

/// Prints what a write has done.
pub fn show(schema: &'static str, deed: &str, key: &str, written: &WriteReply, telling: &Telling) {
    match telling.format {
        Format::Json => output::json(&Document {
            schema,
            key: key.into(),
            dot: written.dot.to_string(),
            context: context_text(&written.context),
            receipt: receipt::of_write(&written.receipt),
        }),
        Format::Plain => {
            anstream::println!("{}\t{}", written.dot, context_text(&written.context));
        }
        Format::Table => {
            anstream::println!("{deed} `{key}` as {}", written.dot);
        }
    }
    receipt::print(Asked::Write, &written.receipt, telling);
}
