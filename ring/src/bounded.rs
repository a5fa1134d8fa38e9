//! Lists out of a document, with a most they may have.
//!
//! serde reads a list to its end before anybody can look at it, and a list of empty lists takes a
//! byte per entry in a document and twenty-four in memory. So the tables of a view stop at the
//! greatest number that a view could have, while they are read.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use crate::{Move, NodeId, Partition, REPLICAS_MAX};

/// The owners of one partition.
struct OwnerList(Vec<NodeId>);

impl<'de> Deserialize<'de> for OwnerList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        owners(deserializer).map(OwnerList)
    }
}

/// A list of at most `MOST` entries.
pub(crate) fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>, const MOST: usize>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    deserializer.deserialize_seq(List::<T>(MOST, PhantomData))
}

/// The owners of one partition.
pub(crate) fn owners<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<NodeId>, D::Error> {
    list::<D, NodeId, { REPLICAS_MAX as usize }>(deserializer)
}

/// The owners of each partition, at most `MOST` partitions.
pub(crate) fn table<'de, D: Deserializer<'de>, const MOST: usize>(
    deserializer: D,
) -> Result<Vec<Vec<NodeId>>, D::Error> {
    let table = list::<D, OwnerList, MOST>(deserializer)?;
    Ok(table.into_iter().map(|OwnerList(owners)| owners).collect())
}

/// The moves of partitions: each partition once, so there are never too many.
pub(crate) fn moves<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<Partition, Move>, D::Error> {
    deserializer.deserialize_map(Moves(PhantomData))
}

/// The owners that partitions shall have.
pub(crate) fn wanted<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<Partition, Vec<NodeId>>, D::Error> {
    let moves = deserializer.deserialize_map(Moves::<OwnerList>(PhantomData))?;
    Ok(moves.into_iter().map(|(partition, OwnerList(target))| (partition, target)).collect())
}

struct List<T>(usize, PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for List<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of at most {} entries", self.0)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Vec<T>, A::Error> {
        let mut all = Vec::new();
        while let Some(entry) = entries.next_element()? {
            if all.len() == self.0 {
                return Err(A::Error::invalid_length(all.len() + 1, &self));
            }
            all.push(entry);
        }
        Ok(all)
    }
}

struct Moves<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Moves<T> {
    type Value = BTreeMap<Partition, T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a map of partitions, each once")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut all = BTreeMap::new();
        while let Some((partition, target)) = entries.next_entry()? {
            if all.insert(partition, target).is_some() {
                return Err(A::Error::custom(format!("partition {partition} moves twice")));
            }
        }
        Ok(all)
    }
}
