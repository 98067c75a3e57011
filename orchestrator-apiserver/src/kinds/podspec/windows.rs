//! What pods for Windows say, and what only they may say.
//!
//! Upstream: `validateWindows…` and `validateLinux` of `pkg/apis/core/validation/validation.go`.

use std::sync::LazyLock;

use regex::Regex;

use super::all_containers;
use crate::{
    field::{Errors, Field},
    names,
};

const CREDENTIALS_KIB: usize = 64;
const DOMAIN_LETTERS: usize = 256;
const USER_LETTERS: usize = 104;
/// What the security context of a pod for Windows cannot say, by where it stands now: in the context, or in the spec.
const NOT_OF_PODS: [(&str, bool); 15] = [
    ("appArmorProfile", true),
    ("seLinuxOptions", true),
    ("hostUsers", false),
    ("hostPID", false),
    ("hostIPC", false),
    ("seccompProfile", true),
    ("fsGroup", true),
    ("fsGroupChangePolicy", true),
    ("sysctls", true),
    ("shareProcessNamespace", false),
    ("runAsUser", true),
    ("runAsGroup", true),
    ("supplementalGroups", true),
    ("supplementalGroupsPolicy", true),
    ("seLinuxChangePolicy", true),
];
const NOT_OF_CONTAINERS: [&str; 10] = [
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "capabilities",
    "readOnlyRootFilesystem",
    "privileged",
    "allowPrivilegeEscalation",
    "procMount",
    "runAsUser",
    "runAsGroup",
];

static NET_BIOS: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r#"^[^\\/:\*\?"<>|\.][^\\/:\*\?"<>|]{0,14}$"#).ok());

/// Refuses what only Windows understands.
pub(super) fn not_on_linux(spec: &Field<'_>, errors: &mut Errors) {
    let contexts = all_containers(spec).into_iter().map(|container| container.get("securityContext"));
    for context in [spec.get("securityContext")].into_iter().chain(contexts) {
        let options = context.get("windowsOptions");
        if options.exists() {
            options.forbidden(errors, "windows options cannot be set for a linux pod");
        }
    }
}

/// Refuses what Windows does not understand.
pub(super) fn only(spec: &Field<'_>, errors: &mut Errors) {
    const WHY: &str = "cannot be set for a windows pod";
    let context = spec.get("securityContext");
    for (name, in_context) in NOT_OF_PODS {
        let field = if in_context { context.get(name) } else { spec.get(name) };
        let is_said = match name {
            "hostPID" | "hostIPC" => field.bool() == Some(true),
            "sysctls" => field.len() > 0,
            _ => field.exists(),
        };
        if context.exists() && is_said {
            field.forbidden(errors, WHY);
        }
    }
    for container in all_containers(spec) {
        for name in NOT_OF_CONTAINERS {
            let field = container.get("securityContext").get(name);
            if field.exists() {
                field.forbidden(errors, WHY);
            }
        }
    }
}

/// Either all containers are processes of the host or none is, and those that are use its network.
pub(super) fn host_process(spec: &Field<'_>, errors: &mut Errors) {
    const PATH: &str = "securityContext.windowsOptions.hostProcess";
    let whole = spec.at(PATH).bool();
    let containers = all_containers(spec);
    let mut on_host = 0;
    for container in &containers {
        let own = container.at(PATH);
        if let (Some(whole), Some(own_value)) = (whole, own.bool())
            && whole != own_value
        {
            own.invalid(errors, &format!("pod hostProcess value must be identical if both are specified, was {whole}"));
        }
        on_host += usize::from(own.bool().or(whole) == Some(true));
    }
    if on_host == 0 {
        return;
    }
    if on_host != containers.len() {
        let detail = "If pod contains any hostProcess containers then all containers must be HostProcess containers";
        spec.wrong(errors, "\"\"", detail);
    }
    if spec.get("hostNetwork").bool() != Some(true) {
        let detail = "hostNetwork must be true if pod contains any hostProcess containers";
        spec.get("hostNetwork").wrong(errors, false, detail);
    }
}

/// The rules of the options themselves.
pub(super) fn options(options: &Field<'_>, errors: &mut Errors) {
    let (name, content) = (options.get("gmsaCredentialSpecName"), options.get("gmsaCredentialSpec"));
    if name.exists() {
        for problem in names::subdomain(name.text()) {
            name.invalid(errors, &problem);
        }
    }
    if content.exists() && content.text().is_empty() {
        content.invalid(errors, "gmsaCredentialSpec cannot be an empty string");
    } else if content.text().len() > CREDENTIALS_KIB << 10 {
        content.invalid(errors, &format!("gmsaCredentialSpec size must be under {CREDENTIALS_KIB} KiB"));
    }
    let user = options.get("runAsUserName");
    if user.exists() {
        user_problems(user.text()).iter().for_each(|problem| user.invalid(errors, problem));
    }
}

