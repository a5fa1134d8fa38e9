//! The file with which a new node joins: all that its host needs, written where the authority's key lies.
//!
//! ```toml
//! format = 1
//! cluster = "0f3a…"                  # 32 hex digits
//! node = "n4"                        # the id that was kept for it
//! invitation = "9c41…"               # 32 hex digits; good once
//! expires_ms = 1795000000000         # then the invitation is void
//! seeds = ["10.0.0.1:7400"]          # members to register with
//! cluster_secret = "77d0…"           # 64 hex digits
//! ca = "-----BEGIN …"                # PEM, as are certificate and key
//! certificate = "-----BEGIN …"
//! key = "-----BEGIN …"
//! ```
//!
//! Whoever has the file can be that node, so it is for its owner only and is refused if others can read it. The key of the
//! authority is not in it. [`Cluster::invite`] writes it, [`JoinFile::unpack`] lays out the node's folder, which
//! [`NewNode::finish`] makes complete once the node is registered.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use atoll_client::Profile;
use atoll_ring::{ClusterId, IdError, NodeId, View};
use atoll_transport::{
    identity::check_private,
    small_file::{self, SETTINGS_BYTES_MAX},
};
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

use crate::{
    Cluster, ClusterError, Valid,
    cluster::claim,
    files::{self, FileError, PUBLIC, SECRET},
    papers::{self, CA, CLUSTER_SECRET, NODE, NODE_CERTIFICATE, NODE_KEY, VIEW},
};

/// What a new node needs to join.
#[derive(Clone)]
pub struct JoinFile {
    /// The cluster.
    pub cluster: ClusterId,
    /// The id kept for it.
    pub node: NodeId,
    /// What it shows, once.
    pub invitation: [u8; 16],
    /// Milliseconds since 1970 after which the invitation is void.
    pub expires_ms: u64,
    /// Members to register with.
    pub seeds: Vec<SocketAddr>,
    cluster_secret: String,
    ca: String,
    certificate: String,
    key: String,
}

/// The file as it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    format: u32,
    cluster: ClusterId,
    node: String,
    invitation: String,
    expires_ms: u64,
    seeds: Vec<SocketAddr>,
    cluster_secret: String,
    ca: String,
    certificate: String,
    key: String,
}

/// Only the part that every format has.
#[derive(Deserialize)]
struct Numbered {
    format: u32,
}

const FORMAT: u32 = 1;

const HEADING: &str = "\
# What a new node needs to join its cluster, once: atoll cluster join FILE --listen IP:PORT --dir DIR
# Whoever has this file can be that node. Remove it when the node has joined.
";

/// Why a join file cannot be used. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum JoinFileError {
    /// It cannot be read, or others can read it.
    #[error(transparent)]
    Exposed(#[from] atoll_transport::IdentityError),
    /// It cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is none.
    #[error("{} is no join file: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Its time is over.
    #[error("this join file expired {ago_s} s ago")]
    Expired {
        /// Seconds since then.
        ago_s: u64,
    },
}

