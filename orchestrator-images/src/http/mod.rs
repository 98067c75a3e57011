//! The OCI distribution protocol: manifests and blobs of a registry, in bounded memory.
//!
//! The protocol: <https://github.com/opencontainers/distribution-spec>. `oci-client` speaks it, too, and reads answers of any
//! length into memory; here each answer has its bound.

mod authorization;
mod download;

use std::sync::Arc;

use orchestrator_core::{
    env::Env,
    runtime::{ImageReference, ImageVersion, RegistryCredentials},
};
use reqwest::{
    Response, StatusCode,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, RANGE, WWW_AUTHENTICATE},
};
use serde::Deserialize;
use tokio::sync::Mutex;

use crate::{
    ImageError, Registries,
    limits::{ANSWER_BYTES, CONNECT_TIME, DOCUMENT_BYTES, READ_TIME},
    manifest::{Descriptor, MANIFESTS},
    parts::digest,
};

/// Asks registries.
#[derive(Clone, Debug)]
pub(crate) struct RegistryClient {
    env: Env,
    http: reqwest::Client,
    registries: Arc<Registries>,
}

/// A document as a registry has it.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) bytes: Vec<u8>,
    pub(crate) media_type: String,
    /// In hexadecimal.
    pub(crate) digest: String,
}

/// A repository on one host, asked by one of those who may.
#[derive(Debug)]
pub(crate) struct Repository {
    env: Env,
    http: reqwest::Client,
    /// `https://host/v2/name`.
    url: String,
    name: String,
    is_plain: bool,
    credentials: Option<RegistryCredentials>,
    /// What is sent as `Authorization`, once the host has asked for it.
    authorization: Mutex<Option<String>>,
}

