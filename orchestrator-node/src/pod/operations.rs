//! Carries out operations, and says what came of them.

use std::{path::PathBuf, sync::Arc, time::Duration};

use k8s_openapi::{
    api::core::v1::{ConfigMap, Container, LifecycleHandler, Pod, PodStatus, Probe, Secret},
    apimachinery::pkg::util::intstr::IntOrString,
};
use kube_core::params::{DeleteParams, Preconditions};
use orchestrator_core::{
    client::Api,
    events::Event,
    runtime::{
        ContainerId, ExecOptions, Image, ImageReference, Mount, MountPropagation, PullRequest, RegistryCredentials,
        RuntimeError, SandboxId, SandboxStatus, Session,
    },
    status::ApiError,
};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::{
    mailbox::Shown,
    operation::{Operation, ProbeKind},
    probe, pull_policy, uid,
};
use crate::{
    container::{
        configuration::{self, Parts},
        environment::{self, References},
        fields::Facts,
    },
    http,
    limits::{COMMAND_OUTPUT_BYTES, GRACE_MIN},
    node::Node,
    volumes::setup::{self, Tokens, VolumeSet},
};

/// What an operation sees of its pod.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) node: Arc<Node>,
    pub(crate) pod: Arc<Pod>,
    pub(crate) status: Shown,
    pub(crate) volumes: Arc<VolumeSet>,
    pub(crate) tokens: Arc<Tokens>,
    pub(crate) sandbox: Option<SandboxId>,
}

/// What came of an operation.
#[derive(Debug)]
pub(crate) enum Outcome {
    Volumes(Result<VolumeSet, String>),
    VolumesGone(Result<(), String>),
    Sandbox(Result<SandboxStatus, String>),
    SandboxEnded { id: SandboxId, result: Result<(), String> },
    Pulled { container: String, attempt: u32, result: Result<(), (String, String)> },
    Started { container: String, attempt: u32, id: Option<ContainerId>, result: Result<(), (String, String)> },
    Hooked { container: String, attempt: u32, result: Result<(), String> },
    Ended { id: ContainerId, result: Result<(), String> },
    Probed { container: String, attempt: u32, kind: ProbeKind, result: Result<(), String> },
    Deleted(Result<(), ApiError>),
}

/// Does it.
pub(crate) async fn perform(job: Job, operation: Operation) -> Outcome {
    let node = job.node.clone();
    let runtime = &node.runtime;
    let text = |result: Result<(), RuntimeError>| result.map_err(|error| error.to_string());
    match operation {
        Operation::SetUpVolumes | Operation::RefreshVolumes => Outcome::Volumes(job.set_up_volumes().await),
        Operation::TearDownVolumes => {
            Outcome::VolumesGone(node.volumes.remove_pod(uid(&job.pod)).await.map_err(|error| error.0))
        }
        Operation::RunSandbox { attempt } => Outcome::Sandbox(job.run_sandbox(attempt).await),
        Operation::StopSandbox { id } => Outcome::SandboxEnded { result: text(runtime.stop_sandbox(&id).await), id },
        Operation::RemoveSandbox { id } => {
            Outcome::SandboxEnded { result: text(runtime.remove_sandbox(&id).await), id }
        }
        Operation::Pull { container, attempt } => {
            let result = job.pull(&container).await;
            Outcome::Pulled { container, attempt, result }
        }
        Operation::Start { container, attempt, sandbox } => job.start(container, attempt, &sandbox).await,
        Operation::PostStart { container, attempt, id } => {
            let result = job.post_start(&container, &id).await;
            Outcome::Hooked { container, attempt, result }
        }
        Operation::Stop { container, id, deadline, message } => {
            let grace = Duration::try_from(deadline.duration_since(node.env.now())).unwrap_or(GRACE_MIN);
            let result = job.stop(&container, &id, grace.max(GRACE_MIN), message).await;
            Outcome::Ended { id, result }
        }
        Operation::Remove { id, .. } => Outcome::Ended { result: text(runtime.remove_container(&id).await), id },
        Operation::Probe { container, attempt, id, kind } => {
            let result = job.probe(&container, &id, kind).await;
            Outcome::Probed { container, attempt, kind, result }
        }
        Operation::DeletePod => Outcome::Deleted(job.delete_pod().await),
    }
}

impl Job {
    fn container(&self, name: &str) -> Container {
        super::container(&self.pod, name).map(|(_, container)| container.into_owned()).unwrap_or_default()
    }

