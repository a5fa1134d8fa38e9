//! The settings of one node: a TOML file. Unknown settings are refused, so that a misspelt one is not silently ignored.
//!
//! ```toml
//! format = 1                      # of this file
//! node = "n1"                     # never reused, also not for a replacement
//! listen = "127.0.0.1:7401"       # as in the view; UDP
//! data = "data"                   # paths are relative to this file
//! view = "../view.json"           # the cluster's first view; read at the first start only
//! secret = "../cluster.secret"    # 64 hex digits; binds context tokens to the cluster; mode 0600
//! ca = "../ca.pem"
//! certificate = "node.pem"
//! key = "node.key"                # mode 0600
//! hint_bytes_per_owner_max = 268435456   # optional: what is kept for an owner that is away
//! hint_hours_max = 24             # optional: then it goes to the key's other owners
//! scrub_days = 14                 # optional: how long it takes to read everything once, looking for damage
//! clock_bound_ms = 500            # optional: further off than that a node takes no `lww` writes
//! ```

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use atoll_antientropy::Secret;
use atoll_ring::NodeId;
use atoll_transport::{
    IdentityError,
    identity::check_private,
    small_file::{self, SETTINGS_BYTES_MAX},
};
use serde::Deserialize;

use crate::{CLOCK_BOUND, HintLimits, SCRUB_PERIOD};

/// The settings of one node.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Which member of the view this is.
    pub node: NodeId,
    /// Where to listen, UDP.
    pub listen: SocketAddr,
    /// The data directory.
    pub data: PathBuf,
    /// The cluster's first view, JSON.
    pub view: PathBuf,
    /// The cluster's secret.
    pub secret: PathBuf,
    /// The cluster's authority.
    pub ca: PathBuf,
    /// This node's certificate.
    pub certificate: PathBuf,
    /// This node's key.
    pub key: PathBuf,
    /// How much is kept for owners that are away.
    pub hint_limits: HintLimits,
    /// How long it takes to read everything once in the background, looking for damage.
    ///
    /// In whole days, 14 by default. Fewer find damage earlier and read more; more is for large slow disks. Two copies of a
    /// key that are damaged within one period may be lost together with the third.
    pub scrub_period: Duration,
    /// How far the node's wall clock may be from the others' until it takes no `lww` writes.
    pub clock_bound: Duration,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(rename = "format")]
    _format: u32,
    node: String,
    listen: SocketAddr,
    data: PathBuf,
    view: PathBuf,
    secret: PathBuf,
    ca: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
    hint_bytes_per_owner_max: Option<u64>,
    hint_hours_max: Option<u32>,
    scrub_days: Option<u32>,
    clock_bound_ms: Option<u64>,
}

/// The format of the file.
pub const FORMAT: i64 = 1;

/// Why settings cannot be used. Each says the path and the mend.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not as it should be.
    #[error("{path} is no node configuration: {reason}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What, and where in the file.
        reason: String,
    },
    /// A secret is exposed or a certificate unusable.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The certificate is another node's.
    #[error("{path} is not the certificate of {node}; correct `certificate` or `node`")]
    OtherNode {
        /// The certificate.
        path: PathBuf,
        /// The node that is configured.
        node: NodeId,
    },
    /// The view does not know this node, or knows it elsewhere.
    #[error("{path}: {reason}")]
    View {
        /// The view's file, or the data directory that holds it.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
}

