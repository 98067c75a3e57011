//! What callers are told about pods that are taken, but hardly as they were meant.
//!
//! Upstream: `pkg/api/pod/warnings.go` and `pkg/api/node/util.go`.

use std::collections::{BTreeMap, BTreeSet};

use super::all_containers;
use crate::{field::Field, kinds::check, limits};

/// Labels of nodes that have got other names.
const LABELS: [(&str, &str); 5] = [
    ("beta.kubernetes.io/arch", "deprecated since v1.14; use \"kubernetes.io/arch\" instead"),
    ("beta.kubernetes.io/os", "deprecated since v1.14; use \"kubernetes.io/os\" instead"),
    (
        "failure-domain.beta.kubernetes.io/region",
        "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead",
    ),
    ("failure-domain.beta.kubernetes.io/zone", "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead"),
    ("beta.kubernetes.io/instance-type", "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead"),
];
const ANNOTATIONS: [(&str, &str); 3] = [
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        "non-functional in v1.16+; use the \"priorityClassName\" field instead",
    ),
    ("security.alpha.kubernetes.io/sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
    ("security.alpha.kubernetes.io/unsafe-sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
];
const VOLUMES: [(&str, &str); 9] = [
    ("photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
    ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
];
const SECCOMP: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_OF: &str = "container.seccomp.security.alpha.kubernetes.io/";
const APP_ARMOR_OF: &str = "container.apparmor.security.beta.kubernetes.io/";
const USE_SECCOMP: &str = "non-functional in v1.27+; use the \"seccompProfile\" field instead";
const USE_APP_ARMOR: &str = "deprecated since v1.30; use the \"appArmorProfile\" field instead";
const NO_SELECTOR: &str = "a null labelSelector results in matching no pod";

/// Tells of a pod, or of a template of pods.
pub(crate) fn of_pod(pod: &Field<'_>, warnings: &mut Vec<String>) {
    let spec = pod.get("spec");
    let mut found = Warnings(warnings);
    found.old_labels(&spec);
    found.spread(&spec.get("topologySpreadConstraints"));
    found.annotations(&pod.at("metadata.annotations"));
    found.volumes(&spec.get("volumes"));
    found.repeated(&spec);
    for resource in WHOLE {
        found.whole(&spec.get("overhead").key(resource));
    }
    found.containers(pod, &spec);
    found.ports(&spec);
    let grace = spec.get("terminationGracePeriodSeconds");
    if grace.int().is_some_and(|seconds| seconds < 0) {
        found.tell(&grace, "must be >= 0; negative values are invalid and will be treated as 1");
    }
    for name in ["podAffinity", "podAntiAffinity"] {
        found.affinity(&spec.get("affinity").get(name));
    }
}

/// Tells of the spec of a claim.
pub(crate) fn of_claim(spec: &Field<'_>, warnings: &mut Vec<String>) {
    for list in ["requests", "limits"] {
        Warnings(warnings).whole(&spec.get("resources").get(list).key("storage"));
    }
}

/// Resources of which there are no parts.
const WHOLE: [&str; 2] = ["memory", "ephemeral-storage"];

struct Warnings<'a>(&'a mut Vec<String>);

impl Warnings<'_> {
    fn tell(&mut self, field: &Field<'_>, what: &str) {
        self.0.push(format!("{}: {what}", field.path()));
    }

    fn old_labels(&mut self, spec: &Field<'_>) {
        for (key, value) in spec.get("nodeSelector").entries() {
            if let Some(what) = old_label(key) {
                self.tell(&value, what);
            }
        }
        let affinity = spec.at("affinity.nodeAffinity");
        for term in affinity.at("requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms").items() {
            self.node_term(&term);
        }
        for term in affinity.get("preferredDuringSchedulingIgnoredDuringExecution").items() {
            self.node_term(&term.get("preference"));
        }
    }

    fn node_term(&mut self, term: &Field<'_>) {
        for expression in term.get("matchExpressions").items() {
            let key = expression.get("key");
            if let Some(what) = old_label(key.text()) {
                self.tell(&key, &format!("{} is {what}", key.text()));
            }
        }
    }

    fn spread(&mut self, constraints: &Field<'_>) {
        for constraint in constraints.items() {
            let key = constraint.get("topologyKey");
            if let Some(what) = old_label(key.text()) {
                self.tell(&key, &format!("{} is {what}", key.text()));
            }
            if !constraint.get("labelSelector").exists() {
                self.tell(&constraint.get("labelSelector"), NO_SELECTOR);
            }
        }
    }

    fn annotations(&mut self, annotations: &Field<'_>) {
        for (key, what) in ANNOTATIONS {
            if annotations.key(key).exists() {
                self.tell(&annotations.key(key), what);
            }
        }
    }

    fn volumes(&mut self, volumes: &Field<'_>) {
        for volume in volumes.items() {
            for (name, what) in VOLUMES {
                if volume.get(name).exists() {
                    // Upstream spells one of them as it is called, not as it is written.
                    self.tell(&volume.get(if name == "storageos" { "storageOS" } else { name }), what);
                }
                // Upstream looks at claims between these two.
                if name == "glusterfs" {
                    of_claim(&volume.at("ephemeral.volumeClaimTemplate.spec"), self.0);
                }
            }
        }
        let volumes = volumes.items();
        if volumes.iter().map(count_files).sum::<usize>() <= limits::COMPARED {
            volumes.iter().for_each(|volume| self.overlapping(volume));
        }
    }

    /// Files of a volume that get in each other's way.
    fn overlapping(&mut self, volume: &Field<'_>) {
        let name = volume.get("name").text();
        for (of, shown, named) in
            [("configMap", "ConfigMap", "name"), ("secret", "Secret", "secretName"), ("downwardAPI", "DownwardAPI", "")]
        {
            let source = volume.get(of);
            let what = if named.is_empty() { String::new() } else { format!(" {:?}", source.get(named).text()) };
            self.overlaps(&files(&source), &format!("volume {name:?} ({shown}{what}): overlapping paths"));
        }
        let mut all = BTreeSet::new();
        for source in volume.at("projected.sources").items() {
            if source.len() == 0 {
                self.0.push(format!("volume {name:?} (Projected) has no sources provided"));
                continue;
            }
            let Some((what, paths)) = projected(&source) else { continue };
            let words = format!("volume {name:?} (Projected {what}): overlapping paths");
            self.overlaps(&paths, &words);
            let own: BTreeSet<String> = paths.into_iter().collect();
            let mut both: Vec<String> = own.iter().chain(&all).cloned().collect();
            both.sort();
            self.overlaps(&both, &words);
            all.extend(own);
        }
    }

    fn overlaps(&mut self, paths: &[String], words: &str) {
        let mut seen: Vec<&str> = Vec::new();
        for path in paths.iter().map(|path| path.trim_end_matches('/')) {
            let other = seen.iter().find(|seen| seen.starts_with(path) || path.starts_with(**seen));
            if let Some(other) = other.filter(|other| !path.is_empty() && !other.is_empty()) {
                self.0.push(format!("{words}: {path:?} with {other:?}"));
            }
            if !seen.contains(&path) {
                seen.push(path);
            }
        }
    }

    fn repeated(&mut self, spec: &Field<'_>) {
        let mut seen = BTreeSet::new();
        for address in spec.get("hostAliases").items().iter().map(|alias| alias.get("ip")) {
            if !seen.insert(address.text()) {
                self.tell(&address, &format!("duplicate ip {:?}", address.text()));
            }
            self.canonical(&address);
        }
        let (secrets, mut seen) = (spec.get("imagePullSecrets").items(), BTreeSet::new());
        for name in secrets.iter().map(|secret| secret.get("name")) {
            if !seen.insert(name.text()) {
                self.tell(&name, &format!("duplicate name {:?}", name.text()));
            }
        }
        for name in secrets.iter().map(|secret| secret.get("name")).filter(|name| name.text().is_empty()) {
            self.tell(&name, "invalid empty name \"\"");
        }
        for address in spec.at("dnsConfig.nameservers").items() {
            self.canonical(&address);
        }
    }

    /// An address of the newer protocol has one form that is preferred.
    fn canonical(&mut self, address: &Field<'_>) {
        let parsed = check::parse_ip(address.text()).filter(std::net::IpAddr::is_ipv6).map(|parsed| parsed.to_string());
        if let Some(form) = parsed.filter(|form| form != address.text()) {
            let text = address.text();
            self.tell(address, &format!("IPv6 address {text:?} should be in RFC 5952 canonical format ({form:?})"));
        }
    }

    /// An amount of something that has no parts.
    fn whole(&mut self, amount: &Field<'_>) {
        if let Some(quantity) = check::quantity(amount).filter(|quantity| quantity.milli_value() % 1000 != 0) {
            let what = format!("fractional byte value {:?} is invalid, must be an integer", quantity.to_string());
            self.tell(amount, &what);
        }
    }

    fn containers(&mut self, pod: &Field<'_>, spec: &Field<'_>) {
        let annotations = pod.at("metadata.annotations");
        let (seccomp, app_armor) =
            (spec.at("securityContext.seccompProfile"), spec.at("securityContext.appArmorProfile"));
        if !seccomp.exists() && annotations.key(SECCOMP).exists() {
            self.tell(&annotations.key(SECCOMP), USE_SECCOMP);
        }
        // Pods themselves are told of the latter when the field is made of the annotation.
        let is_template = spec.path() != "spec";
        for container in all_containers(spec) {
            let profile = |name: &'static str| container.at("securityContext").get(name);
            let of_this = |prefix: &str| format!("{prefix}{}", container.get("name").text());
            for (prefix, what, has_field) in [
                (SECCOMP_OF, USE_SECCOMP, profile("seccompProfile").exists()),
                (
                    APP_ARMOR_OF,
                    USE_APP_ARMOR,
                    !is_template || app_armor.exists() || profile("appArmorProfile").exists(),
                ),
            ] {
                let key = of_this(prefix);
                let annotation = annotations.key(&key);
                if !has_field && annotation.exists() {
                    self.tell(&annotation, what);
                }
            }
            for resource in WHOLE {
                for list in ["limits", "requests"] {
                    self.whole(&container.get("resources").get(list).key(resource));
                }
            }
            self.variables(&container.get("env"));
        }
    }

    /// A variable that is there twice is one that was forgotten, unless it is made from the one before.
    fn variables(&mut self, variables: &Field<'_>) {
        let mut seen = BTreeSet::new();
        for variable in variables.items() {
            let (name, value) = (variable.get("name").text(), variable.get("value").text());
            let reference = format!("$({name})");
            let is_made_of_it = value.contains(&reference) && value != reference;
            if !seen.insert(name) && (variable.get("valueFrom").exists() || !is_made_of_it) {
                let what = format!("hides previous definition of {name:?}, which may be dropped when using apply");
                self.tell(&variable, &what);
            }
        }
    }

    fn ports(&mut self, spec: &Field<'_>) {
        let mut seen: BTreeMap<(i64, &str), Vec<Field<'_>>> = BTreeMap::new();
        let ports: Vec<_> = all_containers(spec).iter().flat_map(|container| container.get("ports").items()).collect();
        if ports.len() > limits::COMPARED {
            return;
        }
        for port in ports {
            let number = |port: &Field<'_>, name: &'static str| port.get(name).int().unwrap_or(0);
            let (address, host) = (port.get("hostIP").text(), number(&port, "hostPort"));
            let (own, protocol) = (number(&port, "containerPort"), port.get("protocol").text());
            if !address.is_empty() && host == 0 {
                let name = port.get("name").text();
                let shown =
                    format!("{{Name:{name} HostPort:{host} ContainerPort:{own} Protocol:{protocol} HostIP:{address}}}");
                self.tell(&port, &format!("hostIP set without hostPort: {shown}"));
            }
            let others = seen.entry((own, protocol)).or_default();
            for other in others.iter() {
                let (other_address, other_host) = (other.get("hostIP").text(), number(other, "hostPort"));
                let how = if address == other_address && host == other_host {
                    "duplicate"
                } else if host == 0 || other_host == 0 {
                    "overlapping"
                } else if host == other_host && address.is_empty() != other_address.is_empty() {
                    "dangerously ambiguous"
                } else {
                    continue;
                };
                self.tell(&port, &format!("{how} port definition with {}", other.path()));
            }
            others.push(port);
        }
    }

    fn affinity(&mut self, affinity: &Field<'_>) {
        for term in affinity.get("requiredDuringSchedulingIgnoredDuringExecution").items() {
            if !term.get("labelSelector").exists() {
                self.tell(&term.get("labelSelector"), NO_SELECTOR);
            }
        }
        for term in affinity.get("preferredDuringSchedulingIgnoredDuringExecution").items() {
            if !term.at("podAffinityTerm.labelSelector").exists() {
                self.tell(&term.at("podAffinityTerm.labelSelector"), NO_SELECTOR);
            }
        }
    }
}

