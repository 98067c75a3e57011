//! The controllers of kube-controller-manager and cloud-controller-manager, one folder each.
//!
//! Start at [`Controllers::builder`] to run them, and at `TABLE` in this file to find them. Each folder has a `decide.rs`,
//! pure and carrying the property tests, and a `mod.rs` that reads the shared caches, asks `decide`, and writes:
//!
//! ```text
//! pub(crate) async fn run(context: ControllerContext, shutdown: CancellationToken)
//! ```
//!
//! Every controller can be replaced by upstream's, or left out: they share nothing but the API server.

mod context;
mod cronjob;
mod daemonset;
mod deployment;
mod disruption;
mod endpoints;
mod endpointslice;
mod endpointslice_mirroring;
mod garbage_collector;
mod go;
mod horizontal_pod_autoscaler;
mod job;
mod limits;
mod namespace;
mod node_lifecycle;
mod pod_garbage_collector;
mod pods;
mod replicaset;
mod resourcequota;
mod root_ca;
mod serviceaccount;
mod set;
mod statefulset;
mod taint_eviction;
mod ttl_after_finished;
mod volumes;

use futures::FutureExt;

pub use context::Options;
pub use horizontal_pod_autoscaler::{MetricsError, MetricsSource, PodMetric};
pub use set::{ControllerState, Controllers, ControllersBuilder, UnknownController};
pub use volumes::{DirectoryProvisioner, LocalDirectories, PlannedDirectories};

use set::Entry;

/// All controllers, by upstream's names.
const TABLE: &[Entry] = &[
    Entry {
        name: "cronjob-controller",
        component: "cronjob-controller",
        run: |context, shutdown| cronjob::run(context, shutdown).boxed(),
    },
    Entry {
        name: "daemonset-controller",
        component: "daemonset-controller",
        run: |context, shutdown| daemonset::run(context, shutdown).boxed(),
    },
    Entry {
        name: "deployment-controller",
        component: "deployment-controller",
        run: |context, shutdown| deployment::run(context, shutdown).boxed(),
    },
    Entry {
        name: "disruption-controller",
        component: "controllermanager",
        run: |context, shutdown| disruption::run(context, shutdown).boxed(),
    },
    Entry {
        name: "endpoints-controller",
        component: "endpoint-controller",
        run: |context, shutdown| endpoints::run(context, shutdown).boxed(),
    },
    Entry {
        name: "endpointslice-controller",
        component: "endpoint-slice-controller",
        run: |context, shutdown| endpointslice::run(context, shutdown).boxed(),
    },
    Entry {
        name: "endpointslice-mirroring-controller",
        component: "endpoint-slice-mirroring-controller",
        run: |context, shutdown| endpointslice_mirroring::run(context, shutdown).boxed(),
    },
    Entry {
        name: "garbage-collector-controller",
        component: "garbage-collector-controller",
        run: |context, shutdown| garbage_collector::run(context, shutdown).boxed(),
    },
    Entry {
        name: "horizontal-pod-autoscaler-controller",
        component: "horizontal-pod-autoscaler",
        run: |context, shutdown| horizontal_pod_autoscaler::run(context, shutdown).boxed(),
    },
    Entry {
        name: "job-controller",
        component: "job-controller",
        run: |context, shutdown| job::run(context, shutdown).boxed(),
    },
    Entry {
        name: "namespace-controller",
        component: "namespace-controller",
        run: |context, shutdown| namespace::run(context, shutdown).boxed(),
    },
    Entry {
        name: "node-lifecycle-controller",
        component: "node-controller",
        run: |context, shutdown| node_lifecycle::run(context, shutdown).boxed(),
    },
    Entry {
        name: "persistentvolume-binder-controller",
        component: "persistentvolume-controller",
        run: |context, shutdown| volumes::run(context, shutdown).boxed(),
    },
    Entry {
        name: "persistentvolume-protection-controller",
        component: "persistentvolume-protection-controller",
        run: |context, shutdown| volumes::run_volume_protection(context, shutdown).boxed(),
    },
    Entry {
        name: "persistentvolumeclaim-protection-controller",
        component: "persistentvolumeclaim-protection-controller",
        run: |context, shutdown| volumes::run_claim_protection(context, shutdown).boxed(),
    },
    Entry {
        name: "pod-garbage-collector-controller",
        component: "pod-garbage-collector",
        run: |context, shutdown| pod_garbage_collector::run(context, shutdown).boxed(),
    },
    Entry {
        name: "replicaset-controller",
        component: "replicaset-controller",
        run: |context, shutdown| replicaset::run(context, shutdown).boxed(),
    },
    Entry {
        name: "replicationcontroller-controller",
        component: "replication-controller",
        run: |context, shutdown| replicaset::run_replication(context, shutdown).boxed(),
    },
    Entry {
        name: "resourcequota-controller",
        component: "resourcequota-controller",
        run: |context, shutdown| resourcequota::run(context, shutdown).boxed(),
    },
    Entry {
        name: "root-ca-certificate-publisher-controller",
        component: "root-ca-certificate-publisher",
        run: |context, shutdown| root_ca::run(context, shutdown).boxed(),
    },
    Entry {
        name: "serviceaccount-controller",
        component: "serviceaccount-controller",
        run: |context, shutdown| serviceaccount::run(context, shutdown).boxed(),
    },
    Entry {
        name: "statefulset-controller",
        component: "statefulset-controller",
        run: |context, shutdown| statefulset::run(context, shutdown).boxed(),
    },
    Entry {
        name: "taint-eviction-controller",
        component: "taint-eviction-controller",
        run: |context, shutdown| taint_eviction::run(context, shutdown).boxed(),
    },
    Entry {
        name: "ttl-after-finished-controller",
        component: "ttl-after-finished-controller",
        run: |context, shutdown| ttl_after_finished::run(context, shutdown).boxed(),
    },
];
