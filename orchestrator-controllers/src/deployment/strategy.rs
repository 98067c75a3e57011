//! The numbers of a deployment's strategy.

use k8s_openapi::{
    api::apps::v1::{Deployment, RollingUpdateDeployment},
    apimachinery::pkg::util::intstr::IntOrString,
};

use crate::pods;

/// How many replicas are wanted.
pub(crate) fn wanted(deployment: &Deployment) -> i32 {
    deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

/// Whether old pods all go before new ones come.
pub(crate) fn is_recreate(deployment: &Deployment) -> bool {
    let strategy = deployment.spec.as_ref().and_then(|spec| spec.strategy.as_ref());
    strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate")
}

/// How many pods there may be above the wanted number.
pub(crate) fn max_surge(deployment: &Deployment) -> i32 {
    if is_recreate(deployment) { 0 } else { fenceposts(deployment).0 }
}

/// How many of the wanted pods may be unavailable.
pub(crate) fn max_unavailable(deployment: &Deployment) -> i32 {
    let wanted = wanted(deployment);
    if is_recreate(deployment) || wanted == 0 { 0 } else { fenceposts(deployment).1.min(wanted) }
}

/// Surge and unavailability as numbers of pods. Percentages round up for the surge and down for unavailability; where
/// both come to nothing, one pod may be unavailable, or nothing could ever move.
fn fenceposts(deployment: &Deployment) -> (i32, i32) {
    let strategy = deployment.spec.as_ref().and_then(|spec| spec.strategy.as_ref());
    let rolling = strategy.and_then(|strategy| strategy.rolling_update.clone()).unwrap_or_default();
    let RollingUpdateDeployment { max_surge, max_unavailable } = rolling;
    let surge = scaled(max_surge.as_ref(), wanted(deployment), true);
    let unavailable = scaled(max_unavailable.as_ref(), wanted(deployment), false);
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
}

/// A number, or a percentage of `total`; a quarter when nothing is said.
fn scaled(value: Option<&IntOrString>, total: i32, round_up: bool) -> i32 {
    let quarter = IntOrString::String("25%".to_owned());
    pods::scaled(value.unwrap_or(&quarter), total, round_up)
}

#[cfg(test)]
pub(super) mod fixtures {
    use k8s_openapi::api::apps::v1::{DeploymentSpec, DeploymentStrategy};

    use super::*;

    /// A deployment with a rolling update.
    pub(crate) fn rolling(replicas: i32, surge: IntOrString, unavailable: IntOrString) -> Deployment {
        let mut deployment = Deployment::default();
        deployment.metadata.name = Some("d".to_owned());
        deployment.metadata.uid = Some("uid-d".to_owned());
        deployment.metadata.generation = Some(1);
        deployment.spec = Some(DeploymentSpec {
            replicas: Some(replicas),
            progress_deadline_seconds: Some(600),
            revision_history_limit: Some(10),
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".to_owned()),
                rolling_update: Some(RollingUpdateDeployment {
                    max_surge: Some(surge),
                    max_unavailable: Some(unavailable),
                }),
            }),
            ..Default::default()
        });
        deployment
    }
}

#[cfg(test)]
mod tests {
    use super::{fixtures::rolling, *};

    #[test]
    fn percentages_round_as_upstream() {
        let percent = |text: &str| IntOrString::String(text.to_owned());
        for (replicas, surge, unavailable, expected) in [
            (10, percent("25%"), percent("25%"), (3, 2)),
            (1, percent("25%"), percent("25%"), (1, 0)),
            (5, percent("0%"), percent("10%"), (0, 1)),
            (5, IntOrString::Int(0), IntOrString::Int(0), (0, 1)),
            (2, IntOrString::Int(1), IntOrString::Int(9), (1, 2)),
            (0, percent("50%"), percent("50%"), (0, 0)),
        ] {
            let deployment = rolling(replicas, surge, unavailable);
            assert_eq!((max_surge(&deployment), max_unavailable(&deployment)), expected, "{replicas}");
        }
    }
}
