//! What is said to extenders and by them: the types of `k8s.io/kube-scheduler/extender/v1`.
//!
//! Their fields are called as in Go, and of those that are read the case does not matter, as it does not to Go.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1::{Node, Pod};
use orchestrator_core::scheduler::PodInfo;
use serde::Serialize;
use serde_json::Value;

use crate::extender::{Counter, ExtenderError, Filtered, Offer};

type Written = Result<Vec<u8>, serde_json::Error>;

/// `ExtenderArgs`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Args<'a> {
    pod: &'a Pod,
    nodes: Option<NodeList<'a>>,
    node_names: Option<Vec<&'a str>>,
}

#[derive(Serialize)]
struct NodeList<'a> {
    metadata: BTreeMap<(), ()>,
    items: Vec<&'a Node>,
}

/// `ExtenderPreemptionArgs`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct PreemptionArgs<'a> {
    pod: &'a Pod,
    node_name_to_victims: Option<BTreeMap<&'a str, Victims<&'a Pod>>>,
    node_name_to_meta_victims: Option<BTreeMap<&'a str, Victims<MetaPod<'a>>>>,
}

#[derive(Serialize)]
struct Victims<P> {
    #[serde(rename = "Pods")]
    pods: Vec<P>,
    #[serde(rename = "NumPDBViolations")]
    violations: usize,
}

#[derive(Serialize)]
struct MetaPod<'a> {
    #[serde(rename = "UID")]
    uid: &'a str,
}

/// `ExtenderBindingArgs`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct BindingArgs<'a> {
    pod_name: &'a str,
    pod_namespace: &'a str,
    #[serde(rename = "PodUID")]
    pod_uid: &'a str,
    node: &'a str,
}

/// Asks about nodes, by their names only if the extender knows them.
pub(super) fn nodes(pod: &PodInfo, nodes: &[Arc<Node>], knows_nodes: bool) -> Written {
    let name = |node: &'_ Arc<Node>| -> Option<String> { node.metadata.name.clone() };
    let names: Vec<String> = nodes.iter().filter_map(name).collect();
    let list = || NodeList { metadata: BTreeMap::new(), items: nodes.iter().map(AsRef::as_ref).collect() };
    serde_json::to_vec(&Args {
        pod: pod.pod(),
        nodes: (!knows_nodes).then(list),
        node_names: knows_nodes.then(|| names.iter().map(String::as_str).collect()),
    })
}

/// Asks about room that could be made.
pub(super) fn victims(pod: &PodInfo, offers: &[Offer], knows_nodes: bool) -> Written {
    let whole = offers.iter().map(|offer| {
        let pods = offer.preemption.victims.iter().map(|pod| &**pod.pod()).collect();
        (offer.preemption.node.as_str(), Victims { pods, violations: offer.violations })
    });
    let meta = offers.iter().map(|offer| {
        let pods = offer.preemption.victims.iter().map(|pod| MetaPod { uid: pod.uid() }).collect();
        (offer.preemption.node.as_str(), Victims { pods, violations: offer.violations })
    });
    serde_json::to_vec(&PreemptionArgs {
        pod: pod.pod(),
        node_name_to_victims: (!knows_nodes).then(|| whole.collect()),
        node_name_to_meta_victims: knows_nodes.then(|| meta.collect()),
    })
}

/// Asks for a pod to be bound.
pub(super) fn binding(pod: &PodInfo, node: &str) -> Written {
    let key = pod.key();
    serde_json::to_vec(&BindingArgs { pod_name: &key.name, pod_namespace: &key.namespace, pod_uid: pod.uid(), node })
}

/// Reads an `ExtenderFilterResult`.
pub(super) fn read_filtered(answer: &Value, knows_nodes: bool) -> Result<Filtered, ExtenderError> {
    read_error(answer)?;
    let names = field(answer, "NodeNames").filter(|_| knows_nodes);
    let right = match (names, field(answer, "Nodes")) {
        (Some(names), _) => texts(names)?,
        (None, Some(nodes)) => {
            let items = list(field(nodes, "items"), "Nodes.items")?;
            let names = items.iter().map(|node| field(field(node, "metadata")?, "name")?.as_str().map(str::to_owned));
            names.collect::<Option<_>>().ok_or_else(|| malformed("Nodes.items"))?
        }
        (None, None) => Vec::new(),
    };
    Ok(Filtered {
        right,
        failed: messages(answer, "FailedNodes")?,
        failed_and_unresolvable: messages(answer, "FailedAndUnresolvableNodes")?,
    })
}

/// Reads a `HostPriorityList`.
pub(super) fn read_scores(answer: &Value) -> Result<BTreeMap<String, i64>, ExtenderError> {
    let scores = list(Some(answer), "HostPriorityList")?.iter().map(|score| {
        let host = field(score, "Host").and_then(Value::as_str).unwrap_or_default();
        let amount = field(score, "Score").map_or(Some(0), Value::as_i64);
        amount.map(|amount| (host.to_owned(), amount)).ok_or_else(|| malformed("Score"))
    });
    scores.collect()
}

