//! What a value is: seven kinds, each with a number for bytes and a word for people.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What a value is. Fixed when its bucket, or its field of a map, is created.
///
/// The numbers are in bytes on disk and on the wire and never change their meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Any bytes; values written without having seen each other stand side by side as siblings.
    Register = 1,
    /// Any bytes; the latest by a hybrid clock wins, and what it beats is lost.
    Lww = 2,
    /// A sum of increments and decrements.
    Counter = 3,
    /// Elements; an addition wins over a removal that had not seen it.
    Set = 4,
    /// On or off; enabling wins over a disabling that had not seen it.
    Flag = 5,
    /// The greatest number that was ever put.
    Max = 6,
    /// Fields of all these kinds, each on its own.
    Map = 7,
}

impl Kind {
    /// All kinds, in order of their numbers.
    pub const ALL: [Kind; 7] =
        [Kind::Register, Kind::Lww, Kind::Counter, Kind::Set, Kind::Flag, Kind::Max, Kind::Map];

    /// The number that stands for it in bytes.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The kind with that number.
    pub fn of_number(number: u8) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.number() == number)
    }

    /// The word that stands for it in commands and messages.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Register => "register",
            Kind::Lww => "lww",
            Kind::Counter => "counter",
            Kind::Set => "set",
            Kind::Flag => "flag",
            Kind::Max => "max",
            Kind::Map => "map",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A word that names no kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no kind of value; there are register, lww, counter, set, flag, max and map")]
pub struct UnknownKind(
    /// The word.
    pub String,
);

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(word: &str) -> Result<Kind, UnknownKind> {
        let kind = Kind::ALL.into_iter().find(|kind| kind.word() == word);
        kind.ok_or_else(|| UnknownKind(word.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers and words go both ways, and nothing else is a kind.
    #[test]
    fn kinds_have_numbers_and_words() {
        let words = ["register", "lww", "counter", "set", "flag", "max", "map"];
        for ((number, word), kind) in (1u8..).zip(words).zip(Kind::ALL) {
            assert_eq!(kind.number(), number);
            assert_eq!(Kind::of_number(number), Some(kind));
            assert_eq!(kind.to_string(), word);
            assert_eq!(word.parse(), Ok(kind));
        }
        assert_eq!(Kind::of_number(0), None);
        assert_eq!(Kind::of_number(8), None);
        assert_eq!(
            "Set".parse::<Kind>().unwrap_err().to_string(),
            "\"Set\" is no kind of value; there are register, lww, counter, set, flag, max and map"
        );
    }
}
