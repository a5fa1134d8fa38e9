//! The single papers: what is made once for a cluster, what a node needs, what a user needs.

use std::{net::SocketAddr, path::Path, time::Duration};

use atoll_client::Profile;
use atoll_ring::{ClusterId, NodeId, View};
use atoll_transport::{Authority, AuthorityError};
use atoll_wire::Role;
use data_encoding::HEXLOWER;

use crate::files::{self, FileError, PUBLIC, SECRET};

/// Why a paper could not be written.
#[derive(Debug, thiserror::Error)]
pub enum PapersError {
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// A certificate.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
}

/// The certificate of the authority.
pub const CA: &str = "ca.pem";
/// The authority's key.
pub const CA_KEY: &str = "ca.key";
/// The first view.
pub const VIEW: &str = "view.json";
/// The cluster's secret.
pub const CLUSTER_SECRET: &str = "cluster.secret";
/// A node's settings.
pub const NODE: &str = "node.toml";
/// A node's certificate.
pub const NODE_CERTIFICATE: &str = "node.pem";
/// A node's key.
pub const NODE_KEY: &str = "node.key";
/// A user's profile.
pub const PROFILE: &str = "profile.toml";
/// A user's certificate.
pub const USER_CERTIFICATE: &str = "user.pem";
/// A user's key.
pub const USER_KEY: &str = "user.key";

/// A new secret, as its file has it: 64 hex digits.
pub fn new_secret() -> String {
    format!("{}\n", HEXLOWER.encode(&rand::random::<[u8; 32]>()))
}

/// Writes a secret.
///
/// # Errors
/// The file cannot be written.
pub fn write_secret(folder: &Path, secret: &str) -> Result<(), FileError> {
    files::write(&folder.join(CLUSTER_SECRET), secret, SECRET)
}

/// Writes a view.
///
/// # Errors
/// The file cannot be written.
pub fn write_view(folder: &Path, view: &View) -> Result<(), FileError> {
    let text = serde_json::to_string(view).expect("a view is plain data");
    files::write(&folder.join(VIEW), &text, PUBLIC)
}

/// What a node's settings say.
#[derive(Clone, Copy, Debug)]
pub struct NodePapers<'a> {
    /// Which node.
    pub node: NodeId,
    /// Where it listens: its address in the view.
    pub listen: SocketAddr,
    /// Where authority and secret lie, seen from the node's folder: empty, or a path with a `/` at its end.
    pub common: &'a str,
    /// Where its first view lies, likewise.
    pub view: &'a str,
    /// Who has written it.
    pub written_by: &'a str,
}

impl NodePapers<'_> {
    /// Writes settings, certificate and key of the node into its folder, which must be there.
    ///
    /// # Errors
    /// See [`PapersError`].
    pub fn write(
        &self,
        folder: &Path,
        authority: &Authority,
        valid: Duration,
    ) -> Result<(), PapersError> {
        let (certificate, key) = (folder.join(NODE_CERTIFICATE), folder.join(NODE_KEY));
        authority.issue_node(self.node, valid, &certificate, &key)?;
        Ok(files::write(&folder.join(NODE), &self.settings(), PUBLIC)?)
    }

    pub(crate) fn settings(&self) -> String {
        let NodePapers { node, listen, common, view, written_by } = self;
        format!(
            "\
# Written by {written_by}. Paths are relative to this file.
format = 1
node = \"{node}\"
listen = \"{listen}\"
data = \"data\"
view = \"{view}{VIEW}\"
secret = \"{common}{CLUSTER_SECRET}\"
ca = \"{common}{CA}\"
certificate = \"{NODE_CERTIFICATE}\"
key = \"{NODE_KEY}\"
"
        )
    }
}

/// Writes certificate, key and profile of a user into a folder, which must be there and hold `ca.pem` already.
///
/// # Errors
/// See [`PapersError`].
pub fn write_user(
    folder: &Path,
    authority: &Authority,
    name: &str,
    roles: &[Role],
    valid: Duration,
    cluster: ClusterId,
    seeds: Vec<SocketAddr>,
) -> Result<(), PapersError> {
    let (certificate, key) = (folder.join(USER_CERTIFICATE), folder.join(USER_KEY));
    authority.issue_user_named(name, roles, valid, &certificate, &key)?;
    Ok(write_profile(folder, cluster, seeds)?)
}

/// Writes the profile of a user whose certificate and key lie in the same folder.
///
/// # Errors
/// The file cannot be written.
pub fn write_profile(
    folder: &Path,
    cluster: ClusterId,
    seeds: Vec<SocketAddr>,
) -> Result<(), FileError> {
    let profile = Profile {
        cluster,
        seeds,
        ca: CA.into(),
        certificate: USER_CERTIFICATE.into(),
        key: USER_KEY.into(),
    };
    let text = toml::to_string(&profile).expect("a profile is plain data");
    files::write(&folder.join(PROFILE), &text, PUBLIC)
}
