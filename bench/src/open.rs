//! The open loop: operations are sent when the plan says so, whatever has become of the earlier ones.
//!
//! Users do not wait for each other. If the cluster stalls for a second, a thousand of them may have to wait, and a load
//! that itself waits for answers sends only a few and forgets the rest ("coordinated omission"). Here every arrival is
//! sent at its moment, and its latency counts from that moment, also if we ourselves were late.
//!
//! What is outstanding has a bound, because each operation holds memory. An arrival beyond it is not sent, now or later:
//! it is counted as skipped.

use std::{cell::RefCell, io, rc::Rc};

use rand::{SeedableRng as _, rngs::SmallRng};
use tokio::{
    task::{JoinSet, yield_now},
    time::Instant,
};

use crate::{
    OpenLoop,
    arrivals::Plan,
    operation::Chance,
    pacer::Pacer,
    worker::{Due, Load, Window, Worker},
};

/// An open loop that is ready to begin.
pub(crate) struct Open {
    load: Rc<Load>,
    settings: OpenLoop,
    pacer: Pacer,
    plan: Plan,
    /// By session; arrivals are dealt to them in turn.
    chances: Vec<Chance>,
}

impl Open {
    /// # Errors
    /// The system has no thread left to keep the time.
    pub fn new(
        load: &Rc<Load>,
        settings: OpenLoop,
        chances: Vec<Chance>,
        dice: &mut SmallRng,
    ) -> io::Result<Open> {
        let plan = Plan::new(settings.rate, settings.arrivals, SmallRng::from_rng(dice));
        Ok(Open { load: load.clone(), settings, pacer: Pacer::start()?, plan, chances })
    }

    /// Sends what arrives from `zero` on until the window closes, and waits for what is outstanding then.
    pub async fn run(self, zero: Instant, window: Rc<Window>) {
        let Open { load, settings, mut pacer, plan, mut chances } = self;
        let idle = Rc::<RefCell<Vec<Worker>>>::default();
        let mut sessions = (0..chances.len()).cycle();
        let open = window.clone();
        let arrivals = plan.map(|after| zero + after).take_while(|at| *at < open.end.get());
        let arrive = |intended: Instant, outstanding: usize| {
            let session = sessions.next().expect("there are sessions");
            let operation = chances[session].draw(&load); // also if skipped: what follows stays as the seed says
            let counts = window.counts(intended);
            let sent = outstanding < settings.outstanding_max as usize;
            if counts {
                load.measure.borrow_mut().arrived(outstanding, sent);
            }
            let (load, idle) = (load.clone(), idle.clone());
            sent.then_some(async move {
                let free = idle.borrow_mut().pop();
                let mut worker = free.unwrap_or_else(|| Worker::new(load));
                let _ = worker.perform(operation, Due::At(intended), counts).await; // it is measured
                idle.borrow_mut().push(worker);
            })
        };
        send_on_time(arrivals, async |at| pacer.until(at).await, arrive).await;
    }
}

/// Lets each arrival happen at its moment, and returns when all that was sent has ended.
///
/// `arrive` is told the moment that was intended and how many are outstanding, and says what is to be done; `None`
/// skips the arrival. If we are late, all that is due happens at once. Dropped, it drops what is outstanding. Needs a
/// `LocalSet` around it.
async fn send_on_time<Sending: Future<Output = ()> + 'static>(
    arrivals: impl Iterator<Item = Instant>,
    mut wait_until: impl AsyncFnMut(Instant),
    mut arrive: impl FnMut(Instant, usize) -> Option<Sending>,
) {
    let mut outstanding = JoinSet::new();
    let mut burst = 0;
    for intended in arrivals {
        if Instant::now() < intended {
            wait_until(intended).await;
            burst = 0;
        } else if burst == BURST_MAX {
            yield_now().await;
            burst = 0;
        }
        burst += 1;
        while let Some(ended) = outstanding.try_join_next() {
            ended.expect("operations do not panic");
        }
        if let Some(sending) = arrive(intended, outstanding.len()) {
            outstanding.spawn_local(sending);
        }
    }
    while let Some(ended) = outstanding.join_next().await {
        ended.expect("operations do not panic");
    }
}

/// Arrivals that are let in one behind the other before those in flight get a turn: we share their thread.
const BURST_MAX: u32 = 64;

#[cfg(test)]
mod tests {
    use std::{cell::Cell, time::Duration};

    use tokio::{
        task::LocalSet,
        time::{advance, sleep, sleep_until},
    };

