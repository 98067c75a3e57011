//! What objects may use: a write that uses more than before is charged to the quotas of its namespace, or refused.
//!
//! The charge is written before the object; what never comes to be is given back when the controller counts again, as upstream
//! has it. Upstream: `k8s.io/apiserver/pkg/admission/plugin/resourcequota` and `pkg/quota/v1/evaluator`.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        core::v1::{Container, PersistentVolumeClaim, Pod, ResourceQuota, ResourceRequirements, Service},
        resource::v1::ResourceClaim,
    },
    apimachinery::pkg::api::resource::Quantity as Written,
};
use orchestrator_core::{
    client::Resource,
    object::Object,
    quantity::{Format, Quantity},
    quota::{
        amounts::{self, Amounts},
        scopes,
    },
    status::{ApiError, ApiResult},
    store::{Batch, Entry, Operation, Precondition, StoreError},
};
use serde_json::{Value, json};

use super::{Scope, Server, create::name_of, store_error};
use crate::{field::member, limits, registry::Kind};

/// Resources of the core group that have a limit by their plain name, too.
const PLAIN_NAMES: [&str; 4] = ["configmaps", "replicationcontrollers", "resourcequotas", "secrets"];
/// What every container of a pod has to say once a quota limits it.
const REQUIRED: [&str; 6] = ["cpu", "limits.cpu", "limits.memory", "memory", "requests.cpu", "requests.memory"];

impl Server {
    /// Charges what a write uses more than before to all quotas that count it, or refuses it.
    pub(super) async fn admit_by_quotas(
        &self,
        scope: &Scope,
        tree: &Value,
        old: Option<&Value>,
        dry_run: bool,
    ) -> ApiResult<()> {
        if !self.config.admission.quotas || !is_counted(scope, old.is_some()) {
            return Ok(());
        }
        let kind = self.registry.find(&Resource::new("", "v1", "resourcequotas")).ok_or_else(ApiError::no_such_path)?;
        for attempt in 0..limits::UPDATE_ATTEMPTS {
            let listing = self.store.list(&kind.range(scope.namespace_opt()), Default::default()).await;
            let quotas = listing.map_err(store_error)?.entries;
            if quotas.is_empty() {
                return Ok(());
            }
            if attempt == 0 && old.is_none() {
                // What is there already is not paid for twice.
                self.refuse_taken(scope, tree).await?;
            }
            let batch = self.charges(scope, &kind, &quotas, tree, old)?;
            if dry_run || batch.operations.is_empty() {
                return Ok(());
            }
            match self.store.commit(batch).await {
                Ok(_) => return Ok(()),
                // Somebody else was charged, or the controller has counted.
                Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(store_error(error)),
            }
        }
        Err(ApiError::stale(scope.kind.subject(name_of(tree))))
    }

    /// The writes that charge the quotas, all or none of them.
    fn charges(
        &self,
        scope: &Scope,
        kind: &Kind,
        quotas: &[Entry],
        tree: &Value,
        old: Option<&Value>,
    ) -> ApiResult<Batch> {
        let read = |tree: &Value| Subject::read(&scope.kind, tree).map_err(ApiError::internal);
        let subject = read(tree)?;
        let more = match old {
            None => subject.used(),
            Some(old) => increase(subject.used(), &read(old)?.used()),
        };
        let mut batch = Batch::default();
        for entry in quotas {
            let object = kind.served(self.objects.of(entry))?;
            let quota = object.shared::<ResourceQuota>()?;
            let refused = |why: String| ApiError::forbidden(scope.kind.subject(name_of(tree)), &why);
            let Some(used) = charge(&quota, &subject, &more).map_err(refused)? else { continue };
            let mut charged = object.to_tree()?;
            *member(member(&mut charged, "status"), "used") = json!(used);
            let value = Object::encode_for_store(&kind.stored(&charged))?;
            batch.preconditions.push(Precondition::AtRevision { key: entry.key.clone(), revision: entry.modified });
            batch.operations.push(Operation::Put { key: entry.key.clone(), value, time_to_live: None });
        }
        Ok(batch)
    }
}