    async fn set_up_volumes(&self) -> Result<VolumeSet, String> {
        setup::set_up(&self.node, &self.pod, &self.status, &self.tokens).await.map_err(|(volume, error)| {
            let message = format!("MountVolume.SetUp failed for volume \"{volume}\" : {error}");
            self.node.tell(&self.pod, Event::warning("FailedMount", message.clone()));
            message
        })
    }

    async fn run_sandbox(&self, attempt: u32) -> Result<SandboxStatus, String> {
        let config = &self.node.config;
        let dns = configuration::dns(&self.pod, &config.cluster_dns, &config.cluster_domain);
        let hostname = config.hostname.as_deref().unwrap_or(&self.node.name);
        let sandbox = configuration::sandbox(&self.pod, attempt, hostname, dns);
        if attempt > 0 {
            let message = "Pod sandbox changed, it will be killed and re-created.";
            self.node.tell(&self.pod, Event::normal("SandboxChanged", message));
        }
        self.node.runtime.run_sandbox(&sandbox).await.map_err(|error| {
            let message = format!("Failed to create pod sandbox: {error}");
            self.node.tell(&self.pod, Event::warning("FailedCreatePodSandBox", message.clone()));
            message
        })
    }

    /// Makes the image present. Errors are a waiting reason and its message.
    async fn pull(&self, name: &str) -> Result<(), (String, String)> {
        let container = self.container(name);
        let image = container.image.clone().unwrap_or_default();
        let policy = pull_policy(&container);
        let tell = |event| self.node.tell_container(&self.pod, name, event);
        let not_looked_at = |reason: &str, message: String| {
            tell(Event::warning("InspectFailed", message.clone()));
            tell(Event::warning("Failed", format!("Error: {reason}")));
            (reason.to_owned(), message)
        };
        if let Err(error) = image.parse::<ImageReference>() {
            let error = format!("couldn't parse image name \"{image}\": {error}");
            let message = format!("Failed to apply default image tag \"{image}\": {error}");
            return Err(not_looked_at("InvalidImageName", message));
        }
        let present = self.node.runtime.image_status(&image).await.map_err(|error| {
            not_looked_at("ImageInspectError", format!("Failed to inspect image \"{image}\": {error}"))
        })?;
        if present.is_some() && policy != "Always" {
            let message =
                format!("Container image \"{image}\" already present on machine and can be accessed by the pod");
            tell(Event::normal("Pulled", message));
            return Ok(());
        }
        if policy == "Never" {
            let message = format!("Container image \"{image}\" is not present with pull policy of Never");
            tell(Event::warning("ErrImageNeverPull", message.clone()));
            tell(Event::warning("Failed", "Error: ErrImageNeverPull"));
            return Err(("ErrImageNeverPull".to_owned(), message));
        }
        tell(Event::normal("Pulling", format!("Pulling image \"{image}\"")));
        let before = self.node.env.monotonic();
        let credentials = self.credentials().await;
        match self.node.runtime.pull_image(&PullRequest { image: image.clone(), credentials }).await {
            Ok(pulled) => {
                let took = self.node.env.monotonic().saturating_sub(before);
                let took = format!("{}.{:03}s", took.as_secs(), took.subsec_millis());
                let size = pulled.size_bytes;
                let message = format!(
                    "Successfully pulled image \"{image}\" in {took} ({took} including waiting). Image size: {size} bytes."
                );
                tell(Event::normal("Pulled", message));
                Ok(())
            }
            Err(error) => {
                tell(Event::warning("Failed", format!("Failed to pull image \"{image}\": {error}")));
                tell(Event::warning("Failed", "Error: ErrImagePull"));
                Err(("ErrImagePull".to_owned(), error.to_string()))
            }
        }
    }

    /// What the pod's `imagePullSecrets` say. One that is missing is skipped, as upstream does.
    async fn credentials(&self) -> Vec<RegistryCredentials> {
        let api: Api<Secret> = Api::namespaced(&self.node.client, super::namespace(&self.pod));
        let mut credentials = Vec::new();
        for reference in super::spec(&self.pod).image_pull_secrets.iter().flatten() {
            match api.get_opt(&reference.name).await {
                Ok(Some(secret)) => credentials.extend(docker_credentials(&secret)),
                _ => {
                    let message = format!(
                        "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
                        reference.name
                    );
                    self.node.tell(&self.pod, Event::warning("FailedToRetrieveImagePullSecret", message));
                }
            }
        }
        credentials
    }

