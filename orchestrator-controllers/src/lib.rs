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

mod addresses;
mod attach_detach;
mod bootstrap_signer;
mod certificates;
mod cloud;
mod context;
mod cronjob;
mod daemonset;
mod deployment;
mod disruption;
mod endpoints;
mod endpointslice;
mod endpointslice_mirroring;
mod ephemeral_volume;
mod garbage_collector;
mod go;
mod horizontal_pod_autoscaler;
mod job;
mod legacy_token_cleaner;
mod limits;
mod namespace;
mod node_ipam;
mod node_lifecycle;
mod node_ttl;
mod pod_garbage_collector;
mod pods;
mod replicaset;
mod resource_claim;
mod resourcequota;
mod role_aggregation;
mod root_ca;
mod service_cidr;
mod serviceaccount;
mod set;
mod statefulset;
mod taint_eviction;
mod token_cleaner;
mod ttl_after_finished;
mod volume_expansion;
mod volumes;
mod writes;

use futures::FutureExt;

pub use certificates::{CertificateSigner, SigningError, SigningRequest};
pub use cloud::{CloudError, CloudProvider, InstanceMetadata, Instances, LoadBalancers, LocalCloud, Route, Routes};
pub use context::Options;
pub use horizontal_pod_autoscaler::{MetricsError, MetricsSource, PodMetric};
pub use set::{ControllerState, Controllers, ControllersBuilder, UnknownController};
pub use volumes::{DirectoryProvisioner, LocalDirectories, PlannedDirectories};

use set::Entry;

/// All controllers, by upstream's names.
const TABLE: &[Entry] = &[
    Entry {
        name: "bootstrap-signer-controller",
        component: "bootstrap-signer",
        run: |context, shutdown| bootstrap_signer::run(context, shutdown).boxed(),
    },
    Entry {
        name: "certificatesigningrequest-approving-controller",
        component: "certificate-controller",
        run: |context, shutdown| certificates::run_approving(context, shutdown).boxed(),
    },
    Entry {
        name: "certificatesigningrequest-cleaner-controller",
        component: "certificate-controller",
        run: |context, shutdown| certificates::run_cleaning(context, shutdown).boxed(),
    },
    Entry {
        name: "certificatesigningrequest-signing-controller",
        component: "certificate-controller",
        run: |context, shutdown| certificates::run_signing(context, shutdown).boxed(),
    },
    Entry {
        name: "cloud-node-controller",
        component: "cloud-node-controller",
        run: |context, shutdown| cloud::node::run(context, shutdown).boxed(),
    },
    Entry {
        name: "cloud-node-lifecycle-controller",
        component: "cloud-node-lifecycle-controller",
        run: |context, shutdown| cloud::node_lifecycle::run(context, shutdown).boxed(),
    },
    Entry {
        name: "clusterrole-aggregation-controller",
        component: "clusterrole-aggregation-controller",
        run: |context, shutdown| role_aggregation::run(context, shutdown).boxed(),
    },
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
        name: "ephemeral-volume-controller",
        component: "ephemeral_volume",
        run: |context, shutdown| ephemeral_volume::run(context, shutdown).boxed(),
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
        name: "legacy-serviceaccount-token-cleaner-controller",
        component: "legacy-service-account-token-cleaner",
        run: |context, shutdown| legacy_token_cleaner::run(context, shutdown).boxed(),
    },
    Entry {
        name: "namespace-controller",
        component: "namespace-controller",
        run: |context, shutdown| namespace::run(context, shutdown).boxed(),
    },
    Entry {
        name: "node-ipam-controller",
        component: "cidrAllocator",
        run: |context, shutdown| node_ipam::run(context, shutdown).boxed(),
    },
    Entry {
        name: "node-lifecycle-controller",
        component: "node-controller",
        run: |context, shutdown| node_lifecycle::run(context, shutdown).boxed(),
    },
    Entry {
        name: "node-route-controller",
        component: "route_controller",
        run: |context, shutdown| cloud::route::run(context, shutdown).boxed(),
    },
    Entry {
        name: "persistentvolume-attach-detach-controller",
        component: "attachdetach-controller",
        run: |context, shutdown| attach_detach::run(context, shutdown).boxed(),
    },
    Entry {
        name: "persistentvolume-binder-controller",
        component: "persistentvolume-controller",
        run: |context, shutdown| volumes::run(context, shutdown).boxed(),
    },
    Entry {
        name: "persistentvolume-expander-controller",
        component: "volume_expand",
        run: |context, shutdown| volume_expansion::run(context, shutdown).boxed(),
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
        name: "resourceclaim-controller",
        component: "resource_claim",
        run: |context, shutdown| resource_claim::run(context, shutdown).boxed(),
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
        name: "service-cidr-controller",
        component: "service-cidr-controller",
        run: |context, shutdown| service_cidr::run(context, shutdown).boxed(),
    },
    Entry {
        name: "service-lb-controller",
        component: "service-controller",
        run: |context, shutdown| cloud::service_lb::run(context, shutdown).boxed(),
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
        name: "token-cleaner-controller",
        component: "token-cleaner",
        run: |context, shutdown| token_cleaner::run(context, shutdown).boxed(),
    },
    Entry {
        name: "ttl-after-finished-controller",
        component: "ttl-after-finished-controller",
        run: |context, shutdown| ttl_after_finished::run(context, shutdown).boxed(),
    },
    Entry {
        name: "ttl-controller",
        component: "ttl-controller",
        run: |context, shutdown| node_ttl::run(context, shutdown).boxed(),
    },
];

/// Controllers that run only where they are asked for by name. As upstream's.
const OFF_BY_DEFAULT: &[&str] = &["bootstrap-signer-controller", "token-cleaner-controller"];
