//! `atoll cluster`: a cluster on several machines, its papers and its members.
//!
//! The papers lie in a folder that is made once; then it gives out and renews certificates, and talks to no node: what is
//! made is copied to its host by whoever runs the cluster ([`atoll_papers::cluster`] says what the folder holds). The
//! members change while the cluster runs: [`token`] and [`join`] let nodes in, the wishes in [`crate::change::wish`] move
//! data and let nodes go, [`status`] shows who is a member, [`recover`] is for the day on which most voters are lost.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use atoll_client::NodeId;
use atoll_papers::{
    Cluster, ClusterError, Plan, Renewed, Valid,
    cluster::{CLIENT, OPERATOR},
    papers::PROFILE,
};
use atoll_ring::{Member, MemberState, Partitions};
use atoll_transport::renewal::LOOK_EVERY;
use atoll_wire::Role;
use clap::{Args, Subcommand, ValueEnum, ValueHint};
use serde::Serialize;

use crate::{
    change::{
        self,
        wish::{Change, Leave, Rebalance, Remove, Replace, Replicas, Reweight, Wished, Zone},
    },
    ending::Ending,
    exit::{Exit, Failed},
    output::{self, Format},
};

mod join;
mod recover;
pub mod status;
mod token;

/// A cluster on several machines: its papers, its members, and changes of both
#[derive(Subcommand)]
#[command(after_help = "\
Papers, without talking to a node:
  atoll cluster init prod --node 10.0.0.1:7400 --node 10.0.0.2:7400 --node 10.0.0.3:7400
  atoll cluster client-cert prod --name alice
  atoll cluster renew prod n2                then copy prod/n2/node.pem over the old one on n2's host
  atoll cluster renew prod --all

Members, while it runs; each change shows its plan and asks:
  atoll cluster token prod --out n4.join     where the authority's key is; bring n4.join to the new host
  atoll cluster join n4.join --listen 10.0.0.4:7400 --dir /etc/atoll/n4
                                             there; says how to start the node, then joins it
  atoll cluster leave n2                     gives away all it owns, then it is gone
  atoll cluster remove --dead n2             it does not come back
  atoll cluster replace n2 --with n4         n4, which has registered, takes exactly its place
  atoll cluster status                       members, their shares, who votes, what moves

`atoll status` shows how each node is, `atoll cluster status` who is a member and what moves,
`atoll testnet status` the processes on this machine.")]
pub enum ClusterCommand {
    /// Make a cluster: authority, secret, first view, a folder for each node, the first two users
    Init(InitArgs),
    /// Give a user a certificate and a profile
    ClientCert(ClientCertArgs),
    /// Sign certificates again; nodes take them without a restart
    Renew(RenewArgs),
    /// Let one node in: write the file with which it joins
    Token(token::TokenArgs),
    /// Make this host a node, with a file from `token`; or let a registered node have its share
    Join(join::JoinArgs),
    /// A node gives away all it owns, then goes for good
    #[command(after_help = "\
Example:
  atoll cluster leave n2 --wait

It serves until everything has moved. Then it is removed, its process ends by itself, and its id is never used
again. Refused if fewer nodes than replicas would be left.")]
    Leave(Change<Leave>),
    /// A node is gone for good: the others take over what it owned, from the copies they have
    #[command(after_help = "\
Example:
  atoll cluster remove --dead n2

What it alone had acknowledged is lost. Refused while it answers, or any node hears it: then let it leave.
Should it come back, it is told so and stops; it can never vote or acknowledge again.")]
    Remove(Change<Remove>),
    /// A node that has registered takes exactly the place of another
    #[command(after_help = "\
Examples:
  atoll cluster join n6.join --listen 10.0.0.6:7400 --dir /etc/atoll/n6 --later     on the new host
  atoll cluster replace n2 --with n6
  atoll cluster replace n2 --with n6 --dead                                         n2 does not come back")]
    Replace(Change<Replace>),
    /// Change a node's share of the data
    #[command(
        after_help = "Example:\n  atoll cluster reweight n2 3       three times as much as a node of weight 1"
    )]
    Reweight(Change<Reweight>),
    /// Say that a node stands in another zone
    #[command(after_help = "Example:\n  atoll cluster zone n2 rack-b")]
    Zone(Change<Zone>),
    /// Change how many owners each partition has
    #[command(after_help = "\
