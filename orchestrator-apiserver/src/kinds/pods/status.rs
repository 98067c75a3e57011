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
    conditions(&new.at("status.conditions"), errors);
    let (spec, old_spec) = (new.get("spec"), old.get("spec"));
    let (new, old) = (new.get("status"), old.get("status"));
    let nominated = new.get("nominatedNodeName");
    if nominated.text() != old.get("nominatedNodeName").text() {
        check::given(&nominated, names::subdomain, errors);
        if !nominated.text().is_empty() && !old_spec.get("nodeName").text().is_empty() {
            nominated.forbidden(errors, "may not be set on pods that are already bound to a node");
        }
    }
    observed(&new, errors);
    if old.get("qosClass").exists() {
        new.get("qosClass").immutable(&old.get("qosClass"), errors);
    }
    if !all_may_start(&old_spec) {
        for (list, of) in [("containerStatuses", "containers"), ("initContainerStatuses", "initContainers")] {
            let containers = old_spec.get(of).items();
            let policy = old_spec.get("restartPolicy").text();
            let may_start = |name: &str, code: i64| {
                let container = containers.iter().find(|container| container.get("name").text() == name);
                container.is_some_and(|container| starts_again(container, policy, code))
            };
            stay_ended(&new, &old, list, may_start, errors);
        }
    }
    stay_ended(&new, &old, "ephemeralContainerStatuses", |_, _| false, errors);
    claims(&new.get("resourceClaimStatuses"), &spec.get("resourceClaims"), errors);
    extended(&new.get("extendedResourceClaimStatus"), &spec, errors);
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

/// Generations are counted from one on.
fn observed(of: &Field<'_>, errors: &mut Errors) {
    let generation = of.get("observedGeneration");
    if generation.int().is_some_and(|generation| generation < 0) {
        generation.invalid(errors, "must be a non-negative integer");
    }
}

fn conditions(conditions: &Field<'_>, errors: &mut Errors) {
    for condition in conditions.items() {
        let of = condition.get("type").text();
        observed(&condition, errors);
        if !SYSTEM_CONDITIONS.contains(&of) {
            let place = condition.get("type").shown_at(format!("{}.Type", condition.path()));
            check::problems(&place, &names::qualified_name(of), errors);
        }
    }
}

/// Whether the end of some container may start all of them again.
fn all_may_start(spec: &Field<'_>) -> bool {
    let containers = spec.get("initContainers").items().into_iter().chain(spec.get("containers").items());
    let mut rules = containers.flat_map(|container| container.get("restartPolicyRules").items());
    rules.any(|rule| rule.get("action").text() == "RestartAllContainers")
}

/// Whether a container that ended with this code is started again: its own rules say so, or its policy, or the pod's.
///
/// Upstream: `ContainerShouldRestart`.
fn starts_again(container: &Field<'_>, policy: &str, code: i64) -> bool {
    let own = container.get("restartPolicy");
    let is_meant = |rule: &Field<'_>| {
        let codes = rule.get("exitCodes");
        let listed = codes.get("values").items().iter().any(|value| value.int() == Some(code));
        match codes.get("operator").text() {
            "In" => listed,
            "NotIn" => !listed,
            _ => false,
        }
    };
    if own.exists() && container.get("restartPolicyRules").items().iter().any(is_meant) {
        return true;
    }
    match if own.exists() { own.text() } else { policy } {
        "Always" => true,
        "OnFailure" => code != 0,
        _ => false,
    }
}

/// What has ended, and is not to be started again, does not run.
fn stay_ended(
    new: &Field<'_>,
    old: &Field<'_>,
    list: &'static str,
    may_start: impl Fn(&str, i64) -> bool,
    errors: &mut Errors,
) {
    let now = new.get(list).items();
    for before in old.get(list).items() {
        let (name, end) = (before.get("name").text(), before.at("state.terminated"));
        let runs = |status: &Field<'_>| status.get("name").text() == name && !status.at("state.terminated").exists();
        let code = end.get("exitCode").int().unwrap_or(0);
        if end.exists() && now.iter().any(runs) && !may_start(name, code) {
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
            check::problems(&claim, &names::subdomain(claim.text()), errors);
        }
    }
}

