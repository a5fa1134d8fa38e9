//! How many answers a request needs.
//!
//! A caller writes a [`QuorumRequest`], mostly empty. [`Quorum::new`] fills in what is missing from
//! the bucket's N and refuses what cannot be met, before anything is sent; whoever holds a
//! [`Quorum`] need not check again.
//!
//! ```text
//!  n       owners taking part       1..=N     default N
//!  r       answers a read needs     1..=n     default the majority of n
//!  w       acks a write needs       1..=n     default the majority of n
//!  pr      of the r, from owners    0..=r     default 0; r if strict
//!  pw      of the w, from owners    0..=w     default 0; w if strict
//!  dw      of the w, fsynced        0..=w     default w
//!  sloppy  fallbacks may stand in             default yes
//! ```
//!
//! A sloppy request may be answered by fallbacks in place of owners that are out of reach, so it
//! stays available and promises less: only `pr` and `pw` of its answers are certain to be owners'.

use std::fmt;
use std::num::NonZeroU8;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What a caller asks for. What it leaves out is filled in by [`Quorum::new`].
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(default)]
pub struct QuorumRequest {
    /// Owners taking part: the first n of the partition. Default the bucket's N.
    pub n: Option<u8>,
    /// Answers a read needs. Default the majority of n.
    pub r: Option<Level>,
    /// Acks a write needs. Default the majority of n.
    pub w: Option<Level>,
    /// Of the r answers, how many must come from owners. Default 0.
    pub pr: Option<Level>,
    /// Of the w acks, how many must come from owners. Default 0.
    pub pw: Option<Level>,
    /// Of the w acks, how many must say that the write is on stable storage. Default w; less is
    /// faster and may lose the write when the power fails everywhere at once.
    pub dw: Option<Level>,
    /// Whether fallbacks may stand in for owners that are out of reach. Default yes. Without them
    /// every answer is an owner's, so pr = r and pw = w.
    pub sloppy: Option<bool>,
}

/// A request's needs, checked: 1 ≤ r ≤ n, 1 ≤ w ≤ n, pr ≤ r, pw ≤ w, dw ≤ w; pr = r and pw = w if
/// strict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Claimed")]
pub struct Quorum {
    n: NonZeroU8,
    r: NonZeroU8,
    w: NonZeroU8,
    pr: u8,
    pw: u8,
    dw: u8,
    sloppy: bool,
}

impl Quorum {
    /// Fills in what the request leaves out and refuses what cannot be met in a bucket with
    /// `bucket_n` replicas.
    pub fn new(request: &QuorumRequest, bucket_n: u8) -> Result<Quorum, QuorumError> {
        let n = NonZeroU8::new(request.n.unwrap_or(bucket_n)).ok_or(QuorumError::ZeroN)?;
        if n.get() > bucket_n {
            return Err(QuorumError::NAboveBucket { n: n.get(), bucket_n });
        }
        let r =
            NonZeroU8::new(request.r.unwrap_or(Level::Quorum).of(n)).ok_or(QuorumError::ZeroR)?;
        let w =
            NonZeroU8::new(request.w.unwrap_or(Level::Quorum).of(n)).ok_or(QuorumError::ZeroW)?;
        let sloppy = request.sloppy.unwrap_or(true);
        let at_least = |level: Option<Level>| level.map_or(0, |level| level.of(n));
        let (mut pr, mut pw) = (at_least(request.pr), at_least(request.pw));
        let dw = request.dw.map_or(w.get(), |level| level.of(n));
        if r > n {
            return Err(QuorumError::RAboveN { r: r.get(), n: n.get() });
        }
        if w > n {
            return Err(QuorumError::WAboveN { w: w.get(), n: n.get() });
        }
        if pr > r.get() {
            return Err(QuorumError::PrAboveR { pr, r: r.get() });
        }
        if pw > w.get() {
            return Err(QuorumError::PwAboveW { pw, w: w.get() });
        }
        if dw > w.get() {
            return Err(QuorumError::DwAboveW { dw, w: w.get() });
        }
        if !sloppy {
            (pr, pw) = (r.get(), w.get());
        }
        Ok(Quorum { n, r, w, pr, pw, dw, sloppy })
    }

    /// Refuses what can be refused without knowing the bucket, so that a client hears it without a
    /// round trip.
    ///
    /// Whatever passes here may still be refused by [`Quorum::new`]; whatever fails here fails
    /// there.
    pub fn check(request: &QuorumRequest) -> Result<(), QuorumError> {
        if let Some(n) = request.n {
            // Every other rule compares with this n alone.
            return Quorum::new(request, n).map(|_| ());
        }
        let QuorumRequest { n: _, r, w, pr, pw, dw, sloppy: _ } = *request;
        if r == Some(Level::Count(0)) {
            return Err(QuorumError::ZeroR);
        }
        if w == Some(Level::Count(0)) {
            return Err(QuorumError::ZeroW);
        }
        // A word grows with n, so only two numbers can be compared.
        let numbers = |part, whole| match (part, whole) {
            (Some(Level::Count(part)), Some(Level::Count(whole))) if part > whole => {
                Some((part, whole))
            }
            (_, _) => None,
        };
        if let Some((pr, r)) = numbers(pr, r) {
            return Err(QuorumError::PrAboveR { pr, r });
        }
        if let Some((pw, w)) = numbers(pw, w) {
            return Err(QuorumError::PwAboveW { pw, w });
        }
        if let Some((dw, w)) = numbers(dw, w) {
            return Err(QuorumError::DwAboveW { dw, w });
        }
        Ok(())
    }

