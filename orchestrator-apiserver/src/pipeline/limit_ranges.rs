//! Limit ranges: what pods get that do not say what they need, and what pods and claims may ask for.
//!
//! Upstream: `plugin/pkg/admission/limitranger`.

use std::collections::BTreeMap;

use orchestrator_core::quantity::{Format, Quantity};
use serde_json::Value;

use crate::field::{Field, items_mut, member};

/// Says on a pod what was written into it.
const ANNOTATION: &str = "kubernetes.io/limit-ranger";

/// Amounts by resource.
type Amounts = BTreeMap<String, Quantity>;

/// Writes the defaults of a range into the containers of a pod.
pub(super) fn default_pod(range: &Value, pod: &mut Value) {
    let (requests, limits) = (defaults(range, "defaultRequest"), defaults(range, "default"));
    let mut done = Vec::new();
    let spec = member(pod, "spec");
    for (list, words) in [("containers", "container"), ("initContainers", "init container")] {
        for container in items_mut(spec, list) {
            let name = container["name"].as_str().unwrap_or_default().to_owned();
            let resources = member(container, "resources");
            let set =
                [(fill(resources, "requests", &requests), "request"), (fill(resources, "limits", &limits), "limit")];
            let set = set.iter().filter(|(names, _)| !names.is_empty());
            done.extend(set.map(|(names, what)| format!("{} {what} for {words} {name}", names.join(", "))));
        }
    }
    if !done.is_empty() {
        let annotations = member(member(pod, "metadata"), "annotations");
        *member(annotations, ANNOTATION) = format!("LimitRanger plugin set: {}", done.join("; ")).into();
    }
}

fn defaults(range: &Value, list: &str) -> BTreeMap<String, Value> {
    let limits = range["spec"]["limits"].as_array().into_iter().flatten();
    let amounts = limits.filter(|limit| limit["type"] == "Container").filter_map(|limit| limit[list].as_object());
    amounts.flatten().map(|(name, amount)| (name.clone(), amount.clone())).collect()
}

/// Writes what is missing, and tells what was.
fn fill(resources: &mut Value, list: &str, defaults: &BTreeMap<String, Value>) -> Vec<String> {
    let missing: Vec<_> = defaults.iter().filter(|(name, _)| resources[list].get(name.as_str()).is_none()).collect();
    for (name, amount) in &missing {
        *member(member(resources, list), name) = (*amount).clone();
    }
    missing.into_iter().map(|(name, _)| name.clone()).collect()
}

/// What an object asks for against the rules of a range.
pub(super) fn broken(range: &Value, plural: &str, object: &Value) -> Vec<String> {
    let (range, spec) = (Field::root(range), Field::root(object).get("spec"));
    let mut broken = Vec::new();
    for limit in range.at("spec.limits").items() {
        match (limit.get("type").text(), plural) {
            ("Container", "pods") => {
                for container in spec.get("containers").items().iter().chain(&spec.get("initContainers").items()) {
                    let resources = container.get("resources");
                    let (requests, limits) = (amounts(&resources.get("requests")), amounts(&resources.get("limits")));
                    Rule { limit: &limit, requests: &requests, limits: &limits }.check(&mut broken);
                }
            }
            ("Pod", "pods") => {
                let (requests, limits) = (summed(&spec, "requests"), summed(&spec, "limits"));
                Rule { limit: &limit, requests: &requests, limits: &limits }.check(&mut broken);
            }
            ("PersistentVolumeClaim", "persistentvolumeclaims") => {
                check_requests(&limit, &amounts(&spec.at("resources.requests")), &mut broken);
            }
            _ => {}
        }
    }
    broken
}

fn amounts(list: &Field<'_>) -> Amounts {
    let entries = list.entries().into_iter();
    entries.filter_map(|(name, amount)| Some((name.to_owned(), amount.text().parse().ok()?))).collect()
}

/// What a pod needs at once: its containers together, or the largest of those that run before them. A resource that not
/// every container names is not counted.
fn summed(spec: &Field<'_>, list: &str) -> Amounts {
    let of = |container: &Field<'_>| amounts(&container.get("resources").get(list));
    let containers: Vec<Amounts> = spec.get("containers").items().iter().map(of).collect();
    let names = containers.first().into_iter().flat_map(|amounts| amounts.keys().cloned());
    let mut sums: Amounts = names
        .filter_map(|name| {
            let amounts: Option<Vec<_>> = containers.iter().map(|amounts| amounts.get(&name)).collect();
            // Upstream writes sums in decimal notation, whatever the parts were written in.
            let sum = match name.as_str() {
                "cpu" => {
                    let total = amounts?.into_iter().map(Quantity::milli_value).fold(0, i64::saturating_add);
                    Quantity::from_milli_value(total, Format::DecimalSi)
                }
                _ => {
                    let total = amounts?.into_iter().map(Quantity::value).fold(0, i64::saturating_add);
                    Quantity::from_value(total, Format::DecimalSi)
                }
            };
            Some((name, sum))
        })
        .collect();
    for (name, amount) in spec.get("initContainers").items().iter().flat_map(of) {
        let sum = sums.entry(name).or_insert_with(|| amount.clone());
        if amount > *sum {
            *sum = amount;
        }
    }
    sums
}

/// One limit of a range, and what it is held against.
struct Rule<'a> {
    limit: &'a Field<'a>,
    requests: &'a Amounts,
    limits: &'a Amounts,
}

