//! Which nodes of a testnet a command means.
//!
//! A command takes words, each of which is a [`Selector`]; together they select every node that one of them means, in the
//! order of the testnet, each once. Chance may then leave some of those. What a word means is decided here and nowhere
//! else, from facts that the caller has gathered: the owners of keys are the ring's to tell, see [`Selection::keys`].
//!
//! `minority` and `majority` are always the same nodes, and together all: `pause minority` and then `resume minority` must
//! not speak of different ones.

use std::{collections::BTreeMap, str::FromStr};

use atoll_ring::NodeId;
use rand::{SeedableRng as _, rngs::SmallRng, seq::SliceRandom as _};

use crate::{node::Node, testnet::OpenError, testnet::Testnet};

/// A word that stands for nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// `n3` or `3`: this one.
    Node(NodeId),
    /// `zone:z1`: all that stand there.
    Zone(String),
    /// `owners-of:KEY`: those that hold it.
    OwnersOf(String),
    /// `minority`: the last nodes, as many as can be missing while the rest is more than half.
    Minority,
    /// `majority`: the first nodes, just more than half.
    Majority,
    /// `all`: every node.
    All,
}

/// Words with commas between them, such as `n1,n2` or `minority`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selectors(pub Vec<Selector>);

/// What a command says of its nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Any of these; none: every node.
    pub words: Vec<Selector>,
    /// Of those, only so many, by chance.
    pub random: Option<Chance>,
}

/// How many, and what decides which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chance {
    /// How many.
    pub count: usize,
    /// The same seed chooses the same of the same nodes.
    pub seed: u64,
}

/// A word that stands for no nodes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{word:?} is no node: n3 or 3, all, minority, majority, zone:ZONE or owners-of:KEY; several stand side by side"
)]
pub struct NoSelector {
    /// The word.
    pub word: String,
}

/// Why a selection means nobody. Nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum SelectError {
    /// No such node.
    #[error(transparent)]
    Node(#[from] OpenError),
    /// No such zone.
    #[error("testnet {testnet} has no zone {zone}: it has {zones}")]
    NoZone {
        /// The testnet.
        testnet: String,
        /// What was asked for.
        zone: String,
        /// Those it has.
        zones: String,
    },
    /// There are too few nodes for a minority.
    #[error("of {nodes} nodes none can be missing while the rest is more than half")]
    NoMinority {
        /// How many there are.
        nodes: usize,
    },
    /// No owner of the key is a node of the testnet.
    #[error("no node of testnet {testnet} owns {key:?}")]
    NoOwner {
        /// The testnet.
        testnet: String,
        /// The key.
        key: String,
    },
    /// Chance has too few to choose from.
    #[error("{wanted} nodes by chance, and there are {nodes} to choose from")]
    TooFew {
        /// How many were asked for.
        wanted: usize,
        /// How many there are.
        nodes: usize,
    },
}

impl FromStr for Selector {
    type Err = NoSelector;

    fn from_str(word: &str) -> Result<Self, NoSelector> {
        let no_selector = || NoSelector { word: word.to_owned() };
        match word.split_once(':') {
            Some(("zone", zone)) if !zone.is_empty() => Ok(Selector::Zone(zone.to_owned())),
            Some(("owners-of", key)) if !key.is_empty() => Ok(Selector::OwnersOf(key.to_owned())),
            Some(_) => Err(no_selector()),
            None if word == "minority" => Ok(Selector::Minority),
            None if word == "majority" => Ok(Selector::Majority),
            None if word == "all" => Ok(Selector::All),
            None => word.parse().map(Selector::Node).map_err(|_| no_selector()),
        }
    }
}

impl FromStr for Selectors {
    type Err = NoSelector;

    /// A key may hold commas: `owners-of:` stands alone or last.
    fn from_str(text: &str) -> Result<Self, NoSelector> {
        let mut words = Vec::new();
        let mut rest = text;
        loop {
            let (word, after) = match rest.split_once(',') {
                Some(_) if rest.starts_with("owners-of:") => (rest, None),
                Some((word, after)) => (word, Some(after)),
                None => (rest, None),
            };
            words.push(word.parse()?);
            match after {
                Some(after) => rest = after,
                None => return Ok(Selectors(words)),
            }
        }
    }
}

