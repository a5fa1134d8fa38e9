//! A cluster on several machines: the folder of whoever runs it.
//!
//! ```text
//! prod/
//! ├── ca.pem, ca.key              the authority; without its key nothing can be signed, so it may be kept elsewhere
//! ├── view.json, cluster.secret   the first view and the secret, as every node has them
//! ├── n1/ n2/ …                   one folder for each host, with all that its node needs
//! │   ├── node.toml, node.pem, node.key
//! │   └── ca.pem, view.json, cluster.secret
//! └── users/
//!     ├── operator/               may do everything
//!     │   └── profile.toml, user.pem, user.key, ca.pem
//!     └── client/                 may read and write
//! ```
//!
//! The folder is made once ([`Cluster::create`]) and never written over. Later it gives out certificates
//! ([`Cluster::issue_user`]) and signs them again ([`Cluster::renew`]). It does not know which host has which copy: who
//! renews a certificate copies it.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use atoll_ring::{ClusterId, Member, NodeId, Partitions, PlacementWarning, View};
use atoll_transport::Authority;
use atoll_wire::Role;

use crate::{
    ClusterError,
    files::{self, FileError},
    papers::{
        self, CA, CA_KEY, CLUSTER_SECRET, NODE_CERTIFICATE, NODE_KEY, NodePapers, USER_CERTIFICATE,
        USER_KEY, VIEW,
    },
};

/// The folder of a cluster.
#[derive(Debug)]
pub struct Cluster {
    folder: PathBuf,
    view: View,
}

/// What a new cluster shall be.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Its nodes.
    pub members: Vec<Member>,
    /// Copies of each key.
    pub replicas: u8,
    /// Partitions of the ring; for good.
    pub partitions: Partitions,
    /// How long the first certificates are good.
    pub valid: Valid,
}

/// How long a certificate is good: 1 to [`Valid::DAYS_MAX`] days.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Valid {
    days: u32,
}

impl Valid {
    /// Five years. What expires later is renewed by nobody who still knows how.
    pub const DAYS_MAX: u32 = 1825;

    /// So many days.
    ///
    /// # Errors
    /// [`ClusterError::Days`].
    pub fn days(days: u32) -> Result<Self, ClusterError> {
        if days == 0 || days > Self::DAYS_MAX {
            return Err(ClusterError::Days { days });
        }
        Ok(Valid { days })
    }

    pub(crate) fn duration(self) -> Duration {
        Duration::from_secs(u64::from(self.days) * 86_400)
    }
}

/// A certificate that was signed again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renewed {
    /// Whose it is: a node or a user.
    pub name: String,
    /// The node, if it is one.
    pub node: Option<NodeId>,
    /// Where it lies.
    pub certificate: PathBuf,
    /// The new key, if one was asked for.
    pub key: Option<PathBuf>,
    /// When it expires.
    pub expires: SystemTime,
}

/// The user that may do everything.
pub const OPERATOR: &str = "operator";
/// The user that may read and write.
pub const CLIENT: &str = "client";

const USERS: &str = "users";

