//! What a bucket says where a request says nothing, and how much its values may hold.
//!
//! Unlike kind and N these may change at any time. A node that has not heard of a change yet goes on with what it knew:
//! properties never decide whether data is right, only what a request means that leaves something out.

use std::fmt;

use atoll_antientropy::Kind;
use atoll_ring::{Level, Quorum, QuorumError, QuorumRequest};
use serde::{Deserialize, Serialize};

use super::BadDefinition;
use crate::{
    Repair,
    limits::{ELEMENTS_MAX, TIMEOUT_MS_MAX, TTL_MS_MAX, VALUE_BYTES_MAX},
};

/// What may be altered in a bucket. Nothing said: as everywhere.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Properties {
    /// Answers a read needs. Otherwise the majority of n.
    pub r: Option<Level>,
    /// Acknowledgements a write needs. Otherwise the majority of n.
    pub w: Option<Level>,
    /// Of the answers, how many must come from owners. Otherwise 0.
    pub pr: Option<Level>,
    /// Of the acknowledgements, how many must come from owners. Otherwise 0.
    pub pw: Option<Level>,
    /// Of the acknowledgements, how many must be fsynced. Otherwise all of them.
    pub dw: Option<Level>,
    /// Whether fallbacks may stand in. Otherwise yes.
    pub sloppy: Option<bool>,
    /// What a read does for owners that are behind. Otherwise `async`.
    pub repair: Option<Repair>,
    /// Milliseconds for a whole request, 1 to 60,000. Otherwise 1,000.
    pub timeout_ms: Option<u32>,
    /// Milliseconds after its write at which a value is shown no more, 1 to 100 years; for registers and lww only, and only
    /// for values written from now on. Otherwise never.
    pub ttl_ms: Option<u64>,
    /// Most bytes of one value, 1 to 1 MiB: what a frame carries. Otherwise 1 MiB. What is stored already may be larger.
    pub value_bytes_max: Option<u32>,
    /// Most elements of a set, or fields of a map, 1 to 1,000. Otherwise 1,000.
    pub elements_max: Option<u16>,
}

impl Properties {
    /// Whether these can be, in a bucket of this kind with `n` copies.
    ///
    /// # Errors
    /// The rule that is broken.
    pub fn check(&self, kind: Kind, n: u8) -> Result<(), BadDefinition> {
        Quorum::new(&self.quorum(), n)?;
        match self.timeout_ms {
            Some(ms) if ms == 0 || ms > TIMEOUT_MS_MAX => {
                return Err(BadDefinition::Timeout { ms });
            }
            Some(_) | None => {}
        }
        match (self.ttl_ms, kind) {
            (None, _) => {}
            (Some(0), _) => return Err(BadDefinition::TtlZero),
            (Some(ms), _) if ms > TTL_MS_MAX => return Err(BadDefinition::TtlTooLong),
            (Some(_), Kind::Register | Kind::Lww) => {}
            (Some(_), Kind::Counter | Kind::Set | Kind::Flag | Kind::Max | Kind::Map) => {
                return Err(BadDefinition::TtlOfKind { kind });
            }
        }
        match self.value_bytes_max {
            Some(bytes) if bytes == 0 || bytes as usize > VALUE_BYTES_MAX => {
                return Err(BadDefinition::ValueBytes { bytes });
            }
            Some(_) | None => {}
        }
        match (self.elements_max, kind) {
            (None, _) => Ok(()),
            (Some(elements), _) if elements == 0 || elements > ELEMENTS_MAX => {
                Err(BadDefinition::Elements { elements })
            }
            (Some(_), Kind::Set | Kind::Map) => Ok(()),
            (Some(_), Kind::Register | Kind::Lww | Kind::Counter | Kind::Flag | Kind::Max) => {
                Err(BadDefinition::ElementsOfKind { kind })
            }
        }
    }

    /// A request that says nothing but what stands here.
    fn quorum(&self) -> QuorumRequest {
        let Properties { r, w, pr, pw, dw, sloppy, .. } = *self;
        QuorumRequest { n: None, r, w, pr, pw, dw, sloppy }
    }