impl Selection {
    /// The keys whose owners must be known before anybody can be chosen.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.words.iter().filter_map(|word| match word {
            Selector::OwnersOf(key) => Some(key.as_str()),
            Selector::Node(_)
            | Selector::Zone(_)
            | Selector::Minority
            | Selector::Majority
            | Selector::All => None,
        })
    }

    /// The nodes that are meant, in the order of the testnet.
    ///
    /// # Errors
    /// See [`SelectError`]; a selection is never empty.
    pub fn choose(
        &self,
        testnet: &Testnet,
        owners: &BTreeMap<String, Vec<NodeId>>,
    ) -> Result<Vec<Node>, SelectError> {
        let all = testnet.nodes();
        let mut meant = Vec::new();
        for word in &self.words {
            meant.extend(word.nodes(testnet, &all, owners)?);
        }
        let mut nodes = all;
        nodes.retain(|node| self.words.is_empty() || meant.contains(&node.id));
        match self.random {
            None => Ok(nodes),
            Some(chance) => chance.leave(nodes),
        }
    }
}

impl Selector {
    fn nodes(
        &self,
        testnet: &Testnet,
        all: &[Node],
        owners: &BTreeMap<String, Vec<NodeId>>,
    ) -> Result<Vec<NodeId>, SelectError> {
        let ids = |nodes: &[Node]| nodes.iter().map(|node| node.id).collect::<Vec<_>>();
        let testnet_name = || testnet.name().to_owned();
        match self {
            Selector::Node(id) => Ok(ids(&testnet.select(&[*id])?)),
            Selector::Zone(zone) => {
                let mut there = all.to_vec();
                there.retain(|node| node.zone == *zone);
                if there.is_empty() {
                    let (testnet, zone) = (testnet_name(), zone.clone());
                    return Err(SelectError::NoZone { testnet, zone, zones: zones(all) });
                }
                Ok(ids(&there))
            }
            Selector::OwnersOf(key) => {
                let mut theirs = owners.get(key).cloned().unwrap_or_default();
                theirs.retain(|owner| all.iter().any(|node| node.id == *owner));
                if theirs.is_empty() {
                    return Err(SelectError::NoOwner { testnet: testnet_name(), key: key.clone() });
                }
                Ok(theirs)
            }
            Selector::Minority => match all.get(majority(all.len())..) {
                Some([]) | None => Err(SelectError::NoMinority { nodes: all.len() }),
                Some(rest) => Ok(ids(rest)),
            },
            Selector::Majority => Ok(ids(&all[..majority(all.len()).min(all.len())])),
            Selector::All => Ok(ids(all)),
        }
    }
}

impl Chance {
    fn leave(self, mut nodes: Vec<Node>) -> Result<Vec<Node>, SelectError> {
        let Chance { count, seed } = self;
        if count > nodes.len() {
            return Err(SelectError::TooFew { wanted: count, nodes: nodes.len() });
        }
        nodes.shuffle(&mut SmallRng::seed_from_u64(seed));
        nodes.truncate(count);
        nodes.sort_by_key(|node| node.id);
        Ok(nodes)
    }
}

/// The least number that is more than half of these.
fn majority(nodes: usize) -> usize {
    nodes / 2 + 1
}

fn zones(nodes: &[Node]) -> String {
    let mut zones: Vec<&str> = nodes.iter().map(|node| node.zone.as_str()).collect();
    zones.sort_unstable();
    zones.dedup();
    zones.join(", ")
}

#[cfg(test)]
mod tests {
    use atoll_ring::ClusterId;

    use super::*;
    use crate::asked::Wish;

    fn testnet(nodes: u32, zones: u32) -> Testnet {
        let wish =
            Wish { nodes: Some(nodes), zones: Some(zones), replicas: Some(1), ..Wish::default() };
        Testnet::new("/nowhere".into(), wish.settle(ClusterId([7; 16])).unwrap().0)
    }

