//! `atoll testnet add` and `atoll testnet decommission`: the testnet grows and shrinks while it serves.
//!
//! Each is one command for what takes three in a cluster: let a node in, start it, have it join; have it leave, wait, stop
//! it. Nobody is asked: it is a testnet. The plan is shown all the same.

use std::{path::PathBuf, sync::Arc};

use atoll_client::{Client, NodeId, Profile};
use atoll_ring::{MemberState, Plan, Wish};
use atoll_testnet::{AddError, Condition, Home, Launcher, Testnet, grow};
use clap::Args;
use serde::Serialize;

use super::{
    Named, launcher,
    say::{failed_file, failed_open, failed_papers, failed_start, failed_up, line},
    up::Interrupt,
};
use crate::{
    change::{self, ANSWER_LIMIT, Commit, Stale, wish},
    exit::{Exit, Failed},
    faults::FaultArgs,
    output::{self, Format},
    request::connect_as,
};

/// Where the new node stands.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  atoll testnet add                   one more node, in the zone with the fewest
  atoll testnet add --zone z4
  atoll bench run & atoll testnet add && atoll testnet add

It gets the next number, which nobody ever had, and a port that is written down and never moves. It is started, shows
what moves to it, and stays until everything has moved; Ctrl-C then ends only the looking. If it is cut short before
the node runs, the same command goes on with that node.")]
pub struct AddArgs {
    /// Its zone [default: the one with the fewest nodes]
    #[arg(long, value_name = "ZONE")]
    zone: Option<String>,

    #[command(flatten)]
    testnet: Named,

    #[command(flatten)]
    faults: FaultArgs,
}

/// Who goes.
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  atoll testnet decommission n2

The node gives away all it owns while it goes on serving; then it is ended. Its files stay, and its number is never
used again. A node that is dead cannot give anything away: atoll cluster remove --dead n2, then decommission.")]
pub struct DecommissionArgs {
    /// Which, such as n2 or 2
    #[arg(value_name = "NODE")]
    node: NodeId,

    #[command(flatten)]
    testnet: Named,
}

#[derive(Serialize)]
struct Added {
    schema: &'static str,
    node: String,
    address: String,
    zone: String,
    log: PathBuf,
    epoch: u64,
}

#[derive(Serialize)]
struct Gone {
    schema: &'static str,
    node: String,
    epoch: u64,
    directory: PathBuf,
}

/// Adds a node.
pub async fn add(home: &Home, args: AddArgs, format: Format) -> Result<(), Failed> {
    args.faults.faults()?; // refused here rather than by the node
    let zone = args.zone.as_deref().map(wish::zone).transpose()?;
    let mut testnet = args.testnet.open(home)?;
    let launcher = Launcher { node_arguments: args.faults.to_arguments(), ..launcher()? };
    let (during_start, during_moves) = (Interrupt::expect()?, Interrupt::expect()?);
    let client = client(&testnet).await?;
    check_still(&client)?;
    let mut hear = line;
    let added =
        grow::add(home, &mut testnet, &launcher, &client, zone, during_start.comes(), &mut hear);
    let node = added.await.map_err(failed_add)?;
    client.refresh(ANSWER_LIMIT).await;
    let done = moved(&client, Wish::Join { node: node.id }, format, during_moves).await;
    let epoch = client.view().epoch().0;
    client.close().await;
    done?;
    match format {
        Format::Json => output::json(&Added {
            schema: "atoll.testnet-add/v1",
            node: node.id.to_string(),
            address: node.address.to_string(),
            zone: node.zone.clone(),
            log: node.log(),
            epoch,
        }),
        Format::Plain => anstream::println!("{}\t{}", node.id, node.address),
        Format::Table => anstream::println!(
            "\x1b[1m{} is one of {} nodes\x1b[0m at {}",
            node.id,
            testnet.nodes().len(),
            node.address
        ),
    }
    Ok(())
}

