//! What the plugin says about pods, and what it notes in the cluster.

use orchestrator_core::{
    object::ObjectKey,
    scheduler::{Scheduler, Verdict},
};
use serde_json::{Value, json};

use super::*;
use crate::framework::{PreScore, Profile, Reserve};

/// Two nodes, each with these devices of its own.
fn cluster(devices: &[&str]) -> Snapshot {
    let mut cluster = Snapshot::default();
    let class = json!({"metadata": {"name": "gpu"}, "spec": {}});
    cluster.devices.classes.insert("gpu".to_owned(), Arc::new(serde_json::from_value(class).unwrap()));
    for name in ["a", "b"] {
        let node = json!({"metadata": {"name": name}, "status": {"allocatable": {"pods": "9"}}});
        cluster.set_node(Arc::new(serde_json::from_value(node).unwrap()));
        let devices: Vec<_> = devices.iter().map(|name| json!({ "name": name })).collect();
        let pool = json!({"name": name, "generation": 1, "resourceSliceCount": 1});
        let slice = json!({"metadata": {"name": name}, "spec": {
            "driver": "d", "pool": pool, "nodeName": name, "devices": devices,
        }});
        cluster.devices.slices.insert(name.to_owned(), Arc::new(serde_json::from_value(slice).unwrap()));
    }
    cluster
}

fn claim(name: &str, class: &str, more: Value) -> ResourceClaim {
    let requests = json!([{"name": "r", "exactly": {"deviceClassName": class}}]);
    let mut claim = json!({
        "metadata": {"name": name, "namespace": "x", "uid": format!("uid-{name}")},
        "spec": {"devices": {"requests": requests}},
    });
    for (field, value) in more.as_object().unwrap() {
        match field.as_str() {
            "status" => claim["status"] = value.clone(),
            field => claim["metadata"][field] = value.clone(),
        }
    }
    serde_json::from_value(claim).unwrap()
}

fn put(cluster: &mut Snapshot, claim: ResourceClaim) {
    cluster.devices.set_claim(ObjectKey::of(&claim.metadata), Some(Arc::new(claim)));
}

fn allocated(name: &str, node: &str, users: &[&str]) -> ResourceClaim {
    let users: Vec<_> = users.iter().map(|user| json!({"resource": "pods", "name": user, "uid": user})).collect();
    let term = json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]});
    let results = json!([{"request": "r", "driver": "d", "pool": node, "device": "0"}]);
    let allocation = json!({"devices": {"results": results}, "nodeSelector": {"nodeSelectorTerms": [term]}});
    claim(name, "gpu", json!({"status": {"allocation": allocation, "reservedFor": users}}))
}

fn pod(name: &str, claims: &[&str]) -> PodInfo {
    let claims: Vec<_> = claims.iter().map(|claim| json!({"name": claim, "resourceClaimName": claim})).collect();
    with_claims(name, json!(claims), json!({}))
}

fn with_claims(name: &str, claims: Value, status: Value) -> PodInfo {
    let pod = json!({
        "metadata": {"name": name, "namespace": "x", "uid": name},
        "spec": {"containers": [], "resourceClaims": claims}, "status": status,
    });
    PodInfo::from(serde_json::from_value::<k8s_openapi::api::core::v1::Pod>(pod).unwrap())
}

fn gate(cluster: &Snapshot, pod: &PodInfo) -> Option<String> {
    DynamicResources::default().pre_enqueue(pod, cluster).map(|gate| gate.reasons[0].clone())
}

/// The reason of the whole cluster, or those of the nodes.
fn reasons(cluster: &Snapshot, pod: &PodInfo) -> Vec<Option<String>> {
    let plugin = DynamicResources::default();
    match plugin.pre_filter(pod, cluster) {
        Prepared::Skip => vec![],
        Prepared::Refuse(rejection) => vec![Some(rejection.reasons[0].clone())],
        Prepared::Filter { filter, .. } => {
            cluster.nodes().map(|node| Some(filter.filter(node)?.reasons[0].clone())).collect()
        }
    }
}