Example:
  atoll cluster replicas 4

Buckets keep the number of copies they were made with; owners beyond it stand by for buckets with more.")]
    Replicas(Change<Replicas>),
    /// Move whatever is not as the planner would have it, after a cancelled change, say
    #[command(after_help = "Example:\n  atoll cluster rebalance")]
    Rebalance(Change<Rebalance>),
    /// Who is a member, how much each owns, who votes, and what moves; exits 5 if one is silent or the ring is frozen
    Status,
    /// Most voters are lost for good: go on from what one node knows
    Recover(recover::RecoverArgs),
}

/// What a new cluster shall be.
#[derive(Args)]
#[command(after_help = "\
Example:
  atoll cluster init prod --node 10.0.0.1:7400,zone=a --node 10.0.0.2:7400,zone=b --node n7=10.0.0.3:7400,zone=c

Addresses are UDP and are those by which the nodes reach each other; names are not looked up. Nodes without a
name are n1, n2 and so on by their place. Partitions and addresses cannot be changed later; nodes come and go
(`atoll cluster token`, `join`, `leave`).")]
pub struct InitArgs {
    /// The folder to make; it must be empty or not there
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    folder: PathBuf,

    /// A node; repeat it for each
    #[arg(long = "node", value_name = "[NAME=]IP:PORT[,zone=ZONE][,weight=N]", required = true)]
    nodes: Vec<NodeArg>,

    /// Copies of each key
    #[arg(long, value_name = "N", default_value_t = 3)]
    replicas: u8,

    /// Partitions of the ring, a power of two
    #[arg(long, value_name = "Q", default_value_t = Partitions::DEFAULT.count())]
    partitions: u32,

    /// How many days the first certificates are good
    #[arg(long, value_name = "DAYS", default_value_t = 365)]
    days: u32,
}

/// A new user.
#[derive(Args)]
#[command(after_help = "\
Example:
  atoll cluster client-cert prod --name alice
  atoll get greeting --cluster prod/users/alice/profile.toml

The folder it makes is all that the user needs; hand it over on a way that nobody can read. A certificate
cannot be called back before it expires, so give it few days.")]
pub struct ClientCertArgs {
    /// The folder of the cluster
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    folder: PathBuf,

    /// Who it is for; stands in the certificate, for people
    #[arg(long)]
    name: String,

    /// What the user may do
    #[arg(long, value_enum, default_value_t)]
    role: UserRole,

    /// How many days it is good
    #[arg(long, value_name = "DAYS", default_value_t = 90)]
    days: u32,

    /// Where to write it [default: DIR/users/NAME]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    out: Option<PathBuf>,
}

/// Whose certificates are signed again.
#[derive(Args)]
#[command(after_help = "\
Each certificate is replaced in its place, with the same names and the same key: the key need not be here, and
nothing secret has to be copied. A node looks at its files every two seconds, so copying the new certificate
over the old one is all. It checks the new one and keeps the old if it is of no use; `atoll status` says so.
With --new-keys the key is replaced as well; copy the key first, then the certificate.")]
pub struct RenewArgs {
    /// The folder of the cluster
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    folder: PathBuf,

    /// Nodes, such as n2, and users, such as client
    #[arg(value_name = "NAME")]
    names: Vec<String>,

    /// All nodes and users in the folder
    #[arg(long, conflicts_with = "names")]
    all: bool,

    /// How many days from now they are good
    #[arg(long, value_name = "DAYS", default_value_t = 365)]
    days: u32,

    /// Make new keys too: somebody may have seen the old ones
    #[arg(long)]
    new_keys: bool,
}

/// What a user may do.
#[derive(Clone, Copy, Default, ValueEnum)]
enum UserRole {
    /// Read and write
    #[default]
    Client,
    /// Read, write, and what is reserved for whoever runs the cluster
    Operator,
}

