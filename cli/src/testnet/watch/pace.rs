//! How fast requests go: what nodes have counted between two looks.
//!
//! Each node counts since its start and says how long ago that was. Between two looks at the same process both grow, so
//! rates rest on the node's own clock; a process that was restarted meanwhile is taken from its start.

use std::{collections::VecDeque, time::Duration};

use atoll_client::{NodeId, NodeStatus};
use atoll_testnet::Look;
use atoll_wire::Times;

/// What a node, or all of them, did per second of the last two seconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pace {
    pub writes: Kind,
    pub reads: Kind,
    /// Requests per second that were not answered as asked.
    pub unmet: f64,
    /// Gets per second in which an owner answered with less than was found.
    pub behind: f64,
}

/// Requests of one kind.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Kind {
    /// Answered per second.
    pub rate: f64,
    /// How long they took.
    pub times: Times,
}

impl Pace {
    /// What a node did from one look to a later one; nothing, if no time has passed.
    fn between(before: &NodeStatus, after: &NodeStatus) -> Option<Pace> {
        let nothing = NodeStatus::default();
        let restarted = after.uptime_ms < before.uptime_ms;
        let before = if restarted { &nothing } else { before };
        let seconds = Duration::from_millis(after.uptime_ms - before.uptime_ms).as_secs_f64();
        if seconds == 0.0 {
            return None;
        }
        let rate = |count: fn(&NodeStatus) -> u64| {
            per_second(count(after).saturating_sub(count(before)), seconds)
        };
        let kind = |times: fn(&NodeStatus) -> &Times| {
            let times = times(after).since(times(before));
            Kind { rate: per_second(times.total(), seconds), times }
        };
        Some(Pace {
            writes: kind(|status| &status.write_times),
            reads: kind(|status| &status.read_times),
            unmet: rate(|status| status.unmet),
            behind: rate(|status| status.reads_behind),
        })
    }

    /// What both did.
    fn and(&self, other: &Pace) -> Pace {
        let kind = |one: &Kind, another: &Kind| Kind {
            rate: one.rate + another.rate,
            times: one.times.and(&another.times),
        };
        Pace {
            writes: kind(&self.writes, &other.writes),
            reads: kind(&self.reads, &other.reads),
            unmet: self.unmet + other.unmet,
            behind: self.behind + other.behind,
        }
    }

    /// Requests answered per second.
    pub fn rate(&self) -> f64 {
        self.writes.rate + self.reads.rate
    }

    /// A time that 99 of 100 requests did not exceed.
    pub fn p99(&self) -> Option<Duration> {
        self.writes.times.and(&self.reads.times).all_but_one_in(100)
    }

    /// The part of the gets in which an owner was behind, 0 to 1; none without gets.
    pub fn behind_share(&self) -> Option<f64> {
        (self.reads.rate > 0.0).then(|| (self.behind / self.reads.rate).min(1.0))
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate is shown with four digits")]
fn per_second(count: u64, seconds: f64) -> f64 {
    count as f64 / seconds
}

/// The looks of the last two seconds, the latest last, and what was done at each look of the last minutes.
#[derive(Default)]
pub struct Past {
    looks: VecDeque<Look>,
    totals: VecDeque<Pace>,
}

impl Past {
    /// Another look.
    pub fn add(&mut self, look: Look) {
        self.looks.push_back(look);
        if self.looks.len() > WINDOW + 1 {
            self.looks.pop_front();
        }
        let total = self.total();
        self.totals.push_back(Pace {
            writes: Kind { times: Times::default(), ..total.writes },
            reads: Kind { times: Times::default(), ..total.reads },
            ..total
        });
        if self.totals.len() > TOTALS_MAX {
            self.totals.pop_front();
        }
    }

    /// The latest look; none before the first.
    pub fn latest(&self) -> Option<&Look> {
        self.looks.back()
    }

    /// What a node did lately; none if it does not answer, or was looked at once only.
    pub fn pace(&self, node: NodeId) -> Option<Pace> {
        fn of(look: &Look, node: NodeId) -> Option<&NodeStatus> {
            look.report(node)?.status.as_ref()
        }
        let after = of(self.latest()?, node)?;
        let before = self.looks.iter().find_map(|look| of(look, node))?;
        Pace::between(before, after)
    }

    /// What all nodes together did lately.
    pub fn total(&self) -> Pace {
        let nodes = self.latest().map_or(&[][..], |look| &look.reports);
        let paces = nodes.iter().filter_map(|report| self.pace(report.node.id));
        paces.fold(Pace::default(), |total, pace| total.and(&pace))
    }

    /// Some number of all together at each look, the latest last.
    pub fn course(&self, number: fn(&Pace) -> f64) -> Vec<f64> {
        self.totals.iter().map(number).collect()
    }
}

/// Looks that a rate spans: with two looks a second two seconds, in which even a slow load shows.
const WINDOW: usize = 4;

/// Looks that a course shows at most: two minutes, more than a terminal is wide.
const TOTALS_MAX: usize = 240;

#[cfg(test)]
mod tests {
    use std::array;

    use atoll_wire::times::{TIMES_BUCKETS, bucket};

    use super::*;

    fn times(count: u64, millis: u64) -> Times {
        let at = bucket(Duration::from_millis(millis));
        Times::of(array::from_fn::<u64, TIMES_BUCKETS, _>(
            |index| {
                if index == at { count } else { 0 }
            },
        ))
    }

    fn status(uptime_ms: u64, reads: u64, behind: u64) -> NodeStatus {
        NodeStatus {
            uptime_ms,
            read_times: times(reads, 3),
            write_times: times(reads / 10, 20),
            unmet: reads / 100,
            reads_behind: behind,
            ..NodeStatus::default()
        }
    }

    /// Counts become rates by the node's own clock; the p99 is of what was done between the looks.
    #[test]
    fn counts_become_rates() {
        let pace = Pace::between(&status(1000, 500, 7), &status(3000, 2500, 107)).unwrap();
        assert_eq!((pace.reads.rate, pace.writes.rate), (1000.0, 100.0));
        assert_eq!((pace.unmet, pace.behind), (10.0, 50.0));
        assert_eq!(pace.behind_share(), Some(0.05));
        assert_eq!(pace.rate(), 1100.0);
        let p99 = pace.p99().unwrap();
        assert!(p99 >= Duration::from_millis(20) && p99 <= Duration::from_millis(25), "{p99:?}");
        assert_eq!(Pace::between(&status(1000, 5, 0), &status(1000, 5, 0)), None);
        assert_eq!(Pace::default().behind_share(), None);
    }

    /// A node that was restarted between two looks counts from its start, and never backwards.
    #[test]
    fn a_restart_begins_anew() {
        let pace = Pace::between(&status(60_000, 5000, 9), &status(500, 100, 1)).unwrap();
        assert_eq!((pace.reads.rate, pace.behind), (200.0, 2.0));
    }

    /// Rates of nodes add up, and so do their times.
    #[test]
    fn nodes_add_up() {
        let one = Pace::between(&status(0, 0, 0), &status(1000, 100, 0)).unwrap();
        let two = one.and(&one);
        assert_eq!((two.reads.rate, two.reads.times.total()), (200.0, 200));
        assert_eq!(one.and(&Pace::default()), one);
    }
}
