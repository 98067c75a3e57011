//! Whole decisions: what a status says and which Events there are, to the letter.

use serde_json::{Value, json};

use super::*;
use crate::{
    horizontal_pod_autoscaler::{
        metric::{Answer, evaluate},
        replicas::Observed,
        source::MetricsError,
    },
    pods::fixtures::{at, running},
};

fn autoscaler(spec: Value) -> HorizontalPodAutoscaler {
    let mut tree = json!({
        "metadata": {"name": "h", "namespace": "default"},
        "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}, "minReplicas": 2, "maxReplicas": 6},
    });
    tree["spec"].as_object_mut().unwrap().extend(spec.as_object().cloned().unwrap());
    serde_json::from_value(tree).unwrap()
}

fn conditions(draft: &Draft<'_>) -> Vec<String> {
    let conditions = draft.status.conditions.iter().flatten();
    let text = |condition: &HorizontalPodAutoscalerCondition| {
        let (reason, message) = (condition.reason.as_deref().unwrap(), condition.message.as_deref().unwrap());
        format!("{}={} {reason}: {message}", condition.type_, condition.status)
    };
    conditions.map(text).collect()
}

fn events(draft: &Draft<'_>) -> Vec<String> {
    draft.events.iter().map(|event| format!("{} {}: {}", event.kind.as_str(), event.reason, event.message)).collect()
}

fn external(target: Value, selector: Value) -> Value {
    json!({"type": "External", "external": {"metric": {"name": "q", "selector": selector}, "target": target}})
}

fn evaluated(spec: Value, answer: Result<Answer, &str>) -> Result<Proposal, Failure> {
    let pods = [Arc::new(running("a", Some(0))), Arc::new(running("b", Some(0)))];
    let tolerances = tolerances(&autoscaler(json!({})));
    let observed = Observed { pods: &pods, wanted: 2, present: 2, tolerances, now: at(9) };
    let answer = answer.map_err(|error| MetricsError(error.to_owned()));
    evaluate(&serde_json::from_value(spec).unwrap(), answer, "default", observed)
}

#[test]
fn the_course_is_set_by_bounds_before_metrics() {
    let autoscaler = autoscaler(json!({}));
    assert_eq!(course(&autoscaler, 0), Course::Disabled);
    assert_eq!(course(&autoscaler, 1), Course::Rescale(2, "Current number of replicas below Spec.MinReplicas"));
    assert_eq!(course(&autoscaler, 7), Course::Rescale(6, "Current number of replicas above Spec.MaxReplicas"));
    assert_eq!(course(&autoscaler, 2), Course::Measure);
    assert_eq!(course(&super::tests::autoscaler(json!({"minReplicas": 0})), 0), Course::Measure);
}

#[test]
fn a_proposal_is_carried_out_in_upstreams_words() {
    let autoscaler = autoscaler(json!({}));
    let mut draft = Draft::new(&autoscaler, at(9));
    let mut history = History::default();
    history.begin(2, at(0));
    draft.has_scale();
    let metric = external(json!({"type": "AverageValue", "averageValue": "10"}), json!({"matchLabels": {"a": "b"}}));
    let proposal = evaluated(metric, Ok(Answer::Value(35_500)));
    let (replicas, name) = draft.combine(vec![proposal], 2).unwrap();
    let rescale = draft.settle((replicas, &name), 2, &mut history).unwrap();
    draft.rescaled(&rescale);
    let called = "external metric q(&LabelSelector{MatchLabels:map[string]string{a: b,},MatchExpressions:[]LabelSelectorRequirement{},})";
    assert_eq!(
        conditions(&draft),
        [
            "AbleToScale=True SucceededRescale: the HPA controller was able to update the target scale to 4".to_owned(),
            format!(
                "ScalingActive=True ValidMetricFound: the HPA was able to successfully calculate a replica count from {called}"
            ),
            "ScalingLimited=False DesiredWithinRange: the desired count is within the acceptable range".to_owned(),
        ]
    );
    assert_eq!(events(&draft), [format!("Normal SuccessfulRescale: New size: 4; reason: {called} above target")]);
    let status = serde_json::to_value(&draft.status).unwrap();
    assert_eq!(status["currentMetrics"][0]["external"]["current"], json!({"averageValue": "17750m"}));
    assert_eq!((&status["desiredReplicas"], &status["lastScaleTime"]), (&json!(4), &json!("2026-01-01T00:00:09Z")));
}