impl RegistryClient {
    pub(crate) fn new(env: Env, registries: Registries) -> Result<Self, ImageError> {
        let failed = |error: reqwest::Error| ImageError::Registry(format!("the client of registries: {error}"));
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(trust(&registries)?)
            .user_agent(concat!("orchestrator-images/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIME)
            .read_timeout(READ_TIME)
            .no_proxy()
            .build()
            .map_err(failed)?;
        Ok(Self { env, http, registries: Arc::new(registries) })
    }

    /// Finds what a name leads to, and the repository that has it: mirrors first, and each of the credentials that fit.
    pub(crate) async fn resolve(
        &self,
        reference: &ImageReference,
        credentials: &[RegistryCredentials],
    ) -> Result<(Repository, Document), ImageError> {
        let version = match reference.version() {
            ImageVersion::Tag(tag) => tag.clone(),
            ImageVersion::Digest(digest) => format!("sha256:{digest}"),
        };
        let mut last = None;
        for host in self.registries.hosts(reference.registry()) {
            for credentials in self.registries.attempts(credentials, host, reference.repository()) {
                let repository = self.repository(host, reference.repository(), credentials.cloned());
                match repository.manifest(&version).await {
                    Ok(document) => return Ok((repository, document)),
                    Err(error @ ImageError::Invalid(_)) => return Err(error),
                    Err(error) => last = Some(error),
                }
            }
        }
        Err(last.unwrap_or_else(|| ImageError::Registry(format!("{reference}: no registry to ask"))))
    }

    fn repository(&self, host: &str, name: &str, credentials: Option<RegistryCredentials>) -> Repository {
        let is_plain = self.registries.is_plain(host);
        let scheme = if is_plain { "http" } else { "https" };
        Repository {
            env: self.env.clone(),
            http: self.http.clone(),
            url: format!("{scheme}://{host}/v2/{name}"),
            name: name.to_owned(),
            is_plain,
            credentials,
            authorization: Mutex::default(),
        }
    }
}

impl Repository {
    /// A manifest or an index, by tag or by digest; by digest it has it.
    pub(crate) async fn manifest(&self, version: &str) -> Result<Document, ImageError> {
        let what = format!("{}:{version}", self.name);
        let response = self.get(&format!("manifests/{version}"), &what, Some(&MANIFESTS.join(", ")), None).await?;
        let header = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let media_type = header.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_owned();
        let bytes = self.read(response, DOCUMENT_BYTES as usize, "manifest").await?;
        let digest = digest(&bytes);
        if let Some(expected) = version.strip_prefix("sha256:")
            && expected != digest
        {
            let message = format!("the registry sent sha256:{digest} as the manifest sha256:{expected}");
            return Err(ImageError::Invalid(message));
        }
        Ok(Document { bytes, media_type, digest })
    }

    /// A short blob, which has its digest.
    pub(crate) async fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>, ImageError> {
        let hexadecimal = descriptor.hexadecimal()?;
        let response = self.get(&format!("blobs/sha256:{hexadecimal}"), &descriptor.digest, None, None).await?;
        let bytes = self.read(response, DOCUMENT_BYTES as usize, "configuration").await?;
        descriptor.verify(&bytes)?;
        Ok(bytes)
    }

    /// Asks once more if the host wants to know who asks. Only success is returned.
    async fn get(
        &self,
        path: &str,
        what: &str,
        accept: Option<&str>,
        from_byte: Option<u64>,
    ) -> Result<Response, ImageError> {
        let url = format!("{}/{path}", self.url);
        let mut has_asked = false;
        loop {
            let mut request = self.http.get(&url);
            if let Some(accept) = accept {
                request = request.header(ACCEPT, accept);
            }
            if let Some(first) = from_byte {
                request = request.header(RANGE, format!("bytes={first}-"));
            }
            if let Some(authorization) = &*self.authorization.lock().await {
                request = request.header(AUTHORIZATION, authorization);
            }
            let response = request.send().await.map_err(|error| self.unreachable(&error))?;
            if response.status() == StatusCode::UNAUTHORIZED && !std::mem::replace(&mut has_asked, true) {
                let challenges: Vec<String> = response
                    .headers()
                    .get_all(WWW_AUTHENTICATE)
                    .iter()
                    .filter_map(|value| value.to_str().ok().map(ToOwned::to_owned))
                    .collect();
                *self.authorization.lock().await = Some(self.authorize(&challenges).await?);
                continue;
            }
            if response.status().is_success() {
                return Ok(response);
            }
            return Err(self.refused(response, what).await);
        }
    }

    /// Reads an answer up to a bound, as long as the host is not silent for too long.
    async fn read(&self, mut response: Response, longest_bytes: usize, what: &str) -> Result<Vec<u8>, ImageError> {
        let mut bytes = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(|error| self.unreachable(&error))? {
            if bytes.len() + piece.len() > longest_bytes {
                return Err(ImageError::too_long(format!("the {what} of {}", self.name), longest_bytes as u64));
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    }

    async fn refused(&self, response: Response, what: &str) -> ImageError {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Envelope {
            errors: Vec<Reason>,
        }
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Reason {
            code: String,
            message: String,
        }
        let status = response.status();
        let body = self.read(response, ANSWER_BYTES, "answer").await.unwrap_or_default();
        let envelope: Envelope = serde_json::from_slice(&body).unwrap_or_default();
        let reasons: Vec<String> =
            envelope.errors.iter().map(|reason| format!("{}: {}", reason.code, reason.message)).collect();
        let reason = if reasons.is_empty() { status.to_string() } else { reasons.join(", ") };
        match status {
            StatusCode::NOT_FOUND => ImageError::Missing(format!("{}: not found", self.described(what))),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ImageError::Unauthorized(format!(
                "{}: pull access denied, repository does not exist or may require authorization: {reason}",
                self.described(what)
            )),
            _ => ImageError::Registry(format!("{}: the registry answers {reason}", self.described(what))),
        }
    }

    /// What was asked for, with the host that was asked.
    fn described(&self, what: &str) -> String {
        let host = self.url.split('/').nth(2).unwrap_or_default();
        format!("{host}/{what}")
    }

    fn unreachable(&self, error: &reqwest::Error) -> ImageError {
        // The error itself names the address; its sources say what happened.
        let mut message = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(inner) = source {
            message = format!("{message}: {inner}");
            source = inner.source();
        }
        ImageError::Registry(message)
    }
}

/// TLS without a provider that the whole process would share.
fn trust(registries: &Registries) -> Result<rustls::ClientConfig, ImageError> {
    use rustls::pki_types::{CertificateDer, pem::PemObject};
    let mut roots = rustls::RootCertStore::empty();
    // A machine may trust nobody and still have a registry of its own.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    for authority in registries.authorities() {
        for certificate in CertificateDer::pem_slice_iter(authority) {
            let certificate =
                certificate.map_err(|error| ImageError::Invalid(format!("a registry's authority: {error}")))?;
            roots.add(certificate).map_err(|error| ImageError::Invalid(format!("a registry's authority: {error}")))?;
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| ImageError::Registry(format!("TLS: {error}")))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
