//! What a cluster needs in writing before its nodes can start.
//!
//! The secret of the context tokens and the first view are made once and kept for the cluster's life. Certificates,
//! configurations and the profile are written anew at each `up`: a new authority signs for everybody, so nothing expires in
//! a testnet that is used for long. Its key stays until the next `up`, for nodes that come meanwhile ([`issue_added`]).
//! They begin with the view that knew them first, which lies in their own folder.

use std::time::Duration;

use atoll_papers::{
    FileError, files,
    papers::{self, CA, CA_KEY, CLUSTER_SECRET, NodePapers, VIEW},
};
use atoll_ring::{View, ViewError};
use atoll_transport::{Authority, AuthorityError};
use atoll_wire::Role;

use crate::{node::Node, testnet::Testnet};

/// Why the papers could not be written.
#[derive(Debug, thiserror::Error)]
pub enum PapersError {
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// A certificate.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// A node's or the user's.
    #[error(transparent)]
    Paper(#[from] atoll_papers::PapersError),
    /// There is no such view.
    #[error(transparent)]
    View(#[from] ViewError),
}

/// Makes what is kept for the cluster's life, as far as it is not there.
pub(crate) fn found(testnet: &Testnet) -> Result<(), PapersError> {
    let folder = testnet.folder();
    if files::read(&folder.join(CLUSTER_SECRET))?.is_none() {
        papers::write_secret(folder, &papers::new_secret())?;
    }
    if files::read(&folder.join(VIEW))?.is_none() {
        let (first, _) = testnet.asked().view()?;
        papers::write_view(folder, &first)?;
    }
    Ok(())
}

/// Writes what is written at each `up`. No node may run: it would not believe the others' new certificates.
pub(crate) fn issue(testnet: &Testnet) -> Result<(), PapersError> {
    let (folder, cluster) = (testnet.folder(), testnet.asked().cluster);
    let authority = Authority::create(&cluster.to_string())?;
    authority.write_key(&folder.join(CA_KEY))?;
    authority.write_certificate(&folder.join(CA))?;
    let nodes = testnet.nodes();
    for node in &nodes {
        issue_node(testnet, node, &authority)?;
    }
    let roles = [Role::Client, Role::Operator];
    let seeds = nodes.iter().map(|node| node.address).collect();
    Ok(papers::write_user(folder, &authority, "user", &roles, VALID, cluster, seeds)?)
}

/// Whether a new node can be signed for.
pub(crate) fn can_sign(testnet: &Testnet) -> bool {
    testnet.folder().join(CA_KEY).is_file()
}

/// Writes what a node needs that has come since `up`, with the view that knows it.
pub(crate) fn issue_added(testnet: &Testnet, node: &Node, view: &View) -> Result<(), PapersError> {
    let folder = testnet.folder();
    let authority = Authority::open(&folder.join(CA), &folder.join(CA_KEY))?;
    files::make_folder(node.folder())?;
    papers::write_view(node.folder(), view)?;
    issue_node(testnet, node, &authority)
}

fn issue_node(testnet: &Testnet, node: &Node, authority: &Authority) -> Result<(), PapersError> {
    files::make_folder(node.folder())?;
    let papers = NodePapers {
        node: node.id,
        listen: node.address,
        common: "../",
        view: if testnet.grown().was_added(node.id) { "" } else { "../" },
        written_by: "`atoll testnet up`, which overwrites it",
    };
    Ok(papers.write(node.folder(), authority, VALID)?)
}

/// Tells clients where to look: the profile names the nodes there are now.
pub(crate) fn seeds(testnet: &Testnet) -> Result<(), FileError> {
    let seeds = testnet.nodes().iter().map(|node| node.address).collect();
    papers::write_profile(testnet.folder(), testnet.asked().cluster, seeds)
}

/// For a testnet that is never stopped a year is long; a stopped one gets new certificates anyway.
pub(crate) const VALID: Duration = Duration::from_secs(365 * 86_400);

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use atoll_client::Profile;
    use atoll_ring::ClusterId;
    use data_encoding::HEXLOWER;

    use super::*;
    use crate::asked::Wish;

    fn two_nodes() -> (tempfile::TempDir, Testnet) {
        let folder = tempfile::tempdir().unwrap();
        let wish = Wish { nodes: Some(2), replicas: Some(2), ..Wish::default() };
        let asked = wish.settle(ClusterId([7; 16])).unwrap().0;
        let testnet = Testnet::new(folder.path().to_owned(), asked);
        found(&testnet).unwrap();
        issue(&testnet).unwrap();
        (folder, testnet)
    }

    fn mode(testnet: &Testnet, file: &str) -> u32 {
        fs::metadata(testnet.folder().join(file)).unwrap().permissions().mode() & 0o777
    }

    /// A node's configuration, to the letter.
    #[test]
    fn configuration_of_a_node() {
        let (_folder, testnet) = two_nodes();
        let text = fs::read_to_string(testnet.folder().join("n2/node.toml")).unwrap();
        let expected = "\
# Written by `atoll testnet up`, which overwrites it. Paths are relative to this file.
format = 1
node = \"n2\"
listen = \"127.0.0.1:7402\"
data = \"data\"
view = \"../view.json\"
secret = \"../cluster.secret\"
ca = \"../ca.pem\"
certificate = \"node.pem\"
key = \"node.key\"
";
        assert_eq!(text, expected);
    }

    /// Secrets are for their owner only, and the client's own code accepts what we wrote.
    #[test]
    fn who_may_read_what() {
        let (_folder, testnet) = two_nodes();
        for file in ["cluster.secret", "ca.key", "user.key", "n1/node.key", "n2/node.key"] {
            assert_eq!(mode(&testnet, file), 0o600, "{file}");
        }
        assert_eq!(mode(&testnet, "n1"), 0o700);
        let profile = Profile::load(&testnet.profile()).unwrap();
        assert_eq!(profile.seeds, testnet.nodes().iter().map(|n| n.address).collect::<Vec<_>>());
        let user = atoll_transport::Identity::load(&profile.ca, &profile.certificate, &profile.key)
            .unwrap();
        assert!(user.roles().contains(Role::Client) && user.roles().contains(Role::Operator));
        assert!(!user.roles().contains(Role::Node));
    }

    /// Another `up` gives new certificates; the secret and the view stay, or contexts and data would be worthless.
    #[test]
    fn what_is_kept_for_life() {
        let (_folder, testnet) = two_nodes();
        let read = |file: &str| fs::read_to_string(testnet.folder().join(file)).unwrap();
        let (secret, view, ca) = (read("cluster.secret"), read("view.json"), read("ca.pem"));
        assert_eq!(HEXLOWER.decode(secret.trim().as_bytes()).unwrap().len(), 32);
        let first: View = serde_json::from_str(&view).unwrap();
        assert_eq!(first.members(), testnet.asked().members());
        found(&testnet).unwrap();
        issue(&testnet).unwrap();
        assert_eq!((secret, view), (read("cluster.secret"), read("view.json")));
        assert_ne!(ca, read("ca.pem"));
    }
}
