//! Admission: what a cluster adds to objects and refuses, beyond the rules of the kind.

use k8s_openapi::api::core::v1::VolumeProjection;
use orchestrator_core::{
    object::Object,
    status::{ApiError, ApiResult},
};
use serde_json::{Value, json};

use super::{Scope, Server, custom, limit_ranges, runtime_class};
use crate::{
    field::{Field, items_mut, member, remove, set_default},
    kinds, limits,
    server::DefaultTolerations,
};

/// Where containers find their token.
const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Where a node is, as its labels tell.
const TOPOLOGY_LABELS: [&str; 2] = ["topology.kubernetes.io/region", "topology.kubernetes.io/zone"];

/// Life of a pod's token; upstream's odd number.
const POD_TOKEN_SECONDS: i64 = 3607;

impl Server {
    /// Changes an object before it is checked.
    pub(super) async fn admit_mutating(&self, scope: &Scope, tree: &mut Value, old: Option<&Value>) -> ApiResult<()> {
        let is_request = scope.kind.is("certificates.k8s.io", "certificatesigningrequests");
        if let (true, Some("approval"), Some(old)) = (is_request, scope.subresource.as_deref(), old) {
            kinds::time_conditions(tree, old, &self.now());
        }
        if scope.subresource.is_some() {
            return Ok(());
        }
        if is_request && old.is_none() {
            kinds::name_requestor(tree, &scope.user);
        }
        if let Some(old) = old {
            if scope.kind.is("", "pods") {
                self.admit_changed_pod(tree, old);
            }
            return Ok(());
        }
        if scope.kind.is("", "pods") {
            if self.config.admission.limit_ranges {
                for range in self.limit_ranges(scope).await? {
                    limit_ranges::default_pod(range.tree()?, tree);
                }
            }
            if self.config.admission.service_account {
                self.admit_service_account(scope, tree).await?;
            }
            if self.config.admission.priority {
                self.admit_priority(scope, tree).await?;
            }
            if let Some(node) = tree["spec"]["nodeName"].as_str().filter(|node| !node.is_empty()) {
                for (name, value) in self.topology_labels(node).await? {
                    set_default(member(member(tree, "metadata"), "labels"), name, value);
                }
            }
            if let Some(tolerations) = self.config.admission.default_tolerations {
                add_tolerations(tree, tolerations);
            }
            if self.config.admission.runtime_class
                && let Some(class) = self.runtime_class(scope, tree).await?
            {
                let refused = |why: String| ApiError::forbidden(scope.kind.subject(super::create::name_of(tree)), &why);
                let mut pod = tree.clone();
                runtime_class::apply(class.tree()?, &mut pod).map_err(refused)?;
                *tree = pod;
            }
        }
        if scope.kind.is("", "persistentvolumeclaims") && self.config.admission.default_storage_class {
            self.admit_storage_class(tree).await?;
        }
        Ok(())
    }

    /// Settles in a changed status what the server decides.
    pub(super) fn settle_status(&self, scope: &Scope, tree: &mut Value, old: &Value) {
        if scope.kind.is("certificates.k8s.io", "certificatesigningrequests") {
            kinds::keep_approvals(tree, old);
            kinds::time_conditions(tree, old, &self.now());
        }
    }

    /// A pod keeps what admission wrote into it, although the caller does not repeat it.
    fn admit_changed_pod(&self, tree: &mut Value, old: &Value) {
        if self.config.admission.priority {
            for name in ["priority", "preemptionPolicy"] {
                if let Some(value) = old["spec"].get(name) {
                    set_default(member(tree, "spec"), name, value.clone());
                }
            }
        }
        if let Some(tolerations) = self.config.admission.default_tolerations {
            add_tolerations(tree, tolerations);
        }
    }

    /// Refuses an object that is right by itself.
    pub(super) async fn admit_validating(
        &self,
        scope: &Scope,
        tree: &Value,
        old: Option<&Value>,
        warnings: &mut Vec<String>,
    ) -> ApiResult<()> {
        let subresource = scope.subresource.as_deref();
        let new_pod = scope.kind.is("", "pods") && old.is_none() && subresource.is_none();
        if new_pod && self.config.admission.runtime_class {
            let class = self.runtime_class(scope, tree).await?;
            let class = class.as_ref().map(Object::tree).transpose()?;
            let refused = |why| ApiError::forbidden(scope.kind.subject(super::create::name_of(tree)), why);
            runtime_class::check(class, tree).map_err(refused)?;
        }
        if scope.kind.is("apiextensions.k8s.io", "customresourcedefinitions") && subresource.is_none() {
            custom::warn_of_rules(tree, warnings);
        }
        if scope.kind.is("certificates.k8s.io", "certificatesigningrequests") {
            self.admit_request(scope, tree, old)?;
        }
        if let (true, None, Some(old)) = (scope.kind.is("", "persistentvolumeclaims"), subresource, old) {
            self.admit_larger_claim(scope, tree, old).await?;
        }
        if scope.kind.is("scheduling.k8s.io", "priorityclasses") && self.config.admission.priority {
            self.refuse_second_default(scope, tree).await?;
        }
        // The resources of a pod's containers change by its `resize` only.
        let bounded = match (&*scope.kind.resource.group, &*scope.kind.resource.plural) {
            ("", "pods") => old.is_none() || subresource == Some("resize"),
            ("", "persistentvolumeclaims") => subresource.is_none(),
            _ => false,
        };
        if !bounded || !self.config.admission.limit_ranges {
            return Ok(());
        }
        for range in self.limit_ranges(scope).await? {
            let broken = limit_ranges::broken(range.tree()?, &scope.kind.resource.plural, tree);
            let why = match broken.as_slice() {
                [] => continue,
                [only] => only.clone(),
                many => format!("[{}]", many.join(", ")),
            };
            return Err(ApiError::forbidden(scope.kind.subject(super::create::name_of(tree)), &why));
        }
        Ok(())
    }

