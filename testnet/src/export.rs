//! The way out of a testnet: what a cluster of the same shape needs on real hosts.
//!
//! ```text
//! out/
//! ├── README.md                   what to do next, with every command
//! ├── atoll@.service              systemd: a unit for the node of each host
//! ├── compose.yaml, bin/atoll     compose: a container for each node, and this program
//! ├── ca.pem, ca.key, view.json, cluster.secret, users/
//! │                               as `atoll cluster init` makes them; `atoll cluster renew` works here
//! └── n1/ n2/ …                   one folder for each host, with all that its node needs, and
//!     ├── start                   how it is started
//!     └── first-start             until it was started for the first time
//! ```
//!
//! The same are nodes, zones, copies and partitions. Not the same are the cluster's id, its authority and its secret: two
//! clusters must never take each other's nodes for their own. Data stays where it is.
//!
//! A certificate names a node and no address, so addresses may be put in afterwards: without any the files have those of
//! [`PLACEHOLDERS`], which no network routes.

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use atoll_papers::{Cluster, ClusterError, Plan, Valid};
use atoll_ring::{Member, NodeId};

use crate::{
    files::{self, FileError},
    testnet::Testnet,
};

mod texts;

/// Where nodes stand whose addresses are not known yet: 192.0.2.1 for `n1` and so on, kept free for examples by RFC 5737.
pub const PLACEHOLDERS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 0);

/// The port of every exported node that got no other.
pub const PORT: u16 = 7400;

/// What was written.
#[derive(Clone, Debug)]
pub struct Exported {
    /// Where.
    pub folder: PathBuf,
    /// The nodes, with their new addresses.
    pub nodes: Vec<Member>,
    /// Whether the addresses have still to be put in.
    pub has_placeholders: bool,
}

/// Why nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The papers.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// Addresses for some of the nodes.
    #[error("{given} addresses for {nodes} nodes: {missing} has none")]
    Missing {
        /// How many were given.
        given: usize,
        /// How many are needed.
        nodes: usize,
        /// The first without.
        missing: NodeId,
    },
    /// An address for nobody.
    #[error("{address} is for {node}, and testnet {testnet} has no such node")]
    NoNode {
        /// The testnet.
        testnet: String,
        /// The node.
        node: NodeId,
        /// The address.
        address: SocketAddr,
    },
    /// More addresses than nodes.
    #[error("{given} addresses for {nodes} nodes")]
    TooMany {
        /// How many were given.
        given: usize,
        /// How many are needed.
        nodes: usize,
    },
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
}

/// An address, and for whom; without a name it is for the next node that has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// For whom.
    pub node: Option<NodeId>,
    /// Where it listens, UDP.
    pub address: SocketAddr,
}

/// Writes folders and a unit for hosts with systemd.
///
/// # Errors
/// See [`ExportError`].
pub fn systemd(
    testnet: &Testnet,
    folder: &Path,
    addresses: &[Address],
    valid: Valid,
) -> Result<Exported, ExportError> {
    let has_placeholders = addresses.is_empty();
    let nodes = if has_placeholders {
        placed(testnet, |id| SocketAddr::from((offset(PLACEHOLDERS, id.0), PORT)))
    } else {
        addressed(testnet, addresses)?
    };
    let exported = Exported { folder: folder.to_owned(), nodes, has_placeholders };
    exported.write(testnet, valid, |exported| {
        exported.text("atoll@.service", texts::UNIT)?;
        exported.text("README.md", &texts::systemd(testnet.name(), exported))
    })?;
    Ok(exported)
}

/// Writes folders, a compose file and a copy of this program for containers on one host.
///
/// # Errors
/// See [`ExportError`].
pub fn compose(
    testnet: &Testnet,
    folder: &Path,
    network: Network,
    program: &Path,
    valid: Valid,
) -> Result<Exported, ExportError> {
    let nodes = placed(testnet, |id| SocketAddr::from((network.host(id), PORT)));
    let exported = Exported { folder: folder.to_owned(), nodes, has_placeholders: false };
    exported.write(testnet, valid, |exported| {
        let bin = folder.join("bin");
        let copied = fs::create_dir(&bin).and_then(|()| fs::copy(program, bin.join("atoll")));
        copied.map_err(FileError::of("copy this program to", &bin))?;
        let about = fs::metadata(folder).map_err(FileError::of("read", folder))?;
        let owner = (about.uid(), about.gid());
        exported.text("compose.yaml", &texts::compose(testnet.name(), exported, network, owner))?;
        exported.text("README.md", &texts::compose_readme(testnet.name(), exported))
    })?;
    Ok(exported)
}

