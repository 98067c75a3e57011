//! How fast replicas may come and go: bounds, rates, and windows in which recommendations are kept in mind.
//!
//! Upstream: <https://kubernetes.io/docs/concepts/workloads/autoscaling/horizontal-pod-autoscale/#configurable-scaling-behavior>.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::{HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscalerBehavior};

use crate::limits::DOWNSCALE_WINDOW;

/// What an autoscaler remembers. It is lost with the controller, as upstream's.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct History {
    recommended: Vec<(Timestamp, i32)>,
    grown: Vec<(Timestamp, i32)>,
    shrunk: Vec<(Timestamp, i32)>,
}

/// How many replicas a workload has, may have and should have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wish {
    pub minimum: i32,
    pub maximum: i32,
    pub present: i32,
    pub wanted: i32,
}

/// A number of replicas, and why it is that one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limited {
    pub replicas: i32,
    pub reason: &'static str,
    pub message: &'static str,
}

impl Limited {
    fn new(replicas: i32, reason: &'static str, message: &'static str) -> Self {
        Self { replicas, reason, message }
    }

    fn within_range(replicas: i32) -> Self {
        Self::new(replicas, "DesiredWithinRange", "the desired count is within the acceptable range")
    }

    fn too_few(replicas: i32) -> Self {
        Self::new(replicas, "TooFewReplicas", "the desired replica count is less than the minimum replica count")
    }

    fn too_many(replicas: i32) -> Self {
        Self::new(replicas, "TooManyReplicas", "the desired replica count is more than the maximum replica count")
    }

    fn grows_too_fast(replicas: i32) -> Self {
        let message = "the desired replica count is increasing faster than the maximum scale rate";
        Self::new(replicas, "ScaleUpLimit", message)
    }

    fn shrinks_too_fast(replicas: i32) -> Self {
        let message = "the desired replica count is decreasing faster than the maximum scale rate";
        Self::new(replicas, "ScaleDownLimit", message)
    }

    fn after_lower_ones(replicas: i32) -> Self {
        let message = "recent recommendations were lower than current one, applying the lowest recent recommendation";
        Self::new(replicas, "ScaleUpStabilized", message)
    }

    fn after_higher_ones(replicas: i32) -> Self {
        let message = "recent recommendations were higher than current one, applying the highest recent recommendation";
        Self::new(replicas, "ScaleDownStabilized", message)
    }
}

impl History {
    /// What is first seen counts as recommended.
    pub(super) fn begin(&mut self, present: i32, now: Timestamp) {
        if self.recommended.is_empty() {
            self.recommended.push((now, present));
        }
    }

    /// What recent recommendations make of this one, which is remembered.
    pub(super) fn stabilize(
        &mut self,
        wish: Wish,
        behavior: Option<&HorizontalPodAutoscalerBehavior>,
        now: Timestamp,
    ) -> Limited {
        let Some(behavior) = behavior else { return self.stabilize_downwards(wish.wanted, now) };
        let window = |rules: &Option<HPAScalingRules>| rules.as_ref().and_then(|it| it.stabilization_window_seconds);
        let up = before(now, window(&behavior.scale_up).map_or(Duration::ZERO, seconds));
        let down = before(now, window(&behavior.scale_down).map_or(DOWNSCALE_WINDOW, seconds));
        let since = |start: Timestamp| self.recommended.iter().filter(move |(time, _)| *time > start);
        let lowest = since(up).map(|(_, replicas)| *replicas).chain([wish.wanted]).min().unwrap_or(wish.wanted);
        let highest = since(down).map(|(_, replicas)| *replicas).chain([wish.wanted]).max().unwrap_or(wish.wanted);
        self.remember(wish.wanted, up.min(down), now);
        let replicas = wish.present.max(lowest).min(highest);
        match wish.wanted >= wish.present {
            true => Limited::after_lower_ones(replicas),
            false => Limited::after_higher_ones(replicas),
        }
    }

    fn stabilize_downwards(&mut self, wanted: i32, now: Timestamp) -> Limited {
        let start = before(now, DOWNSCALE_WINDOW);
        let recent = self.recommended.iter().filter(|(time, _)| *time >= start).map(|(_, replicas)| *replicas);
        let highest = recent.chain([wanted]).max().unwrap_or(wanted);
        self.remember(wanted, start, now);
        Limited::after_higher_ones(highest)
    }

    fn remember(&mut self, recommended: i32, since: Timestamp, now: Timestamp) {
        self.recommended.retain(|(time, _)| *time >= since);
        self.recommended.push((now, recommended));
    }

    /// What bounds and rates make of a wish.
    pub(super) fn limit(
        &self,
        wish: Wish,
        behavior: Option<&HorizontalPodAutoscalerBehavior>,
        now: Timestamp,
    ) -> Limited {
        match behavior {
            None => limit_without_rules(wish),
            Some(behavior) if wish.wanted > wish.present => self.limit_growth(wish, behavior.scale_up.as_ref(), now),
            Some(behavior) if wish.wanted < wish.present => {
                self.limit_shrinking(wish, behavior.scale_down.as_ref(), now)
            }
            Some(_) => Limited::within_range(wish.wanted),
        }
    }

