//! The seam to whoever holds the cluster's key.

use std::fmt;

use jiff::Timestamp;

/// A certificate to be signed. That it may be has been checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SigningRequest<'a> {
    /// The request: PKCS #10, DER. Its signature has not been verified.
    pub request: &'a [u8],
    /// What the certificate is for, in the words of a CertificateSigningRequest.
    pub usages: &'a [String],
    /// From when it is valid.
    pub not_before: Timestamp,
    /// Until when it is valid; no longer than the authority's own certificate.
    pub not_after: Timestamp,
}

/// Why a certificate was not signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SigningError(pub String);

/// Signs certificates as the cluster's authority.
pub trait CertificateSigner: Send + Sync + fmt::Debug {
    /// The certificate, PEM. Who asks for it and for which names is as the request says.
    fn sign(&self, request: SigningRequest<'_>) -> Result<String, SigningError>;
}