impl UserRole {
    fn roles(self) -> &'static [Role] {
        match self {
            UserRole::Client => &[Role::Client],
            UserRole::Operator => &[Role::Client, Role::Operator],
        }
    }
}

/// A node as it stands on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
struct NodeArg {
    id: Option<NodeId>,
    address: SocketAddr,
    zone: String,
    weight: u32,
}

impl std::str::FromStr for NodeArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(',');
        let first = parts.next().unwrap_or_default();
        let (id, address) = match first.split_once('=') {
            None => (None, first),
            Some((name, address)) => {
                (Some(name.parse().map_err(|e: atoll_ring::IdError| e.to_string())?), address)
            }
        };
        let address = address.parse().map_err(|_| {
            format!(
                "{address:?} is not IP:PORT, such as 10.0.0.1:7400 or [fd00::1]:7400; names are not looked up"
            )
        })?;
        let mut node = NodeArg { id, address, zone: "z1".into(), weight: 1 };
        for part in parts {
            match part.split_once('=') {
                Some(("zone", zone)) if !zone.is_empty() => node.zone = zone.to_owned(),
                Some(("weight", weight)) => {
                    node.weight =
                        weight.parse().map_err(|_| format!("weight={weight} is no number"))?;
                }
                Some(_) | None => {
                    return Err(format!("{part:?}: after the address come zone=ZONE and weight=N"));
                }
            }
        }
        Ok(node)
    }
}

#[derive(Serialize)]
struct InitDocument {
    schema: &'static str,
    cluster: String,
    directory: PathBuf,
    expires: String,
    nodes: Vec<NodeDocument>,
    users: Vec<UserDocument>,
}

#[derive(Serialize)]
struct NodeDocument {
    node: String,
    address: String,
    zone: String,
    directory: PathBuf,
}

#[derive(Serialize)]
struct UserDocument {
    name: String,
    profile: PathBuf,
}

#[derive(Serialize)]
struct ClientCertDocument {
    schema: &'static str,
    name: String,
    profile: PathBuf,
    expires: String,
}

#[derive(Serialize)]
struct RenewDocument {
    schema: &'static str,
    renewed: Vec<RenewedDocument>,
}

#[derive(Serialize)]
struct RenewedDocument {
    name: String,
    certificate: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<PathBuf>,
    expires: String,
}

impl ClusterCommand {
    /// Whether it talks to nodes, so that it matters to which.
    pub fn talks(&self) -> bool {
        !matches!(
            self,
            ClusterCommand::Init(_) | ClusterCommand::ClientCert(_) | ClusterCommand::Renew(_)
        )
    }
}

/// Runs the command.
pub async fn run(
    command: ClusterCommand,
    cluster: Option<&str>,
    format: Format,
) -> Result<(), Failed> {
    match command {
        ClusterCommand::Init(args) => init(args, format),
        ClusterCommand::ClientCert(args) => client_cert(args, format),
        ClusterCommand::Renew(args) => renew(args, format),
        ClusterCommand::Token(args) => token::run(args, cluster, format).await,
        ClusterCommand::Join(args) => join::run(args, cluster, format).await,
        ClusterCommand::Leave(args) => change(args, cluster, format).await,
        ClusterCommand::Remove(args) => change(args, cluster, format).await,
        ClusterCommand::Replace(args) => change(args, cluster, format).await,
        ClusterCommand::Reweight(args) => change(args, cluster, format).await,
        ClusterCommand::Zone(args) => change(args, cluster, format).await,
        ClusterCommand::Replicas(args) => change(args, cluster, format).await,
        ClusterCommand::Rebalance(args) => change(args, cluster, format).await,
        ClusterCommand::Status => status::run(cluster, format).await,
        ClusterCommand::Recover(args) => recover::run(&args, cluster, format).await,
    }
}

async fn change<W: Wished + Args>(
    args: Change<W>,
    cluster: Option<&str>,
    format: Format,
) -> Result<(), Failed> {
    let wish = args.what.wish()?;
    let client = change::connect(cluster).await?;
    let done = change::make(&client, wish, args.commit, format).await;
    client.close().await;
    done
}

