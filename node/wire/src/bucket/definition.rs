//! What a bucket is: name, kind, N and generation for ever, and its properties as they are now.

use std::fmt;

use atoll_antientropy::Kind;
use atoll_ring::QuorumError;
use serde::{Deserialize, Serialize};

use super::{BucketId, DEFAULT_BUCKET, Properties};
use crate::limits::{BUCKET_N_MAX, ELEMENTS_MAX, NAME_BYTES_MAX, TIMEOUT_MS_MAX, VALUE_BYTES_MAX};

/// What a name stands for. The first four make its id and never change.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Definition {
    /// Its name.
    pub name: Name,
    /// What its values are.
    pub kind: Kind,
    /// Copies kept: the first so many owners of a partition hold its keys. 1 to the cluster's replicas.
    pub n: u8,
    /// How often the name was created before, each time after it had been dropped.
    pub generation: u32,
    /// What requests find here.
    pub properties: Properties,
}

impl Definition {
    /// The bucket that every cluster has.
    ///
    /// # Panics
    /// If there are no replicas.
    pub fn default_bucket(replicas: u8) -> Self {
        assert!(replicas > 0, "a cluster keeps at least one copy");
        Definition {
            name: Name(DEFAULT_BUCKET.into()),
            kind: Kind::Register,
            n: replicas,
            generation: 0,
            properties: Properties::default(),
        }
    }

    /// Under which its data is stored.
    pub fn id(&self) -> BucketId {
        BucketId::of(self.name.as_str(), self.kind.word(), self.n, self.generation)
    }

    /// Whether it is the one that every cluster has: it cannot be dropped.
    pub fn is_default(&self) -> bool {
        self.name.as_str() == DEFAULT_BUCKET
    }

    /// Whether this can be.
    ///
    /// # Errors
    /// The rule that is broken.
    pub fn check(&self) -> Result<(), BadDefinition> {
        if self.n == 0 {
            return Err(BadDefinition::ZeroN);
        }
        if self.n > BUCKET_N_MAX {
            return Err(BadDefinition::NAboveReplicas { n: self.n, replicas: BUCKET_N_MAX });
        }
        if self.is_default() && (self.kind != Kind::Register || self.generation != 0) {
            return Err(BadDefinition::Default);
        }
        self.properties.check(self.kind, self.n)
    }
}

/// What somebody wants to create.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Creation {
    /// The name, unchecked.
    pub name: String,
    /// What its values shall be.
    pub kind: Kind,
    /// Copies kept; none = as many as the cluster has replicas.
    pub n: Option<u8>,
    /// What requests shall find there.
    pub properties: Properties,
}

/// The name of a bucket: 1 to 128 bytes, without control characters and without `@`, which stands before an id.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Name {
    type Error = BadDefinition;

    fn try_from(text: String) -> Result<Self, BadDefinition> {
        if text.is_empty() {
            return Err(BadDefinition::NameEmpty);
        }
        if text.len() > NAME_BYTES_MAX {
            return Err(BadDefinition::NameTooLong { bytes: text.len() });
        }
        if text.chars().any(char::is_control) {
            return Err(BadDefinition::NameControl);
        }
        if text.contains('@') {
            return Err(BadDefinition::NameAt);
        }
        Ok(Name(text))
    }
}