impl Cluster {
    /// Makes a new cluster in a folder that is empty or not there, with what the planner has to say about the placement.
    /// If it cannot be finished, what was written is removed again.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub fn create(
        folder: &Path,
        plan: Plan,
    ) -> Result<(Cluster, Vec<PlacementWarning>), ClusterError> {
        check_members(&plan)?;
        let id = ClusterId(rand::random());
        let (view, warnings) = View::create(id, plan.partitions, plan.replicas, plan.members)?;
        claim(folder)?;
        let cluster = Cluster { folder: folder.to_owned(), view };
        if let Err(error) = cluster.write_all(plan.valid) {
            cluster.remove_all();
            return Err(error);
        }
        Ok((cluster, warnings))
    }

    /// The cluster in a folder.
    ///
    /// # Errors
    /// [`ClusterError::NoCluster`], [`ClusterError::Damaged`].
    pub fn open(folder: &Path) -> Result<Cluster, ClusterError> {
        let no_cluster = |missing| ClusterError::NoCluster { folder: folder.to_owned(), missing };
        let path = folder.join(VIEW);
        let text = files::read(&path)?.ok_or_else(|| no_cluster(VIEW))?;
        if !folder.join(CA).is_file() {
            return Err(no_cluster(CA));
        }
        let view = serde_json::from_str(&text)
            .map_err(|error| ClusterError::Damaged { path, reason: error.to_string() })?;
        Ok(Cluster { folder: folder.to_owned(), view })
    }

    /// The first view.
    #[must_use]
    pub fn view(&self) -> &View {
        &self.view
    }

    /// The folder of a user.
    #[must_use]
    pub fn user_folder(&self, name: &str) -> PathBuf {
        self.folder.join(USERS).join(name)
    }

    /// The folder of a node.
    #[must_use]
    pub fn node_folder(&self, node: NodeId) -> PathBuf {
        self.folder.join(node.to_string())
    }

    /// Where the authority's key belongs.
    #[must_use]
    pub fn authority_key(&self) -> PathBuf {
        self.folder.join(CA_KEY)
    }

    /// Everybody who has a certificate here: nodes by number, then users by name.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn names(&self) -> Result<Vec<String>, ClusterError> {
        let mut nodes = BTreeSet::new();
        for name in folders_in(&self.folder)? {
            if let Ok(node) = name.parse::<NodeId>()
                && node.to_string() == name
                && self.folder.join(&name).join(NODE_CERTIFICATE).is_file()
            {
                nodes.insert(node);
            }
        }
        let users: BTreeSet<String> = folders_in(&self.folder.join(USERS))?
            .into_iter()
            .filter(|name| self.user_folder(name).join(USER_CERTIFICATE).is_file())
            .collect();
        Ok(nodes.iter().map(NodeId::to_string).chain(users).collect())
    }

    /// Makes a new user in a folder of its own, which must be empty or not there. Gives the folder.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub fn issue_user(
        &self,
        name: &str,
        roles: &[Role],
        valid: Valid,
        folder: Option<&Path>,
    ) -> Result<PathBuf, ClusterError> {
        check_user_name(name)?;
        let folder = folder.map_or_else(|| self.user_folder(name), Path::to_owned);
        let authority = self.authority()?;
        claim(&folder).map_err(|error| match error {
            ClusterError::NotEmpty { folder } => {
                ClusterError::UserExists { folder, name: name.to_owned() }
            }
            error => error,
        })?;
        self.write_user(&authority, &folder, name, roles, valid)?;
        Ok(folder)
    }

    /// Signs certificates again, each in its place. Everybody must be known before the first is signed.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub fn renew(
        &self,
        names: &[String],
        valid: Valid,
        new_keys: bool,
    ) -> Result<Vec<Renewed>, ClusterError> {
        let known = self.names()?;
        if let Some(name) = names.iter().find(|name| !known.contains(name)) {
            let (folder, name) = (self.folder.clone(), name.clone());
            return Err(ClusterError::Unknown { folder, name, known });
        }
        let authority = self.authority()?;
        let mut renewed = Vec::new();
        for name in known.iter().filter(|name| names.contains(name)) {
            let node: Option<NodeId> = name.parse().ok();
            let (folder, certificate, key) = match node {
                Some(node) => (self.node_folder(node), NODE_CERTIFICATE, NODE_KEY),
                None => (self.user_folder(name), USER_CERTIFICATE, USER_KEY),
            };
            let certificate = folder.join(certificate);
            let key = new_keys.then(|| folder.join(key));
            let expires = authority.renew(&certificate, key.as_deref(), valid.duration())?;
            renewed.push(Renewed { name: name.clone(), node, certificate, key, expires });
        }
        Ok(renewed)
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub(crate) fn authority(&self) -> Result<Authority, ClusterError> {
        let key = self.authority_key();
        if !key.exists() {
            return Err(ClusterError::NoKey { path: key });
        }
        Ok(Authority::open(&self.folder.join(CA), &key)?)
    }

    fn write_all(&self, valid: Valid) -> Result<(), ClusterError> {
        let Cluster { folder, view } = self;
        let authority = Authority::create(&view.cluster().to_string())?;
        authority.write_key(&folder.join(CA_KEY))?;
        authority.write_certificate(&folder.join(CA))?;
        let secret = papers::new_secret();
        papers::write_secret(folder, &secret)?;
        for member in view.members() {
            let folder = self.node_folder(member.id);
            files::make_folder(&folder)?;
            authority.write_certificate(&folder.join(CA))?;
            papers::write_secret(&folder, &secret)?;
            papers::write_view(&folder, view)?;
            let papers = NodePapers {
                node: member.id,
                listen: member.address,
                common: "",
                view: "",
                written_by: "`atoll cluster init`",
            };
            papers.write(&folder, &authority, valid.duration())?;
        }
        files::make_folder(&folder.join(USERS))?;
        for (name, roles) in
            [(OPERATOR, &[Role::Client, Role::Operator][..]), (CLIENT, &[Role::Client])]
        {
            let folder = self.user_folder(name);
            files::make_folder(&folder)?;
            self.write_user(&authority, &folder, name, roles, valid)?;
        }
        // last: what has a view is a cluster
        Ok(papers::write_view(folder, view)?)
    }

    fn write_user(
        &self,
        authority: &Authority,
        folder: &Path,
        name: &str,
        roles: &[Role],
        valid: Valid,
    ) -> Result<(), ClusterError> {
        authority.write_certificate(&folder.join(CA))?;
        let seeds = self.view.members().iter().map(|member| member.address).collect();
        let (valid, cluster) = (valid.duration(), self.view.cluster());
        Ok(papers::write_user(folder, authority, name, roles, valid, cluster, seeds)?)
    }

    /// The folder was empty when we came. That it cannot be emptied again is not worth another error.
    fn remove_all(&self) {
        let nodes = self.view.members().iter().map(|member| self.node_folder(member.id));
        let others = [CA, CA_KEY, VIEW, CLUSTER_SECRET, USERS].map(|name| self.folder.join(name));
        for path in nodes.chain(others) {
            let _ = files::remove(&path);
        }
    }
}

