//! Which AppArmor profile confines a container, on a kernel that has AppArmor.

use std::fs;

use orchestrator_core::runtime::{AppArmorProfile, RuntimeError, SecurityContext};

/// Whether the kernel confines by profiles.
const ENABLED: &str = "/sys/module/apparmor/parameters/enabled";
/// The profiles that it has loaded, a line each: the name and the mode in parentheses.
const PROFILES: &str = "/sys/kernel/security/apparmor/profiles";

/// The name of the profile of a container, if it has one. `default` is that of containers that name none.
pub(crate) fn profile(security: &SecurityContext, default: Option<&str>) -> Result<Option<String>, RuntimeError> {
    let enabled = fs::read_to_string(ENABLED).is_ok_and(|text| text.starts_with('Y'));
    let loaded = || {
        fs::read_to_string(PROFILES)
            .map_err(|error| RuntimeError::internal("reading the names of AppArmor profiles", error))
    };
    choose(security, default, enabled.then(loaded).transpose()?.as_deref())
}

/// `loaded` is what the kernel says of its profiles; `None` for one without AppArmor.
fn choose(
    security: &SecurityContext,
    default: Option<&str>,
    loaded: Option<&str>,
) -> Result<Option<String>, RuntimeError> {
    let asked = security.apparmor_profile.as_ref();
    let Some(loaded) = loaded else {
        return match asked {
            None | Some(AppArmorProfile::Unconfined) => Ok(None),
            Some(profile) => Err(RuntimeError::Unsupported(format!(
                "the AppArmor profile {}: the machine's kernel has no AppArmor",
                describe(profile)
            ))),
        };
    };
    let name = match (asked, default) {
        (Some(AppArmorProfile::Unconfined), _) => return Ok(Some("unconfined".to_owned())),
        (Some(AppArmorProfile::Localhost(name)), _) => name,
        // As containerd has it: nothing but a name confines what is privileged.
        (None | Some(AppArmorProfile::RuntimeDefault), _) if security.privileged => return Ok(None),
        (None, None) => return Ok(None),
        (Some(AppArmorProfile::RuntimeDefault), None) => {
            let message = "the AppArmor profile RuntimeDefault: the runtime was told of none";
            return Err(RuntimeError::Unsupported(message.to_owned()));
        }
        (_, Some(name)) => name,
    };
    let is_loaded = loaded.lines().any(|line| line.rsplit_once(" (").is_some_and(|(known, _)| known == name));
    if is_loaded {
        Ok(Some(name.to_owned()))
    } else {
        Err(RuntimeError::Invalid(format!("the AppArmor profile {name:?}, which is not loaded")))
    }
}

fn describe(profile: &AppArmorProfile) -> String {
    match profile {
        AppArmorProfile::Unconfined => "Unconfined".to_owned(),
        AppArmorProfile::RuntimeDefault => "RuntimeDefault".to_owned(),
        AppArmorProfile::Localhost(name) => format!("{name:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOADED: Option<&str> = Some("containers (enforce)\n/usr/bin/man (complain)\na name (enforce)\n");

    fn asking(profile: impl Into<Option<AppArmorProfile>>) -> SecurityContext {
        SecurityContext { apparmor_profile: profile.into(), ..SecurityContext::default() }
    }

    #[test]
    fn profiles_are_had_or_refused() {
        let name = |name: &str| AppArmorProfile::Localhost(name.to_owned());
        let chosen = |profile, default| choose(&asking(profile), default, LOADED).unwrap();
        assert_eq!(chosen(Some(name("a name")), None).as_deref(), Some("a name"));
        assert_eq!(chosen(Some(AppArmorProfile::Unconfined), Some("containers")).as_deref(), Some("unconfined"));
        assert_eq!(chosen(None, Some("containers")).as_deref(), Some("containers"));
        assert_eq!(chosen(None, None), None);
        let refused = choose(&asking(name("a")), None, LOADED);
        assert!(matches!(&refused, Err(RuntimeError::Invalid(why)) if why.contains("\"a\"")), "{refused:?}");
        let refused = choose(&asking(AppArmorProfile::RuntimeDefault), None, LOADED);
        assert!(matches!(refused, Err(RuntimeError::Unsupported(_))), "{refused:?}");
        let privileged = SecurityContext { privileged: true, ..asking(AppArmorProfile::RuntimeDefault) };
        assert_eq!(choose(&privileged, Some("containers"), LOADED).unwrap(), None);
    }

    #[test]
    fn without_apparmor() {
        assert_eq!(choose(&asking(None), Some("containers"), None).unwrap(), None);
        assert_eq!(choose(&asking(AppArmorProfile::Unconfined), None, None).unwrap(), None);
        for profile in [AppArmorProfile::RuntimeDefault, AppArmorProfile::Localhost("web".to_owned())] {
            let refused = choose(&asking(profile.clone()), None, None);
            let named = matches!(&refused, Err(RuntimeError::Unsupported(why)) if why.contains(&describe(&profile)));
            assert!(named, "{refused:?}");
        }
    }
}
