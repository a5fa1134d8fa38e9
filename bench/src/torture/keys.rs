//! What there is to ask about: keys by kind and generation, and the buckets they lie in.

use atoll_client::Kind;
use rand::{Rng as _, rngs::SmallRng};

use super::Shared;

/// One key, as clients and the history call it.
#[derive(Clone, Debug)]
pub(super) struct Key {
    /// With its bucket before it, but for the default one.
    pub name: String,
    /// None = the default one.
    pub bucket: Option<&'static str>,
    /// Without its bucket. No two keys of a run are alike, in whatever bucket.
    pub bytes: String,
    pub kind: Kind,
    pub generation: u64,
    pub index: u32,
}

/// Name, kind, copies. The second is of registers with fewer copies than usual.
pub(super) const BUCKETS: [(&str, Kind, Option<u8>); 7] = [
    ("torture-two", Kind::Register, Some(2)),
    ("torture-counter", Kind::Counter, None),
    ("torture-set", Kind::Set, None),
    ("torture-flag", Kind::Flag, None),
    ("torture-max", Kind::Max, None),
    ("torture-lww", Kind::Lww, None),
    ("torture-map", Kind::Map, None),
];

/// Registers of a generation: the last ones lie in the bucket of few copies.
pub(super) const REGISTERS: u32 = 40;
const REGISTERS_OF_TWO: u32 = 6;

/// Keys of each other kind in a generation. Nothing but increments above 0 happens to the first counter, so that its readers
/// can be held to more; and of the maps the second has nothing that cannot be cleared.
const OTHERS: u32 = 2;

impl Key {
    /// Any key: mostly of the newest generation, and now and then everybody's favourite.
    pub fn draw(shared: &Shared, dice: &mut SmallRng) -> Key {
        let newest = shared.generation();
        let generation = match newest {
            0 => 0,
            newest if dice.random_bool(0.12) => dice.random_range(0..newest),
            newest => newest,
        };
        if dice.random_bool(0.5) {
            let index = match dice.random_bool(0.2) {
                true => 0,
                false => dice.random_range(0..REGISTERS),
            };
            let bucket = (index >= REGISTERS - REGISTERS_OF_TWO).then_some("torture-two");
            Key::new(shared, bucket, Kind::Register, generation, index)
        } else {
            let (bucket, kind, _) = BUCKETS[dice.random_range(1..BUCKETS.len())];
            Key::new(shared, Some(bucket), kind, generation, dice.random_range(0..OTHERS))
        }
    }

    fn new(
        shared: &Shared,
        bucket: Option<&'static str>,
        kind: Kind,
        generation: u64,
        index: u32,
    ) -> Key {
        let bytes = format!("{:08x}-{}-{generation}-{index}", shared.number, kind.word());
        let name = match bucket {
            Some(bucket) => format!("{bucket}/{bytes}"),
            None => bytes.clone(),
        };
        Key { name, bucket, bytes, kind, generation, index }
    }

    /// A counter that only rises.
    pub fn only_rises(&self) -> bool {
        self.kind == Kind::Counter && self.index == 0
    }

    /// A map of which each field can be cleared.
    pub fn can_be_cleared(&self) -> bool {
        self.index > 0
    }
}
