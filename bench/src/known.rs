//! What a writer knows of a key, and with it what its next put replaces.
//!
//! A put normally passes the context of its writer's last put of that key. If that is not known (the first put),
//! if the last put ended without a clear effect, or if two puts overlapped (in an open loop they do), it reads first.
//! Such puts may be stored or may still be, and only reading gives a context that covers them; without one the next put
//! would stand beside them as a sibling. If the read does not cover our own last acknowledged put (it was stale), our
//! old context is passed: siblings then, but truthful ones, and nothing that was acknowledged is forgotten.

use atoll_check::Op;
use atoll_client::{ContextToken, Effect};

/// A context, and the operation whose answer it came with; 0 in runs that are not recorded.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub token: ContextToken,
    pub from: Op,
}

/// What a writer knows of a key.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    /// Covers our last acknowledged put.
    pub token: Option<Token>,
    /// Whether that was also our last put of all, and alone.
    pub certain: bool,
    /// Puts that have begun.
    begun: u32,
    /// Puts that have begun and not ended.
    under_way: u32,
}

/// A put that has begun: what is needed to know at its end whether it was alone.
#[derive(Clone, Copy)]
pub(crate) struct Turn {
    number: u32,
    began_alone: bool,
}

impl Known {
    /// A put begins.
    pub fn begin(&mut self) -> Turn {
        self.begun = self.begun.wrapping_add(1);
        self.under_way += 1;
        Turn { number: self.begun, began_alone: self.under_way == 1 }
    }

    /// The put of this turn was acknowledged.
    pub fn acknowledged(&mut self, turn: Turn, token: Token) {
        self.under_way -= 1;
        self.token = Some(token);
        self.certain = turn.began_alone && turn.number == self.begun;
    }

    /// It was not.
    pub fn failed(&mut self, effect: &Effect) {
        self.under_way -= 1;
        self.certain &= *effect == Effect::NotApplied;
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    /// After puts that overlapped, or one whose end is unknown, a writer reads first; after one that was alone, or one
    /// that was surely not applied, it goes on with what it knows. `b` begins a put, `a`, `n`, `u` end the oldest one:
    /// acknowledged, not applied, unknown.
    #[test]
    fn a_writer_knows_when_it_must_read_first() {
        let token = Token { token: ContextToken::from(Bytes::new()), from: 0 };
        let check = |script: &str, certain: bool| {
            let (mut known, mut under_way) = (Known::default(), Vec::new());
            for step in script.chars() {
                if step == 'b' {
                    under_way.push(known.begin());
                    continue;
                }
                let turn = under_way.remove(0);
                match step {
                    'a' => known.acknowledged(turn, token.clone()),
                    'n' => known.failed(&Effect::NotApplied),
                    _ => known.failed(&Effect::Unknown),
                }
            }
            assert_eq!(known.certain, certain, "{script}");
        };
        check("", false);
        check("ba", true);
        check("baba", true);
        check("babn", true);
        check("babu", false);
        check("babuba", true);
        check("bbaa", false);
        check("bbaaba", true);
        check("babban", false);
        check("bbna", false);
        check("bababba", false);
    }
}