fn init(args: InitArgs, format: Format) -> Result<(), Failed> {
    let InitArgs { folder, nodes, replicas, partitions, days } = args;
    let partitions = Partitions::new(partitions)
        .map_err(|error| Failed::new(Exit::Refused, error.to_string()))?;
    let valid = Valid::days(days).map_err(failed)?;
    let members = members(nodes);
    let plan = Plan { members, replicas, partitions, valid };
    let (cluster, warnings) = Cluster::create(&folder, plan).map_err(failed)?;
    for warning in warnings {
        anstream::eprintln!("\x1b[33mwarning\x1b[0m: {warning}");
    }
    let expires = expires_in(days);
    let view = cluster.view();
    match format {
        Format::Json => output::json(&InitDocument {
            schema: "atoll.cluster-init/v1",
            cluster: view.cluster().to_string(),
            directory: folder,
            expires,
            nodes: view
                .members()
                .iter()
                .map(|member| NodeDocument {
                    node: member.id.to_string(),
                    address: member.address.to_string(),
                    zone: member.zone.clone(),
                    directory: cluster.node_folder(member.id),
                })
                .collect(),
            users: [OPERATOR, CLIENT]
                .map(|name| UserDocument {
                    name: name.to_owned(),
                    profile: cluster.user_folder(name).join(PROFILE),
                })
                .into(),
        }),
        Format::Table | Format::Plain => {
            let row = |member: &Member| {
                let folder = cluster.node_folder(member.id).display().to_string();
                vec![member.id.to_string(), member.address.to_string(), member.zone.clone(), folder]
            };
            let rows: Vec<Vec<String>> = view.members().iter().map(row).collect();
            if format == Format::Table {
                anstream::println!(
                    "\x1b[1mmade {}\x1b[0m, cluster {}: {} copies of each key, {} partitions\n",
                    folder.display(),
                    view.cluster(),
                    view.replicas(),
                    view.partitions().count()
                );
            }
            output::rows(format, &["NODE", "ADDRESS", "ZONE", "FOLDER"], &rows);
            if format == Format::Table {
                what_next(&cluster, &folder, &expires);
            }
        }
    }
    Ok(())
}