impl Cluster {
    /// The next id that no node has or had, as far as the view and this folder know: a certificate in the folder may be in
    /// somebody's hands even if its node never came.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn next_node(&self, now: &View) -> Result<NodeId, ClusterError> {
        let named = self.names()?;
        let named = named.iter().filter_map(|name| name.parse::<NodeId>().ok());
        let highest = named.chain(seen(now)).max();
        Ok(NodeId(highest.map_or(1, |node| node.0 + 1)))
    }

    /// Whether an id may be given to a new node.
    ///
    /// # Errors
    /// [`ClusterError::NodeSeen`], or the folder cannot be read.
    pub fn check_unseen(&self, node: NodeId, now: &View) -> Result<(), ClusterError> {
        if self.names()?.contains(&node.to_string()) || seen(now).any(|other| other == node) {
            return Err(ClusterError::NodeSeen { node });
        }
        Ok(())
    }

    /// Whether nodes can be signed for here and a join file be written there, before anything is promised to anybody.
    ///
    /// # Errors
    /// [`ClusterError::NoKey`], [`ClusterError::FileExists`], or the key cannot be used.
    pub fn can_invite(&self, out: &Path) -> Result<(), ClusterError> {
        self.authority()?;
        if out.exists() {
            return Err(ClusterError::FileExists { path: out.to_owned() });
        }
        std::fs::metadata(files::folder_of(out)).map_err(FileError::of("write", out))?;
        Ok(())
    }

    /// Writes the join file of a node that was invited. Its certificate stays in the folder, so that it can be renewed; its
    /// key does not.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub fn invite(
        &self,
        node: NodeId,
        invitation: [u8; 16],
        expires_ms: u64,
        now: &View,
        valid: Valid,
        out: &Path,
    ) -> Result<(), ClusterError> {
        let authority = self.authority()?;
        let folder = self.node_folder(node);
        files::make_folder(&folder)?;
        let (certificate, key) = (folder.join(NODE_CERTIFICATE), folder.join(NODE_KEY));
        authority.issue_node(node, valid.duration(), &certificate, &key)?;
        let text = |path: &Path| -> Result<String, ClusterError> {
            let none = || ClusterError::Damaged { path: path.to_owned(), reason: "missing".into() };
            files::read(path)?.ok_or_else(none)
        };
        let document = Document {
            format: FORMAT,
            cluster: now.cluster(),
            node: node.to_string(),
            invitation: HEXLOWER.encode(&invitation),
            expires_ms,
            seeds: now.members().iter().map(|member| member.address).collect(),
            cluster_secret: text(&self.file(CLUSTER_SECRET))?.trim().to_owned(),
            ca: text(&self.file(CA))?,
            certificate: text(&certificate)?,
            key: text(&key)?,
        };
        files::remove(&key)?;
        let document = toml::to_string(&document).expect("plain data");
        Ok(files::write(out, &format!("{HEADING}{document}"), SECRET)?)
    }
}

/// Every id that the view knows to be given.
fn seen(view: &View) -> impl Iterator<Item = NodeId> {
    let members = view.members().iter().map(|member| member.id);
    let removed = view.removed().iter().map(|gone| gone.id);
    let invited = view.invitations().iter().map(|open| open.node);
    members.chain(removed).chain(invited)
}

impl JoinFile {
    /// Reads the file.
    ///
    /// # Errors
    /// See [`JoinFileError`].
    pub fn load(path: &Path) -> Result<JoinFile, JoinFileError> {
        let malformed = |reason: String| JoinFileError::Malformed { path: path.to_owned(), reason };
        check_private(path)?;
        let text = small_file::read_text(path, SETTINGS_BYTES_MAX)
            .map_err(|source| JoinFileError::Read { path: path.to_owned(), source })?;
        let in_short = |error: toml::de::Error| malformed(small_file::in_short(error));
        let Numbered { format } = toml::from_str(&text).map_err(in_short)?;
        if format != FORMAT {
            return Err(malformed(format!("format {format}; this program reads format {FORMAT}")));
        }
        let read: Document = toml::from_str(&text).map_err(in_short)?;
        let invitation = HEXLOWER.decode(read.invitation.as_bytes()).ok();
        let invitation = invitation.and_then(|bytes| bytes.try_into().ok());
        Ok(JoinFile {
            cluster: read.cluster,
            node: read.node.parse().map_err(|error: IdError| malformed(error.to_string()))?,
            invitation: invitation
                .ok_or_else(|| malformed("the invitation has not 32 hex digits".into()))?,
            expires_ms: read.expires_ms,
            seeds: read.seeds,
            cluster_secret: read.cluster_secret,
            ca: read.ca,
            certificate: read.certificate,
            key: read.key,
        })
    }

    /// Refuses a file whose time is over, by our own clock; who leads the log looks at its own.
    ///
    /// # Errors
    /// [`JoinFileError::Expired`].
    pub fn check_time(&self, now: SystemTime) -> Result<(), JoinFileError> {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        match now.checked_sub(u128::from(self.expires_ms)) {
            None | Some(0) => Ok(()),
            Some(ago) => {
                let ago_s = u64::try_from(ago / 1000).unwrap_or(u64::MAX);
                Err(JoinFileError::Expired { ago_s })
            }
        }
    }

