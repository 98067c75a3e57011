//! Subresources that are created: binding, eviction, token; and a namespace's `finalize`.

use orchestrator_core::{
    client::{DeleteOptions, PatchBody, Reply, WriteOptions},
    object::Object,
    status::{ApiError, ApiResult, FieldError, FieldErrorKind, Reason, Subject},
};
use serde_json::{Value, json};

use super::{Scope, Server, commit::Refusal, input, update::released};
use crate::{
    field::{Field, member, remove},
    limits,
};

impl Server {
    pub(super) async fn create_subresource(
        &self,
        scope: &Scope,
        name: &str,
        object: Object,
        options: WriteOptions,
    ) -> ApiResult<Reply> {
        match (&*scope.kind.resource.plural, name) {
            ("pods", "binding") => {
                let pod = scope.name()?.to_owned();
                self.create_binding(scope, Some(pod), &object, &options).await
            }
            ("pods", "eviction") => self.evict(scope, &object, &options).await,
            ("serviceaccounts", "token") => self.create_token(scope, &object, &options).await,
            _ => Err(ApiError::method_not_allowed()),
        }
    }

    /// Assigns a pod to a node: the scheduler's one write.
    pub(super) async fn create_binding(
        &self,
        scope: &Scope,
        pod: Option<String>,
        object: &Object,
        options: &WriteOptions,
    ) -> ApiResult<Reply> {
        let kind = input::body_kind("", "v1", "Binding");
        let binding = input::decode_as(&kind, object, options.field_validation, &mut Vec::new())?;
        let binding = Field::root(&binding);
        let named = binding.at("metadata.name").text();
        if pod.as_ref().is_some_and(|pod| pod != named) {
            return Err(ApiError::bad_request("name in URL does not match name in Binding object"));
        }
        let pod = pod.unwrap_or_else(|| named.to_owned());
        let node = binding.at("target.name").text().to_owned();
        check_target(&binding.get("target"))?;
        let uid = binding.at("metadata.uid").text().to_owned();
        let pods = self.resolve(
            Some(scope.user.clone()),
            &orchestrator_core::client::Resource::new("", "v1", "pods"),
            Some(scope.namespace.clone()),
            Some(pod.clone()),
            None,
        )?;
        let subject = Subject { group: "", resource: "pods/binding", name: &pod };
        let places = self.topology_labels(&node).await?;
        for _ in 0..limits::UPDATE_ATTEMPTS {
            let entry = self.entry(&pods).await?;
            let mut tree = self.objects.of(&entry).to_tree()?;
            let metadata = &tree["metadata"];
            if metadata["deletionTimestamp"].is_string() {
                return Err(ApiError::conflict(
                    subject,
                    &format!("pod {pod} is being deleted, cannot be assigned to a host"),
                ));
            }
            if !uid.is_empty() && metadata["uid"] != uid.as_str() {
                let found = metadata["uid"].as_str().unwrap_or_default();
                let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {found}");
                return Err(ApiError::conflict(subject, &why));
            }
            if let Some(assigned) = tree["spec"]["nodeName"].as_str().filter(|assigned| !assigned.is_empty()) {
                return Err(ApiError::conflict(
                    subject,
                    &format!("pod {pod} is already assigned to node {assigned:?}"),
                ));
            }
            if tree["spec"]["schedulingGates"].as_array().is_some_and(|gates| !gates.is_empty()) {
                return Err(ApiError::conflict(subject, &format!("pod {pod} has non-empty .spec.schedulingGates")));
            }
            *member(member(&mut tree, "spec"), "nodeName") = node.clone().into();
            for (name, value) in binding.at("metadata.annotations").entries() {
                *member(member(member(&mut tree, "metadata"), "annotations"), name) = value.text().into();
            }
            let own = binding.at("metadata.labels").entries();
            let labels = own.iter().map(|(name, value)| (*name, value.text()));
            for (name, value) in places.iter().map(|(name, value)| (*name, value.as_str())).chain(labels) {
                *member(member(member(&mut tree, "metadata"), "labels"), name) = value.into();
            }
            set_scheduled(&mut tree, &self.now());
            if options.dry_run {
                return Ok(success());
            }
            match self.put(&pods, &tree, Some(&entry)).await {
                Ok(_) => return Ok(success()),
                Err(Refusal::Failed(error)) => return Err(error),
                Err(Refusal::Moved | Refusal::Taken(_)) => {}
            }
        }
        Err(ApiError::stale(subject))
    }

    /// Deletes a pod if no disruption budget speaks against it.
    async fn evict(&self, scope: &Scope, object: &Object, options: &WriteOptions) -> ApiResult<Reply> {
        let eviction = object.to_tree()?;
        if super::create::name_of(&eviction) != scope.name()? {
            return Err(ApiError::bad_request("name in URL does not match name in Eviction object"));
        }
        let given = &eviction["deleteOptions"];
        let pod = self.find_object("", "pods", &scope.namespace, scope.name()?).await?;
        let pod =
            pod.ok_or_else(|| ApiError::not_found(scope.kind.subject(scope.name.as_deref().unwrap_or_default())))?;
        self.spend_disruption(scope, &pod, options.dry_run).await?;
        let pods = Scope { subresource: None, ..scope.clone() };
        let delete = DeleteOptions {
            dry_run: options.dry_run,
            grace_period_seconds: given["gracePeriodSeconds"].as_i64(),
            preconditions: serde_json::from_value(given["preconditions"].clone()).ok(),
            propagation: None,
        };
        self.delete(&pods, delete).await?;
        Ok(success())
    }