/// Reads an `ExtenderPreemptionResult`.
pub(super) fn read_counters(answer: &Value) -> Result<Vec<Counter>, ExtenderError> {
    let nodes = match field(answer, "NodeNameToMetaVictims") {
        None => return Ok(Vec::new()),
        Some(nodes) => nodes.as_object().ok_or_else(|| malformed("NodeNameToMetaVictims"))?,
    };
    let counters = nodes.iter().map(|(node, victims)| {
        let pods = list(field(victims, "Pods"), "Pods")?.iter();
        let uids = pods.map(|pod| field(pod, "UID")?.as_str().map(str::to_owned)).collect::<Option<_>>();
        let violations = field(victims, "NumPDBViolations").map_or(Some(0), Value::as_i64);
        let violations = violations.ok_or_else(|| malformed("NumPDBViolations"))?;
        Ok(Counter {
            node: node.clone(),
            victims: uids.ok_or_else(|| malformed("Pods"))?,
            violations: usize::try_from(violations).unwrap_or(0),
        })
    });
    counters.collect()
}

/// Reads the error that an answer may tell of.
pub(super) fn read_error(answer: &Value) -> Result<(), ExtenderError> {
    match field(answer, "Error") {
        None => Ok(()),
        Some(Value::String(error)) if error.is_empty() => Ok(()),
        Some(Value::String(error)) => Err(ExtenderError::new(error)),
        Some(_) => Err(malformed("Error")),
    }
}

/// A field that is not null, by its name in whatever case.
fn field<'a>(of: &'a Value, name: &str) -> Option<&'a Value> {
    let fields = of.as_object()?;
    let any_case = || fields.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value);
    fields.get(name).or_else(any_case).filter(|value| !value.is_null())
}

fn list<'a>(value: Option<&'a Value>, name: &str) -> Result<&'a [Value], ExtenderError> {
    match value {
        None | Some(Value::Null) => Ok(&[]),
        Some(Value::Array(items)) => Ok(items),
        Some(_) => Err(malformed(name)),
    }
}

fn texts(value: &Value) -> Result<Vec<String>, ExtenderError> {
    let items = list(Some(value), "NodeNames")?.iter().map(|item| item.as_str().map(str::to_owned));
    items.collect::<Option<_>>().ok_or_else(|| malformed("NodeNames"))
}

fn messages(answer: &Value, name: &str) -> Result<BTreeMap<String, String>, ExtenderError> {
    let Some(messages) = field(answer, name) else { return Ok(BTreeMap::new()) };
    let fields = messages.as_object().ok_or_else(|| malformed(name))?.iter();
    let fields = fields.map(|(node, message)| Some((node.clone(), message.as_str()?.to_owned())));
    fields.collect::<Option<_>>().ok_or_else(|| malformed(name))
}

fn malformed(field: &str) -> ExtenderError {
    ExtenderError::new(format!("json: cannot unmarshal field {field} of the extender's answer"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_are_called_as_in_go() {
        let pod = PodInfo::from(Pod::default());
        let tree = |written: Written| serde_json::from_slice::<Value>(&written.unwrap()).unwrap();
        let node: Arc<Node> = Arc::new(serde_json::from_value(json!({"metadata": {"name": "a"}})).unwrap());
        let whole = tree(nodes(&pod, std::slice::from_ref(&node), false));
        let item = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "a"}});
        assert_eq!(whole["Nodes"], json!({"metadata": {}, "items": [item]}));
        assert_eq!((&whole["NodeNames"], &whole["Pod"]["metadata"]), (&Value::Null, &json!({})));
        let names = tree(nodes(&pod, &[node], true));
        assert_eq!((&names["NodeNames"], &names["Nodes"]), (&json!(["a"]), &Value::Null));
        let bound = tree(binding(&pod, "a"));
        assert_eq!(bound, json!({"PodName": "", "PodNamespace": "", "PodUID": "", "Node": "a"}));
    }

    #[test]
    fn answers_are_read_in_any_case() {
        let filtered = json!({"nodenames": ["a"], "failedNodes": {"b": "full"}, "Error": ""});
        let filtered = read_filtered(&filtered, true).unwrap();
        assert_eq!((filtered.right, &*filtered.failed["b"]), (vec!["a".to_owned()], "full"));
        let nodes = json!({"nodes": {"items": [{"metadata": {"name": "a"}}]}, "NodeNames": null});
        assert_eq!(read_filtered(&nodes, false).unwrap().right, ["a"]);
        assert_eq!(read_filtered(&json!({"error": "no"}), true), Err(ExtenderError::new("no")));
        assert_eq!(read_scores(&json!([{"host": "a", "score": 7}])).unwrap()["a"], 7);
        let counters = read_counters(&json!({"NodeNameToMetaVictims": {"a": {"Pods": [{"UID": "u"}]}}})).unwrap();
        assert_eq!(counters, [Counter { node: "a".into(), victims: vec!["u".into()], violations: 0 }]);
        assert!(read_scores(&json!({"a": 1})).is_err() && read_filtered(&json!({"NodeNames": 1}), true).is_err());
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let names =
            ["NodeNames", "Nodes", "items", "Error", "FailedNodes", "Pods", "UID", "NodeNameToMetaVictims", "a"];
        let leaf =
            prop_oneof![Just(Value::Null), any::<i64>().prop_map(Value::from), "[a-z]{0,3}".prop_map(Value::from)];
        leaf.prop_recursive(4, 32, 4, move |inner| {
            let fields = prop::collection::btree_map(prop::sample::select(names.to_vec()), inner.clone(), 0..4);
            prop_oneof![
                prop::collection::vec(inner, 0..4).prop_map(Value::from),
                fields.prop_map(|fields| Value::Object(fields.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_answer_is_read_or_refused(answer in any_json(), knows_nodes: bool) {
            let _ = read_filtered(&answer, knows_nodes);
            let _ = read_scores(&answer);
            let _ = read_counters(&answer);
            let _ = read_error(&answer);
        }
    }
}