    /// The limit ranges of the namespace that a request goes to.
    async fn limit_ranges(&self, scope: &Scope) -> ApiResult<Vec<Object>> {
        self.all_of("", "limitranges", scope.namespace_opt()).await
    }

    /// The runtime class of a pod, if it has one.
    async fn runtime_class(&self, scope: &Scope, tree: &Value) -> ApiResult<Option<Object>> {
        let Some(name) = tree["spec"]["runtimeClassName"].as_str() else { return Ok(None) };
        let class = self.find_object("node.k8s.io", "runtimeclasses", "", name).await?;
        let missing = || {
            let why = format!("pod rejected: RuntimeClass {name:?} not found");
            ApiError::forbidden(scope.kind.subject(super::create::name_of(tree)), &why)
        };
        class.map(Some).ok_or_else(missing)
    }

    /// Resolves the priority class of a pod.
    async fn admit_priority(&self, scope: &Scope, tree: &mut Value) -> ApiResult<()> {
        let name = Field::root(tree).at("spec.priorityClassName").text().to_owned();
        let class = match name.as_str() {
            "" => self.default_priority_class().await?,
            name => {
                let class = self.find_object("scheduling.k8s.io", "priorityclasses", "", name).await?;
                let missing = || {
                    let subject = scope.kind.subject(super::create::name_of(tree));
                    ApiError::forbidden(subject, &format!("no PriorityClass with name {name} was found"))
                };
                Some(class.ok_or_else(missing)?)
            }
        };
        let (value, policy, class_name) = match &class {
            None => (0, "PreemptLowerPriority".to_owned(), None),
            Some(class) => {
                let class = Field::root(class.tree()?);
                let policy = Some(class.get("preemptionPolicy").text()).filter(|policy| !policy.is_empty());
                (
                    class.get("value").int().unwrap_or(0),
                    policy.unwrap_or("PreemptLowerPriority").to_owned(),
                    Some(class.at("metadata.name").text().to_owned()),
                )
            }
        };
        let spec = member(tree, "spec");
        if let Some(given) = spec["priority"].as_i64()
            && given != value
        {
            let why = format!(
                "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller \
                 computed {value} from the given PriorityClass name"
            );
            return Err(ApiError::forbidden(scope.kind.subject(super::create::name_of(tree)), &why));
        }
        *member(spec, "priority") = value.into();
        set_default(spec, "preemptionPolicy", policy);
        if let Some(name) = class_name {
            *member(spec, "priorityClassName") = name.into();
        }
        Ok(())
    }

    /// The labels that say where a node is; its pods have them, too. None for a node that is not there.
    ///
    /// Upstream: the plug-in `PodTopologyLabels`.
    pub(super) async fn topology_labels(&self, node: &str) -> ApiResult<Vec<(&'static str, String)>> {
        let Some(node) = self.find_object("", "nodes", "", node).await? else { return Ok(Vec::new()) };
        let labels = &node.tree()?["metadata"]["labels"];
        let of_node = |name| Some((name, labels[name].as_str()?.to_owned()));
        Ok(TOPOLOGY_LABELS.into_iter().filter_map(of_node).collect())
    }

    /// Only one priority class is that of pods without one.
    async fn refuse_second_default(&self, scope: &Scope, tree: &Value) -> ApiResult<()> {
        let name = super::create::name_of(tree);
        if tree["globalDefault"] != true {
            return Ok(());
        }
        let Some(class) = self.default_priority_class().await? else { return Ok(()) };
        match class.metadata()?.name.as_deref().filter(|other| *other != name) {
            None => Ok(()),
            Some(other) => {
                let why = format!("PriorityClass {other} is already marked as default. Only one default can exist");
                Err(ApiError::forbidden(scope.kind.subject(name), &why))
            }
        }
    }

    async fn default_priority_class(&self) -> ApiResult<Option<Object>> {
        for class in self.all_of("scheduling.k8s.io", "priorityclasses", None).await? {
            if class.tree()?["globalDefault"] == true {
                return Ok(Some(class));
            }
        }
        Ok(None)
    }

