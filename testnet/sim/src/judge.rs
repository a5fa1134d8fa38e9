//! What the judges of `atoll-check` say of a run.

use atoll_check::{Event, Judge, Verdict};

/// The verdict on a history. That it can be judged at all is the recorder's duty.
pub fn judge(events: &[Event]) -> Verdict {
    let mut judge = Judge::new();
    for event in events {
        judge.hear(event).expect("the recorder tells a history");
    }
    judge.verdict()
}
