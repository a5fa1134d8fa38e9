//! Who we are: a certificate of the cluster's authority and its key.
//!
//! A certificate says its roles in names: `node.atoll`, `client.atoll`, `operator.atoll`, and for a node also
//! `n3.node.atoll`. Names are what webpki checks anyway, so nothing here parses X.509.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use atoll_ring::NodeId;
use atoll_wire::{Role, Roles};
use rustls::{
    CertificateError,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    server::{ParsedCertificate, WebPkiClientVerifier},
    sign::CertifiedKey,
};

use crate::{
    small_file::{self, SETTINGS_BYTES_MAX},
    validity::Validity,
};

/// A certificate, its key, and the authority it is checked against.
pub struct Identity {
    pub(crate) authority: CertificateDer<'static>,
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) key: PrivateKeyDer<'static>,
    roles: Roles,
    validity: Validity,
    files: IdentityFiles,
}

/// Where an identity lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityFiles {
    /// The authority's certificate.
    pub authority: PathBuf,
    /// Our certificate.
    pub certificate: PathBuf,
    /// Our key.
    pub key: PathBuf,
}

/// Why an identity cannot be used. Each says the path and the mend.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("{path} holds no usable {what}: {reason}")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What was expected.
        what: &'static str,
        /// Why not.
        reason: String,
    },
    /// Others may read a secret.
    #[error("{path} is readable by others (mode {mode:03o}); run: chmod 600 {path}")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The certificate does not carry the role it is used in.
    #[error("{path} is no certificate for {role}")]
    Role {
        /// The file.
        path: PathBuf,
        /// The role that is missing.
        role: String,
    },
    /// Signed by somebody else than the authority beside it.
    #[error("{certificate} was not signed by {authority}: {reason}")]
    OtherAuthority {
        /// The certificate.
        certificate: PathBuf,
        /// The authority.
        authority: PathBuf,
        /// In the words of who checks signatures.
        reason: String,
    },
    /// The key belongs to another certificate.
    #[error("{key} is not the key of {certificate}; take both from the same folder")]
    OtherKey {
        /// The certificate.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
    },
    /// Its time is over.
    #[error("{path} has expired; renew it: atoll cluster renew")]
    Expired {
        /// The certificate.
        path: PathBuf,
    },
    /// Its time has not come.
    #[error("{path} is not valid yet; is the clock of this machine right?")]
    TooEarly {
        /// The certificate.
        path: PathBuf,
    },
}

impl Identity {
    /// Loads an identity from PEM files. The key must be readable by its owner only.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub fn load(authority: &Path, certificate: &Path, key: &Path) -> Result<Self, IdentityError> {
        check_private(key)?;
        let certificate_der = certificate_in(certificate)?;
        let no_certificate = || IdentityError::Unusable {
            path: certificate.into(),
            what: "certificate",
            reason: "not X.509".into(),
        };
        let roles = roles_of(&certificate_der).ok_or_else(no_certificate)?;
        let validity = Validity::of(&certificate_der).ok_or_else(no_certificate)?;
        Ok(Identity {
            files: IdentityFiles {
                authority: authority.into(),
                certificate: certificate.into(),
                key: key.into(),
            },
            authority: certificate_in(authority)?,
            key: PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|reason| {
                IdentityError::Unusable {
                    path: key.into(),
                    what: "private key",
                    reason: reason.to_string(),
                }
            })?,
            certificate: certificate_der,
            roles,
            validity,
        })
    }

    /// Where it was loaded from.
    pub fn files(&self) -> &IdentityFiles {
        &self.files
    }

    /// Certificate and key in a few bytes: equal for equal pairs.
    pub(crate) fn fingerprint(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        for part in [self.certificate.as_ref(), self.key.secret_der()] {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
        }
        hasher.finalize()
    }

    /// The last second in which others accept it.
    pub fn expires(&self) -> SystemTime {
        self.validity.until
    }

    /// Whether others would accept it at this time: signed by its authority, neither too early nor too late, and with
    /// the key that belongs to it. [`Identity::load`] does not ask that: a node with an expired certificate may start
    /// and be renewed while it runs.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub fn check(&self, now: SystemTime) -> Result<(), IdentityError> {
        let IdentityFiles { authority, certificate, key } = &self.files;
        let signed = signed_by(&self.certificate, &self.authority, self.validity);
        let opens_connections = signed.map_err(|reason| IdentityError::OtherAuthority {
            certificate: certificate.clone(),
            authority: authority.clone(),
            reason,
        })?;
        if !opens_connections {
            let path = certificate.clone();
            return Err(IdentityError::Role { path, role: "opening connections".into() });
        }
        let pair = CertifiedKey::from_der(
            vec![self.certificate.clone()],
            self.key.clone_key(),
            &rustls::crypto::ring::default_provider(),
        );
        if pair.is_err() {
            let (certificate, key) = (certificate.clone(), key.clone());
            return Err(IdentityError::OtherKey { certificate, key });
        }
        if now < self.validity.from {
            return Err(IdentityError::TooEarly { path: certificate.clone() });
        }
        if now >= self.validity.until + std::time::Duration::from_secs(1) {
            return Err(IdentityError::Expired { path: certificate.clone() });
        }
        Ok(())
    }

    /// The roles in the certificate.
    pub fn roles(&self) -> Roles {
        self.roles
    }

    /// Whether the certificate is this node's.
    pub fn names(&self, node: NodeId) -> bool {
        names(&self.certificate, node)
    }
}

