//! The cluster's own certificate authority, and what it issues.

use std::{net::IpAddr, sync::Arc};

use base64::{Engine, prelude::BASE64_STANDARD};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType,
};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};

/// A certificate could not be made or read.
#[derive(Debug, thiserror::Error)]
#[error("{context}: {source}")]
pub struct TlsError {
    context: &'static str,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl TlsError {
    pub(super) fn new(context: &'static str) -> impl FnOnce(rcgen::Error) -> Self {
        move |error| Self { context, source: error.into() }
    }

    pub(super) fn refusal(context: &'static str, message: String) -> Self {
        Self { context, source: message.into() }
    }
}

/// Signs the certificates of servers and clients of one cluster.
#[derive(Debug)]
pub struct CertificateAuthority {
    certificate_pem: String,
    key_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate with its key, in PEM.
#[derive(Clone)]
pub struct Issued {
    /// The certificate.
    pub certificate_pem: String,
    /// The private key.
    pub key_pem: String,
}

impl std::fmt::Debug for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issued").field("certificate_pem", &self.certificate_pem).finish_non_exhaustive()
    }
}

impl CertificateAuthority {
    /// A new authority.
    pub fn generate() -> Result<Self, TlsError> {
        let key = KeyPair::generate().map_err(TlsError::new("making the authority's key"))?;
        let mut params = CertificateParams::default();
        params.distinguished_name = name("kubernetes", &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        let certificate = params.self_signed(&key).map_err(TlsError::new("signing the authority's certificate"))?;
        let (certificate_pem, key_pem) = (certificate.pem(), key.serialize_pem());
        Ok(Self { certificate_pem, key_pem, issuer: Issuer::new(params, key) })
    }

    /// The authority of this certificate and key, in PEM, so that what it issued outlives a restart and is good for all
    /// servers that have it.
    ///
    /// # Errors
    /// They cannot be read, do not belong together, or the certificate is no authority's.
    pub fn from_pem(certificate_pem: &str, key_pem: &str) -> Result<Self, TlsError> {
        let context = "reading the authority";
        let key = KeyPair::from_pem(key_pem).map_err(TlsError::new(context))?;
        let der = certificate(certificate_pem)?;
        let (_, parsed) =
            x509_parser::parse_x509_certificate(&der).map_err(|error| TlsError { context, source: error.into() })?;
        if !parsed.is_ca() {
            return Err(TlsError::refusal(context, "the certificate is no authority's".to_owned()));
        }
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err(TlsError::refusal(context, "the key is not the certificate's".to_owned()));
        }
        let issuer = Issuer::from_ca_cert_pem(certificate_pem, key).map_err(TlsError::new(context))?;
        Ok(Self { certificate_pem: certificate_pem.to_owned(), key_pem: key_pem.to_owned(), issuer })
    }

    /// The authority's certificate, for clients.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The authority's key, to be kept secret.
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    pub(super) fn issuer(&self) -> &Issuer<'static, KeyPair> {
        &self.issuer
    }

    /// A certificate for a server under these names and addresses.
    pub fn issue_server(&self, names: &[&str], addresses: &[IpAddr]) -> Result<Issued, TlsError> {
        let context = "making the server's certificate";
        let mut params = CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>())
            .map_err(TlsError::new(context))?;
        params.subject_alt_names.extend(addresses.iter().copied().map(SanType::IpAddress));
        params.distinguished_name = name("kube-apiserver", &[]);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue(params, context)
    }

    /// A certificate for a user in some groups.
    pub fn issue_client(&self, user: &str, groups: &[&str]) -> Result<Issued, TlsError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = name(user, groups);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(params, "making the client's certificate")
    }

    fn issue(&self, params: CertificateParams, context: &'static str) -> Result<Issued, TlsError> {
        let key = KeyPair::generate().map_err(TlsError::new(context))?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(TlsError::new(context))?;
        Ok(Issued { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }

    /// A configuration for `kubectl` and all other clients of Kubernetes.
    pub fn kubeconfig(&self, server: &str, user: &Issued) -> String {
        let encode = |text: &str| BASE64_STANDARD.encode(text);
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: orchestrator\npreferences: {{}}\nclusters:\n- name: \
             orchestrator\n  cluster:\n    server: {server}\n    certificate-authority-data: {}\nusers:\n- name: \
             admin\n  user:\n    client-certificate-data: {}\n    client-key-data: {}\ncontexts:\n- name: \
             orchestrator\n  context:\n    cluster: orchestrator\n    user: admin\n",
            encode(&self.certificate_pem),
            encode(&user.certificate_pem),
            encode(&user.key_pem),
        )
    }

    /// How a server speaks TLS: with this certificate, asking clients for theirs but letting them come without.
    pub(super) fn server_config(&self, server: &Issued) -> Result<ServerConfig, TlsError> {
        let fail = |context| move |error: rustls::Error| TlsError { context, source: error.into() };
        let provider = Arc::new(ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(certificate(&self.certificate_pem)?).map_err(fail("trusting the authority"))?;
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .allow_unauthenticated()
            .build()
            .map_err(|error| TlsError { context: "checking clients", source: error.into() })?;
        let key = PrivatePkcs8KeyDer::from_pem_slice(server.key_pem.as_bytes())
            .map_err(|error| TlsError { context: "reading the server's key", source: error.into() })?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(fail("choosing protocol versions"))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![certificate(&server.certificate_pem)?], PrivateKeyDer::Pkcs8(key))
            .map_err(fail("using the server's certificate"))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}

fn certificate(pem: &str) -> Result<CertificateDer<'static>, TlsError> {
    CertificateDer::from_pem_slice(pem.as_bytes())
        .map_err(|error| TlsError { context: "reading a certificate", source: error.into() })
}

fn name(common: &str, organizations: &[&str]) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    // rcgen keeps one value for each type, and a client's certificate needs one group at most.
    if let Some(organization) = organizations.first() {
        name.push(DnType::OrganizationName, *organization);
    }
    name.push(DnType::CommonName, common);
    name
}

/// User and groups that a verified certificate names.
pub(super) fn subject(certificate: &CertificateDer<'_>) -> Option<(String, Vec<String>)> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let subject = parsed.subject();
    let common = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    let organizations = subject.iter_organization().filter_map(|name| name.as_str().ok()).map(str::to_owned).collect();
    Some((common, organizations))
}
