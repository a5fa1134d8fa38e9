//! Where a cluster is and who we are to it: a small TOML file.
//!
//! ```toml
//! cluster = "0f3a…"                          # 32 hex digits; refuses to talk to another cluster
//! seeds = ["127.0.0.1:7400"]                 # any nodes; the rest is learned from them
//! ca = "ca.pem"                              # paths are relative to this file
//! certificate = "user.pem"
//! key = "user.key"
//! ```

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use atoll_ring::ClusterId;
use atoll_transport::small_file::{self, SETTINGS_BYTES_MAX};
use serde::{Deserialize, Serialize};

/// Where a cluster is and who we are to it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// The cluster; another one is refused.
    pub cluster: ClusterId,
    /// Addresses of any nodes.
    pub seeds: Vec<SocketAddr>,
    /// The cluster's authority, PEM.
    pub ca: PathBuf,
    /// Our certificate, PEM.
    pub certificate: PathBuf,
    /// Our key, PEM, readable by us only.
    pub key: PathBuf,
}

/// Why a profile cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// The file cannot be read.
    #[error("cannot read the cluster profile {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is no profile.
    #[error("{path} is no cluster profile: {reason}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Why, with line and column.
        reason: String,
    },
}

impl Profile {
    /// Reads a profile; its relative paths become relative to where we are.
    ///
    /// # Errors
    /// See [`ProfileError`].
    pub fn load(path: &Path) -> Result<Self, ProfileError> {
        let text = small_file::read_text(path, SETTINGS_BYTES_MAX)
            .map_err(|source| ProfileError::Read { path: path.into(), source })?;
        let mut profile: Profile = toml::from_str(&text).map_err(|reason| {
            ProfileError::Malformed { path: path.into(), reason: small_file::in_short(reason) }
        })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        for file in [&mut profile.ca, &mut profile.certificate, &mut profile.key] {
            *file = folder.join(&*file);
        }
        Ok(profile)
    }
}
