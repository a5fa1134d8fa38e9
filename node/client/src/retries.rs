//! How often a client may ask again.
//!
//! A request that may have been received is repeated at another node only if that is safe: a read, or a write that was
//! certainly not applied. Even then not always. A cluster that answers slowly because it has too much to do must not be
//! given more, so repetitions are paid from a purse into which each request puts a tenth ("retry budget" in Finagle and in
//! Google's SRE book, chapter 21). All attempts carry the same operation id.

use std::sync::Mutex;

use atoll_wire::Effect;

use crate::RequestError;

/// Requests that pay for one repetition: 10 %.
const REQUESTS_PER_RETRY: u32 = 10;

/// Repetitions that a new client begins with, so that its first request may be repeated too.
const SAVED_FIRST: u32 = 10;

/// Most repetitions saved up. When a node dies, all reads that it coordinates for this client have to be repeated at once:
/// a third of what is in flight, with three nodes. A cluster that is merely slow gets so much more only once.
const SAVED_MAX: u32 = 100;

/// The purse, counted in requests.
pub(crate) struct Retries(Mutex<u32>);

impl Default for Retries {
    fn default() -> Self {
        Retries(Mutex::new(SAVED_FIRST * REQUESTS_PER_RETRY))
    }
}

impl Retries {
    /// A request begins and pays its tenth.
    pub(crate) fn begin(&self) {
        let mut purse = self.0.lock().expect("no panic holds it");
        *purse = (*purse + 1).min(SAVED_MAX * REQUESTS_PER_RETRY);
    }

    /// Whether a repetition could be paid.
    pub(crate) fn any(&self) -> bool {
        *self.0.lock().expect("no panic holds it") >= REQUESTS_PER_RETRY
    }

    /// Pays for a repetition, if there is enough.
    pub(crate) fn take(&self) -> bool {
        let mut purse = self.0.lock().expect("no panic holds it");
        let Some(left) = purse.checked_sub(REQUESTS_PER_RETRY) else { return false };
        *purse = left;
        true
    }
}

/// What came of a request that was asked once more because its first answer had left it open. A refusal of the second says
/// nothing of the first, which may be carried out.
pub(crate) fn of_both<T>(
    first: Result<T, RequestError>,
    again: Result<T, RequestError>,
) -> Result<T, RequestError> {
    match again {
        Err(error) if error.effect() == Effect::NotApplied => first,
        again => again,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An increment was sent and nobody answered; then nobody could be reached. It may have been counted, and who is told "not
    /// applied" would count it again. What the second one leaves behind, or does, is the outcome.
    #[test]
    fn a_refused_repetition_does_not_undo_the_first() {
        let node = || "n1".to_owned();
        let silent = || Err(RequestError::TimedOut { node: node(), ms: 400 });
        let refused = Err(RequestError::Unreachable { tried: Vec::new() });
        let error =
            of_both::<()>(silent(), refused).expect_err("neither was carried out for certain");
        assert_eq!(error.effect(), Effect::Unknown);
        assert!(of_both(silent(), Ok(())).is_ok());
        let lost = Err(RequestError::Lost { node: node(), reason: "closed".into() });
        let error = of_both::<()>(silent(), lost).expect_err("nobody answered");
        assert!(matches!(error, RequestError::Lost { .. }));
    }

    /// However many want to: ten at first, then one for ten requests; a calm saves up a hundred and no more.
    #[test]
    fn repetitions_are_at_most_a_tenth() {
        let retries = Retries::default();
        let mut taken = 0;
        for requests in 1..=10_000_u32 {
            retries.begin();
            while retries.take() {
                taken += 1;
            }
            assert!(taken <= SAVED_FIRST + requests / 10);
        }
        assert_eq!(taken, SAVED_FIRST + 1000);
        assert!(!retries.any());
        for _ in 0..10_000 {
            retries.begin();
        }
        assert!(retries.any());
        assert_eq!((0..1000).filter(|_| retries.take()).count(), 100);
    }
}
