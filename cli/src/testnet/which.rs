//! Which nodes of which testnet: the arguments that every command about nodes takes, and whom they mean.
//!
//! What the words mean is decided by [`atoll_testnet::select`]. Here they are read, the ring is asked for the owners of keys,
//! and whoever was chosen is named: a script shall not have to guess whom chance has hit.

use std::collections::BTreeMap;

use atoll_client::{NodeId, Profile};
use atoll_testnet::{Chance, Home, Node, SelectError, Selection, Selector, Selectors, Testnet};
use clap::Args;
use serde::Serialize;

use super::{Named, say::failed_open};
use crate::{
    exit::{Exit, Failed},
    output::{self, Format},
    request::connect_as,
    ring,
};

/// Nodes of which testnet.
#[derive(Args, Debug)]
pub struct Nodes {
    #[command(flatten)]
    which: Which,

    /// Decides what is left to chance: the same seed chooses the same [default: another each time]
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,

    /// The bucket of the key in owners-of:KEY [default: default]
    #[arg(long, value_name = "NAME")]
    bucket: Option<String>,

    #[command(flatten)]
    testnet: Named,
}

/// Some nodes, or all.
#[derive(Args, Debug)]
#[group(required = true, multiple = true)]
struct Which {
    /// Nodes: n3 or 3, all, minority, majority, zone:ZONE, owners-of:KEY; several mean all of them
    #[arg(value_name = "NODE")]
    words: Vec<Selectors>,

    /// Every node, as the word all
    #[arg(long, conflicts_with = "words")]
    all: bool,

    /// Only so many of them, by chance; of every node if none is named [default: 1]
    #[arg(long, value_name = "COUNT", num_args = 0..=1, default_missing_value = "1", value_parser = count)]
    random: Option<usize>,
}

/// Whom a command means.
pub struct Chosen {
    /// Their testnet.
    pub testnet: Testnet,
    /// They, in its order; never none.
    pub nodes: Vec<Node>,
    /// What has decided, if chance has.
    pub seed: Option<u64>,
}

/// What was done to whom.
#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    name: &'a str,
    deed: &'static str,
    nodes: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<u64>,
}

/// The nodes that these words mean in the default bucket; every node if there are none.
pub async fn choose_words(testnet: &Testnet, words: Vec<Selectors>) -> Result<Vec<Node>, Failed> {
    let words = words.into_iter().flat_map(|Selectors(words)| words).collect();
    let selection = Selection { words, random: None };
    let owners = owners(testnet, &selection, None).await?;
    selection.choose(testnet, &owners).map_err(failed_select)
}

impl Nodes {
    /// Opens the testnet and finds out who is meant.
    ///
    /// # Errors
    /// Nobody is.
    pub async fn choose(self, home: &Home) -> Result<Chosen, Failed> {
        if let (None, Some(seed)) = (self.which.random, self.seed) {
            let what = format!("--seed {seed} decides nothing: nothing is left to chance");
            return Err(Failed::new(Exit::Refused, what).mend("add --random, or leave it out"));
        }
        let testnet = self.testnet.open(home)?;
        let seed = self.which.random.map(|_| self.drawn());
        self.which.choose(testnet, seed, self.bucket.as_deref()).await
    }

    /// The same for a command that leaves something else to chance, too: there is always a seed.
    ///
    /// # Errors
    /// Nobody is meant.
    pub async fn choose_with_seed(self, home: &Home) -> Result<(Chosen, u64), Failed> {
        let testnet = self.testnet.open(home)?;
        let seed = self.drawn();
        Ok((self.which.choose(testnet, Some(seed), self.bucket.as_deref()).await?, seed))
    }

    fn drawn(&self) -> u64 {
        // short enough to be typed again
        self.seed.unwrap_or_else(|| rand::random::<u32>().into())
    }
}