    /// A request in which everything that it left out is as the bucket has it.
    ///
    /// What the request does say comes first: where a part of the bucket's (`pr`, `pw`, `dw`, or r and w of a smaller n)
    /// would be more than the whole that the request asks for, it is cut down to that.
    #[must_use]
    pub fn fill(&self, request: &QuorumRequest, bucket_n: u8) -> QuorumRequest {
        let mut filled = QuorumRequest {
            n: request.n,
            r: request.r.or(self.r),
            w: request.w.or(self.w),
            pr: request.pr.or(self.pr),
            pw: request.pw.or(self.pw),
            dw: request.dw.or(self.dw),
            sloppy: request.sloppy.or(self.sloppy),
        };
        // each turn mends one of five
        loop {
            match Quorum::new(&filled, bucket_n) {
                Err(QuorumError::RAboveN { .. }) if request.r.is_none() => {
                    filled.r = Some(Level::All);
                }
                Err(QuorumError::WAboveN { .. }) if request.w.is_none() => {
                    filled.w = Some(Level::All);
                }
                Err(QuorumError::PrAboveR { r, .. }) if request.pr.is_none() => {
                    filled.pr = Some(Level::Count(r));
                }
                Err(QuorumError::PwAboveW { w, .. }) if request.pw.is_none() => {
                    filled.pw = Some(Level::Count(w));
                }
                Err(QuorumError::DwAboveW { w, .. }) if request.dw.is_none() => {
                    filled.dw = Some(Level::Count(w));
                }
                Ok(_) | Err(_) => return filled,
            }
        }
    }

    /// Most bytes of one value.
    pub fn value_bytes_max(&self) -> usize {
        self.value_bytes_max.map_or(VALUE_BYTES_MAX, |bytes| bytes as usize)
    }

    /// Most elements of a set, or fields of a map.
    pub fn elements_max(&self) -> usize {
        usize::from(self.elements_max.unwrap_or(ELEMENTS_MAX))
    }

    /// These, altered. Whether they can be is not looked at.
    #[must_use]
    pub fn altered(&self, alteration: &Alteration) -> Properties {
        let set = &alteration.set;
        let mut after = Properties {
            r: set.r.or(self.r),
            w: set.w.or(self.w),
            pr: set.pr.or(self.pr),
            pw: set.pw.or(self.pw),
            dw: set.dw.or(self.dw),
            sloppy: set.sloppy.or(self.sloppy),
            repair: set.repair.or(self.repair),
            timeout_ms: set.timeout_ms.or(self.timeout_ms),
            ttl_ms: set.ttl_ms.or(self.ttl_ms),
            value_bytes_max: set.value_bytes_max.or(self.value_bytes_max),
            elements_max: set.elements_max.or(self.elements_max),
        };
        for property in &alteration.unset {
            match property {
                Property::R => after.r = None,
                Property::W => after.w = None,
                Property::Pr => after.pr = None,
                Property::Pw => after.pw = None,
                Property::Dw => after.dw = None,
                Property::Sloppy => after.sloppy = None,
                Property::Repair => after.repair = None,
                Property::Timeout => after.timeout_ms = None,
                Property::Ttl => after.ttl_ms = None,
                Property::ValueBytesMax => after.value_bytes_max = None,
                Property::ElementsMax => after.elements_max = None,
            }
        }
        after
    }
}

/// What shall become of a bucket's properties. What is named nowhere stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alteration {
    /// New values.
    pub set: Properties,
    /// Said no longer. Wins over `set`.
    pub unset: Vec<Property>,
}

/// The name of a property.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Property {
    /// See [`Properties::r`].
    R,
    /// See [`Properties::w`].
    W,
    /// See [`Properties::pr`].
    Pr,
    /// See [`Properties::pw`].
    Pw,
    /// See [`Properties::dw`].
    Dw,
    /// See [`Properties::sloppy`].
    Sloppy,
    /// See [`Properties::repair`].
    Repair,
    /// See [`Properties::timeout_ms`].
    Timeout,
    /// See [`Properties::ttl_ms`].
    Ttl,
    /// See [`Properties::value_bytes_max`].
    ValueBytesMax,
    /// See [`Properties::elements_max`].
    ElementsMax,
}

impl Property {
    /// All of them.
    pub const ALL: [Property; 11] = [
        Property::R,
        Property::W,
        Property::Pr,
        Property::Pw,
        Property::Dw,
        Property::Sloppy,
        Property::Repair,
        Property::Timeout,
        Property::Ttl,
        Property::ValueBytesMax,
        Property::ElementsMax,
    ];

    /// The word for settings.
    pub fn word(self) -> &'static str {
        match self {
            Property::R => "r",
            Property::W => "w",
            Property::Pr => "pr",
            Property::Pw => "pw",
            Property::Dw => "dw",
            Property::Sloppy => "sloppy",
            Property::Repair => "repair",
            Property::Timeout => "timeout",
            Property::Ttl => "ttl",
            Property::ValueBytesMax => "value-bytes-max",
            Property::ElementsMax => "elements-max",
        }
    }
}

