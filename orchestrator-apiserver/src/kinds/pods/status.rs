//! The status of a pod: what its node and the scheduler may write there.
//!
//! Upstream: `ValidatePodStatusUpdate`, and the conversion of `podIP` and `podIPs`.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{check, names, podspec, quality};
use crate::field::{Errors, Field, member};

/// Conditions that may have any name, because the server itself knows them.
const SYSTEM_CONDITIONS: [&str; 3] = ["PodScheduled", "Ready", "Initialized"];
const ONE_FOR_EACH_FAMILY: &str = "may specify no more than one IP for each IP family";

/// The older field holds one address, the newer one all of them. Where they differ, the older one counts: an agent that does not
/// know the newer one has changed it.
pub(super) fn default(pod: &mut Value) {
    let status = &pod["status"];
    let one = status["podIP"].as_str().filter(|address| !address.is_empty()).map(str::to_owned);
    let first = status["podIPs"][0]["ip"].as_str().map(str::to_owned);
    match (one, first) {
        (Some(one), first) if first.as_ref() != Some(&one) => {
            *member(member(pod, "status"), "podIPs") = json!([{"ip": one}]);
        }
        (None, Some(first)) => *member(member(pod, "status"), "podIP") = first.into(),
        _ => {}
    }
}

/// Whoever writes a status need not know what class the pod is of.
pub(super) fn update(new: &mut Value, old: &Value) {
    if new["status"]["qosClass"].as_str().is_none_or(str::is_empty) {
        let class = match old["status"].get("qosClass") {
            Some(class) => class.clone(),
            None => quality(&Field::root(old).get("spec")).into(),
        };
        *member(member(new, "status"), "qosClass") = class;
    }
}

pub(super) fn validate(new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
    podspec::validate_annotations_update(new, old, errors);
    // They are named as if they stood in the metadata.
    conditions(&new.at("status.conditions").shown_at("metadata.conditions"), errors);
    let (spec, old_spec) = (new.get("spec"), old.get("spec"));
    let (new, old) = (new.get("status"), old.get("status"));
    let nominated = new.get("nominatedNodeName");
    if nominated.text() != old.get("nominatedNodeName").text() {
        check::given(&nominated, names::subdomain, errors);
    }
    if old.get("qosClass").exists() {
        new.get("qosClass").immutable(&old.get("qosClass"), errors);
    }
    let policy = old_spec.get("restartPolicy").text();
    let sidecars: BTreeSet<&str> = old_spec.get("initContainers").items().iter().filter_map(sidecar).collect();
    stay_ended(&new, &old, "containerStatuses", policy, &BTreeSet::new(), errors);
    stay_ended(&new, &old, "initContainerStatuses", policy, &sidecars, errors);
    stay_ended(&new, &old, "ephemeralContainerStatuses", "Never", &BTreeSet::new(), errors);
    claims(&new.get("resourceClaimStatuses"), &spec.get("resourceClaims"), errors);
    addresses(&new.get("podIPs"), errors);
    host_addresses(&new, errors);
    for list in ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"] {
        users(&new.get(list), &spec, errors);
    }
    allocated(&new.get("containerStatuses"), &spec.get("containers"), errors);
    allocated(&new.get("initContainerStatuses"), &spec.get("initContainers"), errors);
    for status in new.get("ephemeralContainerStatuses").items() {
        let allocated = status.get("allocatedResourcesStatus");
        if allocated.len() > 0 {
            allocated.forbidden(errors, "must not be specified in container status");
        }
    }
}

/// The name of an init container that runs beside the others.
fn sidecar<'a>(container: &Field<'a>) -> Option<&'a str> {
    (container.get("restartPolicy").text() == "Always").then(|| container.get("name").text())
}

fn conditions(conditions: &Field<'_>, errors: &mut Errors) {
    for condition in conditions.items() {
        let of = condition.get("type").text();
        if !SYSTEM_CONDITIONS.contains(&of) {
            let place = condition.get("type").shown_at(format!("{}.Type", condition.path()));
            check::problems(&place, &names::qualified_name(of), errors);
        }
    }
}

/// What has ended, and is not to be started again, does not run.
fn stay_ended(
    new: &Field<'_>,
    old: &Field<'_>,
    list: &'static str,
    policy: &str,
    sidecars: &BTreeSet<&str>,
    errors: &mut Errors,
) {
    if policy == "Always" {
        return;
    }
    let now = new.get(list).items();
    for before in old.get(list).items() {
        let (name, end) = (before.get("name").text(), before.at("state.terminated"));
        let may_start = policy == "OnFailure" && end.get("exitCode").int().unwrap_or(0) != 0;
        if !end.exists() || may_start || sidecars.contains(name) {
            continue;
        }
        let same = now.iter().filter(|status| status.get("name").text() == name);
        for _ in same.filter(|status| !status.at("state.terminated").exists()) {
            before.get("state").forbidden(errors, "may not be transitioned to non-terminated state");
        }
    }
}

