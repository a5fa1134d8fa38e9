//! `atoll testnet export`: what the same cluster needs on real hosts.

use std::{net::SocketAddr, path::PathBuf};

use atoll_papers::{ClusterError, Valid};
use atoll_testnet::{
    Home,
    export::{self, Address, ExportError, Exported, Network, PLACEHOLDERS},
};
use clap::{Args, Subcommand, ValueHint};
use serde::Serialize;

use super::{Named, say::failed_file};
use crate::{
    exit::{Exit, Failed},
    output::{self, Format},
};

/// For which hosts.
#[derive(Debug, Subcommand)]
pub enum ExportCommand {
    /// A folder for each host, and a unit that runs its node
    #[command(after_help = "\
Examples:
  atoll testnet export systemd prod --address 10.0.0.1:7400 --address 10.0.0.2:7400 --address n3=10.0.0.3:7400
  atoll testnet export systemd prod          addresses are put in afterwards; prod/README.md says how

Nodes, zones, copies and partitions are those of the testnet. Id, authority and secret are new; data and buckets do
not come along. The folder is one that `atoll cluster init` makes, so `atoll cluster renew` and `token` work with it.")]
    Systemd(SystemdArgs),
    /// A compose file with a container for each node, and this program for them to run
    #[command(after_help = "\
Example:
  atoll testnet export compose out && cd out && docker compose up -d

Nodes, zones, copies and partitions are those of the testnet. Id, authority and secret are new; data and buckets do
not come along.")]
    Compose(ComposeArgs),
}

/// What both take.
#[derive(Args, Debug)]
pub struct CommonArgs {
    /// The folder to make; it must be empty or not there
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    folder: PathBuf,

    /// How many days the first certificates are good
    #[arg(long, value_name = "DAYS", default_value_t = 365)]
    days: u32,

    #[command(flatten)]
    testnet: Named,
}

/// Where the hosts are.
#[derive(Args, Debug)]
pub struct SystemdArgs {
    #[command(flatten)]
    common: CommonArgs,

    /// Where a node listens, UDP; once for each, in their order or by name [default: placeholders]
    #[arg(long = "address", value_name = "[NODE=]IP:PORT", value_parser = address)]
    addresses: Vec<Address>,
}

/// Where the containers are.
#[derive(Args, Debug)]
pub struct ComposeArgs {
    #[command(flatten)]
    common: CommonArgs,

    /// The private network of the containers, a /24 that is free on the host
    #[arg(long, value_name = "NETWORK", default_value_t = Network::default())]
    network: Network,
}

#[derive(Serialize)]
struct Document {
    schema: &'static str,
    name: String,
    directory: PathBuf,
    readme: PathBuf,
    /// The addresses are placeholders.
    placeholders: bool,
    nodes: Vec<NodeDocument>,
}

#[derive(Serialize)]
struct NodeDocument {
    node: String,
    address: String,
    zone: String,
    directory: PathBuf,
}

/// Runs the command.
pub fn run(home: &Home, command: ExportCommand, format: Format) -> Result<(), Failed> {
    let (ExportCommand::Systemd(SystemdArgs { common, .. })
    | ExportCommand::Compose(ComposeArgs { common, .. })) = &command;
    let testnet = common.testnet.open(home)?;
    let valid = Valid::days(common.days).map_err(|error| failed(ExportError::Cluster(error)))?;
    let folder = common.folder.as_path();
    let exported = match &command {
        ExportCommand::Systemd(args) => export::systemd(&testnet, folder, &args.addresses, valid),
        ExportCommand::Compose(args) => {
            let program = super::launcher()?.program;
            export::compose(&testnet, folder, args.network, &program, valid)
        }
    };
    let exported = exported.map_err(failed)?;
    print(testnet.name(), &exported, format);
    Ok(())
}

fn print(name: &str, exported: &Exported, format: Format) {
    let readme = exported.folder.join("README.md");
    let document = |member: &atoll_ring::Member| NodeDocument {
        node: member.id.to_string(),
        address: member.address.to_string(),
        zone: member.zone.clone(),
        directory: exported.folder.join(member.id.to_string()),
    };
    let nodes: Vec<NodeDocument> = exported.nodes.iter().map(document).collect();
    if exported.has_placeholders {
        anstream::eprintln!(
            "\x1b[33mwarning\x1b[0m: the addresses are placeholders ({PLACEHOLDERS}/24 belongs to nobody); put in the real \
             ones before anything is copied, as the README says"
        );
    }
    match format {
        Format::Json => output::json(&Document {
            schema: "atoll.testnet-export/v1",
            name: name.to_owned(),
            directory: exported.folder.clone(),
            readme,
            placeholders: exported.has_placeholders,
            nodes,
        }),
        Format::Table | Format::Plain => {
            let row = |node: NodeDocument| {
                vec![node.node, node.address, node.zone, node.directory.display().to_string()]
            };
            let rows: Vec<Vec<String>> = nodes.into_iter().map(row).collect();
            output::rows(format, &["NODE", "ADDRESS", "ZONE", "DIRECTORY"], &rows);
            anstream::eprintln!("next: {}", readme.display());
        }
    }
}

fn failed(error: ExportError) -> Failed {
    let what = error.to_string();
    let refused = Failed::new(Exit::Refused, what);
    match error {
        ExportError::Missing { .. } => refused.mend("--address for each node, or none at all"),
        ExportError::NoNode { .. } | ExportError::TooMany { .. } => {
            refused.mend("atoll testnet status shows the nodes")
        }
        ExportError::Cluster(ClusterError::NotEmpty { .. }) => {
            refused.mend("a folder that is empty or not there")
        }
        ExportError::Cluster(ClusterError::File(error)) | ExportError::File(error) => {
            failed_file(error)
        }
        ExportError::Cluster(error) => match error.mend() {
            Some(mend) => refused.mend(mend),
            None => refused,
        },
    }
}

fn address(text: &str) -> Result<Address, String> {
    let (node, address) = match text.split_once('=') {
        None => (None, text),
        Some((node, address)) => {
            (Some(node.parse().map_err(|error: atoll_ring::IdError| error.to_string())?), address)
        }
    };
    let address: SocketAddr = address.parse().map_err(|_| {
        format!("{address:?} is not IP:PORT, such as 10.0.0.1:7400; names are not looked up")
    })?;
    Ok(Address { node, address })
}
