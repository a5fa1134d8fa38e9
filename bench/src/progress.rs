//! The line that moves on a terminal while we work. Elsewhere nothing is shown.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::{Pace, Run, measure::Measure};

/// One moving line on stderr.
pub(crate) struct Progress {
    bar: ProgressBar,
    /// Operations that had succeeded when the line was drawn last, and when that was.
    done: u64,
    at: Duration,
    /// Operations per second that an open loop wants to send.
    rate: Option<u32>,
}

/// How often the line is drawn anew.
pub(crate) const REDRAW: Duration = Duration::from_millis(250);

impl Progress {
    /// Counts the keys that are written beforehand.
    pub fn preload(keys: u32) -> Progress {
        Progress::with(
            keys.into(),
            None,
            "writing all keys {bar:30} {human_pos}/{human_len} ({eta})",
        )
    }

    /// Follows the measured time.
    pub fn load(run: &Run) -> Progress {
        let length_ms = u64::try_from(run.length.as_millis()).unwrap_or(u64::MAX);
        let rate = match run.pace {
            Pace::Closed(_) => None,
            Pace::Open(open) => Some(open.rate),
        };
        Progress::with(length_ms, rate, "{bar:20} {msg}")
    }

    fn with(length: u64, rate: Option<u32>, template: &str) -> Progress {
        let bar = ProgressBar::new(length); // draws on stderr, and only if that is a terminal
        bar.set_style(ProgressStyle::with_template(template).expect("constant template"));
        Progress { bar, done: 0, at: Duration::ZERO, rate }
    }

    /// Another key is written.
    pub fn key_written(&self) {
        self.bar.inc(1);
    }

    /// Nothing is counted yet.
    pub fn warming_up(&self) {
        self.bar.set_message("warming up");
    }

    /// Shows what has happened since the last time.
    pub fn show(&mut self, at: Duration, measure: &Measure) {
        if self.bar.is_hidden() {
            return;
        }
        let (reads, writes) = (measure.reads.latency.len(), measure.writes.latency.len());
        let seconds = (at - self.at).as_secs_f64().max(0.001);
        let p99 = |latency: &hdrhistogram::Histogram<u64>| {
            latency.value_at_quantile(0.99) as f64 / 1000.0 // so far
        };
        self.bar.set_position(u64::try_from(at.as_millis()).unwrap_or(u64::MAX));
        let rate = (reads + writes - self.done) as f64 / seconds;
        let mut said = format!("{:.1} s · {rate:.0}", at.as_secs_f64());
        if let Some(wanted) = self.rate {
            said += &format!(" of {wanted}");
        }
        said += &format!(
            "/s · p99 reads {:.1} writes {:.1} ms · stale {} · errors {}",
            p99(&measure.reads.latency),
            p99(&measure.writes.latency),
            measure.stale(),
            measure.reads.failures() + measure.writes.failures(),
        );
        if measure.skipped > 0 {
            said += &format!(" · skipped {}", measure.skipped);
        }
        self.bar.set_message(said);
        (self.at, self.done) = (at, reads + writes);
    }
}

/// The line disappears with what it told about.
impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