fn claims(statuses: &Field<'_>, claims: &Field<'_>, errors: &mut Errors) {
    let known: BTreeSet<&str> = claims.items().iter().map(|claim| claim.get("name").text()).collect();
    let mut seen = BTreeSet::new();
    for status in statuses.items() {
        let name = status.get("name");
        if !known.contains(name.text()) {
            name.invalid(errors, "must match the name of an entry in `spec.resourceClaims`");
        }
        if !seen.insert(name.text()) {
            name.duplicate(errors);
        }
        let claim = status.get("resourceClaimName");
        if claim.exists() {
            check::problems(&claim.shown_at(name.path()), &names::subdomain(claim.text()), errors);
        }
    }
}

/// All of them addresses, one for each family, and none twice.
fn addresses(list: &Field<'_>, errors: &mut Errors) {
    let items = list.items();
    let mut families = BTreeSet::new();
    for item in &items {
        check::ip(&item.get("ip").shown_at(item.path()), errors);
        families.extend(check::parse_ip(item.get("ip").text()).map(|address| address.is_ipv4()));
    }
    if items.len() > 1 && (families.len() < 2 || items.len() > 2) {
        let shown = list.value().unwrap_or(&Value::Null);
        list.wrong(errors, shown, ONE_FOR_EACH_FAMILY);
    }
    let mut seen = BTreeSet::new();
    for item in &items {
        if !seen.insert(item.get("ip").text()) {
            item.duplicate(errors);
        }
    }
}

fn host_addresses(status: &Field<'_>, errors: &mut Errors) {
    let (one, all) = (status.get("hostIP"), status.get("hostIPs"));
    let Some(first) = all.items().first().map(|item| item.get("ip")) else { return };
    if one.text() != first.text() {
        first.invalid(errors, "must be equal to `hostIP`");
    }
    addresses(&all, errors);
}

/// Who a container runs as is told in the words of the pod's system.
fn users(statuses: &Field<'_>, spec: &Field<'_>, errors: &mut Errors) {
    let is_windows = spec.at("os.name").text() == "windows";
    for status in statuses.items() {
        let linux = status.at("user.linux");
        let linux = linux.shown_at(format!("{}.linux", status.path()));
        if is_windows && linux.exists() {
            linux.forbidden(errors, "cannot be set for a windows pod");
        }
        if is_windows {
            continue;
        }
        let groups = linux.get("supplementalGroups").items();
        for id in [linux.get("uid"), linux.get("gid")].into_iter().chain(groups) {
            if id.exists() {
                check::in_range(&id, 0, i64::from(i32::MAX), errors);
            }
        }
    }
}

/// How the devices of containers are: each of a resource that the container asked for, and none told twice.
fn allocated(statuses: &Field<'_>, containers: &Field<'_>, errors: &mut Errors) {
    let containers = containers.items();
    for status in statuses.items() {
        let name = status.get("name").text();
        let container = containers.iter().find(|container| container.get("name").text() == name);
        for resource in status.get("allocatedResourcesStatus").items() {
            let place = resource.get("name");
            if let Some(wrong) = container.and_then(|container| not_asked_for(container, place.text())) {
                place.invalid(errors, wrong);
            }
            let mut seen = BTreeSet::new();
            for device in resource.get("resources").items() {
                device.get("health").one_of(errors, &["Healthy", "Unhealthy", "Unknown"]);
                if !seen.insert(device.get("resourceID").text()) {
                    device.get("resourceID").duplicate(errors);
                }
            }
        }
    }
}

