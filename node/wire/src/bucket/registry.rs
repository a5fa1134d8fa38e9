//! All the buckets a node has heard of: a join-semilattice.
//!
//! ```text
//!   id ──▶ entry { definition, version, dropped }
//!                  │           │        └─ once true, true for ever
//!                  │           └─ (number, node) of the last change of the properties: the greater one wins
//!                  └─ name, kind, N, generation never change: they are what the id is the hash of
//! ```
//!
//! The number of a version counts changes and is no time. Two changes at the same time under one number are decided by
//! the node, and by the properties themselves if a node that lost its memory says another thing under the same version: so
//! any two registries have one join, whoever joins them.
//!
//! Several living definitions may have one name, when sides of a cluster that could not see each other created it. The
//! smallest id takes the name; the others stay readable as `name@id`.

use std::{collections::BTreeMap, sync::Arc};

use atoll_antientropy::Kind;
use serde::{Deserialize, Serialize};

use super::{Alteration, BadDefinition, BucketId, Creation, DEFAULT_BUCKET, Definition, Name};
use crate::limits::{BUCKETS_MAX, REGISTRY_ENTRIES_MAX};

/// All definitions, the dropped ones too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registry {
    default: BucketId,
    entries: BTreeMap<BucketId, Arc<Entry>>,
}

/// What is known of one bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// What it is.
    pub definition: Definition,
    /// Which change of its properties is the last one known.
    pub version: Version,
    /// It is dropped, for ever: its data goes, and a new bucket of this name is another one.
    pub dropped: bool,
}

/// The number of a change, and the node that made it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Version {
    /// Counts from 1; 0 = never altered.
    pub number: u64,
    /// Who made the change.
    pub node: u32,
}

impl Entry {
    /// Whether this says nothing that the other one does not say.
    fn is_within(&self, other: &Entry) -> bool {
        self.rank() <= other.rank() && self.dropped <= other.dropped
    }

    fn rank(&self) -> (Version, &super::Properties) {
        (self.version, &self.definition.properties)
    }

    /// Both, of one id.
    fn joined(&self, other: &Entry) -> Entry {
        let newer = if self.rank() < other.rank() { other } else { self };
        Entry { dropped: self.dropped | other.dropped, ..newer.clone() }
    }
}

impl Registry {
    /// Of a cluster that was created with so many replicas: it has the bucket `default`.
    pub fn new(replicas: u8) -> Self {
        let definition = Definition::default_bucket(replicas);
        let default = definition.id();
        let entry = Entry { definition, version: Version::default(), dropped: false };
        Registry { default, entries: BTreeMap::from([(default, Arc::new(entry))]) }
    }

    /// What is known of a bucket.
    pub fn entry(&self, id: BucketId) -> Option<&Arc<Entry>> {
        self.entries.get(&id)
    }

    /// Everything, by id.
    pub fn entries(&self) -> impl Iterator<Item = (BucketId, &Arc<Entry>)> {
        self.entries.iter().map(|(id, entry)| (*id, entry))
    }

    /// The living definitions of a name, the one that has it first.
    pub fn living(&self, name: &str) -> Vec<(BucketId, &Arc<Entry>)> {
        let is_one = |entry: &Entry| !entry.dropped && entry.definition.name.as_str() == name;
        let mut living: Vec<_> = self.entries().filter(|(_, entry)| is_one(entry)).collect();
        living.sort_by_key(|(id, _)| (*id != self.default, *id));
        living
    }

    /// The bucket that is meant by `name` or `name@id`; of the id eight digits or more, if only one begins with them.
    ///
    /// # Errors
    /// There is none, or not only one.
    pub fn resolve(&self, text: &str) -> Result<(BucketId, &Arc<Entry>), Unresolved> {
        let Some((name, digits)) = text.rsplit_once('@') else {
            if let Some(first) = self.living(text).first() {
                return Ok(*first);
            }
            let was = self.entries().any(|(_, entry)| entry.definition.name.as_str() == text);
            let name = text.to_owned();
            return Err(if was {
                Unresolved::Dropped { name }
            } else {
                Unresolved::Unknown { name }
            });
        };
        let is_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        if digits.len() < ID_DIGITS_MIN || digits.len() > 2 * size_of::<BucketId>() || !is_hex {
            return Err(Unresolved::NoId { text: text.to_owned() });
        }
        let digits = digits.to_ascii_lowercase();
        let living = self.living(name);
        let mut fitting = living.iter().filter(|(id, _)| id.to_string().starts_with(&digits));
        match (fitting.next(), fitting.next()) {
            (Some(one), None) => Ok(*one),
            (Some(_), Some(_)) => Err(Unresolved::Ambiguous { text: text.to_owned() }),
            (None, _) => Err(Unresolved::Unknown { name: text.to_owned() }),
        }
    }