impl Which {
    async fn choose(
        self,
        testnet: Testnet,
        seed: Option<u64>,
        bucket: Option<&str>,
    ) -> Result<Chosen, Failed> {
        let random = self.random.zip(seed).map(|(count, seed)| Chance { count, seed });
        let words: Vec<_> = self.words.into_iter().flat_map(|Selectors(words)| words).collect();
        let are_names = words.iter().all(|word| matches!(word, Selector::Node(_)));
        let selection = Selection { words, random };
        let owners = owners(&testnet, &selection, bucket).await?;
        let nodes = selection.choose(&testnet, &owners).map_err(failed_select)?;
        let chosen = Chosen { testnet, nodes, seed };
        match seed {
            Some(seed) => anstream::eprintln!("chosen with --seed {seed}: {}", chosen.names()),
            None if !are_names => anstream::eprintln!("chosen: {}", chosen.names()),
            None => {}
        }
        Ok(chosen)
    }
}

impl Chosen {
    /// `n1 n4`, as they are typed.
    pub fn names(&self) -> String {
        self.list().join(" ")
    }

    /// Each name.
    pub fn list(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.id.to_string()).collect()
    }

    /// Says for programs what was done; people have read it on the way.
    pub fn done(&self, deed: &'static str, format: Format) {
        match format {
            Format::Table => {}
            Format::Plain => self.list().iter().for_each(|name| anstream::println!("{name}")),
            Format::Json => output::json(&Document {
                schema: "atoll.testnet-nodes/v1",
                name: self.testnet.name(),
                deed,
                nodes: self.list(),
                seed: self.seed,
            }),
        }
    }
}

/// The owners of each key that is spoken of, as the ring stands now.
async fn owners(
    testnet: &Testnet,
    selection: &Selection,
    bucket: Option<&str>,
) -> Result<BTreeMap<String, Vec<NodeId>>, Failed> {
    let mut owners = BTreeMap::new();
    if selection.keys().next().is_none() {
        return match bucket {
            None => Ok(owners),
            Some(_) => Err(Failed::new(Exit::Refused, "--bucket says nothing about these nodes")
                .mend("owners-of:KEY --bucket NAME")),
        };
    }
    let profile = Profile::load(&testnet.profile())
        .map_err(|error| Failed::new(Exit::Refused, error.to_string()))?;
    let client = connect_as(&profile).await.map_err(|failed| Failed {
        what: format!("who owns a key is asked of the nodes: {}", failed.what),
        ..failed
    })?;
    for key in selection.keys() {
        let found = ring::owners(&client, key, bucket.unwrap_or("default")).await;
        match found {
            Ok(found) => owners.insert(key.to_owned(), found.owners),
            Err(failed) => {
                client.close().await;
                return Err(failed);
            }
        };
    }
    client.close().await;
    Ok(owners)
}

fn failed_select(error: SelectError) -> Failed {
    let failed = Failed::new(Exit::Refused, error.to_string());
    match error {
        SelectError::Node(error) => failed_open(error),
        SelectError::NoZone { .. } => failed.mend("atoll testnet status shows who stands where"),
        SelectError::NoMinority { .. } => failed.mend("name the node"),
        SelectError::NoOwner { key, .. } => failed.mend(format!("atoll ring lookup {key}")),
        SelectError::TooFew { nodes, .. } => failed.mend(format!("--random {nodes} at most")),
    }
}

fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if count > 0 => Ok(count),
        Ok(_) => Err("at least one".into()),
        Err(_) => {
            Err(format!("not how many; if it is a node, name it before --random: {text} --random"))
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser, Debug)]
    struct Line {
        #[command(flatten)]
        nodes: Nodes,
    }

    /// Somebody must be named: what only says how to choose is no choice, and does not mean all of them.
    #[test]
    fn a_seed_names_nobody() {
        let parses = |words: &str| Line::try_parse_from(words.split(' ')).is_ok();
        for words in ["x n1", "x --all", "x --random", "x n1,n2 --random 1 --seed 3", "x minority"]
        {
            assert!(parses(words), "{words}");
        }
        for words in ["x --seed 3", "x --bucket b", "x --seed 3 --bucket b", "x --all n1"] {
            assert!(!parses(words), "{words}");
        }
    }
}
