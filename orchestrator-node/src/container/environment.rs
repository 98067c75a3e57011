//! A container's environment.
//!
//! Upstream: <https://kubernetes.io/docs/tasks/inject-data-application/define-environment-variable-container/>.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVar, Secret, Service};

use super::{
    expand::expand,
    fields::{self, Facts},
};
use crate::pod;

/// Objects that an environment refers to, as far as they exist.
#[derive(Clone, Debug, Default)]
pub(crate) struct References {
    pub(crate) config_maps: BTreeMap<String, ConfigMap>,
    pub(crate) secrets: BTreeMap<String, Secret>,
    /// The services of the pod's namespace, and `kubernetes`.
    pub(crate) services: Vec<Service>,
}

/// The names of the ConfigMaps and of the Secrets that a container's environment needs.
pub(crate) fn needed(container: &Container) -> (Vec<String>, Vec<String>) {
    let sources = || container.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref());
    let all = || container.env_from.iter().flatten();
    let maps = sources()
        .filter_map(|source| source.config_map_key_ref.as_ref().map(|key| key.name.clone()))
        .chain(all().filter_map(|source| source.config_map_ref.as_ref().map(|map| map.name.clone())));
    let secrets = sources()
        .filter_map(|source| source.secret_key_ref.as_ref().map(|key| key.name.clone()))
        .chain(all().filter_map(|source| source.secret_ref.as_ref().map(|secret| secret.name.clone())));
    (maps.collect(), secrets.collect())
}

/// The variables in order: services, `envFrom`, `env`; each name once, with its last value.
pub(crate) fn environment(
    facts: &Facts<'_>,
    container: &Container,
    references: &References,
) -> Result<Vec<(String, String)>, String> {
    let services = service_variables(facts, references);
    let mut result = Variables::default();
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        for (key, value) in all_of(facts, references, source)? {
            result.set(format!("{prefix}{key}"), value);
        }
    }
    for variable in container.env.iter().flatten() {
        if let Some(value) = value_of(facts, container, references, variable, &result, &services)? {
            result.set(variable.name.clone(), value);
        }
    }
    let given: Vec<(String, String)> = services.into_iter().filter(|(name, _)| result.get(name).is_none()).collect();
    Ok(result.0.into_iter().chain(given).collect())
}

#[derive(Debug, Default)]
struct Variables(Vec<(String, String)>);

impl Variables {
    fn get(&self, name: &str) -> Option<String> {
        self.0.iter().find(|(present, _)| present == name).map(|(_, value)| value.clone())
    }

    fn set(&mut self, name: String, value: String) {
        match self.0.iter_mut().find(|(present, _)| *present == name) {
            Some((_, present)) => *present = value,
            None => self.0.push((name, value)),
        }
    }
}

fn all_of(
    facts: &Facts<'_>,
    references: &References,
    source: &k8s_openapi::api::core::v1::EnvFromSource,
) -> Result<BTreeMap<String, String>, String> {
    if let Some(reference) = &source.config_map_ref {
        return match references.config_maps.get(&reference.name) {
            Some(map) => Ok(map.data.clone().unwrap_or_default()),
            None if reference.optional == Some(true) => Ok(BTreeMap::new()),
            None => Err(format!("configmap \"{}\" not found", reference.name)),
        };
    }
    let Some(reference) = &source.secret_ref else { return Ok(BTreeMap::new()) };
    match references.secrets.get(&reference.name) {
        Some(secret) => secret
            .data
            .iter()
            .flatten()
            .map(|(key, value)| Ok((key.clone(), text(facts, &reference.name, key, &value.0)?)))
            .collect(),
        None if reference.optional == Some(true) => Ok(BTreeMap::new()),
        None => Err(format!("secret \"{}\" not found", reference.name)),
    }
}

fn text(facts: &Facts<'_>, secret: &str, key: &str, bytes: &[u8]) -> Result<String, String> {
    let namespace = pod::namespace(facts.pod);
    String::from_utf8(bytes.to_vec())
        .map_err(|_| format!("value of key {key} in Secret {namespace}/{secret} is not valid UTF-8"))
}

/// A variable's value; `None` when an optional source is not there.
fn value_of(
    facts: &Facts<'_>,
    container: &Container,
    references: &References,
    variable: &EnvVar,
    present: &Variables,
    services: &BTreeMap<String, String>,
) -> Result<Option<String>, String> {
    let Some(source) = &variable.value_from else {
        let lookup = |name: &str| present.get(name).or_else(|| services.get(name).cloned());
        return Ok(Some(expand(variable.value.as_deref().unwrap_or_default(), lookup)));
    };
    if let Some(field) = &source.field_ref {
        return fields::field(facts, &field.field_path).map(Some);
    }
    if let Some(selector) = &source.resource_field_ref {
        return fields::resource(facts, container, selector).map(Some);
    }
    let namespace = pod::namespace(facts.pod);
    if let Some(key) = &source.config_map_key_ref {
        let optional = key.optional == Some(true);
        let Some(map) = references.config_maps.get(&key.name) else {
            return if optional { Ok(None) } else { Err(format!("configmap \"{}\" not found", key.name)) };
        };
        let value = map.data.as_ref().and_then(|data| data.get(&key.key)).cloned();
        return match value {
            None if !optional => Err(format!("couldn't find key {} in ConfigMap {namespace}/{}", key.key, key.name)),
            value => Ok(value),
        };
    }
    if let Some(key) = &source.secret_key_ref {
        let optional = key.optional == Some(true);
        let Some(secret) = references.secrets.get(&key.name) else {
            return if optional { Ok(None) } else { Err(format!("secret \"{}\" not found", key.name)) };
        };
        return match secret.data.as_ref().and_then(|data| data.get(&key.key)) {
            Some(bytes) => text(facts, &key.name, &key.key, &bytes.0).map(Some),
            None if optional => Ok(None),
            None => Err(format!("couldn't find key {} in Secret {namespace}/{}", key.key, key.name)),
        };
    }
    Ok(Some(String::new()))
}