    /// Takes one disruption from the budget that covers a pod.
    async fn spend_disruption(&self, scope: &Scope, pod: &Object, dry_run: bool) -> ApiResult<()> {
        use orchestrator_core::selector::LabelSelector;
        let resource = orchestrator_core::client::Resource::new("policy", "v1", "poddisruptionbudgets");
        let phase = pod.tree()?["status"]["phase"].as_str().unwrap_or_default().to_owned();
        if matches!(phase.as_str(), "Succeeded" | "Failed" | "Pending") {
            return Ok(());
        }
        let kind = self.registry.find(&resource).ok_or_else(ApiError::no_such_path)?;
        let range = kind.range(Some(&scope.namespace));
        let listing = self.store.list(&range, Default::default()).await.map_err(super::store_error)?;
        let labels = pod.metadata()?.labels.clone().unwrap_or_default();
        let mut covering = Vec::new();
        for entry in listing.entries {
            let object = self.objects.of(&entry);
            let selector = serde_json::from_value(object.tree()?["spec"]["selector"].clone());
            let selector = selector.ok().and_then(|selector| LabelSelector::from_meta(&selector).ok());
            if selector.is_some_and(|selector| selector.matches(&labels)) {
                covering.push(object);
            }
        }
        let [budget] = covering.as_slice() else {
            return match covering.len() {
                0 => Ok(()),
                _ => Err(ApiError::internal(
                    "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
                )),
            };
        };
        let tree = budget.tree()?;
        let name = super::create::name_of(tree);
        let allowed = tree["status"]["disruptionsAllowed"].as_i64().unwrap_or(0);
        if allowed <= 0 {
            let message = "Cannot evict pod as it would violate the pod's disruption budget.";
            return Err(ApiError::new(Reason::TooManyRequests, message));
        }
        if dry_run {
            return Ok(());
        }
        let pod_name = scope.name()?.to_owned();
        let change = json!({
            "metadata": {"resourceVersion": tree["metadata"]["resourceVersion"]},
            "status": {"disruptionsAllowed": allowed - 1, "disruptedPods": {pod_name: self.now()}},
        });
        let budgets =
            Scope { kind, name: Some(name.to_owned()), subresource: Some("status".to_owned()), ..scope.clone() };
        self.patch(&budgets, PatchBody::Merge(change), WriteOptions::default()).await.map(drop)
    }

    /// Signs a token for a service account: `TokenRequest`.
    async fn create_token(&self, scope: &Scope, object: &Object, options: &WriteOptions) -> ApiResult<Reply> {
        let kind = input::body_kind("authentication.k8s.io", "v1", "TokenRequest");
        let mut request = input::decode_as(&kind, object, options.field_validation, &mut Vec::new())?;
        let seconds = request["spec"]["expirationSeconds"].as_i64().unwrap_or(3600);
        let name = scope.name()?;
        check_token_request(&request, (name, &scope.namespace), seconds)?;
        let account = self.find_object("", "serviceaccounts", &scope.namespace, name).await?;
        let account = account.ok_or_else(|| ApiError::not_found(scope.kind.subject(name)))?;
        let uid = account.metadata()?.uid.clone().unwrap_or_default();
        let audiences: Vec<String> = serde_json::from_value(request["spec"]["audiences"].clone()).unwrap_or_default();
        let bound = self.bound_pod(scope, &request["spec"]["boundObjectRef"]).await?;
        let now = self.env.now();
        let issued = self.tokens.issue(&scope.namespace, name, &uid, &audiences, bound, now, seconds)?;
        *member(member(&mut request, "spec"), "expirationSeconds") = seconds.into();
        *member(member(&mut request, "spec"), "audiences") = issued.audiences.into();
        *member(&mut request, "status") =
            json!({"token": issued.token, "expirationTimestamp": issued.expires.to_string()});
        *member(&mut request, "kind") = "TokenRequest".into();
        *member(&mut request, "apiVersion") = "authentication.k8s.io/v1".into();
        let metadata = member(&mut request, "metadata");
        *member(metadata, "name") = name.into();
        *member(metadata, "namespace") = scope.namespace.clone().into();
        *member(metadata, "creationTimestamp") = self.now().into();
        Ok(Self::object_reply(Object::from_tree(request), true, Vec::new()))
    }

