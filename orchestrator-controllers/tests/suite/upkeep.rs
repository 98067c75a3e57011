//! The controllers of nodes' addresses, roles, ephemeral volumes, service ranges, certificates and tokens.

use std::sync::Arc;

use base64::{Engine, prelude::BASE64_STANDARD};
use k8s_openapi::api::{
    certificates::v1::CertificateSigningRequest,
    core::v1::{Node, PersistentVolumeClaim, Pod, Secret},
    networking::v1::{IPAddress, ServiceCIDR},
    rbac::v1::ClusterRole,
};
use orchestrator_controllers::{CertificateSigner, SigningError, SigningRequest};
use orchestrator_core::meta;
use serde_json::{Value, json};

use crate::world::{self, Setup, World};

/// Signs by writing down what it was asked.
#[derive(Debug)]
struct Scribe;

impl CertificateSigner for Scribe {
    fn sign(&self, request: SigningRequest<'_>) -> Result<String, SigningError> {
        let seconds = request.not_after.duration_since(request.not_before).as_secs();
        Ok(format!("{} for {seconds} s, {} bytes", request.usages.join(","), request.request.len()))
    }
}

/// Runs some controllers and a test beside them.
fn simulate(controllers: &[&str], test: impl AsyncFn(&World)) {
    let set_up = |setup: &mut Setup| {
        setup.options.cluster_cidrs = vec!["10.244.0.0/23".to_owned(), "fd00::/62".to_owned()];
        setup.options.certificate_signer = Some(Arc::new(Scribe));
    };
    world::simulate(controllers, set_up, async |world, ()| test(world).await);
}

#[test]
fn nodes_get_addresses_and_times_while_there_are_some() {
    simulate(&["node-ipam-controller", "ttl-controller"], async |world| {
        let ranges = async |name: &str| {
            let node = world.get::<Node>("", name).await.unwrap();
            assert_eq!(meta::annotation(&node.metadata, "node.alpha.kubernetes.io/ttl"), Some("0"));
            node.spec.clone().and_then(|spec| spec.pod_cidrs).unwrap_or_default()
        };
        let given = json!({"podCIDR": "10.244.0.0/24", "podCIDRs": ["10.244.0.0/24", "fd00::/64"]});
        world.create::<Node>("", json!({"metadata": {"name": "a"}, "spec": given})).await;
        world.create::<Node>("", json!({"metadata": {"name": "b"}})).await;
        world.wait(2).await;
        assert_eq!(ranges("a").await, ["10.244.0.0/24", "fd00::/64"], "what it came with");
        assert_eq!(ranges("b").await, ["10.244.1.0/24", "fd00:0:0:1::/64"]);
        world.create::<Node>("", json!({"metadata": {"name": "c"}})).await;
        world.wait(2).await;
        assert!(ranges("c").await.is_empty());
        assert!(world.reasons().await.contains("CIDRNotAvailable"));
        world.delete::<Node>("", "a").await;
        world.wait(60).await;
        assert_eq!(ranges("c").await[0], "10.244.0.0/24");
    });
}

#[test]
fn a_role_follows_those_that_it_is_made_of() {
    simulate(&["clusterrole-aggregation-controller"], async |world| {
        let part = |name: &str| {
            let rule = json!({"apiGroups": [""], "resources": [name], "verbs": ["get"]});
            json!({"metadata": {"name": name, "labels": {"part": "true"}}, "rules": [rule]})
        };
        let selector = json!({"matchLabels": {"part": "true"}});
        let whole = json!({"metadata": {"name": "whole"}, "aggregationRule": {"clusterRoleSelectors": [selector]}});
        world.create::<ClusterRole>("", whole).await;
        world.create::<ClusterRole>("", part("pods")).await;
        world.create::<ClusterRole>("", part("nodes")).await;
        let resources = async || {
            world.wait(2).await;
            let rules = world.get::<ClusterRole>("", "whole").await.unwrap().rules.clone().unwrap_or_default();
            rules.iter().filter_map(|rule| rule.resources.as_ref()?.first().cloned()).collect::<Vec<_>>()
        };
        assert_eq!(resources().await, ["nodes", "pods"]);
        world.delete::<ClusterRole>("", "nodes").await;
        assert_eq!(resources().await, ["pods"]);
    });
}

#[test]
fn a_pod_gets_the_claims_of_its_ephemeral_volumes() {
    simulate(&["ephemeral-volume-controller"], async |world| {
        let resources = json!({"requests": {"storage": "1Gi"}});
        let template = json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": resources}});
        let volume = |name: &str| json!({"name": name, "ephemeral": {"volumeClaimTemplate": template}});
        let spec = json!({"containers": [], "volumes": [volume("a"), volume("b")]});
        world.create::<PersistentVolumeClaim>("default", json!({"metadata": {"name": "p-b"}, "spec": {}})).await;
        let pod = world.create::<Pod>("default", json!({"metadata": {"name": "p"}, "spec": spec})).await;
        world.wait(2).await;
        let claim = world.get::<PersistentVolumeClaim>("default", "p-a").await.unwrap();
        assert!(meta::is_controlled_by(&claim.metadata, meta::uid(&pod.metadata)));
        assert!(world.reasons().await.contains("FailedBinding"), "one is somebody else's");
        world.delete::<PersistentVolumeClaim>("default", "p-b").await;
        world.delete::<PersistentVolumeClaim>("default", "p-a").await;
        world.wait(60).await;
        for name in ["p-a", "p-b"] {
            let claim = world.get::<PersistentVolumeClaim>("default", name).await.unwrap();
            assert!(meta::is_controlled_by(&claim.metadata, meta::uid(&pod.metadata)));
        }
    });
}

