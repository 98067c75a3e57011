//! Certificates for keys that others keep, as a signing request asks for them.

use std::time::Duration;

use jiff::Timestamp;
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, PublicKeyData,
    SerialNumber, date_time_ymd,
};
use x509_parser::{certification_request::X509CertificationRequest, prelude::FromDer};

use super::tls::{CertificateAuthority, TlsError};

impl CertificateAuthority {
    /// The certificate (PEM) that a request (PKCS #10, DER) asks for: its subject and names, for its key, but for the usages and
    /// the time that are given here. The request's own signature is verified.
    pub fn sign_request(
        &self,
        request: &[u8],
        usages: &[String],
        not_before: Timestamp,
        not_after: Timestamp,
    ) -> Result<String, TlsError> {
        has_one_value_of_each_type(request)?;
        let parsed = CertificateSigningRequestParams::from_der(&request.into());
        let CertificateSigningRequestParams { mut params, public_key } =
            parsed.map_err(TlsError::new("reading a signing request"))?;
        (params.key_usages, params.extended_key_usages) = (Vec::new(), Vec::new());
        usages.iter().try_for_each(|usage| add_usage(&mut params, usage))?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(serial_number(&public_key, not_before));
        let since_epoch = |time: Timestamp| Duration::from_secs(u64::try_from(time.as_second()).unwrap_or(0));
        params.not_before = date_time_ymd(1970, 1, 1) + since_epoch(not_before);
        params.not_after = date_time_ymd(1970, 1, 1) + since_epoch(not_after);
        let signed = params.signed_by(&public_key, self.issuer()).map_err(TlsError::new("signing a certificate"))?;
        Ok(signed.pem())
    }
}

/// What has several values of a type in its subject would lose all but one of them.
fn has_one_value_of_each_type(request: &[u8]) -> Result<(), TlsError> {
    let (_, parsed) = X509CertificationRequest::from_der(request)
        .map_err(|error| TlsError::refusal("reading a signing request", error.to_string()))?;
    let attributes = parsed.certification_request_info.subject.iter_attributes();
    let mut types: Vec<String> = attributes.map(|attribute| attribute.attr_type().to_id_string()).collect();
    let total = types.len();
    types.sort();
    types.dedup();
    if types.len() == total {
        return Ok(());
    }
    let message = "a subject with several values of one type is not supported".to_owned();
    Err(TlsError::refusal("reading a signing request", message))
}

/// No two certificates of an authority have the same: the time tells those of one key apart, and the key those of one time.
fn serial_number(key: &impl PublicKeyData, time: Timestamp) -> SerialNumber {
    let nanoseconds = i64::try_from(time.as_nanosecond()).unwrap_or(i64::MAX);
    let key = key.der_bytes();
    let mut bytes = nanoseconds.unsigned_abs().to_be_bytes().to_vec();
    bytes.extend(key.iter().rev().take(8));
    SerialNumber::from(bytes)
}