impl fmt::Display for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Option<Level> = Some(Level::Count(1));
    const TWO: Option<Level> = Some(Level::Count(2));

    /// What the request says stands, what it leaves out is the bucket's, and a part of the bucket's never contradicts a
    /// whole of the request's.
    #[test]
    fn a_request_comes_first() {
        let bucket = Properties {
            r: TWO,
            w: Some(Level::All),
            pr: TWO,
            dw: TWO,
            sloppy: Some(false),
            ..Properties::default()
        };
        let filled = |request: QuorumRequest| {
            let filled = bucket.fill(&request, 3);
            Quorum::new(&filled, 3).map(|q| (q.n(), q.r(), q.w(), q.pr(), q.dw(), q.sloppy()))
        };
        let nothing = QuorumRequest::default();
        assert_eq!(filled(nothing), Ok((3, 2, 3, 2, 2, false)));
        assert_eq!(filled(QuorumRequest { r: ONE, ..nothing }), Ok((3, 1, 3, 1, 2, false)));
        assert_eq!(filled(QuorumRequest { w: ONE, ..nothing }), Ok((3, 2, 1, 2, 1, false)));
        assert_eq!(filled(QuorumRequest { n: Some(1), ..nothing }), Ok((1, 1, 1, 1, 1, false)));
        let sloppy = QuorumRequest { r: ONE, sloppy: Some(true), ..nothing };
        assert_eq!(filled(sloppy), Ok((3, 1, 3, 1, 2, true)));
        // what the request itself contradicts stays a contradiction
        let wrong = QuorumRequest { r: ONE, pr: TWO, ..nothing };
        assert_eq!(filled(wrong), Err(QuorumError::PrAboveR { pr: 2, r: 1 }));
    }

    /// Set, kept, and said no longer.
    #[test]
    fn an_alteration_names_what_changes() {
        let before = Properties { r: ONE, w: ONE, ttl_ms: Some(5), ..Properties::default() };
        let set = Properties { r: TWO, ttl_ms: Some(6), ..Properties::default() };
        let after = before.altered(&Alteration { set, unset: vec![Property::Ttl] });
        assert_eq!(after, Properties { r: TWO, w: ONE, ..Properties::default() });
        assert_eq!(before.altered(&Alteration::default()), before);
        let all = Alteration { set, unset: Property::ALL.to_vec() };
        assert_eq!(before.altered(&all), Properties::default());
    }

    /// Each rule by its case.
    #[test]
    fn rules() {
        let check = |properties: Properties, kind| properties.check(kind, 3);
        let none = Properties::default();
        for kind in Kind::ALL {
            assert_eq!(check(none, kind), Ok(()));
        }
        let ttl = |ms| Properties { ttl_ms: Some(ms), ..none };
        assert_eq!(check(ttl(0), Kind::Register), Err(BadDefinition::TtlZero));
        assert_eq!(check(ttl(TTL_MS_MAX), Kind::Lww), Ok(()));
        assert_eq!(check(ttl(TTL_MS_MAX + 1), Kind::Lww), Err(BadDefinition::TtlTooLong));
        let kind = Kind::Counter;
        assert_eq!(check(ttl(1), kind), Err(BadDefinition::TtlOfKind { kind }));
        let timeout = |ms| Properties { timeout_ms: Some(ms), ..none };
        assert_eq!(check(timeout(0), kind), Err(BadDefinition::Timeout { ms: 0 }));
        assert_eq!(check(timeout(60_001), kind), Err(BadDefinition::Timeout { ms: 60_001 }));
        assert_eq!(check(timeout(60_000), kind), Ok(()));
        let value = |bytes| Properties { value_bytes_max: Some(bytes), ..none };
        assert_eq!(check(value(0), kind), Err(BadDefinition::ValueBytes { bytes: 0 }));
        assert_eq!(check(value(1 << 20), kind), Ok(()));
        let bytes = (1 << 20) + 1;
        assert_eq!(check(value(bytes), kind), Err(BadDefinition::ValueBytes { bytes }));
        let elements = |elements| Properties { elements_max: Some(elements), ..none };
        assert_eq!(check(elements(1000), Kind::Set), Ok(()));
        assert_eq!(
            check(elements(1001), Kind::Map),
            Err(BadDefinition::Elements { elements: 1001 })
        );
        assert_eq!(check(elements(9), kind), Err(BadDefinition::ElementsOfKind { kind }));
        let quorum = Properties { r: Some(Level::Count(4)), ..none };
        assert_eq!(
            check(quorum, kind),
            Err(BadDefinition::Quorum(QuorumError::RAboveN { r: 4, n: 3 }))
        );
    }
}