/// What is wrong with the name of a user, alone or behind that of a domain.
fn user_problems(text: &str) -> Vec<String> {
    let one = |problem: &str| vec![problem.to_owned()];
    let parts: Vec<&str> = text.split('\\').collect();
    let (domain, user) = match parts.as_slice() {
        _ if text.is_empty() => return one("runAsUserName cannot be an empty string"),
        _ if text.chars().any(|letter| letter.is_ascii_control()) => {
            return one("runAsUserName cannot contain control characters");
        }
        [user] => (None, *user),
        [domain, user] => (Some(*domain), *user),
        _ => return one("runAsUserName cannot contain more than one backslash"),
    };
    let mut problems = Vec::new();
    if domain.is_some_and(|domain| domain.len() >= DOMAIN_LETTERS) {
        problems.push(format!("runAsUserName's Domain length must be under {DOMAIN_LETTERS} characters"));
    }
    if domain.is_some_and(|domain| !is_domain(domain)) {
        problems.push("runAsUserName's Domain doesn't match the NetBios nor the DNS format".to_owned());
    }
    if user.is_empty() {
        problems.push("runAsUserName's User cannot be empty".to_owned());
    } else if user.len() > USER_LETTERS {
        problems.push(format!("runAsUserName's User length must not be longer than {USER_LETTERS} characters"));
    }
    if !user.is_empty() && user.chars().all(|letter| matches!(letter, '.' | ' ')) {
        problems.push("runAsUserName's User cannot contain only periods or spaces".to_owned());
    }
    if user.contains(|letter| r#""/\:;|=,+*?<>@[]"#.contains(letter)) {
        problems.push(r#"runAsUserName's User cannot contain the following characters: "/\:;|=,+*?<>@[]"#.to_owned());
    }
    problems
}

/// A domain as NetBIOS names them, or as DNS does, in any case.
fn is_domain(text: &str) -> bool {
    NET_BIOS.as_ref().is_some_and(|form| form.is_match(text)) || names::subdomain(&text.to_lowercase()).is_empty()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn broken(rule: fn(&Field<'_>, &mut Errors), spec: &Value) -> Vec<String> {
        let mut errors = Errors::default();
        rule(&Field::root(spec), &mut errors);
        errors.into_vec().into_iter().map(|error| error.field).collect()
    }

    #[test]
    fn each_system_has_its_own_fields() {
        let options = json!({"windowsOptions": {}});
        let spec = json!({"securityContext": options, "containers": [{"securityContext": options}]});
        let found = broken(not_on_linux, &spec);
        assert_eq!(found, ["securityContext.windowsOptions", "containers[0].securityContext.windowsOptions"]);
        assert_eq!(broken(only, &spec), [""; 0]);
        let spec = json!({
            "hostPID": true,
            "securityContext": {"fsGroup": 1},
            "containers": [{"securityContext": {"procMount": "Default"}}],
        });
        assert_eq!(broken(not_on_linux, &spec), [""; 0]);
        assert_eq!(
            broken(only, &spec),
            ["hostPID", "securityContext.fsGroup", "containers[0].securityContext.procMount"]
        );
    }

    #[test]
    fn all_containers_are_processes_of_the_host_or_none() {
        let on_host = |flag: bool| json!({"securityContext": {"windowsOptions": {"hostProcess": flag}}});
        let spec = json!({"hostNetwork": true, "containers": [on_host(true), on_host(true)]});
        assert_eq!(broken(host_process, &spec), [""; 0]);
        let spec = json!({"containers": [on_host(true), on_host(false)]});
        assert_eq!(broken(host_process, &spec), ["", "hostNetwork"]);
        let mut spec = on_host(true);
        spec["containers"] = json!([on_host(false)]);
        assert_eq!(broken(host_process, &spec).len(), 1);
    }

    #[test]
    fn users_have_names() {
        for name in ["user", r"DOMAIN\user", r"a.example.com\user"] {
            assert_eq!(user_problems(name), [""; 0], "{name}");
        }
        for name in ["", "a\u{7}", r"a\b\c", r".x\user", "..", "a@b", r"a\"] {
            assert_eq!(user_problems(name).len(), 1, "{name}");
        }
    }
}
