//! Certificates that expire, and are good again.
//!
//! Nothing is pretended. The testnet's authority signs the node's certificate anew, for some seconds; the node finds it and
//! shows it, as it finds any renewed one; then it is over, and what comes of it comes by itself: peers and clients accept no new
//! connection with the node. One that began with a former certificate goes on to the end of that one, as ever.

use std::{
    path::PathBuf,
    time::{Duration, SystemTime},
};

use atoll_papers::papers::{CA, CA_KEY, NODE_CERTIFICATE, NODE_KEY};
use atoll_ring::NodeId;
use atoll_transport::{Authority, AuthorityError, Identity, IdentityError, renewal::LOOK_EVERY};

use crate::{
    event::{Event, Hear},
    files::FileError,
    node::{Condition, Node},
    papers, poll,
    probe::{Probe, ProbeError},
    testnet::Testnet,
};

/// Why a certificate is not what it should have become.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// Nobody can sign.
    #[error("the key of the testnet's authority is not there: {}", path.display())]
    NoAuthority {
        /// Where it should be.
        path: PathBuf,
    },
    /// A node that is paused does not look at its files. Nothing was changed.
    #[error("{node} is paused, and looks at its certificate only when it goes on")]
    Paused {
        /// The node.
        node: NodeId,
    },
    /// It did not take what was signed. Its certificate is good again.
    #[error("{node} has not taken the certificate that was signed for it: {reason}")]
    NotTaken {
        /// The node.
        node: NodeId,
        /// What it says.
        reason: String,
    },
    /// Its time is over, and it is spoken with all the same.
    #[error("the certificate of {node} has expired, and it still answers")]
    StillAnswers {
        /// The node.
        node: NodeId,
    },
    /// Signing.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// Reading.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Asking.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// A pid file.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Lets the certificates of these nodes expire, and comes back when they have: for nodes that run after some seconds. The
/// testnet's lock must be held.
///
/// # Errors
/// See [`CertificateError`].
pub async fn expire(
    testnet: &Testnet,
    nodes: &[Node],
    hear: Hear<'_>,
) -> Result<(), CertificateError> {
    let authority = authority(testnet)?;
    let already = expired(testnet)?;
    let (mut running, mut fresh) = (Vec::new(), nodes.to_vec());
    fresh.retain(|node| !already.contains(&node.id));
    for node in &fresh {
        match node.condition()? {
            Condition::Paused(_) => return Err(CertificateError::Paused { node: node.id }),
            Condition::Running(_) => running.push(node),
            Condition::Stopped | Condition::Dead => {}
        }
    }
    let probe = Probe::open(testnet)?;
    let mut over = SystemTime::now();
    for node in &fresh {
        let runs = running.iter().any(|other| other.id == node.id);
        let valid = if runs { LAST_TIME } else { Duration::from_secs(1) };
        over = over.max(authority.renew(&certificate(node), None, valid)?);
    }
    for node in &running {
        if let Err(reason) = taken(&probe, node, over).await {
            for node in &fresh {
                authority.renew(&certificate(node), None, papers::VALID)?;
            }
            return Err(CertificateError::NotTaken { node: node.id, reason });
        }
    }
    let whole_last_second = over + Duration::from_secs(1);
    let left = whole_last_second.duration_since(SystemTime::now()).unwrap_or_default();
    tokio::time::sleep(left).await;
    for node in &running {
        if !silent(&probe, node).await {
            return Err(CertificateError::StillAnswers { node: node.id });
        }
    }
    for node in nodes {
        hear(Event::CertificateExpired { node: node.id });
    }
    Ok(())
}

/// Makes the certificates of these nodes good again, and waits until those that run show them. The testnet's lock must be held.
///
/// # Errors
/// See [`CertificateError`].
pub async fn renew(
    testnet: &Testnet,
    nodes: &[Node],
    hear: Hear<'_>,
) -> Result<(), CertificateError> {
    let authority = authority(testnet)?;
    let probe = Probe::open(testnet)?;
    for node in nodes {
        authority.renew(&certificate(node), None, papers::VALID)?;
    }
    for node in nodes {
        if let Condition::Running(_) = node.condition()? {
            let answer = probe.until_ready(node, LOOK_EVERY + ANSWERS_WITHIN).await;
            answer.map_err(|reason| CertificateError::NotTaken { node: node.id, reason })?;
        }
        hear(Event::CertificateRenewed { node: node.id });
    }
    Ok(())
}

/// The nodes whose certificates have expired.
///
/// # Errors
/// A certificate cannot be read.
pub fn expired(testnet: &Testnet) -> Result<Vec<NodeId>, CertificateError> {
    let mut expired = Vec::new();
    for node in testnet.nodes() {
        if has_expired(testnet, &node)? {
            expired.push(node.id);
        }
    }
    Ok(expired)
}

pub(crate) fn has_expired(testnet: &Testnet, node: &Node) -> Result<bool, CertificateError> {
    let key = node.folder().join(NODE_KEY);
    let identity = Identity::load(&testnet.folder().join(CA), &certificate(node), &key)?;
    Ok(identity.expires() < SystemTime::now())
}

fn authority(testnet: &Testnet) -> Result<Authority, CertificateError> {
    let path = testnet.folder().join(CA_KEY);
    if !path.is_file() {
        return Err(CertificateError::NoAuthority { path });
    }
    Ok(Authority::open(&testnet.folder().join(CA), &path)?)
}

fn certificate(node: &Node) -> PathBuf {
    node.folder().join(NODE_CERTIFICATE)
}

/// Waits until a node says that its certificate ends then, or has no time left to say it.
async fn taken(probe: &Probe, node: &Node, over: SystemTime) -> Result<(), String> {
    let mut reason = "it did not answer".to_owned();
    while let Ok(left) = over.duration_since(SystemTime::now()) {
        match probe.ask(node, left).await {
            Ok(status) => {
                let ends =
                    SystemTime::UNIX_EPOCH + Duration::from_millis(status.certificate_expires_ms);
                if ends <= over {
                    return Ok(());
                }
                reason = match status.certificate_problem.as_str() {
                    "" => "it shows its former one".to_owned(),
                    problem => problem.to_owned(),
                };
            }
            Err(error) => reason = error,
        }
        poll::pause().await;
    }
    Err(reason)
}

/// Whether nobody can connect to a node any more. Clocks and timers are looked at by more than one of us.
async fn silent(probe: &Probe, node: &Node) -> bool {
    for _ in 0..TRIES_MAX {
        if probe.ask(node, Duration::from_secs(1)).await.is_err() {
            return true;
        }
        poll::pause().await;
    }
    false
}

/// How long a certificate is good that shall expire: the node looks at its files within [`LOOK_EVERY`], on a busy machine
/// somewhat later.
const LAST_TIME: Duration = Duration::from_secs(6);

/// How long a node that has looked may take to answer.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);

const TRIES_MAX: u32 = 50;
