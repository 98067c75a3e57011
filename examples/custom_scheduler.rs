//! An own scheduler in about 60 lines: proven by the contract that every scheduler has to keep, then put in the place of
//! the default one. It fills a machine before it opens the next.
#![expect(clippy::print_stdout, reason = "a program for people to look at")]

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use orchestrator::{
    Cluster, NodeSpec,
    env::Env,
    k8s_openapi::api::core::v1::{Node, Pod, PodSpec},
    node::NodeConfig,
    runtime_sim::{MachineConfig, SimMachine},
    scheduler::{NodeState, PodInfo, Scheduler, Snapshot, Unschedulable, Verdict, matching},
};
use orchestrator_testkit::scheduler::CASES;

/// Runs each pod on the fullest machine that it fits on, so that machines stay empty and can be switched off.
struct FillUp;

impl Scheduler for FillUp {
    fn schedule(&self, pod: &PodInfo, cluster: &Snapshot, _tie: u64) -> Verdict {
        let default = PodSpec::default();
        let spec = pod.pod().spec.as_ref().unwrap_or(&default);
        if spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty()) {
            return Verdict::Gated;
        }
        let mut why = Unschedulable::new(cluster.len());
        let mut fullest: Option<&NodeState> = None;
        for node in cluster.nodes() {
            let reasons = obstacles(pod, spec, node);
            if !reasons.is_empty() {
                reasons.into_iter().for_each(|reason| why.reject(node.name(), reason));
            } else if fullest.is_none_or(|best| load(node) > load(best)) {
                fullest = Some(node);
            }
        }
        match fullest {
            Some(node) => Verdict::Node(node.name().to_owned()),
            None => why.into(),
        }
    }
}

/// What keeps a pod off a node.
fn obstacles(pod: &PodInfo, spec: &PodSpec, node: &NodeState) -> Vec<String> {
    let mut reasons = Vec::new();
    let mut refuse_if = |refused: bool, reason: &str| {
        if refused {
            reasons.push(reason.to_owned());
        }
    };
    let tolerations = matching::tolerations(spec);
    refuse_if(matching::is_closed(tolerations, node.node()), "node(s) were unschedulable");
    refuse_if(matching::untolerated_taint(tolerations, node.node()).is_some(), "node(s) had untolerated taint(s)");
    let selected = matching::node_affinity_matches(spec, node.node());
    refuse_if(!selected, "node(s) didn't match Pod's node affinity/selector");
    refuse_if(!pod.affinity().required.is_empty(), "this scheduler does not know pod affinity");
    refuse_if(!pod.affinity().anti_required.is_empty(), "this scheduler does not know pod anti-affinity");
    let ports = pod.host_ports().iter().any(|port| node.used_ports().any(|used| used.conflicts(port)));
    refuse_if(ports, "node(s) didn't have free ports for the requested pod ports");
    refuse_if(node.pods().len() as i64 >= node.allocatable().pods, "Too many pods");
    let (requests, taken, has) = (pod.requests(), node.requested(), node.allocatable());
    let scalars = requests.scalar.keys().map(String::as_str);
    for resource in ["cpu", "memory", "ephemeral-storage"].into_iter().chain(scalars) {
        let asked = requests.get(resource);
        refuse_if(asked > 0 && taken.get(resource) + asked > has.get(resource), &format!("Insufficient {resource}"));
    }
    reasons
}

/// How full a node is: CPU that is asked for, in thousandths of the node, then pods.
fn load(node: &NodeState) -> (i64, usize) {
    (node.requested().milli_cpu * 1000 / node.allocatable().milli_cpu.max(1), node.pods().len())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    for (name, case) in CASES {
        // A promise that is broken is a panic that says which, with the smallest cluster that shows it.
        case(&FillUp);
        println!("held: {}", name.replace('_', " "));
    }
    let env = Env::real();
    let mut builder = Cluster::builder().env(&env).scheduler(Box::new(FillUp));
    for index in 1..=4 {
        let machine = SimMachine::new(&env, MachineConfig::default());
        let config = NodeConfig::default().with_capacity("cpu", "4");
        builder = builder.node(NodeSpec::new(format!("node-{index}"), Arc::new(machine.runtime())).config(config));
    }
    let cluster = builder.start().await?;
    let patience = Duration::from_secs(30);
    let open = |nodes: &[Arc<Node>]| nodes.iter().filter(|node| matching::taints(node).is_empty()).count() == 4;
    cluster.wait_until("", patience, open).await?;
    cluster.apply(WORKLOAD).await?;
    let pods = cluster.wait_until("default", patience, |pods: &[Arc<Pod>]| {
        pods.iter().filter(|pod| node_of(pod).is_some()).count() == 8 && pods.iter().any(|pod| refusal(pod).is_some())
    });
    let pods = pods.await?;
    let mut per_node: BTreeMap<&str, usize> = BTreeMap::new();
    for node in pods.iter().filter_map(|pod| node_of(pod)) {
        *per_node.entry(node).or_default() += 1;
    }
    per_node.iter().for_each(|(node, pods)| println!("{node}: {pods} pods"));
    let refused: Vec<&str> = pods.iter().filter_map(|pod| refusal(pod)).collect();
    println!("refused: {}", refused.join("; "));
    // Two machines are full, the others were not touched.
    assert_eq!(per_node.into_values().collect::<Vec<_>>(), [4, 4]);
    assert_eq!(refused, ["0/4 nodes are available: 4 Insufficient cpu."]);
    cluster.shutdown().await;
    Ok(())
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

/// Why a pod has no node.
fn refusal(pod: &Pod) -> Option<&str> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let refused = conditions.iter().find(|it| it.type_ == "PodScheduled" && it.status == "False")?;
    refused.message.as_deref()
}

const WORKLOAD: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: small}
spec:
  replicas: 8
  selector: {matchLabels: {app: small}}
  template:
    metadata: {labels: {app: small}}
    spec:
      containers:
      - {name: main, image: worker, resources: {requests: {cpu: 1}}}
---
apiVersion: v1
kind: Pod
metadata: {name: huge}
spec:
  containers:
  - {name: main, image: worker, resources: {requests: {cpu: 5}}}
";