    async fn start(self, name: String, attempt: u32, sandbox: &SandboxId) -> Outcome {
        let tell = |event| self.node.tell_container(&self.pod, &name, event);
        let failed = |reason: &str, message: String| {
            tell(Event::warning("Failed", format!("Error: {message}")));
            Err((reason.to_owned(), message))
        };
        let config = match self.configuration(&name, attempt).await {
            Ok(config) => config,
            Err(message) => {
                let result = failed("CreateContainerConfigError", message);
                return Outcome::Started { container: name, attempt, id: None, result };
            }
        };
        let id = match self.node.runtime.create_container(sandbox, &config).await {
            Ok(id) => id,
            Err(error) => {
                let result = failed("CreateContainerError", error.to_string());
                return Outcome::Started { container: name, attempt, id: None, result };
            }
        };
        tell(Event::normal("Created", "Container created"));
        let result = match self.node.runtime.start_container(&id).await {
            Ok(()) => {
                tell(Event::normal("Started", "Container started"));
                Ok(())
            }
            Err(error) => failed("RunContainerError", error.to_string()),
        };
        Outcome::Started { container: name, attempt, id: Some(id), result }
    }

    async fn configuration(
        &self,
        name: &str,
        attempt: u32,
    ) -> Result<orchestrator_core::runtime::ContainerConfig, String> {
        let container = self.container(name);
        let image_name = container.image.clone().unwrap_or_default();
        let image = self.node.runtime.image_status(&image_name).await.map_err(|error| error.to_string())?;
        let image = image.unwrap_or(Image {
            name: image_name.clone(),
            id: image_name,
            size_bytes: 0,
            user: None,
            pinned: false,
        });
        let references = self.references(&container).await?;
        let facts = Facts { pod: &self.pod, status: &self.status, allocatable: &self.node.allocatable };
        let mut environment = environment::environment(&facts, &container, &references)?;
        if !environment.iter().any(|(name, _)| name == "HOSTNAME") {
            let node = self.node.config.hostname.as_deref().unwrap_or(&self.node.name);
            environment.push(("HOSTNAME".to_owned(), configuration::hostname(&self.pod, node)));
        }
        let mut mounts = setup::mounts(&self.node, &self.pod, &container, &self.volumes, &environment).await?;
        mounts.extend(self.own_mounts(&container, attempt, &mounts).await?);
        let memory_capacity = self.node.memory_capacity();
        let parts = Parts { attempt, image, environment, mounts, memory_capacity };
        configuration::container(&self.pod, &container, parts)
    }

    /// `/etc/hosts` and the file for the container's last words.
    async fn own_mounts(&self, container: &Container, attempt: u32, present: &[Mount]) -> Result<Vec<Mount>, String> {
        let pod = uid(&self.pod);
        let mount = |host_path: PathBuf, path: &str| Mount {
            host_path,
            container_path: PathBuf::from(path),
            read_only: false,
            propagation: MountPropagation::Private,
        };
        let mut mounts = Vec::new();
        let host_network = super::spec(&self.pod).host_network == Some(true);
        let taken = present.iter().any(|mount| mount.container_path.as_os_str() == "/etc/hosts");
        if !host_network && !taken {
            let text = hosts_file(&self.pod, &self.status);
            let file = self.node.volumes.write_file(pod, "etc-hosts", &text, true).await.map_err(|error| error.0)?;
            mounts.extend(file.map(|file| mount(file, "/etc/hosts")));
        }
        let path = container.termination_message_path.as_deref().unwrap_or("/dev/termination-log");
        if !path.is_empty() {
            let name = last_words_file(&container.name, attempt);
            let file = self.node.volumes.write_file(pod, &name, "", false).await.map_err(|error| error.0)?;
            mounts.extend(file.map(|file| mount(file, path)));
        }
        Ok(mounts)
    }