fn what_next(cluster: &Cluster, folder: &Path, expires: &str) {
    let first = &cluster.view().members()[0];
    let profile =
        |user: &str| absolute(&cluster.user_folder(user).join(PROFILE)).display().to_string();
    anstream::println!(
        "
Next:
  1. Copy each folder to its host, so that only the node's user can read it:
       scp -rp {folder} {ip}:/etc/atoll/
  2. Start the node there. With --first-start this once, later without it:
       atoll node run --config /etc/atoll/{node}/node.toml --first-start
  3. Ask them how they are:
       export ATOLL_CLUSTER={operator}
       atoll status
     Who only reads and writes takes {client}

Take \x1b[1m{key}\x1b[0m off this machine and keep it safe: whoever has it can make nodes and operators of
this cluster. It is needed only to give out and renew certificates. They expire on {expires};
`atoll status` speaks of it 30 days before:
       atoll cluster renew {dir} --all",
        folder = cluster.node_folder(first.id).display(),
        ip = first.address.ip(),
        node = first.id,
        operator = profile(OPERATOR),
        client = profile(CLIENT),
        key = cluster.authority_key().display(),
        dir = folder.display(),
    );
}

fn client_cert(args: ClientCertArgs, format: Format) -> Result<(), Failed> {
    let ClientCertArgs { folder, name, role, days, out } = args;
    let valid = Valid::days(days).map_err(failed)?;
    let made = Cluster::open(&folder)
        .and_then(|cluster| cluster.issue_user(&name, role.roles(), valid, out.as_deref()))
        .map_err(failed)?;
    let (profile, expires) = (made.join(PROFILE), expires_in(days));
    match format {
        Format::Json => output::json(&ClientCertDocument {
            schema: "atoll.cluster-client-cert/v1",
            name,
            profile,
            expires,
        }),
        Format::Plain => anstream::println!("{}\t{expires}", profile.display()),
        Format::Table => anstream::println!(
            "made {}, good until {expires}\n  export ATOLL_CLUSTER={}",
            made.display(),
            absolute(&profile).display()
        ),
    }
    Ok(())
}

fn renew(args: RenewArgs, format: Format) -> Result<(), Failed> {
    let RenewArgs { folder, names, all, days, new_keys } = args;
    let valid = Valid::days(days).map_err(failed)?;
    let cluster = Cluster::open(&folder).map_err(failed)?;
    let names = if all { cluster.names().map_err(failed)? } else { names };
    if names.is_empty() {
        let known = cluster.names().map_err(failed)?.join(", ");
        return Err(Failed::new(
            Exit::Refused,
            "whose certificate? Name nodes or users, or say --all",
        )
        .mend(format!("there are {known}")));
    }
    let renewed = cluster.renew(&names, valid, new_keys).map_err(failed)?;
    let date = |one: &Renewed| Ending::at(one.expires).date();
    match format {
        Format::Json => output::json(&RenewDocument {
            schema: "atoll.cluster-renew/v1",
            renewed: renewed
                .iter()
                .map(|one| RenewedDocument {
                    name: one.name.clone(),
                    certificate: one.certificate.clone(),
                    key: one.key.clone(),
                    expires: date(one),
                })
                .collect(),
        }),
        Format::Table | Format::Plain => {
            let row = |one: &Renewed| {
                vec![one.name.clone(), date(one), one.certificate.display().to_string()]
            };
            let rows: Vec<Vec<String>> = renewed.iter().map(row).collect();
            output::rows(format, &["NAME", "EXPIRES", "CERTIFICATE"], &rows);
            if format == Format::Table {
                let order = if new_keys {
                    "Copy each key to its host, then the certificate"
                } else {
                    "The keys are the old ones. Copy each certificate over the old one on its host"
                };
                anstream::println!(
                    "\n{order}; a running node takes it within {} s, without a restart.",
                    LOOK_EVERY.as_secs()
                );
            }
        }
    }
    Ok(())
}

/// Nodes without a name take the number of their place.
fn members(nodes: Vec<NodeArg>) -> Vec<Member> {
    (1..)
        .zip(nodes)
        .map(|(place, node)| Member {
            id: node.id.unwrap_or(NodeId(place)),
            incarnation: 0,
            address: node.address,
            zone: node.zone,
            weight: node.weight,
            state: MemberState::Active,
        })
        .collect()
}

/// For a variable that is read in other folders too.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn expires_in(days: u32) -> String {
    Ending::at(SystemTime::now() + Duration::from_secs(u64::from(days) * 86_400)).date()
}

fn failed(error: ClusterError) -> Failed {
    let failed = Failed::new(Exit::Refused, error.to_string());
    match error.mend() {
        Some(mend) => failed.mend(mend),
        None => failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A node on the command line: what may be left out, and what is refused with what it should be.
    #[test]
    fn nodes_on_the_command_line() {
        let parse = |text: &str| text.parse::<NodeArg>();
        let node = parse("10.0.0.1:7400").unwrap();
        assert_eq!((node.id, &*node.zone, node.weight), (None, "z1", 1));
        let node = parse("n7=[fd00::1]:7400,weight=3,zone=east").unwrap();
        assert_eq!((node.id, &*node.zone, node.weight), (Some(NodeId(7)), "east", 3));
        for (text, word) in [
            ("10.0.0.1", "IP:PORT"),
            ("host1:7400", "names are not looked up"),
            ("", "IP:PORT"),
            ("seven=10.0.0.1:7400", "seven"),
            ("10.0.0.1:7400,rack=7", "rack=7"),
            ("10.0.0.1:7400,zone=", "zone="),
            ("10.0.0.1:7400,weight=much", "weight=much"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(word), "{error:?} does not speak of {word}");
        }
        let nodes = ["10.0.0.1:1", "n7=10.0.0.2:1", "10.0.0.3:1"].map(|text| parse(text).unwrap());
        let ids: Vec<u32> = members(nodes.into()).iter().map(|member| member.id.0).collect();
        assert_eq!(ids, [1, 7, 3]);
    }
}