#[test]
fn without_metrics_the_status_says_why() {
    let autoscaler = autoscaler(json!({}));
    let mut draft = Draft::new(&autoscaler, at(9));
    let target = json!({"type": "Utilization", "averageUtilization": 50});
    let metric = json!({"type": "Resource", "resource": {"name": "cpu", "target": target}});
    let answer = "unable to fetch metrics from resource metrics API: the server could not find the requested resource \
                  (get pods.metrics.k8s.io)";
    assert_eq!(draft.combine(vec![evaluated(metric, Err(answer))], 2), None);
    let error = format!("failed to get cpu utilization: unable to get metrics for resource cpu: {answer}");
    assert_eq!(
        conditions(&draft),
        [format!(
            "ScalingActive=False FailedGetResourceMetric: the HPA was unable to compute the replica count: {error}"
        )]
    );
    let all = "invalid metrics (1 invalid out of 1), first error is: failed to get cpu resource metric value";
    assert_eq!(
        events(&draft),
        [
            format!("Warning FailedGetResourceMetric: {error}"),
            format!("Warning FailedComputeMetricsReplicas: {all}: {error}"),
        ]
    );
    let status = serde_json::to_value(&draft.status).unwrap();
    assert_eq!(status["currentMetrics"], json!([{"type": ""}]));
}

#[test]
fn some_metrics_suffice_to_grow_but_not_to_shrink() {
    let autoscaler = autoscaler(json!({}));
    let value =
        |amount| evaluated(external(json!({"type": "Value", "value": "1"}), Value::Null), Ok(Answer::Value(amount)));
    let broken = || evaluated(external(json!({"type": "Value", "value": "1"}), Value::Null), Err("no"));
    assert_eq!(
        broken().unwrap_err().message,
        "failed to get external metric q: unable to get external metric default/q/nil: no"
    );
    let mut draft = Draft::new(&autoscaler, at(9));
    assert_eq!(draft.combine(vec![value(2000), broken()], 2).map(|it| it.0), Some(4));
    let mut draft = Draft::new(&autoscaler, at(9));
    assert_eq!(draft.combine(vec![value(100), broken()], 2), None);
    assert!(events(&draft)[1].contains("(1 invalid out of 2)"));
}

#[test]
fn only_one_may_scale_a_pod() {
    let key = |name: &str| ObjectKey::new("default", name);
    let selector = |text: &str| LabelSelector::parse(text).unwrap();
    let selectors = [
        (key("a"), selector("app=x")),
        (key("b"), selector("app")),
        (key("c"), selector("app=y")),
        (ObjectKey::new("other", "a"), selector("app=x")),
    ]
    .into();
    let mut pod = running("p", None);
    pod.metadata.labels = Some([("app".to_owned(), "x".to_owned())].into());
    let found = rivals(&key("a"), &selectors, &[Arc::new(pod)]);
    assert_eq!(found, [key("a"), key("b")]);
    assert_eq!(rivals(&key("a"), &selectors, &[]), []);
    let autoscaler = autoscaler(json!({}));
    let mut draft = Draft::new(&autoscaler, at(9));
    draft.has_rivals("app=x", &found);
    let message = "pods by selector app=x are controlled by multiple HPAs: [default/a default/b]";
    assert_eq!(conditions(&draft), [format!("ScalingActive=False AmbiguousSelector: {message}")]);
}

#[test]
fn tolerances_are_the_objects_own_where_it_has_some() {
    let behavior = json!({"scaleUp": {"tolerance": "50m"}, "scaleDown": {}});
    let found = tolerances(&autoscaler(json!({"behavior": behavior})));
    assert_eq!(found, Tolerances { down: 0.1, up: 0.05 });
}

#[test]
fn what_has_not_changed_is_not_written_again() {
    let mut autoscaler = autoscaler(json!({}));
    let mut draft = Draft::new(&autoscaler, at(9));
    draft.without_scale("gone");
    let (changed, events) = draft.changed();
    assert_eq!(events.len(), 1);
    autoscaler.status = changed.unwrap().status;
    let mut draft = Draft::new(&autoscaler, at(99));
    draft.without_scale("gone");
    assert_eq!(draft.changed().0, None);
}
