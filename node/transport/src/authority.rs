//! The cluster's own certificate authority.
//!
//! It signs a certificate per node, client and operator, and signs them again when their time is nearly over. There is no
//! mode without certificates: the local testnet makes an authority in a moment, so nobody needs one.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use atoll_ring::NodeId;
use atoll_wire::Role;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SubjectPublicKeyInfo,
};
use rustls::{
    pki_types::{CertificateDer, pem::PemObject as _},
    server::ParsedCertificate,
};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer as _};

use crate::{
    IdentityError,
    identity::{certificate_in, check_private, node_name, read, role_name, signed_by},
    validity::Validity,
};

/// Signs certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    /// As it was made or found, for whoever wants a copy.
    pem: String,
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
    /// A file that is needed cannot be used.
    #[error(transparent)]
    File(#[from] IdentityError),
    /// A certificate that shall be renewed is another authority's.
    #[error("{} was not signed by this cluster's authority: {reason}", path.display())]
    Foreign {
        /// The certificate.
        path: PathBuf,
        /// In the words of who checks signatures.
        reason: String,
    },
    /// The certificate would be good for longer than its authority.
    #[error("the authority itself expires before that, in {days_left} days; ask for fewer days")]
    Outlives {
        /// Whole days that the authority has left.
        days_left: u64,
    },
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
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        Ok(Authority {
            pem: certificate.pem(),
            certificate: certificate.der().clone(),
            issuer: Issuer::new(params, key),
        })
    }

    /// The authority whose certificate and key lie here. The key must be readable by its owner only.
    ///
    /// # Errors
    /// [`AuthorityError::File`]: the files are missing, exposed, damaged, or do not belong together.
    pub fn open(certificate: &Path, key: &Path) -> Result<Self, AuthorityError> {
        check_private(key)?;
        let unusable = |path: &Path, what: &'static str, reason: String| IdentityError::Unusable {
            path: path.into(),
            what,
            reason,
        };
        let pair = String::from_utf8_lossy(&read(key)?).into_owned();
        let pair = KeyPair::from_pem(&pair)
            .map_err(|error| unusable(key, "private key", error.to_string()))?;
        let pem = String::from_utf8_lossy(&read(certificate)?).into_owned();
        let der = CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|error| unusable(certificate, "certificate", error.to_string()))?;
        let ours = ParsedCertificate::try_from(&der)
            .map_err(|error| unusable(certificate, "certificate", error.to_string()))?
            .subject_public_key_info()
            .to_vec();
        if ours != pair.subject_public_key_info() {
            let (certificate, key) = (certificate.into(), key.into());
            return Err(IdentityError::OtherKey { certificate, key }.into());
        }
        let issuer = Issuer::from_ca_cert_der(&der, pair)
            .map_err(|error| unusable(certificate, "authority", error.to_string()))?;
        Ok(Authority { issuer, certificate: der, pem })
    }

    /// Writes its certificate, which everybody may read.
    ///
    /// # Errors
    /// [`AuthorityError::Write`].
    pub fn write_certificate(&self, path: &Path) -> Result<(), AuthorityError> {
        write(path, &self.pem, 0o644)
    }

    /// Writes its key, readable by its owner only. Whoever has it can make nodes and operators of the cluster.
    ///
    /// # Errors
    /// [`AuthorityError::Write`].
    pub fn write_key(&self, path: &Path) -> Result<(), AuthorityError> {
        write(path, &self.issuer.key().serialize_pem(), 0o600)
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
        self.issue_user_named("user", roles, valid, certificate, key)
    }

    /// The same for one of several users: people can read the name in the certificate, and nothing depends on it.
    ///
    /// # Errors
    /// See [`AuthorityError`].
    pub fn issue_user_named(
        &self,
        name: &str,
        roles: &[Role],
        valid: Duration,
        certificate: &Path,
        key: &Path,
    ) -> Result<(), AuthorityError> {
        let names = roles.iter().map(|role| role_name(*role)).collect();
        let usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(names, &format!("atoll {name}"), usages, valid, certificate, key)
    }

    /// Signs a certificate again: the same names and purposes, valid from now on, in its place. Gives its new end.
    ///
    /// The key stays unless `new_key` names a file for another one. Keeping it has three advantages: the key need not be
    /// here, one file is replaced and so there is no moment in which certificate and key do not fit, and a node that is
    /// restarted later can still end the connections of its former life, because its reset key comes from its key. A new
    /// key is for one that others may have seen.
    ///
    /// # Errors
    /// See [`AuthorityError`]; the certificate must be one of this authority.
    pub fn renew(
        &self,
        certificate: &Path,
        new_key: Option<&Path>,
        valid: Duration,
    ) -> Result<SystemTime, AuthorityError> {
        let former = certificate_in(certificate)?;
        let unusable = |reason: String| {
            AuthorityError::File(IdentityError::Unusable {
                path: certificate.into(),
                what: "certificate",
                reason,
            })
        };
        let (_, parsed) =
            X509Certificate::from_der(&former).map_err(|error| unusable(error.to_string()))?;
        let validity = Validity::of(&former).ok_or_else(|| unusable("no dates".into()))?;
        signed_by(&former, &self.certificate, validity)
            .map_err(|reason| AuthorityError::Foreign { path: certificate.into(), reason })?;
        let mut params = CertificateParams::new(names_in(&parsed))?;
        let subject = parsed.subject().iter_common_name().next();
        params.distinguished_name =
            named(subject.and_then(|name| name.as_str().ok()).unwrap_or(""));
        params.extended_key_usages = usages_in(&parsed);
        let (signed, expires) = match new_key {
            None => {
                let public = SubjectPublicKeyInfo::from_der(parsed.public_key().raw)?;
                self.sign(params, &public, valid)?
            }
            Some(path) => {
                let pair = KeyPair::generate()?;
                let signed = self.sign(params, &pair, valid)?;
                // the key first: whoever sees the new certificate finds the key that belongs to it
                write(path, &pair.serialize_pem(), 0o600)?;
                signed
            }
        };
        write(certificate, &signed, 0o644)?;
        Ok(expires)
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
        params.extended_key_usages = usages;
        let pair = KeyPair::generate()?;
        let (signed, _) = self.sign(params, &pair, valid)?;
        write(key, &pair.serialize_pem(), 0o600)?;
        write(certificate, &signed, 0o644)
    }

    fn sign(
        &self,
        mut params: CertificateParams,
        public: &impl PublicKeyData,
        valid: Duration,
    ) -> Result<(String, SystemTime), AuthorityError> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        valid_for(&mut params, valid);
        let expires = SystemTime::from(params.not_after);
        if let Some(ours) = Validity::of(&self.certificate)
            && expires > ours.until
        {
            let left = ours.until.duration_since(SystemTime::now()).unwrap_or_default();
            return Err(AuthorityError::Outlives { days_left: left.as_secs() / 86_400 });
        }
        Ok((params.signed_by(public, &self.issuer)?.pem(), expires))
    }
}

fn names_in(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return Vec::new() };
    let dns = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None, // we issue no others
    };
    names.value.general_names.iter().filter_map(dns).collect()
}

fn usages_in(certificate: &X509Certificate<'_>) -> Vec<ExtendedKeyUsagePurpose> {
    let Ok(Some(usages)) = certificate.extended_key_usage() else { return Vec::new() };
    let held = [
        (usages.value.server_auth, ExtendedKeyUsagePurpose::ServerAuth),
        (usages.value.client_auth, ExtendedKeyUsagePurpose::ClientAuth),
    ];
    held.into_iter().filter(|(held, _)| *held).map(|(_, usage)| usage).collect()
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
