//! Why a pod goes where it goes, as a table: each node's refusals or scores (raw, normalised, weighted).
//!
//! `--recording FILE` names a recorded decision (YAML or JSON: `nodes`, `pods`, `pending`); without it a small cluster is
//! made up. `--config FILE` is a `KubeSchedulerConfiguration` whose first profile decides.
#![expect(clippy::print_stdout, reason = "a program for people to look at")]

use std::{error::Error, path::PathBuf};

use clap::Parser;
use orchestrator::{
    core::yaml,
    kube_scheduler::{
        config::Configuration,
        explain::explain,
        framework::Profile,
        what_if::{Recording, what_if},
    },
    scheduler::{PodInfo, Verdict},
};

/// A zone that is full, a node that is closed off, and a pod that likes disks.
const MADE_UP: &str = "
nodes:
- {metadata: {name: big, labels: {zone: a, disk: ssd}}, status: {allocatable: {cpu: '8', memory: 16Gi, pods: '110'}}}
- {metadata: {name: small, labels: {zone: b}}, status: {allocatable: {cpu: '2', memory: 4Gi, pods: '110'}}}
- {metadata: {name: full, labels: {zone: b, disk: ssd}}, status: {allocatable: {cpu: '1', memory: 4Gi, pods: '110'}}}
- metadata: {name: closed}
  spec: {taints: [{key: dedicated, value: other, effect: NoSchedule}]}
  status: {allocatable: {cpu: '8', memory: 16Gi, pods: '110'}}
pods:
- metadata: {name: busy, namespace: default}
  spec: {nodeName: full, containers: [{name: c, resources: {requests: {cpu: 900m}}}]}
pending:
  metadata: {name: web, namespace: default, labels: {app: web}}
  spec:
    containers: [{name: c, image: web, resources: {requests: {cpu: 500m, memory: 256Mi}}}]
    affinity:
      nodeAffinity:
        preferredDuringSchedulingIgnoredDuringExecution:
        - {weight: 10, preference: {matchExpressions: [{key: disk, operator: In, values: [ssd]}]}}
";

/// Why a pod goes where it goes.
#[derive(Parser)]
struct Options {
    /// A recorded decision.
    #[arg(long, value_name = "FILE")]
    recording: Option<PathBuf>,
    /// A configuration of the scheduler.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How many pods like the recorded one to place, one after another.
    #[arg(long, value_name = "COUNT", default_value_t = 5)]
    replicas: usize,
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let text = options.recording.map_or_else(|| Ok(MADE_UP.to_owned()), std::fs::read_to_string)?;
    let recording: Recording = serde_json::from_value(yaml::parse(&text)?)?;
    let profile = match options.config {
        Some(file) => Configuration::from_yaml(&std::fs::read_to_string(file)?)?.profiles.swap_remove(0),
        None => Profile::default(),
    };
    let cluster = recording.cluster();
    let pod = PodInfo::from(recording.pending.clone());
    print!("{}", explain(&profile, &pod, &cluster, recording.tie));

    let replicas = (0..options.replicas).map(|number| {
        let mut replica = recording.pending.clone();
        replica.metadata.name = Some(format!("{}-{number}", pod.key().name));
        PodInfo::from(replica).into()
    });
    println!("\n{} pods like it, one after another:", options.replicas);
    for outcome in what_if(&profile, cluster, replicas, recording.tie).0 {
        match outcome.verdict {
            Verdict::Node(node) => println!("{} runs on {node}", outcome.pod.key()),
            Verdict::Unschedulable(why) => println!("{}: {}", outcome.pod.key(), why.message()),
            other => println!("{}: {other:?}", outcome.pod.key()),
        }
    }
    Ok(())
}
