//! `atoll cluster status`: who is a member, how much each owns, who votes, and what moves.

use std::collections::BTreeMap;

use atoll_client::{ErrorCode, MovesReport, NodeId, NodeStatus, RequestError, View};
use atoll_ring::{Member, MemberState};
use serde::Serialize;

use crate::{
    change::{
        self, ANSWER_LIMIT, statuses,
        watch::{self, left},
    },
    exit::{Exit, Failed},
    output::{self, Format},
};

#[derive(Serialize)]
struct Document {
    schema: &'static str,
    cluster: String,
    epoch: u64,
    partitions: u32,
    replicas: u8,
    leader: Option<String>,
    voters: Vec<String>,
    voters_reachable: u8,
    /// Why no change can be made now.
    #[serde(skip_serializing_if = "Option::is_none")]
    frozen: Option<String>,
    /// Why other voters that are wanted could not be had.
    #[serde(skip_serializing_if = "Option::is_none")]
    voters_wait: Option<String>,
    moving: usize,
    waiting: usize,
    /// Partitions that a cancelled change has left with too few or too many owners, or with some that do not stay.
    left_over: usize,
    invited: Vec<String>,
    removed: usize,
    members: Vec<MemberDocument>,
}

#[derive(Serialize)]
struct MemberDocument {
    node: String,
    state: String,
    address: String,
    zone: String,
    weight: u32,
    incarnation: u32,
    partitions: usize,
    share: f64,
    /// The epoch of its view; none = it does not answer.
    epoch: Option<u64>,
    votes: bool,
    leads: bool,
    partitions_coming: usize,
    partitions_going: usize,
    remark: String,
}

/// What a member takes and gives.
#[derive(Clone, Copy, Default)]
struct Moving {
    owns: usize,
    coming: usize,
    going: usize,
}

/// Runs the command. Exits 5 if a member does not answer or the ring is frozen.
pub async fn run(cluster: Option<&str>, format: Format) -> Result<(), Failed> {
    let client = change::connect(cluster).await?;
    let view = client.view();
    let (statuses, reports) = tokio::join!(statuses(&client, &view), client.moves(ANSWER_LIMIT));
    client.close().await;
    if let Some(error) = reports.iter().find_map(|(_, report)| forbidden(report.as_ref().err()?)) {
        return Err(change::not_asked(error));
    }
    let answered: Vec<&MovesReport> =
        reports.iter().filter_map(|(_, report)| report.as_ref().ok()).collect();
    let document = document(&view, &statuses, &answered);
    let is_well = document.frozen.is_none() && statuses.iter().all(|(_, status)| status.is_some());
    match format {
        Format::Json => output::json(&document),
        Format::Table | Format::Plain => {
            if format == Format::Table {
                anstream::println!("{}\n", headline(&document));
            }
            let rows: Vec<Vec<String>> = document.members.iter().map(row).collect();
            let headings = [
                "NODE", "STATE", "ADDRESS", "ZONE", "WEIGHT", "SHARE", "EPOCH", "VOTE", "IN",
                "OUT", "REMARK",
            ];
            output::rows(format, &headings, &rows);
            if format == Format::Table {
                for line in beneath(&document) {
                    anstream::println!("{line}");
                }
                if let Some(line) = left_over(&view) {
                    anstream::println!("\n{line}");
                }
            }
        }
    }
    if is_well { Ok(()) } else { Err(Failed::silent(Exit::Degraded)) }
}

fn forbidden(error: &RequestError) -> Option<&RequestError> {
    let is = |code| code == ErrorCode::NotPermitted;
    matches!(error, RequestError::Failed(failure) if is(failure.code)).then_some(error)
}

fn document(
    view: &View,
    statuses: &[(NodeId, Option<NodeStatus>)],
    reports: &[&MovesReport],
) -> Document {
    let frozen = watch::frozen(reports).map(|why| in_words(view, why));
    // who can change the ring knows who leads it; others may remember an old leader
    let able = reports.iter().filter(|report| report.frozen.is_empty());
    let leader = able.clone().find_map(|report| report.leader).map(NodeId);
    let voters_wait = reports.iter().map(|report| &report.voters_wait).find(|why| !why.is_empty());
    let voters_reachable = reports.iter().map(|report| report.voters_reachable).max();
    let moving = moving(view);
    let total: usize = moving.values().map(|node| node.owns).sum();
    let status_of = |node: NodeId| {
        statuses.iter().find(|(who, _)| *who == node).and_then(|(_, status)| status.as_ref())
    };
    let members = view.members().iter().map(|member| {
        let node = member.id;
        let Moving { owns, coming, going } = moving.get(&node).copied().unwrap_or_default();
        MemberDocument {
            node: node.to_string(),
            state: member.state.to_string(),
            address: member.address.to_string(),
            zone: member.zone.clone(),
            weight: member.weight,
            incarnation: member.incarnation,
            partitions: owns,
            share: ratio(owns, total),
            epoch: status_of(node).map(|status| status.epoch),
            votes: view.voters().contains(&node),
            leads: leader == Some(node),
            partitions_coming: coming,
            partitions_going: going,
            remark: remark(view, member, status_of(node)),
        }
    });
    Document {
        schema: "atoll.cluster-status/v1",
        cluster: view.cluster().to_string(),
        epoch: view.epoch().0,
        partitions: view.partitions().count(),
        replicas: view.replicas(),
        leader: leader.map(|node| node.to_string()),
        voters: view.voters().iter().map(NodeId::to_string).collect(),
        voters_reachable: voters_reachable.unwrap_or(0),
        frozen,
        voters_wait: voters_wait.cloned(),
        moving: view.moves().len(),
        waiting: left(view) - view.moves().len(),
        left_over: view.left_over(),
        invited: view.invitations().iter().map(|open| open.node.to_string()).collect(),
        removed: view.removed().len(),
        members: members.collect(),
    }
}

