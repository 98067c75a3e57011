//! How clients outside of the process come in: certificates and a kubeconfig.

use std::{
    fs,
    io::{self, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use orchestrator_apiserver::http::{CertificateAuthority, Issued, TlsError};
use orchestrator_controllers::{CertificateSigner, SigningError, SigningRequest};

/// Names that the server's certificate is good for.
const SERVER_NAMES: [&str; 5] =
    ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"];

/// The cluster's authority and what it issued.
#[derive(Debug)]
pub(super) struct Access {
    authority: Arc<CertificateAuthority>,
    kubeconfig: Option<String>,
    path: Option<PathBuf>,
}

impl Access {
    pub(super) fn new(authority: &Arc<CertificateAuthority>) -> Self {
        Self { authority: authority.clone(), kubeconfig: None, path: None }
    }

    pub(super) fn authority(&self) -> &CertificateAuthority {
        &self.authority
    }

    /// Signs what clients of the cluster ask for.
    pub(super) fn signer(&self) -> Arc<dyn CertificateSigner> {
        Arc::new(Signer(self.authority.clone()))
    }

    /// The certificate of a server that listens on this address.
    pub(super) fn server_certificate(&self, listen: SocketAddr, service: Ipv4Addr) -> Result<Issued, TlsError> {
        let addresses =
            [listen.ip(), IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST), IpAddr::V4(service)];
        self.authority.issue_server(&SERVER_NAMES, &addresses)
    }

    /// Makes the administrator's configuration for a server at this address.
    pub(super) fn admit_administrator(&mut self, address: SocketAddr) -> Result<(), TlsError> {
        let user = super::administrator();
        let groups: Vec<&str> = user.groups.iter().map(String::as_str).collect();
        let issued = self.authority.issue_client(&user.name, &groups)?;
        self.kubeconfig = Some(self.authority.kubeconfig(&format!("https://{address}"), &issued));
        Ok(())
    }

    /// Writes the configuration for its owner alone. It goes with the cluster.
    pub(super) fn write_kubeconfig(&mut self, path: &Path) -> io::Result<()> {
        let mut options = fs::OpenOptions::new();
        let _ = fs::remove_file(path);
        let mut file = options.write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(self.kubeconfig.as_deref().unwrap_or_default().as_bytes())?;
        self.path = Some(path.to_owned());
        Ok(())
    }

    pub(super) fn kubeconfig(&self) -> Option<&str> {
        self.kubeconfig.as_deref()
    }

    pub(super) fn kubeconfig_path(&self) -> Option<&PathBuf> {
        self.path.as_ref()
    }

    pub(super) fn remove_files(&self) {
        if let Some(path) = &self.path {
            // Somebody else may have removed it; it is gone either way.
            let _ = fs::remove_file(path);
        }
    }
}

#[derive(Debug)]
struct Signer(Arc<CertificateAuthority>);

impl CertificateSigner for Signer {
    fn sign(&self, asked: SigningRequest<'_>) -> Result<String, SigningError> {
        let SigningRequest { request, usages, not_before, not_after } = asked;
        let signed = self.0.sign_request(request, usages, not_before, not_after);
        signed.map_err(|error| SigningError(error.to_string()))
    }
}