/// Why a resource is none of a container's.
fn not_asked_for(container: &Field<'_>, resource: &str) -> Option<&'static str> {
    let Some(claim) = resource.strip_prefix("claim:") else {
        let asked = container.at("resources.requests").key(resource).exists();
        return (!asked).then_some("must match one of the container's resource requests");
    };
    let asked = container.at("resources.claims").items().iter().any(|asked| {
        let (name, request) = (asked.get("name").text(), asked.get("request").text());
        let rest = claim.strip_prefix(name);
        rest == Some(request) && request.is_empty() || rest.and_then(|rest| rest.strip_prefix('/')) == Some(request)
    });
    (!asked).then_some(
        "must match one of the container's resource claims in a format 'claim:<claimName>/<request>' or \
         'claim:<claimName>' if request is empty",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(spec: &Value, old: &Value, new: &Value) -> Vec<String> {
        let pod = |status: &Value| {
            let mut pod = json!({"metadata": {"name": "x"}, "spec": spec, "status": status});
            default(&mut pod);
            pod
        };
        let (old, mut new) = (pod(old), pod(new));
        update(&mut new, &old);
        let mut errors = Errors::default();
        validate(&Field::root(&new), &Field::root(&old), &mut errors);
        errors.into_vec().into_iter().map(|error| format!("{}: {}", error.field, error.detail)).collect()
    }

    fn wrong(status: &Value) -> Vec<String> {
        broken(&json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]}), &json!({}), status)
    }

    #[test]
    fn both_ways_of_writing_addresses_say_the_same() {
        let addresses = |status: Value| {
            let mut pod = json!({"status": status});
            default(&mut pod);
            (pod["status"]["podIP"].clone(), pod["status"]["podIPs"].clone())
        };
        let one = (json!("10.0.0.1"), json!([{"ip": "10.0.0.1"}]));
        assert_eq!(addresses(json!({"podIP": "10.0.0.1"})), one);
        assert_eq!(addresses(json!({"podIPs": [{"ip": "10.0.0.1"}]})), one);
        assert_eq!(addresses(json!({"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.2"}, {"ip": "fd00::2"}]})), one);
        let two = json!({"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]});
        assert_eq!(addresses(two.clone()), (two["podIP"].clone(), two["podIPs"].clone()));
        assert_eq!(addresses(json!({})), (Value::Null, Value::Null));
    }

    #[test]
    fn addresses_are_one_for_each_family() {
        assert_eq!(wrong(&json!({"podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]})), [""; 0]);
        let ip = |list: Value| wrong(&json!({"podIPs": list}));
        assert!(
            ip(json!([{"ip": "10.0.0.1"}, {"ip": "x"}]))[0].starts_with("status.podIPs[1]: \"x\": must be a valid IP")
        );
        assert!(ip(json!([{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}]))[0].ends_with(ONE_FOR_EACH_FAMILY));
        assert_eq!(ip(json!([{"ip": "10.0.0.1"}, {"ip": "10.0.0.1"}])).len(), 2);
        let host = wrong(&json!({"hostIP": "10.0.0.1", "hostIPs": [{"ip": "10.0.0.2"}]}));
        assert_eq!(host, ["status.hostIPs[0].ip: \"10.0.0.2\": must be equal to `hostIP`"]);
    }

    #[test]
    fn what_has_ended_stays_so_unless_it_is_started_again() {
        let status = |code: Option<i64>| {
            let state = code.map_or(json!({"running": {}}), |code| json!({"terminated": {"exitCode": code}}));
            json!({"containerStatuses": [{"name": "c", "state": state}]})
        };
        let spec = |policy: &str| json!({"restartPolicy": policy, "containers": [{"name": "c"}]});
        let again = |policy: &str, code| broken(&spec(policy), &status(Some(code)), &status(None));
        let refused = ["status.containerStatuses[0].state: may not be transitioned to non-terminated state"];
        assert_eq!(again("Never", 1), refused);
        assert_eq!(again("OnFailure", 0), refused);
        assert_eq!(again("OnFailure", 1), [""; 0]);
        assert_eq!(again("Always", 0), [""; 0]);
        assert_eq!(broken(&spec("Never"), &status(None), &status(Some(0))), [""; 0]);
    }

    #[test]
    fn the_class_stays_and_names_are_names() {
        let spec = json!({"containers": [{"name": "c"}]});
        let old = json!({"qosClass": "BestEffort"});
        assert_eq!(broken(&spec, &old, &json!({})), [""; 0]);
        let changed = broken(&spec, &old, &json!({"qosClass": "Burstable"}));
        assert_eq!(changed, ["status.qosClass: \"Burstable\": field is immutable"]);
        let condition = wrong(&json!({"conditions": [{"type": "Ready"}, {"type": "a b"}]}));
        assert!(
            condition[0].starts_with("metadata.conditions[1].Type: \"a b\": name part must consist"),
            "{condition:?}"
        );
        assert!(wrong(&json!({"nominatedNodeName": "A"}))[0].starts_with("status.nominatedNodeName: \"A\": "));
    }

    #[test]
    fn devices_are_those_that_were_asked_for() {
        let told = |name: &str| {
            let resources = json!([{"resourceID": "a", "health": "Healthy"}, {"resourceID": "a", "health": "Fine"}]);
            json!({"containerStatuses": [{"name": "c", "allocatedResourcesStatus": [{"name": name, "resources": resources}]}]})
        };
        assert_eq!(wrong(&told("cpu")).len(), 2);
        let none = wrong(&told("gpu"));
        assert_eq!(
            none[0],
            "status.containerStatuses[0].allocatedResourcesStatus[0].name: \"gpu\": must match one of the container's \
             resource requests"
        );
        let claims = json!({"containers": [{"name": "c", "resources": {"claims": [{"name": "x"}, {"name": "y", "request": "z"}]}}]});
        let of = |name: &str| broken(&claims, &json!({}), &told(name)).len();
        assert_eq!((of("claim:x"), of("claim:y/z"), of("claim:y"), of("claim:z")), (2, 2, 3, 3));
    }
}
