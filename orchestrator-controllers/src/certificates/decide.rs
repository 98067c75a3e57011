//! What becomes of a request for a certificate: approved, signed, cleaned away.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};
use orchestrator_core::object::time;
use x509_parser::pem;

use super::request::{Asked, check, is_kubelet_client};
use crate::limits;

fn conditions(request: &CertificateSigningRequest) -> &[CertificateSigningRequestCondition] {
    request.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default()
}

fn certificate(request: &CertificateSigningRequest) -> Option<&[u8]> {
    let certificate = request.status.as_ref().and_then(|status| status.certificate.as_ref());
    certificate.map(|certificate| &*certificate.0).filter(|certificate| !certificate.is_empty())
}

fn has(request: &CertificateSigningRequest, type_: &str) -> bool {
    conditions(request).iter().any(|condition| condition.type_ == type_)
}

/// Whether nobody has said yes or no to a request.
pub(super) fn is_undecided(request: &CertificateSigningRequest) -> bool {
    certificate(request).is_none() && !has(request, "Approved") && !has(request, "Denied")
}

/// Whether a request waits for its certificate.
pub(super) fn is_unsigned(request: &CertificateSigningRequest) -> bool {
    let failed = conditions(request).iter().any(|it| it.type_ == "Failed" && it.status == "True");
    certificate(request).is_none() && has(request, "Approved") && !has(request, "Denied") && !failed
}

/// What whoever asks needs to be allowed to, as a subresource of requests, with the words of the approval.
pub(super) type Permission = (&'static str, &'static str);

/// Any of these permissions approves a request.
pub(super) fn permissions(request: &CertificateSigningRequest, asked: &Asked) -> Vec<Permission> {
    if !is_kubelet_client(request, asked) {
        return Vec::new();
    }
    let other = ("nodeclient", "Auto approving kubelet client certificate after SubjectAccessReview.");
    let own = ("selfnodeclient", "Auto approving self kubelet client certificate after SubjectAccessReview.");
    match request.spec.username.as_deref() == Some(&asked.common_name) {
        true => vec![own, other],
        false => vec![other],
    }
}

/// The request, approved.
pub(super) fn approved(request: &CertificateSigningRequest, message: &str) -> CertificateSigningRequest {
    let condition = CertificateSigningRequestCondition {
        type_: "Approved".to_owned(),
        status: "True".to_owned(),
        reason: Some("AutoApproved".to_owned()),
        message: Some(message.to_owned()),
        ..Default::default()
    };
    with_condition(request, condition)
}

fn with_condition(
    request: &CertificateSigningRequest,
    condition: CertificateSigningRequestCondition,
) -> CertificateSigningRequest {
    let mut request = request.clone();
    request.status.get_or_insert_default().conditions.get_or_insert_default().push(condition);
    request
}

/// What a signer does about a request that waits for its certificate.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Signing {
    /// It is another signer's.
    Foreign,
    /// It is refused for good.
    Refuse(Box<CertificateSigningRequest>),
    /// It is signed, for a time.
    Sign { not_before: Timestamp, not_after: Timestamp },
}

pub(super) fn signing(request: &CertificateSigningRequest, asked: &Asked, now: Timestamp) -> Signing {
    match check(&request.spec, asked) {
        None => Signing::Foreign,
        Some(Err(error)) => {
            let condition = CertificateSigningRequestCondition {
                type_: "Failed".to_owned(),
                status: "True".to_owned(),
                reason: Some("SignerValidationFailure".to_owned()),
                message: Some(error),
                last_update_time: Some(time(now)),
                ..Default::default()
            };
            Signing::Refuse(Box::new(with_condition(request, condition)))
        }
        Some(Ok(())) => {
            let backdated = limits::CERTIFICATE_BACKDATING;
            let lifetime = lifetime(request.spec.expiration_seconds);
            let valid = if lifetime < limits::SHORT_CERTIFICATE_TIME { lifetime } else { lifetime - backdated };
            Signing::Sign { not_before: add(now, -signed(backdated)), not_after: add(now, signed(valid)) }
        }
    }
}