/// What to say about a label of nodes that has got another name.
pub(crate) fn old_label(key: &str) -> Option<&'static str> {
    LABELS.iter().find(|(old, _)| *old == key).map(|(_, what)| *what)
}

/// Files that a volume names.
fn count_files(volume: &Field<'_>) -> usize {
    let listed = |source: &Field<'_>| {
        ["configMap", "secret", "downwardAPI"].iter().map(|of| source.get(of).get("items").len()).sum::<usize>()
    };
    listed(volume) + volume.at("projected.sources").items().iter().map(|source| 1 + listed(source)).sum::<usize>()
}

fn files(source: &Field<'_>) -> Vec<String> {
    source.get("items").items().iter().map(|item| item.get("path").text().to_owned()).collect()
}

/// What a projected source is, and its files.
fn projected(source: &Field<'_>) -> Option<(String, Vec<String>)> {
    for (of, shown) in [("configMap", "ConfigMap"), ("secret", "Secret")] {
        let part = source.get(of);
        if part.get("items").exists() {
            return Some((format!("{shown} {:?}", part.get("name").text()), files(&part)));
        }
    }
    if source.at("downwardAPI.items").exists() {
        return Some(("DownwardAPI".to_owned(), files(&source.get("downwardAPI"))));
    }
    let path = |part: &Field<'_>| vec![part.get("path").text().to_owned()];
    let (token, bundle) = (source.get("serviceAccountToken"), source.get("clusterTrustBundle"));
    if token.exists() {
        return Some(("ServiceAccountToken".to_owned(), path(&token)));
    }
    let named = if bundle.get("name").exists() { bundle.get("name") } else { bundle.get("signerName") };
    bundle.exists().then(|| (format!("ClusterTrustBundle {:?}", named.text()), path(&bundle)))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn told(spec: Value) -> Vec<String> {
        let (pod, mut warnings) = (json!({ "spec": spec }), Vec::new());
        of_pod(&Field::root(&pod), &mut warnings);
        warnings
    }

    #[test]
    fn old_names_of_labels_are_told() {
        let key = "beta.kubernetes.io/os";
        let terms = json!([{"matchExpressions": [{"key": key, "operator": "Exists"}]}]);
        let found = told(json!({
            "nodeSelector": {key: "linux"},
            "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}},
            "topologySpreadConstraints": [{"topologyKey": "zone"}],
        }));
        let what = "deprecated since v1.14; use \"kubernetes.io/os\" instead";
        let place = "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0]";
        assert_eq!(
            found,
            [
                format!("spec.nodeSelector[{key}]: {what}"),
                format!("{place}.matchExpressions[0].key: {key} is {what}"),
                format!("spec.topologySpreadConstraints[0].labelSelector: {NO_SELECTOR}"),
            ]
        );
    }

    #[test]
    fn variables_that_hide_others_are_told() {
        let env = |variables: Value| told(json!({"containers": [{"name": "c", "env": variables}]}));
        let twice = |value: &str| json!([{"name": "X", "value": "a"}, {"name": "X", "value": value}]);
        assert_eq!(env(twice("$(X)b")), [""; 0]);
        let what = "hides previous definition of \"X\", which may be dropped when using apply";
        for value in ["b", "$(X)"] {
            assert_eq!(env(twice(value)), [format!("spec.containers[0].env[1]: {what}")], "{value}");
        }
    }

    #[test]
    fn ports_that_get_in_each_others_way_are_told() {
        let port = |host: i64, address: &str| json!({"containerPort": 80, "protocol": "TCP", "hostPort": host, "hostIP": address});
        let ports = |ports: Value| told(json!({"containers": [{"name": "c", "ports": ports}]}));
        let place = "spec.containers[0].ports[1]";
        let first = "port definition with spec.containers[0].ports[0]";
        for (one, other, how) in [
            (port(0, ""), port(0, ""), "duplicate"),
            (port(0, ""), port(80, ""), "overlapping"),
            (port(80, ""), port(80, "10.0.0.1"), "dangerously ambiguous"),
        ] {
            assert_eq!(ports(json!([one, other])), [format!("{place}: {how} {first}")]);
        }
        assert_eq!(ports(json!([port(80, "10.0.0.2"), port(80, "10.0.0.1")])), [""; 0]);
        let shown = "{Name: HostPort:0 ContainerPort:80 Protocol:TCP HostIP:10.0.0.1}";
        assert_eq!(
            ports(json!([port(0, "10.0.0.1")])),
            [format!("spec.containers[0].ports[0]: hostIP set without hostPort: {shown}")]
        );
    }

    #[test]
    fn files_that_lie_below_each_other_are_told() {
        let items = |paths: [&str; 2]| json!(paths.map(|path| json!({"key": "k", "path": path})));
        let volume = |paths: [&str; 2]| {
            told(json!({"volumes": [{"name": "v", "configMap": {"name": "m", "items": items(paths)}}]}))
        };
        assert_eq!(volume(["a", "b"]), [""; 0]);
        assert_eq!(volume(["a", "a/b"]), ["volume \"v\" (ConfigMap \"m\"): overlapping paths: \"a/b\" with \"a\""]);
        let sources = json!([{"configMap": {"name": "m", "items": items(["a", "b"])}}, {"serviceAccountToken": {"path": "a"}}, {}]);
        assert_eq!(
            told(json!({"volumes": [{"name": "v", "projected": {"sources": sources}}]})),
            [
                "volume \"v\" (Projected ServiceAccountToken): overlapping paths: \"a\" with \"a\"",
                "volume \"v\" (Projected) has no sources provided",
            ]
        );
    }

    #[test]
    fn of_very_many_nothing_is_told() {
        let many = |value: Value| Value::Array(vec![value; 50_000]);
        let token = json!({"serviceAccountToken": {"path": "a"}});
        assert_eq!(told(json!({"volumes": [{"name": "v", "projected": {"sources": many(token)}}]})), [""; 0]);
        let port = json!({"containerPort": 80, "protocol": "TCP"});
        assert_eq!(told(json!({"containers": [{"name": "c", "ports": many(port)}]})), [""; 0]);
    }

    #[test]
    fn amounts_without_parts_and_what_is_there_twice_are_told() {
        let resources = json!({"limits": {"memory": "1500m"}});
        assert_eq!(
            told(json!({
                "containers": [{"name": "c", "resources": resources}], "terminationGracePeriodSeconds": -1,
                "imagePullSecrets": [{"name": "a"}, {"name": "a"}], "hostAliases": [{"ip": "::1"}, {"ip": "0::1"}],
                "volumes": [{"name": "v", "gitRepo": {}}],
            })),
            [
                "spec.volumes[0].gitRepo: deprecated in v1.11, and disabled by default in v1.33+",
                "spec.hostAliases[1].ip: IPv6 address \"0::1\" should be in RFC 5952 canonical format (\"::1\")",
                "spec.imagePullSecrets[1].name: duplicate name \"a\"",
                "spec.containers[0].resources.limits[memory]: fractional byte value \"1500m\" is invalid, must be an integer",
                "spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1",
            ]
        );
    }
}