    /// Creates a bucket. The id, and whether it is new: one that is there and just as wanted is no mistake.
    ///
    /// # Errors
    /// It cannot be, or the name is taken, or there are too many. Nothing is changed.
    pub fn create(
        &mut self,
        wanted: &Creation,
        replicas: u8,
        node: u32,
    ) -> Result<(BucketId, bool), Refused> {
        let name = Name::try_from(wanted.name.clone())?;
        if name.as_str() == DEFAULT_BUCKET {
            return Err(BadDefinition::Default.into());
        }
        let n = wanted.n.unwrap_or(replicas);
        if n > replicas {
            return Err(BadDefinition::NAboveReplicas { n, replicas }.into());
        }
        let (kind, properties) = (wanted.kind, wanted.properties);
        if let Some((id, there)) = self.living(name.as_str()).first() {
            let Definition { kind, n: there_n, properties: there_properties, .. } =
                there.definition;
            let same = (wanted.kind, n, wanted.properties) == (kind, there_n, there_properties);
            return match same {
                true => Ok((*id, false)),
                false => Err(Refused::Exists { name, kind, n: there_n }),
            };
        }
        let of_name = self.entries.values().filter(|entry| entry.definition.name == name);
        let last = of_name.map(|entry| entry.definition.generation).max();
        let generation = match last {
            None => 0,
            Some(last) => last.checked_add(1).ok_or(Refused::TooMany)?,
        };
        let definition = Definition { name, kind, n, generation, properties };
        definition.check()?;
        if self.entries.len() >= BUCKETS_MAX {
            return Err(Refused::TooMany);
        }
        let id = definition.id();
        let entry = Entry { definition, version: Version { number: 1, node }, dropped: false };
        self.entries.insert(id, Arc::new(entry));
        Ok((id, true))
    }

    /// Alters the properties of a bucket. Whether anything has changed.
    ///
    /// # Errors
    /// It is not there, or cannot be like this. Nothing is changed.
    pub fn alter(
        &mut self,
        id: BucketId,
        alteration: &Alteration,
        node: u32,
    ) -> Result<bool, Refused> {
        let mut entry = Entry::clone(self.living_entry(id)?);
        let before = entry.definition.properties;
        entry.definition.properties = before.altered(alteration);
        entry.definition.check()?;
        if entry.definition.properties == before {
            return Ok(false);
        }
        let number = entry.version.number.checked_add(1).ok_or(Refused::TooMany)?;
        entry.version = Version { number, node };
        self.entries.insert(id, Arc::new(entry));
        Ok(true)
    }

    /// Drops a bucket. Whether it was there until now.
    ///
    /// # Errors
    /// It was never heard of, or is the one that stays.
    pub fn drop_bucket(&mut self, id: BucketId) -> Result<bool, Refused> {
        if id == self.default {
            return Err(Refused::DefaultStays);
        }
        let entry = self.entries.get(&id).ok_or(Refused::Unknown { id })?;
        if entry.dropped {
            return Ok(false);
        }
        let dropped = Entry { dropped: true, ..Entry::clone(entry) };
        self.entries.insert(id, Arc::new(dropped));
        Ok(true)
    }

    fn living_entry(&self, id: BucketId) -> Result<&Arc<Entry>, Refused> {
        match self.entries.get(&id) {
            None => Err(Refused::Unknown { id }),
            Some(entry) if entry.dropped => {
                Err(Refused::Dropped { name: entry.definition.name.clone() })
            }
            Some(entry) => Ok(entry),
        }
    }

    /// Takes over what another one knows. Gives what has changed by that.
    pub fn join(&mut self, other: &Registry) -> Vec<BucketId> {
        let mut changed = Vec::new();
        for (id, theirs) in &other.entries {
            // the bucket that every cluster has is never dropped, whatever a node says
            let theirs = match theirs.dropped && *id == self.default {
                true => &Arc::new(Entry { dropped: false, ..Entry::clone(theirs) }),
                false => theirs,
            };
            let joined = match self.entries.get(id) {
                Some(ours) if theirs.is_within(ours) => continue,
                Some(ours) => Arc::new(ours.joined(theirs)),
                None => theirs.clone(),
            };
            self.entries.insert(*id, joined);
            changed.push(*id);
        }
        changed
    }

    /// Canonical bytes: equal registries have equal ones.
    pub fn encode(&self) -> Vec<u8> {
        let entries: Vec<&Entry> = self.entries.values().map(|entry| &**entry).collect();
        postcard::to_stdvec(&entries).expect("plain data")
    }

