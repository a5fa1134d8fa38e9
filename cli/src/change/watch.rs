//! Staying with a change until everything has moved, with a line that says how far it is.
//!
//! Ctrl-C ends only the looking: what was committed goes on.

use std::{
    io::{IsTerminal as _, Write as _},
    sync::Arc,
    time::Duration,
};

use atoll_client::{Client, MovesReport, NodeId, View};
use atoll_ring::Wish;
use tokio::time::{Instant, sleep};

use crate::{change::ANSWER_LIMIT, exit::Failed};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How often the line is repeated where it cannot be drawn over.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// Stays until nothing moves any more, and whoever the wish sends away is gone.
pub async fn until_still(client: &Arc<Client>, wish: &Wish) -> Result<(), Failed> {
    let goes = match wish {
        Wish::Leave { node } | Wish::RemoveDead { node } | Wish::Replace { old: node, .. } => {
            Some(*node)
        }
        Wish::Join { .. }
        | Wish::Reweight { .. }
        | Wish::Rezone { .. }
        | Wish::Replicas { .. }
        | Wish::Rebalance => None,
    };
    let mut line = Line::new();
    loop {
        let view = client.refresh(ANSWER_LIMIT).await;
        let stays = goes.filter(|node| view.member(*node).is_some());
        if left(&view) == 0 && stays.is_none() {
            line.end();
            anstream::eprintln!("done at epoch {}", view.epoch());
            return Ok(());
        }
        let reports = client.moves(ANSWER_LIMIT).await;
        let answered = reports.iter().filter_map(|(_, report)| report.as_ref().ok());
        line.say(&progress(&view, &answered.collect::<Vec<_>>(), stays));
        sleep(LOOK_EVERY).await;
    }
}

/// Partitions that move or shall.
pub fn left(view: &View) -> usize {
    view.moves().len() + view.wanted().keys().filter(|at| !view.moves().contains_key(at)).count()
}

/// How far it is, in one line.
pub fn progress(view: &View, reports: &[&MovesReport], stays: Option<NodeId>) -> String {
    let (moving, wanted) = (view.moves().len(), left(view) - view.moves().len());
    let mut line = match (left(view), stays) {
        (0, Some(node)) => {
            let hints: u64 = reports.iter().map(|report| report.hints).sum();
            format!("{node} has given everything away and goes; {hints} hints are kept")
        }
        (_, _) => format!("{moving} partitions moving, {wanted} waiting for their turn"),
    };
    let moves: Vec<_> = reports.iter().filter_map(|report| report.read()).flatten().collect();
    let keys: u64 = moves.iter().filter(|one| one.joins).map(|one| one.keys.0).sum();
    if keys > 0 {
        line.push_str(&format!(", {keys} keys of these copied"));
    }
    let mut waits: Vec<u32> = moves.iter().filter_map(|one| one.waits_for).collect();
    waits.sort_unstable();
    waits.dedup();
    if !waits.is_empty() {
        let names: Vec<String> = waits.iter().map(|node| NodeId(*node).to_string()).collect();
        line.push_str(&format!(", waiting for {}", names.join(", ")));
    }
    if let Some(why) = frozen(reports) {
        line.push_str(&format!(" (frozen: {why})"));
    }
    line
}

/// Why the ring cannot be changed, if no node that answers can. In the words of the one that sees most voters.
pub fn frozen<'a>(reports: &[&'a MovesReport]) -> Option<&'a str> {
    if reports.iter().any(|report| report.frozen.is_empty()) {
        return None;
    }
    let best = reports.iter().max_by_key(|report| report.voters_reachable)?;
    Some(&best.frozen)
}

/// A line that is drawn over itself on a terminal, and repeated now and then elsewhere.
pub struct Line {
    is_drawn: bool,
    said: Option<Instant>,
}

impl Line {
    /// Nothing was said yet.
    pub fn new() -> Line {
        Line { is_drawn: std::io::stderr().is_terminal(), said: None }
    }

    /// Says how it is now.
    pub fn say(&mut self, text: &str) {
        let now = Instant::now();
        if self.is_drawn {
            anstream::eprint!("\r\x1b[2K{text} ");
            let _ = std::io::stderr().flush(); // nobody is hurt if it is not seen
        } else if self.said.is_none_or(|before| now >= before + SAY_EVERY) {
            anstream::eprintln!("{text}");
        } else {
            return;
        }
        self.said = Some(now);
    }

    /// Makes room for what comes after it.
    pub fn end(&self) {
        if self.is_drawn && self.said.is_some() {
            anstream::eprint!("\r\x1b[2K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(voters_reachable: u8, frozen: &str) -> MovesReport {
        MovesReport { voters_reachable, frozen: frozen.into(), ..MovesReport::default() }
    }

    /// One node that can change the ring is enough; else who sees most says why.
    #[test]
    fn frozen_is_when_nobody_can() {
        let (alone, two, fine) = (report(1, "1 of 5"), report(2, "2 of 5"), report(3, ""));
        assert_eq!(frozen(&[&alone, &fine]), None);
        assert_eq!(frozen(&[&alone, &two]), Some("2 of 5"));
        assert_eq!(frozen(&[]), None);
    }
}
