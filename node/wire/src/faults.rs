//! What shall go wrong on a node that may be broken on purpose.
//!
//! A [`FaultList`] is the whole of it: one document per node, which the node keeps as `faults.toml` in its data directory
//! and obeys as long as it stands there. An operator gives it another with [`FaultsRequest`]; the answer means that the new
//! one is in force. The same type is the file, the message, and what the launcher of a testnet changes.
//!
//! ```toml
//! seed = 7                          # chance below comes from it: the same seed, the same fates
//! free_bytes = 1000000              # so many bytes are free, whatever the file system says
//! hold = ["copy", "page"]           # moves wait at these steps
//!
//! [[links]]                         # what this node sends to that one; the other way is that one's own document
//! peer = 2
//! name = "slow"                     # who put it here; shown, and no more
//! cut = true                        # nothing arrives
//! drop = 0.05                       # as a chance, from just above 0 to 1
//! delay_ms = 40
//! jitter_ms = 10                    # so much more or less, evenly; not more than the delay
//! duplicate = 0.01
//! reorder = 0.01                    # overtaken by what comes behind it
//! bandwidth_bits = 1000000          # each second
//! when = { from_ms = 1790000000000, until_ms = 1790000030000, every_ms = 60000 }
//!
//! [disk]
//! slow_ms = 20                      # each sync takes so much longer
//!
//! [clock]
//! ahead_ms = 3600000                # negative: behind
//! ```
//!
//! Several faults of one link add up. Each fault has a `when` (`free_bytes_when` for free space); without one it lasts
//! until it is taken out. Times are milliseconds since 1970 by the node's true clock, whatever a fault says of it, and the
//! node keeps them by itself: a fault ends though nobody watches.

use std::{fmt, marker::PhantomData};

use atoll_ring::NodeId;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error as _, SeqAccess, Visitor},
};

use crate::limits::{
    FAULT_CLOCK_MS_MAX, FAULT_DELAY_MS_MAX, FAULT_LINKS_MAX, FAULT_NAME_BYTES_MAX,
    FAULT_TIME_MS_MAX,
};

/// What shall go wrong on one node. The default is nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultList {
    /// Where chance comes from. The same for every link, and yet each link has fates of its own.
    #[serde(default)]
    pub seed: u32,
    /// So many bytes are free for the store, whatever the file system says.
    #[serde(default)]
    pub free_bytes: Option<u64>,
    /// When that is so.
    #[serde(default)]
    pub free_bytes_when: Option<When>,
    /// Where moves of partitions wait.
    #[serde(default, deserialize_with = "at_most::<_, _, HOLD_MAX>")]
    pub hold: Vec<Step>,
    /// What happens to datagrams that this node sends to others.
    #[serde(default, deserialize_with = "at_most::<_, _, FAULT_LINKS_MAX>")]
    pub links: Vec<LinkFault>,
    /// What the disk does.
    #[serde(default)]
    pub disk: Option<DiskFault>,
    /// What the clock shows.
    #[serde(default)]
    pub clock: Option<ClockFault>,
}

/// What happens to datagrams on their way to one other node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkFault {
    /// The other node.
    pub peer: NodeId,
    /// Who put it here, for people and for whoever takes it out again.
    #[serde(default)]
    pub name: String,
    /// Nothing arrives.
    #[serde(default)]
    pub cut: bool,
    /// Lost with this chance.
    #[serde(default)]
    pub drop: Option<Chance>,
    /// Arrives so much later.
    #[serde(default)]
    pub delay_ms: Option<u32>,
    /// The delay differs by up to so much, either way, evenly. The order is kept.
    #[serde(default)]
    pub jitter_ms: Option<u32>,
    /// Arrives twice with this chance.
    #[serde(default)]
    pub duplicate: Option<Chance>,
    /// Let overtake by others with this chance.
    #[serde(default)]
    pub reorder: Option<Chance>,
    /// So many bits pass each second; what waits too long for its turn is lost.
    #[serde(default)]
    pub bandwidth_bits: Option<u64>,
    /// When that is so.
    #[serde(default)]
    pub when: Option<When>,
}

