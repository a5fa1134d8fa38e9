//! How every change of the ring is made: planned, shown, asked about, committed.
//!
//! The plan is made here, from a view and a wish, by the same code that the cluster judges it with ([`atoll_ring::Plan`]). It
//! fits that view only: if somebody is faster, the commit is refused and nothing has changed. [`plan`] is what a plan looks
//! like and what it may cost, [`watch`] waits while partitions move.

use std::{
    io::{BufRead as _, IsTerminal as _, Write as _},
    sync::Arc,
    time::Duration,
};

use atoll_client::{Client, ErrorCode, NodeId, NodeStatus, ProposeError, RequestError, View};
use atoll_ring::{Command, Epoch, Plan, Rejected, Wish};
use clap::Args;
use serde::Serialize;
use tokio::task::JoinSet;

use crate::{
    exit::{Exit, Failed},
    output::{self, Format},
    receipt::{self, Asked},
    request,
};

pub mod plan;
pub mod watch;
pub mod wish;

use plan::{Cost, Shown};

/// How a change is committed.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct Commit {
    /// Commit without asking
    #[arg(short, long)]
    pub yes: bool,

    /// Stay until everything has moved
    #[arg(long)]
    pub wait: bool,
}

/// How long a proposal may take, a change of leaders in between included.
const PROPOSE_LIMIT: Duration = Duration::from_secs(12);

/// How long a node may take to answer a question about itself.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// How long the members may take to show the view of a change that is committed.
const VIEW_LIMIT: Duration = Duration::from_secs(5);

/// A client with the newest view that anybody has.
pub async fn connect(cluster: Option<&str>) -> Result<Arc<Client>, Failed> {
    let client = Arc::new(request::connect(cluster).await?);
    client.refresh(ANSWER_LIMIT).await;
    Ok(client)
}

/// What each member says of itself; `None`: it does not answer.
pub async fn statuses(client: &Arc<Client>, view: &View) -> Vec<(NodeId, Option<NodeStatus>)> {
    let mut asked = JoinSet::new();
    for member in view.members() {
        let (client, node) = (client.clone(), member.id);
        asked.spawn(async move { (node, client.status(node, ANSWER_LIMIT).await.ok()) });
    }
    let mut statuses = asked.join_all().await;
    statuses.sort_by_key(|(node, _)| *node);
    statuses
}

#[derive(Serialize)]
struct Document {
    schema: &'static str,
    cluster: String,
    /// What was committed.
    change: String,
    epoch: u64,
    #[serde(flatten)]
    shown: Shown,
}

/// Plans a wish, shows what it means, asks, commits it, and stays with it if that is wanted.
pub async fn make(
    client: &Arc<Client>,
    wish: Wish,
    commit: Commit,
    format: Format,
) -> Result<(), Failed> {
    let view = client.view();
    let statuses = statuses(client, &view).await;
    check_dead(&wish, &statuses)?; // what else is wrong with it matters less
    let made = Plan::of(&view, &wish).map_err(|why| rejected(&why))?;
    show_and_commit(client, &view, &made, Stale::PlanAgain, commit, format).await
}

/// What to do if the ring has changed between the plan and its commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stale {
    /// Plan again: the ring also changes by itself, other voters for one. What was shown to somebody who was asked must
    /// still be what is committed.
    PlanAgain,
    /// It was agreed that this very plan is committed or none.
    Refuse,
}

/// The same for a plan that was made before.
pub async fn show_and_commit(
    client: &Arc<Client>,
    view: &View,
    made: &Plan,
    stale: Stale,
    commit: Commit,
    format: Format,
) -> Result<(), Failed> {
    let statuses = statuses(client, view).await;
    check_dead(&made.wish, &statuses)?;
    check_started(&made.wish, &statuses)?;
    let cost = Cost::of(view, made, &statuses);
    if format == Format::Table {
        plan::print(view, made, &cost, &statuses);
        anstream::println!();
    }
    if !commit.yes {
        confirm("Commit it?")?;
    }
    let epoch = commit_plan(client, made, stale, commit.yes).await?;
    let change = plan::words(&made.wish);
    match format {
        Format::Json => output::json(&Document {
            schema: "atoll.ring-change/v1",
            cluster: view.cluster().to_string(),
            change,
            epoch: epoch.0,
            shown: Shown::of(made, &cost),
        }),
        Format::Plain => anstream::println!("{}", epoch.0),
        Format::Table => {
            anstream::println!("\x1b[1mcommitted\x1b[0m as epoch {epoch}: {change}");
            if !commit.wait && !made.moves.is_empty() {
                anstream::println!(
                    "It moves by itself from now on.\n  atoll ring moves --watch    shows how far \
                     it is\n  atoll ring cancel           leaves what has not moved where it is"
                );
            }
        }
    }
    client.view_of(epoch, VIEW_LIMIT).await;
    if commit.wait { watch::until_still(client, &made.wish).await } else { Ok(()) }
}