    /// Name and UID of the pod that a token is bound to.
    async fn bound_pod(&self, scope: &Scope, reference: &Value) -> ApiResult<Option<(String, String)>> {
        let text = |name: &str| reference[name].as_str().unwrap_or_default();
        if reference.is_null() {
            return Ok(None);
        }
        if text("kind") != "Pod" {
            return Err(ApiError::bad_request(format!("cannot bind token to object of type {}", text("kind"))));
        }
        let pod = self.find_object("", "pods", &scope.namespace, text("name")).await?;
        let subject = Subject { group: "", resource: "pods", name: text("name") };
        let uid = pod.ok_or_else(|| ApiError::not_found(subject))?.metadata()?.uid.clone().unwrap_or_default();
        if !text("uid").is_empty() && text("uid") != uid {
            let why =
                format!("the UID in the bound object reference ({}) does not match the UID in record", text("uid"));
            return Err(ApiError::conflict(subject, &why));
        }
        Ok(Some((text("name").to_owned(), uid)))
    }

    /// Writes a namespace's finalizers, and lets it go when none is left.
    pub(super) async fn finalize(&self, scope: &Scope, object: Object, options: WriteOptions) -> ApiResult<Reply> {
        let mut warnings = Vec::new();
        let wanted = self.decode(scope, &object, options.field_validation, &mut warnings)?;
        for _ in 0..limits::UPDATE_ATTEMPTS {
            let entry = self.entry(scope).await?;
            let old = self.objects.of(&entry);
            let mut new = old.to_tree()?;
            let version = wanted["metadata"]["resourceVersion"].as_str().unwrap_or_default();
            if !version.is_empty() && new["metadata"]["resourceVersion"] != version {
                return Err(ApiError::stale(scope.kind.subject(scope.name()?)));
            }
            *member(member(&mut new, "spec"), "finalizers") = wanted["spec"]["finalizers"].clone();
            if new["spec"]["finalizers"].as_array().is_none_or(Vec::is_empty) {
                remove(member(&mut new, "spec"), "finalizers");
            }
            let before = old.to_tree()?;
            self.track(scope, "finalize", Some(&before), &mut new, &options);
            if options.dry_run {
                return Ok(Self::object_reply(Object::from_tree(new), false, warnings));
            }
            let done = if released(&new) {
                self.remove(&scope.kind, &entry).await.map(|_| Object::from_tree(new))
            } else {
                self.put(scope, &new, Some(&entry)).await
            };
            match done {
                Ok(object) => return Ok(Self::object_reply(object, false, warnings)),
                Err(Refusal::Failed(error)) => return Err(error),
                Err(Refusal::Moved | Refusal::Taken(_)) => {}
            }
        }
        Err(ApiError::stale(scope.kind.subject(scope.name()?)))
    }
}

/// A pod is bound to a node. Upstream passes on what is wrong as a bare error.
fn check_target(target: &Field<'_>) -> ApiResult<()> {
    let mut problems = Vec::new();
    let kind = target.get("kind").text();
    if !matches!(kind, "" | "Node") {
        problems.push(format!("target.kind: Unsupported value: {kind:?}: supported values: \"Node\", \"<empty>\""));
    }
    if target.get("name").text().is_empty() {
        problems.push("target.name: Required value".to_owned());
    }
    match problems.as_slice() {
        [] => Ok(()),
        [only] => Err(ApiError::new(Reason::Unknown, only.clone())),
        many => Err(ApiError::new(Reason::Unknown, format!("[{}]", many.join(", ")))),
    }
}

/// A request for a token names its account, if anything, and a life within bounds.
fn check_token_request(request: &Value, (name, namespace): (&str, &str), seconds: i64) -> ApiResult<()> {
    let metadata = Field::root(request).get("metadata");
    let refuse = |subject: &str, field: String, detail: String| {
        let subject = Subject { group: "authentication.k8s.io", resource: "TokenRequest", name: subject };
        let error = FieldError { field, kind: FieldErrorKind::Invalid, detail };
        Err(ApiError::invalid(subject, &[error]))
    };
    for (member, expected) in [("name", name), ("namespace", namespace)] {
        let given = metadata.get(member);
        if !given.text().is_empty() && given.text() != expected {
            let detail = format!("{}: must match the service account {member} if specified", given.shown());
            return refuse(name, given.path(), detail);
        }
    }
    let problem = match seconds {
        seconds if seconds < limits::TOKEN_SECONDS_MIN => "may not specify a duration less than 10 minutes",
        seconds if seconds > limits::TOKEN_SECONDS_MAX => "may not specify a duration larger than 2^32 seconds",
        _ => return Ok(()),
    };
    refuse("", "spec.expirationSeconds".to_owned(), format!("{seconds}: {problem}"))
}

/// The reply of a binding or an eviction.
fn success() -> Reply {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    Server::object_reply(Object::from_tree(status), true, Vec::new())
}

/// A bound pod is scheduled, by definition, and waits for no other node.
fn set_scheduled(tree: &mut Value, now: &str) {
    remove(member(tree, "status"), "nominatedNodeName");
    let conditions = member(member(tree, "status"), "conditions");
    let mut kept = conditions.as_array().cloned().unwrap_or_default();
    kept.retain(|condition| condition["type"] != "PodScheduled");
    kept.push(json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now}));
    *conditions = kept.into();
}
