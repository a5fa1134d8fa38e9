//! Groups, delays, chances, rates and spans of time as people write them.

use std::{str::FromStr, time::Duration};

use atoll_client::NodeId;
use atoll_wire::faults::Chance;

/// Nodes of one side: `n1,n2`. May be empty here; a partition refuses that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group(pub Vec<NodeId>);

/// `40ms`, `40ms±10ms`, `40ms+-10`: the unit of the second may be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delay {
    /// In the middle.
    pub delay_ms: u32,
    /// So much more or less.
    pub jitter_ms: u32,
}

/// `5%`, `0.05`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Odds(pub Chance);

/// `1mbit`, `200kbit`, `1gbit`: bits each second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bits(pub u64);

/// `30s`, `1m30s`, `500ms`: more than nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

impl FromStr for Group {
    type Err = String;

    fn from_str(text: &str) -> Result<Group, String> {
        if text.trim().is_empty() {
            return Ok(Group(Vec::new()));
        }
        let node = |word: &str| {
            word.trim().parse().map_err(|error| format!("{word:?}: {error}; such as n1,n2"))
        };
        text.split(',').map(node).collect::<Result<_, _>>().map(Group)
    }
}

impl FromStr for Delay {
    type Err = String;

    fn from_str(text: &str) -> Result<Delay, String> {
        let (delay, jitter) = match text.split_once('±').or_else(|| text.split_once("+-")) {
            Some((delay, jitter)) => (delay, Some(jitter)),
            None => (text, None),
        };
        let delay_ms = milliseconds(delay)?;
        let jitter_ms = match jitter {
            None => 0,
            Some(bare) if bare.bytes().all(|byte| byte.is_ascii_digit()) && !bare.is_empty() => {
                bare.parse().map_err(|_| NO_DELAY.to_owned())?
            }
            Some(jitter) => milliseconds(jitter)?,
        };
        if jitter_ms > delay_ms {
            return Err("more jitter than delay".into());
        }
        Ok(Delay { delay_ms, jitter_ms })
    }
}

const NO_DELAY: &str = "no delay: such as 40ms or 40ms±10ms";

fn milliseconds(text: &str) -> Result<u32, String> {
    let span = humantime::parse_duration(text).map_err(|_| NO_DELAY.to_owned())?;
    let ms = u32::try_from(span.as_millis()).map_err(|_| NO_DELAY.to_owned())?;
    if ms == 0 { Err("a delay is at least one millisecond".into()) } else { Ok(ms) }
}

impl FromStr for Odds {
    type Err = String;

    fn from_str(text: &str) -> Result<Odds, String> {
        let no_chance = || "no chance: such as 5% or 0.05, more than 0 and at most 100%".to_owned();
        let number = match text.strip_suffix('%') {
            Some(percent) => percent.trim().parse::<f64>().map(|number| number / 100.0),
            None => text.parse::<f64>(),
        };
        Chance::try_from(number.map_err(|_| no_chance())?).map(Odds).map_err(|_| no_chance())
    }
}

impl FromStr for Bits {
    type Err = String;

    fn from_str(text: &str) -> Result<Bits, String> {
        let no_rate = || "no rate: such as 1mbit, 200kbit or 1gbit".to_owned();
        let lower = text.to_ascii_lowercase();
        let units = [("kbit", 1_000), ("mbit", 1_000_000), ("gbit", 1_000_000_000)];
        let found =
            units.into_iter().find_map(|(unit, bits)| Some((lower.strip_suffix(unit)?, bits)));
        let (number, unit) = found.ok_or_else(no_rate)?;
        let number: f64 = number.trim().parse().map_err(|_| no_rate())?;
        let bits = number * f64::from(unit);
        if !(1_000.0..=1e12).contains(&bits) {
            return Err("a rate is from 1kbit to 1000gbit".into());
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "from a thousand to a million millions"
        )]
        Ok(Bits(bits as u64))
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Span, String> {
        let no_span = || "no time: such as 30s, 500ms or 1m30s".to_owned();
        let span = humantime::parse_duration(text).map_err(|_| no_span())?;
        if span < Duration::from_millis(1) || span > LONGEST {
            Err(no_span())
        } else {
            Ok(Span(span))
        }
    }
}

/// Longer than any testnet.
const LONGEST: Duration = Duration::from_secs(366 * 86_400);

#[cfg(test)]
mod tests {
    use super::*;

    /// What people write, and what is refused.
    #[test]
    fn words_of_faults() {
        let delay =
            |text: &str| text.parse().ok().map(|delay: Delay| (delay.delay_ms, delay.jitter_ms));
        assert_eq!(delay("40ms"), Some((40, 0)));
        assert_eq!(delay("40ms±10ms"), Some((40, 10)));
        assert_eq!(delay("40ms±10"), Some((40, 10)));
        assert_eq!(delay("40ms+-10ms"), Some((40, 10)));
        assert_eq!(delay("1s±200ms"), Some((1000, 200)));
        for bad in ["", "40", "ms", "40ms±", "40ms±50ms", "0ms", "±10ms", "40ms±-1", "n1"] {
            assert_eq!(delay(bad), None, "{bad:?}");
        }
        let odds = |text: &str| text.parse().ok().map(|odds: Odds| odds.0.millionths());
        assert_eq!(odds("5%"), Some(50_000));
        assert_eq!(odds("0.05"), Some(50_000));
        assert_eq!(odds("100%"), Some(1_000_000));
        assert_eq!(odds("0.5 %"), Some(5_000));
        for bad in ["", "%", "0", "0%", "101%", "-5%", "5", "nan", "inf%"] {
            assert_eq!(odds(bad), None, "{bad:?}");
        }
        let bits = |text: &str| text.parse().ok().map(|bits: Bits| bits.0);
        assert_eq!(bits("1mbit"), Some(1_000_000));
        assert_eq!(bits("1.5Mbit"), Some(1_500_000));
        assert_eq!(bits("200kbit"), Some(200_000));
        for bad in ["", "1", "mbit", "0kbit", "-1mbit", "1mb", "9999gbit"] {
            assert_eq!(bits(bad), None, "{bad:?}");
        }
        let group = |text: &str| text.parse().ok().map(|group: Group| group.0);
        assert_eq!(group("n1,2"), Some(vec![NodeId(1), NodeId(2)]));
        assert_eq!(group(""), Some(vec![]));
        assert_eq!(group("n1,"), None);
        let span = |text: &str| text.parse().ok().map(|span: Span| span.0.as_millis());
        assert_eq!(span("1m30s"), Some(90_000));
        for bad in ["", "30", "0s", "-1s", "400years"] {
            assert_eq!(span(bad), None, "{bad:?}");
        }
    }
}