/// Commits a plan. `unseen`: nobody was asked about it, so that another one for the same wish will do.
pub async fn commit_plan(
    client: &Arc<Client>,
    made: &Plan,
    stale: Stale,
    unseen: bool,
) -> Result<Epoch, Failed> {
    let mut plan = made.clone();
    for _ in 0..PLANS_MAX {
        let error = match client.propose(&plan.command(), PROPOSE_LIMIT).await {
            Ok(epoch) => return Ok(epoch),
            Err(error) => error,
        };
        let view = client.refresh(ANSWER_LIMIT).await;
        let is_stale = matches!(error, ProposeError::Rejected(_)) && view.epoch() != plan.base;
        if stale == Stale::Refuse || !is_stale {
            return Err(not_proposed(&error));
        }
        let again = Plan::of(&view, &made.wish).map_err(|why| rejected(&why))?;
        if !unseen && again.moves != made.moves {
            return Err(not_proposed(&error));
        }
        plan = again;
    }
    let what = "the ring changes faster than it can be planned for\n  nothing was changed";
    Err(Failed::new(Exit::Refused, what).mend("atoll ring history; then the same again"))
}

/// The ring changes by itself now and then, and not for long.
const PLANS_MAX: usize = 5;

/// Puts a command into the log.
pub async fn propose(client: &Arc<Client>, command: &Command) -> Result<Epoch, Failed> {
    client.propose(command, PROPOSE_LIMIT).await.map_err(|error| not_proposed(&error))
}

/// Waits until a member shows the view of a change that was committed.
pub async fn view_of(client: &Arc<Client>, epoch: Epoch) -> Result<Arc<View>, Failed> {
    client.view_of(epoch, VIEW_LIMIT).await.ok_or_else(|| {
        let what = format!("epoch {epoch} is committed, and no member shows it yet");
        Failed::new(Exit::Timeout, what).mend("atoll cluster status")
    })
}

/// Why nothing was committed, or nobody knows.
pub fn not_proposed(error: &ProposeError) -> Failed {
    let nothing = |exit, why: &dyn std::fmt::Display| {
        Failed::new(exit, format!("{why}\n  nothing was changed"))
    };
    match error {
        ProposeError::Rejected(why) => nothing(Exit::Refused, why),
        ProposeError::Frozen(why) => {
            let why =
                if why.contains("frozen") { why.clone() } else { format!("ring frozen: {why}") };
            nothing(Exit::QuorumNotMet, &why).mend(
                "atoll cluster status tells who votes and who is missing; reads and writes go on",
            )
        }
        ProposeError::Removed(why) => nothing(Exit::Removed, why),
        ProposeError::Unknown(_) => Failed::new(Exit::Timeout, error.to_string())
            .mend("see whether it was: atoll ring history"),
        ProposeError::Request(error) => not_asked(error),
    }
}

/// A question about the ring that was not answered.
pub fn not_asked(error: &RequestError) -> Failed {
    match error {
        RequestError::Failed(failure) if failure.code == ErrorCode::NotPermitted => Failed::new(
            Exit::Refused,
            format!("this certificate is none of an operator: {}", failure.detail),
        )
        .mend("atoll cluster client-cert DIR --name NAME --role operator"),
        _ => receipt::failure(Asked::Read, error),
    }
}

/// A wish that does not fit the ring as it is, with what to type next.
pub fn rejected(why: &Rejected) -> Failed {
    let failed = Failed::new(Exit::Refused, format!("{why}\n  nothing was changed"));
    match why {
        Rejected::OtherEpoch { .. } => failed.mend("plan it again: atoll ring plan … > FILE"),
        Rejected::TooFewLeft { .. } => failed.mend(
            "atoll cluster token --out FILE, then on the new host atoll cluster join FILE; or \
             atoll cluster replace OLD --with NEW",
        ),
        Rejected::WeightZero { node } => {
            failed.mend(format!("atoll cluster reweight {node} 1, or atoll cluster leave {node}"))
        }
        Rejected::NoMember { .. } | Rejected::WrongState { .. } | Rejected::StillOwns { .. } => {
            failed.mend("atoll cluster status")
        }
        Rejected::Replicas { .. } => failed.mend("a number in between, or add nodes first"),
        Rejected::NothingMoves => failed.mend("atoll ring moves"),
        // the others name what to type
        _ => failed,
    }
}

/// A node that is there is not declared dead: what it alone has acknowledged would be lost.
pub fn check_dead(wish: &Wish, statuses: &[(NodeId, Option<NodeStatus>)]) -> Result<(), Failed> {
    let (node, next) = match wish {
        Wish::RemoveDead { node } => (*node, format!("atoll cluster leave {node}")),
        Wish::Replace { old, new, dead: true } => {
            (*old, format!("atoll cluster replace {old} --with {new}"))
        }
        Wish::Replace { dead: false, .. }
        | Wish::Join { .. }
        | Wish::Leave { .. }
        | Wish::Reweight { .. }
        | Wish::Rezone { .. }
        | Wish::Replicas { .. }
        | Wish::Rebalance => return Ok(()),
    };
    let seen = statuses.iter().find_map(|(who, status)| {
        let status = status.as_ref()?;
        match *who == node {
            true => Some(format!("{node} answers")),
            false => hears(status, node).then(|| format!("{who} hears {node}")),
        }
    });
    match seen {
        None => Ok(()),
        Some(seen) => {
            let what = format!("{seen}: it is not dead, so let it leave\n  nothing was changed");
            Err(Failed::new(Exit::Refused, what).mend(next))
        }
    }
}