fn said(text: &str) -> Vec<Option<String>> {
    vec![Some(text.to_owned())]
}

#[test]
fn pods_wait_for_their_claims() {
    let mut cluster = cluster(&["0"]);
    assert_eq!(gate(&cluster, &pod("p", &[])), None);
    assert_eq!(gate(&cluster, &pod("p", &["c"])).unwrap(), "could not find ResourceClaim \"x/c\"");
    put(&mut cluster, claim("c", "gpu", json!({})));
    assert_eq!(gate(&cluster, &pod("p", &["c"])), None);
    put(&mut cluster, claim("c", "gpu", json!({"deletionTimestamp": "2026-01-01T00:00:00Z"})));
    assert_eq!(gate(&cluster, &pod("p", &["c"])).unwrap(), "resourceclaim \"c\" is being deleted");
    let by_template = json!([{"name": "gpu", "resourceClaimTemplateName": "t"}]);
    let new = with_claims("p", by_template.clone(), json!({}));
    assert_eq!(gate(&cluster, &new).unwrap(), "pod \"x/p\": ResourceClaim not created yet");
    let noted = |name: Value| {
        with_claims(
            "p",
            by_template.clone(),
            json!({"resourceClaimStatuses": [{"name": "gpu", "resourceClaimName": name}]}),
        )
    };
    assert_eq!(gate(&cluster, &noted(Value::Null)), None);
    assert_eq!(reasons(&cluster, &noted(Value::Null)), []);
    put(&mut cluster, claim("made", "gpu", json!({})));
    assert_eq!(
        gate(&cluster, &noted("made".into())).unwrap(),
        "ResourceClaim x/made was not created for pod x/p (pod is not owner)"
    );
    let owner = json!([{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "p", "controller": true}]);
    put(&mut cluster, claim("made", "gpu", json!({"ownerReferences": owner})));
    assert_eq!(gate(&cluster, &noted("made".into())), None);
    let neither = with_claims("p", json!([{"name": "gpu"}]), json!({}));
    assert_eq!(
        gate(&cluster, &neither).unwrap(),
        "pod \"x/p\", spec.resourceClaim \"gpu\": none of the supported fields are set"
    );
}

#[test]
fn claims_that_do_not_do_are_told_for_the_whole_cluster() {
    let mut cluster = cluster(&["0"]);
    let wanting = pod("p", &["c"]);
    put(&mut cluster, claim("c", "none", json!({})));
    assert_eq!(reasons(&cluster, &wanting), said("request r: device class none does not exist"));
    put(&mut cluster, claim("c", "", json!({})));
    assert_eq!(reasons(&cluster, &wanting), said("request r: unsupported request type"));
    let many: Vec<_> = (0..256).map(|number| number.to_string()).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    put(&mut cluster, allocated("c", "a", &many));
    assert_eq!(reasons(&cluster, &wanting), said("resourceclaim in use"));
    put(&mut cluster, allocated("c", "a", &many[1..]));
    assert_eq!(reasons(&cluster, &wanting), [None, Some(NOT_AVAILABLE.to_owned())]);
    let unknown =
        json!({"metadata": {"name": "c", "namespace": "x"}, "spec": {"devices": {"requests": [{"name": "r"}]}}});
    put(&mut cluster, serde_json::from_value(unknown).unwrap());
    assert_eq!(reasons(&cluster, &wanting), said("resource claim x/c, request r: unknown request type"));
}

#[test]
fn what_is_reserved_is_taken_until_it_is_settled() {
    let mut cluster = cluster(&["0"]);
    put(&mut cluster, claim("c", "gpu", json!({})));
    put(&mut cluster, claim("d", "gpu", json!({})));
    let (first, sharing, second) = (pod("first", &["c", "c"]), pod("sharing", &["c"]), pod("second", &["d"]));
    let plugin = DynamicResources::default();
    assert_eq!(reasons(&cluster, &first), [None, None]);
    assert_eq!(plugin.reserve(&first, "a", &mut cluster), None);
    assert_eq!(reasons(&cluster, &second), [Some("cannot allocate all claims".to_owned()), None]);
    assert_eq!(reasons(&cluster, &sharing), said("resource claim x/c is in the process of being allocated"));
    let refused = plugin.reserve(&second, "a", &mut cluster).unwrap();
    assert_eq!((refused.plugin, &*refused.reasons[0]), (NAME, "cannot allocate all claims"));
    plugin.unreserve(&first, "a", &mut cluster);
    cluster.devices.settle(first.uid());
    assert_eq!(reasons(&cluster, &second), [None, None]);
    assert!(plugin.plans().is_empty());
}

