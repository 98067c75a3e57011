//! Who a container's processes are: numbers, where image and pod may have said names.
//!
//! Names are looked up in the files of the container's own root, as CRI runtimes do.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use orchestrator_core::runtime::SupplementalGroupsPolicy;
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

use crate::{
    limits::ACCOUNTS_BYTES,
    protocol::{Failure, FailureKind},
    records::{ContainerRecord, RootFileSystem},
};

/// Numbers of user and groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) user: u32,
    pub(super) group: u32,
    pub(super) further_groups: Vec<u32>,
}

impl Identity {
    /// Refuses who is not among so many users and groups, as a pod with a user namespace has them.
    pub(super) fn check(&self, count: u32) -> Result<(), Failure> {
        let mut ids = [self.user, self.group].into_iter().chain(self.further_groups.iter().copied());
        match ids.find(|id| *id >= count) {
            Some(id) => {
                let message = format!("the user or group {id} in a pod with {count} of them");
                Err(Failure::new(FailureKind::Invalid, message))
            }
            None => Ok(()),
        }
    }
}

/// The accounts of a root: the text of `passwd` and of `group`.
#[derive(Debug, Default)]
struct Accounts {
    users: String,
    groups: String,
}

/// A line of `passwd`.
struct User<'a> {
    name: &'a str,
    user: u32,
    group: u32,
}

/// What a container's configuration and image ask for.
#[derive(Debug, Default)]
struct Asked<'a> {
    user: Option<u32>,
    group: Option<u32>,
    further_groups: Vec<u32>,
    /// The groups that the root's own files put the user in are not added.
    strict: bool,
    /// `user` or `user:group`, of names or numbers.
    of_image: &'a str,
}

/// Who a container's processes are; its root is mounted already.
pub(super) fn of(record: &ContainerRecord, root: &Path) -> Result<Identity, Failure> {
    let failed = |error: io::Error| Failure::internal("reading the image's accounts", error);
    let root = File::open(root).map_err(failed)?;
    let accounts = Accounts {
        users: read(&root, "etc/passwd").map_err(failed)?,
        groups: read(&root, "etc/group").map_err(failed)?,
    };
    let of_machine = record.image.user.map(|user| user.to_string());
    let of_image = match &record.root {
        RootFileSystem::Machine => of_machine.as_deref(),
        RootFileSystem::Layers { user, .. } => user.as_deref(),
    };
    let security = &record.config.security;
    // Numbers were checked before the container was written down.
    let number = |id: i64| u32::try_from(id).unwrap_or(u32::MAX);
    let asked = Asked {
        user: security.run_as_user.map(number),
        group: security.run_as_group.map(number),
        further_groups: security.supplemental_groups.iter().map(|group| number(*group)).collect(),
        strict: security.supplemental_groups_policy == SupplementalGroupsPolicy::Strict,
        of_image: of_image.unwrap_or_default(),
    };
    accounts.resolve(&asked).map_err(|message| Failure::new(FailureKind::StartFailed, message))
}

impl Accounts {
    fn resolve(&self, asked: &Asked<'_>) -> Result<Identity, String> {
        let (name, group_name) = match asked.of_image.split_once(':') {
            Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
            None => (asked.of_image, None),
        };
        let number = asked.user.or_else(|| if name.is_empty() { Some(0) } else { name.parse().ok() });
        let known = match number {
            Some(number) => self.users().find(|known| known.user == number),
            None => {
                let missing = || format!("unable to find user {name}: no matching entries in passwd file");
                Some(self.users().find(|known| known.name == name).ok_or_else(missing)?)
            }
        };
        let user = number.or_else(|| known.as_ref().map(|known| known.user)).unwrap_or(0);
        let group = match (asked.group, group_name) {
            (Some(group), _) => group,
            // Who is told to be somebody else is not in the image's group.
            (None, Some(group)) if asked.user.is_none() => self.group(group)?,
            _ => known.as_ref().map_or(0, |known| known.group),
        };
        let mut further_groups = asked.further_groups.clone();
        if !asked.strict
            && let Some(known) = &known
        {
            further_groups.extend(self.groups_of(known.name));
        }
        further_groups.sort_unstable();
        further_groups.dedup();
        Ok(Identity { user, group, further_groups })
    }