    /// Lays out the folder of the node, as far as that can be done before it is registered. The folder must be empty or not
    /// there.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub fn unpack(&self, folder: &Path) -> Result<NewNode, ClusterError> {
        claim(folder)?;
        let new = NewNode { folder: folder.to_owned(), node: self.node };
        let written = (|| {
            let write =
                |name: &str, text: &str, mode: u32| files::write(&folder.join(name), text, mode);
            write(CA, &self.ca, PUBLIC)?;
            write(NODE_CERTIFICATE, &self.certificate, PUBLIC)?;
            write(NODE_KEY, &self.key, SECRET)?;
            papers::write_secret(folder, &format!("{}\n", self.cluster_secret))
        })();
        if let Err(error) = written {
            new.remove();
            return Err(error.into());
        }
        Ok(new)
    }

    /// How the host speaks with the cluster: as the node that it shall become.
    #[must_use]
    pub fn profile(&self, folder: &Path) -> Profile {
        Profile {
            cluster: self.cluster,
            seeds: self.seeds.clone(),
            ca: folder.join(CA),
            certificate: folder.join(NODE_CERTIFICATE),
            key: folder.join(NODE_KEY),
        }
    }
}

/// The folder of a node that has its papers and is not registered yet.
#[derive(Debug)]
pub struct NewNode {
    folder: PathBuf,
    node: NodeId,
}