    async fn references(&self, container: &Container) -> Result<References, String> {
        let namespace = super::namespace(&self.pod);
        let (maps, secrets) = environment::needed(container);
        let mut references = References::default();
        let map_api: Api<ConfigMap> = Api::namespaced(&self.node.client, namespace);
        for name in maps {
            let map = map_api.get_opt(&name).await.map_err(|error| error.to_string())?;
            references.config_maps.extend(map.map(|map| (name, (*map).clone())));
        }
        let secret_api: Api<Secret> = Api::namespaced(&self.node.client, namespace);
        for name in secrets {
            let secret = secret_api.get_opt(&name).await.map_err(|error| error.to_string())?;
            references.secrets.extend(secret.map(|secret| (name, (*secret).clone())));
        }
        let services = &self.node.services;
        services.synced().await;
        references.services = services.list_namespace(namespace).iter().map(|service| (**service).clone()).collect();
        if namespace != "default" {
            let key = orchestrator_core::object::ObjectKey::new("default", "kubernetes");
            references.services.extend(services.get(&key).map(|service| (*service).clone()));
        }
        Ok(references)
    }

    async fn post_start(&self, name: &str, id: &ContainerId) -> Result<(), String> {
        let hook = self.container(name).lifecycle.and_then(|lifecycle| lifecycle.post_start);
        let Some(hook) = hook else { return Ok(()) };
        self.hook(name, id, &hook, Duration::MAX).await.inspect_err(|error| {
            let message = format!("PostStartHook failed: {error}");
            self.node.tell_container(&self.pod, name, Event::warning("FailedPostStartHook", message));
        })
    }

    async fn stop(&self, name: &str, id: &ContainerId, grace: Duration, message: String) -> Result<(), String> {
        self.node.tell_container(&self.pod, name, Event::normal("Killing", message));
        let before = self.node.env.monotonic();
        let hook = self.container(name).lifecycle.and_then(|lifecycle| lifecycle.pre_stop);
        if let Some(hook) = hook
            && grace > GRACE_MIN
            && let Err(error) = self.hook(name, id, &hook, grace).await
        {
            let message = format!("PreStopHook failed: {error}");
            self.node.tell_container(&self.pod, name, Event::warning("FailedPreStopHook", message));
        }
        let used = self.node.env.monotonic().saturating_sub(before);
        let left = grace.saturating_sub(used).max(GRACE_MIN);
        self.node.runtime.stop_container(id, left).await.map_err(|error| {
            let text = format!("error killing pod: failed to \"KillContainer\" for \"{name}\": {error}");
            self.node.tell_container(&self.pod, name, Event::warning("FailedKillPod", text.clone()));
            text
        })
    }

    async fn hook(&self, name: &str, id: &ContainerId, hook: &LifecycleHandler, limit: Duration) -> Result<(), String> {
        let work = async {
            if let Some(exec) = &hook.exec {
                let (code, output) = self.command(id, exec.command.clone().unwrap_or_default()).await?;
                return if code == 0 { Ok(()) } else { Err(format!("command exited with {code}: {output}")) };
            }
            if let Some(sleep) = &hook.sleep {
                self.node.env.sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
            } else if let Some(action) = &hook.http_get {
                self.http_get(name, action).await?;
            }
            Ok(())
        };
        if limit == Duration::MAX {
            return work.await;
        }
        self.node.env.timeout(limit, work).await.unwrap_or_else(|_| Err("the grace period is over".to_owned()))
    }

    async fn probe(&self, name: &str, id: &ContainerId, kind: ProbeKind) -> Result<(), String> {
        let container = self.container(name);
        let Some(probe) = probe::of(&container, kind) else { return Ok(()) };
        let limit = probe::timeout(probe);
        let answer = self.node.env.timeout(limit, self.ask(name, id, probe)).await;
        let result = answer.unwrap_or_else(|_| {
            let what = if probe.exec.is_some() { "command timed out" } else { "context deadline exceeded" };
            Err(format!("{what}: timed out after {}s", limit.as_secs()))
        });
        if let Err(message) = &result {
            let text = format!("{} probe failed: {message}", kind.title());
            self.node.tell_container(&self.pod, name, Event::warning("Unhealthy", text));
        }
        result
    }

    async fn ask(&self, name: &str, id: &ContainerId, probe: &Probe) -> Result<(), String> {
        if let Some(exec) = &probe.exec {
            let (code, output) = self.command(id, exec.command.clone().unwrap_or_default()).await?;
            return if code == 0 { Ok(()) } else { Err(output) };
        }
        if let Some(action) = &probe.http_get {
            return self.http_get(name, action).await;
        }
        let Some(action) = &probe.tcp_socket else { return Err("missing probe handler".to_owned()) };
        self.connect(name, &action.port).await.map(drop)
    }