/// The private network of the containers: the first three numbers of their addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network([u8; 3]);

impl Default for Network {
    /// Rarely taken: most tools begin at 172.17.
    fn default() -> Self {
        Network([172, 30, 77])
    }
}

impl std::str::FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is no network such as 172.30.77.0/24; it must be a /24");
        let (address, bits) = text.split_once('/').ok_or_else(bad)?;
        let [a, b, c, d] = address.parse::<Ipv4Addr>().map_err(|_| bad())?.octets();
        if (bits, d) == ("24", 0) { Ok(Network([a, b, c])) } else { Err(bad()) }
    }
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Network([a, b, c]) = self;
        write!(f, "{a}.{b}.{c}.0/24")
    }
}

impl Network {
    /// Behind the addresses that gateways like to take. Ids grow with each node that was ever added, and no testnet comes
    /// near the end.
    fn host(self, node: NodeId) -> Ipv4Addr {
        let Network([a, b, c]) = self;
        offset(Ipv4Addr::new(a, b, c, 10), node.0)
    }
}

fn offset(base: Ipv4Addr, by: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(base) + by)
}

/// The nodes of the testnet at other places.
fn placed(testnet: &Testnet, place: impl Fn(NodeId) -> SocketAddr) -> Vec<Member> {
    let mut members = testnet.members();
    for member in &mut members {
        member.address = place(member.id);
    }
    members
}

/// Each at the address that was given for it: by its name, or in the order of those without.
fn addressed(testnet: &Testnet, addresses: &[Address]) -> Result<Vec<Member>, ExportError> {
    let mut members = testnet.members();
    let nodes = members.len();
    for given in addresses {
        if let Some(node) = given.node
            && !members.iter().any(|member| member.id == node)
        {
            let (testnet, address) = (testnet.name().to_owned(), given.address);
            return Err(ExportError::NoNode { testnet, node, address });
        }
    }
    let mut unnamed = addresses.iter().filter(|given| given.node.is_none());
    for member in &mut members {
        let named = addresses.iter().find(|given| given.node == Some(member.id));
        let (given, missing) = (addresses.len(), member.id);
        let place = named.or_else(|| unnamed.next());
        member.address = place.ok_or(ExportError::Missing { given, nodes, missing })?.address;
    }
    if unnamed.next().is_some() {
        return Err(ExportError::TooMany { given: addresses.len(), nodes });
    }
    Ok(members)
}

impl Exported {
    /// Makes the cluster, then what goes beside it. What was begun and cannot be finished is removed again.
    fn write(
        &self,
        testnet: &Testnet,
        valid: Valid,
        beside: impl FnOnce(&Exported) -> Result<(), FileError>,
    ) -> Result<(), ExportError> {
        let asked = testnet.asked();
        let (replicas, partitions) = (asked.replicas, asked.partitions);
        let plan = Plan { members: self.nodes.clone(), replicas, partitions, valid };
        Cluster::create(&self.folder, plan)?; // refuses a folder that is not empty
        let rest = || -> Result<(), FileError> {
            for node in &self.nodes {
                let start = format!("{}/start", node.id);
                self.text(&start, texts::START)?;
                let path = self.folder.join(&start);
                let mode = fs::Permissions::from_mode(0o755);
                fs::set_permissions(&path, mode).map_err(FileError::of("write", &path))?;
                self.text(&format!("{}/first-start", node.id), texts::FIRST_START)?;
            }
            beside(self)
        };
        rest().inspect_err(|_| {
            // it was empty when we came; that it cannot be emptied again is not worth another error
            let _ = empty(&self.folder);
        })?;
        Ok(())
    }

