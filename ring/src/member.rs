//! Who takes part: nodes, the cluster they form, and the epochs they count.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A node of the cluster as the view knows it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Member {
    /// Its name. Never given to another node, also after this one has left.
    pub id: NodeId,
    /// Which life of the node this is. Together with the id it makes the actor of its dots.
    pub incarnation: u32,
    /// Where the others reach it.
    pub address: SocketAddr,
    /// What fails together: a rack, a room, a region. The owners of a partition are spread over
    /// zones; a cluster that does not care gives all its nodes the same zone.
    pub zone: String,
    /// Its share of the data relative to the others. At least 1; a node that shall own nothing
    /// leaves.
    pub weight: u32,
    /// How far it takes part.
    pub state: MemberState,
}

/// How far a member takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemberState {
    /// It has registered and may own nothing yet.
    Joining,
    /// It owns partitions and answers for them.
    Active,
    /// It gives away what it owns, and is removed when that is done.
    Leaving,
    /// It does not come back; others take what it owned, and then it is removed.
    Dead,
}

impl fmt::Display for MemberState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            MemberState::Joining => "joining",
            MemberState::Active => "active",
            MemberState::Leaving => "leaving",
            MemberState::Dead => "dead",
        })
    }
}

/// The name of a node within its cluster: `n1`, `n2` and so on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(pub u32);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("n{}", self.0))
    }
}

impl FromStr for NodeId {
    type Err = IdError;

    /// Reads `n7`, or just `7`.
    fn from_str(text: &str) -> Result<Self, IdError> {
        let digits = text.strip_prefix('n').unwrap_or(text);
        // `u32::from_str` would take a sign.
        let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
        match digits.parse() {
            Ok(number) if plain => Ok(NodeId(number)),
            Ok(_) | Err(_) => Err(IdError::Node { text: text.to_owned() }),
        }
    }
}

/// Which cluster: 16 bytes drawn when it is created. Nodes of another cluster are refused at the
/// door.
///
/// Shown as 32 lower-case hex digits, also in documents people read; 16 plain bytes elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub [u8; 16]);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl FromStr for ClusterId {
    type Err = IdError;

    /// Reads 32 hex digits; upper case is accepted and comes back as lower case.
    fn from_str(text: &str) -> Result<Self, IdError> {
        let plain = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        match u128::from_str_radix(text, 16) {
            Ok(number) if plain => Ok(ClusterId(number.to_be_bytes())),
            Ok(_) | Err(_) => Err(IdError::Cluster { text: text.to_owned() }),
        }
    }
}

impl Serialize for ClusterId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for ClusterId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
        } else {
            <[u8; 16]>::deserialize(deserializer).map(ClusterId)
        }
    }
}

/// Which view: counted from 1, one up with every change of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A text that should name a node or a cluster does not. The caller mends the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not a node's name.
    #[error("{text:?} is no node: write n1, n2 and so on")]
    Node {
        /// What was read.
        text: String,
    },
    /// Not a cluster's id.
    #[error("{text:?} is no cluster id: it has 32 hex digits")]
    Cluster {
        /// What was read.
        text: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A node's name reads back as itself, with and without the letter, and nothing else is taken
    /// for one.
    #[test]
    fn node_names() {
        for number in [0, 1, 7, u32::MAX] {
            let id = NodeId(number);
            assert_eq!(id.to_string().parse(), Ok(id));
            assert_eq!(number.to_string().parse(), Ok(id));
            assert_eq!(serde_json::to_string(&id).unwrap(), number.to_string());
        }
        for text in ["", "n", "nn1", "+1", "n+1", "-1", "n 1", "4294967296", "N1", "n1x"] {
            assert!(text.parse::<NodeId>().is_err(), "{text:?}");
        }
    }

    /// A cluster id reads back as itself: hex in JSON, 16 plain bytes in postcard.
    #[test]
    fn cluster_ids() {
        let id = ClusterId(*b"\x00\x01coral\xff12345678");
        let text = "0001636f72616cff3132333435363738";
        assert_eq!(id.to_string(), text);
        assert_eq!(text.to_uppercase().parse(), Ok(id));
        assert_eq!(serde_json::to_string(&id).unwrap(), format!("{text:?}"));
        assert_eq!(serde_json::from_str::<ClusterId>(&format!("{text:?}")).unwrap(), id);
        assert_eq!(postcard::to_stdvec(&id).unwrap(), id.0);
        assert_eq!(postcard::from_bytes::<ClusterId>(&id.0).unwrap(), id);
        let signed = format!("+{}", &text[1..]);
        for bad in [
            "",
            "00",
            &text[1..],
            signed.as_str(),
            &format!("{text}0"),
            "ä0a00000000000000000000000000000",
        ] {
            assert!(bad.parse::<ClusterId>().is_err(), "{bad:?}");
        }
    }
}