/// Lets a node go.
pub async fn decommission(
    home: &Home,
    args: DecommissionArgs,
    format: Format,
) -> Result<(), Failed> {
    let mut testnet = args.testnet.open(home)?;
    let node = args.node;
    let launcher = launcher()?;
    let known = testnet.select(&[node]).map_err(failed_open)?.remove(0);
    let interrupt = Interrupt::expect()?;
    let client = client(&testnet).await?;
    let view = client.view();
    if let Some(member) = view.member(node) {
        if !matches!(known.condition().map_err(failed_file)?, Condition::Running(_)) {
            let what = format!(
                "{node} does not run, so it cannot give away what it owns\n  nothing was changed"
            );
            return Err(Failed::new(Exit::Refused, what).mend(format!(
                "atoll testnet start {node}; or, if it is lost: atoll cluster remove --dead {node}"
            )));
        }
        let leaves = Wish::Leave { node };
        match member.state {
            // it is on its way: only wait
            MemberState::Leaving | MemberState::Dead => {
                let gone = change::watch::until_still(&client, &leaves);
                tokio::select! { biased;
                    () = interrupt.comes() => return Err(looked_away()),
                    gone = gone => gone?,
                }
            }
            MemberState::Joining | MemberState::Active => {
                moved(&client, leaves, format, interrupt).await?;
            }
        }
    }
    let epoch = client.view().epoch().0;
    client.close().await;
    grow::retire(&mut testnet, &launcher, node, &mut line).await.map_err(failed_open)?;
    match format {
        Format::Json => output::json(&Gone {
            schema: "atoll.testnet-decommission/v1",
            node: node.to_string(),
            epoch,
            directory: known.folder().to_owned(),
        }),
        Format::Plain => anstream::println!("{node}"),
        Format::Table => anstream::println!(
            "\x1b[1m{node} is gone\x1b[0m; {} nodes are left. Its files stay in {}",
            testnet.nodes().len(),
            known.folder().display()
        ),
    }
    Ok(())
}

/// Commits a wish and stays until everything has moved. Numbers are for whoever asked for them, the story for the terminal.
async fn moved(
    client: &Arc<Client>,
    wish: Wish,
    format: Format,
    interrupt: Interrupt,
) -> Result<(), Failed> {
    let view = client.view();
    let plan = Plan::of(&view, &wish).map_err(|why| change::rejected(&why))?;
    let commit = Commit { yes: true, wait: true };
    let made = async {
        match format {
            Format::Table => {
                let stale = Stale::PlanAgain;
                change::show_and_commit(client, &view, &plan, stale, commit, format).await
            }
            // one document is printed, at the end
            Format::Json | Format::Plain => {
                change::commit_plan(client, &plan, Stale::PlanAgain, true).await?;
                change::watch::until_still(client, &wish).await
            }
        }
    };
    tokio::select! { biased;
        () = interrupt.comes() => Err(looked_away()),
        made = made => made,
    }
}

fn looked_away() -> Failed {
    Failed::new(Exit::Interrupted, "interrupted; what was committed goes on")
        .mend("atoll ring moves --watch, or atoll ring cancel")
}

async fn client(testnet: &Testnet) -> Result<Arc<Client>, Failed> {
    let profile = Profile::load(&testnet.profile())
        .map_err(|error| Failed::new(Exit::Refused, error.to_string()))?;
    let client = Arc::new(connect_as(&profile).await?);
    client.refresh(ANSWER_LIMIT).await;
    Ok(client)
}

/// A node that is added while something moves could not join: said before it is registered.
fn check_still(client: &Client) -> Result<(), Failed> {
    match change::watch::left(&client.view()) {
        0 => Ok(()),
        moves => Err(change::rejected(&atoll_ring::Rejected::Busy { moves })),
    }
}

fn failed_add(error: AddError) -> Failed {
    let what = error.to_string();
    match error {
        AddError::Open(error) => failed_open(error),
        AddError::Propose(error) => change::not_proposed(&error),
        AddError::Up(error) => failed_up(error),
        AddError::File(error) => failed_file(error),
        AddError::Papers(error) => failed_papers(&error),
        AddError::NoAuthority => {
            Failed::new(Exit::Refused, what).mend("atoll testnet down && atoll testnet up")
        }
        AddError::TooMany | AddError::NoPorts(_) => Failed::new(Exit::Refused, what),
        AddError::NotShown { node } => Failed::new(Exit::Timeout, what).mend(format!(
            "atoll testnet add goes on with it; to be rid of it: atoll cluster leave {node}"
        )),
        AddError::Start { node, source } => {
            let failed = failed_start(&source);
            let what = format!("{node} is registered and owns nothing, but: {}", failed.what);
            Failed { what, ..failed }.mend(format!(
                "atoll testnet start {node} && atoll cluster join {node}; to be rid of it: atoll \
                 cluster leave {node} && atoll testnet decommission {node}"
            ))
        }
    }
}