/// Refuses a secret that others may read.
///
/// # Errors
/// [`IdentityError::Exposed`], or [`IdentityError::Read`] if the file is not there.
pub fn check_private(path: &Path) -> Result<(), IdentityError> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = fs::metadata(path)
        .map_err(|source| IdentityError::Read { path: path.into(), source })?
        .permissions()
        .mode()
        & 0o777;
    if mode & 0o077 != 0 {
        return Err(IdentityError::Exposed { path: path.into(), mode });
    }
    Ok(())
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>, IdentityError> {
    small_file::read(path, SETTINGS_BYTES_MAX)
        .map_err(|source| IdentityError::Read { path: path.into(), source })
}

pub(crate) fn certificate_in(path: &Path) -> Result<CertificateDer<'static>, IdentityError> {
    CertificateDer::from_pem_slice(&read(path)?).map_err(|reason| IdentityError::Unusable {
        path: path.into(),
        what: "certificate",
        reason: reason.to_string(),
    })
}

/// Whether an authority has signed a certificate that opens connections, whatever its time: `Ok(false)` if it is for
/// something else only, an error in the verifier's words if somebody else signed it.
pub(crate) fn signed_by(
    certificate: &CertificateDer<'_>,
    authority: &CertificateDer<'static>,
    validity: Validity,
) -> Result<bool, String> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.clone()).map_err(|error| error.to_string())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|error| error.to_string())?;
    let since_1970 = validity.until.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let then = UnixTime::since_unix_epoch(since_1970);
    match verifier.verify_client_cert(certificate, &[], then) {
        Ok(_) => Ok(true),
        Err(rustls::Error::InvalidCertificate(
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. },
        )) => Ok(false),
        Err(error) => Err(error.to_string()),
    }
}

/// The roles in a certificate; `None` if it is no certificate.
pub(crate) fn roles_of(certificate: &CertificateDer<'_>) -> Option<Roles> {
    ParsedCertificate::try_from(certificate).ok()?;
    let held: Vec<Role> =
        Role::ALL.into_iter().filter(|role| holds(certificate, &role_name(*role))).collect();
    Some(Roles::of(&held))
}

/// Whether a certificate is that of this node.
pub(crate) fn names(certificate: &CertificateDer<'_>, node: NodeId) -> bool {
    holds(certificate, &node_name(node))
}

fn holds(certificate: &CertificateDer<'_>, name: &str) -> bool {
    let Ok(parsed) = ParsedCertificate::try_from(certificate) else { return false };
    let Ok(name) = ServerName::try_from(name) else { return false };
    rustls::client::verify_server_name(&parsed, &name).is_ok()
}

/// The name that stands for a role.
pub(crate) fn role_name(role: Role) -> String {
    format!("{role}.atoll")
}

/// The name that stands for one node.
pub(crate) fn node_name(node: NodeId) -> String {
    format!("n{}.node.atoll", node.0)
}
