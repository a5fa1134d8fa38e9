//! What a plan looks like, and what it may cost.
//!
//! Bytes and time are estimates: a node says how much its disk holds, not how large each partition is, so all of them count
//! as equally large; and how fast a copy runs depends on what else the nodes do.

use std::{fmt::Write as _, time::Duration};

use atoll_client::{NodeId, NodeStatus, View};
use atoll_ring::{MemberState, NodeShare, Plan, Wish};
use serde::Serialize;

use super::is_heard;
use crate::output::{self, Format};

/// How fast one node gives or takes partitions.
struct Pace {
    /// Bytes per second that it copies, to or from it.
    bytes_per_second: u64,
    /// How long a partition takes however empty it is.
    partition_ms: u64,
}

/// While nobody is served, and while clients are: two cores, four nodes, values of 1 KiB. Few are slower.
const IDLE: Pace = Pace { bytes_per_second: 20 << 20, partition_ms: 5 };
const SERVING: Pace = Pace { bytes_per_second: 5 << 20, partition_ms: 32 };

impl Pace {
    fn time(&self, partitions: u64, partition_bytes: u64) -> Duration {
        let copying = Duration::from_secs(partitions * partition_bytes / self.bytes_per_second);
        copying + Duration::from_millis(partitions * self.partition_ms)
    }
}

/// What a plan may cost, as far as the nodes have told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Bytes that are copied; `None` if no node has said how much it holds.
    pub bytes: Option<u64>,
    /// How long that takes if nobody is served, and if clients are.
    pub time: Option<(Duration, Duration)>,
}

impl Cost {
    /// From what the nodes say they hold.
    pub fn of(view: &View, plan: &Plan, statuses: &[(NodeId, Option<NodeStatus>)]) -> Cost {
        let (mut held, mut seats) = (0, 0);
        for (node, status) in statuses {
            let Some(status) = status else { continue };
            let owned = view.partitions().all().filter(|at| view.owners(*at).contains(*node));
            let owned = owned.count() as u64;
            if owned > 0 {
                held += status.disk_bytes;
                seats += owned;
            }
        }
        let Some(partition) = held.checked_div(seats) else { return Cost::default() };
        let busiest = |of: fn(&NodeShare) -> u32| plan.nodes.iter().map(of).max().unwrap_or(0);
        let busiest = u64::from(busiest(|node| node.incoming).max(busiest(|node| node.outgoing)));
        let time = (IDLE.time(busiest, partition), SERVING.time(busiest, partition));
        Cost { bytes: Some(plan.bytes(view, |_| partition)), time: Some(time) }
    }
}

/// A plan in JSON, for whoever reads numbers.
#[derive(Serialize)]
pub struct Shown {
    partitions: usize,
    copies: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_estimated: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds_estimated: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds_estimated_under_load: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fullest_percent_before: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fullest_percent_after: Option<u32>,
    warnings: Vec<String>,
}

impl Shown {
    /// Of a plan and what it may cost.
    pub fn of(plan: &Plan, cost: &Cost) -> Shown {
        Shown {
            partitions: plan.moves.len(),
            copies: plan.seats_moved,
            bytes_estimated: cost.bytes,
            seconds_estimated: cost.time.map(|(idle, _)| idle.as_secs()),
            seconds_estimated_under_load: cost.time.map(|(_, serving)| serving.as_secs()),
            fullest_percent_before: plan.balance_before.map(|balance| balance.percent),
            fullest_percent_after: plan.balance_after.map(|balance| balance.percent),
            warnings: plan.warnings.iter().map(ToString::to_string).collect(),
        }
    }
}

/// A plan for people, on the standard output.
pub fn print(view: &View, plan: &Plan, cost: &Cost, statuses: &[(NodeId, Option<NodeStatus>)]) {
    anstream::println!("{}", text(view, plan, cost));
    output::rows(Format::Table, HEADINGS, &rows(plan));
    for line in remarks(view, plan, statuses) {
        anstream::println!("{line}");
    }
}