/// What a cancelled change has left half-done, and how to end it.
pub fn left_over(view: &View) -> Option<String> {
    let (left, replicas) = (view.left_over(), view.replicas());
    let (partitions, have) = if left == 1 { ("partition", "has") } else { ("partitions", "have") };
    (left > 0).then(|| {
        format!(
            "a change was cancelled: {left} {partitions} {have} not {replicas} owners that stay; finish \
             with atoll cluster rebalance, or wish for what there was before"
        )
    })
}

/// The reason with its epoch, whether or not the node has said it already.
pub fn in_words(view: &View, why: &str) -> String {
    match why.contains("frozen") {
        true => why.to_owned(),
        false => format!("ring frozen at epoch {}: {why}", view.epoch()),
    }
}

fn moving(view: &View) -> BTreeMap<NodeId, Moving> {
    let mut of: BTreeMap<NodeId, Moving> = BTreeMap::new();
    for partition in view.partitions().all() {
        let now = match view.owners(partition) {
            atoll_ring::Owners::One(owners) | atoll_ring::Owners::Joint { old: owners, .. } => {
                owners
            }
        };
        for owner in now {
            of.entry(*owner).or_default().owns += 1;
        }
        let settled = view.settled(partition);
        let then = view.wanted().get(&partition).map_or(settled, Vec::as_slice);
        for coming in then.iter().filter(|node| !now.contains(node)) {
            of.entry(*coming).or_default().coming += 1;
        }
        for going in now.iter().filter(|node| !then.contains(node)) {
            of.entry(*going).or_default().going += 1;
        }
    }
    of
}

#[expect(clippy::cast_precision_loss, reason = "a share is shown with three digits")]
fn ratio(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

fn remark(view: &View, member: &Member, status: Option<&NodeStatus>) -> String {
    let Some(status) = status else {
        return match member.state {
            MemberState::Joining => "not started, or silent".into(),
            MemberState::Dead => "declared dead".into(),
            MemberState::Active | MemberState::Leaving => "silent".into(),
        };
    };
    let mut remarks = Vec::new();
    if !status.rising.is_empty() {
        remarks.push(format!("starting: {}", status.rising));
    }
    if status.partitions_in_doubt > 0 {
        remarks.push(format!("in doubt: {} partitions", status.partitions_in_doubt));
    }
    if status.epoch < view.epoch().0 {
        remarks.push("behind".into());
    }
    match member.state {
        MemberState::Joining => {
            remarks.push(format!("registered: atoll cluster join {}", member.id));
        }
        MemberState::Leaving if status.hints > 0 => {
            remarks.push(format!("hands on {} hints", status.hints));
        }
        MemberState::Active | MemberState::Leaving | MemberState::Dead => {}
    }
    remarks.join("; ")
}

fn headline(document: &Document) -> String {
    let Document { cluster, epoch, partitions, replicas, members, voters, .. } = document;
    let mut line = format!(
        "\x1b[1mcluster {cluster}, epoch {epoch}\x1b[0m: {} members, {partitions} partitions with \
         {replicas} owners each\n",
        members.len()
    );
    match (&document.frozen, &document.leader) {
        (Some(why), _) => line.push_str(&format!("\x1b[31m{why}\x1b[0m; reads and writes go on")),
        (None, Some(leader)) => line.push_str(&format!(
            "{leader} leads, {} of {} voters reachable",
            document.voters_reachable,
            voters.len()
        )),
        (None, None) => line.push_str("nobody is known to lead just now"),
    }
    line
}

fn beneath(document: &Document) -> Vec<String> {
    let mut lines = Vec::new();
    let Document { moving, waiting, invited, .. } = document;
    if moving + waiting > 0 {
        lines.push(format!(
            "\n{moving} partitions moving, {waiting} waiting for their turn: atoll ring moves"
        ));
    }
    if let Some(why) = &document.voters_wait {
        lines.push(format!("\nother voters: {why}"));
    }
    if !invited.is_empty() {
        lines.push(format!("invited, not registered: {}", invited.join(", ")));
    }
    lines
}

fn row(member: &MemberDocument) -> Vec<String> {
    let number = |count: usize| if count == 0 { "-".into() } else { count.to_string() };
    let vote = match (member.leads, member.votes) {
        (true, _) => "leads",
        (false, true) => "votes",
        (false, false) => "-",
    };
    vec![
        member.node.clone(),
        member.state.clone(),
        member.address.clone(),
        member.zone.clone(),
        member.weight.to_string(),
        format!("{:.1} %", member.share * 100.0),
        member.epoch.map_or("-".into(), |epoch| epoch.to_string()),
        vote.into(),
        number(member.partitions_coming),
        number(member.partitions_going),
        member.remark.clone(),
    ]
}
