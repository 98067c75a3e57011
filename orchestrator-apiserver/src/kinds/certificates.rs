//! CertificateSigningRequest: who asks is written down, what is asked for never changes, and approval and certificate have an
//! endpoint each.
//!
//! Upstream: `pkg/registry/certificates` and `pkg/apis/certificates/validation`.

use std::collections::BTreeSet;

use base64::{Engine, prelude::BASE64_STANDARD};
use orchestrator_core::{client::UserInfo, status::FieldErrorKind};
use serde_json::{Value, json};
use x509_parser::{certification_request::X509CertificationRequest, pem, prelude::FromDer};

use super::{check, rules::Rules};
use crate::{
    field::{Errors, Field, items_mut, member, remove, set_default},
    names,
};

/// What a certificate may be for.
const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";
const MASTERS: &str = "system:masters";
const LEGACY_SIGNER: &str = "kubernetes.io/legacy-unknown";
const SHORTEST_SECONDS: i64 = 600;
const DOMAIN_BYTES: usize = 253;
const SIGNER_BYTES: usize = DOMAIN_BYTES + 1 + 253 + 63 + 1;
/// Conditions that stay once they are there.
const LASTING: [&str; 3] = ["Approved", "Denied", "Failed"];
/// Those that only approvers write.
const OF_APPROVAL: [&str; 2] = ["Approved", "Denied"];

/// Requests, as they are created and changed.
pub(super) const REQUESTS: Rules = Rules {
    status: true,
    create: |request| *member(request, "status") = json!({}),
    update: |new, old| *member(new, "spec") = old["spec"].clone(),
    validate,
    validate_status: |new, old, errors| {
        validate(new, errors);
        lasting(new, old, errors);
        of_approval(new, old, errors);
        let (new, old) = (new.at("status.certificate"), old.at("status.certificate"));
        if old.len() > 0 && new.value() != old.value() {
            new.forbidden(errors, "updates may not modify existing certificate content");
        }
    },
    ..Rules::NONE
};

/// Requests, as somebody approves or denies them: nothing but conditions changes.
pub(super) const APPROVALS: Rules = Rules {
    status: false,
    create: |_| {},
    update: |new, old| {
        *member(new, "spec") = old["spec"].clone();
        match old["status"].get("certificate") {
            Some(certificate) => *member(member(new, "status"), "certificate") = certificate.clone(),
            None => drop(remove(member(new, "status"), "certificate")),
        }
    },
    validate_update: lasting,
    ..REQUESTS
};

/// Writes down who asks. What the caller says of that does not count.
pub(crate) fn name_requestor(request: &mut Value, user: &UserInfo) {
    let spec = member(request, "spec");
    for name in ["username", "uid", "groups", "extra"] {
        remove(spec, name);
    }
    *member(spec, "username") = user.name.clone().into();
    if !user.uid.is_empty() {
        *member(spec, "uid") = user.uid.clone().into();
    }
    if !user.groups.is_empty() {
        *member(spec, "groups") = json!(user.groups);
    }
    if !user.extra.is_empty() {
        *member(spec, "extra") = json!(user.extra);
    }
}