    fn limit_growth(&self, wish: Wish, rules: Option<&HPAScalingRules>, now: Timestamp) -> Limited {
        let proposals = policies(rules, &GROWTH).into_iter().map(|policy| {
            let start = self.replicas_before(wish.present, &policy, now);
            match &*policy.type_ {
                "Pods" => start.saturating_add(policy.value),
                _ => (f64::from(start) * (1.0 + f64::from(policy.value) / 100.0)).ceil() as i32,
            }
        });
        let fastest = match rules.and_then(|rules| rules.select_policy.as_deref()) {
            Some("Disabled") => Some(wish.present),
            Some("Min") => proposals.min(),
            _ => proposals.max(),
        };
        let fastest = fastest.unwrap_or(wish.present).max(wish.present);
        let allowed =
            if wish.maximum > fastest { Limited::grows_too_fast(fastest) } else { Limited::too_many(wish.maximum) };
        if wish.wanted > allowed.replicas { allowed } else { Limited::within_range(wish.wanted) }
    }

    fn limit_shrinking(&self, wish: Wish, rules: Option<&HPAScalingRules>, now: Timestamp) -> Limited {
        let proposals = policies(rules, &SHRINKING).into_iter().map(|policy| {
            let start = self.replicas_before(wish.present, &policy, now);
            match &*policy.type_ {
                "Pods" => start.saturating_sub(policy.value),
                _ => (f64::from(start) * (1.0 - f64::from(policy.value) / 100.0)) as i32,
            }
        });
        let fastest = match rules.and_then(|rules| rules.select_policy.as_deref()) {
            Some("Disabled") => Some(wish.present),
            Some("Min") => proposals.max(),
            _ => proposals.min(),
        };
        let fastest = fastest.unwrap_or(wish.present).min(wish.present);
        let allowed =
            if wish.minimum < fastest { Limited::shrinks_too_fast(fastest) } else { Limited::too_few(wish.minimum) };
        if wish.wanted < allowed.replicas { allowed } else { Limited::within_range(wish.wanted) }
    }

    /// The replicas at the start of a policy's period.
    fn replicas_before(&self, present: i32, policy: &HPAScalingPolicy, now: Timestamp) -> i32 {
        let start = before(now, seconds(policy.period_seconds));
        let changed = |changes: &[(Timestamp, i32)]| {
            changes.iter().filter(|(time, _)| *time > start).fold(0_i32, |sum, (_, by)| sum.saturating_add(*by))
        };
        present.saturating_sub(changed(&self.grown)).saturating_add(changed(&self.shrunk))
    }

    /// Remembers that replicas were made more or less, for as long as a policy looks back.
    pub(super) fn scaled(
        &mut self,
        from: i32,
        to: i32,
        behavior: Option<&HorizontalPodAutoscalerBehavior>,
        now: Timestamp,
    ) {
        let Some(behavior) = behavior else { return };
        let (rules, usual, changes) = match to > from {
            true => (behavior.scale_up.as_ref(), &GROWTH[..], &mut self.grown),
            false => (behavior.scale_down.as_ref(), &SHRINKING[..], &mut self.shrunk),
        };
        let longest = policies(rules, usual).iter().map(|policy| policy.period_seconds).max().unwrap_or(0);
        let start = before(now, seconds(longest));
        changes.retain(|(time, _)| *time >= start);
        changes.push((now, to.saturating_sub(from).saturating_abs()));
    }
}

/// Types, values and periods of the policies that hold where an object names none: the server's defaults.
type Policy = (&'static str, i32, i32);
const GROWTH: [Policy; 2] = [("Pods", 4, 15), ("Percent", 100, 15)];
const SHRINKING: [Policy; 1] = [("Percent", 100, 15)];

fn policies(rules: Option<&HPAScalingRules>, usual: &[Policy]) -> Vec<HPAScalingPolicy> {
    let named = rules.and_then(|rules| rules.policies.clone()).filter(|policies| !policies.is_empty());
    let usual = usual.iter().map(|(type_, value, period_seconds)| HPAScalingPolicy {
        type_: (*type_).to_owned(),
        value: *value,
        period_seconds: *period_seconds,
    });
    named.unwrap_or_else(|| usual.collect())
}

/// Without rules a workload at most doubles, or grows to four.
fn limit_without_rules(wish: Wish) -> Limited {
    let fastest = wish.present.saturating_mul(2).max(4);
    let allowed =
        if wish.maximum > fastest { Limited::grows_too_fast(fastest) } else { Limited::too_many(wish.maximum) };
    if wish.wanted < wish.minimum {
        Limited::too_few(wish.minimum)
    } else if wish.wanted > allowed.replicas {
        allowed
    } else {
        Limited::within_range(wish.wanted)
    }
}

fn seconds(count: i32) -> Duration {
    Duration::from_secs(u64::try_from(count).unwrap_or(0))
}

fn before(now: Timestamp, pause: Duration) -> Timestamp {
    let pause = SignedDuration::try_from(pause).unwrap_or(SignedDuration::MAX);
    now.saturating_sub(pause).unwrap_or(Timestamp::MIN)
}

#[cfg(test)]
#[path = "pace_tests.rs"]
mod tests;
