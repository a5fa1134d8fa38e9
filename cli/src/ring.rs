//! `atoll ring`: who owns what, what moves, and changes in two steps.
//!
//! [`plan`] writes a plan and commits it later, [`moves`] shows how far a change is and stops it, [`history`] what the ring
//! has gone through.

use std::sync::Arc;

use atoll_client::Client;
use atoll_ring::{NodeId, Partition, Token, View};
use clap::Subcommand;
use serde::Serialize;

use crate::{
    cluster::status::left_over,
    exit::Failed,
    output::{self, Format},
    receipt::{self, Asked},
    request::connect,
};

mod history;
mod moves;
mod plan;

/// Who owns what, what moves, and plans for changing it.
#[derive(Subcommand)]
pub enum RingCommand {
    /// The members and how much each owns
    Show,
    /// The owners of a key, in order, and who would stand in for them
    #[command(after_help = "\
Examples:
  atoll ring lookup cart:7
  atoll ring lookup cart:7 --bucket carts      its first N owners")]
    Lookup {
        /// The key
        key: String,

        /// The bucket: its name, or NAME@ID
        #[arg(long, value_name = "NAME", default_value = "default")]
        bucket: String,
    },
    /// What a change would move; nothing is changed
    Plan(plan::PlanArgs),
    /// Commit a plan that was written before; refused if the ring has changed since
    Commit(plan::CommitArgs),
    /// What moves now, and who holds it up
    Moves(moves::MovesArgs),
    /// Stop what moves: what has not arrived stays where it is
    Cancel(moves::CancelArgs),
    /// What the ring has gone through, epoch by epoch
    History(history::HistoryArgs),
}

#[derive(Serialize)]
struct RingDocument {
    schema: &'static str,
    cluster: String,
    epoch: u64,
    partitions: u32,
    replicas: u8,
    warnings: Vec<String>,
    members: Vec<MemberDocument>,
}

#[derive(Serialize)]
struct MemberDocument {
    node: String,
    address: String,
    zone: String,
    weight: u32,
    incarnation: u32,
    partitions_owned: usize,
    partitions_first: usize,
    share: f64,
}

#[derive(Serialize)]
struct LookupDocument {
    schema: &'static str,
    key: String,
    token: String,
    partition: u16,
    epoch: u64,
    owners: Vec<String>,
    fallbacks: Vec<String>,
}

/// Runs the command.
pub async fn run(
    command: RingCommand,
    cluster: Option<&str>,
    format: Format,
) -> Result<(), Failed> {
    match command {
        RingCommand::Show => show(&*view_now(cluster).await?, format),
        RingCommand::Lookup { key, bucket } => lookup(cluster, key, &bucket, format).await?,
        RingCommand::Plan(args) => plan::run(&args, cluster, format).await?,
        RingCommand::Commit(args) => plan::commit(args, cluster, format).await?,
        RingCommand::Moves(args) => moves::run(&args, cluster, format).await?,
        RingCommand::Cancel(args) => moves::cancel(args, cluster, format).await?,
        RingCommand::History(args) => history::run(&args, cluster, format).await?,
    }
    Ok(())
}

async fn view_now(cluster: Option<&str>) -> Result<Arc<View>, Failed> {
    let client = connect(cluster).await?;
    let view = client.view();
    client.close().await;
    Ok(view)
}

