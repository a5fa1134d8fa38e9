//! The cluster's own certificate authority.
//!
//! It lives in one directory, `ca.pem` and `ca.key`, and signs a certificate per node, client and operator. There is
//! no mode without certificates: the local testnet makes an authority in a moment, so nobody needs one.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use atoll_ring::NodeId;
use atoll_wire::Role;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
};

use crate::identity::{node_name, role_name};

/// Signs certificates.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// Why a certificate could not be made.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file cannot be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The key or certificate could not be made.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
}

impl Authority {
    /// A new authority, good for ten years, named after the cluster.
    ///
    /// # Errors
    /// [`AuthorityError::Make`] if the system gives no randomness.
    pub fn create(cluster: &str) -> Result<Self, AuthorityError> {
        let mut params = CertificateParams::new(Vec::<String>::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        // rcgen's defaults are one fixed name for everybody and a validity of two thousand years
        params.distinguished_name = named(&format!("atoll authority of {cluster}"));
        valid_for(&mut params, Duration::from_secs(10 * 365 * 86_400));
        Ok(Authority { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate()?)? })
    }

    /// Writes `ca.pem` into a directory.
    ///
    /// # Errors
    /// [`AuthorityError::Write`].
    pub fn write_certificate(&self, path: &Path) -> Result<(), AuthorityError> {
        write(path, &self.issuer.pem(), 0o644)
    }

    /// Signs a certificate for a node: it may accept and open connections, and is known as that node.
    ///
    /// # Errors
    /// See [`AuthorityError`].
    pub fn issue_node(
        &self,
        node: NodeId,
        valid: Duration,
        certificate: &Path,
        key: &Path,
    ) -> Result<(), AuthorityError> {
        let names = vec![role_name(Role::Node), node_name(node)];
        let usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(names, &format!("atoll {node}"), usages, valid, certificate, key)
    }

    /// Signs a certificate for somebody who opens connections in these roles.
    ///
    /// # Errors
    /// See [`AuthorityError`].
    pub fn issue_user(
        &self,
        roles: &[Role],
        valid: Duration,
        certificate: &Path,
        key: &Path,
    ) -> Result<(), AuthorityError> {
        let names = roles.iter().map(|role| role_name(*role)).collect();
        let usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(names, "atoll user", usages, valid, certificate, key)
    }

    fn issue(
        &self,
        names: Vec<String>,
        subject: &str,
        usages: Vec<ExtendedKeyUsagePurpose>,
        valid: Duration,
        certificate: &Path,
        key: &Path,
    ) -> Result<(), AuthorityError> {
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = named(subject);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = usages;
        valid_for(&mut params, valid);
        let pair = KeyPair::generate()?;
        let signed = params.signed_by(&pair, &self.issuer)?;
        write(certificate, &signed.pem(), 0o644)?;
        write(key, &pair.serialize_pem(), 0o600)
    }
}

fn named(name: &str) -> DistinguishedName {
    let mut full = DistinguishedName::new();
    full.push(DnType::CommonName, name);
    full
}

/// From an hour ago, so that a clock that is a little behind does not refuse it.
fn valid_for(params: &mut CertificateParams, valid: Duration) {
    let now = time::OffsetDateTime::now_utc();
    params.not_before = now - time::Duration::hours(1);
    params.not_after = now + valid;
}

/// Writes a file that never exists with wider permissions than it shall have.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), AuthorityError> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let write = || {
        let next = path.with_extension("new");
        let _ = fs::remove_file(&next);
        let mut file =
            fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&next)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&next, path)
    };
    write().map_err(|source| AuthorityError::Write { path: path.into(), source })
}
