//! What a job's policies say of pods that failed and of indexes that succeeded.
//!
//! Upstream: <https://kubernetes.io/docs/concepts/workloads/controllers/job/#pod-failure-policy>.

use k8s_openapi::api::{
    batch::v1::{
        JobSpec, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyOnPodConditionsPattern, SuccessPolicyRule,
    },
    core::v1::{ContainerStatus, Pod},
};
use orchestrator_core::meta;

use super::indexes::Indexes;

/// What the failure of a pod means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It counts against the limits.
    Counts,
    /// It does not count.
    Ignored,
    /// It fails its index.
    FailsIndex,
    /// It fails the job, for this reason.
    FailsJob(String),
}

impl Failure {
    /// Whether it counts against the limits.
    pub(crate) fn counts(&self) -> bool {
        *self != Self::Ignored
    }
}

/// What the failure of a pod means to a job: what the first rule says that matches.
pub(crate) fn failure(spec: &JobSpec, pod: &Pod) -> Failure {
    let rules = spec.pod_failure_policy.iter().flat_map(|policy| &policy.rules);
    for (index, rule) in rules.enumerate() {
        let what = if let Some(codes) = &rule.on_exit_codes {
            exited(pod, codes).map(|(container, code)| {
                (format!("Container {container} for pod"), format!("failed with exit code {code}"))
            })
        } else {
            let condition = condition(pod, rule.on_pod_conditions.as_deref().unwrap_or_default());
            condition.map(|type_| ("Pod".to_owned(), format!("has condition {type_}")))
        };
        let Some((who, what)) = what else { continue };
        return match rule.action.as_str() {
            "Ignore" => Failure::Ignored,
            "FailIndex" => Failure::FailsIndex,
            "FailJob" => {
                let (namespace, name) = (meta::namespace(&pod.metadata), meta::name(&pod.metadata));
                Failure::FailsJob(format!("{who} {namespace}/{name} {what} matching FailJob rule at index {index}"))
            }
            _ => Failure::Counts,
        };
    }
    Failure::Counts
}

/// The first container whose exit code a rule is about.
fn exited<'a>(pod: &'a Pod, rule: &PodFailurePolicyOnExitCodesRequirement) -> Option<(&'a str, i32)> {
    let status = pod.status.as_ref()?;
    let all = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    all.filter(|container| rule.container_name.as_ref().is_none_or(|name| *name == container.name))
        .filter_map(|container| Some((container.name.as_str(), exit_code(container)?)))
        .filter(|(_, code)| *code != 0)
        .find(|(_, code)| rule.values.contains(code) == (rule.operator == "In"))
}

fn exit_code(container: &ContainerStatus) -> Option<i32> {
    Some(container.state.as_ref()?.terminated.as_ref()?.exit_code)
}

fn condition<'a>(pod: &'a Pod, patterns: &[PodFailurePolicyOnPodConditionsPattern]) -> Option<&'a str> {
    let conditions = pod.status.as_ref()?.conditions.iter().flatten();
    let matches = |pattern: &PodFailurePolicyOnPodConditionsPattern, type_: &str, status: &str| {
        pattern.type_ == type_ && pattern.status.as_deref().unwrap_or("True") == status
    };
    conditions
        .into_iter()
        .find(|condition| patterns.iter().any(|pattern| matches(pattern, &condition.type_, &condition.status)))
        .map(|condition| condition.type_.as_str())
}

/// The first rule of the success policy that is met.
pub(crate) fn success(spec: &JobSpec, succeeded: &Indexes) -> Option<String> {
    let rules = &spec.success_policy.as_ref().filter(|_| !succeeded.is_empty())?.rules;
    let met = rules.iter().position(|rule| is_met(rule, succeeded, spec.completions.unwrap_or(0)))?;
    Some(format!("Matched rules at index {met}"))
}

fn is_met(rule: &SuccessPolicyRule, succeeded: &Indexes, completions: i32) -> bool {
    let Some(wanted) = &rule.succeeded_indexes else {
        return rule.succeeded_count.is_some_and(|count| succeeded.count() >= count);
    };
    let wanted = Indexes::parse(wanted, completions);
    wanted.common(succeeded) >= rule.succeeded_count.unwrap_or(wanted.count())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::{
        batch::v1::{PodFailurePolicy, PodFailurePolicyRule, SuccessPolicy},
        core::v1::PodStatus,
    };
    use serde_json::json;

    use super::*;

    fn pod(exit_code: i32, condition: &str) -> Pod {
        let status: PodStatus = serde_json::from_value(json!({
            "phase": "Failed",
            "conditions": [{"type": condition, "status": "True"}],
            "containerStatuses": [{
                "name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"terminated": {"exitCode": exit_code}},
            }],
        }))
        .unwrap();
        let mut pod = Pod { status: Some(status), ..Default::default() };
        (pod.metadata.namespace, pod.metadata.name) = (Some("n".to_owned()), Some("p".to_owned()));
        pod
    }

    fn failing(rules: serde_json::Value) -> JobSpec {
        let rules: Vec<PodFailurePolicyRule> = serde_json::from_value(rules).unwrap();
        JobSpec { pod_failure_policy: Some(PodFailurePolicy { rules }), ..Default::default() }
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let spec = failing(json!([
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]},
            {"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [3, 4]}},
            {"action": "Count", "onExitCodes": {"operator": "In", "values": [1], "containerName": "c"}},
            {"action": "FailJob", "onExitCodes": {"operator": "NotIn", "values": [9]}},
        ]));
        assert_eq!(failure(&spec, &pod(3, "DisruptionTarget")), Failure::Ignored);
        assert_eq!(failure(&spec, &pod(3, "Ready")), Failure::FailsIndex);
        assert_eq!(failure(&spec, &pod(1, "Ready")), Failure::Counts);
        let message = "Container c for pod n/p failed with exit code 2 matching FailJob rule at index 3";
        assert_eq!(failure(&spec, &pod(2, "Ready")), Failure::FailsJob(message.to_owned()));
        assert_eq!(failure(&spec, &pod(9, "Ready")), Failure::Counts);
        assert_eq!(failure(&spec, &pod(0, "Ready")), Failure::Counts, "an exit code of 0 is no failure");
        let spec = failing(json!([{"action": "FailJob", "onPodConditions": [{"type": "X", "status": "True"}]}]));
        let message = "Pod n/p has condition X matching FailJob rule at index 0";
        assert_eq!(failure(&spec, &pod(1, "X")), Failure::FailsJob(message.to_owned()));
    }

    #[test]
    fn success_is_a_matter_of_indexes_and_of_their_number() {
        let rule = |rule: serde_json::Value| JobSpec {
            completions: Some(10),
            success_policy: Some(SuccessPolicy { rules: serde_json::from_value(json!([rule])).unwrap() }),
            ..Default::default()
        };
        let done = Indexes::parse("0,2,5", 10);
        for (spec, met) in [
            (rule(json!({"succeededIndexes": "0,2"})), true),
            (rule(json!({"succeededIndexes": "0-2"})), false),
            (rule(json!({"succeededIndexes": "0-2", "succeededCount": 2})), true),
            (rule(json!({"succeededCount": 3})), true),
            (rule(json!({"succeededCount": 4})), false),
        ] {
            assert_eq!(success(&spec, &done).as_deref(), met.then_some("Matched rules at index 0"), "{spec:?}");
        }
        assert_eq!(success(&JobSpec::default(), &done), None);
    }
}
