//! `atoll cluster token`: lets one node in. Runs where the authority's key lies, and writes the file for the new host.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use atoll_client::NodeId;
use atoll_papers::{Cluster, Valid, cluster::OPERATOR, papers::PROFILE};
use atoll_ring::Command;
use clap::{Args, ValueHint};
use serde::Serialize;

use super::failed;
use crate::{
    change::{self, propose, view_of},
    exit::{Exit, Failed},
    output::{self, Format},
};

/// Who is let in.
#[derive(Args)]
#[command(after_help = "\
Example:
  atoll cluster token prod --out n4.join
  scp -p n4.join 10.0.0.4:                     then there:
  atoll cluster join n4.join --listen 10.0.0.4:7400 --dir /etc/atoll/n4

The file holds the node's certificate and key, the authority's certificate, the cluster's secret, the addresses of
the members, and an invitation that is good once. Only its owner may read it: whoever has it can be that node. The
authority's key is not in it and stays here. An id is never given twice.")]
pub struct TokenArgs {
    /// The folder of the cluster, with the authority's key [default: the one that the profile lies in]
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    folder: Option<PathBuf>,

    /// The id that the node gets [default: the next one]
    #[arg(long, value_name = "NODE")]
    node: Option<NodeId>,

    /// How long the invitation is good, up to a week
    #[arg(long, value_name = "DURATION", default_value = "15m", value_parser = humantime::parse_duration)]
    valid: Duration,

    /// How many days the node's certificate is good
    #[arg(long, value_name = "DAYS", default_value_t = 365)]
    days: u32,

    /// The file to write; it must not be there
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    out: PathBuf,
}

/// Nobody should find an invitation that somebody forgot.
const VALID_MAX: Duration = Duration::from_secs(7 * 86_400);

#[derive(Serialize)]
struct Document {
    schema: &'static str,
    node: String,
    file: PathBuf,
    expires: String,
    epoch: u64,
}

/// Runs the command.
pub async fn run(args: TokenArgs, cluster: Option<&str>, format: Format) -> Result<(), Failed> {
    let TokenArgs { folder, node, valid, days, out } = args;
    if valid.is_zero() || valid > VALID_MAX {
        let what = "an invitation is good for more than nothing and at most 7 days";
        return Err(Failed::new(Exit::Refused, what).mend("--valid 15m"));
    }
    let certificate_valid = Valid::days(days).map_err(failed)?;
    let (papers, profile) = find(folder, cluster)?;
    papers.can_invite(&out).map_err(failed)?;
    let client = change::connect(Some(&profile)).await?;
    let view = client.view();
    if view.cluster() != papers.view().cluster() {
        let (ours, theirs) = (papers.view().cluster(), view.cluster());
        let what = format!("the folder is of cluster {ours}, and {profile} leads to {theirs}");
        return Err(Failed::new(Exit::Refused, what).mend("another DIR, or another --cluster"));
    }
    let node = match node {
        None => papers.next_node(&view).map_err(failed)?,
        Some(node) => {
            papers.check_unseen(node, &view).map_err(failed)?;
            node
        }
    };
    let invitation = rand::random();
    let expires = SystemTime::now() + valid;
    let expires_ms = expires.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let expires_ms = u64::try_from(expires_ms).unwrap_or(u64::MAX);
    let epoch = propose(&client, &Command::Invite { invitation, node, expires_ms }).await?;
    let view = view_of(&client, epoch).await?;
    client.close().await;
    papers.invite(node, invitation, expires_ms, &view, certificate_valid, &out).map_err(
        |error| {
            let failed = failed(error);
            let what =
                format!("{}\n  the invitation of {node} is of no use to anybody", failed.what);
            Failed { what, ..failed }
        },
    )?;
    let until = humantime::format_rfc3339_seconds(expires).to_string();
    match format {
        Format::Json => output::json(&Document {
            schema: "atoll.cluster-token/v1",
            node: node.to_string(),
            file: out,
            expires: until,
            epoch: epoch.0,
        }),
        Format::Plain => anstream::println!("{node}\t{}\t{until}", out.display()),
        Format::Table => {
            let name = out.file_name().unwrap_or_default().to_string_lossy();
            anstream::println!(
                "\x1b[1mwrote {}\x1b[0m for {node}, good once and until {until}. Bring it to the new \
                 host on a way that nobody can read, and there:\n  atoll cluster join {name} --listen \
                 IP:PORT --dir /etc/atoll/{node}",
                out.display(),
            );
        }
    }
    Ok(())
}

/// The cluster's folder and the profile to speak with: each leads to the other if only one is named.
fn find(folder: Option<PathBuf>, cluster: Option<&str>) -> Result<(Cluster, String), Failed> {
    let text = |path: &Path| path.display().to_string();
    match (folder, cluster) {
        (Some(folder), Some(profile)) => {
            Ok((Cluster::open(&folder).map_err(failed)?, profile.to_owned()))
        }
        (Some(folder), None) => {
            let papers = Cluster::open(&folder).map_err(failed)?;
            let operator = papers.user_folder(OPERATOR).join(PROFILE);
            let profile = if operator.is_file() { operator } else { folder.join(PROFILE) };
            Ok((papers, text(&profile)))
        }
        (None, cluster) => {
            let profile = atoll_testnet::home::resolve(cluster)
                .map_err(|error| Failed::new(Exit::Refused, error.to_string()))?;
            // DIR/users/NAME/profile.toml; in a testnet DIR/profile.toml
            let papers = [1, 3]
                .into_iter()
                .filter_map(|up| profile.ancestors().nth(up))
                .find_map(|folder| Cluster::open(folder).ok());
            let papers = papers.ok_or_else(|| {
                let what = format!("{} does not lie in the folder of a cluster", profile.display());
                Failed::new(Exit::Refused, what)
                    .mend("atoll cluster token DIR --out FILE, where DIR/ca.key is")
            })?;
            Ok((papers, text(&profile)))
        }
    }
}
