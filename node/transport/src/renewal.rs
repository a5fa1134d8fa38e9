//! A certificate that is renewed while its node runs.
//!
//! [`Renewal`] reads the node's certificate and key again every [`LOOK_EVERY`]. When they are others than those that are
//! shown, and peers would accept them, the endpoint shows them from the next handshake on; nobody has to tell the node, and
//! no connection is dropped. Their content is compared and not their time, because a copy may keep the time of its
//! original. A pair that is of no use changes nothing: the node says why, in its log and in its status, and looks again.

use std::{
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use atoll_ring::NodeId;

use crate::{Identity, IdentityError, IdentityFiles, Quic};

/// How often the files are read again.
pub const LOOK_EVERY: Duration = Duration::from_secs(2);

/// From how long before its end on a certificate is spoken of, by the node and by `atoll status`.
pub const REMIND_IN_LAST: Duration = Duration::from_secs(30 * 86_400);

/// Looks after the certificate of one node.
pub struct Renewal {
    quic: Quic,
    node: NodeId,
    files: IdentityFiles,
    shown: blake3::Hash,
    reminded_of_days: Option<u64>,
    state: Arc<CertificateState>,
}

/// What a node knows of its own certificate. The default is that of a node without one, as in a network in memory.
#[derive(Debug, Default)]
pub struct CertificateState {
    expires_ms: AtomicU64,
    problem: Mutex<String>,
}

impl CertificateState {
    /// When the certificate that is shown expires, milliseconds since 1970; 0 = there is none.
    pub fn expires_ms(&self) -> u64 {
        self.expires_ms.load(Ordering::Relaxed)
    }

    /// What is wrong with the certificate in the files, which is the one that is shown or should take its place; empty =
    /// nothing.
    pub fn problem(&self) -> String {
        self.problem.lock().expect("no panic holds it").clone()
    }

    fn set(&self, expires: SystemTime) {
        let since_1970 = expires.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let ms = u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX);
        self.expires_ms.store(ms, Ordering::Relaxed);
        self.say(String::new());
    }

    fn say(&self, problem: String) {
        *self.problem.lock().expect("no panic holds it") = problem;
    }
}

/// What a look has shown.
#[derive(Debug)]
pub enum Looked {
    /// Nothing new: the files hold what is shown, or what was refused at the last look.
    Unchanged,
    /// There was another certificate, and it is shown from now on. It expires at this time.
    Renewed(SystemTime),
    /// The files hold nothing that others would accept, and that was not said before. The former certificate is shown.
    Refused(Refusal),
}

/// Why files were refused.
#[derive(Debug)]
pub enum Refusal {
    /// They are not an identity, or not a good one.
    Identity(IdentityError),
    /// They are the identity of somebody else than this node.
    OtherNode(NodeId),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Identity(error) => error.fmt(f),
            Refusal::OtherNode(node) => write!(f, "the new certificate is not that of {node}"),
        }
    }
}

impl Renewal {
    /// Begins with the identity that the endpoint was bound with. A certificate that is no good from the start is only
    /// spoken of: it may be renewed.
    pub fn new(quic: Quic, identity: &Identity, node: NodeId) -> Self {
        let files = identity.files().clone();
        let state = Arc::new(CertificateState::default());
        state.set(identity.expires());
        if let Err(error) = identity.check(SystemTime::now()) {
            tracing::error!(%error, "nobody will accept this node's certificate");
            state.say(error.to_string());
        }
        let shown = identity.fingerprint();
        Renewal { quic, node, files, shown, reminded_of_days: None, state }
    }

    /// Where the present state can be read at any time.
    pub fn state(&self) -> Arc<CertificateState> {
        self.state.clone()
    }

    /// Looks every [`LOOK_EVERY`], for ever.
    pub async fn run(mut self) {
        loop {
            self.remind();
            tokio::time::sleep(LOOK_EVERY).await;
            // the files may lie on a disk that does not answer, which must not hold up the node
            let Ok(back) = tokio::task::spawn_blocking(move || {
                self.look();
                self
            })
            .await
            else {
                return; // the runtime ends
            };
            self = back;
        }
    }

    /// Looks once.
    pub fn look(&mut self) -> Looked {
        match self.take() {
            Ok(None) => {
                self.state.say(String::new());
                Looked::Unchanged
            }
            Ok(Some(expires)) => {
                tracing::info!(expires_in_days = days_left(expires), "certificate renewed");
                self.state.set(expires);
                self.reminded_of_days = None;
                Looked::Renewed(expires)
            }
            Err(refusal) if refusal.to_string() == self.state.problem() => Looked::Unchanged,
            Err(refusal) => {
                tracing::error!(%refusal, "certificate not renewed; the former one stays");
                self.state.say(refusal.to_string());
                Looked::Refused(refusal)
            }
        }
    }

    /// Shows what the files hold, if it is good; `None` if it is shown already.
    fn take(&mut self) -> Result<Option<SystemTime>, Refusal> {
        let IdentityFiles { authority, certificate, key } = &self.files;
        let identity = Identity::load(authority, certificate, key).map_err(Refusal::Identity)?;
        if identity.fingerprint() == self.shown {
            identity.check(SystemTime::now()).map_err(Refusal::Identity)?;
            return Ok(None);
        }
        if !identity.names(self.node) {
            return Err(Refusal::OtherNode(self.node));
        }
        self.quic.renew(&identity).map_err(Refusal::Identity)?;
        self.shown = identity.fingerprint();
        Ok(Some(identity.expires()))
    }

    /// Speaks of the end when it comes near, once a day.
    fn remind(&mut self) {
        let expires = SystemTime::UNIX_EPOCH + Duration::from_millis(self.state.expires_ms());
        let left = expires.duration_since(SystemTime::now()).unwrap_or_default();
        let days = days_left(expires);
        if left < REMIND_IN_LAST && self.reminded_of_days != Some(days) {
            self.reminded_of_days = Some(days);
            let node = self.node;
            tracing::warn!(days, "certificate expires soon: atoll cluster renew DIR {node}");
        }
    }
}

/// Whole days from now on; 0 if it is over.
fn days_left(expires: SystemTime) -> u64 {
    expires.duration_since(SystemTime::now()).unwrap_or_default().as_secs() / 86_400
}
