//! Asks nodes how they are, over QUIC as any operator would. A node that answers and serves is ready.

use std::time::Duration;

use atoll_client::Profile;
use atoll_ring::{ClusterId, Epoch, Update, View};
use atoll_transport::{Expect, Identity, IdentityError, Link, Quic};
use atoll_wire::{
    BucketId, Envelope, Lane, NodeStatus, Reply, Request, Role, StatusQuery, ViewQuery,
};
use tokio::time::timeout;

use crate::{node::Node, poll, testnet::Testnet};

/// A socket to ask from.
#[derive(Clone)]
pub struct Probe {
    quic: Quic,
    cluster: ClusterId,
}

/// Why nobody can be asked.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The testnet's profile.
    #[error(transparent)]
    Profile(#[from] atoll_client::ProfileError),
    /// The user's certificate.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The socket.
    #[error("cannot open a socket: {0}")]
    Socket(#[from] std::io::Error),
    /// It was damaged by hand: a testnet has nodes.
    #[error("the testnet has no nodes")]
    NoNodes,
}

impl Probe {
    /// Opens a socket with the user's certificate. Must be called inside a runtime.
    ///
    /// # Errors
    /// See [`ProbeError`].
    pub fn open(testnet: &Testnet) -> Result<Probe, ProbeError> {
        let profile = Profile::load(&testnet.profile())?;
        let identity = Identity::load(&profile.ca, &profile.certificate, &profile.key)?;
        let target = *profile.seeds.first().ok_or(ProbeError::NoNodes)?;
        let quic = Quic::for_dialling(target, &identity)?;
        Ok(Probe { quic, cluster: profile.cluster })
    }

    /// How a node is, or why it does not say so within `limit`.
    pub async fn ask(&self, node: &Node, limit: Duration) -> Result<NodeStatus, String> {
        timeout(limit, self.ask_patiently(node)).await.unwrap_or_else(|_| Err("no answer".into()))
    }

    async fn ask_patiently(&self, node: &Node) -> Result<NodeStatus, String> {
        status(&self.dial(node).await?).await
    }

    /// What a node answers to an operator, or why it does not within `limit`.
    pub(crate) async fn request(
        &self,
        node: &Node,
        request: Request,
        limit: Duration,
    ) -> Result<Reply, String> {
        let asked = async { call(&self.dial(node).await?, &request).await };
        timeout(limit, asked).await.unwrap_or_else(|_| Err("no answer".into()))
    }

    /// A connection to ask more than once. It takes as long as it takes.
    pub(crate) async fn dial(&self, node: &Node) -> Result<Link, String> {
        let link = self
            .quic
            .dial(node.address, Expect::Node(node.id), Role::Operator, None)
            .await
            .map_err(|error| error.to_string())?;
        if link.cluster() != self.cluster {
            return Err(format!("is of cluster {}, not {}", link.cluster(), self.cluster));
        }
        Ok(link)
    }

    /// Asks until the node serves, or for `limit`; then with its last excuse.
    pub(crate) async fn until_ready(
        &self,
        node: &Node,
        limit: Duration,
    ) -> Result<NodeStatus, String> {
        let mut excuse = "no answer".to_owned();
        // what is sent before the node listens is lost, and QUIC repeats it ever more slowly: begin anew instead, and
        // grant more from time to time, because a busy machine needs longer for the handshake itself
        let mut patience = FIRST_PATIENCE;
        let attempts = async {
            loop {
                match self.ask(node, patience).await {
                    Ok(status) if status.rising.is_empty() => return status,
                    Ok(status) => excuse = format!("it does not serve yet: {}", status.rising),
                    Err(reason) => excuse = reason,
                }
                patience = (patience * 5 / 4).min(LAST_PATIENCE);
                poll::pause().await;
            }
        };
        timeout(limit, attempts).await.map_err(|_| excuse)
    }

    /// Waits until each of these nodes counts all others of them as up, or for `limit`.
    pub(crate) async fn until_they_hear_each_other(&self, nodes: &[Node], limit: Duration) {
        let all_hear = async {
            for node in nodes {
                while !self.hears(node, nodes).await {
                    poll::pause().await;
                }
            }
        };
        let _ = timeout(limit, all_hear).await;
    }

    async fn hears(&self, node: &Node, others: &[Node]) -> bool {
        let Ok(status) = self.ask(node, LAST_PATIENCE).await else { return false };
        let up = |id: u32| status.peers.iter().any(|peer| peer.node == id && peer.up);
        others.iter().all(|other| other.id == node.id || up(other.id.0))
    }
}

/// How the node at the other end is.
pub(crate) async fn status(link: &Link) -> Result<NodeStatus, String> {
    match call(link, &Request::Status(StatusQuery {})).await? {
        Reply::Status(status) => Ok(*status),
        Reply::Failed(failure) => Err(failure.to_string()),
        _ => Err("answered nonsense".into()),
    }
}

/// The ring as the node at the other end sees it.
pub(crate) async fn view(link: &Link) -> Result<View, String> {
    match call(link, &Request::View(ViewQuery { have: 0 })).await? {
        Reply::View(reply) => match postcard::from_bytes(&reply.view) {
            Ok(Update::View(view)) => Ok(*view),
            Ok(Update::Entries(_)) | Err(_) => Err("answered nonsense".into()),
        },
        Reply::Failed(failure) => Err(failure.to_string()),
        _ => Err("answered nonsense".into()),
    }
}

async fn call(link: &Link, request: &Request) -> Result<Reply, String> {
    let envelope = Envelope {
        epoch: Epoch(0),
        left_ms: 1000,
        operation: 0, // no number: whoever only looks is no load that repair would make room for
        bucket: BucketId([0; 16]),
        trace: false,
        role: Role::Operator,
    };
    match link.call(Lane::Control, &envelope, request).await {
        Ok((_, reply)) => Ok(reply),
        Err(error) => Err(error.to_string()),
    }
}

const FIRST_PATIENCE: Duration = Duration::from_millis(150);
const LAST_PATIENCE: Duration = Duration::from_secs(2);
