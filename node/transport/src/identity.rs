//! Who we are: a certificate of the cluster's authority and its key.
//!
//! A certificate says its roles in names: `node.atoll`, `client.atoll`, `operator.atoll`, and for a node also
//! `n3.node.atoll`. Names are what webpki checks anyway, so nothing here parses X.509.

use std::{
    fs,
    path::{Path, PathBuf},
};

use atoll_ring::NodeId;
use atoll_wire::{Role, Roles};
use rustls::{
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    server::ParsedCertificate,
};

use crate::small_file::{self, SETTINGS_BYTES_MAX};

/// A certificate, its key, and the authority it is checked against.
pub struct Identity {
    pub(crate) authority: CertificateDer<'static>,
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) key: PrivateKeyDer<'static>,
    roles: Roles,
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
}

impl Identity {
    /// Loads an identity from PEM files. The key must be readable by its owner only.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub fn load(authority: &Path, certificate: &Path, key: &Path) -> Result<Self, IdentityError> {
        check_private(key)?;
        let certificate_der = certificate_in(certificate)?;
        let roles = roles_of(&certificate_der).ok_or_else(|| IdentityError::Unusable {
            path: certificate.into(),
            what: "certificate",
            reason: "not X.509".into(),
        })?;
        Ok(Identity {
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
        })
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

fn read(path: &Path) -> Result<Vec<u8>, IdentityError> {
    small_file::read(path, SETTINGS_BYTES_MAX)
        .map_err(|source| IdentityError::Read { path: path.into(), source })
}

fn certificate_in(path: &Path) -> Result<CertificateDer<'static>, IdentityError> {
    CertificateDer::from_pem_slice(&read(path)?).map_err(|reason| IdentityError::Unusable {
        path: path.into(),
        what: "certificate",
        reason: reason.to_string(),
    })
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
