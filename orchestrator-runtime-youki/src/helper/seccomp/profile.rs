//! A profile that a file of the machine holds, in the form of the OCI runtime specification.
//!
//! <https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#seccomp>

use std::collections::{BTreeMap, btree_map::Entry as MapEntry};

use nix::libc;
use seccompiler::{SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule};
use serde::Deserialize;

use super::{Filters, Rules, number};

/// What is allowed and what is not. What this runtime does not do is refused when it is read.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Profile {
    default_action: String,
    #[serde(default)]
    default_errno_ret: Option<u32>,
    #[serde(default)]
    architectures: Vec<String>,
    #[serde(default)]
    flags: Vec<String>,
    #[serde(default)]
    syscalls: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Entry {
    names: Vec<String>,
    action: String,
    #[serde(default)]
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Vec<Argument>,
    #[serde(default, rename = "comment")]
    _comment: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Argument {
    index: u8,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

/// This machine's architecture, in the words of profiles.
const ARCHITECTURE: &str = if cfg!(target_arch = "aarch64") { "SCMP_ARCH_AARCH64" } else { "SCMP_ARCH_X86_64" };

impl Profile {
    /// Reads a profile.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let profile: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if !profile.flags.is_empty() {
            return Err(format!("the flags {:?}", profile.flags));
        }
        if !profile.architectures.is_empty() && !profile.architectures.iter().any(|name| name == ARCHITECTURE) {
            return Err(format!("it is for {:?}, not for {ARCHITECTURE}", profile.architectures));
        }
        profile.filters()?;
        Ok(profile)
    }

    /// The programs: one for what the profile allows or forbids first of all, and one for each other action.
    pub(super) fn filters(&self) -> Result<Filters, String> {
        let default = action(&self.default_action, self.default_errno_ret)?;
        let mut by_action: BTreeMap<u32, (SeccompAction, Rules)> = BTreeMap::new();
        let mut seen: BTreeMap<i64, u32> = BTreeMap::new();
        let is_open = matches!(default, SeccompAction::Allow | SeccompAction::Log);
        for entry in &self.syscalls {
            let action = action(&entry.action, entry.errno_ret)?;
            let key = u32::from(action.clone());
            if action == default {
                continue;
            }
            // A program that allows some calls cannot tell for which arguments another one takes them away.
            if !is_open && action != SeccompAction::Allow && !entry.args.is_empty() {
                return Err(format!(
                    "{} of {:?} by its arguments, in a profile that forbids",
                    entry.action, entry.names
                ));
            }
            let rule = entry.rule()?;
            // What this machine does not have, nobody can call.
            for number in entry.names.iter().filter_map(|name| number(name)) {
                if *seen.entry(number).or_insert(key) != key {
                    return Err(format!("several actions for one of {:?}", entry.names));
                }
                let rules = by_action.entry(key).or_insert_with(|| (action.clone(), Rules::new()));
                match (rules.1.entry(number), &rule) {
                    (MapEntry::Vacant(place), rule) => {
                        place.insert(rule.iter().cloned().collect());
                    }
                    (MapEntry::Occupied(known), None) => known.into_mut().clear(),
                    // Without rules it is meant whatever its arguments are, and stays so.
                    (MapEntry::Occupied(known), Some(_)) if known.get().is_empty() => {}
                    (MapEntry::Occupied(known), Some(rule)) => known.into_mut().push(rule.clone()),
                }
            }
        }
        let mut filters = Filters::default();
        if !is_open {
            let allowed = by_action.remove(&u32::from(SeccompAction::Allow)).map(|(_, rules)| rules);
            let mut allowed = allowed.unwrap_or_default();
            // Their own programs say what becomes of these.
            allowed.extend(by_action.values().flat_map(|(_, rules)| rules.keys().map(|number| (*number, Vec::new()))));
            filters.add(allowed, SeccompAction::Allow, default)?;
        } else if default != SeccompAction::Allow {
            filters.add(Rules::new(), SeccompAction::Allow, default)?;
        }
        for (action, rules) in by_action.into_values().filter(|(action, _)| *action != SeccompAction::Allow) {
            filters.add(rules, action, SeccompAction::Allow)?;
        }
        Ok(filters)
    }
}