/// Variables about services, in Docker's form: `DB_SERVICE_HOST`, `DB_PORT`, `DB_PORT_5432_TCP` and so on.
fn service_variables(facts: &Facts<'_>, references: &References) -> BTreeMap<String, String> {
    let links = pod::spec(facts.pod).enable_service_links != Some(false);
    let own = pod::namespace(facts.pod);
    let mut variables = BTreeMap::new();
    for service in &references.services {
        let name = service.metadata.name.as_deref().unwrap_or_default();
        let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
        let master = namespace == "default" && name == "kubernetes";
        if master || (links && namespace == own) {
            add_service(&mut variables, name, service);
        }
    }
    variables
}

fn add_service(variables: &mut BTreeMap<String, String>, name: &str, service: &Service) {
    let Some(spec) = &service.spec else { return };
    let Some(host) = spec.cluster_ip.as_deref().filter(|address| !address.is_empty() && *address != "None") else {
        return;
    };
    let prefix = name.to_uppercase().replace('-', "_");
    let ports = spec.ports.iter().flatten();
    let Some(first) = ports.clone().next() else { return };
    let address = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let url = |port: &k8s_openapi::api::core::v1::ServicePort| {
        let protocol = port.protocol.as_deref().unwrap_or("TCP").to_lowercase();
        (format!("{protocol}://{address}:{}", port.port), protocol)
    };
    let mut set = |name: String, value: String| variables.insert(name, value);
    set(format!("{prefix}_SERVICE_HOST"), host.to_owned());
    set(format!("{prefix}_SERVICE_PORT"), first.port.to_string());
    set(format!("{prefix}_PORT"), url(first).0);
    for port in ports {
        if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            let suffix = name.to_uppercase().replace('-', "_");
            set(format!("{prefix}_SERVICE_PORT_{suffix}"), port.port.to_string());
        }
        let (text, protocol) = url(port);
        let base = format!("{prefix}_PORT_{}_{}", port.port, protocol.to_uppercase());
        set(base.clone(), text);
        set(format!("{base}_PROTO"), protocol);
        set(format!("{base}_PORT"), port.port.to_string());
        set(format!("{base}_ADDR"), host.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{Pod, PodStatus};
    use serde_json::{Value, json};

    use super::*;

    fn values(env: Value, env_from: Value) -> Result<BTreeMap<String, String>, String> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns"},
            "spec": {"containers": [{"name": "c", "env": env, "envFrom": env_from}]},
        }))
        .unwrap();
        let references = References {
            config_maps: [("m".into(), serde_json::from_value(json!({"data": {"a": "1", "b": "2"}})).unwrap())].into(),
            secrets: [("s".into(), serde_json::from_value(json!({"data": {"k": "aGVsbG8="}})).unwrap())].into(),
            services: vec![
                serde_json::from_value(json!({
                    "metadata": {"name": "my-db", "namespace": "ns"},
                    "spec": {"clusterIP": "10.0.0.5", "ports": [{"name": "sql", "port": 5432}]},
                }))
                .unwrap(),
            ],
        };
        let none = BTreeMap::new();
        let facts = Facts { pod: &pod, status: &PodStatus::default(), allocatable: &none };
        environment(&facts, &pod::spec(&pod).containers[0], &references).map(|list| list.into_iter().collect())
    }

    #[test]
    fn sources_and_references() {
        let env = json!([
            {"name": "A", "value": "x"},
            {"name": "B", "value": "$(A)-$(MY_DB_SERVICE_HOST)-$(P_a)-$(NO)"},
            {"name": "C", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
            {"name": "D", "valueFrom": {"configMapKeyRef": {"name": "no", "key": "k", "optional": true}}},
            {"name": "E", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        ]);
        let values = values(env, json!([{"prefix": "P_", "configMapRef": {"name": "m"}}])).unwrap();
        assert_eq!(values["B"], "x-10.0.0.5-1-$(NO)");
        assert_eq!(values["C"], "hello");
        assert_eq!(values.get("D"), None);
        assert_eq!(values["E"], "p");
        assert_eq!(values["MY_DB_SERVICE_PORT_SQL"], "5432");
        assert_eq!(values["MY_DB_PORT_5432_TCP"], "tcp://10.0.0.5:5432");
    }

    #[test]
    fn missing_sources_are_named_as_upstream_names_them() {
        let map = json!([{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "z"}}}]);
        assert_eq!(values(map, json!([])).unwrap_err(), "couldn't find key z in ConfigMap ns/m");
        let secret = json!([{"name": "A", "valueFrom": {"secretKeyRef": {"name": "t", "key": "z"}}}]);
        assert_eq!(values(secret, json!([])).unwrap_err(), "secret \"t\" not found");
        assert_eq!(
            values(json!([]), json!([{"configMapRef": {"name": "x"}}])).unwrap_err(),
            "configmap \"x\" not found"
        );
    }
}
