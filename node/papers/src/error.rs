//! What can go wrong with the folder of a cluster, and what to do about it.

use std::{net::SocketAddr, path::PathBuf};

use atoll_ring::{NodeId, ViewError};
use atoll_transport::AuthorityError;

use crate::{FileError, PapersError, Valid};

/// What was asked of a cluster's folder cannot be done. Nothing was changed, but for [`ClusterError::File`] and
/// [`ClusterError::Authority`]: of several certificates those before the one that failed are signed.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The folder holds something.
    #[error("{} is not empty; nothing was written", folder.display())]
    NotEmpty {
        /// The folder.
        folder: PathBuf,
    },
    /// There is no cluster in the folder.
    #[error("{} holds no cluster: it has no {missing}", folder.display())]
    NoCluster {
        /// The folder.
        folder: PathBuf,
        /// The first file that is missing.
        missing: &'static str,
    },
    /// The view in the folder cannot be read.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The authority's key is not in the folder.
    #[error("{} is not there, and nothing can be signed without it", path.display())]
    NoKey {
        /// Where it should be.
        path: PathBuf,
    },
    /// Two nodes have one name.
    #[error("{node} is named twice; each node has a name of its own")]
    SameNode {
        /// The name.
        node: NodeId,
    },
    /// Two nodes have one address.
    #[error("{one} and {other} have the same address {address}")]
    SameAddress {
        /// One of them.
        one: NodeId,
        /// The other.
        other: NodeId,
        /// Their address.
        address: SocketAddr,
    },
    /// Nobody can reach a node there.
    #[error("{node} cannot be reached at {address}: write the address that the other hosts use")]
    NoAddress {
        /// The node.
        node: NodeId,
        /// What was given.
        address: SocketAddr,
    },
    /// Too few nodes for the replicas.
    #[error("{replicas} replicas of each key need as many nodes, and there are {nodes}")]
    Replicas {
        /// What was asked for, or the default.
        replicas: u8,
        /// Nodes there are.
        nodes: usize,
    },
    /// The planner refuses.
    #[error(transparent)]
    View(#[from] ViewError),
    /// A certificate cannot be good for so long.
    #[error("{days} days: a certificate is good for 1 to {} days", Valid::DAYS_MAX)]
    Days {
        /// What was asked for.
        days: u32,
    },
    /// A user cannot be called so.
    #[error(
        "{name:?} is no name for a user: 1 to 64 letters, digits, - and _, and not the name of a node"
    )]
    UserName {
        /// What was asked for.
        name: String,
    },
    /// There is a user of that name.
    #[error("{} is there already", folder.display())]
    UserExists {
        /// Its folder.
        folder: PathBuf,
        /// Its name.
        name: String,
    },
    /// There is nobody of that name.
    #[error("{} has no {name}: it has {}", folder.display(), known.join(", "))]
    Unknown {
        /// The folder.
        folder: PathBuf,
        /// What was asked for.
        name: String,
        /// Who there is.
        known: Vec<String>,
    },
    /// The id belongs or belonged to a node, or a certificate for it was given out.
    #[error("{node} was given to a node before, and an id is never given twice")]
    NodeSeen {
        /// Which.
        node: NodeId,
    },
    /// A file is in the way.
    #[error("{} is there already; nothing was written", path.display())]
    FileExists {
        /// Which.
        path: PathBuf,
    },
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// A certificate.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
}

impl From<PapersError> for ClusterError {
    fn from(error: PapersError) -> Self {
        match error {
            PapersError::File(error) => ClusterError::File(error),
            PapersError::Authority(error) => ClusterError::Authority(error),
        }
    }
}

impl ClusterError {
    /// What to do about it.
    #[must_use]
    pub fn mend(&self) -> Option<String> {
        match self {
            ClusterError::NotEmpty { .. } => Some("name a folder that is not there yet".into()),
            ClusterError::NoCluster { .. } => {
                Some("name the folder that `atoll cluster init` has made".into())
            }
            ClusterError::NoKey { path } => Some(format!(
                "bring the key back from where it is kept, with mode 600, as {}",
                path.display()
            )),
            ClusterError::Replicas { replicas, nodes } => {
                Some(format!("--replicas {nodes}, or --node {replicas} times"))
            }
            ClusterError::UserExists { name, .. } => Some(format!(
                "another --name or --out; or, for a new certificate: atoll cluster renew DIR {name}"
            )),
            ClusterError::NodeSeen { .. } => {
                Some("leave out --node: the next free id is taken".into())
            }
            ClusterError::FileExists { .. } => Some("another --out".into()),
            ClusterError::Damaged { .. }
            | ClusterError::SameNode { .. }
            | ClusterError::SameAddress { .. }
            | ClusterError::NoAddress { .. }
            | ClusterError::View(_)
            | ClusterError::Days { .. }
            | ClusterError::UserName { .. }
            | ClusterError::Unknown { .. }
            | ClusterError::File(_)
            | ClusterError::Authority(_) => None,
        }
    }
}