/// The same on the standard error, where the standard output takes the plan itself.
pub fn print_beside(
    view: &View,
    plan: &Plan,
    cost: &Cost,
    statuses: &[(NodeId, Option<NodeStatus>)],
) {
    anstream::eprintln!("{}", text(view, plan, cost));
    for line in remarks(view, plan, statuses) {
        anstream::eprintln!("{line}");
    }
}

fn text(view: &View, plan: &Plan, cost: &Cost) -> String {
    let mut text = format!("\x1b[1m{}\x1b[0m, at epoch {}: ", words(&plan.wish), plan.base);
    if plan.moves.is_empty() {
        text.push_str("nothing moves");
    } else {
        let (moving, all) = (plan.moves.len(), view.partitions().count());
        let copies = plan.seats_moved;
        let _ = write!(text, "{moving} of {all} partitions move, {copies} copies");
        if let Some(bytes) = cost.bytes {
            let _ = write!(text, ", about {}", self::bytes(bytes));
        }
        if let Some((idle, serving)) = cost.time {
            let _ = write!(text, ", about {}, under load {}", rough(idle), rough(serving));
        }
    }
    text
}

const HEADINGS: &[&str] = &["NODE", "PARTITIONS", "THEN", "GETS", "GIVES"];

fn rows(plan: &Plan) -> Vec<Vec<String>> {
    let row = |share: &NodeShare| {
        let NodeShare { node, before, after, incoming, outgoing } = share;
        let numbers = [before, after, incoming, outgoing].map(ToString::to_string);
        [node.to_string()].into_iter().chain(numbers).collect()
    };
    plan.nodes.iter().map(row).collect()
}

fn remarks(view: &View, plan: &Plan, statuses: &[(NodeId, Option<NodeStatus>)]) -> Vec<String> {
    let mut lines = Vec::new();
    if let (Some(before), Some(after)) = (plan.balance_before, plan.balance_after) {
        lines.push(format!(
            "balance: the fullest node is {} with {} % of its share; then {} with {} %",
            before.fullest, before.percent, after.fullest, after.percent
        ));
    }
    let mut warn = |text: String| lines.push(format!("\x1b[33mwarning\x1b[0m: {text}"));
    plan.warnings.iter().for_each(|warning| warn(warning.to_string()));
    for (node, _) in statuses {
        let takes_part = plan
            .nodes
            .iter()
            .any(|share| share.node == *node && (share.incoming > 0 || share.outgoing > 0));
        let is_dead = view.member(*node).is_some_and(|who| who.state == MemberState::Dead);
        if !is_heard(*node, statuses)
            && takes_part
            && !is_dead
            && !plan_declares_dead(&plan.wish, *node)
        {
            warn(format!(
                "{node} does not answer: what it gives or takes waits until it is back, or until \
                 atoll cluster remove --dead {node}"
            ));
        }
    }
    lines
}

fn plan_declares_dead(wish: &Wish, node: NodeId) -> bool {
    match wish {
        Wish::RemoveDead { node: dead } | Wish::Replace { old: dead, dead: true, .. } => {
            *dead == node
        }
        Wish::Replace { .. }
        | Wish::Join { .. }
        | Wish::Leave { .. }
        | Wish::Reweight { .. }
        | Wish::Rezone { .. }
        | Wish::Replicas { .. }
        | Wish::Rebalance => false,
    }
}

/// A wish in words.
pub fn words(wish: &Wish) -> String {
    match wish {
        Wish::Join { node } => format!("{node} joins"),
        Wish::Leave { node } => format!("{node} leaves"),
        Wish::RemoveDead { node } => format!("{node} is dead and removed"),
        Wish::Replace { old, new, dead: false } => format!("{new} takes the place of {old}"),
        Wish::Replace { old, new, dead: true } => {
            format!("{new} takes the place of {old}, which is dead")
        }
        Wish::Reweight { node, weight } => format!("{node} gets weight {weight}"),
        Wish::Rezone { node, zone } => format!("{node} stands in zone {zone}"),
        Wish::Replicas { replicas } => format!("{replicas} replicas of each partition"),
        Wish::Rebalance => "rebalanced".into(),
    }
}

