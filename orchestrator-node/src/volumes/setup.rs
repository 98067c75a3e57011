//! Makes a pod's volumes ready, and keeps projected ones up to date.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::{
    authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec},
    core::v1::{
        ConfigMap, Container, PersistentVolume, PersistentVolumeClaim, Pod, PodStatus, ProjectedVolumeSource, Secret,
        ServiceAccount, ServiceAccountTokenProjection, Volume,
    },
};
use orchestrator_core::{
    client::Api,
    quantity::Quantity,
    runtime::{Mount, MountPropagation},
};

use super::{EmptyDir, Payload, SubPath, VolumeName, payload};
use crate::{
    container::{expand::expand, fields::Facts},
    limits::{TOKEN_SECONDS, TOKEN_SECONDS_MIN, VOLUME_REFRESH},
    node::Node,
    pod,
    pod::backoff::after,
};

/// A pod's volumes on this machine.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct VolumeSet {
    /// With their names. A list, as pods have few volumes and a map makes room for eleven.
    pub(crate) mounted: Vec<(String, Mounted)>,
    /// When the projected ones are to be looked at again.
    pub(crate) refresh_at: Option<Timestamp>,
}

/// A volume on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mounted {
    pub(crate) path: PathBuf,
    /// Containers may write to it.
    pub(crate) writable: bool,
}

impl VolumeSet {
    fn find(&self, name: &str) -> Option<&Mounted> {
        self.mounted.iter().find(|(present, _)| present == name).map(|(_, mounted)| mounted)
    }
}

/// Tokens of a pod: one in nearly all cases.
#[derive(Debug, Default)]
pub(crate) struct Tokens(Mutex<Vec<Token>>);

#[derive(Debug)]
struct Token {
    volume: String,
    file: String,
    text: String,
    /// When to ask for a new one.
    renew_at: Timestamp,
}

impl Tokens {
    fn lock(&self) -> MutexGuard<'_, Vec<Token>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, volume: &str, file: &str, now: Timestamp) -> Option<String> {
        let tokens = self.lock();
        let is_meant = |token: &&Token| token.volume == volume && token.file == file && token.renew_at > now;
        tokens.iter().find(is_meant).map(|token| token.text.clone())
    }

    fn put(&self, token: Token) {
        let mut tokens = self.lock();
        tokens.retain(|other| (&other.volume, &other.file) != (&token.volume, &token.file));
        tokens.reserve_exact(1);
        tokens.push(token);
    }
}

/// Makes all volumes ready; repeated, it brings projected ones up to date.
pub(crate) async fn set_up(
    node: &Arc<Node>,
    pod: &Pod,
    status: &PodStatus,
    tokens: &Tokens,
) -> Result<VolumeSet, (String, String)> {
    let volumes = pod::spec(pod).volumes.as_deref().unwrap_or_default();
    let mut set = VolumeSet { mounted: Vec::with_capacity(volumes.len()), refresh_at: None };
    let work = Work { node, pod, status, tokens };
    for volume in volumes {
        let mounted = work.volume(volume).await.map_err(|error| (volume.name.clone(), error))?;
        if !mounted.writable {
            set.refresh_at = Some(after(node.env.now(), VOLUME_REFRESH));
        }
        set.mounted.push((volume.name.clone(), mounted));
    }
    Ok(set)
}

struct Work<'a> {
    node: &'a Arc<Node>,
    pod: &'a Pod,
    status: &'a PodStatus,
    tokens: &'a Tokens,
}

