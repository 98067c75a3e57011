//! Certificates are asked for, approved and issued through an endpoint each.

use std::sync::Arc;

use base64::{Engine, prelude::BASE64_STANDARD};
use orchestrator_apiserver::{Attributes, Authorizer, Decision};
use orchestrator_core::client::UserInfo;
use serde_json::{Value, json};

use super::support::{Answer, Api};

const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";

/// A request and a certificate of this test's own, made with OpenSSL.
const REQUEST: &str = include_str!("request.pem");
const CERTIFICATE: &str = include_str!("certificate.pem");

fn request() -> Value {
    let spec = json!({
        "request": BASE64_STANDARD.encode(REQUEST), "signerName": "example.com/signer", "usages": ["client auth"],
        "username": "somebody-else",
    });
    json!({"metadata": {"name": "r"}, "spec": spec, "status": {"conditions": [condition("Approved")]}})
}

fn condition(of: &str) -> Value {
    json!({"type": of, "status": "True", "reason": "Because"})
}

async fn approve(api: &Api, of: &str) -> Answer {
    let mut object = api.get(&format!("{REQUESTS}/r")).await.object();
    object["status"]["conditions"] = json!([condition(of)]);
    object["spec"]["signerName"] = "example.com/another".into();
    api.put(&format!("{REQUESTS}/r/approval"), &object).await
}

#[tokio::test]
async fn who_asks_is_written_down_and_nothing_is_approved_in_advance() {
    let api = Api::start().await;
    let created = api.post(REQUESTS, &request()).await.object();
    assert_eq!((&created["spec"]["username"], &created["status"]), (&json!("admin"), &json!({})));
    assert_eq!(created["spec"]["groups"], json!(["system:masters", "system:authenticated"]));
    let changed = api.merge(&format!("{REQUESTS}/r"), &json!({"spec": {"usages": ["any"]}})).await.object();
    assert_eq!(changed["spec"], created["spec"]);
}

#[tokio::test]
async fn approval_is_given_once_and_for_good() {
    let api = Api::start().await;
    api.post(REQUESTS, &request()).await.object();
    let patch = json!({"status": {"conditions": [condition("Approved")]}});
    api.merge(&format!("{REQUESTS}/r/status"), &patch).await.assert_refused(
        422,
        "CertificateSigningRequest.certificates.k8s.io \"r\" is invalid: status.conditions: Forbidden: updates may not \
         add a condition of type \"Approved\"",
    );
    let approved = approve(&api, "Approved").await.object();
    let first = &approved["status"]["conditions"][0];
    assert!(first["lastUpdateTime"].is_string() && first["lastTransitionTime"].is_string());
    assert_eq!(approved["spec"]["signerName"], "example.com/signer");
    let managers = approved["metadata"]["managedFields"].as_array().unwrap();
    assert!(managers.iter().any(|entry| entry["subresource"] == "approval"), "{managers:?}");
    approve(&api, "Denied").await.assert_refused(
        422,
        "CertificateSigningRequest.certificates.k8s.io \"r\" is invalid: status.conditions: Forbidden: updates may not \
         remove a condition of type \"Approved\"",
    );
    // Who writes the status leaves that as it is, and conditions of his own have times, too.
    let patch = json!({"status": {"conditions": [condition("Approved"), condition("Failed")]}});
    let failed = api.merge(&format!("{REQUESTS}/r/status"), &patch).await.object();
    assert_eq!(&failed["status"]["conditions"][0], first);
    let second = &failed["status"]["conditions"][1];
    assert!(second["lastUpdateTime"].is_string() && second["lastTransitionTime"].is_string(), "{second}");
    assert_eq!(api.get(&format!("{REQUESTS}/r/approval")).await.object()["kind"], "CertificateSigningRequest");
}

/// Lets everybody do everything but approve and sign for others than one signer.
#[derive(Debug)]
struct ForOneSigner(&'static str);

impl Authorizer for ForOneSigner {
    fn authorize(&self, _user: &UserInfo, attributes: &Attributes<'_>) -> Decision {
        let refused = attributes.resource == "signers" && attributes.name != self.0;
        if refused { Decision::NoOpinion } else { Decision::Allow }
    }

    fn authorize_path(&self, _user: &UserInfo, _verb: &str, _path: &str) -> Decision {
        Decision::Allow
    }
}

#[tokio::test]
async fn who_may_write_the_object_may_not_approve_for_every_signer() {
    let api = Api::start_with(Arc::new(ForOneSigner("other.example.com/*"))).await;
    api.post(REQUESTS, &request()).await.object();
    approve(&api, "Approved").await.assert_refused(
        403,
        "certificatesigningrequests.certificates.k8s.io \"r\" is forbidden: user not permitted to approve requests with \
         signerName \"example.com/signer\"",
    );
    let certificate = json!({"status": {"certificate": BASE64_STANDARD.encode(CERTIFICATE)}});
    api.merge(&format!("{REQUESTS}/r/status"), &certificate).await.assert_refused(
        403,
        "certificatesigningrequests.certificates.k8s.io \"r\" is forbidden: user not permitted to sign requests with \
         signerName \"example.com/signer\"",
    );
    for signer in ["example.com/signer", "example.com/*"] {
        let api = Api::start_with(Arc::new(ForOneSigner(signer))).await;
        api.post(REQUESTS, &request()).await.object();
        approve(&api, "Approved").await.object();
        api.merge(&format!("{REQUESTS}/r/status"), &certificate).await.object();
        let again = json!({"status": {"certificate": null}});
        let refused = api.merge(&format!("{REQUESTS}/r/status"), &again).await;
        assert!(refused.message().ends_with("updates may not modify existing certificate content"), "{}", refused.body);
    }
}
