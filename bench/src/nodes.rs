//! What the load has cost the nodes: their own counters, asked before and after.
//!
//! Every node's status is asked when the measured time begins and again when it ends, while the load goes on. The
//! answers come when they come: a node that is busy or paused answers late. So CPU time is divided by the time between
//! a node's two answers, and that rate by the rate of operations.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use atoll_client::{Client, NodeId, NodeStatus};
use serde::Serialize;
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};

/// What the nodes used and did in the measured time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Nodes {
    /// CPU time of all nodes in [`each`](Nodes::each) for one successful operation, in microseconds; `None` if no
    /// operation succeeded or no node told. Failed operations and reads for a context are work too, and are in it.
    pub cpu_us_per_op: Option<f64>,
    /// Those that told their counters twice.
    pub each: Vec<NodeUse>,
    /// The others, and why. Nothing they used is in the figures.
    pub silent: BTreeMap<String, String>,
}

/// What one node used and did.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NodeUse {
    /// Its name.
    pub node: String,
    /// Its CPU time for one successful operation of the whole cluster, in microseconds.
    pub cpu_us_per_op: Option<f64>,
    /// Cores in use, on average; `None` where the system does not tell.
    pub cpu_cores: Option<f64>,
    /// Reads it coordinated, all clients together.
    pub reads: u64,
    /// Puts and deletes it coordinated, all clients together.
    pub writes: u64,
    /// Questions put to one owner more because another was slow.
    pub hedges: u64,
    /// Keys that a read repair mended.
    pub repaired: u64,
    /// Hints it keeps for others, more than before; less, if it delivered.
    pub hints: i64,
    /// Hints that it could not keep because of a bound.
    pub hints_refused: u64,
}

/// Every node's answer, or why there is none.
pub(crate) type Answers = BTreeMap<NodeId, Answer>;

/// A node's status and when it came, or why it did not.
pub(crate) type Answer = Result<(Instant, NodeStatus), String>;

/// Asks all of these at once; who has not answered in time is silent.
pub(crate) async fn ask(client: Arc<Client>, nodes: Vec<NodeId>, patience: Duration) -> Answers {
    let mut asking = JoinSet::new();
    for node in nodes {
        let client = client.clone();
        asking.spawn(async move {
            let answer = match timeout(patience, client.status(node, patience)).await {
                Ok(Ok(status)) => Ok((Instant::now(), status)),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err(format!("no answer within {} ms", patience.as_millis())),
            };
            (node, answer)
        });
    }
    asking.join_all().await.into_iter().collect()
}

/// Longer than a pause that a drill makes, so that its victim still tells what it used.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3);

impl Nodes {
    /// What lies between two rounds of answers, for so many successful operations per second.
    pub(crate) fn between(before: &Answers, after: &Answers, ops_per_s: f64) -> Nodes {
        let (mut each, mut silent) = (Vec::new(), BTreeMap::new());
        for (node, began) in before {
            let ended = after.get(node).expect("the same nodes are asked twice");
            let used = match (began, ended) {
                (Ok(began), Ok(ended)) => NodeUse::between(*node, began, ended, ops_per_s),
                (Err(reason), _) | (_, Err(reason)) => Err(reason.clone()),
            };
            match used {
                Ok(used) => each.push(used),
                Err(reason) => drop(silent.insert(node.to_string(), reason)),
            }
        }
        let told: Vec<f64> = each.iter().filter_map(|used| used.cpu_us_per_op).collect();
        let cpu_us_per_op = (!told.is_empty()).then(|| round(told.iter().sum(), 1));
        Nodes { cpu_us_per_op, each, silent }
    }
}

impl NodeUse {
    fn between(
        node: NodeId,
        (began, before): &(Instant, NodeStatus),
        (ended, after): &(Instant, NodeStatus),
        ops_per_s: f64,
    ) -> Result<NodeUse, String> {
        if after.uptime_ms < before.uptime_ms {
            return Err("restarted during the run, its counters began anew".into());
        }
        let seconds = ended.duration_since(*began).as_secs_f64();
        let cpu = after.cpu_micros.saturating_sub(before.cpu_micros) as f64;
        let cpu_per_s = (after.cpu_micros > 0 && seconds > 0.0).then(|| cpu / seconds);
        let more = |count: fn(&NodeStatus) -> u64| count(after).saturating_sub(count(before));
        Ok(NodeUse {
            node: node.to_string(),
            cpu_us_per_op: cpu_per_s
                .filter(|_| ops_per_s > 0.0)
                .map(|micros| round(micros / ops_per_s, 1)),
            cpu_cores: cpu_per_s.map(|micros| round(micros / 1e6, 2)),
            reads: more(|status| status.reads),
            writes: more(|status| status.writes),
            hedges: more(|status| status.hedges),
            repaired: more(|status| status.repaired),
            hints: after.hints.cast_signed() - before.hints.cast_signed(),
            hints_refused: more(|status| status.hints_refused),
        })
    }
}