    fn users(&self) -> impl Iterator<Item = User<'_>> {
        self.users.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let (name, user, group) = (fields.next()?, fields.nth(1)?, fields.next()?);
            Some(User { name, user: user.parse().ok()?, group: group.parse().ok()? })
        })
    }

    fn group(&self, text: &str) -> Result<u32, String> {
        let named = |line: &str| {
            let mut fields = line.split(':');
            (fields.next()? == text).then(|| fields.nth(1)?.parse().ok()).flatten()
        };
        let found = text.parse().ok().or_else(|| self.groups.lines().find_map(named));
        found.ok_or_else(|| format!("unable to find group {text}: no matching entries in group file"))
    }

    /// The groups that list this user.
    fn groups_of(&self, user: &str) -> impl Iterator<Item = u32> {
        self.groups.lines().filter_map(move |line| {
            let mut fields = line.split(':');
            let (group, members) = (fields.nth(2)?, fields.next()?);
            members.split(',').any(|member| member == user).then(|| group.parse().ok()).flatten()
        })
    }
}

/// A file of the root, empty where there is none. No link leads out of the root.
fn read(root: &File, path: &str) -> io::Result<String> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = match openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS) {
        Ok(file) => File::from(file),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(String::new()),
        Err(error) => return Err(error.into()),
    };
    if !file.metadata()?.is_file() {
        return Ok(String::new());
    }
    let mut bytes = Vec::new();
    file.take(ACCOUNTS_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > ACCOUNTS_BYTES {
        return Err(io::Error::other(format!("/{path} is longer than {ACCOUNTS_BYTES} bytes")));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts() -> Accounts {
        Accounts {
            users: "root:x:0:0:root:/root:/bin/sh\nbroken\nweb:x:33:44:w:/srv:/bin/false\n".to_owned(),
            groups: "root:x:0:\nwww:x:44:\nmedia:x:50:other,web\nwheel:x:10:root,web\n".to_owned(),
        }
    }

    fn identity(user: u32, group: u32, further_groups: &[u32]) -> Result<Identity, String> {
        Ok(Identity { user, group, further_groups: further_groups.to_vec() })
    }

    #[test]
    fn names_and_numbers_of_the_image() {
        let of_image = |text| accounts().resolve(&Asked { of_image: text, ..Asked::default() });
        assert_eq!(of_image(""), identity(0, 0, &[10]));
        assert_eq!(of_image("web"), identity(33, 44, &[10, 50]));
        assert_eq!(of_image("33"), identity(33, 44, &[10, 50]));
        assert_eq!(of_image("web:media"), identity(33, 50, &[10, 50]));
        assert_eq!(of_image("7:9"), identity(7, 9, &[]));
        assert_eq!(of_image("7"), identity(7, 0, &[]));
        assert!(of_image("nobody").unwrap_err().contains("unable to find user nobody"));
        assert!(of_image("web:none").unwrap_err().contains("unable to find group none"));
    }

    #[test]
    fn the_pod_has_the_last_word() {
        let asked = Asked { user: Some(33), of_image: "0:media", further_groups: vec![7], ..Asked::default() };
        assert_eq!(accounts().resolve(&asked), identity(33, 44, &[7, 10, 50]));
        let asked = Asked { user: Some(5), group: Some(6), strict: true, ..Asked::default() };
        assert_eq!(accounts().resolve(&asked), identity(5, 6, &[]));
        let asked = Asked { strict: true, of_image: "web", ..Asked::default() };
        assert_eq!(accounts().resolve(&asked), identity(33, 44, &[]));
    }
}
