//! `atoll siblings` and `atoll resolve`: values that were written without knowledge of each other, and one that takes their
//! place.

use atoll_client::{Operation, ReadReply, Reading, Sibling};
use clap::Args as ClapArgs;

use crate::{
    caller::Caller,
    exit::{Exit, Failed},
    output::Format,
    put, reading,
    receipt::{self, Asked},
    request::Choices,
};

/// Show the siblings of a key: each with its dot, the node that wrote it, and when by that node's clock.
#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  atoll siblings cart:7
  atoll resolve cart:7 --keep 2               keeps the second of them
  atoll resolve cart:7 --value 'both'         puts something else in their place")]
pub struct SiblingsArgs {
    /// The key
    key: String,
    #[command(flatten)]
    choices: Choices,
}

/// Put one value in the place of all siblings.
///
/// Reads the key first and replaces exactly what it saw; a sibling that is written meanwhile stays.
#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  atoll siblings cart:7                       numbers them from 1
  atoll resolve cart:7 --keep 2
  atoll resolve cart:7 --value 'apples and pears'")]
pub struct ResolveArgs {
    /// The key
    key: String,

    /// Which of them stays: its number in `atoll siblings`, from 1, or its dot
    #[arg(long, value_name = "NUMBER|DOT", required_unless_present = "value")]
    keep: Option<String>,

    /// What takes their place
    #[arg(long, conflicts_with = "keep")]
    value: Option<String>,

    #[command(flatten)]
    choices: Choices,
}

/// Runs `atoll siblings`.
pub async fn siblings(
    args: SiblingsArgs,
    cluster: Option<&str>,
    format: Format,
) -> Result<(), Failed> {
    let caller = Caller::connect(&args.choices, cluster).await?;
    let read = caller.read(&args.key).await;
    caller.close().await;
    let read = read?;
    let siblings = of(&read)?;
    if format == Format::Table && !siblings.is_empty() {
        reading::siblings_table(siblings);
        receipt::print(Asked::Read, &read.receipt, &caller.telling(format));
        return Ok(());
    }
    reading::show("atoll.siblings/v1", &args.key, &read, &caller.telling(format))
}

/// Runs `atoll resolve`.
pub async fn resolve(
    args: ResolveArgs,
    cluster: Option<&str>,
    format: Format,
) -> Result<(), Failed> {
    let caller = Caller::connect(&args.choices, cluster).await?;
    let resolved = async {
        let read = caller.read(&args.key).await?;
        let siblings = of(&read)?;
        let (value, expires_ms) = match (&args.value, &args.keep) {
            (Some(value), _) => (value.clone().into(), None),
            (None, keep) => {
                let kept = chosen(siblings, keep.as_deref().unwrap_or_default(), &args.key)?;
                (kept.value.clone(), kept.expires_ms)
            }
        };
        let put = Operation::Put { value, expires_ms };
        caller.change(&args.key, &put, read.context.as_ref()).await
    };
    let resolved = resolved.await;
    caller.close().await;
    put::show("atoll.put/v1", "resolved", &args.key, &resolved?, &caller.telling(format));
    Ok(())
}

fn of(read: &ReadReply) -> Result<&[Sibling], Failed> {
    match &read.reading {
        Reading::Register(siblings) => Ok(siblings),
        other => {
            let what =
                format!("values of the kind `{}` have no siblings: they merge", other.kind());
            Err(Failed::new(Exit::Refused, what).mend("atoll get KEY"))
        }
    }
}

fn chosen<'a>(siblings: &'a [Sibling], keep: &str, key: &str) -> Result<&'a Sibling, Failed> {
    if siblings.is_empty() {
        return Err(Failed::new(Exit::NotFound, format!("`{key}` has no value")));
    }
    let by_number =
        keep.parse::<usize>().ok().and_then(|number| siblings.get(number.checked_sub(1)?));
    let by_dot = || siblings.iter().find(|sibling| sibling.dot.to_string() == keep);
    by_number.or_else(by_dot).ok_or_else(|| {
        let what = format!("there is no sibling `{keep}` of `{key}`; it has {}", siblings.len());
        Failed::new(Exit::Refused, what).mend(format!("atoll siblings {key}"))
    })
}
