//! `atoll del`: delete exactly what was seen.

use atoll_client::{ContextToken, Operation};
use clap::Args as ClapArgs;

use crate::{
    caller::Caller,
    exit::Failed,
    output::Format,
    put,
    request::{Choices, parse_context},
};

/// Delete what is stored under a key.
///
/// The coordinator reads the key first, so many owners that every acknowledged write is seen, and deletes exactly what it saw: a value written meanwhile by somebody else stays. With --context
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
    let caller = Caller::connect(&args.choices, cluster).await?;
    let deleted = caller.change(&args.key, &Operation::Clear, args.context.as_ref()).await;
    caller.close().await;
    put::show("atoll.del/v1", "deleted", &args.key, &deleted?, &caller.telling(format));
    Ok(())
}