/// What somebody approved or denied stays as it is where only the status is written. Where such conditions come or go there is
/// nothing to keep, and validation refuses it.
pub(crate) fn keep_approvals(new: &mut Value, old: &Value) {
    for of in OF_APPROVAL {
        let is_of = |condition: &&Value| condition["type"] == of;
        let before = old["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
        let before: Vec<&Value> = before.iter().filter(is_of).collect();
        let now = items_mut(member(new, "status"), "conditions");
        let now: Vec<&mut Value> = now.into_iter().filter(|condition| condition["type"] == of).collect();
        if now.len() == before.len() {
            for (condition, before) in now.into_iter().zip(before) {
                condition.clone_from(before);
            }
        }
    }
}

/// Writes the times of conditions that have none: a condition that was there with that status keeps its own.
pub(crate) fn time_conditions(new: &mut Value, old: &Value, now: &str) {
    let before = old["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    for condition in items_mut(member(new, "status"), "conditions") {
        set_default(condition, "lastUpdateTime", now);
        let same = |other: &&Value| ["type", "status"].iter().all(|name| other[*name] == condition[*name]);
        let since = before.iter().find(same).and_then(|other| other["lastTransitionTime"].as_str());
        set_default(condition, "lastTransitionTime", since.unwrap_or(now));
    }
}

fn validate(request: &Field<'_>, errors: &mut Errors) {
    let spec = request.get("spec");
    let body = spec.get("request");
    if let Some(problem) = request_problem(body.text()) {
        body.wrong(errors, body.value().cloned().unwrap_or_else(|| "".into()), &problem);
    }
    let usages = spec.get("usages");
    if usages.len() == 0 {
        usages.required(errors, "");
    }
    for usage in usages.items() {
        usage.one_of(errors, &USAGES);
    }
    let mut seen = BTreeSet::new();
    for usage in usages.items() {
        if !seen.insert(usage.text()) {
            usage.duplicate(errors);
        }
    }
    validate_signer(&spec.get("signerName"), errors);
    let seconds = spec.get("expirationSeconds");
    if seconds.int().is_some_and(|seconds| seconds < SHORTEST_SECONDS) {
        seconds.invalid(errors, "may not specify a duration less than 600 seconds (10 minutes)");
    }
    validate_conditions(&request.at("status.conditions"), errors);
    let certificate = request.at("status.certificate");
    if let Some(problem) = certificate_problem(certificate.text()) {
        certificate.wrong(errors, "\"<certificate data>\"", &problem);
    }
}

/// What is wrong with a request, which is PEM in base64.
fn request_problem(encoded: &str) -> Option<String> {
    let Some(block) = request_block(encoded) else {
        return Some("PEM block type must be CERTIFICATE REQUEST".to_owned());
    };
    let parsed = X509CertificationRequest::from_der(&block.contents);
    parsed.is_err().then(|| "asn1: structure error: malformed certificate request".to_owned())
}

fn request_block(encoded: &str) -> Option<pem::Pem> {
    let text = BASE64_STANDARD.decode(encoded).ok()?;
    let block = pem::Pem::iter_from_buffer(&text).next()?.ok()?;
    (block.label == "CERTIFICATE REQUEST").then_some(block)
}

/// Whether somebody asks to be a member of this group, which certificates of clients say by their organizations.
fn asks_for_group(encoded: &str, group: &str) -> bool {
    let Some(block) = request_block(encoded) else { return false };
    let Ok((_, request)) = X509CertificationRequest::from_der(&block.contents) else { return false };
    let mut groups = request.certification_request_info.subject.iter_organization();
    groups.any(|named| named.as_str().is_ok_and(|named| named == group))
}

/// Why nobody may ask for this: the signer of clients makes no masters of the cluster.
pub(crate) fn forbidden_subject(request: &Value) -> Option<String> {
    let (signer, text) = (&request["spec"]["signerName"], request["spec"]["request"].as_str()?);
    let forbidden = signer == CLIENT_SIGNER && asks_for_group(text, MASTERS);
    forbidden.then(|| format!("use of {CLIENT_SIGNER} signer with {MASTERS} group is not allowed"))
}

/// What is wrong with issued certificates, which are PEM in base64.
fn certificate_problem(encoded: &str) -> Option<String> {
    if encoded.is_empty() {
        return None;
    }
    let text = BASE64_STANDARD.decode(encoded).unwrap_or_default();
    let mut blocks = 0;
    for block in pem::Pem::iter_from_buffer(&text) {
        let Ok(block) = block else { break };
        if block.label != "CERTIFICATE" {
            return Some(format!("only CERTIFICATE PEM blocks are allowed, found {:?}", block.label));
        }
        if block.parse_x509().is_err() {
            return Some("x509: malformed certificate".to_owned());
        }
        blocks += 1;
    }
    (blocks == 0).then(|| "must contain at least one CERTIFICATE PEM block".to_owned())
}

fn validate_signer(signer: &Field<'_>, errors: &mut Errors) {
    if signer.text() == LEGACY_SIGNER {
        return signer.invalid(errors, "the legacy signerName is not allowed via this API version");
    }
    signer_name(signer, errors);
}

/// The rules of the name of a signer, wherever it stands.
pub(super) fn signer_name(signer: &Field<'_>, errors: &mut Errors) {
    if signer.text().is_empty() {
        return signer.required(errors, "");
    }
    let Some((domain, path)) = signer.text().split_once('/').filter(|(_, path)| !path.contains('/')) else {
        let detail = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        return signer.invalid(errors, detail);
    };
    let too_long = |errors: &mut Errors, most: usize| {
        signer.error(errors, FieldErrorKind::TooLong, format!("may not be more than {most} bytes"));
    };
    if domain.len() > DOMAIN_BYTES {
        too_long(errors, DOMAIN_BYTES);
    }
    parts(signer, domain, names::label, errors);
    if !domain.contains('.') {
        signer.wrong(errors, format!("{domain:?}"), "should be a domain with at least two segments separated by dots");
    }
    parts(signer, path, names::subdomain, errors);
    if signer.text().len() > SIGNER_BYTES {
        too_long(errors, SIGNER_BYTES);
    }
}

/// Refuses the first part between dots that breaks a rule.
fn parts(signer: &Field<'_>, text: &str, rule: fn(&str) -> Vec<String>, errors: &mut Errors) {
    let broken = text.split('.').map(|part| (part, rule(part))).find(|(_, problems)| !problems.is_empty());
    for (part, problem) in
        broken.iter().flat_map(|(part, problems)| problems.iter().map(move |problem| (part, problem)))
    {
        signer.wrong(errors, format!("{text:?}"), &format!("validating label {part:?}: {problem}"));
    }
}

fn validate_conditions(conditions: &Field<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for condition in conditions.items() {
        let (of, status) = (condition.get("type"), condition.get("status"));
        check::required(&of, errors);
        match status.text() {
            "" => status.required(errors, ""),
            given if LASTING.contains(&of.text()) && given != "True" => status.not_supported(errors, &["True"]),
            _ => status.one_of(errors, &["False", "True", "Unknown"]),
        }
        if !seen.insert(of.text()) {
            of.duplicate(errors);
        }
        if OF_APPROVAL.iter().all(|name| seen.contains(name)) {
            of.invalid(errors, "Approved and Denied conditions are mutually exclusive");
        }
    }
}

fn of_type<'a>(request: &Field<'a>, of: &str) -> Vec<Option<&'a Value>> {
    let conditions = request.at("status.conditions").items();
    conditions.iter().filter(|condition| condition.get("type").text() == of).map(Field::value).collect()
}