impl From<Name> for String {
    fn from(name: Name) -> String {
        name.0
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A bucket that cannot be. The caller changes what it asks for; nothing was done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadDefinition {
    /// No name.
    #[error("a bucket needs a name of 1 to {NAME_BYTES_MAX} bytes")]
    NameEmpty,
    /// Too much of a name.
    #[error("a bucket's name has at most {NAME_BYTES_MAX} bytes, this one {bytes}")]
    NameTooLong {
        /// How long it is.
        bytes: usize,
    },
    /// A name that a terminal cannot show.
    #[error("a bucket's name has no control characters")]
    NameControl,
    /// A name that would be taken for name and id.
    #[error("a bucket's name has no `@`: it stands between a name and an id")]
    NameAt,
    /// Nobody would hold it.
    #[error("N=0: at least one owner must hold a bucket's keys")]
    ZeroN,
    /// More copies than there are owners.
    #[error(
        "N={n} is more than the {replicas} owners that each partition has; `atoll ring plan` shows how to have more"
    )]
    NAboveReplicas {
        /// Copies asked for.
        n: u8,
        /// Owners there are.
        replicas: u8,
    },
    /// The name that is always taken.
    #[error(
        "`{DEFAULT_BUCKET}` is the bucket of registers that every cluster has; choose another name"
    )]
    Default,
    /// The levels contradict each other, or N.
    #[error(transparent)]
    Quorum(#[from] QuorumError),
    /// No time, or too much.
    #[error("a timeout is 1 to {TIMEOUT_MS_MAX} ms, this one {ms}")]
    Timeout {
        /// What was asked for.
        ms: u32,
    },
    /// Values that are gone when they are written.
    #[error("a time to live of 0 would hide a value at once; to delete use `atoll del`")]
    TtlZero,
    /// Values that outlive their readers.
    #[error("a time to live is at most 100 years; leave it out for values that never expire")]
    TtlTooLong,
    /// Of a kind that does not expire.
    #[error("a {kind} does not expire: a time to live is for register and lww only")]
    TtlOfKind {
        /// The kind.
        kind: Kind,
    },
    /// Values that are too small or too large.
    #[error("the limit of a value is 1 to {VALUE_BYTES_MAX} bytes, not {bytes}")]
    ValueBytes {
        /// What was asked for.
        bytes: u32,
    },
    /// Too few or too many elements.
    #[error("the limit of elements is 1 to {ELEMENTS_MAX}, not {elements}")]
    Elements {
        /// What was asked for.
        elements: u16,
    },
    /// Of a kind that has none.
    #[error("a {kind} has no elements: that limit is for set and map only")]
    ElementsOfKind {
        /// The kind.
        kind: Kind,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a name may be, and what each rule says.
    #[test]
    fn names() {
        let name = |text: &str| Name::try_from(text.to_owned());
        for good in ["a", "default", "käse", "a b", "-", &"x".repeat(128)] {
            assert_eq!(name(good).expect(good).as_str(), good);
        }
        assert_eq!(name(""), Err(BadDefinition::NameEmpty));
        assert_eq!(name(&"x".repeat(129)), Err(BadDefinition::NameTooLong { bytes: 129 }));
        for bad in ["a\n", "\u{0}", "\u{1b}[31m", "\u{85}"] {
            assert_eq!(name(bad), Err(BadDefinition::NameControl), "{bad:?}");
        }
        assert_eq!(name("a@b"), Err(BadDefinition::NameAt));
    }

    /// A name that breaks a rule does not come in with a message either.
    #[test]
    fn bad_names_are_not_decoded() {
        let bytes = postcard::to_stdvec("a@b").expect("in memory");
        assert!(postcard::from_bytes::<Name>(&bytes).is_err());
    }

    /// The id of the bucket that every cluster has is what it always was.
    #[test]
    fn the_default_bucket_keeps_its_id() {
        for replicas in 1..=5 {
            let definition = Definition::default_bucket(replicas);
            assert_eq!(definition.id(), BucketId::default_bucket(replicas));
            assert_eq!(definition.check(), Ok(()));
        }
    }

    /// N and the reserved name.
    #[test]
    fn rules() {
        let good = Definition { name: Name("a".into()), ..Definition::default_bucket(3) };
        assert_eq!(good.check(), Ok(()));
        assert_eq!(Definition { n: 0, ..good.clone() }.check(), Err(BadDefinition::ZeroN));
        let n = BUCKET_N_MAX + 1;
        let many = Definition { n, ..good.clone() };
        let refused = BadDefinition::NAboveReplicas { n, replicas: BUCKET_N_MAX };
        assert_eq!(many.check(), Err(refused));
        let other = Definition { kind: Kind::Set, ..Definition::default_bucket(3) };
        assert_eq!(other.check(), Err(BadDefinition::Default));
    }
}