impl Work<'_> {
    fn group(&self) -> Option<i64> {
        pod::spec(self.pod).security_context.as_ref().and_then(|context| context.fs_group)
    }

    fn facts(&self) -> Facts<'_> {
        Facts { pod: self.pod, status: self.status, allocatable: &self.node.allocatable }
    }

    async fn volume(&self, volume: &Volume) -> Result<Mounted, String> {
        let name = |plugin| VolumeName { pod: pod::uid(self.pod).to_owned(), plugin, volume: volume.name.clone() };
        let writable = |path| Mounted { path, writable: true };
        if let Some(source) = &volume.empty_dir {
            let memory = source.medium.as_deref().is_some_and(|medium| medium.starts_with("Memory"));
            let limit = source.size_limit.as_ref().and_then(|limit| Quantity::try_from(limit).ok());
            let options = EmptyDir { memory, size_limit: limit.map(|limit| limit.value()), group: self.group() };
            let path = self.node.volumes.empty_dir(&name("kubernetes.io~empty-dir"), options).await;
            return path.map(writable).map_err(|error| error.0);
        }
        if let Some(source) = &volume.host_path {
            let path = self.node.volumes.host_path(&source.path, source.type_.as_deref().unwrap_or_default()).await;
            return path.map(writable).map_err(|error| error.0);
        }
        if let Some(source) = &volume.persistent_volume_claim {
            return self.claim(&source.claim_name).await.map(writable);
        }
        let (plugin, files) = if let Some(source) = &volume.config_map {
            let (items, mode) = (source.items.as_deref(), source.default_mode.unwrap_or(0o644));
            let files = self.config_map(&source.name, items, mode, source.optional == Some(true)).await?;
            ("kubernetes.io~configmap", files)
        } else if let Some(source) = &volume.secret {
            let (items, mode) = (source.items.as_deref(), source.default_mode.unwrap_or(0o644));
            let name = source.secret_name.as_deref().unwrap_or_default();
            let files = self.secret(name, items, mode, source.optional == Some(true)).await?;
            ("kubernetes.io~secret", files)
        } else if let Some(source) = &volume.downward_api {
            let mode = source.default_mode.unwrap_or(0o644);
            ("kubernetes.io~downward-api", payload::downward(&self.facts(), source.items.as_deref(), mode)?)
        } else if let Some(source) = &volume.projected {
            ("kubernetes.io~projected", self.projected(&volume.name, source).await?)
        } else {
            return Err("its source is not supported by this node".to_owned());
        };
        let path = self.node.volumes.project(&name(plugin), files, self.group()).await.map_err(|error| error.0)?;
        Ok(Mounted { path, writable: false })
    }

    async fn projected(&self, volume: &str, source: &ProjectedVolumeSource) -> Result<Payload, String> {
        let mode = source.default_mode.unwrap_or(0o644);
        let mut files = Payload::new();
        for source in source.sources.iter().flatten() {
            let more = if let Some(source) = &source.config_map {
                self.config_map(&source.name, source.items.as_deref(), mode, source.optional == Some(true)).await?
            } else if let Some(source) = &source.secret {
                self.secret(&source.name, source.items.as_deref(), mode, source.optional == Some(true)).await?
            } else if let Some(source) = &source.downward_api {
                payload::downward(&self.facts(), source.items.as_deref(), mode)?
            } else if let Some(source) = &source.service_account_token {
                // A token is for the container's user alone, unless a group shares it.
                let mode = if self.group().is_some() { 0o600 } else { mode };
                payload::token(&source.path, self.token(volume, source).await?, mode)
            } else {
                return Err("a source of it is not supported by this node".to_owned());
            };
            files.extend(more);
        }
        Ok(files)
    }

    async fn config_map(
        &self,
        name: &str,
        items: Option<&[k8s_openapi::api::core::v1::KeyToPath]>,
        mode: i32,
        optional: bool,
    ) -> Result<Payload, String> {
        let api: Api<ConfigMap> = Api::namespaced(&self.node.client, pod::namespace(self.pod));
        match api.get_opt(name).await.map_err(|error| error.to_string())? {
            Some(map) => payload::config_map(&map, items, mode, optional),
            None if optional => Ok(Payload::new()),
            None => Err(format!("configmap \"{name}\" not found")),
        }
    }

    async fn secret(
        &self,
        name: &str,
        items: Option<&[k8s_openapi::api::core::v1::KeyToPath]>,
        mode: i32,
        optional: bool,
    ) -> Result<Payload, String> {
        let api: Api<Secret> = Api::namespaced(&self.node.client, pod::namespace(self.pod));
        match api.get_opt(name).await.map_err(|error| error.to_string())? {
            Some(secret) => payload::secret(&secret, items, mode, optional),
            None if optional => Ok(Payload::new()),
            None => Err(format!("secret \"{name}\" not found")),
        }
    }

    /// A token of the pod's service account, new once four fifths of its life are over.
    async fn token(&self, volume: &str, source: &ServiceAccountTokenProjection) -> Result<String, String> {
        let now = self.node.env.now();
        if let Some(known) = self.tokens.find(volume, &source.path, now) {
            return Ok(known);
        }
        let seconds = source.expiration_seconds.unwrap_or(TOKEN_SECONDS).max(TOKEN_SECONDS_MIN);
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                audiences: Some(source.audience.iter().filter(|audience| !audience.is_empty()).cloned().collect()),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".to_owned()),
                    kind: Some("Pod".to_owned()),
                    name: self.pod.metadata.name.clone(),
                    uid: self.pod.metadata.uid.clone(),
                }),
                expiration_seconds: Some(seconds),
            }),
            ..TokenRequest::default()
        };
        let account = pod::spec(self.pod).service_account_name.as_deref().unwrap_or("default");
        let api: Api<ServiceAccount> = Api::namespaced(&self.node.client, pod::namespace(self.pod));
        let answer = api.create_subresource("token", account, &request).await;
        let answer = answer.map_err(|error| format!("failed to fetch token: {error}"))?;
        let status = answer.status.clone().unwrap_or_default();
        let token = status.token.unwrap_or_default();
        let end = status.expiration_timestamp.map_or_else(|| after(now, Duration::from_secs(3600)), |time| time.0);
        let life = end.duration_since(now).max(SignedDuration::ZERO);
        let renew_at = now.saturating_add(life * 4 / 5).unwrap_or(now);
        let (volume, file) = (volume.to_owned(), source.path.clone());
        self.tokens.put(Token { volume, file, text: token.clone(), renew_at });
        Ok(token)
    }

    /// The path of a claim's volume, once the claim is bound.
    async fn claim(&self, name: &str) -> Result<PathBuf, String> {
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(&self.node.client, pod::namespace(self.pod));
        let claim = claims.get_opt(name).await.map_err(|error| error.to_string())?;
        let claim = claim.ok_or_else(|| format!("persistentvolumeclaim \"{name}\" not found"))?;
        let spec = claim.spec.clone().unwrap_or_default();
        let bound = claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
        let Some(volume) = spec.volume_name.filter(|volume| bound && !volume.is_empty()) else {
            return Err(format!("persistentvolumeclaim \"{name}\" not bound"));
        };
        if spec.volume_mode.as_deref() == Some("Block") {
            return Err(format!("volume \"{volume}\" is a block device, which this node does not support"));
        }
        let volumes: Api<PersistentVolume> = Api::all(&self.node.client);
        let volume = volumes.get(&volume).await.map_err(|error| error.to_string())?;
        let spec = volume.spec.clone().unwrap_or_default();
        if spec.claim_ref.as_ref().and_then(|claim| claim.uid.as_deref()) != claim.metadata.uid.as_deref() {
            return Err(format!("persistentvolumeclaim \"{name}\" not bound"));
        }
        let (path, kind) = match (&spec.host_path, &spec.local) {
            (Some(source), _) => (source.path.clone(), source.type_.clone().unwrap_or_default()),
            (None, Some(source)) => (source.path.clone(), "Directory".to_owned()),
            (None, None) => return Err("the volume's source is not supported by this node".to_owned()),
        };
        self.node.volumes.host_path(&path, &kind).await.map_err(|error| error.0)
    }
}