#[test]
fn a_service_range_goes_after_its_addresses() {
    simulate(&["service-cidr-controller"], async |world| {
        let range = json!({"metadata": {"name": "r"}, "spec": {"cidrs": ["10.9.0.0/24"]}});
        world.create::<ServiceCIDR>("", range).await;
        let labels = json!({"ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io"});
        let parent = json!({"resource": "services", "name": "s"});
        let address = json!({"metadata": {"name": "10.9.0.7", "labels": labels}, "spec": {"parentRef": parent}});
        world.create::<IPAddress>("", address).await;
        let ready = async || {
            world.wait(2).await;
            let range = world.get::<ServiceCIDR>("", "r").await.unwrap();
            let conditions = range.status.clone().and_then(|status| status.conditions).unwrap_or_default();
            meta::condition(&conditions, "Ready").map(|ready| (ready.status.clone(), ready.reason.clone())).unwrap()
        };
        assert_eq!(ready().await, ("True".to_owned(), String::new()));
        world.delete::<ServiceCIDR>("", "r").await;
        assert_eq!(ready().await, ("False".to_owned(), "Terminating".to_owned()));
        world.wait(30).await;
        world.delete::<IPAddress>("", "10.9.0.7").await;
        world.wait(2).await;
        assert!(world.get::<ServiceCIDR>("", "r").await.is_none());
    });
}

#[test]
fn approved_requests_are_signed_and_cleaned_up() {
    let names = ["certificatesigningrequest-cleaner-controller", "certificatesigningrequest-signing-controller"];
    simulate(&names, async |world| {
        let request = BASE64_STANDARD.encode(include_str!("../../src/certificates/node.csr"));
        let asked = |name: &str, signer: &str, usages: Value| {
            let spec = json!({"request": request, "signerName": signer, "usages": usages, "expirationSeconds": 3600});
            let approval = json!({
                "type": "Approved", "status": "True", "reason": "r", "message": "m", "lastUpdateTime": world.env.now().to_string(),
            });
            json!({"metadata": {"name": name}, "spec": spec, "status": {"conditions": [approval]}})
        };
        let client = "kubernetes.io/kube-apiserver-client";
        for (name, signer, usages) in [
            ("good", client, json!(["client auth"])),
            ("bad", client, json!(["server auth"])),
            ("other", "example.com/mine", json!(["client auth"])),
        ] {
            world.create::<CertificateSigningRequest>("", asked(name, signer, usages)).await;
        }
        world.wait(2).await;
        let status = async |name: &str| {
            world.get::<CertificateSigningRequest>("", name).await.and_then(|request| request.status.clone()).unwrap()
        };
        let certificate = status("good").await.certificate.unwrap();
        assert!(String::from_utf8(certificate.0).unwrap().starts_with("client auth for 3900 s, "));
        let failed = status("bad").await;
        assert_eq!((failed.certificate, failed.conditions.unwrap()[1].type_.clone()), (None, "Failed".to_owned()));
        assert_eq!(status("other").await.certificate, None);
        world.wait(2 * 3600).await;
        assert!(world.get::<CertificateSigningRequest>("", "good").await.is_none());
        assert!(world.get::<CertificateSigningRequest>("", "other").await.is_some(), "it still waits for its signer");
    });
}

#[test]
fn tokens_go_when_they_expire() {
    simulate(&["token-cleaner-controller"], async |world| {
        let token = |name: &str, seconds: i64| {
            let expiration = (world.env.now() + jiff::SignedDuration::from_secs(seconds)).to_string();
            let data = json!({"expiration": BASE64_STANDARD.encode(expiration)});
            json!({"metadata": {"name": name}, "type": "bootstrap.kubernetes.io/token", "data": data})
        };
        world.create::<Secret>("kube-system", token("short", 60)).await;
        world.create::<Secret>("kube-system", token("long", 6000)).await;
        world.create::<Secret>("default", token("foreign", 1)).await;
        world.wait(50).await;
        assert!(world.get::<Secret>("kube-system", "short").await.is_some());
        world.wait(20).await;
        assert!(world.get::<Secret>("kube-system", "short").await.is_none());
        assert!(world.get::<Secret>("kube-system", "long").await.is_some());
        assert!(world.get::<Secret>("default", "foreign").await.is_some());
    });
}