    /// Owners taking part.
    #[must_use]
    pub fn n(&self) -> u8 {
        self.n.get()
    }

    /// Answers a read needs.
    #[must_use]
    pub fn r(&self) -> u8 {
        self.r.get()
    }

    /// Acks a write needs.
    #[must_use]
    pub fn w(&self) -> u8 {
        self.w.get()
    }

    /// Of the r answers, how many must come from owners.
    #[must_use]
    pub fn pr(&self) -> u8 {
        self.pr
    }

    /// Of the w acks, how many must come from owners.
    #[must_use]
    pub fn pw(&self) -> u8 {
        self.pw
    }

    /// Of the w acks, how many must be fsynced.
    #[must_use]
    pub fn dw(&self) -> u8 {
        self.dw
    }

    /// Whether fallbacks may stand in for owners.
    #[must_use]
    pub fn sloppy(&self) -> bool {
        self.sloppy
    }
}

/// How many of the n owners: a number, or a word whose number follows from n.
///
/// Read from `one two three quorum all` or a decimal number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// This many. Zero can be said, so that [`Quorum::new`] can refuse it and name the rule.
    Count(u8),
    /// The majority: n / 2 + 1.
    Quorum,
    /// Every one of the n.
    All,
}

impl Level {
    /// The number this level means among n owners. A count stays what it is, also above n.
    fn of(self, n: NonZeroU8) -> u8 {
        match self {
            Level::Count(count) => count,
            Level::Quorum => n.get() / 2 + 1,
            Level::All => n.get(),
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Level::Count(count) => write!(f, "{count}"),
            Level::Quorum => f.write_str("quorum"),
            Level::All => f.write_str("all"),
        }
    }
}

impl FromStr for Level {
    type Err = LevelError;

    fn from_str(text: &str) -> Result<Self, LevelError> {
        match text {
            "one" => Ok(Level::Count(1)),
            "two" => Ok(Level::Count(2)),
            "three" => Ok(Level::Count(3)),
            "quorum" => Ok(Level::Quorum),
            "all" => Ok(Level::All),
            number if number.bytes().all(|byte| byte.is_ascii_digit()) => {
                number.parse().map(Level::Count).map_err(|_| LevelError { text: text.to_owned() })
            }
            _ => Err(LevelError { text: text.to_owned() }),
        }
    }
}

/// A text that should be a level is none. The caller mends it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no level: use a number from 1 to n, or one of one, two, three, quorum, all")]
pub struct LevelError {
    /// What was read.
    pub text: String,
}

/// The request cannot be met, whatever the nodes answer. The caller changes it; nothing was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum QuorumError {
    /// No owner would take part.
    #[error("n=0: at least one owner must take part")]
    ZeroN,
    /// A read that waits for nobody.
    #[error("r=0: a read needs at least one answer")]
    ZeroR,
    /// A write that waits for nobody.
    #[error("w=0: a write needs at least one ack (for speed without fsync ask for dw=0)")]
    ZeroW,
    /// More owners than hold the bucket's keys.
    #[error("n={n} is more than the bucket's N={bucket_n}: only its owners hold its keys")]
    NAboveBucket {
        /// Owners asked for.
        n: u8,
        /// Owners there are.
        bucket_n: u8,
    },
    /// More answers than owners.
    #[error("r={r} is more than n={n}: a read cannot need more answers than owners taking part")]
    RAboveN {
        /// Answers asked for.
        r: u8,
        /// Owners taking part.
        n: u8,
    },
    /// More acks than owners.
    #[error("w={w} is more than n={n}: a write cannot need more acks than owners taking part")]
    WAboveN {
        /// Acks asked for.
        w: u8,
        /// Owners taking part.
        n: u8,
    },
    /// More answers from owners than answers.
    #[error("pr={pr} is more than r={r}: only the answers that are waited for can be owners'")]
    PrAboveR {
        /// Answers from owners asked for.
        pr: u8,
        /// Answers asked for.
        r: u8,
    },
    /// More acks from owners than acks.
    #[error("pw={pw} is more than w={w}: only the acks that are waited for can be owners'")]
    PwAboveW {
        /// Acks from owners asked for.
        pw: u8,
        /// Acks asked for.
        w: u8,
    },
    /// More fsynced acks than acks.
    #[error("dw={dw} is more than w={w}: only the acks that are waited for can be fsynced ones")]
    DwAboveW {
        /// Fsynced acks asked for.
        dw: u8,
        /// Acks asked for.
        w: u8,
    },
}

/// A quorum as it is read from outside, before the rules have seen it.
#[derive(Deserialize)]
#[serde(rename = "Quorum")]
struct Claimed {
    n: u8,
    r: u8,
    w: u8,
    pr: u8,
    pw: u8,
    dw: u8,
    sloppy: bool,
}

impl TryFrom<Claimed> for Quorum {
    type Error = QuorumError;

    fn try_from(claimed: Claimed) -> Result<Self, QuorumError> {
        let Claimed { n, r, w, pr, pw, dw, sloppy } = claimed;
        let count = |count| Some(Level::Count(count));
        let request = QuorumRequest {
            n: Some(n),
            r: count(r),
            w: count(w),
            pr: count(pr),
            pw: count(pw),
            dw: count(dw),
            sloppy: Some(sloppy),
        };
        Quorum::new(&request, n)
    }
}
