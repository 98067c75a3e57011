//! When a pod has to leave a tainted node.
//!
//! Upstream: `pkg/controller/tainteviction` and
//! <https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/>.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, Pod, Taint, Toleration};

/// What a pod's node asks of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stay {
    /// No longer than until then.
    Until(Timestamp),
    /// As long as it likes.
    Forever,
}

/// How long a pod may stay. A taint that does not say since when it is there counts from `now`.
pub(super) fn decide(pod: &Pod, node: &Node, now: Timestamp) -> Stay {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
    let evicting = taints.iter().filter(|taint| taint.effect == "NoExecute");
    evicting.map(|taint| stay(taint, tolerations, now)).min().unwrap_or(Stay::Forever)
}

fn stay(taint: &Taint, tolerations: &[Toleration], now: Timestamp) -> Stay {
    let mut matching = tolerations.iter().filter(|toleration| tolerates(toleration, taint)).peekable();
    let since = taint.time_added.as_ref().map_or(now, |time| time.0);
    if matching.peek().is_none() {
        return Stay::Until(since);
    }
    let shortest = matching.filter_map(|toleration| toleration.toleration_seconds).min();
    shortest.map_or(Stay::Forever, |seconds| {
        let time = SignedDuration::from_secs(seconds.max(0));
        Stay::Until(since.saturating_add(time).unwrap_or(Timestamp::MAX))
    })
}

/// Whether a toleration is about a taint.
pub(super) fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    if given(&toleration.effect).is_some_and(|effect| effect != taint.effect)
        || given(&toleration.key).is_some_and(|key| key != taint.key)
    {
        return false;
    }
    let (value, tolerated) = (taint.value.as_deref().unwrap_or_default(), toleration.value.as_deref());
    match toleration.operator.as_deref() {
        None | Some("" | "Equal") => value == tolerated.unwrap_or_default(),
        Some("Exists") => true,
        Some(comparison @ ("Lt" | "Gt")) => {
            let number = |text: &str| text.parse::<i64>().ok();
            let pair = number(value).zip(tolerated.and_then(number));
            pair.is_some_and(|(value, limit)| if comparison == "Lt" { value < limit } else { value > limit })
        }
        Some(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{
        api::core::v1::{NodeSpec, PodSpec},
        apimachinery::pkg::apis::meta::v1::Time,
    };
    use proptest::prelude::*;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn node(taints: &[(&str, i64)]) -> Node {
        let taint = |(key, since): &(&str, i64)| Taint {
            key: (*key).to_owned(),
            effect: "NoExecute".to_owned(),
            time_added: Some(Time(at(*since))),
            ..Default::default()
        };
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
    fn a_pod_leaves_when_the_first_toleration_ends() {
        let tainted = node(&[("a", 100)]);
        assert_eq!(decide(&pod(&[]), &tainted, at(200)), Stay::Until(at(100)));
        assert_eq!(decide(&pod(&[("a", Some(300))]), &tainted, at(200)), Stay::Until(at(400)));
        assert_eq!(decide(&pod(&[("a", Some(300)), ("a", Some(-5))]), &tainted, at(200)), Stay::Until(at(100)));
        assert_eq!(decide(&pod(&[("a", None)]), &tainted, at(200)), Stay::Forever);
        assert_eq!(decide(&pod(&[]), &node(&[]), at(200)), Stay::Forever);
    }

    proptest! {
        #[test]
        fn every_taint_has_to_be_tolerated(taints in prop::collection::btree_set("[a-c]", 0..4), tolerated in prop::collection::btree_set("[a-c]", 0..4)) {
            let node = node(&taints.iter().map(|key| (key.as_str(), 0)).collect::<Vec<_>>());
            let pod = pod(&tolerated.iter().map(|key| (key.as_str(), None)).collect::<Vec<_>>());
            prop_assert_eq!(decide(&pod, &node, at(1)) == Stay::Forever, taints.is_subset(&tolerated));
        }
    }
}
