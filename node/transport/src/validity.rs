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

/// Until when a certificate is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Validity {
    /// The last moment, in whole seconds; good in that second too.
    pub(crate) until: SystemTime,
}

impl Validity {
    /// What a certificate says; `None` if it is no certificate.
    ///
    /// Nothing here parses X.509. We ask webpki whether the certificate is good at the end of time, and its refusal names
    /// the end. Validity is the first thing that it looks at, so this costs no signature and needs no authority.
    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let parsed = ParsedCertificate::try_from(certificate).ok()?;
        let never = UnixTime::since_unix_epoch(Duration::from_secs(u64::MAX));
        let nobody = RootCertStore::empty();
        match verify_server_cert_signed_by_trust_anchor(&parsed, &nobody, &[], never, &[]) {
            Err(Error::InvalidCertificate(CertificateError::ExpiredContext {
                not_after, ..
            })) => {
                let last = Duration::from_secs(not_after.as_secs());
                Some(Validity { until: SystemTime::UNIX_EPOCH.checked_add(last)? })
            }
            Ok(()) | Err(_) => None,
        }
    }

    /// Resolves when `until` is over by the wall clock, which is asked again every so often: it may be set.
    pub(crate) async fn over(until: SystemTime) {
        let end = until + Duration::from_secs(1); // good for the whole last second
        while let Ok(left) = end.duration_since(SystemTime::now()) {
            tokio::time::sleep(left.clamp(Duration::from_millis(1), LOOK_AGAIN)).await;
        }
    }
}

const LOOK_AGAIN: Duration = Duration::from_secs(30);

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
            let until = Validity::of(&read).unwrap().until;
            let last = until.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
            assert!((before..=after).contains(&last), "{before} {last} {after}");
        }
        assert_eq!(Validity::of(&CertificateDer::from(vec![0; 50])), None);
    }
}