/// The claim that stands for devices which containers ask for as they ask for other resources.
fn extended(status: &Field<'_>, spec: &Field<'_>, errors: &mut Errors) {
    if !status.exists() {
        return;
    }
    let containers: Vec<_> =
        spec.get("containers").items().into_iter().chain(spec.get("initContainers").items()).collect();
    let mappings = status.get("requestMappings");
    if mappings.len() == 0 {
        mappings.required(errors, "at least one request mapping is required");
    }
    let mut seen = BTreeSet::new();
    for mapping in mappings.items() {
        let [container, resource, request] =
            ["containerName", "resourceName", "requestName"].map(|name| mapping.get(name));
        match containers.iter().find(|other| other.get("name").text() == container.text()) {
            None => {
                let detail = "must match the name of an entry in spec.initContainers.name or spec.containers.name";
                container.invalid(errors, detail);
            }
            Some(asks) if asks.at("resources.requests").key(resource.text()).exists() => {}
            Some(_) => resource.invalid(
                errors,
                "must match the extended resource name of an entry in spec.initContainers.resources.requests or \
                 spec.containers.resources.requests",
            ),
        }
        let place = request.shown_at(format!("{}.requestName", status.path()));
        check::problems(&place, &names::label(request.text()), errors);
        if !seen.insert((container.text(), resource.text(), request.text())) {
            [container, resource, request].iter().for_each(|part| part.duplicate(errors));
        }
    }
    check::needed(&status.get("resourceClaimName"), names::subdomain, errors);
}

/// All of them addresses, one for each family.
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
                let message = device.get("message");
                if message.exists() && message.text().is_empty() {
                    message.required(errors, "must be non-empty if specified");
                }
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
        assert_eq!(ip(json!([{"ip": "10.0.0.1"}, {"ip": "10.0.0.1"}])).len(), 1);
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
        let with_rule = |action: &str| {
            let rule = json!({"action": action, "exitCodes": {"operator": "In", "values": [7]}});
            json!({"restartPolicy": "Always", "containers": [{
                "name": "c", "restartPolicy": "Never", "restartPolicyRules": [rule],
            }]})
        };
        let ruled = |action: &str, code| broken(&with_rule(action), &status(Some(code)), &status(None));
        assert_eq!(ruled("Restart", 7), [""; 0]);
        assert_eq!(ruled("Restart", 8), refused);
        assert_eq!(ruled("RestartAllContainers", 8), [""; 0]);
    }

    #[test]
    fn devices_behind_resources_are_those_of_containers() {
        let mapping = |container: &str, resource: &str| json!({"containerName": container, "resourceName": resource, "requestName": "r"});
        let told = |mappings: Value| {
            wrong(&json!({"extendedResourceClaimStatus": {
                "requestMappings": mappings, "resourceClaimName": "x",
            }}))
        };
        assert_eq!(told(json!([mapping("c", "cpu")])), [""; 0]);
        let place = "status.extendedResourceClaimStatus.requestMappings";
        assert_eq!(told(json!([])), [format!("{place}: at least one request mapping is required")]);
        let found = told(json!([mapping("c", "gpu"), mapping("d", "cpu"), mapping("d", "cpu")]));
        assert!(found[0].starts_with(&format!("{place}[0].resourceName: \"gpu\": must match the extended")));
        assert!(found[1].starts_with(&format!("{place}[1].containerName: \"d\": must match the name")));
        assert_eq!(found.len(), 6);
    }

    #[test]
    fn pods_that_have_a_node_get_no_other_one() {
        let (bound, unbound) = (json!({"nodeName": "n"}), json!({}));
        let nominated = json!({"nominatedNodeName": "m", "observedGeneration": -1});
        let generation = "status.observedGeneration: -1: must be a non-negative integer";
        assert_eq!(broken(&unbound, &json!({}), &nominated), [generation]);
        assert_eq!(
            broken(&bound, &json!({}), &nominated),
            ["status.nominatedNodeName: may not be set on pods that are already bound to a node", generation]
        );
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
            condition[0].starts_with("status.conditions[1].Type: \"a b\": name part must consist"),
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