    async fn http_get(&self, name: &str, action: &k8s_openapi::api::core::v1::HTTPGetAction) -> Result<(), String> {
        let (port, stream) = self.connect(name, &action.port).await?;
        let (code, _) = http::get(stream, action, port).await?;
        if (200..400).contains(&code) { Ok(()) } else { Err(format!("HTTP probe failed with statuscode: {code}")) }
    }

    async fn connect(
        &self,
        name: &str,
        port: &IntOrString,
    ) -> Result<(u16, Box<dyn orchestrator_core::runtime::Duplex>), String> {
        let container = self.container(name);
        let number = match port {
            IntOrString::Int(number) => Some(*number),
            IntOrString::String(wanted) => {
                let mut ports = container.ports.iter().flatten();
                let named = ports.find(|port| port.name.as_deref() == Some(wanted)).map(|port| port.container_port);
                named.or_else(|| wanted.parse().ok())
            }
        };
        let number = number.and_then(|number| u16::try_from(number).ok()).filter(|number| *number > 0);
        let number = number.ok_or_else(|| format!("couldn't find port: {port:?}"))?;
        let sandbox = self.sandbox.as_ref().ok_or_else(|| "the pod has no sandbox".to_owned())?;
        let stream = self.node.runtime.port_forward(sandbox, number).await.map_err(|error| error.to_string())?;
        Ok((number, stream))
    }

    async fn command(&self, id: &ContainerId, command: Vec<String>) -> Result<(i32, String), String> {
        let options = ExecOptions { command, stdin: false, stdout: true, stderr: true, tty: false };
        let session = self.node.runtime.exec(id, options).await.map_err(|error| error.to_string())?;
        let Session { stdout, stderr, exit, .. } = session;
        let (stdout, stderr, code) = futures::join!(read(stdout), read(stderr), exit);
        let code = code.map_err(|error| error.to_string())?;
        Ok((code, stdout + &stderr))
    }

    async fn delete_pod(&self) -> Result<(), ApiError> {
        let api: Api<Pod> = Api::namespaced(&self.node.client, super::namespace(&self.pod));
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions { uid: Some(uid(&self.pod).to_owned()), resource_version: None }),
            ..DeleteParams::default()
        };
        api.delete(super::name(&self.pod), &params).await
    }
}

/// The file in the pod's directory that a container's last words go to.
pub(crate) fn last_words_file(container: &str, attempt: u32) -> String {
    format!("termination-{container}-{attempt}")
}

/// Reads to the end and keeps the beginning.
async fn read(stream: Option<Box<dyn AsyncRead + Send + Unpin>>) -> String {
    let Some(mut stream) = stream else { return String::new() };
    let mut kept = Vec::new();
    let mut piece = vec![0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut piece).await {
        let room = COMMAND_OUTPUT_BYTES.saturating_sub(kept.len());
        kept.extend_from_slice(&piece[..count.min(room)]);
    }
    String::from_utf8_lossy(&kept).into_owned()
}

fn hosts_file(pod: &Pod, status: &PodStatus) -> String {
    let spec = super::spec(pod);
    let mut text = String::from(
        "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\nfe00::\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
    );
    let hostname = configuration::hostname(pod, "");
    for address in status.pod_ips.iter().flatten() {
        text.push_str(&format!("{}\t{hostname}\n", address.ip));
    }
    if let Some(aliases) = spec.host_aliases.as_ref().filter(|aliases| !aliases.is_empty()) {
        text.push_str("\n# Entries added by HostAliases.\n");
        for alias in aliases {
            text.push_str(&format!("{}\t{}\n", alias.ip, alias.hostnames.clone().unwrap_or_default().join("\t")));
        }
    }
    text
}

/// Credentials of a Secret of the types `kubernetes.io/dockerconfigjson` and `kubernetes.io/dockercfg`.
fn docker_credentials(secret: &Secret) -> Vec<RegistryCredentials> {
    let value = |key: &str| secret.data.as_ref().and_then(|data| data.get(key));
    let read = match (value(".dockerconfigjson"), value(".dockercfg")) {
        (Some(bytes), _) => RegistryCredentials::read_config(&bytes.0),
        (None, Some(bytes)) => RegistryCredentials::read_old_config(&bytes.0),
        (None, None) => return Vec::new(),
    };
    read.unwrap_or_default()
}
