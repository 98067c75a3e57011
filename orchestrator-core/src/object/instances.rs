//! Decoders and encoders of the common types, compiled here: builds that optimise little link crates to these, instead of
//! compiling them in each crate that uses them.

use std::sync::Arc;

use k8s_openapi::api::{apps, batch, coordination, core, discovery};

use super::{DecodeError, Object};

macro_rules! instances {
    ($($kind:ty,)*) => {
        $(const _: () = {
            // Statics are compiled whether somebody looks at them or not.
            static _READ: [fn(&Object) -> Result<Arc<$kind>, DecodeError>; 2] = [Object::shared, Object::typed];
            static _WRITE: fn(Arc<$kind>) -> Object = Object::from_typed;
        };)*
    };
}

instances! {
    apps::v1::ControllerRevision,
    apps::v1::DaemonSet,
    apps::v1::Deployment,
    apps::v1::ReplicaSet,
    apps::v1::StatefulSet,
    batch::v1::CronJob,
    batch::v1::Job,
    coordination::v1::Lease,
    core::v1::ConfigMap,
    core::v1::Endpoints,
    core::v1::Event,
    core::v1::Namespace,
    core::v1::Node,
    core::v1::PersistentVolume,
    core::v1::PersistentVolumeClaim,
    core::v1::Pod,
    core::v1::ReplicationController,
    core::v1::Secret,
    core::v1::Service,
    core::v1::ServiceAccount,
    discovery::v1::EndpointSlice,
}