fn check_members(plan: &Plan) -> Result<(), ClusterError> {
    for (index, member) in plan.members.iter().enumerate() {
        let (node, address) = (member.id, member.address);
        if address.port() == 0 || address.ip().is_unspecified() || address.ip().is_multicast() {
            return Err(ClusterError::NoAddress { node, address });
        }
        for other in &plan.members[..index] {
            if other.id == node {
                return Err(ClusterError::SameNode { node });
            }
            if other.address == address {
                return Err(ClusterError::SameAddress { one: other.id, other: node, address });
            }
        }
    }
    let nodes = plan.members.len();
    if usize::from(plan.replicas) > nodes {
        return Err(ClusterError::Replicas { replicas: plan.replicas, nodes });
    }
    Ok(())
}

/// A user's name becomes a folder's name, and stands beside the names of nodes in `renew`.
fn check_user_name(name: &str) -> Result<(), ClusterError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let is_good = (1..=64).contains(&name.len())
        && name.bytes().all(plain)
        && !name.starts_with('-')
        && name.parse::<NodeId>().is_err();
    if is_good { Ok(()) } else { Err(ClusterError::UserName { name: name.to_owned() }) }
}

/// Makes sure that there is an empty folder.
pub(crate) fn claim(folder: &Path) -> Result<(), ClusterError> {
    if !entries(folder)?.is_empty() || folder.is_file() {
        return Err(ClusterError::NotEmpty { folder: folder.to_owned() });
    }
    Ok(files::make_folder(folder)?)
}

fn folders_in(folder: &Path) -> Result<Vec<String>, FileError> {
    let mut names = entries(folder)?;
    names.retain(|name| folder.join(name).is_dir());
    Ok(names)
}