/// What the disk does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskFault {
    /// Each sync takes so much longer.
    pub slow_ms: u32,
    /// When that is so.
    #[serde(default)]
    pub when: Option<When>,
}

/// What the clock shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClockFault {
    /// So much more than the time that it is.
    pub ahead_ms: i64,
    /// When that is so.
    #[serde(default)]
    pub when: Option<When>,
}

/// Where a node can be made to wait while partitions move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// Before the first page of a partition is asked for.
    Copy,
    /// Before each page.
    Page,
    /// When a partition is copied, before it says so.
    Done,
    /// Before each page of rows that are handed over to an owner.
    Clean,
}

impl Step {
    /// All of them.
    pub const ALL: [Step; 4] = [Step::Copy, Step::Page, Step::Done, Step::Clean];
}

/// From when until when, in milliseconds since 1970; and perhaps again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct When {
    /// It begins.
    pub from_ms: u64,
    /// It ends; none = it lasts.
    #[serde(default)]
    pub until_ms: Option<u64>,
    /// So long after each beginning it begins anew, and lasts as long as the first time.
    #[serde(default)]
    pub every_ms: Option<u64>,
}

impl When {
    /// Whether it is so at a moment.
    pub fn is_at(&self, now_ms: u64) -> bool {
        let Some(since) = now_ms.checked_sub(self.from_ms) else { return false };
        match (self.until_ms, self.every_ms) {
            (None, _) => true,
            (Some(until), None) => now_ms < until,
            (Some(until), Some(every)) => {
                since.checked_rem(every).unwrap_or(since) < until.saturating_sub(self.from_ms)
            }
        }
    }

    /// When it changes next after a moment: begins, ends, or begins anew; none = never again.
    pub fn changes_after(&self, now_ms: u64) -> Option<u64> {
        let Some(since) = now_ms.checked_sub(self.from_ms) else { return Some(self.from_ms) };
        let lasts = self.until_ms?.saturating_sub(self.from_ms);
        match self.every_ms {
            None => self.until_ms.filter(|until| *until > now_ms),
            Some(every) => {
                let into = since.checked_rem(every)?;
                let left = if into < lasts { lasts - into } else { every - into };
                now_ms.checked_add(left)
            }
        }
    }
}

/// Whether something without a `when`, or with this one, is so at a moment.
fn is_so(when: Option<When>, now_ms: u64) -> bool {
    when.is_none_or(|when| when.is_at(now_ms))
}

/// A chance in millionths, from one of them to all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Chance(u32);

impl Chance {
    /// So many out of a million; none if that is no chance at all, or more than certain.
    pub fn of_million(millionths: u32) -> Option<Chance> {
        (1..=MILLION).contains(&millionths).then_some(Chance(millionths))
    }

    /// How many out of a million.
    pub fn millionths(self) -> u32 {
        self.0
    }
}

impl From<Chance> for f64 {
    fn from(chance: Chance) -> f64 {
        f64::from(chance.0) / f64::from(MILLION)
    }
}

impl TryFrom<f64> for Chance {
    type Error = NoChance;

    fn try_from(number: f64) -> Result<Chance, NoChance> {
        let millionths = (number * f64::from(MILLION)).round();
        if (1.0..=f64::from(MILLION)).contains(&millionths) {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a whole number from 1 to a million"
            )]
            return Ok(Chance(millionths as u32));
        }
        Err(NoChance)
    }
}

impl fmt::Display for Chance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{} %", f64::from(self.0) / 10_000.0))
    }
}

/// A number that is no chance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a chance is more than 0 and at most 1, in millionths")]
pub struct NoChance;

