//! Whether a cluster is well enough to lose a disk.

use atoll_client::NodeStatus;
use std::time::Duration;

use crate::{
    files::FileError,
    node::Condition,
    probe::{Probe, ProbeError},
    testnet::Testnet,
};

/// What is still amiss, if anything. `calm_since` is how long ago the last thing was broken: every partition must have been
/// compared since.
pub(super) async fn amiss(
    testnet: &Testnet,
    calm_since: Duration,
) -> Result<Option<String>, WellError> {
    let probe = Probe::open(testnet)?;
    for node in testnet.nodes() {
        let Condition::Running(_) = node.condition()? else {
            return Ok(Some(format!("{} does not run", node.id)));
        };
        let amiss = match probe.ask(&node, ANSWER_LIMIT).await {
            Err(reason) => Some(reason),
            Ok(status) => amiss_with(&status, calm_since),
        };
        if let Some(amiss) = amiss {
            return Ok(Some(format!("{}: {amiss}", node.id)));
        }
    }
    Ok(None)
}

fn amiss_with(status: &NodeStatus, calm_since: Duration) -> Option<String> {
    let NodeStatus { rising, partitions_in_doubt, keys_in_doubt, hints, .. } = status;
    let silent: Vec<String> =
        status.peers.iter().filter(|peer| !peer.up).map(|peer| format!("n{}", peer.node)).collect();
    if !rising.is_empty() {
        Some(format!("does not serve yet: {rising}"))
    } else if !silent.is_empty() {
        Some(format!("does not hear {}", silent.join(" ")))
    } else if *hints > 0 {
        Some(format!("keeps {hints} hints"))
    } else if *partitions_in_doubt > 0 || *keys_in_doubt > 0 {
        Some(format!("doubts {partitions_in_doubt} partitions and {keys_in_doubt} keys"))
    } else if Duration::from_millis(status.compared_ms_ago) >= calm_since {
        Some("has not compared everything since".into())
    } else {
        None
    }
}

/// Nobody can be asked, or not about its process.
#[derive(Debug, thiserror::Error)]
pub enum WellError {
    /// See there.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
}

/// For one status, of a node that may be busy.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
