//! One pod on a node: what it asks for, what is there, what to do next, and what to tell.
//!
//! Start at [`decide`], the pure step from observation to operations; [`status`] is the pure step to what the API
//! shows; [`worker`] does what was decided.

pub(crate) mod backoff;
pub(crate) mod containers;
pub(crate) mod decide;
pub(crate) mod mailbox;
pub(crate) mod memory;
pub(crate) mod observed;
pub(crate) mod operation;
pub(crate) mod operations;
pub(crate) mod phase;
pub(crate) mod probe;
pub(crate) mod status;
pub(crate) mod worker;

use std::{borrow::Cow, sync::LazyLock};

use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod, PodSpec, PodStatus};

/// What part a container plays in its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Runs to its end before the regular ones start.
    Init,
    /// An init container with `restartPolicy: Always`: runs beside the regular ones.
    Sidecar,
    /// The pod's purpose.
    Regular,
    /// Added for debugging; never started twice.
    Ephemeral,
}

static NO_SPEC: LazyLock<PodSpec> = LazyLock::new(PodSpec::default);
static NO_STATUS: LazyLock<PodStatus> = LazyLock::new(PodStatus::default);

/// The pod's specification.
pub(crate) fn spec(pod: &Pod) -> &PodSpec {
    pod.spec.as_ref().unwrap_or(&NO_SPEC)
}

/// The pod's status as the API has it.
pub(crate) fn status_of(pod: &Pod) -> &PodStatus {
    pod.status.as_ref().unwrap_or(&NO_STATUS)
}

pub(crate) fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

pub(crate) fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

pub(crate) fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or_default()
}

/// The pod as upstream's messages name it: `name_namespace(uid)`.
pub(crate) fn describe(pod: &Pod) -> String {
    format!("{}_{}({})", name(pod), namespace(pod), uid(pod))
}

pub(crate) fn is_terminal(phase: Option<&str>) -> bool {
    matches!(phase, Some("Succeeded" | "Failed"))
}

pub(crate) fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// All containers: init containers in order, then regular ones, then ephemeral ones.
pub(crate) fn containers(pod: &Pod) -> impl Iterator<Item = (Role, Cow<'_, Container>)> {
    let spec = spec(pod);
    let init =
        spec.init_containers.iter().flatten().map(|container| {
            (if is_sidecar(container) { Role::Sidecar } else { Role::Init }, Cow::Borrowed(container))
        });
    let regular = spec.containers.iter().map(|container| (Role::Regular, Cow::Borrowed(container)));
    let ephemeral =
        spec.ephemeral_containers.iter().flatten().map(|it| (Role::Ephemeral, Cow::Owned(from_ephemeral(it))));
    init.chain(regular).chain(ephemeral)
}

/// The container of this name.
pub(crate) fn container<'a>(pod: &'a Pod, name: &str) -> Option<(Role, Cow<'a, Container>)> {
    containers(pod).find(|(_, container)| container.name == name)
}

/// The time a container gets to end, in seconds.
pub(crate) fn grace_seconds(pod: &Pod) -> i64 {
    spec(pod).termination_grace_period_seconds.unwrap_or(30).max(0)
}

fn from_ephemeral(container: &EphemeralContainer) -> Container {
    let container = container.clone();
    Container {
        args: container.args,
        command: container.command,
        env: container.env,
        env_from: container.env_from,
        image: container.image,
        image_pull_policy: container.image_pull_policy,
        name: container.name,
        resources: container.resources,
        security_context: container.security_context,
        stdin: container.stdin,
        stdin_once: container.stdin_once,
        termination_message_path: container.termination_message_path,
        termination_message_policy: container.termination_message_policy,
        tty: container.tty,
        volume_devices: container.volume_devices,
        volume_mounts: container.volume_mounts,
        working_dir: container.working_dir,
        ..Default::default()
    }
}

/// Which image pull policy holds: the one given, else by the image's tag.
pub(crate) fn pull_policy(container: &Container) -> &str {
    let image = container.image.as_deref().unwrap_or_default();
    let last = image.rsplit('/').next().unwrap_or_default();
    let latest = !image.contains('@') && (last.ends_with(":latest") || !last.contains(':'));
    container.image_pull_policy.as_deref().unwrap_or(if latest { "Always" } else { "IfNotPresent" })
}
