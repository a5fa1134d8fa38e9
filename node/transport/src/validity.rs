//! How long a certificate is good.
//!
//! TLS looks at a certificate once, in the handshake. A connection may live for months, so whoever holds it looks again
//! when the certificate ends: both sides close a connection whose other end can no longer prove who it is.

use std::time::{Duration, SystemTime};

use rustls::{
    CertificateError, Error, RootCertStore,
    client::verify_server_cert_signed_by_trust_anchor,
    pki_types::{CertificateDer, UnixTime},
    server::ParsedCertificate,
};

/// A wait is cut into pieces of at most this length, so that a wall clock that was set is noticed.
const LOOK_AGAIN: Duration = Duration::from_secs(600);

/// The last moment a certificate is good, in seconds since 1970; `None` if it is no certificate.
///
/// Nothing here parses X.509. We ask webpki whether the certificate is good at the end of time, and its refusal names
/// the end. Validity is the first thing that it looks at, so this costs no signature and needs no authority.
pub(crate) fn last_second(certificate: &CertificateDer<'_>) -> Option<u64> {
    let parsed = ParsedCertificate::try_from(certificate).ok()?;
    let never = UnixTime::since_unix_epoch(Duration::from_secs(u64::MAX));
    let nobody = RootCertStore::empty();
    match verify_server_cert_signed_by_trust_anchor(&parsed, &nobody, &[], never, &[]) {
        Err(Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => {
            Some(not_after.as_secs())
        }
        Ok(()) | Err(_) => None,
    }
}

/// Waits until the last second of a certificate is over by the wall clock. One that has no end is not believed.
pub(crate) async fn over(certificate: &CertificateDer<'_>) {
    let Some(last) = last_second(certificate) else { return };
    loop {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let left = Duration::from_secs(last.saturating_add(1)).saturating_sub(now);
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(LOOK_AGAIN)).await;
    }
}

#[cfg(test)]
mod tests {
    use atoll_ring::NodeId;
    use rustls::pki_types::pem::PemObject as _;

    use super::*;
    use crate::Authority;

    /// The end is what the authority wrote, to the second, for a node and for one that is over already.
    #[test]
    fn the_end_is_what_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = (folder.path().join("n.pem"), folder.path().join("n.key"));
        let authority = Authority::create("test").unwrap();
        for valid in [0, 3, 86_400, 100 * 365 * 86_400].map(Duration::from_secs) {
            let seconds = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
            let before = (seconds() + valid).as_secs();
            authority.issue_node(NodeId(1), valid, &certificate, &key).unwrap();
            let after = (seconds() + valid).as_secs();
            let read = CertificateDer::from_pem_file(&certificate).unwrap();
            let last = last_second(&read).unwrap();
            assert!((before..=after).contains(&last), "{before} {last} {after}");
        }
        assert_eq!(last_second(&CertificateDer::from(vec![0; 50])), None);
    }
}