/// Whether quotas count what a request writes. Events come and go by themselves.
fn is_counted(scope: &Scope, is_change: bool) -> bool {
    let plural = &*scope.kind.resource.plural;
    let is_core = scope.kind.resource.group.is_empty();
    match (is_change, scope.subresource.as_deref()) {
        (false, None) => scope.kind.namespaced && plural != "events",
        (true, None) => is_core && matches!(plural, "services" | "persistentvolumeclaims"),
        (true, Some("resize")) => is_core && plural == "pods",
        _ => false,
    }
}

/// An object as quotas see it.
enum Subject {
    Pod(Box<Pod>),
    Service(Box<Service>),
    Claim(Box<PersistentVolumeClaim>),
    Devices(Box<ResourceClaim>),
    /// One of which quotas count the number, by these names.
    Other(Vec<String>),
}

impl Subject {
    fn read(kind: &Kind, tree: &Value) -> Result<Self, serde_json::Error> {
        let (group, plural) = (&*kind.resource.group, &*kind.resource.plural);
        Ok(match (group, plural) {
            ("", "pods") => Self::Pod(serde_json::from_value(tree.clone())?),
            ("", "services") => Self::Service(serde_json::from_value(tree.clone())?),
            ("", "persistentvolumeclaims") => Self::Claim(serde_json::from_value(tree.clone())?),
            ("resource.k8s.io", "resourceclaims") => Self::Devices(serde_json::from_value(tree.clone())?),
            ("", plural) if PLAIN_NAMES.contains(&plural) => {
                Self::Other(vec![plural.to_owned(), format!("count/{plural}")])
            }
            ("", plural) => Self::Other(vec![format!("count/{plural}")]),
            (group, plural) => Self::Other(vec![format!("count/{plural}.{group}")]),
        })
    }

    fn used(&self) -> Amounts {
        match self {
            // Pods that are written are not overdue.
            Self::Pod(pod) => amounts::pod(pod, Timestamp::MIN),
            Self::Service(service) => amounts::service(service),
            Self::Claim(claim) => amounts::claim(claim),
            Self::Devices(claim) => amounts::device_claim(claim),
            Self::Other(names) => {
                names.iter().map(|name| (name.clone(), Quantity::from_value(1, Format::DecimalSi))).collect()
            }
        }
    }

    /// Whether objects of its kind may use what has this name.
    fn may_use(&self, name: &str) -> bool {
        let of_class = name.contains(".storageclass.storage.k8s.io/");
        match self {
            Self::Pod(_) => {
                let plain = name.strip_prefix("requests.").or(name.strip_prefix("limits.")).unwrap_or(name);
                matches!(name, "pods" | "count/pods")
                    || matches!(plain, "cpu" | "memory" | "ephemeral-storage")
                    || plain.starts_with("hugepages-")
                    || name.starts_with("requests.") && name.contains('/') && !of_class
            }
            Self::Service(_) => {
                let names = ["services", "count/services", "services.nodeports", "services.loadbalancers"];
                names.contains(&name)
            }
            Self::Claim(_) => {
                let names = ["persistentvolumeclaims", "count/persistentvolumeclaims", "requests.storage"];
                names.contains(&name) || of_class
            }
            Self::Devices(_) => name == "count/resourceclaims.resource.k8s.io" || amounts::is_of_devices(name),
            Self::Other(names) => names.iter().any(|known| known == name),
        }
    }

    fn is_of(&self, quota: &ResourceQuota) -> bool {
        let Some(spec) = &quota.spec else { return true };
        match self {
            Self::Pod(pod) => scopes::has_pod(spec, pod),
            Self::Claim(claim) => scopes::has_claim(spec, claim),
            Self::Service(_) | Self::Devices(_) | Self::Other(_) => scopes::is_unscoped(spec),
        }
    }
}

/// What is used more than before.
fn increase(now: Amounts, before: &Amounts) -> Amounts {
    let more = now.into_iter().map(|(name, amount)| {
        let more = before.get(&name).map_or_else(|| amount.clone(), |before| amount.clone() - before.clone());
        (name, more)
    });
    more.filter(|(_, more)| more.sign() > 0).collect()
}

