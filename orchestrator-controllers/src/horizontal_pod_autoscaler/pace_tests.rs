//! Rates, windows and bounds, by example and for any history.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::pods::fixtures::at;

fn behavior(tree: serde_json::Value) -> HorizontalPodAutoscalerBehavior {
    serde_json::from_value(tree).unwrap()
}

fn wish(present: i32, wanted: i32) -> Wish {
    Wish { minimum: 1, maximum: 20, present, wanted }
}

#[test]
fn without_rules_growth_doubles_and_shrinking_waits_for_old_recommendations() {
    let mut history = History::default();
    history.begin(8, at(0));
    assert_eq!(history.stabilize(wish(8, 2), None, at(10)).replicas, 8);
    assert_eq!(history.stabilize(wish(8, 3), None, at(301)).replicas, 3, "the first one has grown old");
    assert_eq!(history.stabilize(wish(8, 1), None, at(302)).reason, "ScaleDownStabilized");
    let limit = |present, wanted| {
        let limited = history.limit(wish(present, wanted), None, at(0));
        (limited.replicas, limited.reason)
    };
    assert_eq!(limit(3, 9), (6, "ScaleUpLimit"));
    assert_eq!(limit(1, 9), (4, "ScaleUpLimit"));
    assert_eq!(limit(15, 25), (20, "TooManyReplicas"));
    assert_eq!(limit(15, 0), (1, "TooFewReplicas"));
    assert_eq!(limit(15, 16), (16, "DesiredWithinRange"));
}

#[test]
fn policies_count_what_was_done_in_their_period() {
    let rules = behavior(json!({
        "scaleUp": {"policies": [{"type": "Pods", "value": 2, "periodSeconds": 60}]},
        "scaleDown": {
            "policies": [{"type": "Pods", "value": 4, "periodSeconds": 60}, {"type": "Percent", "value": 50, "periodSeconds": 60}],
            "selectPolicy": "Min",
        },
    }));
    let mut history = History::default();
    let limit = |history: &History, present, wanted, second| {
        let limited = history.limit(wish(present, wanted), Some(&rules), at(second));
        (limited.replicas, limited.reason)
    };
    assert_eq!(limit(&history, 3, 9, 0), (5, "ScaleUpLimit"));
    history.scaled(3, 5, Some(&rules), at(0));
    assert_eq!(limit(&history, 5, 9, 30), (5, "ScaleUpLimit"), "no more in this minute");
    assert_eq!(limit(&history, 5, 9, 60), (7, "ScaleUpLimit"));
    assert_eq!(limit(&History::default(), 12, 1, 0), (8, "ScaleDownLimit"), "four are less than half of them");
    assert_eq!(limit(&History::default(), 6, 1, 0), (3, "ScaleDownLimit"), "half are less than four");
    let disabled = behavior(json!({"scaleUp": {"selectPolicy": "Disabled"}}));
    assert_eq!(history.limit(wish(3, 9), Some(&disabled), at(0)).replicas, 3);
}

#[test]
fn windows_hold_in_both_directions() {
    let rules = behavior(json!({
        "scaleUp": {"stabilizationWindowSeconds": 60}, "scaleDown": {"stabilizationWindowSeconds": 0},
    }));
    let mut history = History::default();
    history.begin(3, at(0));
    let first = history.stabilize(wish(3, 9), Some(&rules), at(10));
    assert_eq!((first.replicas, first.reason), (3, "ScaleUpStabilized"));
    assert_eq!(history.stabilize(wish(3, 8), Some(&rules), at(61)).replicas, 8, "the lowest of the last minute");
    assert_eq!(history.stabilize(wish(3, 1), Some(&rules), at(62)).replicas, 1, "downwards there is no window");
}

fn rules() -> impl Strategy<Value = Option<HorizontalPodAutoscalerBehavior>> {
    let policy = (prop_oneof![Just("Pods"), Just("Percent")], 1..200_i32, 1..120_i32)
        .prop_map(|(type_, value, period)| json!({"type": type_, "value": value, "periodSeconds": period}));
    let select = prop_oneof![Just("Max"), Just("Min"), Just("Disabled")];
    let side = (prop::collection::vec(policy, 0..3), select, 0..200_i32).prop_map(
        |(policies, select, window)| json!({"policies": policies, "selectPolicy": select, "stabilizationWindowSeconds": window}),
    );
    let both = (side.clone(), side).prop_map(|(up, down)| behavior(json!({"scaleUp": up, "scaleDown": down})));
    prop::option::of(both)
}

proptest! {
    #[test]
    fn replicas_stay_within_their_bounds_and_go_no_further_than_wanted(
        rules in rules(), bounds in (1..10_i32, 0..10_i32), start in 0..20_i32,
        wanted in prop::collection::vec((0..40_i32, 1..100_i64), 1..20),
    ) {
        let (minimum, maximum) = (bounds.0, bounds.0 + bounds.1);
        let mut present = (minimum + start).min(maximum);
        let (mut history, mut second) = (History::default(), 0);
        history.begin(present, at(0));
        for (wanted, pause) in wanted {
            second += pause;
            let wish = Wish { minimum, maximum, present, wanted };
            let stabilized = history.stabilize(wish, rules.as_ref(), at(second)).replicas;
            let limited = history.limit(Wish { wanted: stabilized, ..wish }, rules.as_ref(), at(second)).replicas;
            prop_assert!((minimum..=maximum).contains(&limited), "{limited} of {wish:?}");
            let (low, high) = (present.min(stabilized.max(minimum)), present.max(stabilized.min(maximum)));
            prop_assert!((low..=high).contains(&limited), "{limited} of {wish:?}, stabilized {stabilized}");
            if limited != present {
                history.scaled(present, limited, rules.as_ref(), at(second));
            }
            present = limited;
        }
    }

    #[test]
    fn what_is_remembered_is_bounded(rules in rules(), wanted in 1..20_i32) {
        let mut history = History::default();
        for second in 0..2000 {
            let wish = Wish { minimum: 1, maximum: 20, present: 5, wanted };
            history.stabilize(wish, rules.as_ref(), at(second));
            history.scaled(5, 6, rules.as_ref(), at(second));
            history.scaled(6, 5, rules.as_ref(), at(second));
        }
        prop_assert!(history.recommended.len() <= 302 && history.grown.len() <= 122 && history.shrunk.len() <= 122);
    }
}