    fn names(nodes: &[Node]) -> String {
        nodes.iter().map(|node| node.id.to_string()).collect::<Vec<_>>().join(" ")
    }

    fn chosen(testnet: &Testnet, words: &str) -> Result<String, String> {
        let mut selection = Selection::default();
        for word in words.split_whitespace() {
            let Selectors(words) = word.parse().map_err(|error: NoSelector| error.to_string())?;
            selection.words.extend(words);
        }
        let owners = BTreeMap::from([
            ("cart:7".to_owned(), vec![NodeId(5), NodeId(2)]),
            ("a,b".to_owned(), vec![NodeId(1)]),
            ("far".to_owned(), vec![NodeId(77)]),
        ]);
        let nodes = selection.choose(testnet, &owners).map_err(|error| error.to_string())?;
        Ok(names(&nodes))
    }

    /// Each word alone and beside others; the order is the testnet's, and nobody comes twice.
    #[test]
    fn words_and_who_is_meant() {
        let five = testnet(5, 3);
        let check = |words: &str, expected: &str| {
            assert_eq!(chosen(&five, words).as_deref(), Ok(expected), "{words}");
        };
        check("", "n1 n2 n3 n4 n5");
        check("n3", "n3");
        check("4 n2 n4", "n2 n4");
        check("n3,n1", "n1 n3");
        check("zone:z1", "n1 n4");
        check("zone:z1,zone:z3 n4", "n1 n3 n4");
        check("minority", "n4 n5");
        check("majority", "n1 n2 n3");
        check("owners-of:cart:7", "n2 n5");
        check("n3,owners-of:a,b", "n1 n3");
        check("minority n1", "n1 n4 n5");
        check("all", "n1 n2 n3 n4 n5");
    }

    /// For every size: minority and majority share nobody, are all together, and one more could not be missed.
    #[test]
    fn a_minority_can_be_missed() {
        for nodes in 1..=9 {
            let testnet = testnet(nodes, 1);
            let count = |words| chosen(&testnet, words).map(|names| names.split(' ').count());
            let (all, many) = (nodes as usize, count("majority").unwrap());
            assert!(2 * many > all && 2 * (many - 1) <= all, "{many} of {all}");
            match count("minority") {
                Ok(few) => assert_eq!((few + many, count("minority majority")), (all, Ok(all))),
                Err(error) => assert!(nodes <= 2 && error.contains("more than half"), "{error}"),
            }
        }
    }

    /// What means nobody is refused, with what could be meant.
    #[test]
    fn nobody_is_meant() {
        let five = testnet(5, 3);
        let check = |words: &str, part: &str| {
            let error = chosen(&five, words).expect_err(words);
            assert!(error.contains(part), "{words}: {error}");
        };
        check("n9", "no node n9: it has n1 to n5");
        check("n1 n9", "no node n9");
        check("zone:z4", "no zone z4: it has z1, z2, z3");
        check("owners-of:far", "owns \"far\"");
        for word in
            ["z1", "zone", "zone:", "owners-of:", "n1,", ",n1", "one", "ALL", "rack:z1", "-1"]
        {
            check(word, "is no node: n3 or 3, all");
        }
    }

    /// The same seed chooses the same nodes, seeds together choose all, and never anybody who was not meant.
    #[test]
    fn chance_repeats_itself() {
        let five = testnet(5, 1);
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..200 {
            let random = Some(Chance { count: 2, seed });
            let selection = Selection { words: vec![Selector::Majority], random };
            let choose = || names(&selection.choose(&five, &BTreeMap::new()).unwrap());
            assert_eq!(choose(), choose());
            seen.insert(choose());
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["n1 n2", "n1 n3", "n2 n3"]);
        let selection = Selection { words: vec![], random: Some(Chance { count: 6, seed: 1 }) };
        let error = selection.choose(&five, &BTreeMap::new()).unwrap_err();
        assert!(error.to_string().contains("6 nodes by chance, and there are 5"), "{error}");
    }
}