/// Why a list of faults is none. Nothing of it is obeyed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FaultListError {
    /// The text is not what a list looks like.
    #[error("{0}")]
    Text(String),
    /// A link without a fault.
    #[error("the link to {0} has no fault: leave it out, or say what happens there")]
    Idle(NodeId),
    /// Too long a delay.
    #[error("a delay of {0} ms: at most {FAULT_DELAY_MS_MAX}; use cut for a link that is gone")]
    Delay(u32),
    /// Jitter that would take more away than there is.
    #[error("a jitter of {jitter_ms} ms needs a delay of at least as much, and it is {delay_ms}")]
    Jitter {
        /// The jitter.
        jitter_ms: u32,
        /// The delay.
        delay_ms: u32,
    },
    /// Not a bandwidth.
    #[error(
        "a bandwidth of {0} bits a second: {BANDWIDTH_BITS_MIN} to {BANDWIDTH_BITS_MAX}; use cut for none"
    )]
    Bandwidth(u64),
    /// Too long a name.
    #[error(
        "the fault's name {0:?}: at most {FAULT_NAME_BYTES_MAX} small letters, digits and hyphens"
    )]
    Name(String),
    /// An end at or before the beginning, or a repetition that begins before that.
    #[error(
        "a fault from {} until {:?}, every {:?} ms: it must end after it begins, and begin anew after it has ended",
        .0.from_ms, .0.until_ms, .0.every_ms
    )]
    When(When),
    /// A time for something that is not there.
    #[error("free_bytes_when without free_bytes")]
    FreeBytesWhen,
    /// A number that no file holds.
    #[error("free_bytes = {0}: at most {FREE_BYTES_MAX}")]
    FreeBytes(u64),
    /// Not how slow a disk may be.
    #[error("a disk slower by {0} ms: 1 to {FAULT_DELAY_MS_MAX}")]
    Slow(u32),
    /// Not how far a clock may be off.
    #[error("a clock ahead by {0} ms: not 0, and at most {FAULT_CLOCK_MS_MAX} either way")]
    Clock(i64),
}

/// What is so at one moment: the list without its times.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InForce {
    /// So many bytes are free.
    pub free_bytes: Option<u64>,
    /// Where moves wait.
    pub hold: Vec<Step>,
    /// What happens on links.
    pub links: Vec<LinkFault>,
    /// Each sync takes so much longer.
    pub slow_ms: Option<u32>,
    /// The clock shows so much more.
    pub clock_ahead_ms: Option<i64>,
}

impl FaultList {
    /// Reads it as it is written in a file. An empty text commands nothing.
    ///
    /// # Errors
    /// See [`FaultListError`]. What is not understood is an error: silence would look like a node that bore it.
    pub fn parse(text: &str) -> Result<FaultList, FaultListError> {
        let list: FaultList =
            toml::from_str(text).map_err(|error| FaultListError::Text(error.to_string()))?;
        list.check()?;
        Ok(list)
    }

    /// As it is written in a file.
    ///
    /// # Panics
    /// If it does not stand up to [`FaultList::check`].
    pub fn text(&self) -> String {
        toml::to_string(self).expect("plain data, with numbers that were checked")
    }

    /// Whether it can be obeyed, by any node.
    ///
    /// # Errors
    /// See [`FaultListError`].
    pub fn check(&self) -> Result<(), FaultListError> {
        match (self.free_bytes, self.free_bytes_when) {
            (None, Some(_)) => return Err(FaultListError::FreeBytesWhen),
            (Some(bytes), _) if bytes > FREE_BYTES_MAX => {
                return Err(FaultListError::FreeBytes(bytes));
            }
            (_, when) => check_when(when)?,
        }
        self.links.iter().try_for_each(LinkFault::check)?;
        if let Some(DiskFault { slow_ms, when }) = self.disk {
            if !(1..=FAULT_DELAY_MS_MAX).contains(&slow_ms) {
                return Err(FaultListError::Slow(slow_ms));
            }
            check_when(when)?;
        }
        if let Some(ClockFault { ahead_ms, when }) = self.clock {
            if ahead_ms == 0 || ahead_ms.unsigned_abs() > FAULT_CLOCK_MS_MAX {
                return Err(FaultListError::Clock(ahead_ms));
            }
            check_when(when)?;
        }
        Ok(())
    }