/// Bytes as people compare them.
#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if value < 10.0 {
        format!("{value:.1} {}", UNITS[unit])
    } else {
        format!("{value:.0} {}", UNITS[unit])
    }
}

/// A time without digits that would pretend to be known.
fn rough(time: Duration) -> String {
    match time.as_secs() {
        0..=1 => "a second".into(),
        seconds @ 2..=90 => format!("{seconds} s"),
        seconds @ 91..=5400 => format!("{} min", seconds.div_ceil(60)),
        seconds => format!("{} h", seconds.div_ceil(3600)),
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use atoll_ring::{ClusterId, Command, Entry, Epoch, Member, Partitions};

    use super::*;

    fn member(id: u32) -> Member {
        Member {
            id: NodeId(id),
            incarnation: 0,
            address: SocketAddr::from(([127, 0, 0, 1], 7400 + u16::try_from(id).unwrap())),
            zone: "z1".into(),
            weight: 1,
            state: MemberState::Active,
        }
    }

    /// Three nodes, and a fourth that has registered.
    fn view() -> View {
        let members = (1..=3).map(member).collect();
        let partitions = Partitions::new(64).unwrap();
        let (view, _) = View::create(ClusterId([7; 16]), partitions, 3, members).unwrap();
        let at = |epoch, command| Entry { epoch: Epoch(epoch), at_ms: 0, command };
        let invitation = [1; 16];
        let node = NodeId(4);
        let view = view.apply(&at(2, Command::Invite { invitation, node, expires_ms: 9 })).unwrap();
        let Member { address, zone, weight, .. } = member(4);
        view.apply(&at(3, Command::Register { invitation, node, address, zone, weight })).unwrap()
    }

    /// What moves is a quarter of everything, and its bytes are those that the nodes say they hold.
    #[test]
    fn what_a_join_costs() {
        let view = view();
        let plan = Plan::of(&view, &Wish::Join { node: NodeId(4) }).unwrap();
        let says = |id: u32| {
            let disk_bytes = 64 << 20; // a MiB per partition
            (NodeId(id), Some(NodeStatus { node: id, disk_bytes, ..NodeStatus::default() }))
        };
        // the new node owns nothing, and what its disk holds is no partition's
        let statuses: Vec<_> = (1..=4).map(says).collect();
        let cost = Cost::of(&view, &plan, &statuses);
        assert_eq!(cost.bytes, Some(plan.seats_moved as u64 * (1 << 20)));
        assert_eq!(plan.seats_moved, 48);
        // the new node takes 48 MiB
        let (idle, serving) = cost.time.unwrap();
        assert_eq!((idle.as_millis(), serving.as_millis()), (2000 + 48 * 5, 9000 + 48 * 32));
        // who does not answer is not counted; if nobody does, nothing is claimed
        let silent: Vec<_> = (1..=4).map(|id| (NodeId(id), None)).collect();
        assert_eq!(Cost::of(&view, &plan, &silent), Cost::default());

        let said = text(&view, &plan, &cost);
        assert!(said.contains("n4 joins") && said.contains("48 copies, about 48 MiB"), "{said}");
        let warned = remarks(&view, &plan, &silent).join("\n");
        assert!(warned.contains("n4 does not answer") && warned.contains("% of its share"));
    }

    #[test]
    fn numbers_for_people() {
        let cases =
            [(0, "0.0 KiB"), (5 << 20, "5.0 MiB"), (48 << 20, "48 MiB"), (3 << 40, "3.0 TiB")];
        for (number, text) in cases {
            assert_eq!(bytes(number), text);
        }
        assert_eq!(rough(Duration::from_secs(91)), "2 min");
        assert_eq!(rough(Duration::ZERO), "a second");
    }
}