    use super::*;
    use crate::{Arrivals, measure::Measure};

    /// What stalls from the first to the second second.
    #[derive(Clone, Copy, PartialEq)]
    enum Stalled {
        Nothing,
        /// The cluster: it takes requests and does not answer.
        Cluster,
        /// The thread in which both live: nothing is sent and nothing answered.
        Sender,
    }

    /// 1000 arrivals per second for three seconds of virtual time, each answered 2 ms after it was sent.
    fn run(stalled: Stalled, outstanding_max: usize) -> Measure {
        let measure = Rc::new(RefCell::new(Measure::new()));
        let story = async {
            let zero = Instant::now();
            let at = |ms| zero + Duration::from_millis(ms);
            let plan = Plan::new(1000, Arrivals::Uniform, SmallRng::seed_from_u64(1));
            let arrivals = plan.map(|after| zero + after).take_while(|moment| *moment < at(3000));
            let (end_of_stall, begun) = (at(2000), Rc::new(Cell::new(false)));
            let arrive = |intended: Instant, outstanding: usize| {
                let sent = outstanding < outstanding_max;
                measure.borrow_mut().arrived(outstanding, sent);
                let (measure, begun) = (measure.clone(), begun.clone());
                let during = (at(1000)..end_of_stall).contains(&intended);
                sent.then_some(async move {
                    let began = Instant::now();
                    measure.borrow_mut().sent(began - intended);
                    match stalled {
                        Stalled::Cluster if during => sleep_until(end_of_stall).await,
                        Stalled::Sender if during && !begun.replace(true) => {
                            advance(Duration::from_secs(1)).await; // the thread comes back a second later
                        }
                        Stalled::Nothing | Stalled::Cluster | Stalled::Sender => {}
                    }
                    sleep(Duration::from_millis(2)).await;
                    measure.borrow_mut().reads.succeeded(intended.elapsed(), began.elapsed());
                })
            };
            LocalSet::new().run_until(send_on_time(arrivals, sleep_until, arrive)).await;
        };
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_time().start_paused(true).build().unwrap().block_on(story);
        Rc::into_inner(measure).expect("all have ended").into_inner()
    }

    fn above(histogram: &hdrhistogram::Histogram<u64>, ms: u64) -> u64 {
        histogram.len() - histogram.count_between(0, ms * 1000)
    }

    /// The cluster stalls for a second. A thousand arrive meanwhile, and about half of them wait for more than half a
    /// second. All were sent on time, so the service time says the same. (A closed loop of 64 would have 64 slow ones.)
    #[test]
    fn a_stall_of_the_cluster_is_felt_by_all_who_arrive() {
        let calm = run(Stalled::Nothing, 10_000);
        assert_eq!((calm.reads.latency.len(), above(&calm.reads.latency, 10)), (3000, 0));
        let stalled = run(Stalled::Cluster, 10_000);
        assert_eq!(stalled.reads.latency.len(), 3000);
        for waited in [&stalled.reads.latency, &stalled.reads.service] {
            assert!((495..=505).contains(&above(waited, 500)), "{}", above(waited, 500));
        }
        assert_eq!(above(&stalled.slip, 1), 0);
    }

    /// The thread stalls in which sender and stand-in live. What arrived meanwhile is sent late and answered at once:
    /// the service time knows of the few that were in flight, the latency from the intended start of a thousand. And the slip
    /// says whose fault it was.
    #[test]
    fn latency_counts_from_the_intended_start() {
        let stalled = run(Stalled::Sender, 10_000);
        assert_eq!(stalled.reads.latency.len(), 3000);
        let slow = above(&stalled.reads.latency, 500);
        assert!((495..=505).contains(&slow), "{slow}");
        let in_flight = above(&stalled.reads.service, 500);
        assert!((1..=3).contains(&in_flight), "{in_flight}");
        let late = above(&stalled.slip, 500);
        assert!((495..=505).contains(&late), "{late}");
    }

    /// At the bound arrivals are skipped and counted, those that were sent are measured, and afterwards all goes on.
    #[test]
    fn beyond_the_bound_arrivals_are_skipped_and_counted() {
        let bounded = run(Stalled::Cluster, 100);
        assert_eq!((bounded.arrivals, bounded.outstanding_max), (3000, 100));
        assert!((895..=905).contains(&bounded.skipped), "{}", bounded.skipped);
        assert_eq!(bounded.reads.latency.len() + bounded.skipped, bounded.arrivals);
        assert_eq!(run(Stalled::Cluster, 10_000).skipped, 0);
    }
}
