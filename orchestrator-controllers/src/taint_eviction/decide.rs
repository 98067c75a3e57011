//! When a pod has to leave a tainted node.
//!
//! Upstream: `pkg/controller/tainteviction` and
//! <https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/>.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod, Taint, Toleration};
use orchestrator_core::scheduler::matching::TaintParts;

/// What a pod's node asks of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stay {
    /// Not at all.
    No,
    /// This long, from when it was first seen to have to go.
    For(Duration),
    /// As long as it likes.
    Forever,
}

/// How long a pod may stay: as long as the first toleration of each taint says.
pub(super) fn decide(pod: &Pod, node: &Node) -> Stay {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
    let evicting = taints.iter().filter(|taint| taint.effect == "NoExecute");
    evicting.map(|taint| stay(taint, tolerations)).min().unwrap_or(Stay::Forever)
}

fn stay(taint: &Taint, tolerations: &[Toleration]) -> Stay {
    let Some(first) = tolerations.iter().find(|toleration| tolerates(toleration, taint)) else { return Stay::No };
    let Some(seconds) = first.toleration_seconds else { return Stay::Forever };
    Stay::For(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

/// Whether a toleration is about a taint.
pub(super) fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let asked = TaintParts::new(&toleration.key, &toleration.value, &toleration.effect);
    let value = taint.value.as_deref().unwrap_or_default();
    let parts = TaintParts { key: &taint.key, value, effect: &taint.effect };
    match toleration.operator.as_deref() {
        Some(comparison @ ("Lt" | "Gt")) => {
            let number = |text: &str| text.parse::<i64>().ok();
            let pair = number(value).zip(number(asked.value));
            asked.tolerates(Some("Exists"), parts)
                && pair.is_some_and(|(value, limit)| if comparison == "Lt" { value < limit } else { value > limit })
        }
        operator => asked.tolerates(operator, parts),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{NodeSpec, PodSpec};
    use proptest::prelude::*;

    use super::*;

    fn node(taints: &[&str]) -> Node {
        let taint = |key: &&str| Taint { key: (*key).to_owned(), effect: "NoExecute".to_owned(), ..Default::default() };
        let taints = Some(taints.iter().map(taint).collect());
        Node { spec: Some(NodeSpec { taints, ..Default::default() }), ..Default::default() }
    }

    fn pod(tolerations: &[(&str, Option<i64>)]) -> Pod {
        let toleration = |(key, seconds): &(&str, Option<i64>)| Toleration {
            key: Some((*key).to_owned()),
            operator: Some("Exists".to_owned()),
            effect: Some("NoExecute".to_owned()),
            toleration_seconds: *seconds,
            ..Default::default()
        };
        let tolerations = Some(tolerations.iter().map(toleration).collect());
        Pod { spec: Some(PodSpec { tolerations, ..Default::default() }), ..Default::default() }
    }

    #[test]
    fn the_first_toleration_of_each_taint_counts() {
        let seconds = |seconds| Stay::For(Duration::from_secs(seconds));
        let tainted = node(&["a", "b"]);
        assert_eq!(decide(&pod(&[("a", None)]), &tainted), Stay::No);
        assert_eq!(decide(&pod(&[("a", Some(300)), ("b", Some(100))]), &tainted), seconds(100));
        assert_eq!(decide(&pod(&[("a", Some(300)), ("b", Some(-5))]), &tainted), seconds(0));
        assert_eq!(decide(&pod(&[("a", Some(300)), ("b", None), ("a", Some(1))]), &tainted), seconds(300));
        assert_eq!(decide(&pod(&[("a", None), ("b", None)]), &tainted), Stay::Forever);
        assert_eq!(decide(&pod(&[]), &node(&[])), Stay::Forever);
    }

    proptest! {
        #[test]
        fn every_taint_has_to_be_tolerated(taints in prop::collection::btree_set("[a-c]", 0..4), tolerated in prop::collection::btree_set("[a-c]", 0..4)) {
            let node = node(&taints.iter().map(String::as_str).collect::<Vec<_>>());
            let pod = pod(&tolerated.iter().map(|key| (key.as_str(), None)).collect::<Vec<_>>());
            prop_assert_eq!(decide(&pod, &node) == Stay::Forever, taints.is_subset(&tolerated));
        }
    }
}
