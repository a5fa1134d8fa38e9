//! When a certificate is good.
//!
//! A handshake looks at this once, and a connection may then live for months. So whoever keeps a connection also waits for
//! the end of the certificate that was shown in it ([`Validity::over`]).

use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use x509_parser::{prelude::FromDer as _, time::ASN1Time};

/// From when until when, in whole seconds; good in the first and in the last of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Validity {
    pub(crate) from: SystemTime,
    pub(crate) until: SystemTime,
}

impl Validity {
    /// What a certificate says; `None` if it is no certificate, or is about times before 1970.
    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = x509_parser::certificate::X509Certificate::from_der(certificate).ok()?;
        let moment = |time: ASN1Time| {
            let seconds = u64::try_from(time.timestamp()).ok()?;
            SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
        };
        Some(Validity {
            from: moment(parsed.validity().not_before)?,
            until: moment(parsed.validity().not_after)?,
        })
    }

    /// Resolves when `until` is over by the wall clock, which is what the peers judge by. The clock is asked again every
    /// so often: it may be set, and the machine may have slept.
    pub(crate) async fn over(until: SystemTime) {
        let end = until + Duration::from_secs(1); // good for the whole last second
        while let Ok(left) = end.duration_since(SystemTime::now()) {
            tokio::time::sleep(left.clamp(Duration::from_millis(1), LOOK_AGAIN)).await;
        }
    }
}

const LOOK_AGAIN: Duration = Duration::from_secs(30);