    /// What of it is so at a moment.
    pub fn at(&self, now_ms: u64) -> InForce {
        let links = self.links.iter().filter(|link| is_so(link.when, now_ms));
        let disk = self.disk.as_ref().filter(|disk| is_so(disk.when, now_ms));
        let clock = self.clock.as_ref().filter(|clock| is_so(clock.when, now_ms));
        InForce {
            free_bytes: self.free_bytes.filter(|_| is_so(self.free_bytes_when, now_ms)),
            hold: self.hold.clone(),
            links: links.cloned().collect(),
            slow_ms: disk.map(|disk| disk.slow_ms),
            clock_ahead_ms: clock.map(|clock| clock.ahead_ms),
        }
    }
}

impl LinkFault {
    /// No fault yet: a link for struct update.
    pub fn to(peer: NodeId, name: &str) -> LinkFault {
        LinkFault {
            peer,
            name: name.to_owned(),
            cut: false,
            drop: None,
            delay_ms: None,
            jitter_ms: None,
            duplicate: None,
            reorder: None,
            bandwidth_bits: None,
            when: None,
        }
    }

    fn check(&self) -> Result<(), FaultListError> {
        let idle = LinkFault { when: self.when, ..LinkFault::to(self.peer, &self.name) };
        if *self == idle {
            return Err(FaultListError::Idle(self.peer));
        }
        let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if self.name.len() > FAULT_NAME_BYTES_MAX || !self.name.bytes().all(is_name) {
            return Err(FaultListError::Name(self.name.chars().take(40).collect()));
        }
        let delay_ms = self.delay_ms.unwrap_or(0);
        if delay_ms > FAULT_DELAY_MS_MAX {
            return Err(FaultListError::Delay(delay_ms));
        }
        match self.jitter_ms {
            Some(jitter_ms) if jitter_ms > delay_ms => {
                return Err(FaultListError::Jitter { jitter_ms, delay_ms });
            }
            Some(_) | None => {}
        }
        match self.bandwidth_bits {
            Some(bits) if !(BANDWIDTH_BITS_MIN..=BANDWIDTH_BITS_MAX).contains(&bits) => {
                return Err(FaultListError::Bandwidth(bits));
            }
            Some(_) | None => {}
        }
        check_when(self.when)
    }
}

fn check_when(when: Option<When>) -> Result<(), FaultListError> {
    let Some(when) = when else { return Ok(()) };
    let times = [Some(when.from_ms), when.until_ms, when.every_ms];
    let fits = times.into_iter().flatten().all(|ms| ms <= FAULT_TIME_MS_MAX);
    let lasts = when.until_ms.map(|until| until.saturating_sub(when.from_ms));
    let is_good = match (lasts, when.every_ms) {
        (None, None) => true,
        (None, Some(_)) => false,
        (Some(lasts), None) => lasts > 0,
        (Some(lasts), Some(every)) => lasts > 0 && every > lasts,
    };
    if fits && is_good { Ok(()) } else { Err(FaultListError::When(when)) }
}

/// Asks what goes wrong on a node, or commands it. Answered when it is in force, and kept over restarts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultsRequest {
    /// What shall go wrong from now on, instead of all that did; none = as it is.
    pub list: Option<Box<FaultList>>,
}

/// What goes wrong on a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultsReport {
    /// What it was commanded.
    pub list: FaultList,
    /// The time by which the node takes what is so now, milliseconds since 1970: its true clock.
    pub wall_ms: u64,
}

impl FaultsReport {
    /// What is so now.
    pub fn in_force(&self) -> InForce {
        self.list.at(self.wall_ms)
    }
}

/// A list of at most so many entries; reading stops there.
fn at_most<'de, D: Deserializer<'de>, T: Deserialize<'de>, const MOST: usize>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    struct AtMost<T>(usize, PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for AtMost<T> {
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

    deserializer.deserialize_seq(AtMost(MOST, PhantomData))
}

const MILLION: u32 = 1_000_000;

/// A bit slower than the slowest line that anybody would wait for.
const BANDWIDTH_BITS_MIN: u64 = 1_000;

/// More than a machine sends.
const BANDWIDTH_BITS_MAX: u64 = 1_000_000_000_000;

/// The largest number that a file holds.
const FREE_BYTES_MAX: u64 = i64::MAX as u64;

/// Each step once, and some mercy for whoever writes one twice.
const HOLD_MAX: usize = 16;

#[cfg(test)]
mod tests;