/// How long a certificate lives that is asked for so many seconds.
fn lifetime(seconds: Option<i32>) -> Duration {
    let asked = seconds.map(|seconds| Duration::from_secs(u64::try_from(seconds).unwrap_or(0)));
    let (shortest, longest) = (limits::SHORTEST_CERTIFICATE_TIME, limits::CERTIFICATE_TIME);
    asked.map_or(longest, |asked| asked.clamp(shortest, longest))
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

fn add(time: Timestamp, duration: SignedDuration) -> Timestamp {
    time.saturating_add(duration).unwrap_or(Timestamp::MAX)
}

/// Whether nobody needs to see a request any longer.
pub(super) fn is_outdated(request: &CertificateSigningRequest, now: Timestamp) -> bool {
    let older = |since: Option<Timestamp>, than: Duration| since.is_some_and(|since| add(since, signed(than)) < now);
    let updated = |it: &CertificateSigningRequestCondition| it.last_update_time.as_ref().map(|time| time.0);
    let issued = certificate(request).is_some();
    let created = request.metadata.creation_timestamp.as_ref().map(|time| time.0);
    if conditions(request).is_empty() && older(created, limits::PENDING_REQUEST_TIME) {
        return true;
    }
    conditions(request).iter().any(|condition| match &*condition.type_ {
        "Denied" | "Failed" => older(updated(condition), limits::DECIDED_REQUEST_TIME),
        "Approved" if issued => {
            older(updated(condition), limits::DECIDED_REQUEST_TIME) || older(expiration(request), Duration::ZERO)
        }
        _ => false,
    })
}

/// When the certificate of a request expires.
fn expiration(request: &CertificateSigningRequest) -> Option<Timestamp> {
    let (_, block) = pem::parse_x509_pem(certificate(request)?).ok()?;
    let certificate = block.parse_x509().ok()?;
    Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;
    use proptest::prelude::*;

    use super::*;
    use crate::{
        certificates::request::{KUBELET_CLIENT, fixtures::of_node, read},
        pods::fixtures::at,
    };

    const USAGES: [&str; 2] = ["digital signature", "client auth"];

    fn with_type(type_: &str, second: i64) -> CertificateSigningRequest {
        let condition = CertificateSigningRequestCondition {
            type_: type_.to_owned(),
            status: "True".to_owned(),
            last_update_time: Some(time(at(second))),
            ..Default::default()
        };
        with_condition(&of_node(KUBELET_CLIENT, &USAGES), condition)
    }

    fn issued(request: CertificateSigningRequest) -> CertificateSigningRequest {
        let mut request = request;
        request.status.get_or_insert_default().certificate = Some(ByteString("PEM".into()));
        request
    }

    #[test]
    fn kubelets_are_approved_for_themselves_or_for_others() {
        let mut request = of_node(KUBELET_CLIENT, &USAGES);
        let asked = read(&request.spec).unwrap();
        let names = |request: &CertificateSigningRequest| {
            permissions(request, &asked).into_iter().map(|(name, _)| name).collect::<Vec<_>>()
        };
        assert_eq!(names(&request), ["nodeclient"]);
        request.spec.username = Some("system:node:n1".to_owned());
        assert_eq!(names(&request), ["selfnodeclient", "nodeclient"]);
        request.spec.signer_name = "kubernetes.io/kube-apiserver-client".to_owned();
        assert_eq!(names(&request), [""; 0]);
        assert!(
            is_undecided(&request) && !is_undecided(&approved(&request, "")) && is_unsigned(&approved(&request, ""))
        );
        assert!(!is_unsigned(&issued(approved(&request, ""))));
    }

    #[test]
    fn what_breaks_a_rule_fails_for_good() {
        let request = of_node(KUBELET_CLIENT, &["server auth"]);
        let asked = read(&request.spec).unwrap();
        let Signing::Refuse(refused) = signing(&approved(&request, ""), &asked, at(0)) else { panic!("not refused") };
        assert!(!is_unsigned(&refused));
        let failed = conditions(&refused).last().unwrap();
        assert_eq!(failed.reason.as_deref(), Some("SignerValidationFailure"));
        let foreign = of_node("example.com/mine", &USAGES);
        assert_eq!(signing(&foreign, &asked, at(0)), Signing::Foreign);
    }

    #[test]
    fn requests_are_kept_for_an_hour_or_a_day() {
        let hour = 3600;
        let mut pending = of_node(KUBELET_CLIENT, &USAGES);
        pending.metadata.creation_timestamp = Some(time(at(0)));
        for (request, second, expected) in [
            (pending.clone(), 24 * hour, false),
            (pending, 24 * hour + 1, true),
            (with_type("Denied", 0), hour, false),
            (with_type("Denied", 0), hour + 1, true),
            (with_type("Approved", 0), 99 * hour, false),
            (with_type("Failed", 0), hour, false),
            (with_type("Failed", 0), hour + 1, true),
            (issued(with_type("Approved", 0)), hour + 1, true),
        ] {
            assert_eq!(is_outdated(&request, at(second)), expected, "{request:?} at {second}");
        }
    }

    proptest! {
        #[test]
        fn certificates_live_as_long_as_asked_within_bounds(seconds in prop::option::of(any::<i32>())) {
            let mut request = approved(&of_node(KUBELET_CLIENT, &USAGES), "");
            request.spec.expiration_seconds = seconds;
            let asked = read(&request.spec).unwrap();
            let Signing::Sign { not_before, not_after } = signing(&request, &asked, at(0)) else { panic!("not signed") };
            let lives = not_after.duration_since(not_before).as_secs();
            prop_assert!(not_before < at(0) && not_after > at(0));
            prop_assert!((600..=365 * 24 * 3600).contains(&lives), "{}", lives);
        }
    }
}