/// What moves to a node waits for it: so it runs first.
fn check_started(wish: &Wish, statuses: &[(NodeId, Option<NodeStatus>)]) -> Result<(), Failed> {
    let node = match wish {
        Wish::Join { node } | Wish::Replace { new: node, .. } => *node,
        Wish::Leave { .. }
        | Wish::RemoveDead { .. }
        | Wish::Reweight { .. }
        | Wish::Rezone { .. }
        | Wish::Replicas { .. }
        | Wish::Rebalance => return Ok(()),
    };
    if is_heard(node, statuses) {
        return Ok(());
    }
    let what = format!(
        "{node} does not answer, and what moves to it would wait for it\n  nothing was changed"
    );
    Err(Failed::new(Exit::Refused, what)
        .mend("start it first, on its host: atoll node run --config DIR/node.toml --first-start"))
}

/// Whether a node answers, or another one hears it.
pub fn is_heard(node: NodeId, statuses: &[(NodeId, Option<NodeStatus>)]) -> bool {
    let mut answers = statuses.iter().filter_map(|(who, status)| Some((*who, status.as_ref()?)));
    answers.any(|(who, status)| who == node || hears(status, node))
}

fn hears(status: &NodeStatus, node: NodeId) -> bool {
    status.peers.iter().any(|peer| peer.node == node.0 && peer.up)
}

/// Asks for a yes.
///
/// # Errors
/// Nobody is there to be asked, or the answer is another.
pub fn confirm(question: &str) -> Result<(), Failed> {
    let answer = ask(&format!("{question} [y/N] "))?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Failed::new(Exit::Other, "nothing was changed")),
    }
}

/// Asks for a line.
///
/// # Errors
/// Nobody is there to be asked.
pub fn ask(question: &str) -> Result<String, Failed> {
    let nobody = || {
        Failed::new(Exit::Refused, "there is nobody to ask; nothing was changed")
            .mend("the same with --yes")
    };
    if !std::io::stdin().is_terminal() {
        return Err(nobody());
    }
    anstream::eprint!("{question}");
    let _ = std::io::stderr().flush(); // nobody is hurt if it is not seen
    let mut line = String::new();
    match std::io::stdin().lock().read_line(&mut line) {
        Ok(1..) => Ok(line),
        Ok(0) | Err(_) => Err(nobody()),
    }
}

#[cfg(test)]
mod tests {
    use atoll_client::PeerStatus;

    use super::*;

    fn status(node: u32, hears: &[u32]) -> (NodeId, Option<NodeStatus>) {
        let peer = |node: &u32| PeerStatus {
            node: *node,
            up: true,
            round_trip_micros: 0,
            hints: 0,
            reason: String::new(),
        };
        let peers = hears.iter().map(peer).collect();
        (NodeId(node), Some(NodeStatus { node, peers, ..NodeStatus::default() }))
    }

    /// Who answers, or is heard by anybody, is not dead. Other wishes ask nobody.
    #[test]
    fn who_is_alive_is_not_declared_dead() {
        let dead = Wish::RemoveDead { node: NodeId(2) };
        let silent = (NodeId(2), None);
        check_dead(&dead, &[status(1, &[3]), silent.clone()]).unwrap();
        for statuses in [vec![status(1, &[]), status(2, &[])], vec![status(1, &[2]), silent]] {
            let failed = check_dead(&dead, &statuses).unwrap_err();
            assert_eq!(failed.exit, Exit::Refused);
            assert_eq!(failed.mend.as_deref(), Some("atoll cluster leave n2"), "{failed:?}");
            let leave = Wish::Leave { node: NodeId(2) };
            check_dead(&leave, &statuses).unwrap();
        }
        let replace = Wish::Replace { old: NodeId(2), new: NodeId(4), dead: true };
        let failed = check_dead(&replace, &[status(2, &[])]).unwrap_err();
        assert_eq!(failed.mend.as_deref(), Some("atoll cluster replace n2 --with n4"));
    }

    /// The numbers that scripts see: refused, frozen, unknown.
    #[test]
    fn how_a_proposal_that_failed_ends() {
        let exit = |error: ProposeError| not_proposed(&error).exit;
        assert_eq!(exit(ProposeError::Rejected("why".into())), Exit::Refused);
        assert_eq!(exit(ProposeError::Frozen("why".into())), Exit::QuorumNotMet);
        assert_eq!(exit(ProposeError::Unknown("why".into())), Exit::Timeout);
        let frozen = not_proposed(&ProposeError::Frozen("1 of 3 voters reachable".into()));
        assert!(frozen.what.starts_with("ring frozen: 1 of 3 voters"), "{frozen:?}");
    }
}