#[test]
fn claims_that_are_in_the_way_are_given_back() {
    let cluster = cluster(&["0"]);
    let wanting = pod("p", &["c", "d"]);
    let mut why = Unschedulable::new(2);
    for node in ["a", "b"] {
        why.per_node.insert(node, Rejection::unresolvable(NAME, NOT_AVAILABLE));
    }
    let (mut filters, _) = Filters::prepare([], &wanting, &cluster);
    let mut ask = |cluster: &Snapshot, why: &Unschedulable| match DynamicResources::default().post_filter(
        &wanting,
        cluster,
        why,
        &mut filters,
        0,
    ) {
        Afterwards::GiveBack(claim, words) => (Some(claim.metadata.name.clone().unwrap()), words),
        Afterwards::Nothing(words) => (None, words),
        other => panic!("{other:?}"),
    };
    let mut other = cluster.clone();
    put(&mut other, allocated("c", "a", &["p"]));
    put(&mut other, allocated("d", "b", &["q"]));
    let given_back = "deallocation of ResourceClaim completed".to_owned();
    assert_eq!(ask(&other, &why), (Some("c".to_owned()), given_back));
    put(&mut other, allocated("c", "a", &["p", "q"]));
    assert_eq!(ask(&other, &why), (None, "still not schedulable".to_owned()));
    why.whole = Some(Rejection::unresolvable(NAME, "resourceclaim in use"));
    assert_eq!(ask(&other, &why), (None, NOTHING.to_owned()));
}

#[test]
fn devices_that_were_not_prepared_in_time_are_not_available() {
    let mut cluster = cluster(&["0"]);
    let status = |condition: &str| {
        let results = json!([{
            "request": "r", "driver": "d", "pool": "a", "device": "0", "bindingConditions": ["Ready"],
            "bindingFailureConditions": ["Failed"],
        }]);
        let conditions = json!([{
            "type": condition, "status": "True", "reason": "R", "message": "m", "lastTransitionTime": "2026-01-01T00:00:00Z",
        }]);
        json!({"status": {
            "allocation": {"devices": {"results": results}},
            "devices": [{"driver": "d", "pool": "a", "device": "0", "conditions": conditions}],
        }})
    };
    let wanting = pod("p", &["c"]);
    put(&mut cluster, claim("c", "gpu", status("Other")));
    assert_eq!(reasons(&cluster, &wanting), [None, None]);
    cluster.devices.overdue.insert("uid-c".to_owned());
    assert_eq!(reasons(&cluster, &wanting)[0].as_deref(), Some(NOT_AVAILABLE));
    put(&mut cluster, claim("c", "gpu", status("Ready")));
    assert_eq!(reasons(&cluster, &wanting), [None, None]);
    put(&mut cluster, claim("c", "gpu", json!({})));
    assert!(cluster.devices.overdue.is_empty(), "they were given back");
    let failed = claim("c", "gpu", status("Failed"));
    assert_eq!(conditions::are_met(&failed).unwrap_err(), "claim c binding failed: reason=R, message=\"m\"");
    put(&mut cluster, failed);
    assert_eq!(reasons(&cluster, &wanting)[1].as_deref(), Some(NOT_AVAILABLE));
}

