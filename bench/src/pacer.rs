//! Waking up on time.
//!
//! The timers of the runtime count whole milliseconds, and an open loop of 20,000/s plans an arrival every 50 µs. So a
//! thread of its own does the waiting, to some 60 µs (the kernel's timer slack), and costs nothing between two wakes.
//! Spinning would be closer still, but would take a core away from the cluster that is measured.

use std::{
    io,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
};

use tokio::{sync::Notify, time::Instant};

/// A thread that wakes us. Ends when this is dropped.
pub(crate) struct Pacer {
    wanted: Option<mpsc::Sender<std::time::Instant>>,
    woken: Arc<Notify>,
    thread: Option<JoinHandle<()>>,
}

impl Pacer {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn start() -> io::Result<Pacer> {
        let (wanted, wishes) = mpsc::channel();
        let woken = Arc::new(Notify::new());
        let waker = woken.clone();
        let thread =
            thread::Builder::new().name("pacer".into()).spawn(move || wake(&wishes, &waker))?;
        Ok(Pacer { wanted: Some(wanted), woken, thread: Some(thread) })
    }

    /// Returns at that moment, or as soon after it as the machine allows; at once if it is over.
    pub async fn until(&mut self, at: Instant) {
        if at <= Instant::now() {
            return;
        }
        let wanted = self.wanted.as_ref().expect("only dropping takes it");
        wanted.send(at.into_std()).expect("the thread lives as long as we do");
        while Instant::now() < at {
            self.woken.notified().await; // an earlier wait may have been given up, and its waking left over
        }
    }
}

/// Wakes whenever the last wish has come true, until nobody can wish any more.
fn wake(wishes: &mpsc::Receiver<std::time::Instant>, waker: &Notify) {
    while let Ok(mut at) = wishes.recv() {
        loop {
            match wishes.recv_timeout(at.saturating_duration_since(std::time::Instant::now())) {
                Ok(other) => at = other,
                Err(mpsc::RecvTimeoutError::Timeout) => break waker.notify_one(),
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            }
        }
    }
}

impl Drop for Pacer {
    fn drop(&mut self) {
        self.wanted = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // it waits for wishes, so it ends at once
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Never too early, whatever came before: the past, a wait that was given up, a wait that ran out.
    #[tokio::test]
    async fn nobody_is_woken_too_early() {
        let mut pacer = Pacer::start().unwrap();
        let zero = Instant::now();
        for micros in [0, 300, 200, 2500, 2600] {
            let at = zero + Duration::from_micros(micros);
            pacer.until(at).await;
            assert!(Instant::now() >= at);
        }
        let far = zero + Duration::from_secs(3600);
        tokio::select! { biased;
            () = pacer.until(far) => panic!("an hour is not over"),
            () = tokio::task::yield_now() => {}
        }
        let at = Instant::now() + Duration::from_millis(2);
        pacer.until(at).await;
        assert!(Instant::now() >= at);
    }

    /// Dropped in the midst of a long wait, the thread ends; a test that hangs here has found that it does not.
    #[tokio::test]
    async fn dropping_ends_the_thread() {
        let mut pacer = Pacer::start().unwrap();
        tokio::select! { biased;
            () = pacer.until(Instant::now() + Duration::from_secs(3600)) => panic!("an hour is not over"),
            () = tokio::task::yield_now() => {}
        }
        drop(pacer);
    }
}
