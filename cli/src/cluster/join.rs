//! `atoll cluster join`: a new host becomes a node, with the file that `atoll cluster token` wrote.
//!
//! Three steps: the host registers, as the node that it shall become; the node is started by whoever starts programs there;
//! and when the others hear it, the plan of what moves to it is committed. A partition never waits for a node that has not
//! been started. The last step can come later, from anywhere: `atoll cluster join n4`.

use std::{
    io::IsTerminal as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use atoll_client::{Client, ConnectError, NodeId, ProposeError, View};
use atoll_papers::{JoinFile, JoinFileError};
use atoll_ring::{Command, MemberState, Rejected, Wish};
use clap::{Args, ValueHint};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::{absolute, failed};
use crate::{
    change::{
        self, ANSWER_LIMIT, Commit, not_proposed, rejected, statuses, view_of, watch::Line,
        wish::zone,
    },
    exit::{Exit, Failed},
    output::{self, Format},
    request::cannot_connect,
};

/// Who joins, and how.
#[derive(Args)]
#[command(after_help = "\
Examples:
  atoll cluster join n4.join --listen 10.0.0.4:7400 --zone b --dir /etc/atoll/n4
  atoll cluster join n4.join --listen 10.0.0.4:7400 --dir /etc/atoll/n4 --later
  atoll cluster join n4              the last step alone, from where the operator's profile is

It registers the node, writes what the node needs into DIR and says how to start it. When the others hear the node,
the plan is shown and, after a yes, committed. With --later it stops before that. Nothing moves to a node before it
runs.")]
pub struct JoinArgs {
    /// The file from `atoll cluster token`, or a node that has registered, such as n4
    #[arg(value_name = "FILE|NODE", value_hint = ValueHint::FilePath)]
    what: String,

    /// With a file: where the node will listen, as the others reach it
    #[arg(long, value_name = "IP:PORT")]
    listen: Option<SocketAddr>,

    /// With a file: what fails together with the node [default: z1]
    #[arg(long, value_name = "ZONE")]
    zone: Option<String>,

    /// With a file: its share of the data relative to the others [default: 1]
    #[arg(long, value_name = "WEIGHT")]
    weight: Option<u32>,

    /// With a file: the folder to make for the node; it must be empty or not there
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    dir: Option<PathBuf>,

    /// With a file: only register, and write what the node needs
    #[arg(long)]
    later: bool,

    #[command(flatten)]
    commit: Commit,
}

/// How long the node may take to be started and heard.
const START_LIMIT: Duration = Duration::from_secs(600);

/// How long a registration of which nobody knows whether it was heard may take to show.
const UNKNOWN_LIMIT: Duration = Duration::from_secs(10);

const LOOK_EVERY: Duration = Duration::from_millis(500);

const PROPOSE_LIMIT: Duration = Duration::from_secs(12);

#[derive(Serialize)]
struct Document {
    schema: &'static str,
    node: String,
    epoch: u64,
    config: PathBuf,
    start: String,
}

/// Runs the command.
pub async fn run(args: JoinArgs, cluster: Option<&str>, format: Format) -> Result<(), Failed> {
    let path = Path::new(&args.what);
    let node = args.what.parse::<NodeId>().ok().filter(|_| !path.exists());
    match (node, args.listen, &args.dir) {
        (Some(_), Some(_), _) | (Some(_), _, Some(_)) => {
            let what = format!("there is no file {}", args.what);
            Err(Failed::new(Exit::Refused, what)
                .mend("a node that has registered joins without --listen and --dir"))
        }
        (Some(node), None, None) => {
            let client = change::connect(cluster).await?;
            let done = change::make(&client, Wish::Join { node }, args.commit, format).await;
            client.close().await;
            done
        }
        (None, Some(listen), Some(dir)) => {
            let file = JoinFile::load(path).map_err(|error| bad_file(&error))?;
            file.check_time(SystemTime::now()).map_err(|error| bad_file(&error))?;
            from_file(&file, listen, dir, &args, format).await
        }
        (None, _, _) => Err(Failed::new(
            Exit::Refused,
            "where will the node listen, and where do its papers go? Nothing was changed",
        )
        .mend(format!("atoll cluster join {} --listen IP:PORT --dir DIR", args.what))),
    }
}

async fn from_file(
    file: &JoinFile,
    listen: SocketAddr,
    dir: &Path,
    args: &JoinArgs,
    format: Format,
) -> Result<(), Failed> {
    let (node, weight) = (file.node, args.weight.unwrap_or(1));
    check(node, listen, weight)?;
    let zone = zone(args.zone.as_deref().unwrap_or("z1"))?;
    let invitation = file.invitation;
    let register = Command::Register { invitation, node, address: listen, zone, weight };
    let new = file.unpack(dir).map_err(failed)?;
    let registered = async {
        let profile = file.profile(dir);
        let client = Client::connect_for_node(&profile, node).await;
        let client = Arc::new(client.map_err(|error| cannot_join(&error))?);
        let view = registered(&client, &register, node, listen).await?;
        Ok((client, view))
    };
    let (client, view) = match registered.await {
        Ok(both) => both,
        Err(error) => {
            new.remove(); // nobody is waiting for this node
            return Err(error);
        }
    };
    let config = new.finish(&view, listen).map_err(|error| {
        let what = format!("{node} is registered, but {error}");
        Failed::new(Exit::Other, what).mend(format!("atoll cluster leave {node}, and begin anew"))
    })?;
    let start = format!("atoll node run --config {} --first-start", absolute(&config).display());
    let asks_later = args.later || (!args.commit.yes && !std::io::stdin().is_terminal());
    match format {
        Format::Json if asks_later => output::json(&Document {
            schema: "atoll.cluster-join/v1",
            node: node.to_string(),
            epoch: view.epoch().0,
            config: absolute(&config),
            start,
        }),
        Format::Plain if asks_later => {
            anstream::println!("{node}\t{}\t{}", view.epoch(), absolute(&config).display());
        }
        Format::Json | Format::Plain | Format::Table => {
            // what is printed on stdout is the change itself
            anstream::eprintln!(
                "\x1b[1m{node} is registered\x1b[0m, epoch {}. It owns nothing yet. Start it, this \
                 once with --first-start:\n  {start}",
                view.epoch()
            );
            if asks_later {
                anstream::eprintln!("then, here or anywhere:\n  atoll cluster join {node}");
            }
        }
    }
    if !asks_later {
        until_heard(&client, node).await?;
        change::make(&client, Wish::Join { node }, args.commit, format).await?;
    }
    client.close().await;
    Ok(())
}

/// What the cluster would refuse, or could not know, said before anything is written.
fn check(node: NodeId, address: SocketAddr, weight: u32) -> Result<(), Failed> {
    if weight == 0 {
        let why = Rejected::WeightZero { node };
        return Err(Failed { mend: Some("--weight 1".into()), ..rejected(&why) });
    }
    if address.port() == 0 || address.ip().is_unspecified() || address.ip().is_multicast() {
        let what = format!("{node} cannot be reached at {address}; nothing was changed");
        return Err(Failed::new(Exit::Refused, what)
            .mend("--listen with the address that the other hosts use"));
    }
    Ok(())
}

/// Registers, and gives a view that knows the node.
async fn registered(
    client: &Arc<Client>,
    register: &Command,
    node: NodeId,
    listen: SocketAddr,
) -> Result<Arc<View>, Failed> {
    match client.propose(register, PROPOSE_LIMIT).await {
        Ok(epoch) => view_of(client, epoch).await,
        Err(error @ ProposeError::Unknown(_)) => {
            let deadline = Instant::now() + UNKNOWN_LIMIT;
            loop {
                let view = client.refresh(ANSWER_LIMIT).await;
                if view.member(node).is_some_and(|member| member.address == listen) {
                    return Ok(view);
                }
                if Instant::now() >= deadline {
                    return Err(not_proposed(&error));
                }
                sleep(LOOK_EVERY).await;
            }
        }
        Err(error) => Err(not_proposed(&error)),
    }
}

/// Waits until a member hears the node.
async fn until_heard(client: &Arc<Client>, node: NodeId) -> Result<(), Failed> {
    let deadline = Instant::now() + START_LIMIT;
    let mut line = Line::new();
    loop {
        let view = client.refresh(ANSWER_LIMIT).await;
        if change::is_heard(node, &statuses(client, &view).await) {
            line.end();
            return Ok(());
        }
        if view.member(node).is_none_or(|member| member.state != MemberState::Joining) {
            line.end();
            return Ok(()); // somebody else went on; the plan will say
        }
        if Instant::now() >= deadline {
            line.end();
            let what = format!("{node} was not heard; it stays registered and owns nothing");
            return Err(Failed::new(Exit::Timeout, what)
                .mend(format!("start it, then: atoll cluster join {node}")));
        }
        line.say(&format!(
            "waiting until {node} is started (Ctrl-C: later, atoll cluster join {node})"
        ));
        sleep(LOOK_EVERY).await;
    }
}

fn bad_file(error: &JoinFileError) -> Failed {
    let failed = Failed::new(Exit::Refused, format!("{error}\n  nothing was changed"));
    match error {
        JoinFileError::Expired { .. } | JoinFileError::Malformed { .. } => failed
            .mend("another one, from where the authority's key is: atoll cluster token --out FILE"),
        JoinFileError::Exposed(_) | JoinFileError::Read { .. } => failed,
    }
}

/// Nobody answered as he should. Who is of another cluster shows another certificate, or says so.
fn cannot_join(error: &ConnectError) -> Failed {
    let is_foreign = match error {
        ConnectError::Unreachable { tried } => tried
            .iter()
            .any(|(_, why)| why.contains("certificate") || why.contains("is of cluster")),
        ConnectError::Profile(_)
        | ConnectError::Identity(_)
        | ConnectError::Socket(_)
        | ConnectError::NoSeeds => false,
    };
    if is_foreign {
        let what = format!("this join file is of another cluster: {error}\n  nothing was changed");
        return Failed::new(Exit::Refused, what)
            .mend("one of this cluster: atoll cluster token --out FILE");
    }
    let failed = cannot_connect(error, None);
    Failed { what: format!("{}\n  nothing was changed", failed.what), mend: None, ..failed }
}