fn show(view: &View, format: Format) {
    let owned = |node: NodeId| {
        let mut all = 0;
        let mut first = 0;
        for partition in view.partitions().all() {
            let owners = view.owners(partition).all();
            all += usize::from(owners.contains(&node));
            first += usize::from(owners.first() == Some(&node));
        }
        (all, first)
    };
    let total = f64::from(view.partitions().count()) * f64::from(view.replicas());
    let members: Vec<MemberDocument> = view
        .members()
        .iter()
        .map(|member| {
            let (all, first) = owned(member.id);
            MemberDocument {
                node: member.id.to_string(),
                address: member.address.to_string(),
                zone: member.zone.clone(),
                weight: member.weight,
                incarnation: member.incarnation,
                partitions_owned: all,
                partitions_first: first,
                share: f64::from(u32::try_from(all).unwrap_or(u32::MAX)) / total,
            }
        })
        .collect();
    let mut warnings: Vec<String> = view.warnings().iter().map(ToString::to_string).collect();
    warnings.extend(left_over(view));
    for warning in &warnings {
        anstream::eprintln!("\x1b[33mwarning\x1b[0m: {warning}");
    }
    match format {
        Format::Json => output::json(&RingDocument {
            schema: "atoll.ring/v1",
            cluster: view.cluster().to_string(),
            epoch: view.epoch().0,
            partitions: view.partitions().count(),
            replicas: view.replicas(),
            warnings,
            members,
        }),
        Format::Table | Format::Plain => {
            let rows: Vec<Vec<String>> = members
                .iter()
                .map(|member| {
                    vec![
                        member.node.clone(),
                        member.address.clone(),
                        member.zone.clone(),
                        member.weight.to_string(),
                        member.partitions_owned.to_string(),
                        format!("{:.1} %", member.share * 100.0),
                        member.partitions_first.to_string(),
                    ]
                })
                .collect();
            let headings = ["NODE", "ADDRESS", "ZONE", "WEIGHT", "PARTITIONS", "SHARE", "FIRST OF"];
            output::rows(format, &headings, &rows);
            if format == Format::Table {
                anstream::println!(
                    "\n{} partitions with {} copies each, epoch {}, cluster {}",
                    view.partitions().count(),
                    view.replicas(),
                    view.epoch().0,
                    view.cluster()
                );
            }
        }
    }
}

/// Where a key lies.
pub struct Owners {
    /// The view it was looked up in.
    pub view: Arc<View>,
    /// Its token.
    pub token: Token,
    /// Its partition.
    pub partition: Partition,
    /// Its owners, in order.
    pub owners: Vec<NodeId>,
}

/// Looks up a key of a bucket in the view that the client has.
///
/// # Errors
/// There is no such bucket, or nobody says.
pub async fn owners(client: &Client, key: &str, bucket: &str) -> Result<Owners, Failed> {
    let found = client.bucket_named(bucket).await;
    let (id, definition) = found.map_err(|error| receipt::failure(Asked::Read, &error))?;
    let view = client.view();
    let token = Token::of(&id.0, key.as_bytes());
    let partition = view.partition(token);
    let owners = view.owners(partition).first(definition.n).all();
    Ok(Owners { view, token, partition, owners })
}

async fn lookup(
    cluster: Option<&str>,
    key: String,
    bucket: &str,
    format: Format,
) -> Result<(), Failed> {
    let client = connect(cluster).await?;
    let found = owners(&client, &key, bucket).await;
    client.close().await;
    let Owners { view, token, partition, owners } = found?;
    let names = |nodes: &[NodeId]| nodes.iter().map(NodeId::to_string).collect::<Vec<_>>();
    let fallbacks: Vec<NodeId> =
        view.preference(partition).filter(|node| !owners.contains(node)).collect();
    let document = LookupDocument {
        schema: "atoll.ring-lookup/v1",
        key,
        token: format!("{:016x}", token.0),
        partition: partition.0,
        epoch: view.epoch().0,
        owners: names(&owners),
        fallbacks: names(&fallbacks),
    };
    match format {
        Format::Json => output::json(&document),
        Format::Plain => anstream::println!("{}", document.owners.join("\t")),
        Format::Table => {
            anstream::println!("key        {}", document.key);
            anstream::println!("token      {}", document.token);
            anstream::println!("partition  {}", document.partition);
            anstream::println!("owners     {}", document.owners.join(", "));
            anstream::println!("fallbacks  {}", document.fallbacks.join(", "));
        }
    }
    Ok(())
}
