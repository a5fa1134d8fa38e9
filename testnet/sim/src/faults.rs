//! What can go wrong in a run, one word each.
//!
//! [`Kind`] is a fault by its name; [`crate::mischief`] makes them happen and takes them back.

use std::{fmt, str::FromStr};

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $word:literal;)*) => {
        /// A kind of fault.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind { $($(#[$doc])* $name,)* }

        impl Kind {
            /// All of them.
            pub const ALL: &[Kind] = &[$(Kind::$name,)*];

            /// The word for people.
            pub fn word(self) -> &'static str {
                match self { $(Kind::$name => $word,)* }
            }
        }

        impl FromStr for Kind {
            type Err = String;

            fn from_str(word: &str) -> Result<Self, String> {
                match word {
                    $($word => Ok(Kind::$name),)*
                    _ => Err(format!("no fault is called {word:?}; there are {}", Kind::words())),
                }
            }
        }
    };
}

kinds! {
    /// Messages on some links take long.
    Delay = "delay";
    /// Messages on some links take differently long, and so overtake each other.
    Reordering = "reordering";
    /// Messages on some links vanish.
    Loss = "loss";
    /// Requests between nodes arrive twice.
    Duplication = "duplication";
    /// Two halves of the cluster do not hear each other.
    Halves = "halves";
    /// One node is alone.
    Isolated = "isolated";
    /// One node hears another, and is not heard.
    OneWay = "one-way";
    /// Two halves do not hear each other, and one node hears both.
    Bridge = "bridge";
    /// Every node hears a majority, and no two the same one.
    Majorities = "majorities";
    /// A cut that comes and goes.
    Flapping = "flapping";
    /// A node stands still for 1 to 120 s.
    Pause = "pause";
    /// A node loses power, and starts again.
    Crash = "crash";
    /// All nodes lose power at once.
    Blackout = "blackout";
    /// A node is stopped in order, and starts again.
    Stop = "stop";
    /// A disk is replaced by an empty one.
    Wipe = "wipe";
    /// A disk loses batches that it had synced, from the end.
    LostTail = "lost-tail";
    /// A disk is replaced by an older copy of itself.
    OldCopy = "old-copy";
    /// A record is damaged where it lies.
    Damage = "damage";
    /// A wall clock jumps by an hour, or drifts.
    Clock = "clock";
    /// A disk takes long to sync.
    SlowDisk = "slow-disk";
    /// A disk has no room.
    FullDisk = "full-disk";
    /// The next write or sync of a disk fails.
    BrokenDisk = "broken-disk";
    /// The operator changes the ring, its log loses leaders, majorities and answers, and whoever takes part in a move is
    /// in trouble.
    Ring = "ring";
}

impl Kind {
    /// All words.
    pub fn words() -> String {
        let words: Vec<&str> = Kind::ALL.iter().map(|kind| kind.word()).collect();
        words.join(", ")
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}