impl NodeConfig {
    /// Reads the file; relative paths become relative to where we are.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = small_file::read_text(path, SETTINGS_BYTES_MAX)
            .map_err(|source| ConfigError::Read { path: path.into(), source })?;
        Self::parse(&text, path.parent().unwrap_or(Path::new(""))).map_err(|reason| {
            ConfigError::Malformed { path: path.into(), reason: small_file::in_short(reason) }
        })
    }

    fn parse(text: &str, folder: &Path) -> Result<Self, String> {
        let table: toml::Table = text.parse().map_err(|e: toml::de::Error| e.to_string())?;
        match table.get("format").and_then(toml::Value::as_integer) {
            Some(FORMAT) => {}
            Some(other) => {
                return Err(format!("format {other}; this program reads format {FORMAT}"));
            }
            None => return Err(format!("it must begin with `format = {FORMAT}`")),
        }
        let read: Document = toml::from_str(text).map_err(|e| e.to_string())?;
        let node = read.node.parse().map_err(|e| format!("node = {:?}: {e}", read.node))?;
        let mut hint_limits = HintLimits::default();
        if let Some(bytes) = read.hint_bytes_per_owner_max {
            hint_limits.bytes_per_owner_max = bytes;
        }
        match read.hint_hours_max {
            Some(0) => return Err("hint_hours_max = 0: at least one hour".into()),
            Some(hours) => hint_limits.away_max = Duration::from_secs(u64::from(hours) * 3600),
            None => {}
        }
        let scrub_period = match read.scrub_days {
            Some(0) => return Err("scrub_days = 0: at least one day".into()),
            Some(days) => Duration::from_secs(u64::from(days) * 24 * 60 * 60),
            None => SCRUB_PERIOD,
        };
        let clock_bound = match read.clock_bound_ms {
            Some(0) => return Err("clock_bound_ms = 0: no two clocks are that equal".into()),
            Some(ms) => Duration::from_millis(ms),
            None => CLOCK_BOUND,
        };
        Ok(NodeConfig {
            node,
            listen: read.listen,
            data: folder.join(read.data),
            view: folder.join(read.view),
            secret: folder.join(read.secret),
            ca: folder.join(read.ca),
            certificate: folder.join(read.certificate),
            key: folder.join(read.key),
            hint_limits,
            scrub_period,
            clock_bound,
        })
    }

    /// The cluster's secret, from its file.
    ///
    /// # Errors
    /// Others may read it, or it is not 64 hex digits.
    pub fn read_secret(&self) -> Result<Secret, ConfigError> {
        check_private(&self.secret)?;
        let text = small_file::read_text(&self.secret, SETTINGS_BYTES_MAX)
            .map_err(|source| ConfigError::Read { path: self.secret.clone(), source })?;
        let secret = blake3::Hash::from_hex(text.trim()).map_err(|_| ConfigError::Malformed {
            path: self.secret.clone(),
            reason: "a secret has 64 hex digits".into(),
        })?;
        Ok(Secret(*secret.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        format = 1
        node = "n2"
        listen = "127.0.0.1:7402"
        data = "data"
        view = "../view.json"
        secret = "/etc/atoll/secret"
        ca = "../ca.pem"
        certificate = "node.pem"
        key = "node.key"
    "#;

    #[test]
    fn paths_are_relative_to_the_file() {
        let config = NodeConfig::parse(GOOD, Path::new("/srv/n2")).expect("good");
        assert_eq!(config.node, NodeId(2));
        assert_eq!(config.data, Path::new("/srv/n2/data"));
        assert_eq!(config.secret, Path::new("/etc/atoll/secret"));
    }

    /// Each bad file is refused with the word a person would look for.
    #[test]
    fn bad_files_are_refused_by_name() {
        for (from, to, word) in [
            ("key = \"node.key\"", "kee = \"node.key\"", "kee"),
            ("key = \"node.key\"", "", "key"),
            ("format = 1", "format = 7", "format 7"),
            ("format = 1", "", "format = 1"),
            ("\"n2\"", "\"two\"", "two"),
            ("127.0.0.1:7402", "localhost", "listen"),
            ("format = 1", "format = 1\nhint_hours_max = 0", "hint_hours_max"),
            ("format = 1", "format = 1\nscrub_days = 0", "scrub_days"),
            ("format = 1", "format = 1\nscrub_days = 0.5", "scrub_days"),
            ("format = 1", "format = 1\nclock_bound_ms = 0", "clock_bound_ms"),
            ("format = 1", "format = 1\nhint_bytes_per_owner_max = -1", "hint_bytes_per_owner_max"),
        ] {
            let text = GOOD.replace(from, to);
            let error = NodeConfig::parse(&text, Path::new("")).expect_err(to);
            assert!(error.contains(word), "{error} does not speak of {word}");
        }
    }
}