#[test]
fn pods_are_woken_by_what_may_help_them() {
    let plugin = DynamicResources::default();
    let helps = |old: Option<&ResourceClaim>, new: Option<&ResourceClaim>, pod: &PodInfo| {
        plugin.may_help(&ClusterChange::ResourceClaim { old, new }, pod)
    };
    let (own, other) = (pod("p", &["c"]), pod("q", &["d"]));
    let (free, had) = (claim("c", "gpu", json!({})), allocated("c", "a", &[]));
    assert!(helps(None, Some(&free), &own) && !helps(None, Some(&free), &other));
    assert!(helps(Some(&free), Some(&had), &own) && !helps(Some(&free), Some(&had), &other));
    assert!(helps(Some(&had), Some(&free), &other) && helps(Some(&had), None, &other));
    assert!(!helps(Some(&free), Some(&free), &own) && !helps(Some(&free), None, &own));
    assert!(plugin.may_help(&ClusterChange::Devices, &own));
    let gone = |pod: &PodInfo| plugin.may_help(&ClusterChange::AssignedPod { old: Some(pod), new: None }, &other);
    assert!(gone(&own) && !gone(&PodInfo::default()));
}

#[test]
fn nodes_with_what_a_claim_would_rather_have_are_preferred() {
    let mut cluster = cluster(&[]);
    for (name, models) in [("a", ["plain", "plain"]), ("b", ["plain", "best"])] {
        let devices: Vec<_> = models
            .iter()
            .enumerate()
            .map(|(at, model)| json!({"name": at.to_string(), "attributes": {"model": {"string": model}}}))
            .collect();
        let pool = json!({"name": name, "generation": 1, "resourceSliceCount": 1});
        let slice = json!({"metadata": {"name": name}, "spec": {
            "driver": "d", "pool": pool, "nodeName": name, "devices": devices,
        }});
        cluster.devices.slices.insert(name.to_owned(), Arc::new(serde_json::from_value(slice).unwrap()));
    }
    let choice = |name: &str| {
        let selector = json!({"cel": {"expression": format!("device.attributes['d'].model == '{name}'")}});
        json!({"name": name, "deviceClassName": "gpu", "selectors": [selector]})
    };
    let requests = json!([{"name": "r", "firstAvailable": [choice("best"), choice("plain")]}]);
    let metadata = json!({"name": "c", "namespace": "x", "uid": "uid-c"});
    put(
        &mut cluster,
        serde_json::from_value(json!({"metadata": metadata, "spec": {"devices": {"requests": requests}}})).unwrap(),
    );
    put(&mut cluster, claim("d", "gpu", json!({})));
    let plugin = DynamicResources::default();
    let scores = |pod: &PodInfo| {
        let score = plugin.pre_score(pod, &cluster, &[])?;
        Some(cluster.nodes().map(|node| score.score(node)).collect::<Vec<_>>())
    };
    assert_eq!(scores(&pod("p", &["d", "c"])), Some(vec![7, 8]));
    assert_eq!(scores(&pod("p", &["d"])), None, "there is no choice");
    assert_eq!(scores(&pod("p", &[])), None);
}

#[test]
fn what_is_wrong_with_a_claim_ends_the_attempt() {
    let mut cluster = cluster(&["0"]);
    let broken = json!([{"name": "r", "exactly": {"deviceClassName": "gpu", "selectors": [
        {"cel": {"expression": "device.attributes['d'].absent == 1"}},
    ]}}]);
    let metadata = json!({"name": "c", "namespace": "x", "uid": "uid-c"});
    put(
        &mut cluster,
        serde_json::from_value(json!({"metadata": metadata, "spec": {"devices": {"requests": broken}}})).unwrap(),
    );
    let schedule = |cluster: &Snapshot| match Profile::default().schedule(&pod("p", &["c"]), cluster, 0) {
        Verdict::Unschedulable(why) => *why,
        other => panic!("{other:?}"),
    };
    let why = schedule(&cluster);
    assert!(
        why.message().starts_with(
            "running \"DynamicResources\" filter plugin: claim x/c: selector #0 on device d/a/0: CEL runtime error: no such key"
        ),
        "{}",
        why.message()
    );
    assert_eq!(why.failure, Some(why.message()));
    put(&mut cluster, claim("c", "", json!({})));
    assert_eq!(
        schedule(&cluster).message(),
        "running PreFilter plugin \"DynamicResources\": request r: unsupported request type"
    );
}