    /// Reads a registry of a cluster that was created with so many replicas.
    ///
    /// # Errors
    /// These bytes are none, or not its canonical ones.
    pub fn decode(bytes: &[u8], replicas: u8) -> Result<Registry, RegistryError> {
        let (count, mut rest) =
            postcard::take_from_bytes::<u32>(bytes).map_err(|_| RegistryError::Malformed)?;
        if count as usize > REGISTRY_ENTRIES_MAX {
            return Err(RegistryError::TooMany { count });
        }
        let mut registry = Registry::new(replicas);
        let mut last = None;
        for _ in 0..count {
            let (entry, left) =
                postcard::take_from_bytes::<Entry>(rest).map_err(|_| RegistryError::Malformed)?;
            rest = left;
            let id = entry.definition.id();
            if last.replace(id).is_some_and(|last| last >= id) {
                return Err(RegistryError::Malformed);
            }
            entry.definition.check().map_err(RegistryError::Bad)?;
            if entry.definition.is_default() && (id != registry.default || entry.dropped) {
                return Err(RegistryError::Bad(BadDefinition::Default));
            }
            registry.entries.insert(id, Arc::new(entry));
        }
        match rest.is_empty() && registry.encode() == bytes {
            true => Ok(registry),
            false => Err(RegistryError::Malformed),
        }
    }

    /// Takes over one entry, as it was kept by this node.
    ///
    /// # Errors
    /// It breaks a rule.
    pub fn restore(&mut self, entry: Entry) -> Result<(), RegistryError> {
        entry.definition.check().map_err(RegistryError::Bad)?;
        let id = entry.definition.id();
        if entry.definition.is_default() && (id != self.default || entry.dropped) {
            return Err(RegistryError::Bad(BadDefinition::Default));
        }
        self.entries.insert(id, Arc::new(entry));
        Ok(())
    }

    /// The first 8 bytes of blake3 over the canonical bytes.
    pub fn digest(&self) -> u64 {
        let hash = blake3::hash(&self.encode());
        u64::from_le_bytes(*hash.as_bytes().first_chunk().expect("it has 32"))
    }
}

/// Digits of an id that are needed at least behind a name.
pub const ID_DIGITS_MIN: usize = 8;

/// A name that does not lead to one bucket.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unresolved {
    /// Nothing of this name.
    #[error(
        "there is no bucket `{name}`; `atoll bucket list` shows all, `atoll bucket create {name} --kind register` makes it"
    )]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// There was one.
    #[error("the bucket `{name}` was dropped; creating it again makes a new and empty one")]
    Dropped {
        /// What was asked for.
        name: String,
    },
    /// What stands behind the `@` is not the beginning of an id.
    #[error(
        "`{text}`: behind the `@` stand {ID_DIGITS_MIN} to 32 hexadecimal digits of the bucket's id, see `atoll bucket list`"
    )]
    NoId {
        /// What was asked for.
        text: String,
    },
    /// More than one begin so.
    #[error("`{text}` is the beginning of several ids; give more digits")]
    Ambiguous {
        /// What was asked for.
        text: String,
    },
}

/// A change that is not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It breaks a rule.
    #[error(transparent)]
    Bad(#[from] BadDefinition),
    /// The name is taken by something else.
    #[error(
        "the bucket `{name}` exists already, as {kind} with N={n}; drop it first, alter its properties, or choose another name"
    )]
    Exists {
        /// The name.
        name: Name,
        /// Of what it is.
        kind: Kind,
        /// Its copies.
        n: u8,
    },
    /// Nobody here has heard of it.
    #[error("no bucket {id} is known here")]
    Unknown {
        /// The id.
        id: BucketId,
    },
    /// It is gone.
    #[error("the bucket `{name}` was dropped")]
    Dropped {
        /// Its name.
        name: Name,
    },
    /// The one bucket that every cluster has.
    #[error("`{DEFAULT_BUCKET}` cannot be dropped: every cluster has it; delete its keys instead")]
    DefaultStays,
    /// No room for one more.
    #[error(
        "a cluster has at most {BUCKETS_MAX} buckets, dropped ones included, for every node remembers them for ever; use an existing one"
    )]
    TooMany,
}

/// Bytes that are no registry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// Not as we would have written them.
    #[error("these bytes are no registry of buckets")]
    Malformed,
    /// Far more than can be.
    #[error("{count} buckets are more than any registry has")]
    TooMany {
        /// How many.
        count: u32,
    },
    /// A definition that cannot be.
    #[error("a bucket that cannot be: {0}")]
    Bad(BadDefinition),
}

#[cfg(test)]
mod tests;