    fn text(&self, file: &str, text: &str) -> Result<(), FileError> {
        files::write(&self.folder.join(file), text, files::PUBLIC)
    }
}

fn empty(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let _ = files::remove(&entry?.path());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use atoll_ring::ClusterId;

    use super::*;
    use crate::asked::Wish;

    fn testnet() -> Testnet {
        let wish = Wish { nodes: Some(3), zones: Some(3), ..Wish::default() };
        Testnet::new("/nowhere".into(), wish.settle(ClusterId([7; 16])).unwrap().0)
    }

    fn days() -> Valid {
        Valid::days(30).unwrap()
    }

    fn address(text: &str) -> Address {
        let (node, address) = match text.split_once('=') {
            Some((node, address)) => (Some(node.parse().unwrap()), address),
            None => (None, text),
        };
        Address { node, address: address.parse().unwrap() }
    }

    /// Names first, the others in their order; too few, too many, and those of nobody are refused.
    #[test]
    fn whose_address_it_is() {
        let check = |given: &[&str], expected: Result<[&str; 3], &str>| {
            let given: Vec<Address> = given.iter().map(|text| address(text)).collect();
            match (addressed(&testnet(), &given), expected) {
                (Ok(members), Ok(expected)) => {
                    let places: Vec<String> =
                        members.iter().map(|member| member.address.to_string()).collect();
                    assert_eq!(places, expected);
                }
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
                (result, expected) => panic!("{given:?}: {result:?}, not {expected:?}"),
            }
        };
        let (a, b, c) = ("10.0.0.1:1", "10.0.0.2:1", "[fd00::3]:1");
        check(&[a, b, c], Ok([a, b, c]));
        check(&[a, "n1=10.0.0.9:1", b], Ok(["10.0.0.9:1", a, b]));
        check(&[a, b], Err("2 addresses for 3 nodes: n3 has none"));
        check(&[a, b, c, "10.0.0.4:1"], Err("4 addresses for 3 nodes"));
        check(&[a, b, "n4=10.0.0.4:1"], Err("no such node"));
    }

    /// A folder with anything in it is refused, and left as it is.
    #[test]
    fn nothing_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        systemd(&testnet(), folder.path(), &[], days()).unwrap();
        let before = fs::read(folder.path().join("ca.key")).unwrap();
        let error = systemd(&testnet(), folder.path(), &[], days()).unwrap_err();
        assert!(matches!(error, ExportError::Cluster(ClusterError::NotEmpty { .. })), "{error}");
        assert_eq!(fs::read(folder.path().join("ca.key")).unwrap(), before);
    }

    /// What cannot be finished leaves nothing: here there is no program to copy.
    #[test]
    fn half_an_export_is_none() {
        let above = tempfile::tempdir().unwrap();
        let folder = above.path().join("out");
        let no_program = Path::new("/nowhere/atoll");
        let outcome = compose(&testnet(), &folder, Network::default(), no_program, days());
        assert!(matches!(outcome, Err(ExportError::File(_))), "{outcome:?}");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
    }

    /// Each container has an address of its own, the one that the others know, and its own folder.
    #[test]
    fn the_compose_file() {
        let above = tempfile::tempdir().unwrap();
        let folder = above.path().join("out");
        let network = "10.9.8.0/24".parse().unwrap();
        let program = std::env::current_exe().unwrap();
        compose(&testnet(), &folder, network, &program, days()).unwrap();
        let read = |file: &str| fs::read_to_string(folder.join(file)).unwrap();
        let text = read("compose.yaml");
        for node in 1..=3 {
            let address = format!("10.9.8.{}", 10 + node);
            assert!(text.contains(&format!("ipv4_address: {address}")), "{text}");
            assert!(text.contains(&format!("./n{node}:/atoll")), "{text}");
            let settings = read(&format!("n{node}/node.toml"));
            assert!(settings.contains(&format!("listen = \"{address}:7400\"")), "{settings}");
            assert!(read("view.json").contains(&address));
        }
        assert!(text.contains("subnet: 10.9.8.0/24"), "{text}");
        for bad in ["10.9.8.0", "10.9.8.1/24", "10.9.8.0/16", "fd00::/24"] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
    }
}