impl Rule<'_> {
    fn check(&self, broken: &mut Vec<String>) {
        let of = self.limit.get("type").text();
        for (name, least) in amounts(&self.limit.get("min")) {
            let words = format!("minimum {name} usage per {of} is {least}");
            match (self.requests.get(&name), self.limits.get(&name)) {
                (None, _) => broken.push(format!("{words}.  No request is specified")),
                (Some(request), _) if *request < least => broken.push(format!("{words}, but request is {request}")),
                (_, Some(limit)) if *limit < least => broken.push(format!("{words}, but limit is {limit}")),
                _ => {}
            }
        }
        for (name, most) in amounts(&self.limit.get("max")) {
            let words = format!("maximum {name} usage per {of} is {most}");
            match (self.limits.get(&name), self.requests.get(&name)) {
                (None, _) => broken.push(format!("{words}.  No limit is specified")),
                (Some(limit), _) if *limit > most => broken.push(format!("{words}, but limit is {limit}")),
                (_, Some(request)) if *request > most => broken.push(format!("{words}, but request is {request}")),
                _ => {}
            }
        }
        for (name, most) in amounts(&self.limit.get("maxLimitRequestRatio")) {
            broken.extend(self.ratio(of, &name, &most));
        }
    }

    fn ratio(&self, of: &str, name: &str, most: &Quantity) -> Option<String> {
        let words = format!("{name} max limit to request ratio per {of} is {most}");
        let given = |list: &Amounts| list.get(name).filter(|amount| !amount.is_zero()).map(Quantity::milli_value);
        let Some(request) = given(self.requests) else {
            return Some(format!("{words}, but no request is specified or request is 0"));
        };
        let Some(limit) = given(self.limits) else {
            return Some(format!("{words}, but no limit is specified or limit is 0"));
        };
        let ratio = limit as f64 / request as f64;
        (ratio > most.as_f64()).then(|| format!("{words}, but provided ratio is {ratio:.6}"))
    }
}

/// The rules of claims, which have requests only.
fn check_requests(limit: &Field<'_>, requests: &Amounts, broken: &mut Vec<String>) {
    let of = limit.get("type").text();
    for (list, words) in [("min", "minimum"), ("max", "maximum")] {
        for (name, bound) in amounts(&limit.get(list)) {
            let words = format!("{words} {name} usage per {of} is {bound}");
            match requests.get(&name) {
                None => broken.push(format!("{words}.  No request is specified")),
                Some(request) if (list == "min" && *request < bound) || (list == "max" && *request > bound) => {
                    broken.push(format!("{words}, but request is {request}"));
                }
                Some(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn range(limits: Value) -> Value {
        json!({"spec": {"limits": limits}})
    }

    fn pod(resources: &[Value]) -> Value {
        let container =
            |(index, resources): (usize, &Value)| json!({"name": format!("c{index}"), "resources": resources});
        json!({"spec": {"containers": resources.iter().enumerate().map(container).collect::<Vec<_>>()}})
    }

    #[test]
    fn what_is_missing_is_written_and_told() {
        let range = range(json!([{"type": "Container", "default": {"cpu": "1"}, "defaultRequest": {"memory": "1Gi"}}]));
        let mut pod = pod(&[json!({"limits": {"cpu": "2"}}), json!({})]);
        default_pod(&range, &mut pod);
        assert_eq!(
            pod["metadata"]["annotations"][ANNOTATION],
            "LimitRanger plugin set: memory request for container c0; memory request for container c1; cpu limit for \
             container c1"
        );
        assert_eq!(pod["spec"]["containers"][0]["resources"]["limits"]["cpu"], "2");
    }

    #[test]
    fn bounds_hold_for_containers_pods_and_claims() {
        let check = |limit: Value, resources: &[Value], expected: &[&str]| {
            assert_eq!(broken(&range(json!([limit])), "pods", &pod(resources)), expected);
        };
        let half = json!({"requests": {"cpu": "500m"}, "limits": {"cpu": "1"}});
        check(
            json!({"type": "Container", "max": {"cpu": "1"}, "min": {"cpu": "500m"}}),
            std::slice::from_ref(&half),
            &[],
        );
        check(
            json!({"type": "Container", "max": {"cpu": "800m"}, "maxLimitRequestRatio": {"cpu": "1"}}),
            std::slice::from_ref(&half),
            &[
                "maximum cpu usage per Container is 800m, but limit is 1",
                "cpu max limit to request ratio per Container is 1, but provided ratio is 2.000000",
            ],
        );
        check(json!({"type": "Pod", "max": {"cpu": "2"}}), &[half.clone(), half.clone()], &[]);
        let sum = ["maximum cpu usage per Pod is 1500m, but limit is 2"];
        check(json!({"type": "Pod", "max": {"cpu": "1500m"}}), &[half.clone(), half.clone()], &sum);
        let unknown = ["maximum memory usage per Pod is 1Gi.  No limit is specified"];
        check(json!({"type": "Pod", "max": {"memory": "1Gi"}}), &[half], &unknown);
        let claim = json!({"spec": {"resources": {"requests": {"storage": "3Gi"}}}});
        let range = range(json!([{"type": "PersistentVolumeClaim", "max": {"storage": "2Gi"}}]));
        let expected = ["maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 3Gi"];
        assert_eq!(broken(&range, "persistentvolumeclaims", &claim), expected);
    }
}