/// The names in a folder; none if there is no folder.
fn entries(folder: &Path) -> Result<Vec<String>, FileError> {
    let read = || -> io::Result<Vec<String>> {
        fs::read_dir(folder)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect()
    };
    match read() {
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            Ok(Vec::new())
        }
        read => read.map_err(FileError::of("read", folder)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use atoll_client::Profile;
    use atoll_ring::MemberState;
    use atoll_transport::Identity;

    use super::*;

    fn member(id: u32, address: &str) -> Member {
        Member {
            id: NodeId(id),
            incarnation: 0,
            address: address.parse().unwrap(),
            zone: "z1".into(),
            weight: 1,
            state: MemberState::Active,
        }
    }

    fn plan(members: Vec<Member>) -> Plan {
        let valid = Valid::days(365).unwrap();
        Plan { members, replicas: 2, partitions: Partitions::DEFAULT, valid }
    }

    fn two() -> Vec<Member> {
        vec![member(1, "10.0.0.1:7400"), member(2, "10.0.0.2:7400")]
    }

    fn made() -> (tempfile::TempDir, Cluster) {
        let folder = tempfile::tempdir().unwrap();
        let (cluster, _) = Cluster::create(&folder.path().join("prod"), plan(two())).unwrap();
        (folder, cluster)
    }

    fn identity(folder: &Path, name: &str) -> Identity {
        let at = |end: &str| folder.join(format!("{name}.{end}"));
        let identity = Identity::load(&folder.join(CA), &at("pem"), &at("key")).unwrap();
        identity.check(SystemTime::now()).unwrap();
        identity
    }

    fn read(path: PathBuf) -> Vec<u8> {
        fs::read(path).unwrap()
    }

    /// Each node's folder holds all that the node reads, each user's all that the client reads; secrets are for their
    /// owner only; and the folder opens again as the cluster it is.
    #[test]
    fn a_new_cluster() {
        let (folder, cluster) = made();
        let prod = folder.path().join("prod");
        for member in cluster.view().members() {
            let at = cluster.node_folder(member.id);
            assert!(identity(&at, "node").names(member.id));
            assert_eq!(read(at.join(VIEW)), read(prod.join(VIEW)));
            assert_eq!(read(at.join(CLUSTER_SECRET)), read(prod.join(CLUSTER_SECRET)));
            assert_eq!(read(at.join(CA)), read(prod.join(CA)));
        }
        let settings = String::from_utf8(read(prod.join("n2/node.toml"))).unwrap();
        let expected = "\
# Written by `atoll cluster init`. Paths are relative to this file.
format = 1
node = \"n2\"
listen = \"10.0.0.2:7400\"
data = \"data\"
view = \"view.json\"
secret = \"cluster.secret\"
ca = \"ca.pem\"
certificate = \"node.pem\"
key = \"node.key\"
";
        assert_eq!(settings, expected);
        for (user, operates) in [(OPERATOR, true), (CLIENT, false)] {
            let at = cluster.user_folder(user);
            let roles = identity(&at, "user").roles();
            assert!(roles.contains(Role::Client) && !roles.contains(Role::Node));
            assert_eq!(roles.contains(Role::Operator), operates);
            let profile = Profile::load(&at.join(papers::PROFILE)).unwrap();
            assert_eq!(profile.cluster, cluster.view().cluster());
            assert_eq!(profile.seeds.len(), 2);
        }
        for secret in ["ca.key", "cluster.secret", "n1/node.key", "n1/cluster.secret"] {
            let mode = fs::metadata(prod.join(secret)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{secret}");
        }
        let again = Cluster::open(&prod).unwrap();
        assert_eq!(again.view(), cluster.view());
        assert_eq!(again.names().unwrap(), ["n1", "n2", CLIENT, OPERATOR]);
    }

    /// What cannot be is refused before anything is written, with the words a person would look for.
    #[test]
    fn impossible_plans() {
        let folder = tempfile::tempdir().unwrap();
        let prod = folder.path().join("prod");
        let refused = |members: Vec<Member>, words: &[&str]| {
            let error = Cluster::create(&prod, plan(members)).unwrap_err().to_string();
            for word in words {
                assert!(error.contains(word), "{error:?} does not speak of {word}");
            }
            assert!(!prod.exists());
        };
        let (n1, n2) = ("10.0.0.1:7400", "10.0.0.2:7400");
        refused(vec![member(1, n1)], &["2 replicas", "there are 1"]);
        refused(vec![member(1, n1), member(1, n2)], &["n1 is named twice"]);
        refused(vec![member(1, n1), member(2, n1)], &["n1 and n2", n1]);
        refused(vec![member(1, n1), member(2, "10.0.0.2:0")], &["n2", "10.0.0.2:0"]);
        refused(vec![member(1, n1), member(2, "0.0.0.0:7400")], &["n2", "0.0.0.0"]);
        for days in [0, Valid::DAYS_MAX + 1, u32::MAX] {
            assert!(matches!(Valid::days(days), Err(ClusterError::Days { .. })));
        }
    }

    /// A folder that holds anything is left alone; a made cluster is never made over.
    #[test]
    fn nothing_is_overwritten() {
        let (folder, cluster) = made();
        let prod = folder.path().join("prod");
        let before = read(prod.join(CA_KEY));
        let error = Cluster::create(&prod, plan(two())).unwrap_err();
        assert!(matches!(error, ClusterError::NotEmpty { .. }));
        assert_eq!(read(prod.join(CA_KEY)), before);

        let file = folder.path().join("file");
        fs::write(&file, "mine").unwrap();
        assert!(matches!(Cluster::create(&file, plan(two())), Err(ClusterError::NotEmpty { .. })));
        assert_eq!(read(file), b"mine");

        let (client, roles) = (cluster.user_folder(CLIENT), [Role::Client]);
        let before = read(client.join(USER_KEY));
        let valid = Valid::days(90).unwrap();
        let error = cluster.issue_user(CLIENT, &roles, valid, None).unwrap_err();
        assert!(matches!(error, ClusterError::UserExists { .. }));
        assert_eq!(read(client.join(USER_KEY)), before);

        fs::create_dir(folder.path().join("empty")).unwrap();
        Cluster::create(&folder.path().join("empty"), plan(two())).unwrap();
    }

    /// A new user can be renewed by name like everybody else, unless it lies elsewhere.
    #[test]
    fn users_come_later() {
        let (folder, cluster) = made();
        let (roles, valid) = ([Role::Client], Valid::days(90).unwrap());
        let alice = cluster.issue_user("alice", &roles, valid, None).unwrap();
        assert!(identity(&alice, "user").roles().contains(Role::Client));
        let elsewhere = folder.path().join("bob");
        cluster.issue_user("bob", &roles, valid, Some(&elsewhere)).unwrap();
        identity(&elsewhere, "user");
        assert_eq!(cluster.names().unwrap(), ["n1", "n2", "alice", CLIENT, OPERATOR]);
        for name in ["", "n3", "7", "a b", "../up", ".hidden", "-o", &"x".repeat(65)] {
            let error = cluster.issue_user(name, &roles, valid, None).unwrap_err();
            assert!(matches!(error, ClusterError::UserName { .. }), "{name:?}: {error}");
        }
    }

    /// A renewed certificate is for the same node with the same key; a new key comes only when asked for. Who is not named
    /// keeps what he has, and one unknown name keeps everything as it is.
    #[test]
    fn renewal() {
        let (folder, cluster) = made();
        let prod = folder.path().join("prod");
        let pair =
            |node: &str| ["node.pem", "node.key"].map(|file| read(prod.join(node).join(file)));
        let (n1, n2) = (pair("n1"), pair("n2"));
        let names =
            |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let valid = Valid::days(500).unwrap();
        let error = cluster.renew(&names(&["n1", "n9"]), valid, false).unwrap_err().to_string();
        assert!(error.contains("has no n9: it has n1, n2, client, operator"), "{error}");
        assert_eq!(pair("n1"), n1);

        // also if the key has gone to its host and is not here any more
        fs::remove_file(prod.join("n1/node.key")).unwrap();
        let renewed = cluster.renew(&names(&["n1", CLIENT]), valid, false).unwrap();
        assert_eq!(renewed.iter().map(|one| &*one.name).collect::<Vec<_>>(), ["n1", CLIENT]);
        fs::write(prod.join("n1/node.key"), &n1[1]).unwrap();
        fs::set_permissions(prod.join("n1/node.key"), fs::Permissions::from_mode(0o600)).unwrap();
        let node = identity(&prod.join("n1"), "node");
        assert!(node.names(NodeId(1)) && node.expires() == second(renewed[0].expires));
        assert_ne!(pair("n1")[0], n1[0]);
        assert_eq!(pair("n2"), n2);

        cluster.renew(&names(&["n2"]), valid, true).unwrap();
        assert_ne!(pair("n2")[1], n2[1]);
        assert!(identity(&prod.join("n2"), "node").names(NodeId(2)));
    }

    /// A certificate counts in whole seconds.
    fn second(time: SystemTime) -> SystemTime {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs())
    }

    /// Each way in which a folder cannot sign is said as what it is.
    #[test]
    fn unusable_folders() {
        let (folder, cluster) = made();
        let prod = folder.path().join("prod");
        let valid = Valid::days(90).unwrap();
        let all = cluster.names().unwrap();
        let renew = || cluster.renew(&all, valid, false).unwrap_err().to_string();

        let key = prod.join(CA_KEY);
        fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(renew().contains("chmod 600"), "{}", renew());
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();

        let away = folder.path().join("away");
        fs::rename(&key, &away).unwrap();
        assert!(matches!(cluster.renew(&all, valid, false), Err(ClusterError::NoKey { .. })));

        let (_other_folder, other) = made();
        fs::copy(other.authority_key(), &key).unwrap();
        assert!(renew().contains("is not the key of"), "{}", renew());
        fs::rename(&away, &key).unwrap();

        fs::copy(other.node_folder(NodeId(1)).join(NODE_CERTIFICATE), prod.join("n1/node.pem"))
            .unwrap();
        assert!(renew().contains("was not signed by this cluster's authority"), "{}", renew());

        let nothing = Cluster::open(folder.path()).unwrap_err();
        assert!(matches!(nothing, ClusterError::NoCluster { missing: VIEW, .. }));
        fs::write(prod.join(VIEW), "{}").unwrap();
        assert!(matches!(Cluster::open(&prod), Err(ClusterError::Damaged { .. })));
    }
}