/// What of a quota is used with the object, if the quota counts anything of it; or why there is no room.
fn charge(
    quota: &ResourceQuota,
    subject: &Subject,
    more: &Amounts,
) -> Result<Option<BTreeMap<String, Written>>, String> {
    let status = quota.status.clone().unwrap_or_default();
    let name = quota.metadata.name.as_deref().unwrap_or_default();
    let hard = read(status.hard.as_ref());
    let counted: Vec<&str> = hard.keys().map(String::as_str).filter(|name| subject.may_use(name)).collect();
    if counted.is_empty() || !subject.is_of(quota) {
        return Ok(None);
    }
    if let Subject::Pod(pod) = subject
        && let Some(missing) = unsaid(pod, &counted)
    {
        return Err(format!("failed quota: {name}: must specify {missing}"));
    }
    let mut used = read(status.used.as_ref());
    let unknown: Vec<&str> = counted.iter().copied().filter(|counted| !used.contains_key(*counted)).collect();
    if !unknown.is_empty() {
        return Err(format!("status unknown for quota: {name}, resources: {}", unknown.join(",")));
    }
    let is_asked = |(name, amount): &(&String, &Quantity)| hard.contains_key(*name) && !amount.is_zero();
    let asked: Amounts = more.iter().filter(is_asked).map(|(name, amount)| (name.clone(), amount.clone())).collect();
    if asked.is_empty() {
        return Ok(None);
    }
    let before = used.clone();
    amounts::add(&mut used, &asked);
    let exceeded: BTreeSet<&String> = asked.keys().filter(|name| used.get(*name) > hard.get(*name)).collect();
    if !exceeded.is_empty() {
        let shown = |amounts: &Amounts| {
            let shown = exceeded.iter().filter_map(|name| Some(format!("{name}={}", amounts.get(*name)?)));
            shown.collect::<Vec<_>>().join(",")
        };
        let (asked, before, hard) = (shown(&asked), shown(&before), shown(&hard));
        return Err(format!("exceeded quota: {name}, requested: {asked}, used: {before}, limited: {hard}"));
    }
    Ok(Some(used.iter().map(|(name, amount)| (name.clone(), amount.into())).collect()))
}

fn read(written: Option<&BTreeMap<String, Written>>) -> Amounts {
    let amounts = written.into_iter().flatten();
    amounts.filter_map(|(name, amount)| Some((name.clone(), Quantity::try_from(amount).ok()?))).collect()
}

/// What containers of a pod do not say although it is limited, with their names.
fn unsaid(pod: &Pod, limited: &[&str]) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let of_pod = said(spec.resources.as_ref());
    let containers: Vec<&Container> = spec.containers.iter().chain(spec.init_containers.iter().flatten()).collect();
    let missing =
        REQUIRED.iter().filter(|name| limited.contains(name) && !of_pod.contains(**name)).filter_map(|name| {
            let silent = containers.iter().filter(|container| !said(container.resources.as_ref()).contains(*name));
            let silent: BTreeSet<&str> = silent.map(|container| container.name.as_str()).collect();
            let silent = silent.into_iter().collect::<Vec<_>>().join(",");
            (!silent.is_empty()).then(|| format!("{name} for: {silent}"))
        });
    Some(missing.collect::<Vec<_>>().join("; ")).filter(|missing| !missing.is_empty())
}

