//! `atoll del`: delete exactly what was seen.

use atoll_client::{Client, ContextToken, Level, Options, QuorumRequest};
use clap::Args as ClapArgs;

use crate::{
    exit::{Exit, Failed},
    output::Format,
    put,
    receipt::{self, Asked},
    request::{Choices, connect, parse_context},
};

/// Delete what is stored under a key.
///
/// Reads the key first and deletes exactly what it saw: a value written meanwhile by somebody else stays. With --context
/// it deletes what that context stands for.
#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  atoll del cart:7
  atoll del cart:7 --context \"$(atoll get cart:7 -o json | jq -r .context)\"")]
pub struct Args {
    /// The key
    key: String,

    /// What to delete: the context of an earlier get or put
    #[arg(long, value_name = "CONTEXT", value_parser = parse_context)]
    context: Option<ContextToken>,

    #[command(flatten)]
    choices: Choices,
}

/// Runs the command.
pub async fn run(args: Args, cluster: Option<&str>, format: Format) -> Result<(), Failed> {
    let options = args.choices.options()?;
    let client = connect(cluster).await?;
    let key = args.key.as_bytes();
    let deleted = async {
        let context = match args.context {
            Some(context) => context,
            None => {
                let read = client.get(key, &seeing_all(&client, &options).await?).await;
                let read = read.map_err(|error| receipt::failure(Asked::Read, &error))?;
                match read.context {
                    Some(context) if !read.values.is_empty() => context,
                    Some(_) | None => {
                        let what = format!("`{}` has no value; nothing to delete", args.key);
                        return Err(Failed::new(Exit::NotFound, what));
                    }
                }
            }
        };
        client
            .delete(key, &context, &options)
            .await
            .map_err(|error| receipt::failure(Asked::Write, &error))
    };
    let deleted = deleted.await;
    client.close().await;
    put::show("atoll.del/v1", "deleted", &args.key, &deleted?, format);
    Ok(())
}

/// Choices for the read before a delete: enough owners to see every write that owners acknowledged at the same `w`, or it
/// would survive its own deletion. If so many cannot be reached nothing is deleted.
async fn seeing_all(client: &Client, options: &Options) -> Result<Options, Failed> {
    let quorum = client.quorum(options).await;
    let quorum = quorum.map_err(|error| receipt::failure(Asked::Read, &error))?;
    let r = quorum.r().max(quorum.n() - quorum.w() + 1);
    let quorum = QuorumRequest { r: Some(Level::Count(r)), sloppy: Some(false), ..options.quorum };
    Ok(Options { quorum, ..options.clone() })
}