    /// All objects of a small collection, for the server's own needs.
    pub(super) async fn all_of(
        &self,
        group: &'static str,
        plural: &'static str,
        namespace: Option<&str>,
    ) -> ApiResult<Vec<Object>> {
        let resource = orchestrator_core::client::Resource::new(group, "v1", plural);
        let kind = self.registry.find(&resource).ok_or_else(ApiError::no_such_path)?;
        let listing = self.store.list(&kind.range(namespace), Default::default()).await.map_err(super::store_error)?;
        Ok(listing.entries.iter().map(|entry| self.objects.of(entry)).collect())
    }

    /// Gives a pod its service account and, unless it says no, a volume with the account's token.
    async fn admit_service_account(&self, scope: &Scope, tree: &mut Value) -> ApiResult<()> {
        // What stands for a pod of a node's own has no token.
        if !tree["metadata"]["annotations"][kinds::MIRROR].is_null() {
            return Ok(());
        }
        let spec = member(tree, "spec");
        let name = match (spec["serviceAccountName"].as_str(), spec["serviceAccount"].as_str()) {
            (Some(name), _) | (None, Some(name)) if !name.is_empty() => name.to_owned(),
            _ => "default".to_owned(),
        };
        *member(spec, "serviceAccountName") = name.clone().into();
        *member(spec, "serviceAccount") = name.clone().into();
        let Some(account) = self.find_account(&scope.namespace, &name).await? else {
            let why = format!(
                "error looking up service account {}/{name}: serviceaccount \"{name}\" not found",
                scope.namespace
            );
            return Err(ApiError::forbidden(scope.kind.subject(super::create::name_of(tree)), &why));
        };
        let account = account.tree()?;
        let spec = member(tree, "spec");
        let wants_token = spec["automountServiceAccountToken"]
            .as_bool()
            .or(account["automountServiceAccountToken"].as_bool())
            .unwrap_or(true);
        if wants_token {
            self.mount_token(spec);
        }
        if spec["imagePullSecrets"].as_array().is_none_or(Vec::is_empty)
            && let Some(secrets) = account["imagePullSecrets"].as_array().filter(|secrets| !secrets.is_empty())
        {
            *member(spec, "imagePullSecrets") = secrets.clone().into();
        }
        Ok(())
    }

    /// The account, waiting a little for the default one of a young namespace.
    async fn find_account(&self, namespace: &str, name: &str) -> ApiResult<Option<Object>> {
        for attempt in 1.. {
            let account = self.find_object("", "serviceaccounts", namespace, name).await?;
            if account.is_some() || name != "default" || attempt == limits::SERVICE_ACCOUNT_ATTEMPTS {
                return Ok(account);
            }
            self.env.sleep(limits::SERVICE_ACCOUNT_WAIT).await;
        }
        Ok(None)
    }

    fn mount_token(&self, spec: &mut Value) {
        let unmounted = |container: &Value| {
            let mounts = container["volumeMounts"].as_array().map(Vec::as_slice).unwrap_or_default();
            !mounts.iter().any(|mount| mount["mountPath"] == TOKEN_PATH)
        };
        let volume = format!("kube-api-access-{}", self.env.name_suffix(limits::NAME_SUFFIX_LETTERS));
        let mut used = false;
        for list in ["initContainers", "containers"] {
            for container in items_mut(spec, list).filter(|container| unmounted(container)) {
                let mount = json!({"name": volume, "readOnly": true, "mountPath": TOKEN_PATH});
                push(container, "volumeMounts", mount);
                used = true;
            }
        }
        if used {
            push(spec, "volumes", token_volume(&volume, &self.config.token_volume_sources));
        }
    }
}

fn push(tree: &mut Value, list: &str, item: Value) {
    match member(tree, list) {
        Value::Array(items) => items.push(item),
        other => *other = json!([item]),
    }
}

/// The volume with token, root certificate and namespace.
fn token_volume(name: &str, more: &[VolumeProjection]) -> Value {
    let mut volume = json!({
        "name": name,
        "projected": {
            "defaultMode": 420,
            "sources": [
                {"serviceAccountToken": {"expirationSeconds": POD_TOKEN_SECONDS, "path": "token"}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {"downwardAPI": {"items": [{
                    "path": "namespace",
                    "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"},
                }]}},
            ],
        },
    });
    for source in more {
        push(member(&mut volume, "projected"), "sources", json!(source));
    }
    volume
}

/// Lets a pod stay for a while on a node that is in trouble.
fn add_tolerations(tree: &mut Value, tolerations: DefaultTolerations) {
    let spec = member(tree, "spec");
    let defaults = [
        ("node.kubernetes.io/not-ready", tolerations.not_ready_seconds),
        ("node.kubernetes.io/unreachable", tolerations.unreachable_seconds),
    ];
    for (key, seconds) in defaults {
        let tolerated = spec["tolerations"].as_array().is_some_and(|tolerations| {
            tolerations.iter().any(|toleration| {
                let text = |name: &str| toleration[name].as_str().unwrap_or_default();
                (text("key") == key || text("key").is_empty()) && matches!(text("effect"), "" | "NoExecute")
            })
        });
        if !tolerated {
            let toleration =
                json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds});
            push(spec, "tolerations", toleration);
        }
    }
    if spec["tolerations"].as_array().is_some_and(Vec::is_empty) {
        remove(spec, "tolerations");
    }
}