/// What a container mounts of its pod's volumes.
pub(crate) async fn mounts(
    node: &Node,
    pod: &Pod,
    container: &Container,
    volumes: &VolumeSet,
    environment: &[(String, String)],
) -> Result<Vec<Mount>, String> {
    let mut mounts = Vec::new();
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let volume = volumes.find(&mount.name);
        let volume = volume.ok_or_else(|| format!("volume \"{}\" is not mounted", mount.name))?;
        let lookup =
            |name: &str| environment.iter().find(|(present, _)| present == name).map(|(_, value)| value.clone());
        let sub_path = match (&mount.sub_path, &mount.sub_path_expr) {
            (Some(path), _) if !path.is_empty() => Some(path.clone()),
            (_, Some(path)) if !path.is_empty() => Some(expand(path, lookup)),
            _ => None,
        };
        let host_path = match sub_path {
            None => volume.path.clone(),
            Some(path) => {
                let request = SubPath {
                    pod: pod::uid(pod).to_owned(),
                    mount: format!("{}-{index}", container.name),
                    volume: volume.path.clone(),
                    path,
                    writable: volume.writable,
                };
                node.volumes.sub_path(request).await.map_err(|error| error.0)?
            }
        };
        let propagation = match mount.mount_propagation.as_deref() {
            Some("HostToContainer") => MountPropagation::HostToContainer,
            Some("Bidirectional") => MountPropagation::Bidirectional,
            _ => MountPropagation::Private,
        };
        mounts.push(Mount {
            host_path,
            container_path: PathBuf::from(&mount.mount_path),
            read_only: mount.read_only == Some(true) || !volume.writable,
            propagation,
        });
    }
    Ok(mounts)
}