fn round(value: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (value * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers<const N: usize>(of: [(u32, Answer); N]) -> Answers {
        of.into_iter().map(|(node, answer)| (NodeId(node), answer)).collect()
    }

    fn status(uptime_ms: u64, cpu_micros: u64, hedges: u64, hints: u64) -> NodeStatus {
        NodeStatus { uptime_ms, cpu_micros, hedges, hints, ..NodeStatus::default() }
    }

    /// Two nodes at 1000 operations per second: one used 0.1 s of its 10 s, the other 0.3 s, and answered two seconds
    /// late both times or only the second time; the late answer changes nothing if the rate was the same.
    #[test]
    fn cpu_is_counted_between_the_answers() {
        let zero = Instant::now();
        let at = |seconds| zero + Duration::from_secs(seconds);
        let before = answers([
            (1, Ok((at(0), status(1000, 500_000, 7, 5)))),
            (2, Ok((at(0), status(1000, 0, 0, 0)))),
        ]);
        let after = answers([
            (1, Ok((at(10), status(11_000, 600_000, 10, 2)))),
            (2, Ok((at(12), status(13_000, 360_000, 0, 40)))),
        ]);
        let used = Nodes::between(&before, &after, 1000.0);
        assert_eq!(used.cpu_us_per_op, Some(40.0));
        assert_eq!(used.each[0].cpu_us_per_op, Some(10.0));
        assert_eq!(used.each[0].cpu_cores, Some(0.01));
        assert_eq!(used.each[1].cpu_us_per_op, Some(30.0));
        assert_eq!((used.each[0].hedges, used.each[0].hints), (3, -3));
        assert_eq!((used.each[1].hedges, used.each[1].hints), (0, 40));
        assert!(used.silent.is_empty());
    }

    /// Who was silent once, or lost its counters on the way, is named with the reason and is in no figure.
    #[test]
    fn who_cannot_be_counted_is_named() {
        let zero = Instant::now();
        let at = |seconds| zero + Duration::from_secs(seconds);
        let before = answers([
            (1, Ok((at(0), status(1000, 500_000, 0, 0)))),
            (2, Err("no answer".into())),
            (3, Ok((at(0), status(1000, 500_000, 0, 0)))),
            (4, Ok((at(0), status(9000, 500_000, 0, 0)))),
        ]);
        let after = answers([
            (1, Ok((at(10), status(11_000, 600_000, 0, 0)))),
            (2, Ok((at(10), status(11_000, 600_000, 0, 0)))),
            (3, Err("gone".into())),
            (4, Ok((at(10), status(2000, 100_000, 0, 0)))),
        ]);
        let used = Nodes::between(&before, &after, 1000.0);
        assert_eq!(used.cpu_us_per_op, Some(10.0));
        let silent: Vec<(&str, &str)> =
            used.silent.iter().map(|(node, why)| (node.as_str(), why.as_str())).collect();
        assert_eq!(silent[..2], [("n2", "no answer"), ("n3", "gone")]);
        assert!(silent[2].0 == "n4" && silent[2].1.starts_with("restarted"));
    }

    /// No operation, or a system that does not tell CPU time: no figure, and not zero.
    #[test]
    fn what_is_not_known_is_not_zero() {
        let zero = Instant::now();
        let at = |seconds| zero + Duration::from_secs(seconds);
        let before = answers([(1, Ok((at(0), status(0, 500, 0, 0))))]);
        let after = answers([(1, Ok((at(1), status(1000, 1500, 0, 0))))]);
        assert_eq!(Nodes::between(&before, &after, 0.0).cpu_us_per_op, None);
        let before = answers([(1, Ok((at(0), status(0, 0, 0, 0))))]);
        let after = answers([(1, Ok((at(1), status(1000, 0, 3, 0))))]);
        let used = Nodes::between(&before, &after, 10.0);
        assert_eq!((used.cpu_us_per_op, used.each[0].cpu_cores), (None, None));
        assert_eq!(used.each[0].hedges, 3);
    }
}
