//! What is to be seen: everything on the screen, before anybody knows how large it is.
//!
//! Made anew from the latest looks for each drawing. No clock, no terminal, no testnet: from the same looks comes the same scene.

use std::time::Duration;

use atoll_client::NodeId;
use atoll_testnet::{Hearing, Look, NodeReport, State};

use super::{
    pace::{Pace, Past},
    ring::Ring,
};
use crate::testnet::status::{self, Tone};

/// All of it.
pub struct Scene {
    pub name: String,
    pub mood: (String, Tone),
    pub epoch: Option<u64>,
    pub nodes: Vec<Node>,
    /// Index of the node that keys speak of.
    pub selected: usize,
    pub ring: Option<Ring>,
    /// A row for each node in their order, how it hears each of them.
    pub links: Vec<Vec<Link>>,
    pub load: Load,
    /// What came of the last key, or what is under way.
    pub message: Option<(String, Tone)>,
}

/// One node.
pub struct Node {
    pub id: NodeId,
    pub state: (String, Tone),
    pub address: String,
    pub zone: String,
    pub share: Option<f64>,
    pub net: Option<(String, Tone)>,
    pub pace: Option<Pace>,
    /// What only the node itself can tell; none if it does not answer.
    pub told: Option<Told>,
}

/// What a node tells of itself.
pub struct Told {
    pub keys: u64,
    pub hints: u64,
    pub lag: String,
    pub epoch: u64,
    pub uptime: Duration,
    pub resident_bytes: u64,
}

/// How one node hears another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// The same node.
    Itself,
    /// In so many microseconds; 0 = not measured yet.
    Heard { micros: u32, slowly: bool },
    /// Though both serve.
    Cut,
    /// One of them does not serve: nothing can be said of the link.
    Away,
}

/// The load on all nodes together.
pub struct Load {
    pub pace: Pace,
    /// Gets answered per second, at each look.
    pub reads: Vec<f64>,
    /// The same for puts and deletes.
    pub writes: Vec<f64>,
    pub hints: u64,
}

impl Scene {
    /// What the latest look shows. Before the first there is nothing but the name.
    pub fn of(
        name: &str,
        past: &Past,
        selected: Option<NodeId>,
        message: Option<(String, Tone)>,
    ) -> Scene {
        let nothing = Look::default();
        let look = past.latest().unwrap_or(&nothing);
        let nodes: Vec<Node> =
            look.reports.iter().map(|report| Node::of(look, report, past)).collect();
        let hints = nodes.iter().filter_map(|node| node.told.as_ref()).map(|told| told.hints).sum();
        Scene {
            name: name.to_owned(),
            mood: mood(look),
            epoch: look.view.as_ref().map(|view| view.epoch().0),
            selected: nodes.iter().position(|node| Some(node.id) == selected).unwrap_or(0),
            nodes,
            ring: Ring::of(look),
            links: links(look),
            load: Load {
                pace: past.total(),
                reads: past.course(|pace| pace.reads.rate),
                writes: past.course(|pace| pace.writes.rate),
                hints,
            },
            message,
        }
    }
}

impl Node {
    fn of(look: &Look, report: &NodeReport, past: &Past) -> Node {
        let node = &report.node;
        Node {
            id: node.id,
            state: status::state(look, report),
            address: node.address.to_string(),
            zone: node.zone.clone(),
            share: look.share(node.id),
            net: look.net(node.id).map(|net| status::connections(&net)),
            pace: past.pace(node.id),
            told: report.status.as_ref().map(|status| Told {
                keys: status.keys,
                hints: status.hints,
                lag: status::lag(status.compared_ms_ago),
                epoch: status.epoch,
                uptime: Duration::from_secs(status.uptime_ms / 1000),
                resident_bytes: status.resident_bytes,
            }),
        }
    }
}

fn mood(look: &Look) -> (String, Tone) {
    let flawed = look.reports.iter().filter(|report| !look.flaws(report).is_empty()).count();
    match (look.reports.is_empty(), flawed) {
        (true, _) => ("looking".into(), Tone::Quiet),
        (false, 0) => ("healthy".into(), Tone::Good),
        (false, flawed) => {
            (format!("degraded: {flawed} of {} nodes", look.reports.len()), Tone::Bad)
        }
    }
}

fn links(look: &Look) -> Vec<Vec<Link>> {
    let serves = |report: &NodeReport| report.state == State::Ready;
    let link = |hearer: &NodeReport, other: &NodeReport| {
        if hearer.node.id == other.node.id {
            return Link::Itself;
        }
        match look.hearing(hearer.node.id, other.node.id) {
            _ if !serves(hearer) || !serves(other) => Link::Away,
            Hearing::Well { micros } => Link::Heard { micros, slowly: false },
            Hearing::Slowly { micros } => Link::Heard { micros, slowly: true },
            Hearing::Not { .. } => Link::Cut,
            Hearing::Unsaid => Link::Away,
        }
    };
    let row = |hearer| look.reports.iter().map(|other| link(hearer, other)).collect();
    look.reports.iter().map(row).collect()
}