impl NewNode {
    /// Writes what the node starts with: the view that knows it, then its settings. Gives the settings.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn finish(&self, view: &View, listen: SocketAddr) -> Result<PathBuf, FileError> {
        papers::write_view(&self.folder, view)?;
        let settings = papers::NodePapers {
            node: self.node,
            listen,
            common: "",
            view: "",
            written_by: "`atoll cluster join`",
        };
        let path = self.folder.join(NODE);
        files::write(&path, &settings.settings(), PUBLIC)?;
        Ok(path)
    }

    /// Takes everything back: the node was not registered. That it cannot be is not worth another error.
    pub fn remove(&self) {
        for name in [CA, NODE_CERTIFICATE, NODE_KEY, CLUSTER_SECRET, VIEW, NODE] {
            let _ = files::remove(&self.folder.join(name));
        }
        let _ = std::fs::remove_dir(&self.folder);
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _, time::Duration};

    use atoll_ring::{Command, Entry, Epoch, Member, MemberState, Partitions};
    use atoll_transport::Identity;

    use super::*;
    use crate::Plan;

    fn made() -> (tempfile::TempDir, Cluster) {
        let folder = tempfile::tempdir().unwrap();
        let members = (1..=3).map(|id| Member {
            id: NodeId(id),
            incarnation: 0,
            address: SocketAddr::from(([10, 0, 0, 1], 7400 + u16::try_from(id).unwrap())),
            zone: "z1".into(),
            weight: 1,
            state: MemberState::Active,
        });
        let plan = Plan {
            members: members.collect(),
            replicas: 3,
            partitions: Partitions::new(64).unwrap(),
            valid: Valid::days(30).unwrap(),
        };
        let (cluster, _) = Cluster::create(&folder.path().join("prod"), plan).unwrap();
        (folder, cluster)
    }

    /// From the authority's folder to the node's: for its owner only, an identity that is the node's, and no key of the
    /// node stays behind.
    #[test]
    fn from_the_authority_to_the_host() {
        let (folder, cluster) = made();
        let (out, host) = (folder.path().join("n4.join"), folder.path().join("host"));
        let (node, valid) = (NodeId(4), Valid::days(30).unwrap());
        assert_eq!(cluster.next_node(cluster.view()).unwrap(), node);
        cluster.can_invite(&out).unwrap();
        cluster.invite(node, [7; 16], 1000, cluster.view(), valid, &out).unwrap();
        assert_eq!(fs::metadata(&out).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!cluster.node_folder(node).join(NODE_KEY).exists());
        assert!(cluster.names().unwrap().contains(&"n4".to_owned()), "it can be renewed");
        assert!(matches!(cluster.can_invite(&out), Err(ClusterError::FileExists { .. })));

        let read = JoinFile::load(&out).unwrap();
        assert_eq!((read.node, read.invitation, read.seeds.len()), (node, [7; 16], 3));
        let authority = fs::read_to_string(cluster.authority_key()).unwrap();
        assert!(!fs::read_to_string(&out).unwrap().contains(authority.lines().nth(1).unwrap()));
        let new = read.unpack(&host).unwrap();
        let profile = read.profile(&host);
        let identity = Identity::load(&profile.ca, &profile.certificate, &profile.key).unwrap();
        identity.check(SystemTime::now()).unwrap();
        assert!(identity.names(node));
        assert_eq!(
            fs::read(host.join(CLUSTER_SECRET)).unwrap(),
            fs::read(cluster.node_folder(NodeId(1)).join(CLUSTER_SECRET)).unwrap()
        );
        let config = new.finish(cluster.view(), "10.0.0.4:7400".parse().unwrap()).unwrap();
        assert!(fs::read_to_string(config).unwrap().contains("listen = \"10.0.0.4:7400\""));
        assert!(matches!(read.unpack(&host), Err(ClusterError::NotEmpty { .. })));
        new.remove();
        assert!(!host.exists());
    }

    /// An id is never given twice: not of a member, an invited node, one that is gone, or one that only has a certificate.
    #[test]
    fn an_id_is_never_given_twice() {
        let (folder, cluster) = made();
        let entry = |epoch: u64, command| Entry { epoch: Epoch(epoch), at_ms: 0, command };
        let invite = |node: u32| Command::Invite {
            invitation: [u8::try_from(node).unwrap(); 16],
            node: NodeId(node),
            expires_ms: 10,
        };
        let invited = cluster.view().apply(&entry(2, invite(9))).unwrap();
        assert_eq!(cluster.next_node(&invited).unwrap(), NodeId(10));
        let valid = Valid::days(1).unwrap();
        let out = folder.path().join("out");
        cluster.invite(NodeId(11), [1; 16], 0, cluster.view(), valid, &out).unwrap();
        assert_eq!(cluster.next_node(&invited).unwrap(), NodeId(12));
        for node in [1, 9, 11].map(NodeId) {
            let refused = cluster.check_unseen(node, &invited);
            assert!(matches!(refused, Err(ClusterError::NodeSeen { .. })), "{node}");
        }
        cluster.check_unseen(NodeId(5), &invited).unwrap();
    }

    /// What is no join file, is of another format, is open to others, or over, is refused and said to be.
    #[test]
    fn files_that_are_refused() {
        let (folder, cluster) = made();
        let out = folder.path().join("out");
        let valid = Valid::days(1).unwrap();
        cluster.invite(NodeId(4), [1; 16], 5000, cluster.view(), valid, &out).unwrap();
        let good = fs::read_to_string(&out).unwrap();
        let refused = |text: &str| {
            files::write(&out, text, SECRET).unwrap();
            JoinFile::load(&out).err().expect("refused").to_string()
        };
        assert!(refused("format = 2\n").contains("format 2"));
        assert!(refused("nonsense").contains("no join file"));
        assert!(
            refused(&good.replace("invitation = \"01", "invitation = \"x1")).contains("32 hex")
        );
        assert!(refused(&good.replace("n4", "four")).contains("four"));
        files::write(&out, &good, PUBLIC).unwrap();
        assert!(matches!(JoinFile::load(&out), Err(JoinFileError::Exposed(_))));
        files::write(&out, &good, SECRET).unwrap();
        let file = JoinFile::load(&out).unwrap();
        let at = |ms| UNIX_EPOCH + Duration::from_millis(ms);
        file.check_time(at(5000)).unwrap();
        let late = file.check_time(at(8000));
        assert!(matches!(late, Err(JoinFileError::Expired { ago_s: 3 })), "{late:?}");
    }
}
