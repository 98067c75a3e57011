//! Name resolution of a pod.

use orchestrator_core::status::FieldErrorKind;
use serde_json::Value;

use crate::{
    field::{Errors, Field},
    kinds::check,
    names,
};

/// Length of the name of a machine, in bytes: that of Linux.
const HOST_NAME_BYTES: usize = 64;
const NAME_SERVERS: usize = 3;
const SEARCH_PATHS: usize = 32;
const SEARCH_PATH_LETTERS: usize = 2048;

/// The rules of the policy of name resolution.
pub(super) fn dns_policy(spec: &Field<'_>, errors: &mut Errors) {
    let policy = spec.get("dnsPolicy");
    if policy.text().is_empty() {
        policy.required(errors, "");
    } else {
        policy.one_of(errors, &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"]);
    }
}

/// The rules of the settings of name resolution.
pub(super) fn dns_config(spec: &Field<'_>, errors: &mut Errors) {
    let config = spec.get("dnsConfig");
    let servers = config.get("nameservers");
    if spec.get("dnsPolicy").text() == "None" {
        if !config.exists() {
            return config.required(errors, "must provide `dnsConfig` when `dnsPolicy` is None");
        }
        if servers.len() == 0 {
            return servers.required(errors, "must provide at least one DNS nameserver when `dnsPolicy` is None");
        }
    }
    if servers.len() > NAME_SERVERS {
        servers.invalid(errors, &format!("must not have more than {NAME_SERVERS} nameservers"));
    }
    for server in servers.items() {
        check::ip(&server, errors);
    }
    let searches = config.get("searches");
    if searches.len() > SEARCH_PATHS {
        searches.invalid(errors, &format!("must not have more than {SEARCH_PATHS} search paths"));
    }
    let letters: usize = searches.items().iter().map(|path| path.len() + 1).sum();
    if letters > SEARCH_PATH_LETTERS + 1 {
        let detail =
            format!("must not have more than {SEARCH_PATH_LETTERS} characters (including spaces) in the search list");
        searches.invalid(errors, &detail);
    }
    for path in searches.items().iter().filter(|path| path.text() != ".") {
        let text = path.text().strip_suffix('.').unwrap_or(path.text());
        for problem in names::subdomain_with_underscore(text) {
            path.wrong(errors, Value::from(text), &problem);
        }
    }
    for option in config.get("options").items() {
        if option.get("name").text().is_empty() {
            option.required(errors, "must not be empty");
        }
    }
}

/// The rules of a name that a pod has on its machine instead of its own.
pub(super) fn host_name(spec: &Field<'_>, errors: &mut Errors) {
    let name = spec.get("hostnameOverride");
    if !name.exists() {
        return;
    }
    for other in ["setHostnameAsFQDN", "hostNetwork"] {
        if spec.get(other).bool() == Some(true) {
            name.forbidden(errors, &format!("may not be specified when {other} is true"));
        }
    }
    if name.text().len() > HOST_NAME_BYTES {
        name.error(errors, FieldErrorKind::TooLong, format!("may not be more than {HOST_NAME_BYTES} bytes"));
    }
    check::problems(&name, &names::subdomain(name.text()), errors);
}

/// The rules of additional lines of the hosts file.
pub(super) fn host_aliases(aliases: &Field<'_>, errors: &mut Errors) {
    for alias in aliases.items() {
        check::ip(&alias.get("ip"), errors);
        for name in alias.get("hostnames").items() {
            check::problems(&name, &names::subdomain(name.text()), errors);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(rule: fn(&Field<'_>, &mut Errors), spec: Value) -> Vec<String> {
        let mut errors = Errors::default();
        rule(&Field::root(&spec), &mut errors);
        errors.into_vec().into_iter().map(|error| format!("{}: {}", error.field, error.detail)).collect()
    }

    #[test]
    fn names_of_machines_are_short_and_stand_alone() {
        let named = |name: &str| json!({"hostnameOverride": name});
        assert_eq!(told(host_name, named("a.example.com")), [""; 0]);
        let long = vec!["a".repeat(32); 3].join(".");
        assert_eq!(told(host_name, named(&long)), ["hostnameOverride: may not be more than 64 bytes"]);
        let mut spec = named("a");
        spec["setHostnameAsFQDN"] = true.into();
        spec["hostNetwork"] = true.into();
        assert_eq!(
            told(host_name, spec),
            [
                "hostnameOverride: may not be specified when setHostnameAsFQDN is true",
                "hostnameOverride: may not be specified when hostNetwork is true",
            ]
        );
    }

    #[test]
    fn search_paths_may_have_underscores() {
        let paths = |path: &str| told(dns_config, json!({"dnsConfig": {"searches": [path]}}));
        for path in ["_tcp.example.com", "a_b.example.com.", "."] {
            assert_eq!(paths(path), [""; 0], "{path}");
        }
        let found = paths("a..b.");
        assert!(
            found[0].starts_with("dnsConfig.searches[0]: \"a..b\": a lowercase RFC 1123 subdomain must"),
            "{found:?}"
        );
    }
}