/// Refuses to take conditions away that stay.
fn lasting(new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
    for of in LASTING {
        if of_type(new, of).len() < of_type(old, of).len() {
            let detail = format!("updates may not remove a condition of type {of:?}");
            new.at("status.conditions").forbidden(errors, &detail);
        }
    }
}

/// Refuses to approve and to deny.
fn of_approval(new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
    for of in OF_APPROVAL {
        let (now, before) = (of_type(new, of), of_type(old, of));
        let what = match now.len().cmp(&before.len()) {
            std::cmp::Ordering::Greater => "add",
            std::cmp::Ordering::Equal if now != before => "modify",
            _ => continue,
        };
        let detail = format!("updates may not {what} a condition of type {of:?}");
        new.at("status.conditions").forbidden(errors, &detail);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(errors: Errors) -> Vec<String> {
        errors.into_vec().into_iter().map(|error| format!("{}: {}", error.field, error.detail)).collect()
    }

    fn broken(spec: Value) -> Vec<String> {
        let (request, mut errors) = (json!({ "spec": spec }), Errors::default());
        validate(&Field::root(&request), &mut errors);
        shown(errors)
    }

    fn request() -> String {
        let key = rcgen::KeyPair::generate().unwrap();
        let request = rcgen::CertificateParams::new(["a.example.com".to_owned()]).unwrap().serialize_request(&key);
        BASE64_STANDARD.encode(request.unwrap().pem().unwrap())
    }

    #[test]
    fn requests_are_checked() {
        let good = json!({"request": request(), "signerName": "example.com/signer", "usages": ["client auth"]});
        assert_eq!(broken(good.clone()), [""; 0]);
        let with = |name: &str, value: Value| {
            let mut spec = good.clone();
            spec[name] = value;
            broken(spec)
        };
        assert_eq!(
            with("request", "eA==".into()),
            ["spec.request: \"eA==\": PEM block type must be CERTIFICATE REQUEST"]
        );
        assert_eq!(with("usages", json!([])), ["spec.usages: "]);
        assert_eq!(with("usages", json!(["any", "any"])), ["spec.usages[1]: \"any\""]);
        assert!(with("usages", json!(["fun"]))[0].starts_with("spec.usages[0]: \"fun\": supported values: \"any\", "));
        assert_eq!(
            with("expirationSeconds", 599.into()),
            ["spec.expirationSeconds: 599: may not specify a duration less than 600 seconds (10 minutes)"]
        );
        for (signer, problem) in [
            ("", "spec.signerName: "),
            (LEGACY_SIGNER, "the legacy signerName is not allowed via this API version"),
            ("a/b/c", "must be a fully qualified domain and path of the form 'example.com/signer-name'"),
            ("local/b", "\"local\": should be a domain with at least two segments separated by dots"),
            ("Ex.com/b", "\"Ex.com\": validating label \"Ex\": a lowercase RFC 1123 label must consist of"),
            ("example.com/B", "\"B\": validating label \"B\": a lowercase RFC 1123 subdomain must consist of"),
        ] {
            let found = with("signerName", signer.into());
            assert!(found.len() == 1 && found[0].contains(problem), "{signer}: {found:?}");
        }
    }

    #[test]
    fn nobody_becomes_a_master_by_certificate() {
        let request = |organization: &str, signer: &str| {
            let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
            params.distinguished_name.push(rcgen::DnType::OrganizationName, organization);
            let request = params.serialize_request(&rcgen::KeyPair::generate().unwrap()).unwrap();
            let text = BASE64_STANDARD.encode(request.pem().unwrap());
            forbidden_subject(&json!({"spec": {"signerName": signer, "request": text}}))
        };
        assert_eq!(
            request(MASTERS, CLIENT_SIGNER).unwrap(),
            "use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed"
        );
        assert_eq!(request("others", CLIENT_SIGNER), None);
        assert_eq!(request(MASTERS, "example.com/signer"), None);
        assert_eq!(forbidden_subject(&json!({"spec": {"signerName": CLIENT_SIGNER, "request": "x"}})), None);
    }

    fn status(conditions: &[(&str, &str)], certificate: &str) -> Value {
        let condition = |(of, status): &(&str, &str)| json!({"type": of, "status": status});
        let conditions: Vec<Value> = conditions.iter().map(condition).collect();
        json!({"conditions": conditions, "certificate": certificate})
    }

    fn change(rules: &Rules, new: Value, old: Value) -> Vec<String> {
        let spec = json!({"request": request(), "signerName": "example.com/signer", "usages": ["any"]});
        let request = |status: Value| json!({"spec": spec, "status": status});
        let (new, old, mut errors) = (request(new), request(old), Errors::default());
        (rules.validate_status)(&Field::root(&new), &Field::root(&old), &mut errors);
        shown(errors)
    }

    #[test]
    fn only_approvers_approve_and_what_is_approved_stays() {
        let approved = status(&[("Approved", "True")], "");
        assert_eq!(
            change(&REQUESTS, approved.clone(), json!({})),
            ["status.conditions: updates may not add a condition of type \"Approved\""]
        );
        assert_eq!(
            change(&REQUESTS, json!({}), approved.clone()),
            ["status.conditions: updates may not remove a condition of type \"Approved\""]
        );
        assert_eq!(change(&REQUESTS, status(&[("Approved", "True"), ("Failed", "True")], ""), approved), [""; 0]);
        let both = json!({"spec": {}, "status": status(&[("Approved", "True"), ("Denied", "True")], "")});
        let mut errors = Errors::default();
        validate_conditions(&Field::root(&both).at("status.conditions"), &mut errors);
        assert_eq!(
            shown(errors),
            ["status.conditions[1].type: \"Denied\": Approved and Denied conditions are mutually exclusive"]
        );
        let mut errors = Errors::default();
        let unsure = json!({"status": status(&[("Denied", "False"), ("x", "maybe"), ("x", "")], "")});
        validate_conditions(&Field::root(&unsure).at("status.conditions"), &mut errors);
        assert_eq!(
            shown(errors),
            [
                "status.conditions[0].status: \"False\": supported values: \"True\"",
                "status.conditions[1].status: \"maybe\": supported values: \"False\", \"True\", \"Unknown\"",
                "status.conditions[2].status: ",
                "status.conditions[2].type: \"x\"",
            ]
        );
    }

    #[test]
    fn a_certificate_is_set_once() {
        let key = rcgen::KeyPair::generate().unwrap();
        let issued = rcgen::CertificateParams::new(["a".to_owned()]).unwrap().self_signed(&key).unwrap().pem();
        let issued = BASE64_STANDARD.encode(issued);
        assert_eq!(change(&REQUESTS, status(&[], &issued), json!({})), [""; 0]);
        assert_eq!(
            change(&REQUESTS, status(&[], ""), status(&[], &issued)),
            ["status.certificate: updates may not modify existing certificate content"]
        );
        for (text, problem) in [
            ("no PEM", "must contain at least one CERTIFICATE PEM block"),
            (
                "-----BEGIN KEY-----\nAAAA\n-----END KEY-----\n",
                "only CERTIFICATE PEM blocks are allowed, found \"KEY\"",
            ),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "x509: malformed certificate"),
        ] {
            let found = change(&REQUESTS, status(&[], &BASE64_STANDARD.encode(text)), json!({}));
            assert_eq!(found, [format!("status.certificate: \"<certificate data>\": {problem}")]);
        }
    }

    #[test]
    fn who_writes_the_status_leaves_approvals_as_they_are() {
        let old = json!({"status": status(&[("Approved", "True"), ("Failed", "True")], "")});
        let mut new = json!({"status": status(&[("Failed", "Unknown"), ("Approved", "False")], "")});
        keep_approvals(&mut new, &old);
        assert_eq!(new["status"]["conditions"][1], old["status"]["conditions"][0]);
        assert_eq!(new["status"]["conditions"][0]["status"], "Unknown");
        let mut denied = json!({"status": status(&[("Denied", "True")], "")});
        keep_approvals(&mut denied, &old);
        assert_eq!(denied["status"], status(&[("Denied", "True")], ""));
    }

    #[test]
    fn times_of_conditions_are_the_servers_unless_they_are_known() {
        let mut new = json!({"status": status(&[("Approved", "True"), ("Failed", "True")], "")});
        let mut old = json!({"status": status(&[("Approved", "True")], "")});
        old["status"]["conditions"][0]["lastTransitionTime"] = "before".into();
        time_conditions(&mut new, &old, "now");
        let times = |index: usize| {
            let condition = &new["status"]["conditions"][index];
            (condition["lastUpdateTime"].clone(), condition["lastTransitionTime"].clone())
        };
        assert_eq!(times(0), ("now".into(), "before".into()));
        assert_eq!(times(1), ("now".into(), "now".into()));
    }
}
