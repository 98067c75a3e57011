//! Name resolution of a pod.

use crate::{
    field::{Errors, Field},
    kinds::check,
    names,
};

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
        check::problems(path, &names::subdomain(&text.replace('_', "-")), errors);
    }
    for option in config.get("options").items() {
        if option.get("name").text().is_empty() {
            option.required(errors, "must not be empty");
        }
    }
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