fn add_usage(params: &mut CertificateParams, usage: &str) -> Result<(), TlsError> {
    use ExtendedKeyUsagePurpose as Extended;
    let key_usage = match usage {
        "signing" | "digital signature" => KeyUsagePurpose::DigitalSignature,
        "content commitment" => KeyUsagePurpose::ContentCommitment,
        "key encipherment" => KeyUsagePurpose::KeyEncipherment,
        "key agreement" => KeyUsagePurpose::KeyAgreement,
        "data encipherment" => KeyUsagePurpose::DataEncipherment,
        "cert sign" => KeyUsagePurpose::KeyCertSign,
        "crl sign" => KeyUsagePurpose::CrlSign,
        "encipher only" => KeyUsagePurpose::EncipherOnly,
        "decipher only" => KeyUsagePurpose::DecipherOnly,
        other => {
            let purpose = match other {
                "any" => Extended::Any,
                "server auth" => Extended::ServerAuth,
                "client auth" => Extended::ClientAuth,
                "code signing" => Extended::CodeSigning,
                "email protection" | "s/mime" => Extended::EmailProtection,
                "ipsec end system" => Extended::Other(vec![1, 3, 6, 1, 5, 5, 7, 3, 5]),
                "ipsec tunnel" => Extended::Other(vec![1, 3, 6, 1, 5, 5, 7, 3, 6]),
                "ipsec user" => Extended::Other(vec![1, 3, 6, 1, 5, 5, 7, 3, 7]),
                "timestamping" => Extended::TimeStamping,
                "ocsp signing" => Extended::OcspSigning,
                "microsoft sgc" => Extended::Other(vec![1, 3, 6, 1, 4, 1, 311, 10, 3, 3]),
                "netscape sgc" => Extended::Other(vec![2, 16, 840, 1, 113_730, 4, 1]),
                _ => {
                    let message = format!("unrecognized usage value: {other:?}");
                    return Err(TlsError::refusal("signing a certificate", message));
                }
            };
            if !params.extended_key_usages.contains(&purpose) {
                params.extended_key_usages.push(purpose);
            }
            return Ok(());
        }
    };
    if !params.key_usages.contains(&key_usage) {
        params.key_usages.push(key_usage);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;

    fn request(key: &KeyPair, organizations: &[&str]) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["n1.example.com".to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "system:node:n1");
        organizations.iter().for_each(|name| params.distinguished_name.push(DnType::OrganizationName, *name));
        params.serialize_request(key).unwrap().der().to_vec()
    }

    #[test]
    fn what_is_signed_is_what_was_asked_for() {
        let authority = CertificateAuthority::generate().unwrap();
        let key = KeyPair::generate().unwrap();
        let usages = ["client auth", "digital signature"].map(str::to_owned);
        let (from, to) =
            (Timestamp::from_second(1_767_225_600).unwrap(), Timestamp::from_second(1_767_229_200).unwrap());
        let request = request(&key, &["system:nodes"]);
        let signed = authority.sign_request(&request, &usages, from, to).unwrap();
        let (_, block) = x509_parser::pem::parse_x509_pem(signed.as_bytes()).unwrap();
        let certificate = block.parse_x509().unwrap();
        assert_eq!(certificate.subject().to_string(), "CN=system:node:n1, O=system:nodes");
        assert_eq!(certificate.validity().not_before.timestamp(), from.as_second());
        assert_eq!(certificate.validity().not_after.timestamp(), to.as_second());
        assert!(!certificate.is_ca());
        let (key_usage, extended) =
            (certificate.key_usage().unwrap().unwrap(), certificate.extended_key_usage().unwrap().unwrap());
        assert!(key_usage.value.digital_signature() && extended.value.client_auth && !extended.value.server_auth);
        let names = certificate.subject_alternative_name().unwrap().unwrap();
        assert_eq!(names.value.general_names.len(), 1);
        let (_, block) = x509_parser::pem::parse_x509_pem(authority.certificate_pem().as_bytes()).unwrap();
        certificate.verify_signature(Some(block.parse_x509().unwrap().public_key())).unwrap();
    }

    #[test]
    fn what_cannot_be_signed_as_asked_is_refused() {
        let authority = CertificateAuthority::generate().unwrap();
        let key = KeyPair::generate().unwrap();
        let request = request(&key, &["a"]);
        let sign = |request: &[u8], usage: &str| {
            let times = (Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH);
            authority
                .sign_request(request, &[usage.to_owned()], times.0, times.1)
                .map(drop)
                .map_err(|it| it.to_string())
        };
        assert_eq!(sign(&request, "client auth"), Ok(()));
        let error = sign(&request, "world domination").unwrap_err();
        assert!(error.ends_with("unrecognized usage value: \"world domination\""), "{error}");
        let mut forged = request.clone();
        *forged.last_mut().unwrap() ^= 1;
        assert!(sign(&forged, "client auth").is_err());
        assert!(sign(&request[..20], "client auth").is_err());
    }
}
