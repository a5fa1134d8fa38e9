//! The line that moves on a terminal while we work. Elsewhere nothing is shown.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::measure::Measure;

/// One moving line on stderr.
pub(crate) struct Progress {
    bar: ProgressBar,
    reads: u64,
    writes: u64,
    at: Duration,
}

/// How often the line is drawn anew.
pub(crate) const REDRAW: Duration = Duration::from_millis(250);

impl Progress {
    /// Counts the keys that are written beforehand.
    pub fn preload(keys: u32) -> Progress {
        Progress::with(keys.into(), "writing all keys {bar:30} {human_pos}/{human_len} ({eta})")
    }

    /// Follows the measured time.
    pub fn load(length: Duration) -> Progress {
        let length_ms = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
        Progress::with(length_ms, "{bar:20} {msg}")
    }

    fn with(length: u64, template: &str) -> Progress {
        let bar = ProgressBar::new(length); // draws on stderr, and only if that is a terminal
        bar.set_style(ProgressStyle::with_template(template).expect("constant template"));
        Progress { bar, reads: 0, writes: 0, at: Duration::ZERO }
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
        self.bar.set_message(format!(
            "{:.1} s · reads {:.0}/s p99 {:.1} ms · writes {:.0}/s p99 {:.1} ms · stale {} · errors {}",
            at.as_secs_f64(),
            (reads - self.reads) as f64 / seconds,
            p99(&measure.reads.latency),
            (writes - self.writes) as f64 / seconds,
            p99(&measure.writes.latency),
            measure.stale(),
            measure.reads.failures() + measure.writes.failures(),
        ));
        (self.at, self.reads, self.writes) = (at, reads, writes);
    }
}

/// The line disappears with what it told about.
impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
