//! What pods ask for of a resource, which utilization is measured by.

use k8s_openapi::api::core::v1::{Container, Pod};
use orchestrator_core::{meta, quantity::Quantity, scheduler::pod_requests};

use super::source::MetricsError;

/// What a pod asks for, or one of its containers, in thousandths.
pub(super) fn requests(pod: &Pod, resource: &str, container: Option<&str>) -> Result<i64, MetricsError> {
    match container {
        None if has_own_requests(pod) => of_whole_pod(pod, resource),
        None => containers(pod).map(|container| of_container(pod, container, resource)).sum(),
        Some(name) => {
            let found = containers(pod).find(|container| container.name == name);
            let missing = || MetricsError(format!("container {name} not found in Pod {}", meta::name(&pod.metadata)));
            of_container(pod, found.ok_or_else(missing)?, resource)
        }
    }
}

/// The containers that run all the time.
fn containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    let spec = pod.spec.iter();
    let sidecars = spec.clone().flat_map(|spec| spec.init_containers.iter().flatten());
    let sidecars = sidecars.filter(|container| container.restart_policy.as_deref() == Some("Always"));
    spec.flat_map(|spec| &spec.containers).chain(sidecars)
}

fn of_container(pod: &Pod, container: &Container, resource: &str) -> Result<i64, MetricsError> {
    let asked = container.resources.as_ref().and_then(|resources| resources.requests.as_ref()?.get(resource));
    let asked = asked.and_then(|asked| Quantity::try_from(asked).ok());
    asked.map(|asked| asked.milli_value()).ok_or_else(|| {
        let pod = meta::name(&pod.metadata);
        MetricsError(format!("missing request for {resource} in container {} of Pod {pod}", container.name))
    })
}

/// Whether a pod asks for resources as a whole.
fn has_own_requests(pod: &Pod) -> bool {
    let own = pod.spec.as_ref().and_then(|spec| spec.resources.as_ref()?.requests.as_ref());
    let counts = |name: &String| matches!(name.as_str(), "cpu" | "memory") || name.starts_with("hugepages-");
    own.is_some_and(|own| own.keys().any(counts))
}

fn of_whole_pod(pod: &Pod, resource: &str) -> Result<i64, MetricsError> {
    let amount = pod_requests(pod).get(resource);
    if amount == 0 {
        let pod = meta::name(&pod.metadata);
        return Err(MetricsError(format!("missing pod-level request for {resource} in Pod {pod}")));
    }
    Ok(if resource == "cpu" { amount } else { amount.saturating_mul(1000) })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(spec: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap()
    }

    #[test]
    fn containers_and_sidecars_count_unless_the_pod_asks_as_a_whole() {
        let container = |name: &str, cpu: &str| json!({"name": name, "resources": {"requests": {"cpu": cpu}}});
        let mut sidecar = container("s", "50m");
        sidecar["restartPolicy"] = "Always".into();
        let mut spec = json!({
            "containers": [container("a", "100m"), container("b", "1")],
            "initContainers": [sidecar, container("i", "8")],
        });
        assert_eq!(requests(&pod(spec.clone()), "cpu", None), Ok(1150));
        assert_eq!(requests(&pod(spec.clone()), "cpu", Some("s")), Ok(50));
        let unknown = requests(&pod(spec.clone()), "cpu", Some("i")).unwrap_err();
        assert_eq!(unknown.to_string(), "container i not found in Pod p");
        let missing = requests(&pod(spec.clone()), "memory", None).unwrap_err();
        assert_eq!(missing.to_string(), "missing request for memory in container a of Pod p");
        spec["resources"] = json!({"requests": {"cpu": "3", "memory": "1Ki"}});
        assert_eq!(requests(&pod(spec.clone()), "cpu", None), Ok(3000));
        assert_eq!(requests(&pod(spec.clone()), "memory", None), Ok(1_024_000));
        assert_eq!(requests(&pod(spec.clone()), "cpu", Some("a")), Ok(100));
        let missing = requests(&pod(spec), "example.com/gpu", None).unwrap_err();
        assert_eq!(missing.to_string(), "missing pod-level request for example.com/gpu in Pod p");
    }
}