impl Entry {
    /// All of its arguments must be as told; `None` means the calls whatever their arguments are.
    fn rule(&self) -> Result<Option<SeccompRule>, String> {
        if self.args.is_empty() {
            return Ok(None);
        }
        let conditions = self.args.iter().map(Argument::condition).collect::<Result<Vec<_>, _>>()?;
        SeccompRule::new(conditions).map(Some).map_err(|error| error.to_string())
    }
}

impl Argument {
    fn condition(&self) -> Result<SeccompCondition, String> {
        let (operator, value) = match self.op.as_str() {
            "SCMP_CMP_EQ" => (SeccompCmpOp::Eq, self.value),
            "SCMP_CMP_NE" => (SeccompCmpOp::Ne, self.value),
            "SCMP_CMP_LT" => (SeccompCmpOp::Lt, self.value),
            "SCMP_CMP_LE" => (SeccompCmpOp::Le, self.value),
            "SCMP_CMP_GE" => (SeccompCmpOp::Ge, self.value),
            "SCMP_CMP_GT" => (SeccompCmpOp::Gt, self.value),
            "SCMP_CMP_MASKED_EQ" => (SeccompCmpOp::MaskedEq(self.value), self.value_two),
            other => return Err(format!("the operator {other:?}")),
        };
        SeccompCondition::new(self.index, SeccompCmpArgLen::Qword, operator, value).map_err(|error| error.to_string())
    }
}

fn action(name: &str, errno: Option<u32>) -> Result<SeccompAction, String> {
    let default_errno = u32::try_from(libc::EPERM).unwrap_or_default();
    match name {
        "SCMP_ACT_ALLOW" => Ok(SeccompAction::Allow),
        "SCMP_ACT_ERRNO" => Ok(SeccompAction::Errno(errno.unwrap_or(default_errno))),
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Ok(SeccompAction::KillThread),
        "SCMP_ACT_KILL_PROCESS" => Ok(SeccompAction::KillProcess),
        "SCMP_ACT_LOG" => Ok(SeccompAction::Log),
        "SCMP_ACT_TRAP" => Ok(SeccompAction::Trap),
        other => Err(format!("the action {other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(text: &str) -> Result<usize, String> {
        Profile::read(text).and_then(|profile| profile.filters()).map(|filters| filters.0.len())
    }

    #[test]
    fn profiles_become_programs() {
        assert_eq!(count(r#"{"defaultAction": "SCMP_ACT_ALLOW"}"#), Ok(0));
        let deny = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["mkdir", "no_such_call"], "action": "SCMP_ACT_ERRNO"},
            {"names": ["reboot"], "action": "SCMP_ACT_KILL"}]}"#;
        assert_eq!(count(deny), Ok(2));
        let allow = r#"{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"],
            "syscalls": [{"names": ["read", "write"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]},
            {"names": ["reboot"], "action": "SCMP_ACT_KILL"}]}"#;
        assert_eq!(count(allow), Ok(2));
    }

    #[test]
    fn what_is_not_done_is_refused() {
        for (text, why) in [
            ("", "EOF"),
            (r#"{"defaultAction": "SCMP_ACT_NOTIFY"}"#, "SCMP_ACT_NOTIFY"),
            (r#"{"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/x"}"#, "listenerPath"),
            (r#"{"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_LOG"]}"#, "flags"),
            (r#"{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_S390X"]}"#, "S390X"),
            (
                r#"{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_LOG",
                "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]}]}"#,
                "by its arguments",
            ),
            (
                r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ERRNO"},
                {"names": ["read"], "action": "SCMP_ACT_KILL"}]}"#,
                "several actions",
            ),
            (
                r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ERRNO",
                "args": [{"index": 9, "value": 1, "op": "SCMP_CMP_EQ"}]}]}"#,
                "",
            ),
        ] {
            let error = count(text).expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
