//! The project's own controllers, explored: whatever goes wrong, what is wanted comes about, as it does when all goes well, and
//! then nothing is written any more (Anvil's eventually stable reconciliation, OSDI 2024). And with bugs planted, each of which is
//! found.

mod mutants;
mod planted;
mod scenes;

use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    core::v1::Pod,
};
use orchestrator_sim::explore::{Explorer, generate};
use proptest::strategy::Strategy;
use serde_json::json;

use scenes::{NAMESPACE, controllers};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn passes(explorer: &Explorer) {
    if let Err(failure) = explorer.run() {
        panic!("{failure}");
    }
}

#[test]
fn whatever_a_replica_set_says() {
    let few = |set: &ReplicaSet| set.spec.as_ref().and_then(|spec| spec.replicas).is_none_or(|number| number <= 10);
    let explorer = controllers(&["replicaset-controller"], None)
        .creates_any(generate::built_in::<ReplicaSet>().unwrap().prop_filter("more than a test needs", few))
        .seeds(25)
        .eventually("it has as many pods as it says, and tells so", |objects| {
            let set = objects.get::<ReplicaSet>(NAMESPACE, "example").unwrap_or_default();
            let (wanted, status) = (set.spec.and_then(|spec| spec.replicas), set.status.unwrap_or_default());
            objects.list::<Pod>().len() == wanted.unwrap_or(1) as usize
                && (Some(status.replicas), status.observed_generation) == (wanted, set.metadata.generation)
        });
    passes(&explorer);
}

#[test]
fn whatever_a_deployment_says() {
    let few = |it: &Deployment| it.spec.as_ref().and_then(|spec| spec.replicas).is_none_or(|number| number <= 10);
    let image = json!({"spec": {"template": {"metadata": {"annotations": {"changed": "so"}}}}});
    let explorer = controllers(&["deployment-controller", "replicaset-controller"], None)
        .creates_any(generate::built_in::<Deployment>().unwrap().prop_filter("more than a test needs", few))
        .settles()
        .patches::<Deployment>(NAMESPACE, "example", image)
        .seeds(25)
        .eventually("all of it is new, unless it is paused, and tells so", |objects| {
            let deployment = objects.get::<Deployment>(NAMESPACE, "example").unwrap_or_default();
            let (spec, status) = (deployment.spec.unwrap_or_default(), deployment.status.unwrap_or_default());
            let (wanted, paused) = (spec.replicas.unwrap_or(1), spec.paused == Some(true));
            let updated = status.updated_replicas.unwrap_or(0);
            let asked = objects.list::<ReplicaSet>().iter().filter_map(|set| set.spec.as_ref()?.replicas).sum::<i32>();
            (paused || (updated, objects.list::<Pod>().len()) == (wanted, wanted as usize) && asked == wanted)
                && status.observed_generation == deployment.metadata.generation
        });
    passes(&explorer);
}

#[test]
fn replica_sets() {
    passes(&scenes::replica_sets(None));
}

#[test]
fn deployments() {
    passes(&scenes::deployments(None));
}

#[test]
fn stateful_sets() {
    passes(&scenes::stateful_sets(None));
}

#[test]
fn jobs() {
    passes(&scenes::jobs(None));
}

#[test]
fn namespaces() {
    passes(&scenes::namespaces(None));
}

#[test]
fn endpoint_slices() {
    passes(&scenes::endpoint_slices(None));
}

#[test]
fn garbage() {
    passes(&scenes::garbage(None));
}

#[test]
fn daemon_sets() {
    passes(&scenes::daemon_sets(None));
}

#[test]
fn the_scheduler() {
    passes(&scenes::the_scheduler(None));
}

#[test]
fn the_node_agent() {
    passes(&scenes::the_node_agent());
}

#[test]
fn copies() {
    passes(&scenes::copies(None));
}
