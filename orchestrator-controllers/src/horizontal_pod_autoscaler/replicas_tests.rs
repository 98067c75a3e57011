//! Replicas by metrics of pods that start, go, or have none, and for any values.

use k8s_openapi::{api::core::v1::PodCondition, apimachinery::pkg::apis::meta::v1::Time};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::pods::fixtures::{at, running};

const TENTH: Tolerances = Tolerances { down: 0.1, up: 0.1 };
const HALF: Target<'_> = Target::Utilization { percent: 50, resource: "cpu", container: None };

/// A pod that asks for a core and has been ready for long.
fn pod(name: &str) -> Pod {
    let mut pod = running(name, Some(0));
    pod.spec = serde_json::from_value(json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]}))
        .unwrap();
    pod.status.as_mut().unwrap().start_time = Some(Time(at(-1000)));
    pod
}

fn pods(count: usize) -> Vec<Arc<Pod>> {
    (0..count).map(|index| Arc::new(pod(&format!("p{index}")))).collect()
}

fn metrics(values: &[i64]) -> BTreeMap<String, PodMetric> {
    let metric = |milli_value| PodMetric { timestamp: at(1000), window: Duration::from_secs(30), milli_value };
    values.iter().enumerate().map(|(index, value)| (format!("p{index}"), metric(*value))).collect()
}

fn observed(pods: &[Arc<Pod>]) -> Observed<'_> {
    let count = pods.len() as i32;
    Observed { pods, wanted: count, present: count, tolerances: TENTH, now: at(1000) }
}

fn utilization(pods: &[Arc<Pod>], values: &[i64]) -> (i32, Option<i32>) {
    let (replicas, usage) = for_pods(observed(pods), HALF, metrics(values)).unwrap();
    (replicas, usage.utilization)
}

#[test]
fn replicas_follow_the_ratio_outside_of_the_tolerance() {
    assert_eq!(utilization(&pods(3), &[900, 900, 900]), (6, Some(90)));
    assert_eq!(utilization(&pods(3), &[540, 540, 540]), (3, Some(54)), "within a tenth");
    assert_eq!(utilization(&pods(3), &[100, 100, 100]), (1, Some(10)));
    let average = Target::Average { milli_value: 100, resource: None };
    let (replicas, usage) = for_pods(observed(&pods(2)), average, metrics(&[300, 100])).unwrap();
    assert_eq!((replicas, usage.average, usage.utilization), (4, 200, None));
}

#[test]
fn pods_without_metrics_hold_back_in_either_direction() {
    // The missing one is taken to use nothing: 1800 of 3000.
    assert_eq!(utilization(&pods(3), &[900, 900]), (4, Some(90)));
    // Here it is taken to use all that it asks for: 1200 of 3000.
    assert_eq!(utilization(&pods(3), &[100, 100]), (3, Some(10)));
    // Taken for full, it would turn the direction.
    assert_eq!(utilization(&pods(2), &[440]), (2, Some(44)));
}

#[test]
fn what_pods_use_while_they_start_tells_nothing() {
    let mut starting = pods(3);
    let status = Arc::make_mut(&mut starting[2]).status.as_mut().unwrap();
    status.start_time = Some(Time(at(990)));
    status.conditions = Some(vec![PodCondition {
        last_transition_time: Some(Time(at(995))),
        ..status.conditions.clone().unwrap().remove(0)
    }]);
    assert_eq!(utilization(&starting, &[900, 900, 5000]), (4, Some(90)));
    let average = Target::Average { milli_value: 500, resource: None };
    let (replicas, _) = for_pods(observed(&starting), average, metrics(&[900, 900, 900])).unwrap();
    assert_eq!(replicas, 6, "of other metrics it does not matter");
    let mut going = pods(2);
    Arc::make_mut(&mut going[1]).metadata.deletion_timestamp = Some(Time(at(1)));
    assert_eq!(utilization(&going, &[900, 100]), (2, Some(90)), "one that goes counts not at all");
}

#[test]
fn failures_have_upstreams_words() {
    let error = |pods: &[Arc<Pod>], values: &[i64]| for_pods(observed(pods), HALF, metrics(values)).unwrap_err().0;
    assert_eq!(error(&[], &[]), "no pods returned by selector while calculating replica count");
    assert_eq!(error(&pods(1), &[]), "did not receive metrics for targeted pods (pods might be unready)");
    let bare = vec![Arc::new(running("p0", Some(0)))];
    let mut bare_starting = bare.clone();
    Arc::make_mut(&mut bare_starting[0]).status.as_mut().unwrap().start_time = Some(Time(at(-1000)));
    Arc::make_mut(&mut bare_starting[0]).spec = serde_json::from_value(json!({"containers": [{"name": "c"}]})).unwrap();
    assert_eq!(error(&bare_starting, &[1]), "missing request for cpu in container c of Pod p0");
}

#[test]
fn one_value_is_compared_as_a_whole_or_by_parts() {
    let three = pods(3);
    assert_eq!(for_value(observed(&three), 100, 200), Ok(6));
    assert_eq!(for_value(observed(&three), 100, 105), Ok(3));
    assert_eq!(for_value(Observed { wanted: 0, ..observed(&three) }, 100, 250), Ok(3), "from zero by the ratio alone");
    let error = for_value(Observed { wanted: 1, ..observed(&[]) }, 100, 250).unwrap_err();
    assert_eq!(error.0, "unable to calculate ready pods: no pods returned by selector while calculating replica count");
    assert_eq!(for_value_per_pod(observed(&three), 100, 1000), (10, 334));
    assert_eq!(for_value_per_pod(observed(&three), 100, 310), (3, 104));
}

proptest! {
    #[test]
    fn replicas_move_towards_the_target_only(
        values in prop::collection::vec(0..4000_i64, 1..8), missing in 0..3_usize, percent in 1..200_i32,
    ) {
        let pods = pods(values.len() + missing);
        let target = Target::Utilization { percent, resource: "cpu", container: None };
        let (replicas, usage) = for_pods(observed(&pods), target, metrics(&values)).unwrap();
        let present = pods.len() as i32;
        prop_assert!(replicas <= present || usage.ratio > 1.0, "{replicas} of {present} at {}", usage.ratio);
        prop_assert!(replicas >= present || usage.ratio < 1.0, "{replicas} of {present} at {}", usage.ratio);
    }

    #[test]
    fn missing_metrics_never_make_a_change_larger(values in prop::collection::vec(0..4000_i64, 1..8), missing in 1..3_usize) {
        let pods = pods(values.len() + missing);
        let (with_missing, _) = for_pods(observed(&pods), HALF, metrics(&values)).unwrap();
        let known = &pods[..values.len()];
        let (all_known, _) = for_pods(Observed { pods: known, ..observed(&pods) }, HALF, metrics(&values)).unwrap();
        let present = pods.len() as i32;
        if with_missing > present {
            // Percentages are rounded down, so that one more may come of the rounding.
            prop_assert!(with_missing <= all_known + 1);
        }
        if with_missing < present {
            prop_assert!(with_missing + 1 >= all_known);
        }
    }
}
