//! Who came and went since a testnet was made: `grown.toml`, absent as long as nobody did.
//!
//! ```toml
//! format = 1
//! gone = [2]                         # decommissioned; an id is never used again, its folder stays
//!
//! [adding]                           # only while it is being added
//! …
//!
//! [[added]]
//! node = 6
//! port = 7406                        # never moves
//! zone = "z1"
//! ```

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
};

use atoll_ring::{Member, MemberState, NodeId};
use atoll_transport::small_file;
use serde::{Deserialize, Serialize};

use crate::{
    asked::{Asked, AskedError},
    files::{self, FileError},
};

/// Who came and went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grown {
    /// In the order in which they came.
    pub added: Vec<Added>,
    /// Who was decommissioned.
    pub gone: BTreeSet<NodeId>,
    /// Who is being added: written before it is registered, so that an `add` that is cut short can be gone on with.
    pub adding: Option<Added>,
}

/// A node that came later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Added {
    /// Its name.
    pub node: NodeId,
    /// Where it listens.
    pub port: u16,
    /// Its zone.
    pub zone: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    format: u32,
    gone: BTreeSet<NodeId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    adding: Option<Added>,
    #[serde(default)]
    added: Vec<Added>,
}

/// The name of the file.
pub(crate) const FILE: &str = "grown.toml";

const FORMAT: u32 = 1;

const HEADING: &str =
    "# Who came to this testnet and went since it was made. Its ports never move.\n";

impl Grown {
    /// Reads what is written in a folder.
    ///
    /// # Errors
    /// [`AskedError::Format`], [`AskedError::Malformed`], [`AskedError::File`].
    pub(crate) fn load(folder: &Path) -> Result<Grown, AskedError> {
        let path = folder.join(FILE);
        let Some(text) = files::read(&path)? else { return Ok(Grown::default()) };
        let Document { format, gone, adding, added } = toml::from_str(&text).map_err(|reason| {
            AskedError::Malformed { path: path.clone(), reason: small_file::in_short(reason) }
        })?;
        if format != FORMAT {
            return Err(AskedError::Format { path, format });
        }
        Ok(Grown { added, gone, adding })
    }

    /// Writes it down.
    pub(crate) fn save(&self, folder: &Path) -> Result<(), FileError> {
        let Grown { added, gone, adding } = self.clone();
        let text =
            toml::to_string(&Document { format: FORMAT, gone, adding, added }).expect("plain data");
        files::write(&folder.join(FILE), &format!("{HEADING}{text}"), files::PUBLIC)
    }

    /// Everybody who ever was a node of it, by number.
    pub(crate) fn everybody(&self, asked: &Asked) -> Vec<Member> {
        let added = self.added.iter().map(|added| Member {
            id: added.node,
            incarnation: 0,
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, added.port)),
            zone: added.zone.clone(),
            weight: 1,
            state: MemberState::Active,
        });
        let mut everybody: Vec<Member> = asked.members().into_iter().chain(added).collect();
        everybody.sort_by_key(|member| member.id);
        everybody
    }

    /// Whether a node came later: it does not stand in the first view.
    pub(crate) fn was_added(&self, node: NodeId) -> bool {
        self.added.iter().any(|added| added.node == node)
    }
}

#[cfg(test)]
mod tests {
    use atoll_ring::ClusterId;

    use super::*;
    use crate::asked::Wish;

    /// The file as it is written, that it reads back as itself, and who is a node then.
    #[test]
    fn came_and_went() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Grown::load(folder.path()).unwrap(), Grown::default());
        let added = Added { node: NodeId(4), port: 7444, zone: "z9".into() };
        let adding = Grown { adding: Some(added.clone()), ..Grown::default() };
        adding.save(folder.path()).unwrap();
        assert_eq!(Grown::load(folder.path()).unwrap(), adding);
        let grown = Grown { added: vec![added], gone: [NodeId(2)].into(), adding: None };
        grown.save(folder.path()).unwrap();
        assert_eq!(Grown::load(folder.path()).unwrap(), grown);
        let text = std::fs::read_to_string(folder.path().join(FILE)).unwrap();
        let expected = "\
# Who came to this testnet and went since it was made. Its ports never move.
format = 1
gone = [2]

[[added]]
node = 4
port = 7444
zone = \"z9\"
";
        assert_eq!(text, expected);

        let wish = Wish { nodes: Some(3), ..Wish::default() };
        let (asked, _) = wish.settle(ClusterId([7; 16])).unwrap();
        let everybody: Vec<String> = grown
            .everybody(&asked)
            .iter()
            .map(|member| format!("{} {}", member.id, member.address.port()))
            .collect();
        assert_eq!(everybody, ["n1 7401", "n2 7402", "n3 7403", "n4 7444"]);
    }

    /// What cannot be read is not taken for a testnet that has not grown.
    #[test]
    fn damage_is_said() {
        let folder = tempfile::tempdir().unwrap();
        for text in ["", "format = 2\ngone = []\n", "format = 1\ngone = [\"n1\"]\n"] {
            std::fs::write(folder.path().join(FILE), text).unwrap();
            assert!(Grown::load(folder.path()).is_err(), "{text:?}");
        }
    }
}