/// What resources are named, in the words of quotas.
fn said(resources: Option<&ResourceRequirements>) -> BTreeSet<String> {
    let Some(resources) = resources else { return BTreeSet::new() };
    let requests = resources.requests.iter().flat_map(BTreeMap::keys);
    let limits = resources.limits.iter().flat_map(BTreeMap::keys);
    let requests = requests.flat_map(|name| [name.clone(), format!("requests.{name}")]);
    requests.chain(limits.map(|name| format!("limits.{name}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota(hard: &Value, used: &Value) -> ResourceQuota {
        let tree = json!({"metadata": {"name": "q"}, "spec": {"hard": hard}, "status": {"hard": hard, "used": used}});
        serde_json::from_value(tree).unwrap()
    }

    fn pod(resources: &Value) -> Subject {
        let tree = json!({"spec": {"containers": [{"name": "a", "resources": resources}, {"name": "b", "resources": resources}]}});
        Subject::Pod(serde_json::from_value(tree).unwrap())
    }

    fn charged(quota: &ResourceQuota, subject: &Subject) -> Result<Option<Value>, String> {
        charge(quota, subject, &subject.used()).map(|used| used.map(|used| json!(used)))
    }

    #[test]
    fn what_fits_is_charged_and_the_rest_refused() {
        let one = pod(&json!({"requests": {"cpu": "500m"}}));
        let room = quota(&json!({"pods": "2", "requests.cpu": "2"}), &json!({"pods": "1", "requests.cpu": "1"}));
        assert_eq!(charged(&room, &one), Ok(Some(json!({"pods": "2", "requests.cpu": "2"}))));
        let full = quota(&json!({"pods": "1", "requests.cpu": "1"}), &json!({"pods": "1", "requests.cpu": "1"}));
        assert_eq!(
            charged(&full, &one).unwrap_err(),
            "exceeded quota: q, requested: pods=1,requests.cpu=1, used: pods=1,requests.cpu=1, limited: pods=1,requests.cpu=1"
        );
        let other = quota(&json!({"services": "1"}), &json!({"services": "1"}));
        assert_eq!(charged(&other, &one), Ok(None));
    }

    #[test]
    fn devices_are_limited_by_their_classes() {
        let tree = json!({"spec": {"devices": {"requests": [{"name": "r", "exactly": {
            "deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 2,
        }}]}}});
        let claim = Subject::Devices(serde_json::from_value(tree).unwrap());
        let name = "gpu.deviceclass.resource.k8s.io/devices";
        let refused = charged(&quota(&json!({name: "1"}), &json!({name: "0"})), &claim).unwrap_err();
        assert_eq!(refused, format!("exceeded quota: q, requested: {name}=2, used: {name}=0, limited: {name}=1"));
        assert_eq!(charged(&quota(&json!({name: "2"}), &json!({name: "0"})), &claim), Ok(Some(json!({name: "2"}))));
    }

    #[test]
    fn containers_say_what_is_limited() {
        let limited = quota(&json!({"cpu": "9", "limits.memory": "9Gi"}), &json!({"cpu": "0", "limits.memory": "0"}));
        let silent = charged(&limited, &pod(&json!({"requests": {"memory": "1Gi"}}))).unwrap_err();
        assert_eq!(silent, "failed quota: q: must specify cpu for: a,b; limits.memory for: a,b");
        let saying = pod(&json!({"requests": {"cpu": "1"}, "limits": {"memory": "1Gi"}}));
        assert_eq!(charged(&limited, &saying), Ok(Some(json!({"cpu": "2", "limits.memory": "2Gi"}))));
    }

    #[test]
    fn nothing_is_charged_before_it_is_counted() {
        let uncounted = quota(&json!({"pods": "1"}), &json!({}));
        let refused = charged(&uncounted, &pod(&json!({}))).unwrap_err();
        assert_eq!(refused, "status unknown for quota: q, resources: pods");
        let mut new = quota(&json!({"pods": "0"}), &json!({}));
        new.status = None;
        assert_eq!(charged(&new, &pod(&json!({}))), Ok(None));
    }

    #[test]
    fn changes_cost_what_they_add() {
        let amounts = |trees: &[(&str, i64)]| -> Amounts {
            let amount = |number| Quantity::from_value(number, Format::DecimalSi);
            trees.iter().map(|(name, number)| ((*name).to_owned(), amount(*number))).collect()
        };
        let now = amounts(&[("services", 1), ("services.nodeports", 3), ("services.loadbalancers", 0)]);
        let before = amounts(&[("services", 1), ("services.nodeports", 1), ("services.loadbalancers", 1)]);
        assert_eq!(increase(now, &before), amounts(&[("services.nodeports", 2)]));
    }
}
